"""Each mistake that a host can make has a message of its own: expected, got, and the fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from syncdisc_plugin.errors import WeightsError
from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.sync_loss import SyncLoss
from syncdisc_plugin.weights import save

FRAMES, MEL = torch.rand(2, 3, 5, 96, 96), torch.rand(2, 1, 80, 16) * 8 - 4
Build = Callable[..., SyncLoss]


def faces(*shape: int) -> torch.Tensor:
    return torch.rand(shape)


def mel(*shape: int) -> torch.Tensor:
    return torch.rand(shape) * 8 - 4


def wave(*shape: int) -> torch.Tensor:
    return torch.rand(shape) - 0.5


# What is done wrong -> (how, what was expected, what came, the fix), the last three as they must
# stand in the message.
MISTAKES: dict[str, tuple[Callable[[Build], object], str, str, str]] = {
    # frames: shape
    "frames as a list": (
        lambda s: s()([FRAMES[:, :, i] for i in range(5)], MEL),
        "frames: expected a tensor",
        "got list",
        "torch.stack",
    ),
    "single frames": (
        lambda s: s()(faces(10, 3, 96, 96), mel(10, 1, 80, 16)),
        "T >= 5 consecutive frames",
        "(10, 3, 96, 96) are single frames, or flattened",
        "n_frames=T",
    ),
    "one frame of each video": (
        lambda s: s(n_frames=1)(faces(4, 3, 96, 96), mel(4, 1, 80, 16)),
        "at least 5 consecutive frames per item",
        "got single frames: (4, 1, 3, 96, 96)",
        'layout="(b t) c h w" with n_frames=5',
    ),
    "too few frames": (
        lambda s: s()(faces(2, 3, 4, 96, 96), MEL),
        "at least 5 consecutive frames",
        "got 4 frames per item",
        "make 5 consecutive frames",
    ),
    "30 fps, and still five frames": (
        lambda s: s(fps=30)(FRAMES, MEL),
        "at least 6 consecutive frames per item at 30 fps (5 at 25)",
        "got 5 frames per item",
        "n_frames=6",
    ),
    "flattened frames that do not divide": (
        lambda s: s(n_frames=5)(faces(12, 3, 96, 96), MEL),
        "expected '(b t) c h w' with c = 3, t = 5",
        "got (12, 3, 96, 96)",
        "Name the layout that you have",
    ),
    "a flat layout without n_frames": (
        lambda s: s(layout="(t b) c h w")(faces(10, 3, 96, 96), MEL),
        "how many frames one item has",
        "(10, 3, 96, 96)",
        "n_frames=T",
    ),
    "a layout that is not the tensor's": (
        lambda s: s(layout="b t c h w")(FRAMES, MEL),
        "expected 'b t c h w' with c = 3",
        "got (2, 3, 5, 96, 96)",
        "Name the layout that you have",
    ),
    "channels last": (
        lambda s: s()(faces(2, 5, 96, 96, 3), MEL),
        "expected (B, 3, T, H, W)",
        "got (2, 5, 96, 96, 3)",
        "movedim(-1, 1)",
    ),
    "grey frames": (
        lambda s: s()(faces(2, 1, 5, 96, 96), MEL),
        "expected (B, 3, T, H, W)",
        "got (2, 1, 5, 96, 96)",
        "repeat the channel three times",
    ),
    "latents": (
        lambda s: s()(faces(32, 4, 32, 32), mel(2, 1, 80, 52)),
        "expected (B, 3, T, H, W)",
        "got (32, 4, 32, 32)",
        "decode them to pixels",
    ),
    "feature maps": (
        lambda s: s()(faces(2, 3, 5, 8, 8), MEL),
        "at least 16 rows and columns",
        "got 8x8",
        "decode latents first",
    ),
    "another number of axes": (
        lambda s: s()(faces(3, 96, 96), MEL),
        "expected (B, 3, T, H, W)",
        "got (3, 96, 96)",
        "Layouts that are understood",
    ),
    # frames: region
    "faces that were cut already": (
        lambda s: s()(faces(2, 3, 5, 48, 96), MEL),
        "expected whole faces",
        "got 48 rows and 96 columns",
        'say region="lower"',
    ),
    "whole faces called lower halves": (
        lambda s: s(region="lower")(FRAMES, MEL),
        "expected lower halves",
        "got 96 rows and 96 columns",
        'Say region="face"',
    ),
    "a box beside the frame": (
        lambda s: s(region=(0.0, 1.4, 0.1, 0.9))(FRAMES, MEL),
        "outside the frame",
        "(0.0, 1.4, 0.1, 0.9)",
        "or another box",
    ),
    "a box upside down": (
        lambda s: s(region=(0.9, 0.1, 0.0, 1.0)),
        "expected (top, bottom, left, right) with top < bottom",
        "got (0.9, 0.1, 0.0, 1.0)",
        "in ratios of the frame",
    ),
    "a box of three numbers": (
        lambda s: s(region=(0.1, 0.9, 0.5)),
        "expected four numbers",
        "got (0.1, 0.9, 0.5)",
        "(top, bottom, left, right)",
    ),
    "an unknown region": (
        lambda s: s(region="mouth"),
        "region: expected one of ['face', 'lower']",
        "got 'mouth'",
        "(top, bottom, left, right)",
    ),
    # frames: values
    "frames in 0..255": (
        lambda s: s()(FRAMES * 255, MEL),
        "expected values in 0..1",
        "..255",
        'value_range="0..255"',
    ),
    "frames in -1..1": (
        lambda s: s()(FRAMES * 2 - 1, MEL),
        "expected values in 0..1",
        "got -1..1",
        'value_range="-1..1"',
    ),
    "frames in 0..1 called 0..255": (
        lambda s: s(value_range="0..255")(FRAMES, MEL),
        "expected values in 0..255",
        "all but black",
        'value_range="0..1"',
    ),
    "frames in -1..1 called 0..255": (
        lambda s: s(value_range="0..255")(FRAMES * 2 - 1, MEL),
        "expected values in 0..255",
        "got -1..1, all but black",
        'value_range="-1..1"',
    ),
    "a new generator without a tanh": (
        lambda s: s(value_range="-1..1")((FRAMES - 0.5) * 9, MEL),
        "expected values in -1..1, got -4.5..4.5",
        "a sigmoid or tanh at the generator's end",
        "frames.clamp(-1, 1) while it is new",
    ),
    "frames that overshoot by far": (
        lambda s: s()(FRAMES * 1.6 - 0.3, MEL),
        "expected values in 0..1, got -0.3..1.3",
        "a sigmoid or tanh at the generator's end",
        "frames.clamp(0, 1)",
    ),
    "frames without bounds": (
        lambda s: s()(FRAMES * 2000 - 1000, MEL),
        "expected values in 0..1",
        "got -1",
        "a sigmoid or tanh at the generator's end",
    ),
    "frames with nan": (
        lambda s: s()(FRAMES.clone().fill_(float("nan")), MEL),
        "expected finite values",
        "got nan",
        "diverged",
    ),
    # mel
    "no audio": (
        lambda s: s()(FRAMES),
        "expected either a mel or a waveform",
        "got neither",
        "sync(frames, mel)",
    ),
    "mel and waveform": (
        lambda s: s()(FRAMES, MEL, waveform=wave(2, 16000), start=0),
        "expected either a mel or a waveform",
        "got both",
        "sync(frames, waveform=samples",
    ),
    "a mel in numpy": (
        lambda s: s()(FRAMES, np.zeros((2, 1, 80, 16))),
        "mel: expected a tensor",
        "got ndarray",
        "torch.from_numpy",
    ),
    "a transposed mel": (
        lambda s: s()(FRAMES, mel(2, 1, 16, 80)),
        "mel: expected (2, 1, 80, 16)",
        "got (2, 1, 16, 80)",
        "Transpose the last two axes",
    ),
    "a mel per frame": (
        lambda s: s()(FRAMES, mel(10, 1, 80, 16)),
        "mel: expected (2, 1, 80, 16)",
        "got (10, 1, 80, 16)",
        "one mel per item, not per frame",
    ),
    "Wav2Lip's indiv_mels": (
        lambda s: s()(FRAMES, mel(2, 5, 1, 80, 16)),
        "mel: expected (2, 1, 80, 16)",
        "got (2, 5, 1, 80, 16)",
        "indiv_mels",
    ),
    "the mel of 5 frames for 16": (
        lambda s: s()(faces(2, 3, 16, 96, 96), MEL),
        "mel: expected (2, 1, 80, 51) for 16 frames at 25 fps",
        "got (2, 1, 80, 16)",
        "Too few mel frames",
    ),
    "the mel of 16 frames for 5": (
        lambda s: s()(FRAMES, mel(2, 1, 80, 52)),
        "mel: expected (2, 1, 80, 16) for 5 frames",
        "got (2, 1, 80, 52)",
        "Too many mel frames",
    ),
    "a mel without its batch": (
        lambda s: s()(FRAMES[:1], mel(80, 16)),
        "mel: expected (1, 1, 80, 16)",
        "got (80, 16)",
        "mel[None, None]",
    ),
    "stereo mel": (
        lambda s: s()(FRAMES, mel(2, 2, 80, 16)),
        "mel: expected (2, 1, 80, 16)",
        "got (2, 2, 80, 16)",
        "Mix audio channels",
    ),
    "MFCC": (
        lambda s: s()(FRAMES, torch.rand(2, 1, 13, 20)),
        "mel: expected (2, 1, 80, 16)",
        "got (2, 1, 13, 20)",
        "MFCC cannot",
    ),
    "HuBERT features": (
        lambda s: s()(FRAMES, torch.rand(2, 32, 32, 32)),
        "mel: expected (2, 1, 80, 16)",
        "got (2, 32, 32, 32)",
        "waveform= and start=",
    ),
    "a mel in decibels": (
        lambda s: s()(FRAMES, torch.full((2, 1, 80, 16), -60.0)),
        "mel: expected values in [-4, 4]",
        "got -60..-60 (decibels)",
        "log_mel",
    ),
    "a mel of amplitudes": (
        lambda s: s()(FRAMES, torch.rand(2, 1, 80, 16) * 0.5),
        "silence at -4",
        "amplitudes",
        "log_mel",
    ),
    "a mel of 16-bit samples": (
        lambda s: s()(FRAMES, log_mel(torch.randn(2, 3199) * 8000)[:, None]),
        "mel: expected values in [-4, 4]",
        "got 4 for more than half",
        "Divide 16-bit samples by 32768",
    ),
    "a mel with nan": (
        lambda s: s()(FRAMES, torch.full((2, 1, 80, 16), float("nan"))),
        "mel: expected finite values",
        "got nan",
        "log_mel",
    ),
    "a mel on another device": (
        lambda s: s()(FRAMES, MEL.to("meta")),
        "mel: expected on cpu like the frames",
        "got meta",
        ".to(frames.device)",
    ),
    # waveform
    "a waveform in 16-bit numbers": (
        lambda s: s()(FRAMES, waveform=torch.zeros(2, 16000, dtype=torch.int16), start=0),
        "waveform: expected floats in [-1, 1]",
        "got torch.int16",
        "32768",
    ),
    "a waveform of large floats": (
        lambda s: s()(FRAMES, waveform=wave(2, 16000) * 32768, start=0),
        "waveform: expected values in [-1, 1]",
        "got -1",
        "32768",
    ),
    "a stereo waveform": (
        lambda s: s()(FRAMES, waveform=wave(2, 2, 16000), start=0),
        "waveform: expected (2, S)",
        "got (2, 2, 16000)",
        "Mix channels down",
    ),
    "a waveform without start": (
        lambda s: s()(FRAMES, waveform=wave(2, 16000)),
        "start: expected the index of each item's first frame",
        "got None",
        "start=frame_index",
    ),
    "start in seconds": (
        lambda s: s()(FRAMES, waveform=wave(2, 16000), start=torch.tensor([0.2, 0.4])),
        "start: expected whole frame numbers",
        "got fractions",
        "round(seconds * fps)",
    ),
    "starts of another batch": (
        lambda s: s()(FRAMES, waveform=wave(2, 16000), start=torch.tensor([0, 1, 2])),
        "start: expected 2 numbers",
        "got 3",
        "one per item",
    ),
    "audio that ends before the frames": (
        lambda s: s()(FRAMES, waveform=wave(2, 16000), start=100),
        "need audio up to 4.19 s",
        "got 1.00 s",
        "at 16000 Hz",
    ),
    # words
    "an unknown range": (
        lambda s: s(value_range="0-1"),
        "value_range: expected one of",
        "got '0-1'",
        "'0..1'",
    ),
    "an unknown color": (lambda s: s(color="BGR"), "color: expected", "got 'BGR'", "'bgr'"),
    "an unknown layout": (
        lambda s: s(layout="BCTHW"),
        "layout: expected one of",
        "got 'BCTHW'",
        "'b c t h w'",
    ),
    "an unknown reduction": (
        lambda s: s(reduction="avg"),
        "reduction: expected",
        "got 'avg'",
        "'mean'",
    ),
    "an unknown kind": (lambda s: s(kind="bce"), "kind: expected", "got 'bce'", "'probability'"),
    "unknown windows": (lambda s: s(windows="all"), "windows: expected", "got 'all'", "'worst'"),
    "no room for a gradient": (
        lambda s: s(max_gradient=0),
        "max_gradient: expected a number above 0",
        "got 0",
        "multiply it by 0",
    ),
    "an impossible fps": (lambda s: s(fps=0), "fps: expected", "got 0", "Those of the video"),
    "an impossible n_frames": (
        lambda s: s(n_frames=0),
        "n_frames: expected",
        "got 0",
        "frames of one item",
    ),
    "an unknown host": (
        lambda s: SyncLoss.for_host("wav2lip2"),
        "host: expected one of",
        "got 'wav2lip2'",
        "describe its frames",
    ),
}


@pytest.fixture
def build(tiny_net: Discriminator, tmp_path: Path) -> Build:
    path = save(tiny_net, tmp_path / "tiny.safetensors")
    return lambda **words: SyncLoss(path, **words)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake: str, build: Build) -> None:
    make, *parts = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError)) as caught:
        make(build)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    assert len(message) < 700


def test_messages_differ(build: Build) -> None:
    """A message is its mistake's own, shapes and measured values aside."""
    messages = []
    for make, *_ in MISTAKES.values():
        with pytest.raises((ValueError, TypeError)) as caught:
            make(build)
        messages.append(re.sub(r"\([\d, ]+\)|got [-\d.]+", "#", str(caught.value)))
    assert len(set(messages)) == len(messages) >= 50


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        SyncLoss(tmp_path / "gone.safetensors")


def test_what_fits_is_not_refused(build: Build) -> None:
    build()(FRAMES, MEL)
    build()(FRAMES * 1.1 - 0.05, MEL)  # a little overshoot is no mistake
    wild = FRAMES.clone().flatten()
    wild[::200] = 3.0  # nor are a few far values, as of a decoder early in training
    build()(wild.view_as(FRAMES), MEL)
    build()(FRAMES, torch.zeros(2, 1, 80, 16))
    build()(FRAMES, torch.full((2, 1, 80, 16), -4.0))

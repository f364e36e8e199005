"""A host's audio: a ready mel or a waveform -> the mel windows that its frames should fit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import torch

from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import mel_start

MOST_OVERSHOOT = 4.0  # of a sample; what is farther out is of another scale


def sound_windows(
    mel: torch.Tensor | None,
    waveform: torch.Tensor | None,
    start: torch.Tensor | int | None,
    fps: float,
    batch: int,
    n: int,
    spec: ClipSpec,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Either a mel or a waveform with its starts -> mel (B, M, L), fp32, window starts (B, n).

    Args:
        mel: as in `mel_windows`.
        waveform: as in `waveform_windows`, with `start` and `fps`.
        start: see there.
        fps: see there.
        batch: B.
        n: windows that the frames have.
        spec: of the weights.

    Raises:
        TypeError, ValueError: both or neither, or what does not fit.
    """
    if (mel is None) == (waveform is None):
        raise ValueError(
            "mel: expected either a mel or a waveform, got "
            f"{'neither' if mel is None else 'both'}. Call sync(frames, mel), or "
            "sync(frames, waveform=samples, start=first_frame)."
        )
    if mel is not None:
        heard, starts = mel_windows(mel, batch, n, spec, fps)
    else:
        assert waveform is not None
        heard, starts = waveform_windows(waveform, start, fps, batch, n, spec)
    return heard.float(), starts.expand(batch, -1)


def mel_windows(
    mel: torch.Tensor, batch: int, n: int, spec: ClipSpec, fps: float = 25.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A host's mel -> mel (B, M, L) and the starts (n,) of its windows.

    Window i starts at floor(rate * i / fps) of the mel: which fifth of a mel frame the first frame
    fell on is not known here, so a window may be up to one mel frame (12.5 ms) early.

    Args:
        mel: (B, 1, M, L) or (B, M, L) in [-4, 4] that starts with the first frame;
            L is 16 for 5 frames, 52 for 16 (LatentSync), 80 for 25.
        batch: B.
        n: windows that the frames have.
        spec: of the weights.
        fps: of the host's frames; at other rates than the weights' its item may go on for a frame
            behind the last one that is picked, and the mel with it.

    Raises:
        TypeError: not a tensor.
        ValueError: another shape, or too short for n windows.
    """
    if not isinstance(mel, torch.Tensor):
        raise TypeError(
            f"mel: expected a tensor, got {type(mel).__name__}. Wrap it: torch.from_numpy(mel)."
        )
    bins, need = spec.mel.n_mels, mel_start(n - 1, spec) + spec.window_mels
    shape = tuple(mel.shape)
    if mel.ndim == 4 and mel.shape[1] == 1:
        mel = mel[:, 0]
    # Hosts round the length up: LatentSync has 52 for 16 frames, of which 51 are needed.
    most = need + 1 if fps == spec.fps else mel_start(n, spec) + spec.window_mels + 1
    if mel.ndim == 3 and mel.shape[:2] == (batch, bins) and need <= mel.shape[2] <= most:
        return mel.detach(), _starts(n, spec, mel.device)
    raise ValueError(
        f"mel: expected ({batch}, 1, {bins}, {need}) for {n + spec.window_frames - 1} frames at "
        f"{spec.fps} fps, got {shape}. {_mel_hint(shape, batch, bins, need)}"
    )


def waveform_windows(
    waveform: torch.Tensor,
    start: torch.Tensor | int | None,
    fps: float,
    batch: int,
    n: int,
    spec: ClipSpec,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A waveform and where the frames begin in it -> mel (B, M, L) and window starts (B, n).

    Only the part that is needed goes through the mel, and it equals the mel of the whole file.

    Args:
        waveform: (B, S), (B, 1, S), or (S,) for all items, mono in [-1, 1] at
            `spec.mel.sample_rate_hz`.
        start: (B,) or one number: index of each item's first frame in its video.
        fps: of that video.
        batch: B.
        n: windows that the frames have.
        spec: of the weights.

    Raises:
        TypeError: not a tensor, or integer samples.
        ValueError: another shape, no start, values outside [-1, 1], or audio that ends too early.
    """
    wave = _mono(waveform, batch)
    m, device = spec.mel, wave.device
    if start is None:
        raise ValueError(
            "start: expected the index of each item's first frame in its video, got None. "
            "Pass start=frame_index, (B,)."
        )
    first = torch.as_tensor(start).reshape(-1)
    if len(first) not in (1, batch):
        raise ValueError(
            f"start: expected {batch} numbers, got {len(first)}. Pass one per item, or one for all."
        )
    first = first.expand(batch)
    if first.is_floating_point():
        raise ValueError(
            "start: expected whole frame numbers, got fractions. Pass indices of frames, not "
            "seconds: round(seconds * fps)."
        )
    rate = Fraction(fps).limit_denominator(1001)
    begins = [Fraction(int(f)) / rate for f in first.tolist()]  # seconds
    m0 = [int(t * m.rate_hz) for t in begins]
    rows = [
        [int((t + Fraction(i, spec.fps)) * m.rate_hz) - s for i in range(n)]
        for t, s in zip(begins, m0, strict=True)
    ]
    length = max(r[-1] for r in rows) + spec.window_mels
    last = (max(m0) + length - 1) * m.hop
    if min(m0) < 0:
        raise ValueError(
            f"start: expected frame numbers of at least 0, got {int(first.min())}. The first frame "
            "of the video is 0."
        )
    if last > wave.shape[1] + m.hop * spec.window_mels // 2:
        raise ValueError(
            f"start: frames {int(first.min())}..{int(first.max())} at {fps:g} fps need audio up to "
            f"{last / m.sample_rate_hz:.2f} s, got {wave.shape[1] / m.sample_rate_hz:.2f} s. "
            f"Pass the whole audio of the video at {m.sample_rate_hz} Hz, and its fps."
        )
    # n_fft samples more on both sides, so that no STFT window meets a cut edge.
    margin = -(-m.n_fft // m.hop)
    samples = torch.arange((length + 2 * margin) * m.hop, device=device)[None]
    samples = samples + (torch.tensor(m0, device=device)[:, None] - margin) * m.hop
    inside = (samples >= 0) & (samples < wave.shape[1])
    piece = wave.gather(1, samples.clamp(0, wave.shape[1] - 1))
    # Emphasised before it is cut, as the whole would be: behind the file's end there is nothing.
    before = wave.gather(1, (samples - 1).clamp(0, wave.shape[1] - 1)) * (samples > 0)
    piece = (piece - m.preemphasis * before) * inside
    mel = log_mel(piece, replace(m, preemphasis=0.0))[..., margin : margin + length]
    return mel.detach(), torch.tensor(rows, device=device)


def check_mel_values(mel: torch.Tensor, spec: ClipSpec) -> None:
    """Raise ValueError for values that are no Wav2Lip mel: wrong scale, or not finite."""
    least, most = (float(v) for v in mel.detach().float().aminmax())
    limit = spec.mel.max_abs
    advice = "Pass Wav2Lip's normalised mel; syncdisc_plugin.log_mel makes it from a waveform."
    if not (abs(least) < float("inf") and abs(most) < float("inf")):
        raise ValueError(f"mel: expected finite values, got {least:.3g}..{most:.3g}. {advice}")
    if max(-least, most) > 1.1 * limit:
        what = "decibels" if least < -20 else "another scale"
        raise ValueError(
            f"mel: expected values in [-{limit:g}, {limit:g}], got {least:.3g}..{most:.3g} "
            f"({what}). {advice}"
        )
    if float((mel.detach() >= limit).float().mean()) > 0.5:
        raise ValueError(
            f"mel: expected values in [-{limit:g}, {limit:g}], got {limit:g} for more than half of "
            "them: it was made from samples outside [-1, 1]. Divide 16-bit samples by 32768 first."
        )
    if least >= 0 and 0 < most <= 1:
        raise ValueError(
            f"mel: expected values in [-{limit:g}, {limit:g}] with silence at -{limit:g}, got "
            f"{least:.3g}..{most:.3g}: amplitudes, or a mel normalised to 0..1. {advice}"
        )


def _starts(n: int, spec: ClipSpec, device: torch.device) -> torch.Tensor:
    return torch.tensor([mel_start(i, spec) for i in range(n)], device=device)


def _mono(waveform: torch.Tensor, batch: int) -> torch.Tensor:
    """(B, S) floats."""
    if not isinstance(waveform, torch.Tensor):
        raise TypeError(
            f"waveform: expected a tensor, got {type(waveform).__name__}. "
            "Wrap it: torch.from_numpy(samples)."
        )
    if not waveform.is_floating_point():
        raise TypeError(
            f"waveform: expected floats in [-1, 1], got {waveform.dtype}. "
            "Divide 16-bit samples by 32768."
        )
    shape = tuple(waveform.shape)
    wave = waveform.detach().float()
    if wave.ndim == 3 and wave.shape[1] == 1:
        wave = wave[:, 0]
    wave = wave[None] if wave.ndim == 1 else wave
    if wave.ndim != 2 or wave.shape[0] not in (1, batch) or wave.shape[1] == 0:
        raise ValueError(
            f"waveform: expected ({batch}, S), or (S,) for all items, got {shape}. "
            "Mix channels down to one; one waveform per item."
        )
    return wave.expand(batch, -1)


def check_waveform_values(waveform: torch.Tensor) -> None:
    """Raise ValueError for samples outside [-1, 1], or not finite.

    What is loud overshoots in lossy codecs: single samples may lie outside.
    """
    wave = waveform.detach().float()
    least, most = (float(v) for v in wave.aminmax())
    beyond = float((wave.abs() > 1.1).float().mean())
    if not (max(-least, most) <= MOST_OVERSHOOT and beyond <= 0.01):  # nan compares as False
        raise ValueError(
            f"waveform: expected values in [-1, 1], got {least:.3g}..{most:.3g}, "
            f"{beyond:.0%} of them outside. Divide 16-bit samples by 32768; look for nan."
        )


def _mel_hint(shape: tuple[int, ...], batch: int, bins: int, need: int) -> str:
    """The likely mistake behind a mel of that shape."""
    cut = f"Cut {need} mel frames from floor(80 * frame / fps) on."
    if len(shape) >= 2 and shape[-1] == bins and shape[-2] >= need and shape[-2] != bins:
        return "Transpose the last two axes."
    if len(shape) == 5 and shape[2:] == (1, bins, 16):
        return (
            "These are Wav2Lip's indiv_mels, one window per frame for the generator; "
            "pass `mel`, the window of the first frame."
        )
    if len(shape) == 2:
        return "Add the batch and channel axes: mel[None, None]."
    if len(shape) in (3, 4) and shape[-2] == bins:
        if shape[0] != batch:
            return f"Frames have a batch of {batch}: one mel per item, not per frame."
        if len(shape) == 4 and shape[1] != 1:
            return "Mix audio channels down to one."
        few = "few" if shape[-1] < need else "many"
        return f"Too {few} mel frames for so many video frames. {cut}"
    if len(shape) >= 2 and 13 in shape[-2:]:
        return "MFCC cannot be turned into a mel; pass waveform= and start= instead."
    return (
        "Learned features (HuBERT, Whisper, wav2vec, DeepSpeech) and other spectrograms cannot be "
        "turned into this mel; pass waveform= and start= instead."
    )

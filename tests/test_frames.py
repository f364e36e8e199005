"""A host's frames and audio: every layout, range, colour, region, rate and length."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange

from syncdisc_plugin.frames import LAYOUTS, FrameFormat
from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.sound import mel_windows, waveform_windows
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.sync_loss import SyncLoss
from syncdisc_plugin.timing import mel_start
from syncdisc_plugin.weights import save

SPEC = ClipSpec()


@pytest.fixture
def path(tiny_net: Discriminator, tmp_path: Path) -> Path:
    return save(tiny_net, tmp_path / "tiny.safetensors")


def frames(batch: int = 2, t: int = 5, size: tuple[int, int] = (96, 96)) -> torch.Tensor:
    return torch.rand(batch, t, 3, *size, generator=torch.Generator().manual_seed(t))


def mel(batch: int, length: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(length)
    return torch.rand(batch, 1, 80, length, generator=rng) * 8 - 4


# --- layouts


# What a shape tells; the others have a shape that is taken for one of these.
GUESSED = ("b c t h w", "b t c h w", "b (t c) h w", "(b t) c h w")


@pytest.mark.parametrize(
    ("layout", "named"), [(x, True) for x in LAYOUTS] + [(x, False) for x in GUESSED]
)
def test_layouts_hold_the_same_frames(path: Path, layout: str, named: bool) -> None:
    x = frames(batch=4)
    expected = SyncLoss(path, reduction="none")(rearrange(x, "b t c h w -> b c t h w"), mel(4, 16))
    flat = layout.startswith("(")
    sync = SyncLoss(
        path,
        reduction="none",
        layout=layout if named else None,
        n_frames=5 if flat or named else None,
    )
    host = rearrange(x, f"b t c h w -> {layout}").requires_grad_()
    loss = sync(host, mel(4, 16))
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    back = rearrange(host.grad, f"{layout} -> b t c h w", c=3, t=5)
    assert (back[..., 48:, :].abs().amax((2, 3, 4)) > 0).all()


def test_orders_of_flattened_frames_differ(path: Path) -> None:
    x = rearrange(frames(batch=4), "b t c h w -> (b t) c h w")
    one, other = (
        SyncLoss(path, layout=layout, n_frames=5, reduction="none")(x, mel(4, 16))
        for layout in ("(b t) c h w", "(t b) c h w")
    )
    assert not torch.allclose(one, other)


# --- region


@pytest.mark.parametrize(
    "box", [(0.0, 1.0, 0.0, 1.0), (0.1, 0.9, 0.2, 0.8), (-0.5, 0.75, 0.125, 0.875)]
)
def test_a_box_is_where_the_face_lies(path: Path, box: tuple[float, ...]) -> None:
    """A face pasted into a larger frame is found again by its box, and nothing else is seen."""
    top, bottom, left, right = (round(r * 160) for r in box)
    face = frames(size=(bottom - top, right - left))
    whole = torch.rand(2, 5, 3, 160, 160)
    inside = max(0, top)
    whole[..., inside:bottom, left:right] = face[..., inside - top :, :]
    expected = SyncLoss(path, reduction="none")(face, mel(2, 16))
    whole.requires_grad_()
    loss = SyncLoss(path, reduction="none", region=box)(whole, mel(2, 16))
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    outside = whole.grad.clone()
    outside[..., (top + bottom) // 2 : bottom, left:right] = 0
    assert whole.grad.abs().sum() > 0 and not outside.any()


def test_lower_halves_are_lower_halves(path: Path) -> None:
    x = frames()
    expected = SyncLoss(path)(x, mel(2, 16))
    torch.testing.assert_close(SyncLoss(path, region="lower")(x[..., 48:, :], mel(2, 16)), expected)


def test_weights_that_see_the_whole_face(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Discriminator(ClipSpec(face_px=64, region="face"), Architecture(8, 8, 32)).eval()
    path = save(net, tmp_path / "face.safetensors")
    x = frames(size=(64, 64))
    assert SyncLoss(path)(x, mel(2, 16)).isfinite()
    with pytest.raises(ValueError, match="outside the frame"):
        SyncLoss(path, region="lower")(x[..., 32:, :], mel(2, 16))


# --- rate


@pytest.mark.parametrize(
    ("fps", "picked"),
    [
        (25, [0, 1, 2, 3, 4]),
        (24, [0, 1, 2, 3, 4]),
        (30, [0, 1, 2, 4, 5]),
        (29.97, [0, 1, 2, 4, 5]),
        (50, [0, 2, 4, 6, 8]),
        (60, [0, 2, 5, 7, 10]),
        (12.5, [0, 0, 1, 1, 2]),
        (37.5, [0, 1, 3, 4, 6]),
    ],
)
def test_frames_are_picked_at_the_weights_rate(fps: float, picked: list[int]) -> None:
    x = torch.arange(11.0)[None, :, None, None, None].expand(1, 11, 3, 96, 96)
    how = FrameFormat(fps=fps, value_range="0..255")
    read = how.read(*how.cut(x, SPEC), SPEC) * 255
    assert [round(v) for v in read[0, :5, 0, 0, 0].tolist()] == picked
    for i, frame in enumerate(picked):
        assert abs(frame / fps - i / 25) <= 0.5 / fps + 1e-9


# --- longer items


@pytest.mark.parametrize(("t", "length"), [(5, 16), (16, 52), (16, 51), (25, 80), (6, 20), (7, 23)])
def test_an_item_is_its_windows(path: Path, t: int, length: int) -> None:
    x, sound = frames(t=t), mel(2, length)
    loss = SyncLoss(path, reduction="none")(x, sound)
    single = SyncLoss(path, reduction="none")
    each = torch.stack(
        [single(x[:, i : i + 5], sound[..., (s := 16 * i // 5) : s + 16]) for i in range(t - 4)],
        1,
    )
    torch.testing.assert_close(loss, each.mean(1), rtol=1e-4, atol=1e-5)
    worst = SyncLoss(path, reduction="none", windows="worst")(x, sound)
    k = math.ceil((t - 4) / 4)
    expected = each.sort(1, descending=True).values[:, :k].mean(1)
    torch.testing.assert_close(worst, expected, rtol=1e-4, atol=1e-5)
    assert t == 5 or (worst > loss).all()


@pytest.mark.parametrize(("fps", "t", "length"), [(30, 16, 43), (30, 6, 16), (50, 10, 16)])
def test_the_mel_of_a_hosts_own_frames_fits(path: Path, fps: float, t: int, length: int) -> None:
    """It ends with the last of them, be that picked or not; what is behind is not heard."""
    sync, x, sound = SyncLoss(path, fps=fps), frames(t=t), mel(2, length)
    need = 16 * (len(range(0, round(t * 25 / fps))) - 5) // 5 + 16
    torch.testing.assert_close(sync(x, sound), sync(x, sound[..., :need]))


def test_the_gradient_of_a_long_item_reaches_all_of_its_frames(path: Path) -> None:
    x = frames(t=16).requires_grad_()
    SyncLoss(path)(x, mel(2, 52)).backward()
    assert (x.grad.abs().amax((2, 3, 4)) > 0).all()


def test_a_batch_is_its_items(path: Path) -> None:
    """Items are judged a few at a time; neither loss nor gradient may know."""
    x, sound = frames(batch=37).requires_grad_(), mel(37, 16)
    sync = SyncLoss(path, reduction="none")
    loss = sync(x, sound)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    for i in (0, 8, 17, 36):
        alone = x[i : i + 1].detach().requires_grad_()
        one = sync(alone, sound[i : i + 1])
        torch.testing.assert_close(one[0], loss[i], rtol=1e-4, atol=1e-5)
        (own,) = torch.autograd.grad(one.sum(), alone)
        torch.testing.assert_close(own[0], grad[i], rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(sync.similarity(x, sound), sync.similarity(x.double(), sound))


# --- types


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats(path: Path, dtype: torch.dtype) -> None:
    x = frames().to(dtype).requires_grad_()
    sync = SyncLoss(path)
    loss = sync(x, mel(2, 16).to(dtype))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, sync(frames(), mel(2, 16)), rtol=0.05, atol=0.02)
    loss.backward()
    assert x.grad.dtype == dtype and x.grad.isfinite().all() and x.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_is_left_outside(path: Path, dtype: torch.dtype) -> None:
    sync, x = SyncLoss(path), frames().requires_grad_()
    plain = sync(x, mel(2, 16))
    with torch.autocast("cpu", dtype=dtype):
        loss = sync(x, mel(2, 16))
        p = sync.probability(x, mel(2, 16))
    assert torch.equal(loss, plain)
    assert torch.equal(p, sync.probability(x, mel(2, 16)))


# --- audio


@pytest.mark.parametrize("n", [1, 2, 12, 21])
def test_windows_of_a_mel_start_with_their_frames(n: int) -> None:
    ramp = torch.arange(80.0).expand(1, 1, 80, 80)[..., : mel_start(n - 1, SPEC) + 16]
    heard, starts = mel_windows(ramp, 1, n, SPEC)
    assert heard.shape[:2] == (1, 80)
    assert starts.tolist() == [math.floor(3.2 * i) for i in range(n)]


@pytest.mark.parametrize("fps", [25, 30, 29.97, 24])
def test_a_waveform_gives_the_mel_of_its_whole_file(fps: float) -> None:
    """Cut out at each item's frames, as the host would cut the mel of the whole file."""
    rng = torch.Generator().manual_seed(1)
    wave = torch.randn(3, 64000, generator=rng) * 0.1
    start, n = torch.tensor([0, 7, 60]), 12
    heard, starts = waveform_windows(wave, start, fps, 3, n, SPEC)
    for row in range(3):
        whole = log_mel(wave[row])
        for i in range(n):
            s = math.floor(80 * (int(start[row]) / fps + i / 25) + 1e-9)
            mine = heard[row, :, (m := int(starts[row, i])) : m + 16]
            torch.testing.assert_close(mine, whole[:, s : s + 16], rtol=0, atol=2e-4)


def test_one_waveform_serves_all_items(path: Path) -> None:
    rng = torch.Generator().manual_seed(2)
    wave = torch.randn(48000, generator=rng) * 0.1
    whole = log_mel(wave)
    start = torch.tensor([3, 11, 40])
    sync, x = SyncLoss(path, reduction="none"), frames(batch=3)
    loss = sync(x, waveform=wave, start=start)
    for row, s in enumerate(start.tolist()):
        cut = whole[None, :, (m := 16 * s // 5) : m + 16]
        torch.testing.assert_close(loss[row], sync(x[row : row + 1], cut)[0], rtol=1e-4, atol=1e-4)


def test_a_file_that_ends_in_speech_has_the_mel_of_its_whole(path: Path) -> None:
    rng = torch.Generator().manual_seed(3)
    wave = torch.randn(32000, generator=rng) * 0.1
    wave[-1] = 0.5
    whole = log_mel(wave)
    heard, starts = waveform_windows(wave[None], torch.tensor([45]), 25, 1, 1, SPEC)
    mine = heard[0, :, int(starts[0, 0]) :][:, :16]
    there = whole[:, 144:160]
    torch.testing.assert_close(mine[:, : there.shape[1]], there, rtol=0, atol=2e-4)


def test_loud_footage_may_overshoot(path: Path) -> None:
    """Lossy codecs give samples beyond 1 for what was recorded at the limit."""
    rng = torch.Generator().manual_seed(4)
    wave = (torch.randn(48000, generator=rng) * 0.3).clamp(-1, 1)
    wave[::2000] = 1.35
    assert SyncLoss(path)(frames(batch=1), waveform=wave, start=5).isfinite()
    for wrong in (wave * 32768, wave * 4, torch.where(wave > 1, torch.nan, wave)):
        with pytest.raises(ValueError, match=r"waveform: expected values in \[-1, 1\]"):
            SyncLoss(path)(frames(batch=1), waveform=wrong, start=5)


def test_audio_may_end_within_the_last_window(path: Path) -> None:
    """A host's file often ends a few milliseconds before its video does."""
    wave = torch.zeros(16000 * 2 - 800)
    assert SyncLoss(path)(frames(batch=1), waveform=wave, start=45).isfinite()


# --- several windows, several items


@pytest.fixture
def tiny(tiny_net: Discriminator, tmp_path: Path) -> Path:
    """Weights whose probabilities are far from 0.5."""
    with torch.no_grad():
        tiny_net.log_scale.fill_(math.log(20))
    return save(tiny_net, tmp_path / "tiny.safetensors")


def test_each_item_hears_its_own_moment(tiny: Path) -> None:
    """More items than are judged at a time, that start at other phases of the mel."""
    some = torch.Generator().manual_seed(1)
    wave = torch.randn(64000, generator=some) * 0.1
    x, start = torch.rand(10, 3, 9, 96, 96, generator=some), torch.arange(10) * 3 + 1
    sync = SyncLoss(tiny, reduction="none")
    together = sync(x, waveform=wave, start=start)
    alone = [sync(x[i : i + 1], waveform=wave, start=start[i : i + 1]) for i in range(10)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_similarity_and_probability_are_means_over_windows(tiny: Path) -> None:
    some, sync = torch.Generator().manual_seed(0), SyncLoss(tiny)
    x = torch.rand(3, 16, 3, 96, 96, generator=some)
    mel = torch.rand(3, 1, 80, 52, generator=some) * 8 - 4
    v, a = sync.embed(x, mel)
    s = (v * a).sum(-1)
    assert (s.amax(1) - s.mean(1)).min() > 1e-3
    torch.testing.assert_close(sync.similarity(x, mel), s.mean(1))
    mean = torch.sigmoid(sync.net.logit(s)).mean(1)
    torch.testing.assert_close(sync.probability(x, mel), mean, rtol=1e-6, atol=1e-7)


def test_the_loss_of_a_similarity_is_one_minus_it(tiny: Path) -> None:
    sync = SyncLoss(tiny, kind="similarity", reduction="none")
    x, mel = torch.rand(3, 5, 3, 96, 96), torch.rand(3, 1, 80, 16) * 8 - 4
    torch.testing.assert_close(sync(x, mel), 1 - sync.similarity(x, mel))


@pytest.mark.parametrize(("region", "left"), [((0, 1, -0.2, 0.8), True), ((0, 1, 0.2, 1.2), False)])
def test_what_sticks_out_repeats_the_edge_of_its_own_side(
    region: tuple[float, ...], left: bool
) -> None:
    spec = ClipSpec()
    columns = torch.arange(100.0).expand(1, 5, 3, 100, 100)
    how = FrameFormat(region=region, value_range="0..255")  # type: ignore[arg-type]
    got = how.read(*how.cut(columns, spec), spec)[0, 0, 0, 10] * 255
    outside, edge = (got[:18], 0) if left else (got[-18:], 99)
    assert (outside - edge).abs().max() < 0.6
    assert got[-1 if left else 0].item() == pytest.approx(79 if left else 20, abs=1)


def test_one_value_in_a_hundred_may_lie_outside() -> None:
    x = torch.rand(1, 3, 5, 1000, 10)
    x[..., :9, :] = 30.0
    FrameFormat().check_values(x)
    x[..., :20, :] = 30.0
    with pytest.raises(ValueError, match=r"expected values in 0\.\.1"):
        FrameFormat().check_values(x)


def test_a_rate_that_is_no_whole_number_does_not_drift() -> None:
    """At 29.97 frames a second, taken for 30, frame 3,000 would be 0.1 s off."""
    wave = torch.randn(1, 16000 * 120, generator=torch.Generator().manual_seed(1)) * 0.1
    heard, _ = waveform_windows(wave, 3000, 29.97, 1, 3, ClipSpec())
    torch.testing.assert_close(heard[0, :, :16], log_mel(wave[0])[:, 8008:8024], rtol=0, atol=2e-4)


def test_a_start_before_the_sound_is_refused() -> None:
    with pytest.raises(ValueError, match="start: expected frame numbers of at least 0, got -4"):
        SyncLoss()(torch.rand(1, 3, 5, 96, 96), waveform=torch.rand(48000) * 0.2, start=-4)


def test_no_items_at_all() -> None:
    with pytest.raises(ValueError, match=r"frames: expected at least one item, got .*\(0, 3, 5"):
        FrameFormat().split(torch.zeros(0, 3, 5, 32, 32))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"fps": "25"}, "fps: expected a number of at least 1 and of at most 240, got '25'"),
        ({"region": 3}, "region: expected four numbers"),
        ({"region": (0, 1, 0)}, "region: expected four numbers"),
    ],
)
def test_words_in_place_of_numbers(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameFormat(**words)  # type: ignore[arg-type]


def test_a_region_may_come_as_an_array() -> None:
    given = FrameFormat(region=np.array([0.1, 0.9, 0.2, 0.8]))  # type: ignore[arg-type]
    assert given.box == (0.1, 0.9, 0.2, 0.8)

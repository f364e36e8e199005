from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from syncdisc_plugin.data import sampling
from syncdisc_plugin.data.augment import (
    Augment,
    add_artefacts,
    change_look,
    change_sound,
    cut_input,
    random_crop,
)
from syncdisc_plugin.data.manifest import Clip, clip_row
from syncdisc_plugin.data.sampling import Batch, Item, Sampler, fitted
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.writer import StoreWriter, write_shard
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import mel_start, n_windows

NOTHING = Augment(
    **{name: 0 for name in Augment.__dataclass_fields__}  # type: ignore[arg-type]
)
SPEC = ClipSpec(face_px=32)


def counted_clip(
    root: Path, name: str, n_frames: int = 60, early_by: float = 0, speaker: str = ""
) -> Clip:
    """A clip of which every frame and every mel frame tells when it is.

    Frame f has the value 4 f + 2. Mel frame m tells its moment on the video's clock, m + 3.2 k
    if the audio is k frames early, as (moment + 60) / 50 - 4.
    """
    side = SPEC.stored_px
    frames = np.empty((n_frames, side, side, 3), np.uint8)
    frames[:] = (4 * np.arange(n_frames) + 2)[:, None, None, None]
    n_mels = mel_start(n_frames, SPEC) + 1
    moment = np.arange(n_mels) + early_by * 3.2
    mel = np.repeat(((moment + 60) / 50 - 4)[:, None], 80, 1).astype(np.float32)
    write_shard(root, name, {"0.frames": frames, "0.mel": mel, "0.audio": np.zeros(8, np.int16)})
    clip = Clip(f"{name}/0", speaker or name, name, 0.0, n_frames, n_mels, 32.0, -20.0)
    StoreWriter(root, SPEC).add([clip_row(name, clip)])
    return clip


def counted_store(root: Path, **clips: dict[str, object]) -> ClipStore:
    StoreWriter(root, SPEC)
    for name, about in clips.items():
        counted_clip(root, name, **about)  # type: ignore[arg-type]
    return ClipStore(root)


def sampler(
    store: ClipStore, items: list[Item] | None = None, *, augment: Augment = NOTHING, **more: int
) -> Sampler:
    values = {"batch_clips": 4, "chunk_frames": 16, "seed": 0, **more}
    items = [Item(c) for c in store.clips] if items is None else items
    return Sampler(store, items, augment=augment, **values)  # type: ignore[arg-type]


def first_frames(batch: Batch) -> list[int]:
    """Number of each chunk's first frame, in its clip."""
    return (batch.frames[:, 0].amax((1, 2, 3)) // 4).tolist()


def heard(batch: Batch, b: int) -> np.ndarray:
    """Moment (in mel frames on the video's clock) of every mel frame of chunk b."""
    return (batch.mel[b, 0].double().numpy() + 4) * 50 - 60


def fields(batch: Batch) -> list[torch.Tensor]:
    return [batch.frames, batch.mel, batch.starts, batch.alike, batch.source, batch.speaker]


def equal(one: Batch, two: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(fields(one), fields(two), strict=True))


# --- what a batch is


def test_shapes(tiny_store: ClipStore) -> None:
    batch = sampler(tiny_store, augment=Augment()).batch(1, 0)
    assert batch.frames.shape == (4, 16, 3, 48, 96) and batch.frames.dtype == torch.uint8
    assert batch.starts.shape == (4, 12) and batch.alike.shape == (4, 12, 12)
    assert batch.source.shape == (4,)
    assert batch.mel.shape[:2] == (4, 80) and batch.mel.dtype == torch.float32
    assert batch.mel.min() >= -4 and batch.mel.max() <= 4
    assert batch.starts.min() == 0 and int(batch.starts.max()) + 16 <= batch.mel.shape[2]


def test_a_batch_is_a_function_of_seed_stage_and_step(tiny_store: ClipStore) -> None:
    first = sampler(tiny_store, augment=Augment(), seed=5)
    expected = first.batch(2, 7)
    for step in (3, 8):
        first.batch(2, step)  # what came before does not matter
    again = sampler(ClipStore(tiny_store.root), augment=Augment(), seed=5)
    assert equal(first.batch(2, 7), expected)
    assert equal(again.batch(2, 7), expected)
    others = [first.batch(2, 8), first.batch(3, 7), first.batch(7, 2)]
    others.append(sampler(tiny_store, augment=Augment(), seed=6).batch(2, 7))
    for other in others:
        assert not torch.equal(other.frames, expected.frames)
        assert not torch.equal(other.mel, expected.mel)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_that_are_made_ahead_are_the_same(tiny_store: ClipStore, threads: int) -> None:
    made = sampler(tiny_store, augment=Augment(), seed=5)
    before = threading.active_count()
    with closing(made.batches(2, 7, range(2), threads)) as batches:
        for step, batch in zip(range(7, 12), batches, strict=False):
            assert equal(batch, made.batch(2, step, range(2)))
    assert threading.active_count() == before, "a thread that nobody waits for"


def test_what_cannot_be_read_ends_the_batches(tiny_store: ClipStore) -> None:
    made = sampler(tiny_store)
    made.store.frames = lambda *_: 1 / 0  # type: ignore[assignment,return-value]
    with pytest.raises(ZeroDivisionError), closing(made.batches(1, 0, threads=2)) as batches:
        next(batches)


def test_global_random_state_is_neither_used_nor_changed(tiny_store: ClipStore) -> None:
    draw = sampler(tiny_store, augment=Augment())
    np.random.seed(1)
    torch.manual_seed(1)
    one = draw.batch(1, 1)
    after = np.random.random(), torch.rand(1).item()
    np.random.seed(1)
    torch.manual_seed(1)
    assert (np.random.random(), torch.rand(1).item()) == after
    assert equal(draw.batch(1, 1), one)


def test_group_names_the_clip(tmp_path: Path) -> None:
    store = counted_store(tmp_path / "s", a={"n_frames": 60}, b={"n_frames": 60, "early_by": 100})
    for step in range(5):
        batch = sampler(store, batch_clips=2).batch(1, step)
        assert sorted(batch.source.tolist()) == [0, 1]  # no clip twice while there are enough
        for b, group in enumerate(batch.source.tolist()):
            assert (heard(batch, b)[0] > 300) == (group == 1)


def test_few_clips_fill_a_large_batch(tmp_path: Path) -> None:
    store = counted_store(tmp_path / "s", a={})
    batch = sampler(store, batch_clips=6).batch(1, 0)
    assert batch.source.tolist() == [0] * 6
    assert len(set(first_frames(batch))) > 1


def test_speakers_with_much_footage_are_drawn_less_than_their_share(tmp_path: Path) -> None:
    many = {f"m{i}": {"speaker": "much"} for i in range(16)}
    store = counted_store(tmp_path / "s", one={"speaker": "little"}, **many)

    draw = sampler(store, batch_clips=1)
    # Clips are in the order of their sources: "one" comes after all "m..".
    last = len(store.clips) - 1
    share = float(np.mean([draw.batch(1, s).source[0] == last for s in range(300)]))
    assert share == pytest.approx(1 / 5, abs=0.08)  # 1/2 if speakers were alike, 1/17 if seconds


# --- time


def windows(batch: Batch) -> Iterator[tuple[int, np.ndarray]]:
    """The frame that each window of a batch begins with, and the moments that it hears."""
    for b, first in enumerate(first_frames(batch)):
        moments = heard(batch, b)
        for i, start in enumerate(batch.starts[b].tolist()):
            yield first + i, moments[start : start + 16]


@pytest.mark.parametrize("k", [-12, -10, -5, -3, -1, 0, 1, 2, 5, 10, 12])
def test_every_window_hears_what_it_sees(tmp_path: Path, k: int) -> None:
    """Audio k frames early, and an item that says so: the windows are those of the sound clip."""
    store = counted_store(tmp_path / "s", a={"early_by": k})
    draw = sampler(store, [Item(store.clips[0], k)])
    for step in range(30):
        for frame, window in windows(draw.batch(1, step)):
            np.testing.assert_allclose(np.diff(window), 1, atol=1e-3)  # whole, and no padding
            # floor() twice, of the frame seen and of the lag: less than one mel frame.
            assert -1.001 < window[0] - frame * 3.2 < 0.001
            if k % 5 == 0:  # 5 frames are 16 mel frames exactly
                assert window[0] == pytest.approx(mel_start(frame, store.spec), abs=1e-3)


@pytest.mark.parametrize("lag", [-2.5, -0.31, 0.25, 1.6])
def test_a_lag_between_frames_is_undone_to_the_mel_frame(tmp_path: Path, lag: float) -> None:
    store = counted_store(tmp_path / "s", a={"early_by": lag})
    draw = sampler(store, [Item(store.clips[0], lag)])
    for step in range(10):
        for frame, window in windows(draw.batch(1, step)):
            assert -1.01 < window[0] - frame * 3.2 < 0.01


def test_an_offset_that_is_not_undone_is_heard(tmp_path: Path) -> None:
    store = counted_store(tmp_path / "s", a={"early_by": 5})
    batch = sampler(store).batch(1, 0)
    first = first_frames(batch)[0]
    assert heard(batch, 0)[0] == pytest.approx(mel_start(first, store.spec) + 16, abs=1e-3)


def test_frames_of_a_chunk_are_consecutive(tmp_path: Path) -> None:
    store = counted_store(tmp_path / "s", a={})
    batch = sampler(store, augment=NOTHING).batch(1, 3)
    numbers = batch.frames.amax((2, 3, 4)) // 4
    assert (numbers[:, 1:].int() - numbers[:, :-1].int() == 1).all()


@pytest.mark.parametrize("k", [-10, 0, 10])
def test_both_ends_of_a_clip_are_used(tmp_path: Path, k: int) -> None:
    store = counted_store(tmp_path / "s", a={"n_frames": 40, "early_by": k})
    draw = sampler(store, [Item(store.clips[0], k)], batch_clips=8)
    firsts = {f for step in range(60) for f in first_frames(draw.batch(1, step))}
    # Frame f is heard at f - k; both must lie inside the 40 frames, for 16 frames from f on.
    assert firsts == set(range(max(0, k), 40 - 16 + 1 + min(0, k)))


@pytest.mark.parametrize(("n_frames", "k"), [(16, 0), (26, 10), (26, -10)])
def test_a_clip_that_just_fits(tmp_path: Path, n_frames: int, k: int) -> None:
    store = counted_store(tmp_path / "s", a={"n_frames": n_frames, "early_by": k})
    batch = sampler(store, [Item(store.clips[0], k)]).batch(1, 0)
    assert first_frames(batch) == [max(0, k)] * 4
    with pytest.raises(ValueError, match=r"chunk_frames: expected .* got 17; the 1 clips"):
        sampler(store, [Item(store.clips[0], k)], chunk_frames=17)


@pytest.mark.parametrize("lag", [-0.9, -0.1, 0.1, 0.9])
def test_a_fraction_of_a_frame_costs_no_clip(tmp_path: Path, lag: float) -> None:
    """Sets of clips all as long as a chunk: after the filter each has a lag."""
    store = counted_store(tmp_path / "s", a={"n_frames": 16}, b={"n_frames": 16})
    draw = sampler(store, [Item(store.clips[0], lag), Item(store.clips[1], 3)])
    assert [item.lag_frames for item in draw.items] == [0] and draw.skipped == 1
    assert first_frames(draw.batch(2, 0)) == [0] * 4


def test_short_clips_are_counted_and_left_out(tmp_path: Path) -> None:
    store = counted_store(tmp_path / "s", short={"n_frames": 15}, long={"n_frames": 40})
    draw = sampler(store)
    assert draw.skipped == 1
    assert [item.clip.id for item in draw.items] == ["long/0"]
    message = r"chunk_frames: expected .*some clip can fill, got 50; .*--chunk_frames"
    with pytest.raises(ValueError, match=message):
        sampler(store, chunk_frames=50)


def test_a_chunk_of_real_shape_gives_the_stored_mel(tiny_store: ClipStore) -> None:
    draw = sampler(tiny_store, batch_clips=10)
    batch = draw.batch(1, 0)
    for b, group in enumerate(batch.source.tolist()):
        clip = draw.items[group].clip
        stored = tiny_store.mel(clip)
        windows = [stored[mel_start(f, SPEC) :][:16].T for f in range(tiny_store.windows(clip))]
        start = int(batch.starts[b, 3])
        got = batch.mel[b, :, start : start + 16].numpy()
        assert min(np.abs(got - w).max() for w in windows) < 1e-6


# --- pairs that sound alike


def test_silence_is_marked_as_alike(tmp_path: Path) -> None:
    root = tmp_path / "s"
    StoreWriter(root, SPEC)
    counted_clip(root, "a", n_frames=60)
    rng = np.random.default_rng(0)
    mel = rng.uniform(-3, 3, (193, 80)).astype(np.float32)
    mel[96:] = -4  # silent from frame 30 on
    frames = ClipStore(root).frames(ClipStore(root).clips[0])
    write_shard(root, "a", {"0.frames": frames, "0.mel": mel, "0.audio": np.zeros(8, np.int16)})
    store = ClipStore(root)
    found = np.zeros(2, int)
    for step in range(10):
        batch = sampler(store, chunk_frames=40).batch(1, step)
        for b, first in enumerate(first_frames(batch)):
            silent = torch.tensor([mel_start(first + i, SPEC) >= 96 for i in range(36)])
            talk = torch.tensor([mel_start(first + i, SPEC) + 16 <= 96 for i in range(36)])
            alike = batch.alike[b]
            assert torch.equal(alike, alike.T) and alike.diagonal().all()
            assert alike[silent][:, silent].all()
            assert not alike[silent][:, talk].any()
            assert not (alike[talk][:, talk] & ~torch.eye(int(talk.sum())).bool()).any()
            found += [int(silent.sum() > 1), int(talk.sum() > 1)]
    assert (found > 5).all()


def test_alike_is_judged_on_the_clean_sound(tiny_store: ClipStore) -> None:
    clean = sampler(tiny_store).batch(1, 0)
    loud = sampler(tiny_store, augment=Augment(audio_noise=1.0)).batch(1, 0)
    assert torch.equal(clean.starts, loud.starts)
    assert torch.equal(clean.alike, loud.alike)
    assert not torch.equal(clean.mel, loud.mel)


# --- augmentation


def picture_and_sound(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (9, 48, 96, 3)).astype(np.uint8)
    mel, other = rng.uniform(-4, 4, (2, 40, 80)).astype(np.float32)
    return frames, mel, other


def test_no_strength_is_no_change_of_the_look() -> None:
    ramp = np.arange(256, dtype=np.uint8)
    frames = np.broadcast_to(ramp[None, None, :, None], (2, 4, 256, 3)).copy()
    for seed in range(10):
        got = change_look(frames, np.random.default_rng(seed), NOTHING)
        np.testing.assert_array_equal(got, frames)


def test_no_strength_is_no_change_of_the_sound() -> None:
    _, mel, other = picture_and_sound()
    for seed in range(10):
        got = change_sound(mel, other, np.random.default_rng(seed), NOTHING)
        np.testing.assert_array_equal(got, mel)


@pytest.mark.parametrize("region", ["lower", "face"])
def test_no_strength_is_the_plain_crop_or_its_mirror(region: str) -> None:
    spec = ClipSpec(region=region)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 120, 120, 3)).astype(np.uint8)
    plain = cut_input(frames, spec)
    assert plain.shape == (3, *spec.input_hw, 3)
    np.testing.assert_array_equal(plain, frames[:, 12 + 96 - spec.input_hw[0] : 108, 12:108])
    mirrored = 0
    for seed in range(20):
        got = cut_input(frames, spec, random_crop(np.random.default_rng(seed), spec, NOTHING))
        is_mirror = np.array_equal(got, plain[:, :, ::-1])
        assert is_mirror or np.array_equal(got, plain)
        mirrored += is_mirror
    assert 4 <= mirrored <= 16


def test_random_crops_stay_near_the_face() -> None:
    """A dot in the middle of the face's lower half is still in the picture, and moves little."""
    spec = ClipSpec()
    frames = np.zeros((1, 120, 120, 3), np.uint8)
    frames[:, 80:88, 56:64] = 255
    places = []
    for seed in range(100):
        crop = cut_input(frames, spec, random_crop(np.random.default_rng(seed), spec, Augment()))
        y, x = np.nonzero(crop[0, :, :, 0] > 128)
        places.append((y.mean(), x.mean()))
    away = np.array(places) - (83.5 - 60, 59.5 - 12)
    assert np.abs(away).max() < 0.06 * 96 + 0.2 * 24 + 4
    assert (away.std(0) > 1).all() and (np.abs(away.mean(0)) < 1.5).all()


def test_the_crop_is_the_same_for_all_frames_of_a_chunk() -> None:
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 120, 120, 3)), 5, 0)
    frames = frames.astype(np.uint8)
    matrix = random_crop(np.random.default_rng(1), ClipSpec(), Augment())
    got = cut_input(frames, ClipSpec(), matrix)
    assert (got == got[:1]).all()


def test_the_look_of_a_frame_depends_on_no_other_frame() -> None:
    frames, _, _ = picture_and_sound()
    for seed in range(20):
        before = change_look(frames, np.random.default_rng(seed), Augment())
        changed = frames.copy()
        changed[4] = 255 - changed[4]
        after = change_look(changed, np.random.default_rng(seed), Augment())
        same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [f != 4 for f in range(9)]


def test_the_look_moves_nothing_in_time_or_place() -> None:
    frames = np.full((9, 48, 96, 3), 60, np.uint8)
    frames[5, 20:28, 40:50] = 200
    for seed in range(30):
        got = change_look(frames, np.random.default_rng(seed), Augment()).astype(int)
        event = np.abs(got - got[0]).sum(3)[:, 22:26, 42:48].mean((1, 2))
        assert event.argmax() == 5


def test_the_sound_moves_nothing_in_time() -> None:
    """Mel frames in another order come out in that order: each is changed where it is."""
    _, mel, other = picture_and_sound()
    quiet = replace(Augment(), audio_noise=0.0)
    order = np.random.default_rng(1).permutation(len(mel))
    for seed in range(20):
        plain = change_sound(mel, other, np.random.default_rng(seed), quiet)
        moved = change_sound(mel[order], other[order], np.random.default_rng(seed), quiet)
        np.testing.assert_allclose(moved, plain[order], atol=1e-6)
        assert not np.allclose(plain, mel, atol=0.01)


def test_noise_hides_but_does_not_move() -> None:
    loudness = np.sin(np.arange(60) * 0.35) + np.sin(np.arange(60) * 0.81)
    mel = (loudness[:, None] + np.zeros(80)).astype(np.float32)
    other = np.random.default_rng(3).uniform(-4, 0, (60, 80)).astype(np.float32)
    noisy = replace(Augment(), audio_noise=1.0)
    for seed in range(30):
        got = change_sound(mel, other, np.random.default_rng(seed), noisy).mean(1)
        lags = range(-3, 4)
        fit = [np.corrcoef(got[3:57], loudness[3 - lag : 57 - lag])[0, 1] for lag in lags]
        assert lags[int(np.argmax(fit))] == 0
        assert max(fit) > 0.6


def test_background_is_below_the_voice() -> None:
    _, mel, other = picture_and_sound()
    only = replace(NOTHING, audio_noise=1.0)
    for seed in range(20):
        got = change_sound(mel, other, np.random.default_rng(seed), only)
        assert (got >= np.clip(mel, -4, 4) - 1e-5).all()  # powers add up
        loud = mel > np.quantile(mel, 0.95)
        assert (got - mel)[loud].mean() < 0.3


def test_strengths_make_a_difference_each() -> None:
    frames, mel, other = picture_and_sound()
    for name in ("color", "gray", "blur", "pixel_noise"):
        some = replace(NOTHING, **{name: 0.5})
        changed = [
            not np.array_equal(
                change_look(frames, np.random.default_rng(s), some),
                change_look(frames, np.random.default_rng(s), NOTHING),
            )
            for s in range(20)
        ]
        assert sum(changed) > 3, name
    values = {
        "gain_db": 6.0,
        "equalizer_db": 6.0,
        "formant": 0.1,
        "audio_noise": 0.9,
        "mask_bins": 9,
    }
    for name, value in values.items():
        some = replace(NOTHING, **{name: value})
        changed = [
            not np.array_equal(change_sound(mel, other, np.random.default_rng(s), some), mel)
            for s in range(20)
        ]
        assert sum(changed) > 8, name


def test_inputs_are_not_changed_in_place() -> None:
    frames, mel, other = picture_and_sound()
    copies = frames.copy(), mel.copy(), other.copy()
    for seed in range(10):
        change_look(frames, np.random.default_rng(seed), Augment())
        change_sound(mel, other, np.random.default_rng(seed), Augment())
    for now, before in zip((frames, mel, other), copies, strict=True):
        np.testing.assert_array_equal(now, before)


def test_windows_of_the_counted_clip() -> None:
    """The clips of these tests are as prepare makes them: a window at every frame but four."""
    assert n_windows(60, mel_start(60, SPEC) + 1, SPEC) == 56


# --- pairs that look alike, rows of a batch


def test_a_frozen_stream_has_no_false_pairs(tmp_path: Path) -> None:
    root = tmp_path / "s"
    StoreWriter(root, SPEC)
    counted_clip(root, "a", n_frames=60)
    store = ClipStore(root)
    clip = store.clips[0]
    frames = store.frames(clip).copy()
    frames[30:] = frames[30]
    frames[30:, 0, 0] += 1  # one pixel of noise is no motion
    mel = np.random.default_rng(0).uniform(-3, 3, (193, 80)).astype(np.float32)
    write_shard(root, "a", {"0.frames": frames, "0.mel": mel, "0.audio": np.zeros(8, np.int16)})
    store = ClipStore(root)
    found = 0
    for step in range(10):
        batch = sampler(store).batch(1, step)
        for b, first in enumerate(first_frames(batch)):
            if first >= 30:
                continue  # the number is no longer told by the picture
            for i in range(12):
                for j in range(12):
                    both_frozen = first + i >= 30 and first + j >= 30
                    assert bool(batch.alike[b, i, j]) == (both_frozen or i == j)
                    found += both_frozen
    assert found > 0


def test_rows_of_a_batch_are_those_of_the_whole(tiny_store: ClipStore) -> None:
    draw = sampler(tiny_store, augment=Augment())
    whole = draw.batch(1, 3)
    part = draw.batch(1, 3, range(2, 4))
    for mine, all_rows in zip(fields(part), fields(whole), strict=True):
        assert torch.equal(mine, all_rows[2:4])


# --- artefacts


def test_artefacts_leave_time_and_shape_alone() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(60, 200, (6, 48, 96, 3)).astype(np.uint8)
    changed = 0
    for seed in range(20):
        out = add_artefacts(frames, np.random.default_rng(seed))
        assert out.shape == frames.shape and out.dtype == np.uint8
        changed += not np.array_equal(out, frames)
        # Each frame is still nearest to itself.
        cells = [x.reshape(6, 8, 6, 16, 6, 3).mean((2, 4)).reshape(6, -1) for x in (frames, out)]
        distance = np.abs(cells[0][:, None] - cells[1][None]).mean(2)
        assert (distance.argmin(1) == np.arange(6)).all()
    assert 10 < changed < 20


def test_artefacts_are_stage_3s(tiny_store: ClipStore) -> None:
    with_, without = (
        sampler(tiny_store, augment=replace(NOTHING, artefacts=share), batch_clips=8)
        for share in (1.0, 0.0)
    )
    assert equal(with_.batch(2, 0), without.batch(2, 0))
    assert not torch.equal(with_.batch(3, 0).frames, without.batch(3, 0).frames)


def test_the_background_is_what_the_row_before_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = counted_store(tmp_path / "s", a={}, b={"early_by": 60})
    got: list[tuple[np.ndarray, np.ndarray]] = []

    def change(mel: np.ndarray, other: np.ndarray, *_: object) -> np.ndarray:
        got.append((mel, other))
        return mel

    monkeypatch.setattr(sampling, "change_sound", change)
    sampler(store, batch_clips=2).batch(1, 0)
    (first, behind_first), (second, behind_second) = got
    assert not np.array_equal(first, second)
    assert np.array_equal(behind_first, second) and np.array_equal(behind_second, first)


def test_behind_a_clips_end_there_is_silence(tmp_path: Path) -> None:
    batch = sampler(counted_store(tmp_path / "s", a={"n_frames": 16})).batch(1, 0)
    tail = batch.mel[0, :, 52:]
    assert tail.numel() and (tail == -4).all()


def test_speakers_are_told_apart_and_not_videos(tmp_path: Path) -> None:
    x, y = {"speaker": "x"}, {"speaker": "y"}
    store = counted_store(tmp_path / "s", a=x, b=x, c=y)
    batch = sampler(store, batch_clips=3).batch(1, 0)
    who = dict(zip(batch.source.tolist(), batch.speaker.tolist(), strict=True))
    assert who[0] == who[1] != who[2] and len(who) == 3


def test_long_clips_are_drawn_more(tmp_path: Path) -> None:
    long, short = {"n_frames": 60, "speaker": "x"}, {"n_frames": 20, "speaker": "x"}
    draw = sampler(counted_store(tmp_path / "s", a=long, b=short), batch_clips=1)
    share = np.mean([draw.batch(1, step).source[0] == 0 for step in range(300)])
    assert share == pytest.approx(0.75, abs=0.08)


def test_sounds_five_decibels_apart_are_not_alike() -> None:
    mel = np.zeros((40, 80), np.float32)
    for louder, alike in ((0.4, False), (0.1, True)):
        mel[20:] = louder
        assert bool(sampling._sound_alike(mel, np.array([0, 20]), 16)[0, 1]) is alike


def test_a_window_is_still_only_if_all_of_it_is(tmp_path: Path) -> None:
    """One flash moves every window that holds it, and no other."""
    root = tmp_path / "s"
    StoreWriter(root, SPEC)
    counted_clip(root, "a", n_frames=16)
    store = ClipStore(root)
    frames = store.frames(store.clips[0]).copy()
    frames[:] = frames[0]
    frames[8] = 255
    mel = np.random.default_rng(0).uniform(-3, 3, (52, 80)).astype(np.float32)
    tensors = {"0.frames": frames, "0.mel": mel, "0.audio": np.zeros(8, np.int16)}
    write_shard(root, "a", tensors)
    alike = sampler(ClipStore(root)).batch(1, 0).alike[0]
    assert alike[0, 3] and alike[0, 9] and not alike[0, 4] and not alike[0, 7]


def test_a_lag_is_cut_to_what_a_clip_has_room_for(tmp_path: Path) -> None:
    store = counted_store(tmp_path / "s", a={"n_frames": 18})
    items = [Item(store.clips[0], lag) for lag in (2.4, -2.4, 1.5)]
    assert [item.lag_frames for item in fitted(store, items, 16)] == [2, -2, 1.5]

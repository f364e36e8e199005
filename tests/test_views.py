from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.evaluate.views import CONDITIONS, Condition, under, view_for
from syncdisc_plugin.mel import log_mel


def of(name: str, level: str) -> Condition:
    return next(c for c in CONDITIONS if (c.name, c.level) == (name, level))


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: f"{c.name} {c.level}")
def test_a_condition_changes_one_of_the_two_and_no_shape(
    tiny_store: ClipStore, condition: Condition
) -> None:
    clip = tiny_store.clips[0]
    view = under(tiny_store, condition)
    frames, mel = tiny_store.frames(clip, 3, 9), tiny_store.mel(clip)
    seen, heard = view.frames(clip, 3, 9), view.mel(clip)
    assert (seen.shape, seen.dtype) == (frames.shape, frames.dtype)
    assert (heard.shape, heard.dtype) == (mel.shape, mel.dtype)
    assert np.array_equal(seen, frames) == (condition.picture is None)
    assert np.array_equal(heard, mel) == (condition.sound is None)
    assert np.array_equal(view.frames(clip, 3, 9), seen) and np.array_equal(view.mel(clip), heard)
    assert view.clips == tiny_store.clips and view.windows(clip) == tiny_store.windows(clip)


@pytest.mark.parametrize("snr_db", [20, 0])
def test_noise_has_the_level_that_is_named(tiny_store: ClipStore, snr_db: int) -> None:
    clip = max(tiny_store.clips, key=lambda c: c.n_frames)
    clean = tiny_store.audio(clip)
    view = under(tiny_store, of("pink noise", f"{snr_db} dB SNR"))
    noise = view.audio(clip) - clean
    unclipped = np.abs(view.audio(clip)) < 1
    measured = 10 * np.log10(np.mean(clean[unclipped] ** 2) / np.mean(noise[unclipped] ** 2))
    assert measured == pytest.approx(snr_db, abs=1.0)
    expected = log_mel(torch.from_numpy(view.audio(clip)), view.spec.mel).T.numpy()
    assert np.array_equal(view.mel(clip), expected)
    assert np.array_equal(view.audio(clip, 100, 200), view.audio(clip)[100:200])


def test_a_shifted_crop_is_shifted_by_the_share_of_the_face(tiny_store: ClipStore) -> None:
    clip = tiny_store.clips[0]
    px = round(0.1 * tiny_store.spec.face_px)
    frame = tiny_store.frames(clip, 0, 1)[0]
    moved = under(tiny_store, of("crop shifted", "10%")).frames(clip, 0, 1)[0]
    fraction = 0.1 * tiny_store.spec.face_px - px
    if not fraction:
        assert np.array_equal(moved[:, : -2 * px], frame[:, px:-px])
    inner = slice(20, -20)
    near = moved[inner, : -2 * px].astype(int) - frame[inner, px:-px].astype(int)
    far = moved[inner].astype(int) - frame[inner].astype(int)
    assert np.abs(near).mean() < np.abs(far).mean()


def test_worse_levels_are_further_from_the_original(tiny_store: ClipStore) -> None:
    clip = tiny_store.clips[0]
    frame = tiny_store.frames(clip, 0, 1).astype(int)
    for name in ("blur", "JPEG", "face size", "head rolled"):
        far = [
            np.abs(under(tiny_store, c).frames(clip, 0, 1).astype(int) - frame).mean()
            for c in CONDITIONS
            if c.name == name
        ]
        assert far == sorted(far), name


def test_another_nets_size_is_made_from_the_stored_one(tiny_store: ClipStore) -> None:
    clip = tiny_store.clips[0]
    spec = replace(tiny_store.spec, face_px=192, window_frames=16, window_mels=52)
    view = view_for(tiny_store, spec)
    seen, frame = view.frames(clip, 2, 3), tiny_store.frames(clip, 2, 3)
    assert seen.shape[1:3] == (spec.stored_px, spec.stored_px)
    back = cv2.resize(seen[0], frame.shape[1:3], interpolation=cv2.INTER_AREA)
    assert np.abs(back.astype(int) - frame[0]).mean() < 4
    assert view.windows(clip) == tiny_store.windows(clip) - 11
    assert view_for(tiny_store, tiny_store.spec) is tiny_store
    assert view.frames(clip, 5, 5).shape == (0, spec.stored_px, spec.stored_px, 3)


def test_another_mel_or_margin_cannot_be_made(tiny_store: ClipStore) -> None:
    for change in ({"margin": 0.3}, {"fps": 50}):
        with pytest.raises(StoreError, match=r"Prepare the videos again"):
            view_for(tiny_store, replace(tiny_store.spec, **change))

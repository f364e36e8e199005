"""Real footage, as it comes: containers, frame rates and faces. SYNCDISC_CLIPS names it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from syncdisc_plugin import weights
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.prepare import PrepareResult, PrepareSettings, prepare
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.evaluate.score import Scorer, score
from syncdisc_plugin.media import decode, move_audio, write_video
from syncdisc_plugin.nn import Discriminator

pytestmark = pytest.mark.real
Row = dict[str, str]
# Fades in from white and out again: no face is to be seen in a tenth of it.
FADES = "presenters/mvp2_man/intro.mp4"


def pick(clips_dir: Path) -> list[Row]:
    """The shortest clip, from 2.5 s on, of each group and container."""
    with (clips_dir / "clips.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if float(row["seconds"]) >= 2.5]
    rows = [row for row in rows if row["path"] != FADES]
    kinds: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (float(row["seconds"]), row["path"])):
        kinds.setdefault((row["path"].split("/")[0], Path(row["path"]).suffix), row)
    return list(kinds.values())


@pytest.fixture
def rows(clips_dir: Path) -> list[Row]:
    picked = pick(clips_dir)
    assert len(picked) >= 6, "the folder holds fewer kinds of footage than these tests are for"
    return picked


@pytest.fixture
def settings(models_dir: Path) -> PrepareSettings:
    return PrepareSettings(detector="yunet", models=models_dir, workers=1)


_made: dict[Path, tuple[ClipStore, PrepareResult]] = {}


@pytest.fixture
def prepared(
    clips_dir: Path,
    rows: list[Row],
    settings: PrepareSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ClipStore, PrepareResult]:
    """The picked clips in a store; made by the first test that asks."""
    if clips_dir not in _made:
        out = tmp_path_factory.mktemp("real") / "store"
        result = prepare([clips_dir / row["path"] for row in rows], out, settings=settings)
        _made[clips_dir] = ClipStore(out), result
    return _made[clips_dir]


def clips_of(store: ClipStore, clips_dir: Path, row: Row) -> list[Clip]:
    return [clip for clip in store.clips if clip.source == str(clips_dir / row["path"])]


def presenter(rows: list[Row]) -> Row:
    """The longest of the picked ones: an offset is surer the more there is to see."""
    return next(row for row in reversed(rows) if row["path"].startswith("presenters/"))


def test_every_input_has_a_row(
    clips_dir: Path, rows: list[Row], prepared: tuple[ClipStore, PrepareResult]
) -> None:
    store, result = prepared
    assert {row["path"] for row in store.rows} == {str(clips_dir / row["path"]) for row in rows}
    assert result.videos == len(rows) and result.clips == len(store)
    assert all(row["reason"] for row in store.refused)


def test_lengths(clips_dir: Path, rows: list[Row]) -> None:
    for row in rows:
        clip = decode(clips_dir / row["path"])
        seconds = sum(1 for _ in clip.frames()) / 25
        assert clip.note is None, row["path"]
        assert seconds == pytest.approx(float(row["seconds"]), abs=0.2), row["path"]
        assert len(clip.audio) / 16000 == pytest.approx(float(row["seconds"]), abs=0.2), row["path"]


def test_someone_who_talks_to_the_camera_is_one_track(
    clips_dir: Path, rows: list[Row], prepared: tuple[ClipStore, PrepareResult]
) -> None:
    store, _ = prepared
    talking = [row for row in rows if row["path"].split("/")[0] in ("presenters", "grid_s1")]
    assert len(talking) >= 3
    for row in talking:
        clips = clips_of(store, clips_dir, row)
        assert len(clips) == 1, row["path"]
        assert clips[0].n_frames / 25 >= 0.9 * float(row["seconds"]), row["path"]
        assert clips[0].loudness_db > -45 and clips[0].face_px > 24


def test_what_is_stored_is_a_moving_face_and_a_voice(
    prepared: tuple[ClipStore, PrepareResult],
) -> None:
    store, _ = prepared
    for clip in store.clips:
        frames, mel = store.frames(clip), store.mel(clip)
        assert frames.shape == (clip.n_frames, 120, 120, 3)
        assert frames.std() > 15, f"{clip.source}: a flat picture"
        mouth = frames[:, 70:110, 30:90].astype(float)
        assert np.abs(np.diff(mouth, axis=0)).mean() > 0.3, f"{clip.source}: a still"
        assert mel.shape == (clip.n_mels, 80) and -4 <= mel.min() < mel.max() <= 4
        assert mel.std() > 0.5, f"{clip.source}: no voice"
        assert len(store.audio(clip)) == clip.n_frames * 640


def test_score(
    clips_dir: Path,
    rows: list[Row],
    settings: PrepareSettings,
    tiny_net: Discriminator,
    tmp_path: Path,
) -> None:
    row = presenter(rows)
    net = weights.save(tiny_net, tmp_path / "tiny.safetensors")
    (track,) = score(clips_dir / row["path"], net, settings)
    assert track.seconds >= 0.9 * float(row["seconds"])
    assert len(track.probability_over_time) == round(track.seconds * 25) - 4
    x1, y1, x2, y2 = track.box
    assert 0 <= x1 < x2 <= float(row["width"]) and 0 <= y1 < y2 <= float(row["height"])


@pytest.mark.parametrize("shift", [8, -8])
def test_a_shift_of_the_audio_is_measured(
    clips_dir: Path, rows: list[Row], settings: PrepareSettings, tmp_path: Path, shift: int
) -> None:
    clip = decode(clips_dir / presenter(rows)["path"])
    frames, spare = list(clip.frames()), 8
    offsets = []
    for by in (0, shift):
        # Audio that is early by `by` frames: what is seen at frame f is heard at frame f - by.
        first = (spare + by) * 640
        audio = clip.audio[first : first + (len(frames) - 2 * spare) * 640]
        path = tmp_path / f"shifted {by}.mp4"
        write_video(path, frames[spare:-spare], audio=audio)
        (track,) = score(path, "base", settings)
        offsets.append(track.offset_frames)
    assert abs(offsets[0]) <= 1
    assert offsets[1] - offsets[0] == pytest.approx(shift, abs=1)


def test_random_shifts_are_found_and_repaired(
    clips_dir: Path, rows: list[Row], settings: PrepareSettings, tmp_path: Path
) -> None:
    """`bench/score_offsets.py` in small: the presenters' clips, their packets merely moved."""
    scorer = Scorer("base", settings)
    rng = np.random.default_rng(7)
    clips = [clips_dir / row["path"] for row in rows if row["path"].startswith("presenters/")]
    clips = [clip for clip in clips if clip.suffix != ".flv"]  # VP6 fits in no newer container
    assert len(clips) >= 2
    for clip in clips:
        planted = int(rng.choice([*range(-10, -1), *range(2, 11)]))
        moved = move_audio(clip, tmp_path / "moved.mkv", -planted / 25)
        (own,), (found,) = scorer(clip), scorer(moved)
        assert abs(own.offset_frames) <= 1 and found.in_sync is False, clip
        assert found.offset_frames == pytest.approx(planted + own.offset_frames, abs=1), clip
        # Between frames it is exact to a few milliseconds; half a frame is 20.
        assert found.offset_ms == pytest.approx(40 * planted + own.offset_ms, abs=10), clip
        fixed = move_audio(moved, tmp_path / "fixed.mkv", found.offset_ms / 1000)
        (again,) = scorer(fixed)
        assert again.in_sync and abs(again.offset_ms) <= 10, clip

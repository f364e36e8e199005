"""Preparing: every input has a row, bad files do not touch good ones, nothing is done twice."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killer import inject

from syncdisc_plugin.data.footage import Footage
from syncdisc_plugin.data.inputs import list_inputs
from syncdisc_plugin.data.manifest import Clip, read_rows
from syncdisc_plugin.data.merge import merge
from syncdisc_plugin.data.pool import Begin, Job, Results
from syncdisc_plugin.data.prepare import PrepareResult, PrepareSettings, prepare
from syncdisc_plugin.data.store import ClipStore, read_spec
from syncdisc_plugin.data.worker import _clips_of
from syncdisc_plugin.errors import FaceError, MediaError, RunError, StoreError
from syncdisc_plugin.faces import TrackSettings
from syncdisc_plugin.media import write_video
from syncdisc_plugin.spec import ClipSpec

RATE = 16000
HALF_FRAME_S = 0.0201
LBP = PrepareSettings(detector="lbp", workers=2)
WHOLE = PrepareSettings(detector="none", workers=1)
GOOD = {"ann/one.mp4": 1, "bob/zwei Gesichter.mkv": 2, "Ольга 李/мой ролик (1).mp4": 1}


def portrait() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[10:250:2, 120:360:2])


def moving(faces: int, n_frames: int = 50) -> Iterator[np.ndarray]:
    """(140, 160 * faces) frames with a portrait that sways in each 160 columns."""
    face = portrait()
    for i in range(n_frames):
        frame = np.full((140, 160 * faces, 3), 90, np.uint8)
        for k in range(faces):
            x = 160 * k + 20 + round(16 * np.sin(0.12 * i + k))
            y = 10 + round(8 * np.cos(0.1 * i))
            frame[y : y + 120, x : x + 120] = face
        yield frame


def babble(seconds: float, seed: int = 0) -> np.ndarray:
    n = round(seconds * RATE)
    rng = np.random.default_rng(seed)
    return (0.2 * rng.standard_normal(n) * np.abs(np.sin(np.arange(n) / 900))).astype(np.float32)


def grey(n_frames: int = 50) -> Iterator[np.ndarray]:
    for i in range(n_frames):
        yield np.full((140, 160, 3), 60 + i, np.uint8)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good videos, and one of every kind of bad ones beside them."""
    root = tmp_path_factory.mktemp("footage")
    for name, faces in GOOD.items():
        (root / name).parent.mkdir()
        write_video(root / name, moving(faces), audio=babble(2, seed=faces))
    bad = root / "ann"
    (bad / "not a video.mp4").write_text("<html>404</html>" * 500)
    (bad / "empty.mp4").touch()
    write_video(bad / "mute.mp4", moving(1))
    write_video(bad / "silent.mp4", moving(1), audio=np.zeros(2 * RATE, np.float32))
    write_video(bad / "faceless.mp4", grey(), audio=babble(2))
    write_video(bad / "blink.mp4", moving(1, n_frames=15), audio=babble(0.6))
    for suffix in (".mp4", ".mkv"):
        whole = write_video(bad / f"whole{suffix}", moving(1, 100), audio=babble(4))
        data = whole.read_bytes()
        (bad / f"cut{suffix}").write_bytes(data[: int(0.7 * len(data))])
        whole.unlink()
    (root / "notes.txt").write_text("not a video by its name: not looked at")
    (root / ".hidden.mp4").write_text("neither")
    return root


@pytest.fixture(scope="module")
def mixed(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareResult]:
    out = tmp_path_factory.mktemp("mixed") / "store"
    return out, prepare([footage], out, settings=LBP)


@pytest.fixture(scope="module")
def good_only(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    out = tmp_path_factory.mktemp("good") / "store"
    videos = [footage / name for name in GOOD]
    prepare(videos, out, settings=dataclasses.replace(LBP, workers=1))
    return ClipStore(out)


def clips_of(store: ClipStore, name: str) -> list[Clip]:
    return [clip for clip in store.clips if clip.source.endswith(name)]


# --- rows


def test_every_input_has_a_row(footage: Path, mixed: tuple[Path, PrepareResult]) -> None:
    store = ClipStore(mixed[0])
    inputs = {str(p) for p in footage.rglob("*.m*") if not p.name.startswith(".")}
    assert len(inputs) == 11
    assert {row["path"] for row in store.rows} == inputs
    refused = {Path(row["path"]).name for row in store.refused}
    kept = {Path(clip.source).name for clip in store.clips}
    assert refused == {
        "not a video.mp4",
        "empty.mp4",
        "mute.mp4",
        "silent.mp4",
        "faceless.mp4",
        "blink.mp4",
        "cut.mp4",
    }
    assert kept == {Path(name).name for name in GOOD} | {"cut.mkv"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("not a video.mp4", "no video stream"),
        ("empty.mp4", "the file is empty"),
        ("mute.mp4", "no audio stream"),
        ("silent.mp4", "the audio is silent"),
        ("faceless.mp4", "no face in 50 frames. Try another --detector"),
        ("blink.mp4", "no face stays for 25 frames. Lower --track.min_frames"),
        ("cut.mp4", "cannot be read as a video"),
    ],
)
def test_a_refusal_names_the_file_and_why(
    mixed: tuple[Path, PrepareResult], name: str, reason: str
) -> None:
    (row,) = (r for r in ClipStore(mixed[0]).refused if Path(r["path"]).name == name)
    assert row["status"] == "refused"
    assert name in row["reason"] and reason in row["reason"]
    assert "\n" not in row["reason"] and "Traceback" not in row["reason"]


def test_the_result_counts_what_the_store_holds(mixed: tuple[Path, PrepareResult]) -> None:
    out, result = mixed
    store = ClipStore(out)
    assert (result.videos, result.clips, len(result.refused)) == (11, 5, 7)
    assert result.seconds == pytest.approx(sum(c.n_frames for c in store.clips) / 25)
    assert 10 < result.seconds < 12


def test_a_truncated_file_gives_what_is_left_and_says_so(
    mixed: tuple[Path, PrepareResult],
) -> None:
    (clip,) = clips_of(ClipStore(mixed[0]), "cut.mkv")
    assert 50 <= clip.n_frames < 90
    assert "truncated" in clip.note or "stopped at" in clip.note


@pytest.mark.parametrize(("name", "faces"), GOOD.items())
def test_a_clip_per_face(mixed: tuple[Path, PrepareResult], name: str, faces: int) -> None:
    store = ClipStore(mixed[0])
    clips = clips_of(store, name)
    assert len(clips) == faces
    for clip in clips:
        frames, mel, audio = store.frames(clip), store.mel(clip), store.audio(clip)
        assert clip.speaker == name.split("/")[0] and clip.note == ""
        assert 45 <= clip.n_frames <= 50 and clip.start_s == pytest.approx(0, abs=0.1)
        assert frames.shape == (clip.n_frames, 120, 120, 3) and frames.dtype == np.uint8
        assert mel.shape == (clip.n_mels, 80) and mel.dtype == np.float32
        assert clip.n_mels == clip.n_frames * 640 // 200 + 1
        assert audio.shape == (clip.n_frames * 640,)
        assert 30 < clip.face_px < 60 and -25 < clip.loudness_db < -10
        assert store.windows(clip) == clip.n_frames - 4


def test_crops_hold_the_face_still(mixed: tuple[Path, PrepareResult]) -> None:
    store = ClipStore(mixed[0])
    for name in GOOD:
        for clip in clips_of(store, name):
            crops = store.frames(clip)[:, 24:96, 24:96].astype(float).mean(-1)
            flat = crops.reshape(len(crops), -1)
            alike = [np.corrcoef(flat[0], other)[0, 1] for other in flat[1:]]
            # The portrait sways by 32 pixels, its face is 40 wide: a fixed crop stays below 0.2.
            assert np.mean(alike) > 0.65


def test_bad_files_do_not_change_good_ones(
    mixed: tuple[Path, PrepareResult], good_only: ClipStore
) -> None:
    store = ClipStore(mixed[0])
    assert len(good_only) == 4
    for clip in good_only.clips:
        assert store[clip.id] == clip
        for read in ("frames", "mel", "audio"):
            among, alone = (getattr(s, read)(clip) for s in (store, good_only))
            np.testing.assert_array_equal(among, alone)


def test_a_second_time_nothing_is_done(footage: Path, mixed: tuple[Path, PrepareResult]) -> None:
    out, _ = mixed
    shards = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    rows = (out / "manifest.jsonl").read_text()
    for paths in ([footage], [footage / "bob", footage / "ann" / "one.mp4"]):
        again = prepare(paths, out, settings=LBP)
        n = len(list_inputs(paths))
        assert again == PrepareResult(videos=0, clips=0, seconds=0.0, refused=[], finished=n)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == shards
    before, after = rows.splitlines(), (out / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(a) for a in after] == [json.loads(b) for b in before]


def test_a_touched_video_is_read_once_and_not_redone(tmp_path: Path) -> None:
    """Copying footage back, or unpacking it again, gives files a new time."""
    video, out = tmp_path / "a.mp4", tmp_path / "store"
    write_video(video, grey(30), audio=babble(1.2))
    prepare([video], out, settings=WHOLE)
    (shard,) = (out / "shards").iterdir()
    ids, made = [c.id for c in ClipStore(out).clips], shard.stat().st_mtime_ns
    os.utime(video, ns=(1, 1))
    again = prepare([video], out, settings=WHOLE)
    assert (again.same, again.videos, again.clips, again.refused) == (1, 0, 0, [])
    third = prepare([video], out, settings=WHOLE)
    assert (third.same, third.cost.seconds) == (0, {}), "its new time is known now: not read again"
    assert [c.id for c in ClipStore(out).clips] == ids and shard.stat().st_mtime_ns == made
    prepare([video], tmp_path / "elsewhere", settings=WHOLE)
    merged = merge([out, tmp_path / "elsewhere"], tmp_path / "merged")
    assert (merged.inputs, merged.known) == (1, 1), "one content, whatever its time"


def test_other_bytes_of_the_same_size_are_prepared_again(tmp_path: Path) -> None:
    video, out = tmp_path / "a.mp4", tmp_path / "store"
    write_video(video, flash(30, 10), audio=click(1.2, 0.4))
    prepare([video], out, settings=WHOLE)
    before = ClipStore(out).clips
    raw = bytearray(video.read_bytes())
    at = raw.rindex(b"Lavf")  # the muxer's name, which decodes to nothing
    raw[at : at + 4] = b"lavf"
    video.write_bytes(raw)
    again = prepare([video], out, settings=WHOLE)
    after = ClipStore(out).clips
    assert (again.same, again.videos, again.clips) == (0, 1, 1)
    assert after[0].id != before[0].id and after[0].n_frames == before[0].n_frames
    assert len(list((out / "shards").iterdir())) == 1


def test_a_store_whose_keys_were_times_is_not_redone(tmp_path: Path) -> None:
    """Made before keys told contents: a row's key was what `seen` is now."""
    video, out = tmp_path / "a.mp4", tmp_path / "store"
    write_video(video, grey(30), audio=babble(1.2))
    prepare([video], out, settings=WHOLE)
    rows = list(read_rows(out / "manifest.jsonl"))
    for row in rows:
        row["key"] = row.pop("seen")
    (out / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert prepare([video], out, settings=WHOLE).cost.seconds == {}


def test_another_spec_is_refused(footage: Path, mixed: tuple[Path, PrepareResult]) -> None:
    with pytest.raises(StoreError, match="another spec"):
        prepare([footage], mixed[0], ClipSpec(face_px=64), LBP)


# --- nothing to do


def test_an_empty_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    with pytest.raises(MediaError, match=r"no video file in .*videos"):
        prepare([tmp_path / "videos"], tmp_path / "store", settings=WHOLE)
    assert not (tmp_path / "store").exists()


def test_a_missing_path_is_one_clear_error(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey(30), audio=babble(1.2))
    with pytest.raises(MediaError, match=r"nowhere: no such file or folder"):
        prepare([tmp_path / "a.mp4", tmp_path / "nowhere"], tmp_path / "store", settings=WHOLE)
    assert not (tmp_path / "store").exists()


def test_a_detector_without_its_file_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.mp4", grey(30), audio=babble(1.2))
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a closed port: offline
    settings = PrepareSettings(detector="blazeface", models=tmp_path / "models")
    with pytest.raises(FaceError, match="use --detector lbp, where there is a choice: it needs no"):
        prepare([tmp_path / "a.mp4"], tmp_path / "store", settings=settings)
    assert not (tmp_path / "store").exists()


def test_a_speakers_table_without_its_columns(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey(30), audio=babble(1.2))
    settings = dataclasses.replace(WHOLE, speakers=tmp_path / "who.csv")
    for table, why in (
        ("file,name\na.mp4,ann\n", "expected the columns path,speaker"),
        ("path;speaker\na.mp4;ann\n", "got .'path;speaker'.. Separate them by commas"),
        ("speaker,path\nann,a.mp4\nbob\n", "no path in line 3"),
        ("path,speaker\n,\n", "names none of the 1 videos, such as .*, but nothing"),
    ):
        (tmp_path / "who.csv").write_text(table)
        with pytest.raises(MediaError, match=why):
            prepare([tmp_path], tmp_path / "store", settings=settings)
    (tmp_path / "who.csv").write_bytes("path,speaker\na.mp4,Jörg\n".encode("cp1252"))
    with pytest.raises(MediaError, match=r"--speakers .*who\.csv: expected UTF-8, got a byte 0xf6"):
        prepare([tmp_path], tmp_path / "store", settings=settings)
    assert not (tmp_path / "store").exists()


# --- one clock, named speakers


def flash(n_frames: int, at: int, fps: float = 25) -> Iterator[np.ndarray]:
    for i in range(n_frames):
        yield np.full((64, 64, 3), 255 * (at <= i < at + fps // 5), np.uint8)


def click(seconds: float, at_s: float) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE)) / RATE
    burst = (time_s >= at_s) & (time_s < at_s + 0.1)
    return (0.8 * burst * np.sin(2 * np.pi * 1000 * (time_s - at_s))).astype(np.float32)


# Suffix, rate, late video, late audio; picture and sound both at 1.32 s of the file's clock.
CLOCKS = {
    "plain.mp4": (25, 0.0, 0.0),
    "late video.mp4": (25, 0.12, 0.0),
    "late video.mkv": (25, 0.12, 0.0),
    "late audio.mp4": (25, 0.0, 0.2),
    "fast.mp4": (50, 0.12, 0.0),
}


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    root = tmp_path_factory.mktemp("clocks")
    (root / "videos").mkdir()
    rows = ["path,speaker"]
    for name, (fps, video_s, audio_s) in CLOCKS.items():
        write_video(
            root / "videos" / name,
            flash(3 * fps, round((1.32 - video_s) * fps), fps),
            fps=fps,
            audio=click(3.2, 1.32 - audio_s),
            video_start_s=video_s,
            audio_start_s=audio_s,
        )
        if name != "plain.mp4":
            rows.append(f"videos/{name},Zoë {name[:4]}")
    (root / "who.csv").write_text("\n".join(rows), encoding="utf-8")
    settings = dataclasses.replace(WHOLE, speakers=root / "who.csv")
    prepare([root / "videos"], root / "store", settings=settings)
    return ClipStore(root / "store")


@pytest.mark.parametrize("name", CLOCKS)
def test_picture_and_sound_stay_together(clocks: ClipStore, name: str) -> None:
    (clip,) = clips_of(clocks, name)
    seen_s = int((clocks.frames(clip).mean((1, 2, 3)) > 128).argmax()) / 25
    audio = np.abs(clocks.audio(clip))
    heard_s = int((audio > 0.4).argmax()) / RATE
    loud = clocks.mel(clip).max(1) > 0
    assert audio.max() > 0.4 and loud.any() and not loud[0]
    assert seen_s == pytest.approx(heard_s, abs=HALF_FRAME_S)
    # An STFT frame of 50 ms feels the burst when it begins to reach into it.
    assert -0.03 <= int(loud.argmax()) / 80 - heard_s <= 0.0126
    assert clip.start_s + heard_s == pytest.approx(1.32, abs=0.03)


def test_speakers_come_from_the_table_else_from_the_folder(clocks: ClipStore) -> None:
    who = {Path(clip.source).name: clip.speaker for clip in clocks.clips}
    assert who == {
        "plain.mp4": "videos",
        "late video.mp4": "Zoë late",
        "late video.mkv": "Zoë late",
        "late audio.mp4": "Zoë late",
        "fast.mp4": "Zoë fast",
    }


# --- changes


def test_a_table_from_a_spreadsheet(tmp_path: Path) -> None:
    video = tmp_path / "only" / "a.mp4"
    video.parent.mkdir()
    write_video(video, flash(30, 10), audio=click(1.2, 0.4))
    # Spreadsheets put a byte order mark before the first column's name.
    (tmp_path / "who.csv").write_text("path,speaker\nonly/a.mp4,Ann\n", encoding="utf-8-sig")
    settings = dataclasses.replace(WHOLE, speakers=tmp_path / "who.csv")
    first = prepare([video.parent], tmp_path / "store", settings=settings)
    assert (first.videos, first.clips) == (1, 1)
    assert [c.speaker for c in ClipStore(tmp_path / "store").clips] == ["Ann"]


def test_clips_that_keep_another_speaker_are_counted(tmp_path: Path) -> None:
    video = tmp_path / "videos" / "kate" / "monday" / "a.mp4"
    video.parent.mkdir(parents=True)
    write_video(video, flash(30, 10), audio=click(1.2, 0.4))
    first = prepare([tmp_path / "videos" / "kate"], tmp_path / "store", settings=WHOLE)
    assert (first.clips, first.differ) == (1, 0)
    again = prepare([tmp_path / "videos"], tmp_path / "store", settings=WHOLE)
    assert (again.videos, again.finished, again.differ) == (0, 1, 1)
    assert [c.speaker for c in ClipStore(tmp_path / "store").clips] == ["monday"]


def raising(number: int) -> Callable[..., None]:
    """What takes any arguments, and fails."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do jobs in this process, where a test can get at them."""

    def run(jobs: Sequence[Job], begin: Begin) -> Results:
        work = begin()
        yield from map(work, jobs)

    monkeypatch.setattr("syncdisc_plugin.data.prepare._engine", lambda settings: run)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_what_could_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Neither a right that is given nor a disk that comes back changes the file's time."""
    video, out = tmp_path / "a.mp4", tmp_path / "store"
    write_video(video, grey(30), audio=babble(1.2))

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("syncdisc_plugin.data.worker.sha256", raising(number))
            found = prepare([video], out, settings=WHOLE)
        assert found.videos == 1 and "The same command tries again" in found.refused[0]["reason"]
    assert prepare([video], out, settings=WHOLE).clips == 1
    assert prepare([video], out, settings=WHOLE).videos == 0


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory"),
        MemoryError(),
    ],
)
def test_a_video_that_memory_was_short_for_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It costs no other video, and is not refused for good."""
    videos, out = [tmp_path / "a.mp4", tmp_path / "b.mp4"], tmp_path / "store"
    for video in videos:
        write_video(video, grey(30), audio=babble(1.2))

    def short(job: Job, video: Path) -> list[dict[str, Any]]:
        if video == videos[0]:
            raise error
        return _clips_of(job, video)

    with monkeypatch.context() as patch:
        patch.setattr("syncdisc_plugin.data.worker._clips_of", short)
        found = prepare(videos, out, settings=WHOLE)
    (row,) = found.refused
    assert found.clips == 1 and "a.mp4: memory ran out" in row["reason"]
    assert "--workers 1" in row["reason"]
    found = prepare(videos, out, settings=WHOLE)
    assert (found.videos, found.clips, found.refused) == (1, 1, [])


def test_refused_inputs_are_tried_again_when_asked(tmp_path: Path) -> None:
    """The bytes are as they were, but the detector may not be."""
    good, bad, out = tmp_path / "good.mp4", tmp_path / "bad.mp4", tmp_path / "store"
    write_video(good, grey(30), audio=babble(1.2))
    bad.write_bytes(b"no video")
    for retry, videos in ((False, 2), (False, 0), (True, 1)):
        found = prepare([good, bad], out, settings=dataclasses.replace(WHOLE, retry=retry))
        assert found.videos == videos
    assert [Path(row["path"]).name for row in found.refused] == ["bad.mp4"]
    rows = list(read_rows(out / "manifest.jsonl"))
    assert sorted(row["status"] for row in rows) == ["ok", "refused"]


@pytest.mark.usefixtures("in_process")
def test_the_same_name_in_two_folders_is_two_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for who in ("ann", "bob"):
        (tmp_path / who).mkdir()
        monkeypatch.chdir(tmp_path / who)
        write_video(Path("001.mp4"), grey(30), audio=babble(1.2))
        prepare(["001.mp4"], Path("../store"), settings=WHOLE)
    store = ClipStore(tmp_path / "store")
    assert [(c.speaker, c.source) for c in store.clips] == [
        (who, str(tmp_path / who / "001.mp4")) for who in ("ann", "bob")
    ]


@pytest.mark.usefixtures("in_process")
def test_a_clip_is_as_loud_as_itself(tmp_path: Path) -> None:
    """Not as the whole video, in which another one speaks."""
    rng = np.random.default_rng(0)
    shots = [rng.integers(0, 256, (6, 8, 3)).repeat(16, 0).repeat(16, 1) for _ in range(2)]
    frames = (shot.astype(np.uint8) for shot in shots for _ in range(33))
    sound = babble(2.64) * (np.arange(round(2.64 * RATE)) < 1.32 * RATE)
    write_video(tmp_path / "a.mp4", frames, audio=sound)
    prepare([tmp_path], tmp_path / "s", settings=WHOLE)
    loud, quiet = (clip.loudness_db for clip in ClipStore(tmp_path / "s").clips)
    level = 20 * np.log10(babble(1.32).std())
    assert loud == pytest.approx(level, abs=1) and quiet < level - 25


def test_a_table_holds_for_what_is_there_already(tmp_path: Path) -> None:
    """Written when training has said that one speaker is known."""
    folder, out = tmp_path / "flat", tmp_path / "store"
    folder.mkdir()
    for name in "abc":
        write_video(folder / f"{name}.mp4", grey(30), audio=babble(1.2))
    prepare([folder], out, settings=WHOLE)
    (tmp_path / "who.csv").write_text("path,speaker\nflat/a.mp4,Ann\nflat/b.mp4,Bob\n")
    settings = dataclasses.replace(WHOLE, speakers=tmp_path / "who.csv")
    found = prepare([folder], out, settings=settings)
    assert (found.videos, found.renamed, found.unnamed) == (0, 2, 1)
    assert sorted(c.speaker for c in ClipStore(out).clips) == ["Ann", "Bob", "flat"]
    assert prepare([folder], out, settings=settings).renamed == 0
    (tmp_path / "who.csv").write_text("path,speaker,language\nflat/a.mp4,Ann,en\n")
    assert prepare([folder], out, settings=settings).renamed == 1
    prepare([folder], out, settings=WHOLE)  # without the table nothing is undone
    clips = ClipStore(out).clips
    assert [(c.speaker, c.language) for c in clips] == [("Ann", "en"), ("Bob", ""), ("flat", "")]


def test_a_table_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    write_video(folder / "a.mp4", grey(30), audio=babble(1.2))
    (tmp_path / "who.csv").write_text("path,speaker\na.mp4,Ann\n")
    settings = dataclasses.replace(WHOLE, speakers=tmp_path / "who.csv")
    with pytest.raises(MediaError, match=r"names none of the 1 videos, such as .*flat/a\.mp4"):
        prepare([folder], tmp_path / "store", settings=settings)
    assert not (tmp_path / "store").exists()


def test_a_file_that_changed_is_done_again(tmp_path: Path) -> None:
    video = tmp_path / "only" / "a.mp4"
    video.parent.mkdir()
    write_video(video, flash(30, 10), audio=click(1.2, 0.4))
    # A folder of one clip.
    first = prepare([video.parent], tmp_path / "store", settings=WHOLE)
    assert (first.videos, first.clips, first.refused) == (1, 1, [])
    (old,) = ClipStore(tmp_path / "store").clips
    assert (old.speaker, old.n_frames) == ("only", 30)

    write_video(video, flash(40, 20), audio=click(1.6, 0.8))
    second = prepare([video.parent], tmp_path / "store", settings=WHOLE)
    assert (second.videos, second.clips) == (1, 1)
    store = ClipStore(tmp_path / "store")
    new = [clip for clip in store.clips if clip.id != old.id]
    assert [clip.n_frames for clip in new] == [40]
    assert store.frames(new[0])[20].mean() > 200 > 50 > store.frames(new[0])[10].mean()
    # What the file no longer holds must not be trained on.
    assert store.clips == new


def test_what_cannot_be_read_today_keeps_its_clips(tmp_path: Path) -> None:
    """A link to a disk that is not mounted; the disk comes back later."""
    disk, link, out = tmp_path / "disk", tmp_path / "videos" / "a.mp4", tmp_path / "store"
    disk.mkdir()
    link.parent.mkdir()
    write_video(disk / "a.mp4", grey(30), audio=babble(1.2))
    link.symlink_to(disk / "a.mp4")
    assert prepare([link.parent], out, settings=WHOLE).clips == 1
    before = [clip for clip in ClipStore(out).clips], sorted((out / "shards").iterdir())

    disk.rename(tmp_path / "away")
    found = prepare([link.parent], out, settings=WHOLE)
    assert found.refused[0]["reason"].endswith("What was prepared of it before stays.")
    assert ([clip for clip in ClipStore(out).clips], sorted((out / "shards").iterdir())) == before
    (tmp_path / "away").rename(disk)
    found = prepare([link.parent], out, settings=WHOLE)
    assert (found.videos, found.refused, found.finished) == (0, [], 1)


def failing_late(error: Exception) -> Callable[[Footage], Iterator[Any]]:
    """`Footage.clips` that raises after its last clip."""
    real = Footage.clips

    def clips(self: Footage) -> Iterator[Any]:
        yield from real(self)
        raise error

    return clips


@pytest.mark.usefixtures("in_process")
def test_what_fails_late_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, out = tmp_path / "a.mp4", tmp_path / "store"
    write_video(video, grey(60), audio=babble(2.4))
    monkeypatch.setattr("syncdisc_plugin.data.worker.SHARD_FRAMES", 10)
    monkeypatch.setattr(Footage, "clips", failing_late(ArithmeticError("late")))
    (row,) = prepare([video], out, settings=WHOLE).refused
    assert "ArithmeticError: late" in row["reason"]
    assert not list((out / "shards").iterdir())


@pytest.mark.usefixtures("in_process")
def test_a_disk_that_fails_for_a_moment_is_not_held_against_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, out = tmp_path / "a.mp4", tmp_path / "store"
    write_video(video, grey(60), audio=babble(2.4))

    with monkeypatch.context() as failing:
        error = OSError(errno.EIO, "Input/output error")
        failing.setattr(Footage, "clips", failing_late(error))
        (row,) = prepare([video], out, settings=WHOLE).refused
    assert (
        "a.mp4: cannot be read (Input/output error). The same command tries again." in row["reason"]
    )
    assert prepare([video], out, settings=WHOLE).clips == 1  # and so it does


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET])
def test_a_store_that_fails_for_a_moment_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    video, out = tmp_path / "a.mp4", tmp_path / "store"
    write_video(video, grey(60), audio=babble(2.4))

    with monkeypatch.context() as failing:
        failing.setattr("syncdisc_plugin.data.worker.write_shard", raising(number))
        (row,) = prepare([video], out, settings=WHOLE).refused
    assert "as its clips were written). The same command tries again" in row["reason"]
    assert prepare([video], out, settings=WHOLE).clips == 1


@pytest.mark.usefixtures("in_process")
def test_a_store_that_cannot_be_written_ends_the_run_and_costs_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, out = tmp_path / "a.mp4", tmp_path / "store"
    write_video(video, grey(60), audio=babble(2.4))

    with monkeypatch.context() as failing:
        failing.setattr("syncdisc_plugin.data.worker.write_shard", raising(errno.EPERM))
        with pytest.raises(RunError, match=r"cannot be written \(Operation not permitted\)"):
            prepare([video], out, settings=WHOLE)
    assert prepare([video], out, settings=WHOLE).clips == 1


# --- shots, and what is recorded of clips


def test_a_cut_ends_a_clip_and_the_row_says_what_was_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shots = [rng.integers(0, 256, (6, 8, 3)).repeat(16, 0).repeat(16, 1) for _ in range(2)]
    frames = (shot.astype(np.uint8) for shot in shots for _ in range(33))
    write_video(tmp_path / "two shots.mp4", frames, audio=babble(2.64))
    table = tmp_path / "who.csv"
    table.write_text("path,speaker,language\ntwo shots.mp4,Ann,de\n")
    prepare([tmp_path], tmp_path / "s", settings=dataclasses.replace(WHOLE, speakers=table))
    store = ClipStore(tmp_path / "s")
    first, second = store.clips
    assert (first.n_frames, second.n_frames, second.start_s) == (33, 33, pytest.approx(33 / 25))
    for clip, shot in zip(store.clips, shots, strict=True):
        means = store.frames(clip).mean((1, 2))  # (F, C)
        assert np.abs(means - means[0]).max() < 2 and np.abs(means - shot.mean((0, 1))).max() < 30
        assert (clip.speaker, clip.language, clip.face_score) == ("Ann", "de", 1.0)
        assert clip.sharpness is not None and 0 < clip.sharpness < 1
    seen = {"seconds": 2.64, "cuts": 1, "detections": 16, "too_small": 0, "too_unsure": 0}
    seen |= {"tracks": 2, "too_short": 0, "too_short_seconds": 0.0}
    assert [row["footage"] for row in store.rows] == [seen, seen]
    settings = dataclasses.replace(WHOLE, track=TrackSettings(cut_ratio=0))
    prepare([tmp_path], tmp_path / "s", settings=settings)  # another setting, another key
    assert [clip.n_frames for clip in ClipStore(tmp_path / "s").clips] == [66]


def test_a_refusal_says_what_was_seen(mixed: tuple[Path, PrepareResult]) -> None:
    seen = {Path(row["path"]).name: row.get("footage") for row in ClipStore(mixed[0]).refused}
    assert seen["empty.mp4"] is None
    assert seen["faceless.mp4"] == dict.fromkeys(seen["faceless.mp4"], 0) | {"seconds": 2.0}
    assert seen["blink.mp4"]["too_short"] == 1 and seen["blink.mp4"]["too_short_seconds"] == 0.6


# --- a part of it, for one job of many


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_shards_together_are_everything_once(footage: Path, n: int) -> None:
    roots = [footage / "ann", footage, footage / "bob" / "zwei Gesichter.mkv"]
    everything = [Path(video.place) for video in list_inputs(roots)]
    assert len(everything) == 11 == len(set(everything))
    parts = [list_inputs(roots)[i - 1 :: n] for i in range(1, n + 1)]
    assert sorted(Path(video.place) for part in parts for video in part) == sorted(everything)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_order_of_inputs_is_that_of_their_names(tmp_path: Path) -> None:
    """Array jobs may see the footage in other places, and be given it in another order."""
    seen = []
    for mount, order in (("mnt", 1), ("a/deep/place", -1)):
        roots = [tmp_path / mount / name for name in ("day 2", "day 10")]
        for name in ("b/1.mp4", "a/2.mp4", "Ö.mp4", "a/10.mp4"):
            for root in roots:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).touch()
        videos = [Path(video.place) for video in list_inputs(roots[::order])]
        seen.append([video.relative_to(tmp_path / mount) for video in videos])
    assert seen[0] == seen[1] and len(seen[0]) == 8
    files = sorted((tmp_path / "mnt").rglob("*.mp4"))
    assert list_inputs(files) == list_inputs(files[::-1])


@pytest.mark.parametrize("shard", [(0, 2), (3, 2), (-1, 2), (1, 0)])
def test_a_shard_that_is_none(tmp_path: Path, shard: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"shard: expected \(i, n\) with 1 <= i <= n, got"):
        prepare([tmp_path], tmp_path / "store", settings=WHOLE, shard=shard)
    assert not (tmp_path / "store").exists()


def test_a_shard_without_an_input_is_an_empty_store(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey(30), audio=babble(1.2))
    done = prepare([tmp_path / "a.mp4"], tmp_path / "store", settings=WHOLE, shard=(2, 2))
    assert done == PrepareResult(videos=0, clips=0, seconds=0.0, refused=[])
    assert read_spec(tmp_path / "store") == ClipSpec()


# --- a process that dies


# Imported by Python itself at start: kills a worker when it opens a file of this name, as a
# decoder's segmentation fault would. The package knows nothing of it.
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_file_that_kills_its_process_is_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = inject(tmp_path / "inject")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    (tmp_path / "videos").mkdir()
    for name in ("deadly", "harmless"):
        write_video(tmp_path / "videos" / f"{name}.mp4", flash(30, 10), audio=click(1.2, 0.4))
    result = prepare([tmp_path / "videos"], tmp_path / "store", settings=WHOLE)
    (row,) = result.refused
    assert Path(row["path"]).name == "deadly.mp4" and "crashed" in row["reason"]
    (clip,) = ClipStore(tmp_path / "store").clips
    assert Path(clip.source).name == "harmless.mp4" and clip.n_frames == 30


def test_an_aligned_crop_without_points_is_refused_before_anything(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"not looked at")
    with pytest.raises(FaceError, match="--detector yunet"):
        prepare(
            [video],
            tmp_path / "store",
            ClipSpec(crop="aligned"),
            PrepareSettings(detector="none"),
        )
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("in_process")
def test_a_file_that_is_written_to_meanwhile_is_refused_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, out = tmp_path / "a.mp4", tmp_path / "store"
    write_video(video, grey(30), audio=babble(1.2))

    def grows(*given: Any) -> Any:
        made = _clips_of(*given)
        with video.open("ab") as file:
            file.write(b"more")
        return made

    with monkeypatch.context() as patched:
        patched.setattr("syncdisc_plugin.data.worker._clips_of", grows)
        found = prepare([video], out, settings=WHOLE)
    assert found.clips == 0 and "was written to" in found.refused[0]["reason"]
    assert not list((out / "shards").glob("*.safetensors"))
    assert prepare([video], out, settings=WHOLE).clips == 1

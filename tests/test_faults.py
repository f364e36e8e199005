"""Bad input: a row that says why, whatever it is, and the good files beside it as if alone."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import SafetensorError

from syncdisc_plugin.data import writer as writer_module
from syncdisc_plugin.data.inputs import list_inputs
from syncdisc_plugin.data.manifest import read_rows, refused_row
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.writer import write_shard
from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media import decode, list_videos
from syncdisc_plugin.media.stream import PictureStream, SoundStream

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX files and signals")

FOLDER = Path(__file__).parents[1] / "bench" / "faults"
NAMES = ("plan", "mutate", "film", "damaged", "odd", "places", "changing", "command", "check",
         "disk")  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        modules = {name: importlib.import_module(name) for name in NAMES}
        spec = importlib.util.spec_from_file_location("faults_bench", FOLDER / "__main__.py")
        assert spec and spec.loader
        modules["main"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules["main"])
        yield SimpleNamespace(**modules)
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def clips(bench: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for real footage."""
    folder = tmp_path_factory.mktemp("clips")
    for n_frames in (32, 36, 40):
        film = replace(bench.film.Film(), n_frames=n_frames)
        bench.film.shoot(folder / f"{n_frames}.mp4", film)
    return folder


# --- the whole of it, a little of each kind


def test_a_sample_of_each_kind(bench: SimpleNamespace, clips: Path, tmp_path: Path) -> None:
    source = bench.main.originals(clips, tmp_path)
    plans = list(bench.main.all_plans(source, seed=0))
    assert len(plans) >= 300 and len({(p.kind, p.name) for p in plans}) == len(plans)
    few = [p for p in bench.main.thinned(plans, 1) if p.kind != bench.places.LOCKED]
    root = tmp_path / "inputs"
    made, good, skipped = bench.main.lay_out(few, source, root)
    assert len(made) >= 28 and not skipped
    options = ["--detector", "none", "--workers", "1"]
    with bench.changing.Restless(root, tmp_path / "mixed"):
        outcome = bench.command.run_prepare([root], tmp_path / "mixed", options, 300)
    prepare(good, tmp_path / "alone", settings=PrepareSettings(detector="none", workers=1))
    lines = bench.check.judge(made, tmp_path / "mixed")
    assert [line.faults for line in lines if line.faults] == []
    assert outcome.faults() + bench.check.unsound(tmp_path / "mixed") == []
    assert bench.check.differences(good, tmp_path / "mixed", tmp_path / "alone") == []
    assert "| flipped | 1 |" in bench.check.table(lines, bench.check.Line("good"))


def test_what_is_wrong_is_found(bench: SimpleNamespace, tmp_path: Path) -> None:
    """The check itself: a lost input, a bare exception, clips of what is no video."""
    plans = {
        "lost": bench.plan.OK,
        "bare": bench.plan.REFUSED,
        "taken": bench.plan.REFUSED,
        "worded": bench.plan.REFUSED,
    }
    made = [
        (bench.plan.Plan("kind", name, expects, Path.touch), tmp_path / name)
        for name, expects in plans.items()
    ]
    rows = [
        refused_row("1", tmp_path / "bare", "KeyError: 'x' (decode.py:12)"),
        {"key": "2", "path": str(tmp_path / "taken"), "status": "ok", "note": ""},
        refused_row("3", tmp_path / "worded", f"{tmp_path}/worded: the file is empty."),
    ]
    (tmp_path / "manifest.jsonl").write_text(
        "".join(f"{writer_module.json.dumps(r)}\n" for r in rows)
    )
    (line,) = bench.check.judge(made, tmp_path)
    assert (line.inputs, line.ok, line.refused) == (4, 1, 2)
    assert [fault.split(":")[0] for fault in line.faults] == ["'lost'", "'bare'", "'taken'"]


# --- what the bench found


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    for name in ("pipe.mp4", "device.mp4"):
        with pytest.raises(MediaError, match=f"{name}: a pipe, socket or device, no video file"):
            decode(tmp_path / name)


def test_links_that_lead_nowhere_have_rows(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (videos / "itself.mp4").symlink_to("itself.mp4")
    (videos / "long.mp4").symlink_to("l" * 300)
    assert len(list_videos([videos])) == len(list_inputs([videos])) == 3
    settings = PrepareSettings(detector="none", workers=1)
    prepare([videos], tmp_path / "store", settings=settings)
    rows = {Path(r["path"]).name: r for r in read_rows(tmp_path / "store" / "manifest.jsonl")}
    assert "is a link to what is no longer there" in rows["dangling.mp4"]["reason"]
    assert "leads back to itself" in rows["itself.mp4"]["reason"]
    assert str(videos / "long.mp4") in rows["long.mp4"]["reason"]
    assert ".py:" not in rows["long.mp4"]["reason"], "an unforeseen exception, not a reason"
    # As long as nothing changes, there is nothing to do; and then there is.
    assert prepare([videos], tmp_path / "store", settings=settings).videos == 0
    (tmp_path / "nowhere.mp4").write_text("no video, but there")
    again = prepare([videos], tmp_path / "store", settings=settings)
    assert [Path(row["path"]).name for row in again.refused] == ["dangling.mp4"]
    assert "no longer there" not in again.refused[0]["reason"]


def test_a_late_first_timestamp(bench: SimpleNamespace, tmp_path: Path) -> None:
    """Matroska gives frames before 0 without a time: they are left out, the rest is read."""
    early = bench.odd.moved(-0.3)
    film = replace(bench.film.Film(), clock=early, container=bench.odd.AS_IS)
    bench.film.shoot(tmp_path / "a.mkv", film)
    clip = decode(tmp_path / "a.mkv")
    assert clip.source.video_start_s == pytest.approx(0.02) and len(list(clip.frames())) == 32


@pytest.mark.parametrize("stream", ["picture", "sound"])
def test_a_jump_of_the_clock_ends_it(bench: SimpleNamespace, tmp_path: Path, stream: str) -> None:
    """And does not hold one picture, or silence, for as long as the clock jumped."""
    clock = bench.odd.jump(1.2, 90.0)
    how = {"clock": clock} if stream == "picture" else {
        "sounds": (replace(bench.odd.PCM, clock=clock),)
    }  # fmt: skip
    bench.film.shoot(tmp_path / "a.mkv", replace(bench.film.Film(), **how))
    clip = decode(tmp_path / "a.mkv")
    assert len(list(clip.frames())) == 30
    assert clip.note and clip.note.startswith(f"{stream}: stopped at")
    assert "timestamps jump by 90 s" in clip.note


def test_silence_that_the_clock_adds_up_is_bounded(bench: SimpleNamespace, tmp_path: Path) -> None:
    """No jump of these is too long by itself: together they would be 27 minutes of memory."""
    clock = bench.odd.faster(1000)
    sounds = (replace(bench.odd.PCM, clock=clock),)
    bench.film.shoot(tmp_path / "a.mkv", replace(bench.film.Film(), sounds=sounds))
    clip = decode(tmp_path / "a.mkv")
    assert len(clip.audio) < 70 * 16000 and clip.note and "timestamps jump" in clip.note


@pytest.mark.parametrize("rate_hz", [1, 7, 2**31 - 1])
def test_a_rate_of_sound_that_cannot_be(
    bench: SimpleNamespace, tmp_path: Path, rate_hz: int
) -> None:
    """1 Hz would be resampled to 16,000 times as many samples."""
    bench.film.shoot(tmp_path / "a.avi", bench.odd.MJPEG)
    data = bench.mutate.avi_sound_rate((tmp_path / "a.avi").read_bytes(), rate_hz)
    (tmp_path / "a.avi").write_bytes(data)
    with pytest.raises(MediaError, match=f"{rate_hz} samples per second cannot be"):
        decode(tmp_path / "a.avi")


@pytest.mark.parametrize(("codec", "stream"), [(b"V_MPEG4/ISO/AVC", "video"), (b"A_AAC", "audio")])
def test_a_codec_that_nobody_knows(
    bench: SimpleNamespace, tmp_path: Path, codec: bytes, stream: str
) -> None:
    path = tmp_path / "a.mkv"
    bench.film.shoot(path, bench.film.Film())
    unknown = codec[:2] + codec[2:].replace(b"A", b"Q")
    path.write_bytes(path.read_bytes().replace(codec, unknown))
    with pytest.raises(MediaError, match=f"codec of its {stream} stream is unknown"):
        decode(path)
    with pytest.raises(MediaError, match=f"codec of its {stream} stream is unknown"):
        PictureStream(path) if stream == "video" else SoundStream(path)


def test_a_late_start_is_no_truncation(bench: SimpleNamespace, tmp_path: Path) -> None:
    """Matroska's duration counts from the file's zero here."""
    late = bench.odd.moved(90.0)
    sounds = (replace(bench.odd.PCM, clock=late),)
    bench.film.shoot(tmp_path / "a.mkv", replace(bench.film.Film(), clock=late, sounds=sounds))
    clip = decode(tmp_path / "a.mkv")
    assert len(list(clip.frames())) == 40 and clip.note is None


# --- what is not the video's fault


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_an_os_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """So that `prepare` stops, and does not refuse one good video after the other."""

    def save(*_: object) -> None:
        raise SafetensorError(f"Error while serializing: (os error {number})")

    monkeypatch.setattr(writer_module, "save_file", save)
    with pytest.raises(OSError, match=r"a\.safetensors") as caught:
        write_shard(tmp_path, "a", {"x": np.zeros(1)})
    assert caught.value.errno == number


@pytest.mark.slow
def test_a_full_disk_stops_the_command(bench: SimpleNamespace, clips: Path, tmp_path: Path) -> None:
    """Then, with room, the same command makes the store that it would have made."""
    good, options = sorted(clips.glob("*.mp4")), ["--detector", "none", "--workers", "1"]
    settings = PrepareSettings(detector="none", workers=1)
    prepare(good, tmp_path / "whole", settings=settings)
    line, _ = bench.disk.full_disk(
        good, tmp_path, tmp_path / "whole", options, 300, file_kb=(16,), disk_kb=()
    )
    assert (line.inputs, line.ok, line.faults) == (1, 1, [])

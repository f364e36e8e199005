"""Exported folders: the right pixels, the right samples, and what the hosts' loaders look for.

Expected values come from the store's tensors and from rules written here anew, not from the
exporter's own code.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import wave
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from syncdisc_plugin.data.layout import LAYOUTS, LayoutResult, write_layout
from syncdisc_plugin.data.manifest import Clip, clip_row
from syncdisc_plugin.data.split import Split
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.writer import StoreWriter, write_shard
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.spec import ClipSpec

PER_FRAME = 640
N = 40


def numbered_store(root: Path, names: Sequence[tuple[str, str, int]]) -> ClipStore:
    """Clips (speaker, source, frames) in which frame i is red 4 * i, and sample i is i - 30000."""
    writer = StoreWriter(root, ClipSpec())
    for k, (speaker, source, n) in enumerate(names):
        frames = np.empty((n, 120, 120, 3), np.uint8)
        frames[..., 0] = (4 * np.arange(n))[:, None, None]
        frames[..., 1:] = 60, 200
        frames[:, :12] = 255  # the margin
        audio = (np.arange(n * PER_FRAME) - 30000).astype(np.int16)
        mel = np.zeros((n * 16 // 5 + 1, 80), np.float32)
        write_shard(root, f"k{k}-0", {"0.frames": frames, "0.mel": mel, "0.audio": audio})
        clip = Clip(f"k{k}-0/0", speaker, source, 0.0, n, len(mel), 80.0, -20.0)
        writer.add([clip_row(f"k{k}", clip)])
    return ClipStore(root)


@pytest.fixture
def numbered(tmp_path: Path) -> ClipStore:
    """ann's three clips, and one of bob, who is held out below."""
    names = [("ann", f"/v/ann/{i}.mp4", N) for i in range(3)] + [("bob", "/v/bob/0.mp4", N)]
    return numbered_store(tmp_path / "numbered", names)


def by_speaker(store: ClipStore, heldout: str = "bob") -> Split:
    train = [c for c in store.clips if c.speaker != heldout]
    return Split(train, [c for c in store.clips if c.speaker == heldout], "by hand")


def verdict(clip_id: str, name: str = "kept", lag: float = 0.0, why: str = "said so") -> dict:
    return {"clip_id": clip_id, "verdict": name, "lag_frames": lag, "reason": why}


def export(store: ClipStore, out: Path, layout: str = "wav2lip", **more: Any) -> LayoutResult:
    return write_layout(store, out, layout, **({"split": by_speaker(store)} | more))


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "layout.jsonl").read_text().splitlines()]
    return {row["clip_id"]: row for row in rows}


def folder_of(out: Path, clip: Clip | str) -> Path:
    return out / rows_of(out)[clip if isinstance(clip, str) else clip.id]["folder"]


def lines(out: Path, name: str) -> list[str]:
    return (out / "filelists" / f"{name}.txt").read_text().splitlines()


def sound(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def frame_numbers(folder: Path) -> list[int]:
    """Which frames of a numbered clip the pictures 0, 1, 2, ... are."""
    n = len(list(folder.glob("*.jpg")))
    reds = [cv2.imread(str(folder / f"{i}.jpg"))[..., 2].mean() for i in range(n)]
    return [round(float(red) / 4) for red in reds]


def stamps(out: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.suffix in (".jpg", ".wav")}


# --- pixels and samples


def test_pictures_are_the_stored_faces_without_the_margin(
    tiny_store: ClipStore, tmp_path: Path
) -> None:
    result = write_layout(tiny_store, tmp_path / "out")
    assert (result.clips, result.written, result.left_out) == (10, 10, [])
    assert result.seconds == pytest.approx(sum(c.n_frames for c in tiny_store.clips) / 25)
    for clip in tiny_store.clips[:3]:
        folder = folder_of(tmp_path / "out", clip)
        assert len(list(folder.glob("*.jpg"))) == clip.n_frames
        stored = tiny_store.frames(clip).astype(float)
        for i in range(clip.n_frames):
            seen = cv2.imread(str(folder / f"{i}.jpg")).astype(float)[..., ::-1]
            right = np.abs(seen - stored[i, 12:108, 12:108]).mean()
            assert right < 2.5
            for y, x in ((11, 12), (12, 13)):
                beside = np.abs(seen - stored[i, y : y + 96, x : x + 96]).mean()
                assert beside > 1.5 * right


def test_colours_are_those_that_opencv_reads_as_bgr(numbered: ClipStore, tmp_path: Path) -> None:
    export(numbered, tmp_path / "out")
    picture = cv2.imread(str(folder_of(tmp_path / "out", "k0-0/0") / "10.jpg"))
    assert picture.shape == (96, 96, 3)
    np.testing.assert_allclose(picture.reshape(-1, 3), np.full((96 * 96, 3), (200, 60, 40)), atol=4)


def test_sound_is_the_stores(tiny_store: ClipStore, tmp_path: Path) -> None:
    write_layout(tiny_store, tmp_path / "out")
    for clip in tiny_store.clips:
        pcm = sound(folder_of(tmp_path / "out", clip) / "audio.wav")
        assert len(pcm) == clip.n_frames * PER_FRAME
        np.testing.assert_array_equal(pcm / np.float32(32768), tiny_store.audio(clip))


def test_other_sizes(tiny_store: ClipStore, tmp_path: Path) -> None:
    clip = tiny_store.clips[0]
    for size in (192, 48):
        result = write_layout(tiny_store, tmp_path / str(size), size_px=size)
        assert ("adds no detail" in result.note) == (size > 96)
        seen = cv2.imread(str(folder_of(tmp_path / str(size), clip) / "7.jpg"))
        assert seen.shape == (size, size, 3)
        small = cv2.resize(seen, (48, 48), interpolation=cv2.INTER_AREA)[..., ::-1]
        face = np.ascontiguousarray(tiny_store.frames(clip, 7, 8)[0, 12:108, 12:108])
        wanted = cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(float) - wanted).mean() < 3


# --- verdicts


# lag: the first frame that is left, how many are, and the sample heard with the first.
SHIFTS = {
    0.0: (0, N, 0),
    3.0: (3, N - 3, 0),  # early by 3 frames: what frame 3 shows is heard at the start
    -2.0: (0, N - 2, 2 * PER_FRAME),
    2.5: (3, N - 3, PER_FRAME // 2),
    -0.25: (0, N - 1, PER_FRAME // 4),
}


@pytest.mark.parametrize("lag", SHIFTS)
def test_sound_is_moved_to_its_frames(
    numbered: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lag: float
) -> None:
    monkeypatch.setattr("syncdisc_plugin.data.layout.PIECE", 16)  # a long clip is read in pieces
    first, n, sample = SHIFTS[lag]
    name = "shifted" if abs(lag) > 1 else "kept"
    rows = [verdict(c.id, name if c.id == "k0-0/0" else "kept", lag) for c in numbered.clips]
    export(numbered, tmp_path / "out", verdicts=rows)
    folder = folder_of(tmp_path / "out", "k0-0/0")
    assert frame_numbers(folder) == list(range(first, first + n))
    wanted = np.arange(sample, sample + n * PER_FRAME) - 30000
    np.testing.assert_array_equal(sound(folder / "audio.wav"), wanted.astype(np.int16))


def test_the_lag_of_the_whole_set_comes_on_top(numbered: ClipStore, tmp_path: Path) -> None:
    rows = [verdict("k0-0/0", "shifted", 3.0), verdict("k1-0/0"), verdict("k3-0/0")]
    export(numbered, tmp_path / "out", verdicts=rows, lag_frames=2)
    export(numbered, tmp_path / "plain", lag_frames=-4)
    for out, clip_id, frames in (
        ("out", "k0-0/0", range(5, N)),
        ("out", "k1-0/0", range(2, N)),
        ("plain", "k2-0/0", range(N - 4)),
    ):
        assert frame_numbers(folder_of(tmp_path / out, clip_id)) == list(frames)


def test_dropped_and_unjudged_clips_are_left_out(numbered: ClipStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = [verdict("k0-0/0"), verdict("k1-0/0", "dropped", 7.0, "no clearer than an impostor")]
    result = export(numbered, out, verdicts=rows)
    assert (result.clips, result.train, result.val) == (2, 1, 1)
    assert [row["clip_id"] for row in result.left_out] == ["k1-0/0", "k2-0/0"]
    rows_out = rows_of(out)
    assert {k: r["status"] for k, r in rows_out.items()} == {
        "k0-0/0": "written",
        "k1-0/0": "left out",
        "k2-0/0": "left out",
        "k3-0/0": "written",  # a run does not judge who is held out
    }
    assert rows_out["k1-0/0"]["reason"] == "no clearer than an impostor"
    assert "not judged" in rows_out["k2-0/0"]["reason"]
    assert {str(p.parent.relative_to(out)) for p in out.rglob("*.jpg")} == {
        rows_out[k]["folder"] for k in ("k0-0/0", "k3-0/0")
    }
    assert lines(out, "train") == [rows_out["k0-0/0"]["folder"]]


def test_a_held_out_clip_that_was_dropped_is_left_out(tmp_path: Path) -> None:
    names = [("ann", "a.mp4", N), ("bob", "b.mp4", N), ("bob", "c.mp4", N)]
    store = numbered_store(tmp_path / "store", names)
    rows = [verdict("k0-0/0"), verdict("k1-0/0", "dropped"), verdict("k2-0/0")]
    result = export(store, tmp_path / "out", verdicts=rows)
    assert lines(tmp_path / "out", "val") == [rows_of(tmp_path / "out")["k2-0/0"]["folder"]]
    assert result.val == 1


def test_new_verdicts_change_only_what_they_touch(numbered: ClipStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(numbered, out)
    before = stamps(out)
    (folder_of(out, "k2-0/0") / "mel.npy").touch()  # as wav2lip_288x288 does
    rows = [verdict("k0-0/0", "shifted", 3.0), verdict("k1-0/0", "dropped"), verdict("k2-0/0")]
    result = export(numbered, out, verdicts=rows)
    assert (result.clips, result.written) == (3, 1)
    assert frame_numbers(folder_of(out, "k0-0/0")) == list(range(3, N))
    assert not folder_of(out, "k1-0/0").exists()
    assert (folder_of(out, "k2-0/0") / "mel.npy").exists()
    kept = {p: t for p, t in stamps(out).items() if p.parent != folder_of(out, "k0-0/0")}
    assert len(kept) == 2 * (N + 1) and kept.items() <= before.items()


def test_clips_that_the_host_would_pass_over(tmp_path: Path) -> None:
    names = [("ann", "a.mp4", 15), ("ann", "b.mp4", 16), ("bob", "c.mp4", N), ("ann", "d.mp4", 18)]
    store = numbered_store(tmp_path / "store", names)
    rows = [verdict(c.id) for c in store.clips[:3]] + [verdict("k3-0/0", "shifted", 3.0)]
    result = export(store, tmp_path / "out", verdicts=rows)
    assert [row["clip_id"] for row in result.left_out] == ["k0-0/0", "k3-0/0"]
    assert all("15 frames" in row["reason"] for row in result.left_out)
    assert len(list(folder_of(tmp_path / "out", "k1-0/0").glob("*.jpg"))) == 16


# --- lists


def test_no_speaker_is_in_both_lists(tiny_store: ClipStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = write_layout(tiny_store, out)
    train, val = lines(out, "train"), lines(out, "val")
    assert val == lines(out, "test")
    assert (result.train, result.val) == (len(train), len(val)) == (8, 2)
    assert not {line.split("/")[0] for line in train} & {line.split("/")[0] for line in val}
    folders = {str(p.parent.relative_to(out)) for p in out.rglob("audio.wav")}
    assert set(train) | set(val) == folders and len(folders) == 10
    # One split per store: the discriminator must not learn on what the host measures on.
    heldout = set(json.loads((tiny_store.root / "split.json").read_text())["heldout"])
    rows = rows_of(out).values()
    assert {r["speaker"] for r in rows if r["folder"] in val} == heldout
    assert {r["part"] for r in rows if r["folder"] in val} == {"val"}


ODD = ["Zoë [x] *", "../up", "filelists", "世优", "a b", "a_b", ".", "", "ann", "x" * 90]


def test_odd_names_become_plain_folders(tmp_path: Path) -> None:
    names = [(who, f"/v/{n}/take 1? [{i}].mp4", 16) for n, who in enumerate(ODD) for i in range(2)]
    names += [("ann", "/other/ann/take 1? [0].mp4", 16)]  # the same name in another folder
    store = numbered_store(tmp_path / "store", names)
    out = tmp_path / "out"
    export(store, out, split=by_speaker(store, "世优"))
    folders = lines(out, "train") + lines(out, "val")
    assert len(set(folders)) == len(names)
    for folder in folders:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}/[A-Za-z0-9_-]{1,60}", folder)
        assert len(glob(str(out / folder / "*.jpg"))) == 16
    rows = rows_of(out).values()
    assert len({row["folder"].split("/")[0] for row in rows}) == len(ODD)
    assert {p.name for p in tmp_path.iterdir()} == {"store", "out"}
    assert {p.name for p in (out / "filelists").iterdir()} == {"train.txt", "val.txt", "test.txt"}
    assert any(row["folder"].startswith("ann/") for row in rows)


# --- what a host does


def folders_by_host(layout: str, out: Path, part: str) -> list[str]:
    """A file list as the host's hparams.py reads it."""
    found = []
    for line in (out / "filelists" / f"{part}.txt").open():
        name = line.strip().split(" ")[0]
        found.append(f"{out}/{name}" if layout == "wav2lip" else name)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_hosts_loader_finds_every_window(
    tiny_store: ClipStore, tmp_path: Path, layout: str
) -> None:
    out = tmp_path / "with space" if layout == "wav2lip" else tmp_path / "out"
    write_layout(tiny_store, out, layout)
    frame = {"wav2lip": "{}.jpg", "wav2lip_288": "{:05}.jpg"}[layout]
    audio = {"wav2lip": "audio.wav", "wav2lip_288": "synced.wav"}[layout]
    parts = ["train", {"wav2lip": "val", "wav2lip_288": "test"}[layout]]
    folders = [f for part in parts for f in folders_by_host(layout, out, part)]
    assert len(folders) == 10
    for folder in folders:
        pictures = glob(f"{folder}/*.jpg")
        assert len(pictures) > 15
        n_mels = len(sound(Path(folder) / audio)) // 200 + 1
        numbers = sorted(int(Path(p).name.split(".")[0]) for p in pictures)
        starts = [
            i for i in numbers if all(Path(folder, frame.format(i + j)).is_file() for j in range(5))
        ]
        assert starts == list(range(len(numbers) - 4))
        assert all(int(80.0 * (i / 25.0)) + 16 <= n_mels for i in starts)
        assert cv2.imread(f"{folder}/{frame.format(0)}").shape == (96, 96, 3)


# --- a process that dies, files that go missing

DIES = """
import os, signal, sys
from pathlib import Path
import cv2
from syncdisc_plugin.data.layout import write_layout
from syncdisc_plugin.data.store import ClipStore
encode, calls = cv2.imencode, []
def deadly(*args):
    calls.append(1)
    if len(calls) == 150:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(*args)
cv2.imencode = deadly
write_layout(ClipStore(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_kill_loses_the_clip_in_flight_only(tiny_store: ClipStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", DIES, str(tiny_store.root), str(out)]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -9
    before = stamps(out)
    # 60, 70 and a part of the next 60 frames; the part is not where the host looks.
    assert len(list((out / ".writing").glob("*.jpg"))) == 19
    assert len(list(out.glob("*/*/audio.wav"))) == 2 and not (out / "filelists").exists()
    result = write_layout(tiny_store, out)
    assert (result.clips, result.written) == (10, 8)
    assert not (out / ".writing").exists()
    whole = {p: t for p, t in before.items() if ".writing" not in p.parts}
    assert len(whole) == 132 and whole.items() <= stamps(out).items()
    again = write_layout(tiny_store, out)
    assert (again.clips, again.written) == (10, 0)


@pytest.mark.parametrize("lost", ["7.jpg", "audio.wav", "clip.json"])
def test_a_folder_that_lost_a_file_is_made_again(
    numbered: ClipStore, tmp_path: Path, lost: str
) -> None:
    export(numbered, tmp_path / "out")
    path = folder_of(tmp_path / "out", "k1-0/0") / lost
    path.unlink()
    assert export(numbered, tmp_path / "out").written == 1
    assert path.exists()


def test_another_size_is_written_anew(numbered: ClipStore, tmp_path: Path) -> None:
    export(numbered, tmp_path / "out")
    assert export(numbered, tmp_path / "out", size_px=64).written == 4
    assert cv2.imread(str(folder_of(tmp_path / "out", "k0-0/0") / "0.jpg")).shape == (64, 64, 3)


def test_a_damaged_shard_costs_its_own_clips_only(numbered: ClipStore, tmp_path: Path) -> None:
    (numbered.root / "shards" / "k1-0.safetensors").write_bytes(b"damaged")
    result = export(ClipStore(numbered.root), tmp_path / "out")
    (row,) = result.left_out
    assert row["clip_id"] == "k1-0/0" and "cannot be read" in row["reason"]
    assert result.clips == 3 and len(lines(tmp_path / "out", "train")) == 2


# --- refusals


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"layout": "wav2lips"}, "no 'wav2lips'. There are: wav2lip, wav2lip_288"),
        ({"size_px": 8}, "at least 16, got 8"),
        ({"size_px": 0}, "at least 16, got 0"),
        ({"verdicts": [{"clip_id": "k0-0/0"}]}, "no 'verdict' in a row"),
        ({"verdicts": [{"clip": "k0-0/0"}]}, "no 'clip_id' in a row"),
    ],
)
def test_wrong_arguments_are_named(
    numbered: ClipStore, tmp_path: Path, more: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        export(numbered, tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("layout", "name"), [("wav2lip", "a[1]"), ("wav2lip_288", "a*"), ("wav2lip_288", "a b")]
)
def test_a_path_that_the_host_misreads(
    numbered: ClipStore, tmp_path: Path, layout: str, name: str
) -> None:
    with pytest.raises(ValueError, match="Give another folder"):
        export(numbered, tmp_path / name, layout)
    assert not (tmp_path / name).exists()


def test_an_empty_list_is_refused_before_anything_is_written(
    numbered: ClipStore, tmp_path: Path
) -> None:
    rows = [verdict(c.id, "kept" if c.speaker == "ann" else "dropped") for c in numbered.clips]
    with pytest.raises(StoreError, match=r"no clip is left for val \(1 x said so\)"):
        export(numbered, tmp_path / "out", verdicts=rows)
    with pytest.raises(StoreError, match=r"no clip is left for train \(3 x not judged"):
        export(numbered, tmp_path / "out", verdicts=[verdict("other/0")])
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused(numbered: ClipStore, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(StoreError, match="not made by this command"):
        export(numbered, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    export(numbered, tmp_path / "out")
    with pytest.raises(StoreError, match="now asked for"):
        export(numbered, tmp_path / "out", "wav2lip_288")
    other = numbered_store(tmp_path / "other", [("ann", "a.mp4", N), ("bob", "b.mp4", N)])
    with pytest.raises(StoreError, match="now asked for"):
        export(other, tmp_path / "out")
    assert len(lines(tmp_path / "out", "train")) == 3


def test_a_store_at_another_rate_is_refused(tmp_path: Path) -> None:
    StoreWriter(tmp_path / "store", ClipSpec(fps=30)).add(
        [clip_row("k", Clip("k-0/0", "ann", "a.mp4", 0.0, N, N * 3, 80.0, -20.0))]
    )
    with pytest.raises(StoreError, match="25 fps and 16000 Hz"):
        write_layout(ClipStore(tmp_path / "store"), tmp_path / "out")

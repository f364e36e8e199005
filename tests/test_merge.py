"""Merging: what jobs made apart is what one run would have made, and no row is lost."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from small_store import SPEC, add, contents, edit_rows, make
from synth import talk

from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.merge import MergeResult, merge
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.store import ClipStore, read_judged
from syncdisc_plugin.data.verify import verify
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.media import write_video
from syncdisc_plugin.spec import ClipSpec

PARTS = {"a": {"k1": 1, "k2": 0}, "b": {"k3": 2}, "c": {}, "d": {"k4": 1, "k5": 1}}
ALL = {key: tracks for part in PARTS.values() for key, tracks in part.items()}


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Stores of disjoint inputs, one of them empty."""
    return [make(tmp_path / name, inputs) for name, inputs in PARTS.items()]


# --- what it makes


def test_shards_of_a_list_merged_are_one_run(tmp_path: Path) -> None:
    """The whole line on videos: bit for bit the store of a single `prepare`."""
    for i, name in enumerate(["ann/one", "ann/two", "bob/one", "bob/zwei ö", "cem/one"]):
        clip = talk(i, speaker=i // 2, n_frames=28, side_px=64)
        path = tmp_path / "videos" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, clip.frames, audio=clip.audio)
    (tmp_path / "videos" / "cem" / "broken.mp4").write_text("<html>404</html>")
    settings, spec = PrepareSettings(detector="none", workers=1), ClipSpec(face_px=48)
    roots = [tmp_path / "videos" / "ann", tmp_path / "videos" / "bob", tmp_path / "videos" / "cem"]
    prepare(roots, tmp_path / "whole", spec, settings)
    stores, videos = [], 0
    for i in (1, 2):
        # Whatever the order in which a job was given its folders.
        given = roots if i == 1 else roots[::-1]
        stores.append(tmp_path / f"part{i}")
        videos += prepare(given, stores[-1], spec, settings, shard=(i, 2)).videos
    assert videos == 6

    done = merge(stores, tmp_path / "merged")
    assert (done.inputs, done.clips, done.known) == (6, 5, 0)
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    whole, merged = ClipStore(tmp_path / "whole"), ClipStore(tmp_path / "merged")
    assert merged.clips == whole.clips and merged.refused == whole.refused
    for clip in whole.clips:
        for read in ("frames", "mel", "audio"):
            one, other = (getattr(store, read)(clip) for store in (whole, merged))
            np.testing.assert_array_equal(one, other)
    # And nothing is left to do in it.
    assert prepare(roots, tmp_path / "merged", spec, settings).videos == 0


def test_what_was_found_of_clips_goes_along(parts: list[Path], tmp_path: Path) -> None:
    """Of stores that were judged and of others; nothing of clips that were not taken."""
    out = tmp_path / "out"
    merge(parts[2:], out)
    assert not (out / "judged.jsonl").exists()
    rows = {
        clip.id: {"clip_id": clip.id, "offset_frames": number}
        for number, clip in enumerate(ClipStore(parts[1]).clips + ClipStore(parts[3]).clips)
    }
    for part in (parts[1], parts[3]):
        mine = [json.dumps(rows[clip.id]) for clip in ClipStore(part).clips]
        (part / "judged.jsonl").write_text("\n".join([*mine, '{"clip_id": "gone-0/0"}\n']))
    for _ in range(2):
        merge(parts, out)
        assert read_judged(out) == rows


def test_who_is_held_out_goes_along(parts: list[Path], tmp_path: Path) -> None:
    saved = {"asked": {}, "by": "speaker", "heldout": ["speaker k3"], "note": "of b"}
    who = ClipStore(parts[1]).clips[0].speaker
    saved["heldout"] = [who]
    (parts[1] / "split.json").write_text(json.dumps(saved))
    merge(parts, tmp_path / "out")
    merged = json.loads((tmp_path / "out" / "split.json").read_text())
    assert merged["heldout"] == [who] and merged["by"] == "speaker"


def test_parts_merged_are_the_whole(parts: list[Path], tmp_path: Path) -> None:
    before = [contents(part) for part in parts]
    result = merge(parts, tmp_path / "out")
    assert result == MergeResult(inputs=5, clips=5, known=0, linked=4, copied=0)
    assert contents(tmp_path / "out") == contents(make(tmp_path / "whole", ALL))
    assert [contents(part) for part in parts] == before
    assert not verify(tmp_path / "out").findings


def test_a_second_time_nothing_is_done(parts: list[Path], tmp_path: Path) -> None:
    merge(parts, tmp_path / "out")
    before = contents(tmp_path / "out")
    assert merge(parts, tmp_path / "out") == MergeResult(0, 0, 5, 0, 0)
    assert contents(tmp_path / "out") == before


def test_a_store_can_be_added_to(parts: list[Path], tmp_path: Path) -> None:
    assert merge(parts[1:], parts[0]).inputs == 3
    assert contents(parts[0]) == contents(make(tmp_path / "whole", ALL))
    # A merged store is one as any other.
    with StoreWriter(parts[0], SPEC) as writer:
        add(writer, "k6")
    assert len(ClipStore(parts[0])) == 6


def test_the_same_input_in_two_stores_is_taken_once(tmp_path: Path) -> None:
    stores = [make(tmp_path / "a", {"k1": 2, "k2": 1}), make(tmp_path / "b", {"k2": 1, "k3": 1})]
    stores.append(tmp_path / "a" / ".." / "a")  # the same store, named twice
    result = merge(stores, tmp_path / "out")
    assert (result.inputs, result.clips, result.known) == (3, 4, 1)
    assert contents(tmp_path / "out") == contents(make(tmp_path / "w", {"k1": 2, "k2": 1, "k3": 1}))


@pytest.mark.parametrize("order", [1, -1])
def test_a_crash_is_known_by_its_path(tmp_path: Path, order: int) -> None:
    """Its key is the job's, of the file's size and time; a good row's is of the file's bytes."""
    good = make(tmp_path / "b", {"k1": 2})
    with StoreWriter(tmp_path / "a", SPEC) as writer:
        add(writer, "job", tracks=0, path="videos/k1.mp4")
    both = [tmp_path / "a", good][::order]
    result = merge(both, tmp_path / "out")
    assert (result.inputs, result.clips, result.known) == (1, 2, 1)
    assert contents(tmp_path / "out") == contents(good)
    for store in both:  # one after the other, too
        merge([store], tmp_path / "later")
    assert contents(tmp_path / "later") == contents(good)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("path", ["", "/mnt/videos/k1.mp4"])
def test_an_input_that_crashed_once_is_taken_where_it_went_well(
    tmp_path: Path, order: int, path: str
) -> None:
    crashed, good = make(tmp_path / "a", {"k1": 0}), tmp_path / "b"
    with StoreWriter(good, SPEC) as writer:
        add(writer, "k1", tracks=2, path=path)
    both = [crashed, good][::order]
    merge(both, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(good)
    for store in both:  # one after the other, too
        merge([store], tmp_path / "later")
    assert contents(tmp_path / "later") == contents(good)


def test_another_disk_means_a_copy(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    result = merge(parts, tmp_path / "out")
    assert (result.linked, result.copied) == (0, 4)
    assert contents(tmp_path / "out") == contents(make(tmp_path / "whole", ALL))


def test_a_copy_that_is_not_whole_is_not_there(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def half(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr("shutil.copyfile", half)
    with pytest.raises(OSError, match="No space"):
        merge(parts, tmp_path / "out")
    assert contents(tmp_path / "out")[0] == []
    assert not list((tmp_path / "out" / "shards").iterdir())


def test_a_change_in_the_merged_store_leaves_the_parts_alone(
    parts: list[Path], tmp_path: Path
) -> None:
    """Shards are the same files: none may ever be written in place."""
    before = [contents(part) for part in parts]
    merge(parts, tmp_path / "out")
    with StoreWriter(tmp_path / "out", SPEC) as writer:
        add(writer, "k9", path="videos/k1.mp4")  # the file changed
    assert not (tmp_path / "out" / "shards" / "k1-0.safetensors").exists()
    assert [contents(part) for part in parts] == before


# --- what it refuses


def test_different_specs(tmp_path: Path) -> None:
    other = dataclasses.replace(SPEC, face_px=64)
    stores = [make(tmp_path / "a", {"k1": 1}), make(tmp_path / "b", {"k2": 0}, other)]
    with pytest.raises(StoreError, match=r"b and .*a are of different specs \(face_px 64 and 32\)"):
        merge(stores, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StoreError, match=r"--out .*b: holds clips of another spec"):
        merge(stores[:1], stores[1])


def test_two_contents_of_one_path_are_not_chosen_from(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", {"k1": 1}), tmp_path / "b"
    with StoreWriter(b, SPEC) as writer:
        add(writer, "k2", path="videos/k1.mp4")
    with pytest.raises(StoreError, match=r"videos/k1\.mp4 is in .*a and.*b \(1 such inputs\)"):
        merge([a, b], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merge([a], tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(StoreError, match=r"videos/k1\.mp4 is in"):
        merge([b], tmp_path / "out")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("cut", [40, 1])
def test_an_unfinished_store(parts: list[Path], tmp_path: Path, cut: int) -> None:
    manifest = parts[1] / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-cut])
    with pytest.raises(StoreError, match=r"b: manifest.*stopped.*Run the same `prepare` again"):
        merge(parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_store_in_use(parts: list[Path], tmp_path: Path) -> None:
    held = Lock(parts[3])
    with pytest.raises(StoreError, match="d: expected no other process at work"):
        merge(parts, tmp_path / "out")
    held.release()
    assert not (tmp_path / "out").exists()
    held = Lock(parts[0])
    with pytest.raises(StoreError, match="a: expected no other process at work"):
        merge(parts[1:], parts[0])
    held.release()


def test_a_damaged_shard_stops_it_and_it_goes_on(parts: list[Path], tmp_path: Path) -> None:
    shard = parts[3] / "shards" / "k4-0.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    with pytest.raises(StoreError, match=r"k4-0\.safetensors: cannot be opened.*store verify"):
        merge(parts, tmp_path / "out")
    assert not [f for f in verify(tmp_path / "out").findings if f.kind != "left"]
    shard.unlink()
    with pytest.raises(StoreError, match=r"k4-0\.safetensors: missing, 1 clip"):
        merge(parts, tmp_path / "out")
    shard.write_bytes(whole)
    merge(parts, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(make(tmp_path / "whole", ALL))


def test_no_store_and_no_sense(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store was given"):
        merge([], tmp_path / "out")
    with pytest.raises(StoreError, match=r"--out .*a: is one of the stores"):
        merge(parts, parts[0])
    with pytest.raises(StoreError, match=r"nowhere: not a clip store"):
        merge([*parts, tmp_path / "nowhere"], tmp_path / "out")
    edit_rows(parts[0], id="k1")
    with pytest.raises(StoreError, match="expected KEY/n, got k1"):
        merge(parts, tmp_path / "out")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty and not a clip store"):
        merge(parts[1:], tmp_path / "home")
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.txt"]


def test_many_inputs_are_written_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncdisc_plugin.data.merge.BATCH", 3)
    inputs = {f"k{i}": i % 3 for i in range(8)}
    part = make(tmp_path / "a", inputs)
    assert merge([part], tmp_path / "out").inputs == 8
    assert contents(tmp_path / "out") == contents(part)
    rows = [json.loads(row) for row in contents(tmp_path / "out")[0]]
    assert {row["rows"] for row in rows} == {1, 2}

"""Verifying: a whole store is found whole, and every kind of damage is named with what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from painted import bursts, picture
from small_store import SPEC, contents, edit_rows, make, tensors

from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.verify import Finding, finished_rows, verify
from syncdisc_plugin.data.writer import StoreWriter, write_shard
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.faces import TrackSettings
from syncdisc_plugin.media import write_video
from syncdisc_plugin.spec import ClipSpec


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three inputs: two clips, one clip, refused."""
    return make(tmp_path / "s", {"k1": 2, "k2": 1, "k3": 0})


def only(root: Path) -> Finding:
    """The one finding that there is."""
    (finding,) = verify(root).findings
    return finding


def test_a_whole_store(store: Path, tiny_store: ClipStore) -> None:
    before = contents(store)
    found = verify(store)
    assert (found.findings, found.removed) == ([], 0)
    assert (found.inputs, found.clips, found.shards) == (3, 3, 2)
    assert not verify(store, clean=True).findings
    assert contents(store) == before
    assert not verify(tiny_store.root).findings


@pytest.mark.parametrize("fps", [24, 25, 30])
def test_clips_of_one_track_at_any_rate(tmp_path: Path, fps: int) -> None:
    """16,000 samples are no whole number for each frame at 24 and 30."""
    frames = [picture(i) for i in range(100)]
    video = write_video(tmp_path / "v.mp4", frames, fps=fps, audio=bursts(100 / fps))
    track = TrackSettings(max_frames=25)
    settings = PrepareSettings(detector="none", workers=1, track=track)
    prepare([video], tmp_path / "s", ClipSpec(fps=fps), settings)
    found = verify(tmp_path / "s")
    assert (found.clips, found.findings) == (4, [])


def broken(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def do(root: Path) -> None:
        made = tensors("k1", 2)
        change(made)
        write_shard(root, "k1-0", made)

    return do


def with_nan(made: dict[str, np.ndarray]) -> None:
    made["1.mel"][7, 3] = np.nan


def shard(root: Path) -> Path:
    return root / "shards" / "k1-0.safetensors"


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda root: shard(root).unlink(), r"missing, 2 clip\(s\) of it are lost"),
        (lambda root: shard(root).write_bytes(b""), "cannot be opened"),
        (lambda root: shard(root).write_bytes(b"<html>" * 99), "cannot be opened"),
        (lambda root: shard(root).write_bytes(shard(root).read_bytes()[:-1]), "cannot be opened"),
        (broken(lambda made: made.pop("1.audio")), r"no tensor 1\.audio"),
        (broken(lambda made: made.update({"0.mel": made["0.mel"][:-1]})), r"F32 \(64, 80\)"),
        (broken(lambda made: made.update({"0.mel": made["0.mel"].astype(np.float16)})), "is F16"),
        (broken(lambda made: made.update({"0.frames": made["0.frames"][:, 1:]})), r"is U8 \(20"),
        (broken(lambda made: made.update({"0.audio": made["0.audio"][:-640]})), r"I16 \(12160,\)"),
        (broken(with_nan), r"1\.mel is not finite"),
        (broken(lambda made: made.update({"2.mel": made["0.mel"]})), r"2\.mel, which no row names"),
    ],
)
def test_a_damaged_shard(store: Path, damage: Callable[[Path], object], text: str) -> None:
    damage(store)
    finding = only(store)
    assert finding.kind == "shard"
    assert re.match(rf"shards.k1-0\.safetensors: .*{text}", finding.text), finding.text
    assert "videos/k1.mp4" in finding.text and "Delete its rows" in finding.text
    # What it advises works.
    rows = [row for row in contents(store)[0] if json.loads(row)["key"] != "k1"]
    (store / "manifest.jsonl").write_text("".join(f"{row}\n" for row in rows))
    make(store, {"k1": 2})
    assert not verify(store).findings


def test_several_things_are_all_told(store: Path) -> None:
    shard(store).unlink()
    (store / "shards" / "k2-0.safetensors").write_bytes(b"x")
    (store / "shards" / ".k9-0.safetensors.5.tmp").write_bytes(b"x")
    assert [f.kind for f in verify(store).findings] == ["shard", "shard", "left"]


def test_what_a_kill_left(store: Path) -> None:
    write_shard(store, "k9-0", tensors("k9", 1))
    (store / "shards" / ".k8-0.safetensors.5.tmp").write_bytes(b"x")
    before = contents(store)
    found = verify(store).findings
    assert [f.kind for f in found] == ["left", "left"]
    assert "k9-0.safetensors: no row names it" in found[0].text
    assert ".k8-0.safetensors.5.tmp" in found[1].text
    assert all("--clean removes it" in f.text for f in found)
    assert contents(store) == before, "nothing goes without being asked for"
    cleaned = verify(store, clean=True)
    assert (cleaned.findings, cleaned.removed) == ([], 2)
    assert not verify(store).findings and len(ClipStore(store)) == 3


def test_a_damaged_manifest_keeps_its_shards(store: Path) -> None:
    """Lost rows leave shards that no row names; those must not be cleaned away."""
    manifest = store / "manifest.jsonl"
    whole = manifest.read_text()
    for text in ("{half\n" + whole[whole.index("\n") + 1 :], whole[:100], "5\n" + whole):
        manifest.write_text(text)
        before = contents(store)
        found = verify(store, clean=True)
        assert found.removed == 0 and found.findings[0].kind in ("manifest", "row")
        assert contents(store) == before
    manifest.unlink()
    found = verify(store, clean=True)
    assert [f.kind for f in found.findings] == ["manifest", "left", "left"]
    assert "Mend the manifest first" in found.findings[1].text and shard(store).exists()


@pytest.mark.parametrize("cut", [1, 30])
def test_a_last_line_that_was_cut(store: Path, cut: int) -> None:
    manifest = store / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-cut])
    finding = only(store)
    assert finding.kind == "manifest" and "1 input(s) lack rows" in finding.text
    assert "Run the same `prepare` again" in finding.text
    with pytest.raises(StoreError, match="lack rows"):
        finished_rows(store)
    if cut > 1:
        StoreWriter(store, SPEC).close()
        make(store, {"k3": 0})
        assert not verify(store).findings


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"id": "k1"}, "expected KEY/n, got k1"),
        ({"id": "../../elsewhere/0"}, "expected KEY/n, got ../../elsewhere/0"),
        ({"id": None}, "TypeError"),
    ],
)
def test_a_row_that_is_none(store: Path, changes: dict[str, object], text: str) -> None:
    edit_rows(store, **changes)
    found = verify(store).findings
    assert found[0].kind == "row" and text in found[0].text and "Delete that line" in found[0].text


def test_rows_that_lack_or_double_something(store: Path) -> None:
    manifest = store / "manifest.jsonl"
    first, *others = manifest.read_text().splitlines()
    lacking = {k: v for k, v in json.loads(first).items() if k != "n_frames"}
    manifest.write_text("\n".join([json.dumps(lacking), *others]) + "\n")
    found = verify(store).findings
    assert "n_frames" in found[0].text and found[0].kind == "row"
    manifest.write_text("\n".join([first, first, *others]) + "\n")
    assert any("k1-0/0 is there twice" in f.text for f in verify(store).findings)


def test_a_store_in_work_is_not_judged(store: Path) -> None:
    held = Lock(store)
    with pytest.raises(StoreError, match="at work on this store"):
        verify(store)
    held.release()
    reading = Lock(store, shared=True)
    assert not verify(store).findings
    with pytest.raises(StoreError, match="at work on this store"):
        verify(store, clean=True)
    reading.release()


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a clip store"):
        verify(tmp_path)
    assert not list(tmp_path.iterdir())

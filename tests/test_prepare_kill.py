"""kill -9: whenever it comes, readers take nothing half made, and the same command mends all."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from small_store import SPEC, add, contents, make
from synth import talk

from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.merge import merge
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.verify import verify
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.media import write_video

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and fork")

STEPS = ("open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.chmod")


# --- at every step that touches a file, without videos


def killed_at(step: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do the work in a child that kills itself before its step-th touch of a file in `folder`.

    False: the work had fewer steps and is done.
    """
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event: str, args: tuple[object, ...]) -> None:
            nonlocal seen
            if event in STEPS and str(args[0]).startswith(str(folder)):
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return os.WIFSIGNALED(status)


def readers_take_only(root: Path, right: set[str]) -> None:
    """Whatever is there now can be opened and read, and is what it should be."""
    if not (root / "store.json").exists():
        return
    assert {f.kind for f in verify(root).findings} <= {"left", "manifest"}
    rows = {repr(row) for row in read_rows(root / "manifest.jsonl")}
    assert rows <= right, "a row that no undisturbed run would write"
    try:
        store = ClipStore(root)
    except StoreError:
        return
    for clip in store.clips:
        assert len(store.frames(clip)) == clip.n_frames


def rows_of(*roots: Path) -> set[str]:
    return {repr(row) for root in roots for row in read_rows(root / "manifest.jsonl")}


def kill_everywhere(
    folder: Path, begin: Callable[[], None], work: Callable[[], object], right: set[str]
) -> int:
    """Kill at each step in turn, look, do the work again, compare. How many steps there were."""
    begin()
    work()
    whole = contents(folder)
    step = 1
    while True:
        begin()
        if not killed_at(step, folder, work):
            return step - 1
        readers_take_only(folder, right)
        work()
        assert contents(folder) == whole, f"killed at step {step}"
        assert not verify(folder).findings
        step += 1


def test_a_writer_killed_at_every_step(tmp_path: Path) -> None:
    inputs = {"k1": 1, "k2": 2, "k3": 0}

    def work() -> None:
        with StoreWriter(tmp_path / "s", SPEC) as writer:
            for key, tracks in inputs.items():
                if key not in writer.done:
                    add(writer, key, tracks=tracks)

    def begin() -> None:
        shutil.rmtree(tmp_path / "s", ignore_errors=True)

    right = rows_of(make(tmp_path / "whole", inputs))
    assert kill_everywhere(tmp_path / "s", begin, work, right) > 15


def test_a_replacement_killed_at_every_step(tmp_path: Path) -> None:
    """A file that changed: its rows are the old or the new ones, never none."""
    path = "videos/changing.mp4"

    def put(key: str) -> None:
        with StoreWriter(tmp_path / "s", SPEC) as writer:
            if key not in writer.done:
                add(writer, key, path=path)

    def begin() -> None:
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        make(tmp_path / "s", {"other": 1})
        put("old")

    right = set()
    for key in ("old", "new"):
        begin()
        put(key)
        right |= rows_of(tmp_path / "s")
    begin()
    step = 1
    while killed_at(step, tmp_path / "s", lambda: put("new")):
        readers_take_only(tmp_path / "s", right)
        assert len(ClipStore(tmp_path / "s")) == 2, f"lost at step {step}"
        put("new")
        assert {clip.id for clip in ClipStore(tmp_path / "s").clips} == {"other-0/0", "new-0/0"}
        # The old shard may lie there still: known as left, and read by nobody.
        assert {f.kind for f in verify(tmp_path / "s", clean=True).findings} == set()
        begin()
        step += 1
    assert step > 8


@pytest.mark.parametrize("linked", [True, False])
def test_a_merge_killed_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    monkeypatch.setattr("syncdisc_plugin.data.merge.BATCH", 2)
    if not linked:

        def link(source: str, target: Path) -> None:
            raise OSError("no hard links here")

        monkeypatch.setattr(os, "link", link)
    parts = [make(tmp_path / "a", {"k1": 1, "k2": 0}), make(tmp_path / "b", {"k3": 2, "k4": 1})]
    out = tmp_path / "out"

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)

    before = [contents(part) for part in parts]
    steps = kill_everywhere(out, begin, lambda: merge(parts, out), rows_of(*parts))
    assert steps > 15
    assert [contents(part) for part in parts] == before


# --- at random moments, with videos, workers and all


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    try:
        yield importlib.import_module("prepare_kill")
    finally:
        sys.modules.pop("prepare_kill", None)


@pytest.mark.slow
def test_prepare_killed_at_random_moments(bench: ModuleType, tmp_path: Path) -> None:
    """`bench/prepare_kill.py` in small."""
    for i in range(5):
        clip = talk(i, speaker=i // 2, n_frames=40, side_px=64)
        path = tmp_path / "videos" / f"speaker {i // 2}" / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, clip.frames, audio=clip.audio)
    (tmp_path / "videos" / "broken.mp4").write_text("<html>404</html>")
    videos, options = [tmp_path / "videos"], ["--detector", "none", "--workers", "2"]
    whole = bench.undisturbed(videos, tmp_path / "whole", options)
    assert whole.inputs == 6 and len(ClipStore(whole.root)) == 5
    # A machine whose pace changes meanwhile may end before every kill: then once more.
    for turn in range(3):
        killed, faults = bench.one_round(
            videos, tmp_path / f"s{turn}", whole, 4, random.Random(turn)
        )
        assert not faults, faults
        if killed:
            break
    assert killed


def test_the_comparison_sees_what_differs(bench: ModuleType, tmp_path: Path) -> None:
    whole, same = (make(tmp_path / name, {"k1": 1, "k2": 0}) for name in ("whole", "same"))
    assert bench.differences(same, whole) == bench.faults_meanwhile(same, whole) == []
    make(tmp_path / "less", {"k1": 1})
    assert any("1 rows, 2 expected" in f for f in bench.differences(tmp_path / "less", whole))
    (same / "shards" / ".k1-0.safetensors.7.tmp").touch()
    assert any("in one of them only" in fault for fault in bench.differences(same, whole))
    shard = same / "shards" / "k1-0.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    assert any("k1-0.safetensors: differs" in f for f in bench.differences(same, whole))
    assert any("clip k1-0/0" in fault for fault in bench.faults_meanwhile(same, whole))

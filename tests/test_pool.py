"""The local pool: a job may do to its process what it likes, and nobody else is refused for it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from synth import talk

from syncdisc_plugin.data.cost import Cost
from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.pool import Done, Job, Work, cores, run_local
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.media import write_video


def jobs(*names: str) -> list[Job]:
    return [Job(f"key of {name}", name, "ann", "store") for name in names]


def begin(fate: str = "") -> Work:
    """What a worker calls at its start: itself it may fail in several ways."""
    if fate == "raise":
        raise MemoryError("the detector does not fit")
    if fate == "end":
        os._exit(7)
    return work


def work(job: Job) -> Done:
    if job.path == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.path.startswith("long"):
        time.sleep(300)
    if job.path == "disk full":
        raise OSError(errno.ENOSPC, "No space left on device")
    return Done([{"key": job.key, "path": job.path, "status": "ok"}], Cost({job.path: 1.0}))


def outcome(given: Sequence[Job], workers: int) -> dict[str, str]:
    """Status, or the reason of the refusal, by path."""
    results = list(run_local(given, begin, workers))
    rows = [row for done in results for row in done.rows]
    assert len(results) == len(rows) == len(given)
    return {row["path"]: row.get("reason", row["status"]) for row in rows}


def test_every_job_has_its_result() -> None:
    assert list(run_local([], begin)) == []
    names = [str(i) for i in range(9)]
    assert outcome(jobs(*names), workers=2) == dict.fromkeys(names, "ok")
    assert not multiprocessing.active_children()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_job_that_kills_its_process_is_refused_alone() -> None:
    assert outcome(jobs("a", "deadly", "b"), workers=1) == {
        "a": "ok",
        "deadly": "the decoder crashed on this file",
        "b": "ok",
    }


def test_what_a_job_raises_ends_all() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        list(run_local(jobs("disk full", "a"), begin, 1))
    assert caught.value.errno == errno.ENOSPC
    assert not multiprocessing.active_children()


def test_a_reader_that_stops_leaves_no_process() -> None:
    with closing(run_local(jobs("a", "b", "c"), begin, 1)) as results:
        next(results)
    assert not multiprocessing.active_children()


def test_a_reader_that_stops_does_not_wait_for_hours_of_video() -> None:
    began = time.monotonic()
    with closing(run_local(jobs("a", "long 1", "long 2", "long 3"), begin, 1)) as results:
        next(results)
    assert time.monotonic() - began < 60
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_the_share_of_a_scheduler_is_kept() -> None:
    whole = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(whole)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, whole)


@pytest.mark.parametrize(
    ("text", "most"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", 999), (None, 999)]
)
def test_the_share_of_a_container_is_kept(
    text: str | None, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker --cpus 1` leaves all cores in sight."""
    quota = tmp_path / "cpu.max"
    if text:
        quota.write_text(text + "\n")
    monkeypatch.setattr("syncdisc_plugin.data.pool.QUOTA", tmp_path / "none")
    without = cores()
    monkeypatch.setattr("syncdisc_plugin.data.pool.QUOTA", quota)
    assert cores() == min(without, most)


@pytest.mark.parametrize(
    ("fate", "why"),
    [("raise", "MemoryError: the detector does not fit"), ("end", "with exit status 7")],
)
def test_processes_that_cannot_start_are_one_error(fate: str, why: str) -> None:
    results = run_local(jobs("a", "b", "c"), partial(begin, fate), 2)
    with pytest.raises(RunError, match=f"expected 2 worker processes.*{why}") as caught:
        next(results)
    assert "No input was refused" in str(caught.value) and "--workers 1" in str(caught.value)
    assert not multiprocessing.active_children()


def test_a_process_that_may_not_start_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(RunError, match=r"this one is daemonic.*from the main process"):
        next(run_local(jobs("a"), begin, 1))


# --- `prepare` from wherever it is called

SCRIPT = """
print("the script runs")
from pathlib import Path
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
settings = PrepareSettings(detector="none", workers=1)
result = prepare([Path("videos")], Path("store"), settings=settings)
print(result.videos, result.clips, result.refused)
"""


@pytest.mark.parametrize("way", ["script", "stdin", "interactive"])
def test_prepare_without_a_guard(tmp_path: Path, way: str) -> None:
    """Workers do not run the caller's script again; unguarded, or from stdin, they could not."""
    (tmp_path / "videos").mkdir()
    clip = talk(0, speaker=0, n_frames=40, side_px=64)
    write_video(tmp_path / "videos" / "a.mp4", clip.frames, audio=clip.audio)
    (tmp_path / "make.py").write_text(SCRIPT)
    args = {"script": ["make.py"], "stdin": ["-"], "interactive": ["-i", "-q"]}[way]
    done = subprocess.run(
        [sys.executable, *args],
        input=None if way == "script" else SCRIPT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the script runs") == 1 and "1 1 []" in done.stdout
    assert "Traceback" not in done.stderr
    assert len(ClipStore(tmp_path / "store")) == 1


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_prepare_refuses_nothing_where_no_worker_starts(tmp_path: Path) -> None:
    """From outside: workers that the system ends at their start; then all is well again."""
    (tmp_path / "videos").mkdir()
    clip = talk(0, speaker=0, n_frames=40, side_px=64)
    write_video(tmp_path / "videos" / "a.mp4", clip.frames, audio=clip.audio)
    inject = tmp_path / "inject"
    inject.mkdir()
    (inject / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'spawn_main' in ' '.join(sys.orig_argv): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    argv = [sys.executable, "-m", "syncdisc_plugin", "prepare", "videos", "--out", "store"]
    argv += ["--detector", "none", "--workers", "2"]
    path = os.pathsep.join([str(inject), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    run = partial(subprocess.run, argv, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    done = run(env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "worker processes, but they could not start" in done.stderr
    assert "with exit status -9" in done.stderr
    assert list(read_rows(tmp_path / "store" / "manifest.jsonl")) == []
    assert run().returncode == 0
    assert len(ClipStore(tmp_path / "store")) == 1

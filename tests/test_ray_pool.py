"""Ray: whose fault a dead worker is, on a stand-in; and the same store as the local pool's."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from killer import inject
from small_store import contents
from synth import talk

from syncdisc_plugin.data.cost import Cost
from syncdisc_plugin.data.pool import Done, Job, Work
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.ray_pool import TRIES, run_ray
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import FaceError, RunError, SyncDiscError
from syncdisc_plugin.media import write_video

JOBS = [Job(f"key of {name}", name, "ann", "store") for name in "abcde"]


class DiedError(Exception):
    """What a job or a start raises in order to take its worker away."""


class NodeLostError(DiedError):
    """And the worker's node with it."""


class TaskError(Exception):
    """As Ray gives what remote code raised."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class StandIn:
    """As much of Ray as `run_ray` uses: one process, a worker at a time, every worker its node."""

    def __init__(self) -> None:
        self.exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=DiedError)
        self.outcomes: dict[int, Callable[[], Any]] = {}
        self.alive: list[Any] = []
        self.lost: set[str] = set()
        self.started = 0

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def nodes(self) -> list[dict[str, Any]]:
        names = [f"node {i}" for i in range(1, self.started + 1)]
        return [{"NodeID": name, "Alive": name not in self.lost} for name in names]

    def remote(self, **options: Any) -> Callable[[type], Any]:
        assert options["max_restarts"] == 0 and options["num_cpus"] == 1
        return lambda cls: SimpleNamespace(remote=lambda: self.hire(cls()))

    def hire(self, actor: Any) -> Any:
        self.started += 1
        node = f"node {self.started}"

        def later(call: Callable[..., Any]) -> Any:
            def remote(*args: Any) -> int:
                ref = len(self.outcomes)
                self.outcomes[ref] = lambda: self.do(node, call, *args)
                return ref

            return SimpleNamespace(remote=remote)

        def start(begin: Any) -> str:
            actor._work = begin()
            return node

        worker = _Handle(start=later(start), do=later(actor.do))
        self.alive.append(worker)
        return worker

    def do(self, node: str, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except NodeLostError:
            self.lost.add(node)
            raise
        except DiedError:
            raise
        except Exception as error:
            raise TaskError(error) from error

    def wait(self, refs: Sequence[int], num_returns: int) -> tuple[list[int], list[int]]:
        return [refs[0]], list(refs[1:])

    def get(self, ref: int) -> Any:
        return self.outcomes[ref]()

    def kill(self, worker: Any) -> None:
        if worker in self.alive:
            self.alive.remove(worker)


class _Handle(SimpleNamespace):
    __hash__ = object.__hash__


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr("syncdisc_plugin.data.ray_pool.require_ray", lambda: stand_in)
    return stand_in


def begin_with(fates: dict[str, list[type[Exception] | None]]) -> Callable[[], Work]:
    """Work that meets the next of a path's fates each time it is tried."""
    left = {path: list(reversed(these)) for path, these in fates.items()}

    def work(job: Job) -> Done:
        if left.get(job.path) and (fate := left[job.path].pop()):
            raise fate(f"at {job.path}")
        return Done([{"key": job.key, "path": job.path, "status": "ok"}], Cost())

    return lambda: work


def outcome(fates: dict[str, list[type[Exception] | None]], workers: int = 2) -> dict[str, str]:
    results = list(run_ray(JOBS, begin_with(fates), workers))
    rows = [row for done in results for row in done.rows]
    assert len(rows) == len(JOBS)
    return {row["path"]: row.get("reason", row["status"]) for row in rows}


ALL_OK = dict.fromkeys("abcde", "ok")


@pytest.mark.parametrize("workers", [0, 1, 2, 20])
def test_every_job_has_its_result(ray: StandIn, workers: int) -> None:
    assert outcome({}, workers) == ALL_OK
    assert ray.started == min(workers or 2, len(JOBS)) and ray.alive == []
    assert list(run_ray([], begin_with({}))) == []


def test_a_job_that_kills_its_workers_is_refused_alone(ray: StandIn) -> None:
    found = outcome({"b": [DiedError] * TRIES, "d": [DiedError] * (TRIES - 1)})
    assert found == ALL_OK | {"b": "the decoder crashed on this file"}
    assert ray.alive == []


def test_the_last_job_may_be_the_one_that_kills(ray: StandIn) -> None:
    assert outcome({"e": [DiedError] * TRIES}, workers=1)["e"].startswith("the decoder crashed")


def test_lost_nodes_are_not_the_jobs_fault(ray: StandIn) -> None:
    assert outcome({"a": [NodeLostError] * 10, "e": [NodeLostError] * 3}) == ALL_OK
    assert len(ray.lost) == 13 and ray.alive == []


@pytest.mark.parametrize("fate", [OSError, FaceError])
def test_what_a_job_raises_ends_all(ray: StandIn, fate: type[Exception]) -> None:
    with pytest.raises(fate, match="at c"):
        outcome({"c": [fate]})
    assert ray.alive == []


@pytest.mark.parametrize(
    ("fate", "raised", "text"),
    [
        (DiedError, RunError, "workers could not start: no memory.*same paths"),
        (ImportError, RunError, "workers could not start: no memory.*same version"),
        (FaceError, FaceError, "no memory"),  # says itself what to do
    ],
)
def test_workers_that_cannot_start_are_one_error(
    ray: StandIn, fate: type[Exception], raised: type[SyncDiscError], text: str
) -> None:
    def begin() -> Work:
        raise fate("no memory")

    with pytest.raises(raised, match=text):
        list(run_ray(JOBS, begin, 2))
    assert ray.alive == [] and ray.started < 10


def test_a_worker_that_cannot_start_at_first(ray: StandIn) -> None:
    fates = [DiedError, DiedError, DiedError]

    def begin() -> Work:
        if fates:
            raise fates.pop()("not yet")
        return begin_with({})()

    assert len(list(run_ray(JOBS, begin, 2))) == len(JOBS)


def test_no_cluster_at_the_address(ray: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at once: Ray itself tries for minutes."""
    ray.is_initialized, ray.shutdown = (lambda: False), (lambda: None)  # type: ignore
    for address in ("127.0.0.1:9", "[::1]:9"):
        with pytest.raises(RunError, match=r"--ray_address .*:9: expected a Ray cluster"):
            list(run_ray(JOBS, begin_with({}), address=address))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(RunError, match="expected a Ray cluster"):
        list(run_ray(JOBS, begin_with({})))


def test_a_cluster_that_is_slow_to_start_is_started_again(
    ray: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    seen: list[Any] = []
    failures = TRIES

    def init(**options: Any) -> None:
        seen.append((options["address"], options["num_cpus"]))
        if len(seen) - seen.count("down") <= failures:
            raise Exception("The current node timed out during startup.")

    ray.is_initialized, ray.init = (lambda: False), init  # type: ignore
    ray.shutdown = lambda: seen.append("down")  # type: ignore
    with pytest.raises(RunError, match=r"local: expected a Ray cluster.*timed out"):
        list(run_ray(JOBS, begin_with({}), 2))
    assert seen == [("local", 2), "down"] * TRIES
    failures, seen[:] = TRIES - 1, []
    assert len(list(run_ray(JOBS, begin_with({}), 2))) == len(JOBS)
    assert seen == [("local", 2), "down"] * TRIES  # what was started here ends here


# --- settings


def test_without_ray_there_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.mp4").touch()
    settings = PrepareSettings(detector="none", engine="ray")
    with pytest.raises(RunError, match=r'pip install "syncdisc-plugin\[ray\]", or take --engine'):
        prepare([tmp_path / "a.mp4"], tmp_path / "store", settings=settings)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("wrong", [{"engine": "dask"}, {"ray_address": "auto"}])
def test_engines_that_there_are_not(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}: "):
        PrepareSettings(**wrong)


# --- with Ray itself

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "syncdisc-plugin[ray]"'
)


@needs_ray
@pytest.mark.slow
def test_the_store_is_the_local_pools(tmp_path: Path) -> None:
    """Two workers on a cluster of this machine, good files, a broken one and one that kills."""
    folder = inject(tmp_path / "inject")
    for i, name in enumerate(["s0/a", "s0/b", "s1/c", "s1/deadly", "s2/d"]):
        clip = talk(i, speaker=i // 2, n_frames=40, side_px=64)
        path = tmp_path / "videos" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, clip.frames, audio=clip.audio)
    (tmp_path / "videos" / "broken.mp4").write_text("<html>404</html>")
    argv = [sys.executable, "-m", "syncdisc_plugin", "prepare", "videos", "--detector", "none"]
    paths = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    env.pop("RAY_ADDRESS", None)
    for engine in ("local", "ray"):
        options = ["--workers", "2", "--engine", engine, "--out", engine]
        done = subprocess.run(
            [*argv, *options], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert "prepared 4 clips" in done.stdout and "; 2 refused" in done.stdout
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    reasons = {Path(row["path"]).name: row["reason"] for row in ClipStore(tmp_path / "ray").refused}
    assert reasons["deadly.mp4"] == "the decoder crashed on this file"

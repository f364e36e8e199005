"""Jobs on a Ray cluster: the same work as in `pool`, on as many machines as there are.

All nodes must have this package, and see the videos, the detector's files and the store under the
same paths (a shared file system): workers write their shards themselves, only rows travel.
"""

from __future__ import annotations

import os
import socket
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from syncdisc_plugin.data.pool import Begin, Done, Job, Results, Work, cores, crashed
from syncdisc_plugin.errors import RunError, SyncDiscError

TRIES = 3  # a worker may also die of its neighbours' hunger for memory
_GPU_SHARE = 0.25  # decoding keeps a worker busy, so several share a GPU
_ANSWER_S = 10
_OBJECTS_BYTES = 128 * 2**20  # of a cluster that is started here: results are a few rows each


def require_ray() -> Any:
    """Import Ray.

    Raises:
        RunError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise RunError(
            f"--engine ray: expected the package ray, but it cannot be imported ({error}). "
            'pip install "syncdisc-plugin[ray]", or take --engine local.'
        ) from error
    return ray


def run_ray(
    jobs: Sequence[Job],
    begin: Begin,
    workers: int = 0,
    *,
    address: str | None = None,
    gpu: bool = False,
) -> Results:
    """Do the jobs in `workers` actors (0: one per CPU of the cluster), in no fixed order.

    A job whose worker dies is tried again on a new one, and refused after `TRIES` such deaths.
    A node that is lost, with all of its workers, is not held against their jobs.

    Args:
        jobs: what to do.
        begin: called once in each worker.
        workers: how many; those for which the cluster has no room yet join later.
        address: of a running cluster, as `ray.init` takes it. Without it: the connection that this
            process has, else the cluster that RAY_ADDRESS names, else one that is started here on
            this machine and ended afterwards.
        gpu: workers need a share of a GPU.

    Raises:
        RunError: no Ray, no cluster at the address, or workers cannot start. No job is refused.
        Exception: what a job raises; the jobs behind it are not done.
    """
    if not jobs:
        return
    ray = require_ray()
    with _cluster(ray, address, min(workers or cores(), len(jobs))):
        n = min(workers or int(ray.cluster_resources().get("CPU", 1)), len(jobs))
        crew = _Crew(ray, begin, gpu)
        try:
            yield from _share_out(ray, crew, jobs, n)
        finally:
            crew.dismiss()


def _share_out(ray: Any, crew: _Crew, jobs: Sequence[Job], workers: int) -> Results:
    waiting, deaths, failed_starts = deque(jobs), Counter[str](), 0
    for _ in range(workers):
        crew.hire()
    left = len(jobs)
    while left:
        (ref,), _ = ray.wait(list(crew.at_work), num_returns=1)
        worker, job = crew.at_work.pop(ref)
        try:
            result = ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # raised by our own code in the worker
            cause = error.cause
            if job is None and not isinstance(cause, SyncDiscError):
                raise _cannot_start(cause) from error
            raise cause from error
        except ray.exceptions.RayError as error:  # the worker is gone
            node_lives = crew.node_lives(worker)
            crew.drop(worker)
            if job is None:
                failed_starts += 1
                if failed_starts >= TRIES * workers:
                    raise _cannot_start(error) from error
            else:
                deaths[job.key] += node_lives
                if deaths[job.key] >= TRIES:
                    left -= 1
                    yield crashed(job)
                else:
                    waiting.append(job)
            if len(crew.at_work) < left:
                crew.hire()
            continue
        if job is None:
            failed_starts = 0
            crew.node_of[worker] = result
        else:
            left -= 1
        if waiting:
            crew.give(worker, waiting.popleft())
        else:
            crew.drop(worker)
        if job is not None:
            yield result


class _Crew:
    """The actors, and what each of them is at."""

    def __init__(self, ray: Any, begin: Begin, gpu: bool) -> None:
        self.ray, self.begin = ray, begin
        options = {"num_cpus": 1, "num_gpus": _GPU_SHARE if gpu else 0, "max_restarts": 0}
        self.actor = ray.remote(**options)(_Actor)
        self.workers: set[Any] = set()
        self.at_work: dict[Any, tuple[Any, Job | None]] = {}  # by reference; None: it is starting
        self.node_of: dict[Any, str] = {}

    def hire(self) -> None:
        worker = self.actor.remote()
        self.workers.add(worker)
        self.at_work[worker.start.remote(self.begin)] = worker, None

    def give(self, worker: Any, job: Job) -> None:
        self.at_work[worker.do.remote(job)] = worker, job

    def drop(self, worker: Any) -> None:
        self.node_of.pop(worker, None)
        self.workers.discard(worker)
        self.ray.kill(worker)  # also one that only cannot be reached: it must not write any more

    def dismiss(self) -> None:
        for worker in [*self.workers]:
            self.drop(worker)

    def node_lives(self, worker: Any) -> bool:
        node = self.node_of.get(worker)
        return any(n["NodeID"] == node and n["Alive"] for n in self.ray.nodes())


class _Actor:
    """A worker: keeps the detector between videos."""

    _work: Work

    def start(self, begin: Begin) -> str:
        """Load what is needed; give the node's id."""
        self._work = begin()
        return require_ray().get_runtime_context().get_node_id()

    def do(self, job: Job) -> Done:
        """Do one job."""
        return self._work(job)


@contextmanager
def _cluster(ray: Any, address: str | None, cpus: int) -> Iterator[None]:
    """A connection to a cluster; one that was made or started here ends with the block."""
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address == "local":
        options |= {"num_cpus": cpus, "include_dashboard": False}
        options |= {"object_store_memory": _OBJECTS_BYTES}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    for left in reversed(range(TRIES if address == "local" else 1)):
        try:
            _check_answers(address)
            ray.init(address=address, **options)
            break
        except Exception as error:  # Ray raises a bare one where a busy machine is too slow for it
            ray.shutdown()  # of what it had started
            if left:
                continue
            raise RunError(
                f"--ray_address {address}: expected a Ray cluster, but there is no connection: "
                f"{error}. See `ray status` on its head node; without an address, and RAY_ADDRESS "
                "unset, a cluster is started on this machine."
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()


def _cannot_start(error: BaseException) -> RunError:
    return RunError(
        f"--engine ray: workers could not start: {error}. No input was refused for it. All nodes "
        "need this package in the same version, and see the same files under the same paths."
    )

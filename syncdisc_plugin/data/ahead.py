"""What is needed next, made by threads while what came before is used."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TypeVar

from syncdisc_plugin.data.pool import cores

MOST_THREADS = 8

T = TypeVar("T")


def made_ahead(make: Callable[[int], T], step: int, threads: int) -> Generator[T, None, None]:
    """make(step), make(step + 1) and so on in order, without end.

    Close it when there are enough.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        coming = deque(pool.submit(make, step + i) for i in range(threads))
        for following in count(step + threads):
            made = coming.popleft().result()
            coming.append(pool.submit(make, following))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)


def threads_beside(device: str) -> int:
    """How many threads make batches: one keeps up with a CPU, whose time it takes.

    A GPU would wait for it. Processes that torchrun started share this machine's cores.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    mine = cores() // processes - 1 if device == "cuda" else 1
    return max(1, min(MOST_THREADS, mine))

"""Seconds and bytes: calls that take turns, with the same threads, and the peak of their memory."""

import multiprocessing
import re
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from ..devices import Device

PAUSE = 0.05        # seconds in which threads that wait for more work of the other stop spinning
QUICK = 0.005       # a turn repeats what takes less until it lasts that long,
REPEATS = 50        # or so often
SLOW, LONG = 1.0, 5.0   # seconds: a slower call has three turns, or its first one alone
FEW = 3
MARGIN = 0.7        # share of the free memory that a call may be expected to take


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let NumPy, SciPy, scikit-learn and PyTorch use so many threads inside a `with` statement."""
    for name in ("scipy.linalg", "sklearn.cluster"):    # only libraries that are loaded are limited
        if find_spec(name.partition(".")[0]):
            __import__(name)
    if not find_spec("torch"):
        with threadpool_limits(threads):
            yield
        return
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


def seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """The seconds of one call, the mean of so many."""
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def finished(call: Callable[[], Any], here: Device) -> Callable[[], Any]:
    """The call, and the wait until what it began is done: a GPU's caller goes on meanwhile."""
    if here.kind != "cuda":
        return call
    import cupy

    def done():
        call()
        cupy.cuda.Device(here.number).synchronize()     # PyTorch's streams too
    return done


def taking_turns(calls: Sequence[Callable], turns: int, adapt: bool = True,
                 pause: float = PAUSE) -> list[list[float]]:
    """The seconds of each call in each of its turns.

    The first turn is not counted and, unless `adapt` is False, says how many follow: `turns`, of a
    call of over a second at most three, and of one of over 5 seconds none: its first turn counts.
    A turn repeats a quick call, and is its mean then.
    """
    first = [seconds(call) for call in calls]
    counts = [turns if t <= SLOW or not adapt else min(turns, FEW) if t <= LONG else 0
              for t in first]
    times = [[t] if count == 0 else [] for t, count in zip(first, counts)]
    for turn in range(max(counts)):
        for call, begun, count, found in zip(calls, first, counts, times):
            if turn < count:
                time.sleep(pause)
                found.append(seconds(call, min(REPEATS, 1 + int(QUICK / max(begun, 1e-9)))))
    return times


def medians(calls: Sequence[Callable], turns: int, adapt: bool = True,
            pause: float = PAUSE) -> list[float]:
    """The median of each call's turns."""
    return [statistics.median(times) for times in taking_turns(calls, turns, adapt, pause)]


def beyond(measure: Callable[[int], float], n: int, limit: float) -> bool:
    """Whether measure(n) must be expected beyond a limit, growing in proportion.

    It is taken at n/100 and n/10, where that is 1000 or more, so that nothing runs for long, or
    takes all memory, only to find out.
    """
    return any(measure(m) * n / m > limit for m in (n // 100, n // 10) if m >= 1000)


# ---- memory


def traced_peak(call: Callable[[], Any]) -> int:
    """Bytes that one call takes at its peak, its result included, as `tracemalloc` sees them.

    NumPy reports every array. What LAPACK and BLAS take for themselves is not seen, nor what C++
    libraries allocate; arrays that are there before the call are not counted.
    """
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def in_fresh_process(function: Callable, *args: Any) -> Any:
    """function(*args) in a new process, whose peak memory nothing else has raised."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(function, *args).result()


def peak_so_far() -> float:
    """Of this process, in MB. On Linux getrusage would tell that of the parent where it is more."""
    import resource

    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0]) / 2 ** 10
    unit = 2 ** 20 if sys.platform == "darwin" else 2 ** 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def free_memory() -> float:
    """Bytes that a call may be expected to take; infinite where the system does not say."""
    status = Path("/proc/meminfo")
    found = re.findall(r"MemAvailable:\s*(\d+) kB", status.read_text() if status.exists() else "")
    return MARGIN * 1024 * int(found[0]) if found else float("inf")

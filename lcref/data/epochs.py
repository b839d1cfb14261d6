"""An epoch of batches in random order, prepared in other threads while the caller computes."""
import inspect
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from ..inputs import NUMBERS, array_of, whole

__all__ = ["batches"]

Array = Any


def batches(x: Array, labels: Array, batch: int, rng: np.random.Generator,
            prepare: Callable | None = None, workers: int = 1,
            first: int = 0) -> Generator[tuple[Array, Array], None, None]:
    """Return a generator of the batches of one epoch: every row once, in random order.

    Parameters
    ----------
    x, labels : arrays with the same number of rows n
        NumPy's, or any of the array API standard.
    batch : int, at least 1
        Rows in a batch; the last one has what is left.
    rng : numpy.random.Generator
        Draws permutation(n), the order of the rows. Where `prepare` takes an rng it then draws
        integers(2⁶³), a seed s. Both are drawn here, before the first batch is asked for, and
        nothing else ever is: the state of rng does not depend on how far the epoch is read.
    prepare : callable, optional
        prepare(x), or, where it has a parameter named rng, prepare(x, rng), is applied to the
        x of every batch. Batch i is given numpy.random.default_rng((s, i)).
    workers : int, at least 1
        Threads that prepare batches, where x is a NumPy array and `prepare` is given; otherwise
        batches are made in the caller's thread when they are asked for.
    first : int, from 0 to the number of batches
        Batches to skip. They are not prepared, and those that follow are what they are without it.

    Returns
    -------
    generator of (x, labels) of each batch, new arrays

    Raises
    ------
    ValueError
        x and labels have different numbers of rows; batch or workers is under 1; first is beyond
        the last batch. What `prepare`
        raises is raised where its batch is asked for, and ends the epoch.

    Notes
    -----
    The result does not depend on `workers`. At most workers + 2 batches are in memory: the one
    that the caller is about to let go, the one it is handed, and `workers` that are ready or
    being prepared. Closing the generator, or dropping it, waits for the batches being prepared
    and ends the threads. They share the cores with the caller as far as `prepare` spends its
    time in NumPy, which works without the interpreter's lock.
    """
    for name, a in (("x", x), ("labels", labels)):
        array_of(a, name, NUMBERS, range(1, 9))
    n, size, workers = x.shape[0], whole(batch, "batch", 1), whole(workers, "workers", 1)
    if labels.shape[0] != n:
        raise ValueError(f"x has {n} rows, labels {labels.shape[0]}")
    order = rng.permutation(n)
    seed = int(rng.integers(2**63)) if _takes_rng(prepare) else None

    def make(i):
        rows = order[i * size:(i + 1) * size]
        part = take(x, rows)
        if prepare is not None:
            drawn = () if seed is None else (np.random.default_rng((seed, i)),)
            part = prepare(part, *drawn)
        return part, take(labels, rows)

    if whole(first, "first") > (count := -(-n // size)):
        raise ValueError(f"first is {first}, but there are {count} batches")
    if prepare is None or not is_numpy_array(x):
        return (make(i) for i in range(first, count))
    return _ahead(make, first, count, workers)


def _ahead(make, first, count, workers):
    """Yield make(first) to make(count − 1); the next `workers` of them are made meanwhile."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="lcref-batches")
    try:
        pending = deque(pool.submit(make, i) for i in range(first, min(first + workers, count)))
        for i in range(first + workers, workers + count):
            ready = pending.popleft().result()
            if i < count:
                pending.append(pool.submit(make, i))
            yield ready
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _takes_rng(prepare):
    try:
        return prepare is not None and "rng" in inspect.signature(prepare).parameters
    except ValueError:      # a built-in function may have no signature
        return False


def take(a: Array, rows: np.ndarray) -> Array:
    """The rows of an array that a NumPy array names."""
    xp = array_namespace(a)
    return xp.take(a, rows if is_numpy_array(a) else xp.asarray(rows, device=device(a)), axis=0)

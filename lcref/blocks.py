"""Work on the images of a batch in blocks, on several cores.

A layer's arrays are larger than the caches, and NumPy computes on one core except in matrix
products. So the layers cut a batch into blocks of images that fit in the cache, and a pool of
threads takes the blocks; NumPy gives the interpreter up while it computes. What a block holds
depends on the shapes alone, and sums over blocks are taken in their order, so that the result is
the same to the last bit for every number of threads.
"""
import ctypes
import operator
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from threadpoolctl import threadpool_limits

from .inputs import array_of

__all__ = ["channel_sums", "floats", "in_blocks", "in_rows", "on_host", "over_images",
           "sum_over_pixels", "threads", "workspace"]

BLOCK = 1 << 19     # elements of the largest array of a block: 2 MB in float32
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3     # of glibc's malloc.h
EVEN = 2            # the number of blocks is rounded up to a multiple of it
HOST = array_namespace(np.empty(0))
_pool: ThreadPoolExecutor | None = None     # of the threads beside the caller's
_threads = 1
_own = threading.local()


def _keep_memory():
    """Ask the C library to keep freed memory for the arrays of the next batch.

    By default glibc hands arrays of megabytes back to the system and asks for them anew, and the
    system clears every page: about a fifth of an L step of ResNet20 on two cores.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        for parameter, value in ((M_MMAP_THRESHOLD, 1 << 25), (M_TRIM_THRESHOLD, 1 << 30)):
            mallopt(parameter, value)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Let the layers use n threads, and the BLAS one in each of them, inside a `with` statement.

    With n = 1 nothing runs beside the caller. The setting is that of the process, which from
    then on also keeps the memory of freed arrays for later ones, where the C library is glibc.

    Parameters
    ----------
    n : int, at least 1

    Returns
    -------
    context manager

    Raises
    ------
    ValueError, TypeError
        n is under 1, or no integer.
    """
    global _pool, _threads
    if operator.index(n) < 1:
        raise ValueError(f"threads must be at least 1, got {n}")
    before = _pool, _threads
    _keep_memory()
    with threadpool_limits(1, user_api="blas"):
        _pool, _threads = ThreadPoolExecutor(n - 1) if n > 1 else None, n
        try:
            yield
        finally:
            if _pool:
                _pool.shutdown()
            _pool, _threads = before


def in_blocks(work: Callable[[slice], Any], rows: int, row_size: int,
              multiple: int = 1) -> list[Any]:
    """Return [work(block) for every block of rows], each block of about BLOCK elements.

    Parameters
    ----------
    work : callable
        work(block), with a slice of the rows. Several run at a time.
    rows : int
    row_size : int
        Elements that the work on one row touches in its largest array.
    multiple : int
        Each block but the last has a multiple of so many rows.
    """
    count = -(-rows * row_size // BLOCK)
    count = -(-count // EVEN) * EVEN if count > 1 else 1
    step = max(1, -(-rows // (count * multiple))) * multiple
    blocks = [slice(i, min(i + step, rows)) for i in range(0, rows, step)]
    if _pool is None or len(blocks) < 2:
        return [work(block) for block in blocks]
    results: list[Any] = [None] * len(blocks)
    todo = iter(enumerate(blocks))      # of C: each thread takes the next one

    def take():
        for i, block in todo:
            results[i] = work(block)

    others = [_pool.submit(copy_context().run, take)    # with the caller's np.errstate
              for _ in range(min(_threads, len(blocks)) - 1)]
    try:
        take()
    finally:
        failures = [other.exception() for other in others
                    if not other.cancel()]              # it may not even have begun
    for failure in filter(None, failures):
        raise failure
    return results


def over_images(work: Callable[[slice], Any], x: Any) -> list[Any]:
    """As `in_blocks`, over the images of x; in one piece where x is not a NumPy array."""
    n = x.shape[0]
    return in_blocks(work, n, x.size // max(1, n)) if on_host(x) else [work(slice(0, n))]


def workspace(name: str, size: int, dtype: Any) -> np.ndarray:
    """Return an array of `size` elements, of any content, that this thread uses again and again.

    It is valid until the same thread asks for the same name: fresh memory costs a page fault
    every 4 KB, which is as slow as the work on it.
    """
    buffers = _own.__dict__
    bytes_needed = size * np.dtype(dtype).itemsize
    if name not in buffers or buffers[name].size < bytes_needed:
        buffers[name] = np.empty(bytes_needed, np.uint8)
    return buffers[name][:bytes_needed].view(dtype)


def floats(x: Any, name: str = "x", axes: tuple[int, ...] | None = None) -> Any:
    """As `array_of`, and sooner for NumPy's own arrays, of which every batch asks many times."""
    if type(x) is np.ndarray and x.dtype.char in "fd" and (axes is None or x.ndim in axes):
        return HOST
    return array_of(x, name, axes=axes)


def on_host(*arrays: Any) -> bool:
    """Whether all are NumPy arrays, for which the block-wise text is the fast one."""
    return all(type(a) is np.ndarray or is_numpy_array(a) for a in arrays)


def in_rows(x: np.ndarray) -> np.ndarray:
    """View x (n, height, width, channels) as (n · height, width · channels): long inner loops."""
    return x.reshape(-1, x.shape[-2] * x.shape[-1])


def channel_sums(rows: np.ndarray, channels: int) -> Any:
    """Sum rows as `in_rows` gives them by channel; float64 after the sum over the rows."""
    return np.sum(np.sum(rows, axis=0).reshape(-1, channels), axis=0, dtype=np.float64)


def sum_over_pixels(x: Any) -> Any:
    """Return Σ x by channel, over the batch and the pixels, in x's dtype.

    On a device first over the pixels of each image: only so do enough sums run side by side.
    """
    if not on_host(x):
        xp = array_namespace(x)
        pixels = xp.reshape(x, (x.shape[0], -1, x.shape[-1]))
        return xp.sum(xp.sum(pixels, axis=1), axis=0)
    sums = over_images(lambda block: channel_sums(in_rows(x[block]), x.shape[-1]), x)
    return sum(sums).astype(x.dtype)

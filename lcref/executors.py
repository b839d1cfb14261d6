"""Where the cells of a sweep run: processes of this machine, a dask cluster or ranks of MPI."""
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context, parent_process
from typing import Any

from tqdm import tqdm

__all__ = ["Processes", "cores", "opened"]

BLAS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
MPI_COMMAND = "mpiexec -n 3 lcref sweep FILE --out DIR --executor mpi"


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
        os.cpu_count() or 1)


class Processes(Executor):
    """Processes that are pools of one each, so that one that dies takes no other's work along.

    Whoever submits sees to it that no more is under way than there are processes. One that died
    is replaced at the next call. `shutdown` ends them at once, and they end with this process.
    """

    def __init__(self, workers: int):
        self.pools: list[ProcessPoolExecutor] = []
        self.last: list[Future | None] = [None] * workers

    def submit(self, fn, /, *args, **kwargs):
        """As of every executor; the first call starts all processes."""
        self.pools = self.pools or [_pool() for _ in self.last]
        n = min(range(len(self.last)), key=lambda n: not _idle(self.last[n]))
        try:
            self.last[n] = self.pools[n].submit(fn, *args, **kwargs)
        except BrokenExecutor:
            self.pools[n].shutdown(wait=False)
            self.pools[n] = _pool()
            self.last[n] = self.pools[n].submit(fn, *args, **kwargs)
        return self.last[n]

    def shutdown(self, wait=True, *, cancel_futures=False):
        """End the processes, whatever they do."""
        for pool in self.pools:
            for process in [*(pool._processes or {}).values()]:
                process.terminate()
            pool.shutdown(wait, cancel_futures=True)


def _idle(future):
    return future is None or future.done()


def _pool():
    """A pool of one process, which begins to import what it needs, BLAS in one thread of it."""
    pool = ProcessPoolExecutor(1, get_context("spawn"), _begin)
    before = {name: os.environ.get(name) for name in BLAS}
    os.environ.update(dict.fromkeys(BLAS, "1"))
    try:
        pool.submit(import_module, "lcref.experiment")
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
    return pool


def _begin():
    """In a new process: Ctrl-C is its parent's affair, and it ends where its parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())    # its own is a semaphore that outlives a killed process
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    parent: Any = parent_process()
    parent.join()
    os._exit(1)


@contextmanager
def opened(where: str) -> Iterator[tuple[Executor | None, int | None]]:
    """The executor of --executor and how many cells it runs at a time.

    Both are None for "processes", which a sweep starts itself, and the second is 0 in a rank of
    MPI that has been a worker, and has nothing more to do.

    Raises
    ------
    ValueError
        It is no executor; its package is not installed; or MPI has one rank only.
    OSError
        Nothing answers at the address.
    """
    if where == "processes":
        yield None, None
    elif where == "mpi":
        with _mpi() as executor:
            yield executor, executor.num_workers if executor else 0
    elif where.startswith("dask://"):
        client = _package("distributed", "dask").Client(
            f"tcp://{where.removeprefix('dask://')}", set_as_default=False)
        with client:    # two attempts at one cell are two tasks: it is not pure
            yield client.get_executor(pure=False), sum(client.nthreads().values())
    else:
        raise ValueError(f"--executor {where}: takes processes, dask://HOST:PORT or mpi")


@contextmanager
def _mpi():
    """An executor in rank 0; in the others, None once they have been its workers."""
    futures, mpi = _package("mpi4py.futures", "mpi"), _package("mpi4py.MPI", "mpi")
    if mpi.COMM_WORLD.size < 2:
        raise ValueError(f"--executor mpi needs two processes at least: {MPI_COMMAND}")
    with futures.MPICommExecutor(mpi.COMM_WORLD) as executor:
        try:
            yield executor
        except KeyboardInterrupt as stop:   # else it waits for the cells under way
            print(f"lcref sweep: {stop}", file=sys.stderr, flush=True)
            mpi.COMM_WORLD.Abort(getattr(stop, "status", 130))


def _package(name, extra):
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:    # of mpi4py without a library
        raise ValueError(f"--executor {extra} needs a package: pip install 'lcref[{extra}]' "
                         f"({error})") from None

"""Run the cells of a design, here or on a cluster, and go on where a sweep was stopped.

    OUT/design.json             what was run last, and the versions
    OUT/references/KEY.npz      a reference net, under a key made from the settings that train it
    OUT/cells/KE/KEY.json       the result of a cell, under a key made from all of its settings

A result has "key", "settings", "axes" (what differs from cell to cell), "kind", and "result", the
object that `lcref compress --json` prints, or "error" and "traceback" of a cell that failed. Each
file is there whole or not at all, so a cell that has one is never run again.
"""
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import (FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future,
                                wait)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from . import __version__
from .cells import check, failure, key, kind, reference_key, run_cell, train_reference
from .design import Design
from .devices import named
from .executors import Processes, cores
from .folder import Folder, path_of, write_whole
from .inputs import whole
from .resume import VERSIONS

__all__ = ["Counts", "Design", "key", "read_result", "run_cell", "sweep"]

AHEAD = 1000        # cells that are looked at before those that wait for a reference net are run
PATIENCE = 60       # seconds without a result after which the executor is asked for a sign of life
TIMES = 3           # how often a cell is run again whose worker was lost
EVERY = 60          # seconds between two lines of progress where there is no terminal


@dataclass
class Counts:
    """How many cells a design has, were run, had a result before, and failed, now or before."""

    cells: int
    run: int = 0
    before: int = 0
    failed: int = 0
    error: str | None = None    # of one that failed
    seconds: float = 0.0


# ---- in the process that drives


def sweep(design: Design, out: Path, executor: Executor | None = None, *,
          data_dir: Path | None = None, threads: int = 1, device: str = "cpu",
          workers: int | None = None, retry_failed: bool = False,
          progress: bool = True) -> Counts:
    """Run every cell of a design that has no result yet.

    Parameters
    ----------
    design : Design
    out : path
        Folder of the results, on a file system that all workers see.
    executor : Executor, optional
        Any of concurrent.futures' kind; without one, processes of this machine. In one process
        cells run one after another. Of dask take `client.get_executor(pure=False)`.
    data_dir, threads, device
        As of `lcref compress`, of every cell. All cells in a folder are of one kind of device, for
        their last bits depend on it.
    workers : int, optional
        How many cells run at a time; without it as many as there are cores, or 32 of an executor.
    retry_failed : bool
        Run failed cells once more.
    progress : bool
        Show how many cells are done and the time left: a bar on a terminal, elsewhere, as under
        mpiexec, a line every minute.

    Returns
    -------
    Counts

    Raises
    ------
    ValueError
        Another process or version of lcref is at work in the folder; its results are of another
        kind of device; or the first cell is wrong.
    OSError
        The folder cannot be written to, or the executor is broken. Results are kept.

    Notes
    -----
    A cell that fails does not stop others. One whose worker is lost is run again at the end, alone,
    so that only a cell that ends its worker by itself fails, after three times.
    """
    out = _checked(design, out, executor, threads, workers)
    own = Processes(workers or cores()) if executor is None else None
    try:
        return _sweep(design, out, own or executor, data_dir, threads, retry_failed, progress,
                      len(own.last) if own else 2 * (workers or 32), device=named(device))
    finally:
        if own:
            own.shutdown()


def _checked(design, out, executor, threads, workers):
    """The path of the results; what is wrong of the others is named."""
    if not isinstance(design, Design):
        raise TypeError(f"design must be a Design, not {design!r:.60}")
    if executor is not None and not hasattr(executor, "submit"):
        raise TypeError(f"executor must be one of concurrent.futures' kind, not {executor!r:.60}")
    whole(threads, "threads", 1)
    whole(1 if workers is None else workers, "workers", 1)
    return path_of(out, "out")


def _check(design, data_dir, device):
    """Raise the error of the first cell, where it is wrong, before all fail by it."""
    try:
        check(design[0], data_dir, device)
    except (ValueError, OSError) as error:
        raise ValueError(f"{design.name}: the first cell: {error}") from None


def _sweep(design, out, executor, data_dir, threads, retry_failed, progress, window,
           run=run_cell, train=train_reference, device="cpu"):
    """The same, with at most `window` cells submitted, and functions for a cell and a reference."""
    begin, out = time.perf_counter(), Path(out).resolve()
    data_dir = data_dir and Path(data_dir).resolve()
    with Folder(out) as folder:
        folder.clear_scratch()
        if isinstance(executor, Processes):     # else the data may be where the workers are
            _check(design, data_dir, device)
        _begin(design, out, device)
        with _bar(len(design), progress) as bar:
            driver = _Driver(design, out, executor, window, retry_failed, bar, run, train,
                             (out / "references", data_dir, threads, device))
            driver.drive()
    driver.counts.seconds = time.perf_counter() - begin
    return driver.counts


class _Lines:
    """A stream that writes each state of a bar as a line, for logs."""

    def write(self, text):
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self):
        pass


def _bar(cells, progress):
    """The bar of a sweep. Its rate is the mean of all cells run, since they vary and end together.

    With a fixed miniters results that were there before do not make it wait for as many more.
    """
    mean: dict[str, Any] = {"total": cells, "unit": "cell", "smoothing": 0, "miniters": 1,
                            "leave": False, "disable": not progress}
    if sys.stderr.isatty():
        return tqdm(file=sys.stderr, dynamic_ncols=True, **mean)
    return tqdm(file=_Lines(), delay=EVERY, mininterval=EVERY, **mean, bar_format=(
        "lcref sweep: {n_fmt} of {total_fmt} cells, {elapsed} gone, {remaining} left"))


def _begin(design, out, device):
    """Make the folder's parts, and note the design; ValueError where version or device differs."""
    file = out / "design.json"
    before = read(file) or {}
    versions, kind = before.get("versions"), device.partition(":")[0]
    there = versions.get("lcref") if isinstance(versions, dict) else __version__
    if there != __version__:
        raise ValueError(f"{out} has results of lcref {there}, and this is {__version__}: take "
                         "another folder")
    if before.get("device", kind) != kind:
        raise ValueError(f"{out} has results of --device {before['device']}, whose last bits are "
                         f"not those of {kind}: take another folder")
    for part in ("cells", "references"):
        (out / part).mkdir(exist_ok=True)
    _write(file, {"design": design.as_json(), "file": design.name, "versions": VERSIONS,
                  "device": kind})


def _write(file, tree):
    text = json.dumps(tree, indent=1) + "\n"
    write_whole(file, lambda stream: stream.write(text.encode()))


def read(file):
    """The object in a JSON file; None where there is none, or it is damaged."""
    try:
        found = json.loads(file.read_bytes())
        return found if isinstance(found, dict) else None
    except (FileNotFoundError, RecursionError, ValueError):
        return None


def read_result(file):
    """The result in the file of a cell; None where there is none, or it is damaged."""
    found = read(file) or {}
    whole = found.get("key") == file.stem and (
        isinstance(found.get("result"), dict) or isinstance(found.get("error"), str))
    return found if whole else None


def _file(out, name):
    return out / "cells" / name[:2] / f"{name}.json"


def _error(future):
    return CancelledError("cancelled") if future.cancelled() else future.exception()


class _Job(NamedTuple):
    """A cell to be run or, with `train`, its reference net to be trained."""

    key: str
    number: int         # of the cell
    train: bool = False
    lost: int = 0


@dataclass
class _Driver:
    """What is under way: every cell that was taken from the design and has no result yet."""

    design: Design
    out: Path
    executor: Executor
    window: int
    retry_failed: bool
    bar: Any
    run: Callable
    train: Callable
    common: tuple

    def __post_init__(self):
        self.counts = Counts(len(self.design))
        self.jobs = self._to_do()
        self.taken: set[str] = set()                    # keys of the cells under way
        self.running: dict[Future, _Job] = {}
        self.waiting: dict[str, list[_Job]] = {}        # for a reference, by its key
        self.ready: deque[_Job] = deque()               # whose reference has been trained
        self.lost: deque[_Job] = deque()                # whose worker was lost
        self.untrained: dict[str, dict] = {}            # references that failed
        self.retried: set[str] = set()

    def drive(self):
        """Submit what is next as long as there is room, and take what comes back."""
        try:
            while True:
                while len(self.running) < self.window and (job := self._next()):
                    future = self._submit(self.train if job.train else self.run,
                                          self.design[job.number], *self.common)
                    self.running[future] = job
                if not self.running:
                    return
                done = wait(self.running, PATIENCE, FIRST_COMPLETED).done
                if not (done or isinstance(self.executor, Processes)):
                    self._submit(int).cancel()      # a cluster that is gone may say so only here
                for future in sorted(done, key=self._order):
                    self._take(future, self.running.pop(future))
        finally:
            for future in self.running:
                future.cancel()

    def _order(self, future):
        """Those that failed last, and else as the design has them."""
        return _error(future) is not None, self.running[future].number

    def _to_do(self) -> Iterator[_Job]:
        """The cells without a result, each once."""
        for index, cell in enumerate(self.design):
            name = key(cell)
            found = None if name in self.taken else read_result(_file(self.out, name))
            if found and "error" in found and self.retry_failed and name not in self.retried:
                self.retried.add(name)
                found = None
            if name not in self.taken and not found:
                self.taken.add(name)
                yield _Job(name, index)
                continue
            self.counts.before += 1
            self._count(found or {})
            self.bar.initial = self.counts.before   # it says nothing of the time left
            self.bar.n += 1

    def _next(self):
        """The job to submit now; None where there is none, or it must wait."""
        if self.ready:
            return self.ready.popleft()
        while len(self.taken) < AHEAD + self.window and (job := next(self.jobs, None)):
            name = reference_key(self.design[job.number])
            if name in self.untrained:
                self._finish(job, self.untrained[name])
            elif name in self.waiting:
                self.waiting[name].append(job)
            elif (self.common[0] / f"{name}.npz").exists():
                return job
            else:
                self.waiting[name] = [job]
                return _Job(name, job.number, train=True)
        return self.lost.popleft() if self.lost and not self.running else None

    def _submit(self, work, *args):
        try:
            return self.executor.submit(work, *args)
        except Exception as error:
            raise self._broken(error) from error

    def _take(self, future, job):
        """What a job came to, unless its worker was lost: then it is run again, alone."""
        error = _error(future)
        if error is None:
            return self._finish(job, future.result())
        if isinstance(error, BrokenExecutor) and not isinstance(self.executor, Processes) or not (
                isinstance(error, (BrokenExecutor, CancelledError))
                or type(error).__name__ == "KilledWorker"):
            raise self._broken(error) from error
        if job.lost < TIMES:
            return self.lost.append(job._replace(lost=job.lost + 1))
        found = failure(error)
        return self._finish(job, {**found, "error": f"its worker was lost {job.lost + 1} times: "
                                  f"{found['error']}"})

    def _broken(self, error):
        return OSError(f"the executor takes no more: {type(error).__name__}: {error}; the "
                       f"{self.counts.run} results of this sweep are kept, run it again to go on")

    def _finish(self, job, found):
        """Write the result of a cell, or let those go on that waited for a reference net."""
        if not job.train:
            return self._record(job, found)
        waiting = self.waiting.pop(job.key)
        if "error" not in found:
            return self.ready.extend(waiting)
        self.untrained[job.key] = found
        for each in waiting:
            self._record(each, found)

    def _record(self, job, found):
        cell = self.design[job.number]
        file = _file(self.out, job.key)
        file.parent.mkdir(exist_ok=True)
        _write(file, {"key": job.key, "settings": cell, "axes": self.design.axes(job.number),
                      "kind": kind(cell), **(found if "error" in found else {"result": found})})
        self.taken.remove(job.key)
        self.counts.run += 1
        self._count(found)
        self.bar.update()

    def _count(self, found):
        if "error" in found:
            self.counts.failed += 1
            self.counts.error = found["error"]

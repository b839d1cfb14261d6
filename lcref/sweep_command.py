"""`lcref sweep`: run a design, stop at a signal, or list what there is."""
import json
import shlex
import signal
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice

from .cells import key
from .design import Design
from .executors import opened
from .resume import Stopped
from .sweep import read_result, sweep

__all__ = ["run"]

LISTED = 100_000    # cells of a design that --list looks at one by one


def run(args) -> int:
    """lcref sweep: run the cells of a design that have no result, or list them."""
    design = Design.read(args.file)
    if args.list:
        return _list(args, design)
    if args.workers and args.executor != "processes":
        raise ValueError(f"--workers {args.workers}: the workers of {args.executor} are as many as "
                         "were started")
    from .training import check_writable    # it takes a while: not for a list
    check_writable(args.out)
    with _stopping(args), opened(args.executor) as (executor, workers):
        if workers == 0:
            return 0
        counts = sweep(design, args.out, executor, data_dir=args.data_dir, threads=args.threads,
                       device=args.device, workers=workers or args.workers,
                       retry_failed=args.retry_failed, progress=not args.quiet)
    _say(args, f"{counts.cells} cells: {counts.run} run in {counts.seconds:.1f} s, "
         f"{counts.before} had results; {counts.failed} failed", asdict(counts))
    if counts.failed:
        print(f"lcref sweep: {counts.failed} of {counts.cells} cells failed, such as with "
              f"{' '.join(str(counts.error).split())[:500]}; --retry-failed runs them again",
              file=sys.stderr)
    return int(counts.failed > 0)


def _say(args, text, tree):
    if not args.quiet:
        print(text, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(tree, indent=1))


def _list(args, design):
    """Print how many cells there are and have results; of a large design all that are there."""
    names = {key(cell) for cell in design} if len(design) <= LISTED else None
    failed = Counter("error" in found for file in args.out.glob("cells/*/[!.]*.json")
                     if (names is None or file.stem in names) and (found := read_result(file)))
    counts = {"cells": len(design), "finished": failed[False], "failed": failed[True],
              "left": (len(design) if names is None else len(names)) - failed.total()}
    first = [{"key": key(cell), **cell} for cell in islice(design, 5)]
    text = ", ".join(f"{number} {what}" for what, number in counts.items())
    rows = [f"{cell['key'][:8]}  {shlex.join(_flags(cell))}" for cell in first]
    _say(args, "\n".join([text, *rows]), {**counts, "first": first})
    return 0


def _flags(cell):
    """The cell as flags of lcref compress."""
    return [f"--{name}={value}" for name, value in cell.items() if name != "key"]


@contextmanager
def _stopping(args):
    """Let SIGINT and SIGTERM end the sweep with the command that goes on; a second one as always.

    Only in the main thread, as Python has it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number, _):
        restore()
        raise Stopped(f"stopped by {signal.Signals(number).name}; to go on: {_command(args)}",
                      128 + number)
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


def _command(args):
    options = [part for name in ("workers", "executor", "threads", "device", "data_dir")
               if (value := getattr(args, name)) is not None
               for part in (f"--{name.replace('_', '-')}", str(value))]
    under = ["mpiexec", "-n", "N"] if args.executor == "mpi" else []
    return shlex.join([*under, "lcref", "sweep", str(args.file), "--out", str(args.out), *options])

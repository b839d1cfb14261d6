"""Runs that go on where they were stopped: what they hold, when it is written, and the LC path."""
import argparse
import dataclasses
import json
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from . import __version__, lc
from .compressions import Task
from .devices import device
from .flags import FREE
from .folder import SETTINGS, Folder, read_settings, same
from .loop_inputs import Diverged
from .tree import placed

__all__ = ["Record", "Stopped", "arguments", "blaming", "compress", "opened", "settings_of"]

NEITHER = ("given", "out", "resume", "run", "verb")
PATHS = ("data_dir", "reference")
VERSIONS = {"lcref": __version__, "numpy": np.__version__}  # which a checkpoint is tied to

Params = dict[str, Any]


class Stopped(KeyboardInterrupt):
    """A run that a signal stopped, after it wrote a checkpoint.

    Attributes
    ----------
    status : int
        The exit status by convention, 128 and the number of the signal.
    """

    def __init__(self, message: str, status: int = 130):
        super().__init__(message)
        self.status = status


class Record:
    """Where a run is, as names and values, and the checkpoints of it.

    Parameters
    ----------
    folder : Folder, optional
        Without one nothing is written, and signals do what they always do.
    run : dict
        What the run is, in JSON: a checkpoint of another is refused.
    minutes : float
        How often `pause` writes a checkpoint.
    resume : bool
        Go on from the last checkpoint in the folder, where there is one.
    put : callable, optional
        What puts a NumPy array where the run computes.

    Attributes
    ----------
    now : dict
        What a checkpoint holds; of a run that goes on, what the last one held.
    """

    def __init__(self, folder: Folder | None = None, run: dict[str, Any] | None = None,
                 minutes: float = 10.0, resume: bool = False,
                 put: Callable[[np.ndarray], Any] | None = None):
        self.folder, self.run, self.minutes = folder, run or {}, minutes
        self.now: dict[str, Any] = {}
        if folder and resume:
            now = folder.goes_on(self.run) or {}
            self.now = placed(now, put) if put else now
        elif folder:
            folder.begin(self.run)
        self.signal: int | None = None
        self.begin = time.perf_counter() - self.now.get("seconds", 0.0)
        self.written = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of the run so far, those of the processes before included."""
        return time.perf_counter() - self.begin

    @contextmanager
    def watching(self):
        """Let SIGINT and SIGTERM stop the run after the batch, or the LC step, under way.

        The second one does what it always does. Only in the main thread, as Python has it. Where
        nothing is left to be stopped the run ends as without the signal.
        """
        if self.folder is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def stop(number, _):
            self.signal = number
            for each, handler in before.items():
                signal.signal(each, handler)
        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def pause(self, make: Callable[[], tuple[Params, Any]]) -> None:
        """Write a checkpoint inside an L step, where it is time for one or a signal has come.

        `make` is what `lcref.lsteps.SGD` calls its pause with. Weights that are not finite are
        not written: the L step is about to end with an error, and the last good ones are there.
        """
        if self.folder is None:
            return
        due = time.monotonic() - self.written >= 60 * self.minutes
        if due or self.signal:
            params, state = make()
            if all(map(_finite, params.values())):
                self.write(params=params, state=state)
            self._stop()

    def write(self, **more: Any) -> None:
        """Write a checkpoint of `now` and of what is given besides; then stop at a signal.

        Raises
        ------
        Stopped
            A signal has come.
        OSError
            It could not be written. The checkpoint before is as it was.
        """
        if self.folder is None:
            return
        try:
            self.folder.write({**self.now, **more, "seconds": self.seconds}, self.run)
        except OSError as error:
            last = self.folder.checkpoints()[-1:]
            kept = f"; {last[0].name} is kept, {self._command()} goes on from it" if last else ""
            raise OSError(f"no checkpoint could be written to {self.folder.path}: "
                          f"{error.strerror or error}{kept}") from error
        self.written = time.monotonic()
        self._stop()

    def end(self, how: str) -> None:
        """Note in the folder how the run ended; its checkpoints are removed."""
        if self.folder:
            self.folder.settle(self.run, how)

    def _stop(self):
        if self.signal:
            raise Stopped(f"stopped by {signal.Signals(self.signal).name}; to go on: "
                          f"{self._command()}", 128 + self.signal)

    def _command(self):
        path = shlex.quote(str(self.folder.path if self.folder else Path()))
        return f"lcref {self.run.get('command', 'compress')} --resume {path}"


def _finite(array):
    xp = array_namespace(array)
    return bool(xp.all(xp.isfinite(array)))


def settings_of(args: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The flags that make the result, and ("also") those that may differ, as JSON has them."""
    plain = {name: str(value) if isinstance(value, Path) else value
             for name, value in vars(args).items() if name not in NEITHER}
    free = {name: plain.pop(name) for name in FREE if name in plain}
    return json.loads(json.dumps(plain)), {"also": {**free, "folder": os.getcwd()}}


@contextmanager
def opened(args: Any, run: dict[str, Any]) -> Iterator[Record]:
    """The Record of a command, which holds its folder and watches; an empty one without --out."""
    if args.out is None:
        yield Record()
        return
    with Folder(args.out, settings_of(args)[1]) as folder:
        record = Record(folder, run, args.checkpoint_minutes, args.resume is not None,
                        device(args.device).put)
        with record.watching():
            yield record


def arguments(args: Any) -> Any:
    """The flags, checked; with --resume those of the run in its folder, where none is given.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no run; it is of another command or version; a flag that was given as well says
        something else; or settings.json holds what no flag takes.
    """
    if args.resume is None:
        return args
    there = read_settings(args.resume)
    same({name: there.get(name) for name in ("command", "versions")},
         {"command": args.verb, "versions": VERSIONS}, str(args.resume))
    settings: Any = there.get("settings")
    also: Any = there.get("also")
    _check(args, settings, also)
    found = {**vars(args), **settings, **also}
    moved = found.pop("folder", None) != os.getcwd()
    for name in PATHS:
        if found.get(name) is not None:
            found[name] = Path(also.get("folder", "") if moved else "", found[name])
    found |= {name: value for name, value in args.given.items() if name in FREE}
    _agree(args, settings)
    return argparse.Namespace(**found | {"out": args.resume})


def _check(args, settings, also):
    """Raise ValueError unless settings are of the flags' types; their ranges are looked at later.

    A flag without a usual value has a text, a number or a list of such.
    """
    file = args.resume / SETTINGS
    if not (isinstance(settings, dict) and isinstance(also, dict)):
        raise ValueError(f"{file} is damaged: it holds no settings")
    for name, value in (settings | also).items():
        usual = type(vars(args).get(name))
        kinds: tuple = {float: (float, int), int: (int,), bool: (bool,)}.get(usual, (str,))
        kinds = {"first_epochs": (int,), "milestones": (list,), "task": (list,)}.get(name, kinds)
        right = type(value) in kinds and (type(value) is not list or all(
            type(item) is (str if name == "task" else int) for item in value))
        optional = value is None and usual not in (float, int, bool) and name != "folder"
        if name in NEITHER or name in (*vars(args), "folder") and not (right or optional):
            raise ValueError(f"{file} is damaged: it has {name!r:.60} as {value!r:.60}")


@contextmanager
def blaming(args: Any) -> Iterator[None]:
    """Where a run goes on, name its settings in an error about them."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if args.resume is None:
            raise
        raise ValueError(f"{args.resume / SETTINGS}: {error}") from error


def _agree(args, settings):
    """Raise ValueError where a flag that was given says something else than the settings."""
    if args.given.get("out", args.resume) != args.resume:
        raise ValueError(f"--out {args.out}, but --resume {args.resume}")
    for name in args.given.keys() & settings.keys():
        value = json.loads(json.dumps(args.given[name]))
        if value != settings[name]:
            raise ValueError(f"--{name.replace('_', '-')} {value}, but the run in {args.resume} "
                             f"has {settings[name]}")


def compress(record: Record, reference: Params, tasks: Sequence[Task], l_step: lc.LStep,
             schedule: lc.Schedule, evaluate: lc.Evaluate | None = None,
             on_step: Callable[[lc.Step], None] | None = None) -> lc.Result:
    """Run the whole algorithm as `lcref.compress`, with a checkpoint after every step.

    Parameters
    ----------
    record : Record
        Its `now` says where to go on. What else is in it stays there.
    reference, tasks, l_step, schedule, evaluate, on_step
        Those of `lcref.compress`. So that checkpoints are written inside an L step too, give
        `record.pause` to SGD. The arrays are where the record puts them.

    Returns
    -------
    Result
        To the bit that of the unbroken run, but for seconds.

    Raises
    ------
    Diverged
        As of `lcref.compress`, and where `evaluate` raises a FloatingPointError: weights may be
        finite and their loss not.
    """
    tasks = tuple(tasks)
    thetas, direct = lc.direct_compression(reference, tasks, schedule.mu(0))
    last, now = _begin(record.now.get("last"), reference, tasks, thetas, schedule), record.now
    if "params" in now:     # inside the L step that follows the last one
        last = dataclasses.replace(last, params=now.pop("params"), state=now.pop("state"))
    if "last" in now:
        now["last"] = _short(last)
    history = now.setdefault("history", [])
    for last in _good(lc.iterate(reference, tasks, l_step, schedule, evaluate, last), last):
        history.append(last.summary())
        if on_step:
            on_step(last)
        now["last"] = _short(last)
        record.write(params=last.params, state=last.state)
    return lc.Result(last.compressed, last.theta, direct, history, last)


def _good(steps, last):
    """The steps after the last one; Diverged, which carries its weights, if one has no loss."""
    try:
        for last in steps:
            yield last
    except Diverged:
        raise
    except FloatingPointError as error:
        raise Diverged(f"{error} after L step {last.step + 1}; try a smaller lr",
                       params=last.params, state=last.state, step=last.step + 1) from error


def _short(step):
    """A step without Δ(θ), which θ gives again, and without what the L step left."""
    return dataclasses.replace(step, delta={}, params={}, state=None)


def _begin(last, reference, tasks, thetas, schedule):
    """The step to go on after: the last one, or one before the first."""
    if last is None:
        return lc.start(reference, tasks, thetas, schedule)
    return dataclasses.replace(last, delta=lc.decompress(tasks, last.theta))

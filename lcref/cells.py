"""A cell of a sweep: flags of `lcref compress`, the keys made from them, and its run in a worker.

A cell is a dict of flags by their long names without dashes.
"""
import argparse
import hashlib
import json
import threading
import traceback
from pathlib import Path
from typing import Any

from . import __version__
from .compressions import Each, Sum
from .flags import COMPRESSION, add_job_flags
from .folder import naming, to_disk
from .text import parse, parse_task

__all__ = ["FLAGS", "REFUSED", "Cell", "arguments", "as_flag", "check", "failure", "key", "kind",
           "reference_key", "run_cell", "train_reference"]

Cell = dict[str, Any]

PARSER = argparse.ArgumentParser(add_help=False)
add_job_flags(PARSER)
# Options of the command, and what makes no result.
REFUSED = ("checkpoint-minutes", "data-dir", "debug", "device", "json", "out", "quiet",
           "reference", "resume", "threads")
FLAGS = {name: action for action in PARSER._actions
         if (name := action.option_strings[0].removeprefix("--")) not in REFUSED}
OF_REFERENCE = ("activation", "augment", "batch", "data", "epoch-decay", "hold-out", "lr",
                "momentum", "net", "reference-epochs", "seed", "weight-decay")
ALONE = threading.Lock()    # autograd's trace is one for all threads


def as_flag(name: str, value: Any) -> Any:
    """A value as the command line would give it; ValueError says what the flag takes."""
    action: Any = FLAGS[name]
    if isinstance(action, argparse.BooleanOptionalAction):
        right = isinstance(value, bool)
    elif name == "task":
        value = value if isinstance(value, list) else [value]
        right = bool(value) and all(isinstance(text, str) for text in value)
    elif action.type is None:
        right = isinstance(value, str) and (not action.choices or value in action.choices)
    else:
        try:
            return action.type(str(value))
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from None
    if not right:
        what = f"one of {', '.join(action.choices)}" if action.choices else (
            "texts" if name == "task" else "true or false" if action.nargs == 0 else "a text")
        raise ValueError(f"takes {what}, not {value!r:.60}")
    return value


def _settings(cell):
    """All flags that make the result, with their usual values where the cell gives none."""
    found = {name: action.default for name, action in FLAGS.items()}
    found |= {name: as_flag(name, value) for name, value in cell.items()}
    if not found["task"] and found["compress"] is None:
        found["compress"] = COMPRESSION
    return found


def arguments(cell: Cell) -> argparse.Namespace:
    """The flags of a cell as those of `lcref compress --quiet`."""
    given = {FLAGS[name].dest: as_flag(name, value) for name, value in cell.items()}
    usual = {action.dest: action.default for action in PARSER._actions}
    return argparse.Namespace(**usual | given, out=None, quiet=True)


def _sha256(settings):
    text = json.dumps({"lcref": __version__, "settings": settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def key(cell: Cell) -> str:
    """32 hexadecimal digits that two cells share where all their settings agree."""
    return _sha256(_settings(cell))


def reference_key(cell: Cell) -> str:
    """The same of the settings that make the reference net."""
    settings = _settings(cell)
    return _sha256({name: settings[name] for name in OF_REFERENCE})


def kind(cell: Cell) -> str:
    """The kinds of compression in a cell, such as "quantize + prune"; empty for a wrong text."""
    settings = _settings(cell)
    try:
        found = ([parse_task(text).compression for text in settings["task"]]
                 if settings["task"] else [parse(settings["compress"])])
    except ValueError:
        return ""
    return ", ".join(dict.fromkeys(map(_kind, found)))


def _kind(compression):
    if isinstance(compression, Sum):
        return " + ".join(map(_kind, compression.terms))
    return _kind(compression.inner) if isinstance(compression, Each) else type(
        compression).__name__.lower()


def check(cell: Cell, data_dir: Path | None = None, device: str = "cpu") -> None:
    """Raise ValueError or OSError for what can be seen to be wrong before any training."""
    from .experiment import prepare
    args = arguments(cell)
    args.data_dir, args.device = data_dir, device
    prepare(args)


# ---- in a worker


def run_cell(cell: Cell, references: Path, data_dir: Path | None = None,
             threads: int = 1, device: str = "cpu") -> dict[str, Any]:
    """Return what `lcref compress --json` prints for a cell, or "error" and "traceback"."""
    return _caught(_measure, cell, references, data_dir, threads, device)


def train_reference(cell: Cell, references: Path, data_dir: Path | None = None,
                    threads: int = 1, device: str = "cpu") -> dict[str, Any]:
    """Write the reference net of a cell; return nothing, or "error" and "traceback"."""
    return _caught(_train, cell, references, data_dir, threads, device)


def _caught(work, cell, references, data_dir, threads, device):
    try:
        with ALONE:
            args = arguments(cell)
            args.data_dir, args.threads, args.device = data_dir, threads, device
            return work(args, references / f"{reference_key(cell)}.npz")
    except Exception as error:
        return failure(error)


def failure(error):
    return {"error": f"{type(error).__name__}: {error}",
            "traceback": "".join(traceback.format_exception(error))}


def _measure(args, file):
    from .experiment import measure
    if not file.exists():
        raise FileNotFoundError(f"{file} is not there: the folder of a sweep must be on a file "
                                "system that all workers see")
    args.reference = file
    summary = measure(args)
    summary["settings"]["reference"] = None     # trained by these settings, to the same bits
    return summary


def _train(args, file):
    from .experiment import reference_weights
    from .nets import write_npz
    params = reference_weights(args)
    with naming(file):
        write_npz(file, params)
        to_disk(file, file.parent)
    return {}

"""The results of a sweep, and the choice of one: the Pareto front, and `lcref best`.

A result is the dict that its file OUT/cells/*/KEY.json holds: "key", "settings", "axes" and "kind",
and either "result", what `lcref compress --json` prints, or "error" and "traceback".
"""

import json
import math
import shlex
import sys
from collections.abc import Iterator
from numbers import Real
from typing import Any

from .devices import named
from .folder import path_of
from .inputs import nonnegative, one_of

__all__ = ["best", "command", "error_of", "finished", "front", "ratio", "results", "settings_of"]

NETS = {"reference": "reference", "direct": "direct compression", "lc": "LC"}
ERRORS = {"held_out_error": "held-out error", "test_error": "test error",
          "train_error": "train error"}


def results(out) -> Iterator[dict[str, Any]]:
    """Yield the result of every cell of the sweep in a folder, by ascending key.

    Raises
    ------
    ValueError
        The folder has no results, or a file is damaged; the file is named.
    """
    files = sorted(path_of(out, "out").glob("cells/*/[!.]*.json"), key=lambda file: file.name)
    if not files:
        raise ValueError(f"no results in {out}: `lcref sweep FILE --out {out}` makes them")
    for file in files:
        yield _read(file)


def _read(file):
    try:
        cell = json.loads(file.read_text(encoding="utf-8"))
        _check(cell, file.stem)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError,
            RecursionError) as error:
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {error}); remove it, and "
                         "the sweep runs its cell again") from None
    return cell


def _check(cell, key):
    """Raise one of several errors where a part that is read later is missing or of another kind."""
    if cell["key"] != key:
        raise ValueError(f"it is the result of {cell['key']!r}")
    cell["settings"].items(), cell["axes"].items(), cell["kind"].split()
    if "error" in cell:
        cell["error"].split(), cell["traceback"].split()
        return
    result = cell["result"]
    result["versions"].items(), result["ratio"][result["storage"]], _where(result)
    for name in ("float16", "float32"):
        _number(f"ratio {name}", result["ratio"][name])
    for net in NETS:
        for name in ("loss", *ERRORS):
            if name != "held_out_error" or result[net].get(name) is not None:
                _number(f"{net} {name}", result[net][name])


def _where(result):
    """The device of a result; on the host where it has none."""
    return named(result.get("settings", {}).get("device", "cpu"))


def _number(name, value):
    """Raise one of several errors unless it is a number, and finite if it is no loss."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r:.60}, not a number")
    if not (math.isfinite(value) or name.endswith("loss")):
        raise ValueError(f"{name} is {value}")


def finished(cells) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cells that have a result, and those that failed."""
    cells = list(cells)
    return ([cell for cell in cells if "result" in cell],
            [cell for cell in cells if "result" not in cell])


def ratio(cell, storage=None) -> float:
    """The compression ratio, counted as the cell holds its values, or as `storage` says."""
    result = cell["result"]
    return result["ratio"][storage or result["storage"]]


def error_of(cell) -> str:
    """The first line of a failed cell's error; others show where in a text it is."""
    return (cell["error"].strip() or "an error without a text").splitlines()[0]


def settings_of(cell, without=()) -> str:
    """The settings but for some, as flags of `lcref compress`, quoted for a shell."""
    words: list[str] = []
    for name, value in cell["settings"].items():
        if name in without:
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            for one in value if isinstance(value, list) else [value]:
                text = str(one)  # one that begins with a dash would be read as a flag
                words += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
    return shlex.join(words)


def command(cell) -> str:
    """The command that makes the model of a cell again, in a folder named after its key."""
    where = _where(cell.get("result", {}))
    parts = ["lcref compress", settings_of(cell), f"--device {where}" * (where != "cpu"),
             f"--out model-{cell['key'][:8]}"]
    return " ".join(filter(None, parts))


# ---- the front, and the choice -----------------------------------------------------------------


def front(points) -> list[int]:
    """The Pareto front of (ratio, error) pairs, as ascending positions.

    A point is on it where no other has at least its ratio and at most its error, and is better in
    one of the two. So of equal points either all are on it or none. A point with a NaN is not.

    Notes
    -----
    O(n log n): by falling ratio, a point is on the front where its error is the lowest of its
    ratio and lower than all of the larger ratios.
    """
    points = [tuple(point) for point in points]
    if not all(len(point) == 2 and all(isinstance(x, Real) for x in point) for point in points):
        raise TypeError("points must be pairs of numbers, a ratio and an error")
    points = [tuple(map(float, point)) for point in points]     # −x of an unsigned one is another
    order = sorted((i for i, point in enumerate(points) if not any(map(math.isnan, point))),
                   key=lambda i: (-points[i][0], points[i][1]))
    kept: list[int] = []
    for i in order:
        if not kept or points[i] == points[kept[-1]] or points[i][1] < points[kept[-1]][1]:
            kept.append(i)
    return sorted(kept)


def best(cells, max_error=None, min_ratio=None, storage=None) -> tuple[dict[str, Any], bool]:
    """Choose a cell by its error on the held-out training data; the test set has no say.

    Parameters
    ----------
    cells : iterable of results that did not fail
    max_error, min_ratio : float, exactly one of them
        The largest ratio among the cells of at most this error, in percent; or the lowest error
        among the cells of at least this ratio. Ties go to the lower error, or the larger ratio,
        and then to the lower key.
    storage : "float16" or "float32", optional
        The convention that counts all ratios. By default each cell's own.

    Returns
    -------
    cell, satisfied
        Where no cell satisfies the limit, the nearest one, and False.

    Raises
    ------
    ValueError
        There are no cells, or one has no held-out error.
    """
    if (max_error is None) == (min_ratio is None):
        raise ValueError("give exactly one of max_error and min_ratio")
    nonnegative(*((min_ratio, "min_ratio") if max_error is None else (max_error, "max_error")))
    if storage is not None:
        one_of(storage, "storage", ("float16", "float32"))
    cells = list(cells)
    if len(finished(cells)[0]) < len(cells):
        raise ValueError("cells must be those that did not fail, the first of finished(cells)")
    ranked = [(_held_out(cell), -ratio(cell, storage), cell["key"], cell) for cell in cells]
    if not ranked:
        raise ValueError("no cell has a result: there is nothing to choose from")
    if max_error is None:
        good = [(error, size, *rest) for error, size, *rest in ranked if -size >= min_ratio]
        nearest = min(ranked, key=lambda row: (row[1], row[0], row[2]))
    else:
        good = [(size, error, *rest) for error, size, *rest in ranked if error <= max_error]
        nearest = min(ranked, key=lambda row: row[:3])
    return min(good, key=lambda row: row[:3], default=nearest)[-1], bool(good)


def _held_out(cell):
    error = cell["result"]["lc"].get("held_out_error")
    if error is None:
        raise ValueError(f"cell {cell['key']} has no held-out error, and a choice by the test "
                         "error would spoil the test: put hold-out = 0.1 in the file of the sweep, "
                         "and run it again")
    return error


# ---- lcref best --------------------------------------------------------------------------------


def run_best(args) -> int:
    """lcref best: print the chosen cell, or say that there is none and name the nearest."""
    cells, failed = finished(results(args.dir))
    cell, satisfied = best(cells, args.max_error, args.min_ratio, args.storage)
    if not satisfied:
        print(f"lcref best: {no_cell(cell, args)}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({**cell, "chosen_ratio": ratio(cell, args.storage),
                          "command": command(cell), "cells": len(cells), "failed": len(failed)},
                         indent=1, ensure_ascii=False))
    print(describe(cell, args, len(cells), len(failed)), file=sys.stderr if args.json else None)
    return 0


def asked(args) -> str:
    """What was asked for, in words."""
    if args.max_error is not None:
        return f"the largest ratio with a held-out error of at most {args.max_error:g}%"
    return f"the lowest held-out error with a ratio of at least {args.min_ratio:g}"


def no_cell(cell, args) -> str:
    """That no cell will do, with the nearest."""
    wanted = (f"a held-out error of at most {args.max_error:g}%" if args.min_ratio is None
              else f"a ratio of at least {args.min_ratio:g}")
    return (f"no cell has {wanted}; the nearest has a held-out error of {_held_out(cell):.2f}% "
            f"at ratio {ratio(cell, args.storage):.2f}: {settings_of(cell)} ({cell['key']})")


def describe(cell, args, cells, failed) -> str:
    """The chosen cell for people: what it is, its errors beside the reference's, its command."""
    result, left = cell["result"], f", {failed} failed" if failed else ""
    convention = args.storage or f"{result['storage']}, as held"
    lines = [f"{asked(args)}, of {cells} cells{left}:", "",
             f"{cell['kind']}, key {cell['key']}",
             f"ratio {ratio(cell, args.storage):.2f} ({convention})", "",
             " " * 20 + "".join(f"{title:>17}" for title in ERRORS.values())]
    for name, title in NETS.items():
        values = [result[name].get(error) for error in ERRORS]
        lines.append(f"{title:<20}" + "".join(
            f"{'-':>17}" if value is None else f"{value:15.2f} %" for value in values))
    return "\n".join([*lines, "", command(cell)])

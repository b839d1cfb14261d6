"""The design of a sweep: its cells, each computed from its number alone.

A cell is a dict of flags of `lcref compress`, by their long names without dashes. A design is read
from TOML or JSON:

    data = "digits"                     # settings of all cells
    [[grid]]                            # all combinations of the lists, the last one fastest
    compress = "quantize(k={k})"
    k = [2, 4]                          # not a flag: it fills {k}
    seed = [0, 1]
    [[random]]                          # samples, drawn independently of one another
    samples = 20
    draws = 1                           # seed of the draws
    compress = "lowrank(rank={rank}) + prune(keep={keep})"
    rank = {from = 1, to = 20}          # whole numbers, since both ends are
    keep = {from = 0.001, to = 0.1, log = true}
"""
import json
import math
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .cells import FLAGS, REFUSED, Cell, as_flag
from .inputs import did_you_mean
from .text import parse, parse_task

__all__ = ["Design"]

TEXTS = ("compress", "task")
NAME = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Design(Sequence):
    """The cells of grids, then those of random samples; a single one where there are neither.

    Parameters
    ----------
    settings : mapping
        Flags of all cells.
    grids, randoms : sequences of mappings
        What [[grid]] and [[random]] are in a file.
    name : str
        What errors begin with.

    Raises
    ------
    ValueError
        With the block and the key named. The texts of the first cell of each block are read here,
        those of the others when they are run.

    Notes
    -----
    `len(design)` and `design[i]` take the same time for every size and i.
    """

    settings: Mapping[str, Any]
    grids: Sequence[Mapping[str, Any]] = ()
    randoms: Sequence[Mapping[str, Any]] = ()
    name: str = "the design"
    blocks: tuple["_Block", ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        for name, found in (("settings", [self.settings]), ("grids", self.grids),
                            ("randoms", self.randoms)):
            if not (isinstance(found, Sequence) and all(isinstance(each, Mapping)
                                                        for each in found)):
                raise TypeError(f"{name} must be {'a dict' if name == 'settings' else 'dicts'}, "
                                f"not {getattr(self, name)!r:.60}")
        _fixed(self.name, self.settings)
        blocks = [_block(f"{self.name}: [[{kind}]] {n + 1}", self.settings, block, kind, n)
                  for kind, found in (("grid", self.grids), ("random", self.randoms))
                  for n, block in enumerate(found)]
        if not blocks:
            blocks = [_block(self.name, self.settings, {}, "grid", 0)]
        used = {name for block in blocks for name in block.used}
        for name in self.settings:
            _known(self.name, name, used)
        if sum(block.size for block in blocks) > sys.maxsize:
            raise ValueError(f"{self.name}: more than {sys.maxsize} cells")
        object.__setattr__(self, "blocks", tuple(blocks))

    @classmethod
    def read(cls, file) -> "Design":
        """Read a design from a file: JSON where its name ends so, else TOML."""
        try:
            text = Path(file).read_text(encoding="utf-8")
            found = (json if Path(file).suffix == ".json" else tomllib).loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: {error}") from None
        if not isinstance(found, dict):
            raise ValueError(f"{file}: a design is a table of settings, not {type(found).__name__}")
        blocks = {kind: found.pop(kind, []) for kind in ("grid", "random")}
        for kind, value in blocks.items():
            if not (isinstance(value, list) and all(isinstance(each, dict) for each in value)):
                raise ValueError(f"{file}: {kind}: a list of tables, each written [[{kind}]]")
        return cls(found, blocks["grid"], blocks["random"], str(file))

    def as_json(self) -> dict[str, Any]:
        """What the file of the design holds."""
        return {**self.settings, "grid": list(self.grids), "random": list(self.randoms)}

    def __len__(self):
        return sum(block.size for block in self.blocks)

    def __getitem__(self, i):
        block, i = self._at(i)
        return block.cell(i)

    def __iter__(self) -> Iterator[Cell]:
        return (block.cell(i) for block in self.blocks for i in range(block.size))

    def axes(self, i: int) -> dict[str, Any]:
        """What is different from cell to cell of its block: the values of the i-th."""
        block, i = self._at(i)
        return block.values(i)

    def _at(self, i):
        i = range(len(self))[i]
        for block in self.blocks:
            if i < block.size:
                return block, i
            i -= block.size


@dataclass(frozen=True)
class _Block:
    """A grid, or random samples: what all of its cells share, and its axes."""

    fixed: dict[str, Any]
    axes: dict[str, Any]
    size: int
    values: Callable[[int], dict[str, Any]]
    used: set[str]      # names that its texts have in braces

    def cell(self, i):
        values = {**self.fixed, **self.values(i)}
        return {name: _filled(value, values) if name in TEXTS else value
                for name, value in values.items() if name in FLAGS}


def _block(where, settings, block, kind, number):
    """The checked block of that number of a design."""
    own = {**block}
    samples = _whole(where, own, "samples", None, 1) if kind == "random" else None
    draws = _whole(where, own, "draws", 0, 0) if kind == "random" else 0
    together = {**settings, **own}
    axes = {name: value for name, value in together.items() if _is_axis(name, value)}
    for name, axis in axes.items():
        _check_axis(f"{where}: {name}", name, axis, kind)
    fixed = {name: value for name, value in together.items() if name not in axes}
    _fixed(where, {name: fixed[name] for name in own if name in fixed})
    used = {name for text in _texts(together) for name in NAME.findall(text)}
    for name in own:
        _known(where, name, used)
    if missing := sorted(used - {*together}):
        raise ValueError(f"{where}: {{{missing[0]}}} in a text, but no axis of that name")
    size = samples or math.prod(map(len, axes.values()))
    values = _drawn(axes, draws, number) if samples else _mixed(axes)
    built = _Block(fixed, axes, size, values, used)
    _check_texts(where, built.cell(0))
    return built


def _mixed(axes):
    """Values by number: the digits of i in mixed radix, the last axis fastest."""
    def values(i):
        found = {}
        for name in reversed(axes):
            i, digit = divmod(i, len(axes[name]))
            found[name] = axes[name][digit]
        return {name: found[name] for name in axes}
    return values


def _drawn(axes, draws, number):
    """Values by number: drawn with a seed of its own for each i."""
    def values(i):
        rng = np.random.default_rng(np.random.SeedSequence((draws, number, i)))
        return {name: axis[rng.integers(len(axis))] if isinstance(axis, list)
                else _between(rng, axis["from"], axis["to"], axis.get("log", False))
                for name, axis in axes.items()}
    return values


def _between(rng, low, high, log):
    """A number in [low, high]: whole where both are, and with `log` uniform in its logarithm."""
    whole = isinstance(low, int) and isinstance(high, int)
    if whole and not log:
        return int(rng.integers(low, high, endpoint=True))
    last = high + whole
    value = math.exp(rng.uniform(math.log(low), math.log(last))) if log else rng.uniform(low, last)
    return min(max(low, math.floor(value) if whole else value), high)


def _filled(value, values):
    """A text, or each of several, with {name} replaced by the value of that name."""
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    return NAME.sub(lambda match: str(values[match[1]]), value)


# ---- what a design may say


def _is_axis(name, value):
    """Whether a value says what differs: a list or a range; of tasks, a list of lists."""
    if name == "task" and isinstance(value, list):
        return any(isinstance(each, list) for each in value)
    return isinstance(value, (list, dict))


def _check_axis(where, name, axis, kind):
    if isinstance(axis, list):
        if not axis:
            raise ValueError(f"{where}: an empty list")
        for value in axis:
            _check_value(where, name, value)
    elif kind == "grid":
        raise ValueError(f"{where}: a grid takes a list; a range is for [[random]]")
    else:
        _check_range(where, axis)
        for end in ("from", "to"):
            _check_value(f"{where}: {end}", name, axis[end])


def _check_range(where, axis):
    if unknown := sorted(axis.keys() - {"from", "to", "log"}):
        raise ValueError(f"{where}: {unknown[0]!r}, but a range has from, to and log")
    low, high, log = axis.get("from"), axis.get("to"), axis.get("log", False)
    if not (_is_number(low) and _is_number(high) and low <= high):
        raise ValueError(f"{where}: needs numbers from <= to, got {low!r} and {high!r}")
    if not isinstance(log, bool) or log and low <= 0:
        raise ValueError(f"{where}: log is true or false, and true needs from > 0; got log = "
                         f"{log!r} and from = {low!r}")


def _is_number(value):
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and math.isfinite(value))


def _check_value(where, name, value):
    """Raise ValueError unless a flag, or a name that is none, takes the value."""
    if isinstance(value, (np.generic, np.ndarray)) and not isinstance(value, (float, str)):
        raise ValueError(f"{where}: takes numbers of Python, not {value!r:.60}")
    if name in FLAGS:
        try:
            as_flag(name, value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    elif not (isinstance(value, (bool, str)) or _is_number(value)):
        raise ValueError(f"{where}: takes finite numbers and texts, not {value!r:.60}")


def _fixed(where, settings):
    """Check settings that are the same in all cells."""
    for name, value in settings.items():
        if _is_axis(name, value):
            raise ValueError(f"{where}: {name}: a list or range belongs into [[grid]] or "
                             "[[random]]")
        if name not in REFUSED:     # else `_known` says so
            _check_value(f"{where}: {name}", name, value)


def _known(where, name, used):
    if name in REFUSED:
        raise ValueError(f"{where}: {name}: not a setting of a cell; --{name} is a flag of a "
                         "command, or makes no result")
    if name not in FLAGS and name not in used:
        raise ValueError(f"{where}: {name}: no flag of lcref compress, and no text has {{{name}}}"
                         f"{did_you_mean(name, FLAGS)}")


def _whole(where, block, name, usual, least):
    value = block.pop(name, usual)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{where}: {name}: a whole number, at least {least}, not {value!r:.60}")
    return value


def _texts(settings) -> Iterable[str]:
    """All texts of compressions and tasks, of axes too."""
    def leaves(value):
        return [leaf for each in value for leaf in leaves(each)] if isinstance(
            value, list) else [value]
    return [text for name in TEXTS for text in leaves(settings.get(name, []))
            if isinstance(text, str)]


def _check_texts(where, cell):
    for name, read in zip(TEXTS, (parse, parse_task)):
        for text in _texts({name: cell.get(name, [])}):
            try:
                read(text)
            except ValueError as error:
                raise ValueError(f"{where}: {name}: {error}") from None

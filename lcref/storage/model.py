"""What a packed file holds, and the words that its writer and its reader share."""
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compressions import Each, Sum, Task
from ..parts import Part, storage_bits

FORMAT = 1
CHUNK = 1 << 16     # codes at a time: a multiple of 8, so that each chunk ends at a byte
LONGEST_NAME, DEEPEST = 256, 32     # characters of a tensor's name, and dots in it
MOST_TENSORS = 10_000
DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}    # in the payload


@dataclass(frozen=True, eq=False)
class Model:
    """What a packed file holds.

    Attributes
    ----------
    shapes : dict of name to tuple of int
        Of every tensor, in the net's order.
    rest : dict of name to float32 array
        The tensors of no task.
    tasks : tuple of Task
    thetas : dict of int to Part
        θ of each task by its index.
    storage : "float16" or "float32"
        How corrections and factors are stored.
    about : dict
        What the writer said of the net and its data.
    """

    shapes: dict[str, tuple[int, ...]]
    rest: dict[str, Any]
    tasks: tuple[Task, ...]
    thetas: dict[int, Part]
    storage: str
    about: dict[str, Any]

    def decompress(self) -> dict[str, Any]:
        """All tensors, those of the tasks as Δ(θ), in the net's order."""
        found = dict(self.rest)
        for i, task in enumerate(self.tasks):
            dense = self.thetas[i].decompress()
            found |= dense if isinstance(dense, dict) else {task.names[0]: dense}
        return {name: found[name] for name in self.shapes}

    def says(self, what: str) -> dict[str, Any]:
        """What the file says of its "net" or its "data", {} where that is nothing of use."""
        said = self.about.get(what)
        return said if isinstance(said, dict) else {}

    def bits(self, convention: str | None = None) -> int:
        """Storage in bits by a convention, that of the file where none is given."""
        return storage_bits(self.rest, (), self.thetas.values(), convention or self.storage)


def with_storage(compression: Any, storage: str) -> Any:
    """Return the compression with all corrections and factors held in "float16" or "float32".

    Parameters
    ----------
    compression : Compression
    storage : "float16" or "float32"

    Returns
    -------
    Compression
    """
    if isinstance(compression, Each):
        return Each(with_storage(compression.inner, storage))
    if isinstance(compression, Sum):
        options = {f.name: getattr(compression, f.name) for f in dataclasses.fields(Sum)}
        terms = options.pop("terms")
        return Sum(*(with_storage(term, storage) for term in terms), **options)
    own = any(f.name == "storage" for f in dataclasses.fields(compression))
    return dataclasses.replace(compression, storage=storage) if own else compression


def convention(tasks: Sequence[Task]) -> str:
    """Return "float16" where every correction and factor is held in it, else "float32".

    Parameters
    ----------
    tasks : sequence of Task

    Returns
    -------
    str
    """
    halves = all(with_storage(task.compression, "float16") == task.compression for task in tasks)
    every = any(with_storage(task.compression, "float32") != task.compression for task in tasks)
    return "float16" if halves and every else "float32"


def flat(tree: dict, before: str = "") -> dict[str, Any]:
    """{"fc1,fc2": {"weight": s}} as {"fc1.weight": s, "fc2.weight": s}, of a limited size."""
    shapes: dict[str, Any] = {}
    if not tree and before or before.count(".") > DEEPEST:
        raise ValueError(f"the names of the tensors end in nothing, or too deep: {before!r:.50}")
    for name, inner in ((name, inner) for names, inner in tree.items()
                        for name in names.split(",")):
        if len(before) + len(name) > LONGEST_NAME:
            raise ValueError(f"a name has more than {LONGEST_NAME} characters: {name!r:.50}")
        more = flat(inner, f"{before}{name}.") if isinstance(inner, dict) else {
            before + name: inner}
        if shapes.keys() & more.keys() or len(shapes) + len(more) > MOST_TENSORS:
            raise ValueError(f"a name is there twice, or there are more than {MOST_TENSORS}: "
                             f"{next(iter(more))!r:.50}")
        shapes |= more
    return shapes


def top(levels: Any) -> int:
    """Which level of a scaled codebook its one number stands for: the largest, the first of two."""
    return int(np.argmax(np.abs(levels)))


def scaled(largest: np.ndarray, levels: Any) -> np.ndarray:
    """The entries a·C, a = largest / C_top."""
    c = np.asarray(levels, np.float64)
    if not c.size or not c[top(c)]:
        return largest[:1].repeat(c.size)
    with np.errstate(all="ignore"):
        return (largest.astype(np.float64) / c[top(c)] * c).astype(largest.dtype)

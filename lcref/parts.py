"""θ, the compressed parameters: what a C step returns, decompresses and counts in bits.

Every part is a frozen dataclass of arrays with `decompress()`, the map Δ(θ) back to weights, and
`bits(convention)`. A part over several tensors holds their `layout` and decompresses to a dict.
"""

import functools
import itertools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from .inputs import fields_of

Array = Any  # of any namespace of the array API standard
FLOAT_BITS = {"float16": 16, "float32": 32}  # of corrections and factors, by convention
BLOCK = 30_000  # entries that are worked on at a time: few enough to stay in the cache
STATUSES = ("exact", "certified", "stationary", "unconverged")  # from the strongest claim down
FULL_BITS = 32  # of everything else that is stored in full: codebook entries, untouched tensors


def size(array: Array) -> int:
    """Number of entries, from the shape alone."""
    return math.prod(array.shape)


def block_ends(vector: Array) -> list[tuple[int, int]]:
    """Where blocks of a vector start and stop: of a NumPy array; on a device it is one block."""
    n = size(vector)
    step = BLOCK if is_numpy_array(vector) else max(n, 1)
    return [(i, min(i + step, n)) for i in range(0, n, step)]


def in_blocks(function: Callable, *vectors: Array) -> Array:
    """function(*vectors), one entry for each of theirs, a block at a time: no large temporaries."""
    ends = block_ends(vectors[0])
    if len(ends) < 2:
        return function(*vectors)
    found = None
    for i, j in ends:
        block = function(*(v[i:j] for v in vectors))
        found = np.empty(ends[-1][1], block.dtype) if found is None else found
        found[i:j] = block
    return found


def leaves(tree: Any) -> list[Any]:
    """The arrays (or parts) of one array, of a list or of a dict of them."""
    if isinstance(tree, dict):
        return list(tree.values())
    return list(tree) if isinstance(tree, list) else [tree]


@dataclass(frozen=True)
class Layout:
    """Several tensors laid end to end as one vector: of a dict by `names`, or of a list."""

    names: tuple[str, ...] | None
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensors):
        """The layout of a dict or list of arrays, at least one, of one dtype."""
        names = tuple(tensors) if isinstance(tensors, dict) else None
        arrays = leaves(tensors)
        if not arrays:
            raise ValueError("w has no tensors to project")
        if len({str(t.dtype) for t in arrays}) > 1:
            raise ValueError("tensors w that are compressed together must have one dtype, not " +
                             ", ".join(f"{name} {t.dtype}" for name, t
                                       in zip(names or range(len(arrays)), arrays)))
        return cls(names, tuple(tuple(t.shape) for t in arrays))

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each tensor starts in the vector, and at the end its length."""
        return (0, *itertools.accumulate(math.prod(s) for s in self.shapes))

    def join(self, tensors: Any) -> Array:
        """Dict or list of arrays -> vector."""
        xp = array_namespace(*leaves(tensors))
        return xp.concat([xp.reshape(t, (-1,)) for t in leaves(tensors)])

    def split(self, vector: Array) -> Any:
        """Vector -> dict or list of arrays."""
        xp, ends = array_namespace(vector), self.offsets
        arrays = [xp.reshape(vector[start:end], shape)
                  for start, end, shape in zip(ends, ends[1:], self.shapes)]
        return arrays if self.names is None else dict(zip(self.names, arrays))


class Part(ABC):
    """θ: what a C step returns; its `decompress()` is Δ(θ), its `bits(convention)` the storage.

    `status` is what the C step proves of it, with `gap`, see Sum: of all parts but sums, and those
    in half precision, that it is the optimum.
    """

    status: str = "exact"
    gap: float = 0.0

    def __post_init__(self):
        fields_of(self)

    @property
    def is_zero(self) -> bool:
        """Whether Δ(θ) = 0 by construction: no corrections, rank 0."""
        return False

    @abstractmethod
    def decompress(self) -> Any:
        """Δ(θ): an array in the shape and dtype of w, or a dict or list of several tensors."""

    @abstractmethod
    def _bits(self, width):
        """Bits with corrections and factors at the given width."""

    def bits(self, convention: str = "float32") -> int:
        """Storage in bits under the convention "float32" or "float16" (an int)."""
        if convention not in FLOAT_BITS:
            raise ValueError(f"convention must be one of {sorted(FLOAT_BITS)}, not {convention!r}")
        return self._bits(FLOAT_BITS[convention])


def _laid_out(dense, layout):
    """The dense array, or its tensors by name where there is a layout."""
    return dense if layout is None else layout.split(dense)


@dataclass(frozen=True, eq=False)
class Codebook(Part):
    """Every weight is one of a few values: Δ(θ)_i = entries[codes_i].

    `stored` says how many numbers the codebook costs: "free", all entries used; "scaled", one
    (the a of {−a, a} or a·C, whose C is `levels`); "fixed", none.

    Notes
    -----
    ⌈log₂ k⌉ bits a weight for the k entries in use, and 32 for each number of the codebook.
    `decompress` takes O(n).
    """

    codes: Array  # integer array in w's shape
    entries: Array  # (k,), w's dtype, ascending
    stored: str = "free"
    layout: Layout | None = None
    levels: tuple[float, ...] | None = None  # C, where the entries are a·C

    def decompress(self):
        xp = array_namespace(self.entries)
        dense = in_blocks(lambda codes: xp.take(self.entries, xp.astype(codes, xp.int64)),
                          xp.reshape(self.codes, (-1,)))
        return _laid_out(xp.reshape(dense, self.codes.shape), self.layout)

    def _bits(self, width):
        xp = array_namespace(self.codes)
        used = size(xp.unique_values(self.codes))
        numbers = {"free": used, "scaled": min(used, 1), "fixed": 0}[self.stored]
        return size(self.codes) * max(used - 1, 0).bit_length() + numbers * FULL_BITS


@dataclass(frozen=True, eq=False)
class Sparse(Part):
    """All weights are zero but a few: Δ(θ)[indices_j] = values_j, in the flattened array.

    With an axis, all slices are zero but a few: slice indices_j of Δ(θ) is slice j of values.

    Notes
    -----
    32 or 16 bits a value, by convention, and the delta-coded positions, see `position_code`.
    `decompress` takes O(n).
    """

    indices: Array  # (nnz,), int64, ascending
    values: Array  # (nnz,), w's dtype; with an axis w's shape, but nnz slices along it
    shape: tuple[int, ...]
    layout: Layout | None = None
    axis: int | None = None
    status: str = "exact"
    gap: float = 0.0

    @property
    def is_zero(self):
        return size(self.indices) == 0

    def decompress(self):
        xp, axis, here = array_namespace(self.values), self.axis or 0, device(self.values)
        shape = (math.prod(self.shape),) if self.axis is None else self.shape
        dense = xp.zeros(shape, dtype=self.values.dtype, device=here)
        if is_numpy_array(self.values):
            dense[(slice(None),) * axis + (self.indices,)] = self.values
        elif not self.is_zero:  # the standard has no scatter: every position looks itself up
            every = xp.arange(shape[axis], dtype=self.indices.dtype, device=here)
            j = xp.clip(xp.searchsorted(self.indices, every), max=size(self.indices) - 1)
            along = tuple(-1 if a == axis else 1 for a in range(len(shape)))
            kept = xp.reshape(xp.take(self.indices, j) == every, along)
            dense = xp.where(kept, xp.take(self.values, j, axis=axis), dense)
        return _laid_out(xp.reshape(dense, self.shape), self.layout)

    def _bits(self, width):
        return size(self.values) * width + math.prod(position_code(self.indices))


def position_code(indices: Array) -> tuple[int, int]:
    """The best number b of bits a code for delta-coded positions, and how many codes there are.

    A code below 2ᵇ − 1 is the number of zeros before the next value; the code 2ᵇ − 1 is reserved
    and means "2ᵇ − 1 zeros further, no value".
    """
    xp, nnz = array_namespace(indices), size(indices)
    if nnz == 0:
        return 0, 0
    zeros_before = xp.concat([indices[:1], indices[1:] - indices[:-1] - 1])
    longest = int(xp.max(zeros_before))
    codes = {b: nnz + int(xp.sum(zeros_before // (2**b - 1)))
             for b in range(1, longest.bit_length() + 2)}
    return min(codes.items(), key=math.prod)


@dataclass(frozen=True, eq=False)
class LowRank(Part):
    """A product of two thin matrices: Δ(θ) = left · right, laid out as w by the scheme.

    Notes
    -----
    r (m + n) numbers of 32 or 16 bits, by convention, for an m × n matrix of rank r.
    `decompress` takes O(m n r).
    """

    left: Array  # (m, r)
    right: Array  # (r, n)
    shape: tuple[int, ...]
    scheme: int = 1  # of a convolution, see projections.lowrank.as_matrix
    status: str = "exact"
    gap: float = 0.0

    @property
    def is_zero(self):
        return self.left.shape[1] == 0

    def decompress(self):
        xp, product = array_namespace(self.left), self.left @ self.right
        if self.scheme == 1:
            return xp.reshape(product, self.shape)
        out, inputs, height, width = self.shape
        return xp.permute_dims(xp.reshape(product, (out, height, inputs, width)), (0, 2, 1, 3))

    def _bits(self, width):
        return (size(self.left) + size(self.right)) * width


@dataclass(frozen=True, eq=False)
class Dense(Part):
    """The weights themselves, in full or rounded to a floating dtype of `width` bits.

    Notes
    -----
    `width` bits a weight. `decompress` takes O(1).
    """

    values: Array
    layout: Layout | None = None
    width: int = FULL_BITS

    def decompress(self):
        return _laid_out(self.values, self.layout)

    def _bits(self, width):
        return size(self.values) * self.width


@dataclass(frozen=True, eq=False)
class ByTensor(Part):
    """One part for each tensor of a dict or list: a codebook a layer, a matrix a layer.

    Its status is the weakest of theirs, its gap their sum.

    Notes
    -----
    The bits of all of them, and the time of all in `decompress`.
    """

    parts: dict[str, Part] | list[Part]
    status: str = field(init=False)
    gap: float = field(init=False)

    def __post_init__(self):
        super().__post_init__()
        weakest = max((part.status for part in leaves(self.parts)), key=STATUSES.index)
        object.__setattr__(self, "status", weakest)
        object.__setattr__(self, "gap", sum(part.gap for part in leaves(self.parts)))

    @property
    def is_zero(self):
        return all(part.is_zero for part in leaves(self.parts))

    def decompress(self):
        return combine(lambda part: part.decompress(), self.parts)

    def _bits(self, width):
        return sum(part._bits(width) for part in leaves(self.parts))


@dataclass(frozen=True, eq=False)
class Sum(Part):
    """An additive combination: Δ(θ) = Δ1(θ1) + ... + Δm(θm).

    `status` is what the C step proves of it: "exact" (a global optimum, gap 0), "certified"
    (within `gap` of it), "stationary" (no half-step improves the objective by more than the
    relative tolerance; no bound), or "unconverged" (the cycles ran out before that). `trace`
    holds the objective after every half-step of an alternation, infinite until every part is set.

    Notes
    -----
    The bits of all parts together, and in `decompress` the time of all and of O(n) a sum.
    """

    parts: tuple[Part, ...]
    status: str
    gap: float
    trace: tuple[float, ...] = ()

    @property
    def is_zero(self):
        return all(part.is_zero for part in self.parts)

    def decompress(self):
        # A zero part is left out, so that a sum with one live part equals it to the sign of zero.
        live = [part for part in self.parts if not part.is_zero] or self.parts[:1]
        total = add([part.decompress() for part in live])
        return combine(lambda t: array_namespace(t).asarray(t), total)  # 0-d arrays add to scalars

    def _bits(self, width):
        return sum(part._bits(width) for part in self.parts)


def combine(function: Callable, *terms: Any) -> Any:
    """The function of arrays, or name by name of dicts of them, or one by one of lists."""
    if isinstance(terms[0], dict):
        return {name: function(*(term[name] for term in terms)) for name in terms[0]}
    if isinstance(terms[0], list):
        return [function(*term) for term in zip(*terms)]
    return function(*terms)


def add(terms: Sequence[Any]) -> Any:
    """Sum of decompressed parts, left to right: arrays, or dicts or lists of them."""
    return functools.reduce(functools.partial(combine, operator.add), terms)


def storage_bits(params: dict[str, Array], names: Iterable[str], parts: Iterable[Part],
                 convention: str = "float32") -> int:
    """Bits of a model: the parts, and every tensor of `params` not in `names` in full."""
    untouched = sum(size(p) for name, p in params.items() if name not in names)
    return untouched * FULL_BITS + sum(part.bits(convention) for part in parts)

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

from array_api_compat import array_namespace, device, is_numpy_array

Array = Any  # of any namespace of the array API standard
FLOAT_BITS = {"float16": 16, "float32": 32}  # of corrections and factors, by convention
STATUSES = ("exact", "certified", "stationary", "unconverged")  # from the strongest claim down
FULL_BITS = 32  # of everything else that is stored in full: codebook entries, untouched tensors


def size(array: Array) -> int:
    """Number of entries, from the shape alone."""
    return math.prod(array.shape)


@dataclass(frozen=True)
class Layout:
    """Several tensors laid end to end as one vector, in the order of `names`."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensors):
        """The layout of a dict of arrays of one dtype."""
        if len({str(t.dtype) for t in tensors.values()}) > 1:
            raise ValueError("tensors that are compressed together must have one dtype, not " +
                             ", ".join(f"{name} {t.dtype}" for name, t in tensors.items()))
        return cls(tuple(tensors), tuple(tuple(t.shape) for t in tensors.values()))

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each tensor starts in the vector, and at the end its length."""
        return (0, *itertools.accumulate(math.prod(s) for s in self.shapes))

    def join(self, tensors: dict[str, Array]) -> Array:
        """Dict of arrays -> vector."""
        xp = array_namespace(*tensors.values())
        return xp.concat([xp.reshape(tensors[name], (-1,)) for name in self.names])

    def split(self, vector: Array) -> dict[str, Array]:
        """Vector -> dict of arrays."""
        xp, ends = array_namespace(vector), self.offsets
        return {name: xp.reshape(vector[ends[i]:ends[i + 1]], self.shapes[i])
                for i, name in enumerate(self.names)}


class Part(ABC):
    """What all parts share."""

    status: str = "exact"  # what the C step proves of it, see Sum
    gap: float = 0.0

    @property
    def is_zero(self) -> bool:
        """Whether Δ(θ) = 0 by construction: no corrections, rank 0."""
        return False

    @abstractmethod
    def decompress(self) -> Any:
        """Δ(θ): an array in the shape and dtype of w, or a dict of them for several tensors."""

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
    (the a of {−a, a} or a·C); "fixed", none.
    """

    codes: Array  # integer array in w's shape
    entries: Array  # (k,), w's dtype, ascending
    stored: str = "free"
    layout: Layout | None = None

    def decompress(self):
        xp = array_namespace(self.entries)
        codes = xp.astype(xp.reshape(self.codes, (-1,)), xp.int64)
        return _laid_out(xp.reshape(xp.take(self.entries, codes), self.codes.shape), self.layout)

    def _bits(self, width):
        xp = array_namespace(self.codes)
        used = size(xp.unique_values(self.codes))
        numbers = {"free": used, "scaled": min(used, 1), "fixed": 0}[self.stored]
        return size(self.codes) * max(used - 1, 0).bit_length() + numbers * FULL_BITS


@dataclass(frozen=True, eq=False)
class Sparse(Part):
    """All weights are zero but a few: Δ(θ)[indices_j] = values_j, in the flattened array."""

    indices: Array  # (nnz,), int64, ascending
    values: Array  # (nnz,), w's dtype
    shape: tuple[int, ...]
    layout: Layout | None = None

    @property
    def is_zero(self):
        return size(self.values) == 0

    def decompress(self):
        xp, n = array_namespace(self.values), math.prod(self.shape)
        dense = xp.zeros(n, dtype=self.values.dtype, device=device(self.values))
        if is_numpy_array(self.values):
            dense[self.indices] = self.values
        elif not self.is_zero:  # the standard has no scatter: every position looks itself up
            here = xp.arange(n, dtype=self.indices.dtype, device=device(self.values))
            j = xp.clip(xp.searchsorted(self.indices, here), max=size(self.values) - 1)
            dense = xp.where(xp.take(self.indices, j) == here, xp.take(self.values, j), dense)
        return _laid_out(xp.reshape(dense, self.shape), self.layout)

    def _bits(self, width):
        return size(self.values) * width + position_bits(self.indices)


def position_bits(indices: Array) -> int:
    """Bits of the delta-coded positions, with the best number b of bits a code.

    A code below 2ᵇ − 1 is the number of zeros before the next value; the code 2ᵇ − 1 is reserved
    and means "2ᵇ − 1 zeros further, no value".
    """
    xp, nnz = array_namespace(indices), size(indices)
    if nnz == 0:
        return 0
    zeros_before = xp.concat([indices[:1], indices[1:] - indices[:-1] - 1])
    longest = int(xp.max(zeros_before))
    return min(b * (nnz + int(xp.sum(zeros_before // (2**b - 1))))
               for b in range(1, longest.bit_length() + 2))


@dataclass(frozen=True, eq=False)
class Slices(Part):
    """All slices along an axis are zero but a few: slice indices_j of Δ(θ) is slice j of values."""

    indices: Array  # (kept,), int64, ascending
    values: Array  # w's shape, but `kept` slices along the axis
    shape: tuple[int, ...]
    axis: int

    @property
    def is_zero(self):
        return size(self.indices) == 0

    def decompress(self):
        xp, n, here = array_namespace(self.values), self.shape[self.axis], device(self.values)
        dense = xp.zeros(self.shape, dtype=self.values.dtype, device=here)
        if self.is_zero:
            return dense
        every = xp.arange(n, dtype=self.indices.dtype, device=here)
        j = xp.clip(xp.searchsorted(self.indices, every), max=size(self.indices) - 1)
        kept = xp.take(self.indices, j) == every
        along = tuple(n if axis == self.axis else 1 for axis in range(len(self.shape)))
        return xp.where(xp.reshape(kept, along), xp.take(self.values, j, axis=self.axis), dense)

    def _bits(self, width):
        return size(self.values) * width + position_bits(self.indices)


@dataclass(frozen=True, eq=False)
class LowRank(Part):
    """A product of two thin matrices: Δ(θ) = left · right, laid out as w by the scheme."""

    left: Array  # (m, r)
    right: Array  # (r, n)
    shape: tuple[int, ...]
    scheme: int = 1  # of a convolution, see projections.lowrank.as_matrix

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
    """The weights themselves, in full or rounded to a floating dtype of `width` bits."""

    values: Array
    layout: Layout | None = None
    width: int = FULL_BITS

    def decompress(self):
        return _laid_out(self.values, self.layout)

    def _bits(self, width):
        return size(self.values) * self.width


@dataclass(frozen=True, eq=False)
class ByTensor(Part):
    """One part for each tensor, by name: a codebook a layer, a low-rank matrix a layer."""

    parts: dict[str, Part]
    status: str = field(init=False)  # the weakest of them
    gap: float = field(init=False)  # their sum

    def __post_init__(self):
        weakest = max((part.status for part in self.parts.values()), key=STATUSES.index)
        object.__setattr__(self, "status", weakest)
        object.__setattr__(self, "gap", sum(part.gap for part in self.parts.values()))

    @property
    def is_zero(self):
        return all(part.is_zero for part in self.parts.values())

    def decompress(self):
        return {name: part.decompress() for name, part in self.parts.items()}

    def _bits(self, width):
        return sum(part._bits(width) for part in self.parts.values())


@dataclass(frozen=True, eq=False)
class Sum(Part):
    """An additive combination: Δ(θ) = Δ1(θ1) + ... + Δm(θm).

    `status` is what the C step proves of it: "exact" (a global optimum, gap 0), "certified"
    (within `gap` of it), "stationary" (no half-step improves the objective by more than the
    relative tolerance; no bound), or "unconverged" (the cycles ran out before that). `trace`
    holds the objective after every half-step of an alternation, infinite until every part is set.
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
        return add([part.decompress() for part in live])

    def _bits(self, width):
        return sum(part._bits(width) for part in self.parts)


def combine(function: Callable, *terms: Any) -> Any:
    """The function of arrays, or name by name of dicts of them."""
    if isinstance(terms[0], dict):
        return {name: function(*(term[name] for term in terms)) for name in terms[0]}
    return function(*terms)


def add(terms: Sequence[Any]) -> Any:
    """Sum of decompressed parts, left to right: arrays, or dicts of them name by name."""
    return functools.reduce(functools.partial(combine, operator.add), terms)


def storage_bits(params: dict[str, Array], names: Iterable[str], parts: Iterable[Part],
                 convention: str = "float32") -> int:
    """Bits of a model: the parts, and every tensor of `params` not in `names` in full."""
    untouched = sum(size(p) for name, p in params.items() if name not in names)
    return untouched * FULL_BITS + sum(part.bits(convention) for part in parts)

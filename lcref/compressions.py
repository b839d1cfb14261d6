"""What a user composes: Each(Quantize(k=2)) + Prune(keep=0.03), one class a family of projections.

Each class checks its budget once and projects an array of a task; `composition` does the rest.
"""

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .composition import Compression, Each, Sum, alternate
from .inputs import axis_of, exactly_one, moderate, root_of_price, task_names
from .parts import ByTensor, combine, leaves, size
from .projections import (binary, codebook_l0, group_l0_ball, kmeans, kmeans_l0, l0_ball,
                          l0_penalty, l1_ball, l1_penalty, nearest, powers_of_two, rank_ball,
                          rank_selection, round_to, scaled_binary_l0, scaled_codebook, ternary)
from .projections.lowrank import as_matrix, rank_cost
from .projections.prune import share_slices
from .projections.quantize import signed_powers
from .tolerance import wide

__all__ = ["Binary", "Compression", "Each", "LowRank", "PowersOfTwo", "Prune", "Quantize", "Round",
           "Sum", "Task", "Ternary", "alternate"]


def _half(x, radius=math.inf):
    """The half-precision numbers nearest to x; towards zero where their l1 norm is too much."""
    xp, near = array_namespace(x), round_to(x, "float16").decompress()
    if float(xp.sum(abs(wide(near)))) <= radius:  # an exact sum: of multiples of 2⁻²⁴
        return near
    step = xp.clip(abs(near) / 2**11, min=2.0**-24)  # more than half of the one to the next number
    less = round_to(near - xp.where(near < 0, -step, step), "float16")
    most = abs(wide(x)) * (1 - 2 * float(xp.finfo(x.dtype).eps))  # x was rounded, perhaps upwards
    return xp.where(abs(wide(near)) > most, less.decompress(), near)


def _rise(w, theta, rounded):
    """‖w − rounded‖² − ‖w − θ‖², at least 0: what rounding θ costs."""
    w, unit = moderate(w)
    theta, rounded = wide(theta) / unit, wide(rounded) / unit
    rise = array_namespace(w).sum((theta - rounded) * ((w - theta) + (w - rounded)))
    return max(float(rise), 0.0) * unit * unit


def _price(alpha, mu, count, unit):
    """2α/μ times the count, in units of unit²."""
    worth = root_of_price(alpha, mu) / unit
    return worth * worth * count if count else 0.0


@dataclass(frozen=True)
class Quantize(Compression):
    """At most k distinct values, learned; or a codebook's entries, with scale times a free a ≥ 0.

    Exact: one-dimensional K-means; the nearest entry; a sweep over the scale. See `kmeans`,
    `nearest` and `scaled_codebook` of `lcref.projections`.

    Parameters
    ----------
    k : int, at least 1
        How many values to learn; this or a codebook is given.
    codebook : sequence of numbers
        Strictly ascending.
    scale : bool
        Learn a; goes with a codebook.

    Notes
    -----
    Cost, source and ties are those of the projection.
    """

    k: int | None = None
    codebook: tuple[float, ...] | None = None
    scale: bool = False

    def __post_init__(self):
        super().__post_init__()
        if exactly_one("quantize", k=self.k, codebook=self.codebook) == "k" and self.scale:
            raise ValueError("scale goes with a codebook; k values have no scale to learn")

    def _one(self, w, mu, start):
        if self.k is not None:
            return kmeans(w, self.k)
        return (scaled_codebook if self.scale else nearest)(w, self.codebook)

    @property
    def correctable(self):
        return not self.scale

    @property
    def learned(self):
        return self.k or 0

    def corrected(self, w, kappa):
        if self.k is not None:
            return kmeans_l0(w, self.k, kappa)
        return codebook_l0(w, self.codebook, kappa)


@dataclass(frozen=True)
class Binary(Compression):
    """Every weight ±1, or with scale ±a with a learned magnitude a.

    Exact, see `lcref.projections.binary`.

    Parameters
    ----------
    scale : bool
        Learn the magnitude a, instead of a = 1.

    Notes
    -----
    Cost, source and ties are those of the projection.
    """

    scale: bool = False
    correctable = True

    def _one(self, w, mu, start):
        return binary(w, self.scale)

    def corrected(self, w, kappa):
        return scaled_binary_l0(w, kappa) if self.scale else codebook_l0(w, (-1, 1), kappa)


@dataclass(frozen=True)
class Ternary(Compression):
    """Every weight −1, 0 or 1, or with scale −a, 0 or a with a learned magnitude a.

    Exact, see `lcref.projections.ternary`.

    Parameters
    ----------
    scale : bool
        Learn the magnitude a, instead of a = 1.

    Notes
    -----
    Cost, source and ties are those of the projection.
    """

    scale: bool = False

    def _one(self, w, mu, start):
        return ternary(w, self.scale)

    @property
    def correctable(self):
        return not self.scale

    def corrected(self, w, kappa):
        return codebook_l0(w, (-1, 0, 1), kappa)


@dataclass(frozen=True)
class PowersOfTwo(Compression):
    """Every weight 0 or ±2⁻ⁱ, i = 0..c.

    Exact, see `lcref.projections.powers_of_two`.

    Parameters
    ----------
    c : int, at least 0

    Notes
    -----
    Cost, source and ties are those of the projection.
    """

    c: int
    correctable = True

    def _one(self, w, mu, start):
        return powers_of_two(w, self.c)

    def corrected(self, w, kappa):
        return codebook_l0(w, signed_powers(leaves(w)[0], self.c), kappa)


@dataclass(frozen=True)
class Round(Compression):
    """Every weight representable in float16 or bfloat16, or in int2 to int8 times a learned scale.

    Exact, see `lcref.projections.round_to`.

    Parameters
    ----------
    dtype : "float16", "bfloat16", or "int2" to "int8"

    Notes
    -----
    Cost, source and ties are those of the projection.
    """

    dtype: str

    def _one(self, w, mu, start):
        return round_to(w, self.dtype)


@dataclass(frozen=True)
class Prune(Compression):
    """Most weights zero, by one of five rules.

    At most kappa nonzeros, or ⌊keep·n⌋ of the task's n weights; an l1 norm up to radius; a price
    2α/μ on each nonzero (alpha), or on the l1 norm (alpha, norm=1). With an axis, at most `groups`
    nonzero slices along it, or ⌊keep·m⌋ of the m slices of all the task's tensors.

    With storage "float16" the values are half-precision numbers, saturating. For kappa, keep and
    alpha the answer is optimal among such values too; for radius and slices it is feasible, and its
    `gap` bounds what it exceeds that optimum by.

    The projections are `l0_ball`, `l1_ball`, `l0_penalty`, `l1_penalty` and `group_l0_ball`.

    Parameters
    ----------
    kappa : int, at least 0
    keep : float, 0 to 1
    radius : float, at least 0
    alpha : float, at least 0
        One of these four or `groups` is given.
    norm : 0 or 1
        Whether alpha is the price of a nonzero or of the l1 norm.
    groups : int, at least 0
        Goes with an axis.
    axis : int
    storage : "float32" or "float16"

    Notes
    -----
    Cost, source and ties are those of the projection.
    """

    kappa: int | None = None
    keep: float | None = None
    radius: float | None = None
    alpha: float | None = None
    norm: int = 0
    groups: int | None = None
    axis: int | None = None
    storage: str = "float32"

    def __post_init__(self):
        super().__post_init__()
        rule = exactly_one("prune", kappa=self.kappa, keep=self.keep, radius=self.radius,
                           alpha=self.alpha, groups=self.groups)
        if self.norm and rule != "alpha":
            raise ValueError(f"norm={self.norm} goes with alpha, not with {rule}")
        if (self.axis is None) == (rule == "groups") and rule != "keep":
            raise ValueError("groups needs an axis" if rule == "groups" else
                             f"an axis goes with groups or keep, not with {rule}")

    def budget(self, w: Any) -> int:
        """κ for weights like w: ⌊keep·n⌋ in exact decimal arithmetic (0.29 of 100 is 29)."""
        if self.keep is None:
            return (self.groups if self.kappa is None else self.kappa) or 0
        n = sum(size(t) if self.axis is None else t.shape[axis_of(t, self.axis)]
                for t in leaves(w))
        return math.floor(Fraction(str(self.keep)) * n)

    def _one(self, w, mu, start):
        return self._in_half(w, self._nearest(w, mu), mu)

    def _nearest(self, w, mu):
        """The projection with values of w's dtype."""
        if self.radius is not None:
            return l1_ball(w, self.radius)
        if self.alpha is not None:
            return (l1_penalty if self.norm else l0_penalty)(w, self.alpha, mu)
        if self.axis is not None:
            return group_l0_ball(w, self.budget(w), self.axis)
        return l0_ball(w, self.budget(w))

    def _several(self, tensors, mu, start):
        if (axis := self.axis) is None:
            return super()._several(tensors, mu, start)
        kept = share_slices(tensors, self.budget(tensors), axis)
        return ByTensor(combine(lambda t, n: self._in_half(t, group_l0_ball(t, n, axis)),
                                tensors, kept))

    def _in_half(self, w, theta, mu=None):
        """θ with its values in half precision, where the storage asks for that.

        For r the half-precision number nearest to w_i the gain of keeping it, w_i² − (w_i − r)² =
        r(2w_i − r), never falls as abs(w_i) grows: it is linear between the w where r changes, and
        continuous there. So the κ largest magnitudes are the best to keep for the rounded problem
        too, and its optimum is θ rounded. A price keeps those whose gain exceeds it. With the price
        on the l1 norm the cost is (r − θ_i)² plus a constant, least at the nearest r. For whole
        slices, and the l1 ball, where all values are rounded towards zero if the nearest leave it,
        θ's own distance is a lower bound, and what rounding adds is the gap.
        """
        if self.storage == "float32":
            return theta
        xp = array_namespace(w)
        values = _half(theta.values, math.inf if self.radius is None else self.radius)
        at = xp.take(w if theta.axis is not None else xp.reshape(w, (-1,)), theta.indices,
                     axis=theta.axis or 0)
        exact = self.radius is None and theta.axis is None
        gap = 0.0 if exact else _rise(at, theta.values, values)
        theta = dataclasses.replace(theta, values=values, gap=gap,
                                    status="certified" if gap else "exact")
        if self.alpha is None or self.norm:
            return theta
        root = root_of_price(self.alpha, mu)
        worth, unit = wide(values), root or 1.0
        with np.errstate(over="ignore"):    # an infinite gain is worth any price
            gain = (worth / unit) * (wide(at) / unit + (wide(at) - worth) / unit)
        kept = gain > float(bool(root))
        return dataclasses.replace(theta, indices=theta.indices[kept], values=values[kept])

    def held(self, theta):
        if self.storage == "float32":
            return theta, 0.0
        values = _half(theta.values)
        return dataclasses.replace(theta, values=values), _rise(theta.values, theta.values, values)

    def penalty(self, theta, mu, unit=1.0):
        if self.alpha is None:
            return 0.0
        if not self.norm or theta.is_zero:
            return _price(self.alpha, mu, size(theta.values), unit)
        norm = float(array_namespace(theta.values).sum(abs(wide(theta.values)) / unit))
        return 2 * (self.alpha / mu / unit) * norm

    def nonzeros(self, w):
        counting = self.kappa is not None or (self.keep is not None and self.axis is None)
        return self.budget(w) if counting else None

    def vanishes(self, w):
        if self.radius is not None:
            return self.radius == 0
        return self.alpha is None and self.budget(w) == 0


@dataclass(frozen=True)
class LowRank(Compression):
    """Each tensor, as a matrix, has at most the given rank; or a price 2α/μ on cost(rank).

    A convolution (out, in, h, w) is reshaped by scheme 1 to out × (in·h·w), by scheme 2 to
    (out·h) × (in·w). The cost of an m × n matrix is r(m + n) for "storage", and that times the
    number of output positions for "flops".

    With storage "float16" the factors are rounded to half precision, saturating. That is not
    optimal; what the rounding adds to the distance, whose unrounded minimum is a lower bound, is
    the gap.

    The projections are `rank_ball` and `rank_selection`.

    Parameters
    ----------
    rank : int, at least 0
        This or alpha is given.
    alpha : float, at least 0
    cost : "storage" or "flops"
        Goes with alpha.
    positions : int, at least 1
        Of the output, for "flops".
    scheme : 1 or 2
    storage : "float32" or "float16"

    Notes
    -----
    Cost, source and ties are those of the projection.
    """

    rank: int | None = None
    alpha: float | None = None
    cost: str = "storage"
    positions: int = 1
    scheme: int = 1
    storage: str = "float32"

    def __post_init__(self):
        super().__post_init__()
        if exactly_one("lowrank", rank=self.rank, alpha=self.alpha) == "rank" and (
                self.cost != "storage" or self.positions != 1):
            raise ValueError("cost and positions go with alpha, not with rank")

    def _one(self, w, mu, start):
        matrix = as_matrix(w, self.scheme)
        theta = (rank_ball(matrix, self.rank or 0) if self.alpha is None else
                 rank_selection(matrix, self.alpha, mu, self.cost, self.positions))
        if self.storage == "float16":
            theta = self._in_half(matrix, theta)
        scheme = self.scheme if w.ndim > 2 else 1
        return dataclasses.replace(theta, shape=tuple(w.shape), scheme=scheme)

    def _in_half(self, matrix, theta):
        """θ with both factors in half precision, and the gap that this leaves."""
        rounded = dataclasses.replace(theta, left=_half(theta.left), right=_half(theta.right))
        gap = _rise(matrix, theta.decompress(), rounded.decompress())
        return dataclasses.replace(rounded, gap=gap, status="certified" if gap else "exact")

    def _several(self, tensors, mu, start):
        return ByTensor(combine(lambda t: self._one(t, mu, start), tensors))

    def penalty(self, theta, mu, unit=1.0):
        if self.alpha is None:
            return 0.0
        each = leaves(theta.parts) if isinstance(theta, ByTensor) else [theta]
        costs = [rank_cost(self.cost, t.left.shape[0] + t.right.shape[1], self.positions)(
            t.left.shape[1]) for t in each]
        return _price(self.alpha, mu, sum(costs), unit)

    def vanishes(self, w):
        return self.rank == 0


@dataclass(frozen=True)
class Task:
    """Which tensors are compressed together, and how.

    Parameters
    ----------
    names : sequence of str, or str
    compression : Compression
    """

    names: tuple[str, ...]
    compression: Compression

    def __post_init__(self):
        object.__setattr__(self, "names", task_names(self.names))
        if not isinstance(self.compression, Compression):
            raise ValueError(f"a task needs a compression, not {self.compression!r}")

    def __str__(self):
        return f"{', '.join(self.names)}: {self.compression}"

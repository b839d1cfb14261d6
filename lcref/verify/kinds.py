"""The kinds of functions that can be verified: what each minimises, and who knows the optimum.

A kind's function is called with w and the kind's parameters by position, and returns Δ(θ) in w's
shape and dtype; for sums with corrections also the parts, which are added.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .. import projections
from ..inputs import did_you_mean
from ..text import parse
from ..tolerance import objective_slack
from . import oracles
from .cases import codebooks, matrices, prices, radii, vectors
from .sets import WHY, as_kind, infeasible_parts, infeasible_sum, over_the_radius, terms_of
from .vectors.judge import FEASIBLE, objective

Arguments = tuple[Any, ...]


def nothing(w):
    """Of a kind without parameters."""
    return st.just(())


def one(strategy):
    """A strategy of budgets with one entry."""
    return lambda w: strategy(w).map(lambda value: (value,))


def whole(start, limit=lambda w: w.size + 1):
    """Whole numbers from start to a little beyond what w can use."""
    return lambda w: st.integers(start, limit(w))


def book(w):
    """Codebooks in units of the weights."""
    return codebooks(w).map(lambda c: np.array(c, dtype=w.dtype))


def small_book(w):
    """Codebooks in units of 1, as the scale is free."""
    return codebooks(w, unit=1.0).map(lambda c: np.array(c, dtype=w.dtype))


def dtypes(w):
    """Formats; int2 and int3 where w is small, as searching all patterns takes too long."""
    return st.sampled_from(["float16", "bfloat16"] + 2 * ["int2", "int3"] * (w.size <= 4))


def some_kappa(w):
    """κ from 0 to beyond n, or to 6 where n is large."""
    return st.integers(0, min(w.size + 1, 6) if w.size > 8 else w.size + 1)


def norm_of_w(w, theta, arguments):
    """D = ‖w‖²."""
    return float(np.sum(w * w))


def norms_of_both(w, theta, arguments):
    """D = ‖w‖² + ‖θ‖², of fixed codebooks."""
    return float(np.sum(w * w) + np.sum(theta * theta))


def variance(x):
    """‖x − mean x‖²."""
    return float(np.sum((x - np.mean(x)) ** 2)) if x.size else 0.0


def of_the_kept(k, magnitudes):
    """‖x − mean x‖² over the entries that are among the k commonest values of θ, or of abs(θ)."""
    def spread(w, theta, arguments):
        x, y = (np.abs(w), np.abs(theta)) if magnitudes else (w, theta)
        values, where, counts = np.unique(y, return_inverse=True, return_counts=True)
        kept = np.isin(where.ravel(), np.argsort(-counts)[: k or arguments[0]])
        return variance(x.ravel()[kept])

    return spread


@dataclass(frozen=True)
class Kind:
    """One kind: min ‖w − θ‖² + penalty over the feasible θ.

    `optimum` is the exhaustive search for small w and `projected` lcref's own answer, which is
    optimal within its slack. `zero` and `full` give the parameters with which only 0 is feasible,
    or w itself; `larger` those of a larger feasible set; `stretch` those for s·w, None where the
    problem does not scale. `signs` says what may be negated: "each" entry, "all" at once, "lines"
    of a matrix, or nothing.
    """

    name: str
    problem: str
    parameters: tuple[str, ...]
    projected: Callable  # (w, *parameters) → part
    optimum: Callable | None  # (w, *parameters) → Fraction, for small w
    budgets: Callable = nothing  # w → strategy of parameters
    matrix: bool = False
    small: int = 8  # entries that the search can take
    spread: Callable = norm_of_w  # D of the published constant
    stationary: bool = False
    penalised: bool = False
    zero: Callable | None = None
    full: Callable | None = None
    larger: Callable | None = None
    stretch: Callable | None = None
    signs: str = "each"
    wrong: tuple = ()  # parameters that must be refused
    optional: int = 0  # trailing parameters that a function need not take
    compression: str | None = None  # of kind sum

    def weights(self, **how):
        """The strategy of w."""
        how = {"dtypes": (np.float64,), **how}
        return matrices(least=1, **how) if self.matrix else vectors(min_size=1, **how)

    def infeasible(self, w, theta, arguments, parts=None) -> str:
        """Why θ is not feasible, "" where it is."""
        if self.name == "sum":
            return infeasible_sum(self.terms(w), w, theta, parts)
        if self.name == "l1_ball":
            return over_the_radius(w, theta, arguments[0])
        if parts and len(parts) == 2 and self.name.endswith("_l0"):
            return infeasible_parts(self.name, parts, arguments)
        return "" if FEASIBLE[self.name](theta, *arguments) else WHY[self.name]

    def value(self, w, theta, arguments) -> Fraction:
        """‖w − θ‖² plus the penalty, exactly."""
        return objective(self.name, w, theta, arguments)

    def terms(self, w) -> list:
        """The kinds of the parts of a sum, each with its parameters for w."""
        return [as_kind(term, w) for term in terms_of(self.compression or "")]

    def slack(self, w, theta, arguments, parts=None) -> Fraction:
        """The published constant, plus the rounding of subnormal numbers.

        It is taken of w and θ divided by a power of two that brings them near 1, where nothing
        overflows, and multiplied by its square. Under the smallest normal number an entry is off
        by half the smallest subnormal h, which adds 2·(h/2)·Σ abs(w − θ) + n·(h/2)². A mean that
        is summed in any order is off by up to n·u·M, which adds n·(n·u·M)².
        """
        every = (w, theta, *(parts or ()))
        exponent = int(np.frexp(max(np.max(np.abs(x), initial=0) for x in every))[1])
        near = [np.ldexp(x.astype(np.float64), -exponent) for x in every]
        largest = max((float(np.max(np.abs(x), initial=0)) for x in near), default=0.0)
        x, y = (a.astype(w.dtype) for a in near[:2])
        published = objective_slack(x, y, spread=self.spread(*near[:2], arguments),
                                    stationary=self.stationary, largest=largest)
        published += w.size * (w.size * float(np.finfo(w.dtype).eps) * largest) ** 2
        h = Fraction(float(np.finfo(w.dtype).smallest_subnormal)) / 2
        off = sum(abs(Fraction(a) - Fraction(b)) for a, b in zip(w.ravel().tolist(),
                                                                 theta.ravel().tolist()))
        subnormal = w.size * h**2 + (0 if self.stationary else 2 * h * off)
        return Fraction(published) * Fraction(4) ** exponent + subnormal


def squared(arguments, s):
    """α·s², for s·w."""
    return (arguments[0] * s * s, *arguments[1:])


def once(arguments, s):
    """The first parameter times s, for s·w."""
    return (arguments[0] * s, *arguments[1:])


def same(arguments, s):
    """The same parameters, for s·w."""
    return arguments


def zero_price(w, *rest):
    """α = 0: w itself is optimal."""
    return (0.0, 1.0, *rest)


def high_price(power, *rest):
    """An α that no weight is worth."""
    return lambda w: (float(2 * max(np.sum(np.abs(w)), 1.0) ** power), 1.0, *rest)


def more(arguments):
    """One more, of the first parameter."""
    return (arguments[0] + 1, *arguments[1:])


def more_corrections(arguments):
    """One more correction."""
    return (*arguments[:-1], arguments[-1] + 1)


def distinct(w):
    """How many distinct values w has."""
    return max(np.unique(w).size, 1)


KINDS: dict[str, Kind] = {kind.name: kind for kind in (
    Kind("nearest", "θ_i in the codebook", ("codebook",), projections.nearest, oracles.nearest,
         one(book), spread=norms_of_both, stretch=once, signs="",
         full=lambda w: (np.unique(w),), wrong=((np.array([]),), (np.array([1.0, 0.0]),))),
    Kind("binary", "θ in {−1, 1}ⁿ, or with scale {−a, a}ⁿ, a ≥ 0 free", ("scale",),
         projections.binary, oracles.binary, one(lambda w: st.booleans()), spread=norms_of_both),
    Kind("ternary", "θ in {−1, 0, 1}ⁿ, or with scale {−a, 0, a}ⁿ, a ≥ 0 free", ("scale",),
         projections.ternary, oracles.ternary, one(lambda w: st.booleans()),
         spread=norms_of_both),
    Kind("powers_of_two", "θ_i in {0, ±2⁰, ..., ±2⁻ᶜ}", ("c",), projections.powers_of_two,
         oracles.powers_of_two, one(lambda w: st.integers(0, 8)), spread=norms_of_both,
         larger=more, wrong=((-1,), (1.5,))),
    Kind("scaled_codebook", "θ in a·Cⁿ, a ≥ 0 free", ("codebook",), projections.scaled_codebook,
         oracles.scaled_codebook, one(small_book), small=5, stretch=same, signs="",
         wrong=((np.array([]),), (np.array([1.0, 0.0]),))),
    Kind("kmeans", "θ has at most k distinct values", ("k",), projections.kmeans, oracles.kmeans,
         one(whole(1)), spread=lambda w, theta, a: variance(w), stationary=True,
         full=lambda w: (distinct(w),), larger=more, stretch=same, signs="all",
         wrong=((0,), (-1,), (1.5,))),
    Kind("l0_ball", "‖θ‖₀ ≤ κ", ("kappa",), projections.l0_ball, oracles.l0_ball, one(whole(0)),
         zero=lambda w: (0,), full=lambda w: (w.size,), larger=more, stretch=same,
         wrong=((-1,), (1.5,))),
    Kind("l1_ball", "‖θ‖₁ ≤ r", ("radius",), projections.l1_ball, oracles.l1_ball, one(radii),
         small=7, zero=lambda w: (0.0,), full=lambda w: (2 * float(np.sum(np.abs(w))) + 1,),
         larger=lambda a: (1.25 * a[0],), stretch=once, wrong=((-1.0,), (float("nan"),))),
    Kind("l0_penalty", "+ (2α/μ)‖θ‖₀", ("alpha", "mu"), projections.l0_penalty,
         oracles.l0_penalty, prices(2), penalised=True, zero=high_price(2), full=zero_price,
         stretch=squared, wrong=((-1.0, 1.0), (1.0, 0.0))),
    Kind("l1_penalty", "+ (2α/μ)‖θ‖₁", ("alpha", "mu"), projections.l1_penalty,
         oracles.l1_penalty, prices(1), penalised=True, stationary=True, zero=high_price(1),
         full=zero_price, stretch=once, wrong=((-1.0, 1.0), (1.0, 0.0))),
    Kind("group_l0_ball", "at most κ slices along the axis are not zero", ("kappa", "axis"),
         projections.group_l0_ball, oracles.group_l0_ball,
         lambda w: st.tuples(st.integers(0, 5), st.integers(-w.ndim, w.ndim - 1)), matrix=True,
         zero=lambda w: (0, 0), full=lambda w: (w.shape[1], 1), larger=more, stretch=same,
         wrong=((-1, 0), (1, 5))),
    Kind("rank_ball", "rank(θ) ≤ r", ("rank",), projections.rank_ball, oracles.rank_ball,
         one(whole(0, lambda w: min(w.shape) + 1)), matrix=True, zero=lambda w: (0,),
         full=lambda w: (min(w.shape),), larger=more, stretch=same, signs="lines",
         wrong=((-1,), (1.5,))),
    Kind("rank_selection", "+ (2α/μ)·rank(θ)·(m + n)", ("alpha", "mu", "cost"),
         projections.rank_selection,
         lambda w, alpha, mu, cost: oracles.rank_selection(
             w, alpha, mu, lambda r: r * sum(w.shape)),
         lambda w: prices(2)(w).map(lambda price: (*price, "storage")), matrix=True,
         penalised=True, zero=high_price(2, "storage"), full=lambda w: zero_price(w, "storage"),
         stretch=squared, signs="lines", optional=1,
         wrong=((-1.0, 1.0, "storage"), (1.0, 0.0, "storage"))),
    Kind("round_to", "θ_i representable in the dtype; for intN a·{−2ᴺ⁻¹..2ᴺ⁻¹−1}, a ≥ 0 free",
         ("dtype",), projections.round_to, oracles.round_to, one(dtypes), spread=norms_of_both,
         signs="", wrong=(("float13",),)),
    Kind("codebook_l0", "θ_i in the codebook, except at κ positions", ("codebook", "kappa"),
         projections.codebook_l0, oracles.codebook_l0,
         lambda w: st.tuples(book(w), some_kappa(w)), small=7, spread=norms_of_both,
         full=lambda w: (np.ones(1, dtype=w.dtype), w.size), larger=more_corrections,
         stretch=once, signs="", wrong=((np.array([1.0]), -1),)),
    Kind("scaled_binary_l0", "θ_i in {−a, a}, a ≥ 0 free, except at κ positions", ("kappa",),
         projections.scaled_binary_l0, oracles.scaled_binary_l0, one(some_kappa), small=7,
         spread=of_the_kept(1, True), full=lambda w: (w.size,), larger=more, stretch=same,
         wrong=((-1,),)),
    Kind("kmeans_l0", "θ has at most k distinct values, except at κ positions", ("k", "kappa"),
         projections.kmeans_l0, oracles.kmeans_l0,
         lambda w: st.tuples(st.integers(1, 4), some_kappa(w)), small=6,
         spread=of_the_kept(None, False), stationary=True, full=lambda w: (1, w.size),
         larger=more_corrections, stretch=same, signs="all", wrong=((0, 1), (1, -1))),
)}


def of_sum(text: str) -> Kind:
    """The kind of a sum with a compression text; w is a matrix."""
    terms_of(text)
    return Kind("sum", text, (), parse(text).project, None, matrix=True, compression=text)


def kind_of(name: str, compression: str | None = None) -> Kind:
    """The kind with a name; ValueError where there is none, or where sum lacks its text."""
    if name == "sum":
        if not compression:
            raise ValueError("kind sum needs a compression text, such as "
                             "'quantize(k=2) + prune(kappa=3)'")
        return of_sum(compression)
    if compression is not None:
        raise ValueError(f"a compression text goes with kind sum, not with {name}")
    if name == "lc":
        return LOOP
    if name not in KINDS:
        raise ValueError(f"unknown kind {name!r}{did_you_mean(name, [*KINDS, 'sum', 'lc'])}")
    return KINDS[name]


LOOP = Kind("lc", "the learning-compression loop on a least-squares problem",
            ("y", "w", "projection", "budget", "mu0", "a", "steps", "penalty"), replace, None)

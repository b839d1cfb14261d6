"""What a user composes: Each(Quantize(k=2)) + Prune(keep=0.03).

A compression's `project` is its C step. It sees all tensors of a task as one vector; Each gives
every tensor its own part, and low rank takes each tensor as a matrix. A sum is solved by
alternation, each part in turn projecting the residual of the others.
"""

import dataclasses
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from array_api_compat import array_namespace

from . import parts
from .inputs import flag, moderate, nonnegative, one_of, real_array, whole
from .parts import Array, ByTensor, Layout, Part, add, combine, size
from .projections import binary, kmeans, l0_ball, l1_ball, rank_ball, ternary
from .projections.lowrank import as_matrix
from .tolerance import norm, slack, squared_norm


@dataclass(frozen=True)
class Compression(ABC):
    """A feasible set for the weights of a task, and the projection onto it."""

    @abstractmethod
    def _one(self, w, mu, start):
        """The C step of one array."""

    def __add__(self, other: "Compression") -> "Sum":
        if not isinstance(other, Compression):
            return NotImplemented
        return Sum(*_terms(self), *_terms(other))

    def project(self, w: Array | dict[str, Array], mu: float | None = None,
                start: Part | None = None) -> Part:
        """The C step: argmin over θ of ‖w − Δ(θ)‖² on this compression's feasible set.

        Parameters
        ----------
        w : array, or dict of name to array
            Real floating and finite. A dict of several tensors gives a part over all of them.
        mu : float, optional
            The penalty μ, for compressions whose problem depends on it.
        start : Part, optional
            The last C step's answer, from which an alternation goes on.

        Returns
        -------
        Part
        """
        if isinstance(w, dict) and not w:
            raise ValueError("no tensors to project")
        if isinstance(w, dict) and len(w) == 1:
            (w,) = w.values()
        return self._several(w, mu, start) if isinstance(w, dict) else self._one(w, mu, start)

    def _several(self, tensors, mu, start):
        layout = Layout.of(tensors)
        return dataclasses.replace(self._one(layout.join(tensors), mu, start), layout=layout)

    def vanishes(self, w: Any) -> bool:
        """Whether zero is the only feasible θ for weights like w."""
        return False

    def __str__(self):
        given = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)
                 if getattr(self, f.name) != f.default]
        return f"{type(self).__name__.lower()}({', '.join(f'{n}={v!r}' for n, v in given)})"


@dataclass(frozen=True)
class Quantize(Compression):
    """At most k distinct values, learned: exact one-dimensional K-means."""

    k: int

    def __post_init__(self):
        _set(self, k=whole(self.k, "k", least=1))

    def _one(self, w, mu, start):
        return kmeans(w, self.k)


@dataclass(frozen=True)
class Binary(Compression):
    """Every weight ±1, or with scale ±a with a learned magnitude a."""

    scale: bool = False

    def __post_init__(self):
        _set(self, scale=flag(self.scale, "scale"))

    def _one(self, w, mu, start):
        return binary(w, self.scale)


@dataclass(frozen=True)
class Ternary(Compression):
    """Every weight −1, 0 or 1, or with scale −a, 0 or a with a learned magnitude a."""

    scale: bool = False

    def __post_init__(self):
        _set(self, scale=flag(self.scale, "scale"))

    def _one(self, w, mu, start):
        return ternary(w, self.scale)


@dataclass(frozen=True)
class Prune(Compression):
    """At most kappa nonzeros, or ⌊keep·n⌋ of the task's n weights; or an l1 norm up to radius."""

    kappa: int | None = None
    keep: float | None = None
    radius: float | None = None

    def __post_init__(self):
        given = [n for n in ("kappa", "keep", "radius") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"prune needs exactly one of kappa, keep, radius; given: {given}")
        if self.kappa is not None:
            _set(self, kappa=whole(self.kappa, "kappa"))
        if self.radius is not None:
            _set(self, radius=nonnegative(self.radius, "radius"))
        if self.keep is not None:
            if isinstance(self.keep, bool) or not 0 <= nonnegative(self.keep, "keep") <= 1:
                raise ValueError(f"keep is a share of the weights, at most 1, not {self.keep!r}")
            _set(self, keep=float(Fraction(str(self.keep))))  # the decimal written: float32(0.29)

    def budget(self, n: int) -> int:
        """κ: as given, or ⌊keep·n⌋ in exact decimal arithmetic (0.29 of 100 is 29)."""
        return self.kappa or 0 if self.keep is None else math.floor(Fraction(str(self.keep)) * n)

    def _one(self, w, mu, start):
        if self.radius is not None:
            return l1_ball(w, self.radius)
        return l0_ball(w, self.budget(size(w)))

    def vanishes(self, w):
        if self.radius is not None:
            return self.radius == 0
        return self.budget(sum(map(size, _leaves(w)))) == 0


@dataclass(frozen=True)
class LowRank(Compression):
    """Each tensor, as a matrix, has at most the given rank.

    A convolution (out, in, h, w) is reshaped by scheme 1 to out × (in·h·w), by scheme 2 to
    (out·h) × (in·w).
    """

    rank: int
    scheme: int = 1

    def __post_init__(self):
        _set(self, rank=whole(self.rank, "rank"))
        one_of(self.scheme, "scheme", (1, 2))

    def _one(self, w, mu, start):
        theta, scheme = rank_ball(as_matrix(w, self.scheme), self.rank), self.scheme
        return dataclasses.replace(theta, shape=tuple(w.shape), scheme=scheme if w.ndim > 2 else 1)

    def _several(self, tensors, mu, start):
        return ByTensor({name: self._one(t, mu, start) for name, t in tensors.items()})

    def vanishes(self, w):
        return self.rank == 0


@dataclass(frozen=True)
class Each(Compression):
    """The compression applied to every tensor on its own: a codebook a layer."""

    inner: Compression

    def __post_init__(self):
        if not isinstance(self.inner, Compression):
            raise ValueError(f"each needs one compression, not {self.inner!r}")

    def _one(self, w, mu, start):
        return self.inner.project(w, mu, start)

    def _several(self, tensors, mu, start):
        return ByTensor({name: self.inner.project(t, mu, start and start.parts[name])
                         for name, t in tensors.items()})

    def vanishes(self, w):
        return all(self.inner.vanishes(tensor) for tensor in _leaves(w))

    def __str__(self):
        return f"each({self.inner})"


class DescentError(ArithmeticError):
    """A half-step of an alternation raised its objective: a bug in a projection, not bad input."""


@dataclass(frozen=True, init=False)
class Sum(Compression):
    """An additive combination of compressions, solved by alternation.

        min over θ1..θm of ‖w − Δ1(θ1) − ... − Δm(θm)‖²

    Each part in turn projects the residual of the others, which never raises the objective; that
    is checked on every half-step. It stops when a cycle lowers the objective by at most tol of
    itself ("stationary"), or after the given cycles ("unconverged"). Not exact: the answer can
    depend on which part goes first. `restarts` tries each part first in turn and keeps the best;
    by default only where there is no last C step to start from. A sum of which only one part can
    be nonzero is that part's projection, and exact. Low rank plus sparse may have no minimiser at
    all: rank 1 plus one correction comes as near as one likes to [[0,1,1],[1,0,0],[1,0,0]] with
    factors that diverge; there too the alternation stops where it stagnates.

    `solver` is "alternate", or "auto", which so far is the same.
    """

    terms: tuple[Compression, ...]
    solver: str = "auto"
    restarts: bool | None = None
    cycles: int = 100
    tol: float = 1e-6

    def __init__(self, *terms: Compression, solver: str = "auto", restarts: bool | None = None,
                 cycles: int = 100, tol: float = 1e-6):
        if len(terms) < 2 or not all(isinstance(t, Compression) for t in terms):
            raise ValueError("a sum needs at least two compressions")
        one_of(solver, "solver", ("auto", "alternate"))
        restarts = None if restarts is None else flag(restarts, "restarts")
        _set(self, terms=terms, solver=solver, restarts=restarts,
             cycles=whole(cycles, "cycles", least=1), tol=nonnegative(tol, "tol"))

    def _one(self, w, mu, start):
        for tensor in _leaves(w):
            real_array(tensor)
        live = [i for i, term in enumerate(self.terms) if not term.vanishes(w)]
        if len(live) < 2:
            solved = tuple(term.project(w, mu, start and start.parts[i])
                           for i, term in enumerate(self.terms))
            only = solved[live[0] if live else 0]
            return parts.Sum(solved, only.status, only.gap)
        found = [alternate(self.terms, w, mu, order, thetas, self.cycles, self.tol)
                 for order, thetas in self._starts(live, start)]
        unit = _unit(w)  # traces may overflow
        return min(found, key=lambda theta: _distance(w, [theta.decompress()], unit))

    _several = _one

    def _starts(self, live, start):
        """Pairs of the order in which the parts take turns and the θ they start from."""
        cold = [(live[i:] + live[:i], None) for i in range(len(live))]
        warm = [] if start is None else [(live, start.parts)]
        if self.restarts:
            return warm + cold
        return warm or (cold if self.restarts is None else cold[:1])

    def vanishes(self, w):
        return all(term.vanishes(w) for term in self.terms)

    def __str__(self):
        given = [f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self)[1:]
                 if getattr(self, f.name) != f.default]
        if given or any(isinstance(term, Sum) for term in self.terms):
            return f"sum({', '.join([*map(str, self.terms), *given])})"
        return " + ".join(map(str, self.terms))


def _terms(compression):
    """What a compression contributes to a flat sum; a sum with options of its own stays whole."""
    plain = isinstance(compression, Sum) and compression == Sum(*compression.terms)
    return compression.terms if plain else (compression,)


def _set(frozen, **values):
    """Give the fields of a frozen dataclass their checked values, as plain numbers."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


def alternate(terms: Sequence[Compression], w: Any, mu: float | None, order: list[int],
              thetas: Sequence[Part] | None, cycles: int, tol: float) -> parts.Sum:
    """Minimise ‖w − Σ_j Δ_j(θ_j)‖² over one part after another, in the given order.

    θ_i ← argmin ‖(w − Σ_{j≠i} Δ_j(θ_j)) − Δ_i(θ_i)‖², in turn, until a cycle lowers the objective
    by at most tol of itself, or by no more than rounding. No half-step can raise it, because the
    θ_i it replaces is feasible for the same problem; a rise above rounding is a DescentError. A
    new θ_i that is no better within rounding leaves the old one in place.

    Parameters
    ----------
    terms : sequence of Compression
    w : array, or dict of name to array
    mu : float or None
    order : list of int
        Which terms take turns; the others must have zero as their only feasible point.
    thetas : sequence of Part, or None
        Where to start; None starts with every part at zero.
    cycles : int
    tol : float

    Returns
    -------
    parts.Sum
        "stationary" or "unconverged", with the objective after every half-step as its trace.
    """
    zero = combine(lambda t: 0 * t, w)
    found: list[Any] = list(thetas) if thetas else [
        None if i in order else term.project(w, mu) for i, term in enumerate(terms)]
    deltas = [zero if theta is None else theta.decompress() for theta in found]
    unit = _unit(w)
    objective = math.inf if None in found else _distance(w, deltas, unit)
    trace, status = [], "unconverged"
    for _ in range(cycles):
        before = objective
        for i in order:
            residual = combine(operator.sub, w, add(deltas[:i] + deltas[i + 1:]))
            theta = terms[i].project(residual, mu, found[i])
            objective = _half_step(w, found, deltas, i, theta, objective, unit)
            trace.append(objective * unit * unit)
        if before - objective <= max(tol * objective, _rounding(w, deltas, objective, unit)):
            status = "stationary"
            break
    return parts.Sum(tuple(found), status, math.inf, tuple(trace))


def _half_step(w, thetas, deltas, i, theta, objective, unit):
    """Put θ_i in place unless it is no better; return the objective. A rise is a DescentError."""
    trial = [*deltas[:i], theta.decompress(), *deltas[i + 1:]]
    reached = _distance(w, trial, unit)
    if reached > objective and reached > objective + _rounding(w, trial, objective, unit):
        raise DescentError(f"part {i + 1} of a sum raised the objective from {objective!r} to "
                           f"{reached!r}: its projection is not optimal; please report this")
    if reached <= objective or thetas[i] is None:
        thetas[i], deltas[i] = theta, trial[i]
    if None in thetas:
        return math.inf
    return min(reached, objective)


def _leaves(tree):
    """The arrays of an array or of a dict of arrays."""
    return list(tree.values()) if isinstance(tree, dict) else [tree]


def _unit(w):
    """A power of two to divide w by, so that the squares of its entries stay within range."""
    return max((moderate(tensor)[1] for tensor in _leaves(w)), default=1.0)


def _distance(w, deltas, unit):
    """‖w − Σ Δ_j‖² in float64, in units of unit²."""
    wide = [combine(lambda t: array_namespace(t).astype(t, array_namespace(t).float64) / unit, tree)
            for tree in (w, *deltas)]
    return sum(map(squared_norm, _leaves(combine(operator.sub, wide[0], add(wide[1:])))))


def _rounding(w, deltas, objective, unit):
    """The published slack for a sum, whose residual w − Σ_{j≠i} Δ_j is itself rounded to w's dtype.

    That perturbs the problem by e, abs(e) ≤ u·(abs(w) + Σ abs(Δ_j)), and its optimum by at most
    2·⟨e, θ − θ'⟩ with ‖θ − θ'‖ up to twice the root of the objective.
    """
    trees = [_leaves(tree) for tree in (w, *deltas)]
    norms = [math.hypot(*(norm(t) / unit for t in tree)) for tree in trees]
    largest = max((float(array_namespace(t).max(array_namespace(t).abs(t))) / unit
                   for tree in trees for t in tree if size(t)), default=0.0)
    limits = array_namespace(trees[0][0]).finfo(trees[0][0].dtype)
    n, smallest = sum(map(size, trees[0])), float(limits.smallest_normal * limits.eps) / unit
    return slack(n, float(limits.eps), sum(v * v for v in norms),
                 2 * sum(norms) * math.sqrt(objective), largest) + n * smallest**2


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
        names = (self.names,) if isinstance(self.names, str) else tuple(self.names)
        if not names or not all(names) or len(set(names)) < len(names):
            raise ValueError(f"a task needs the names of its tensors, each once, not {names}")
        if not isinstance(self.compression, Compression):
            raise ValueError(f"a task needs a compression, not {self.compression!r}")
        _set(self, names=names)

    def __str__(self):
        return f"{', '.join(self.names)}: {self.compression}"

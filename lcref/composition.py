"""Composition: `+`, Each, and the solvers of a sum.

A compression's `project` is its C step. It sees all tensors of a task as one vector; Each gives
every tensor its own part. A sum is solved exactly where that is known how, otherwise by
alternation, each part in turn projecting the residual of the others.
"""

import dataclasses
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import parts
from .inputs import checked, in_range, scale_of, weights
from .parts import Array, ByTensor, Layout, Part, add, combine, leaves, size
from .tolerance import squared_norm, sum_slack, wide

FEW, AFFORDABLE = 16, 2**21  # k, or k times weights, up to which "auto" learns k values exactly


@dataclass(frozen=True)
class Compression(ABC):
    """A feasible set or a penalty for the weights of a task, and the projection onto it.

        min over θ of ‖w − Δ(θ)‖² + penalty(θ)   subject to   θ feasible

    `project` solves it, as well as the docstring of each compression says; the θ it returns carries
    a status, and where that is not "exact" a gap.
    """

    def __post_init__(self):
        _set(self, **checked(**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}))

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

        The penalty forms minimise ‖w − Δ(θ)‖² plus `penalty` instead.

        Parameters
        ----------
        w : array, or dict of name to array
            Real floating and finite. A dict of several tensors gives a part over all of them.
        mu : float, optional
            The penalty μ, positive; the penalty forms need it.
        start : Part, optional
            The last C step's answer, from which an alternation goes on.

        Returns
        -------
        Part
        """
        weights(w, start)
        if isinstance(w, dict) and len(w) == 1:
            (w,) = w.values()
        return self._several(w, mu, start) if isinstance(w, dict) else self._one(w, mu, start)

    def _several(self, tensors, mu, start):
        layout = Layout.of(tensors)
        return dataclasses.replace(self._one(layout.join(tensors), mu, start), layout=layout)

    @property
    def correctable(self) -> bool:
        """Whether the sum with κ corrections has a solver of its own, `corrected`."""
        return False

    @property
    def learned(self) -> int:
        """Entries of a learned codebook."""
        return 0

    def nonzeros(self, w: Any) -> int | None:
        """κ, where this is the l0 ball over the single weights of w."""
        return None

    def held(self, theta: Part) -> tuple[Part, float]:
        """Corrections θ, each the residual itself, as this holds them, and what that costs."""
        return theta, 0.0

    def corrected(self, w: Any, kappa: int) -> parts.Sum:
        """The C step with at most κ free corrections beside it, a codebook for each array of w.

        Exact or certified, see `projections.joint`. Whoever wants one codebook joins the arrays.
        """
        raise TypeError(f"{self} has no solver of its own for corrections")

    def penalty(self, theta: Part, mu: float | None, unit: float = 1.0) -> float:
        """What θ costs beside the squared distance, in units of unit²: the penalty forms' price."""
        return 0.0

    def vanishes(self, w: Any) -> bool:
        """Whether zero is the only feasible θ for weights like w."""
        return False

    def __str__(self):
        given = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)
                 if getattr(self, f.name) != f.default]
        return f"{type(self).__name__.lower()}({', '.join(f'{n}={v!r}' for n, v in given)})"


def _set(frozen, **values):
    """Give the fields of a frozen dataclass their checked values, as plain numbers."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


@dataclass(frozen=True)
class Each(Compression):
    """The compression applied to every tensor on its own: a codebook a layer.

        min over θ of Σ_t ‖w_t − Δ(θ_t)‖²   over the tensors t of the task

    The sum separates, so that the answer is as good as that for each tensor.

    Parameters
    ----------
    inner : Compression

    Notes
    -----
    The cost of the projections, one a tensor.
    """

    inner: Compression

    def __post_init__(self):
        if not isinstance(self.inner, Compression):
            raise ValueError(f"each needs one compression, not {self.inner!r}")

    def _one(self, w, mu, start):
        return self.inner.project(w, mu, start)

    def _several(self, tensors, mu, start):
        return ByTensor({name: self.inner.project(t, mu, start and start.parts[name])
                         for name, t in tensors.items()})

    @property
    def correctable(self):
        return self.inner.correctable

    @property
    def learned(self):
        return self.inner.learned

    def corrected(self, w, kappa):
        return self.inner.corrected(w, kappa)

    def penalty(self, theta, mu, unit=1.0):
        each = leaves(theta.parts) if isinstance(theta, ByTensor) else [theta]
        return sum(self.inner.penalty(part, mu, unit) for part in each)

    def vanishes(self, w):
        return all(self.inner.vanishes(tensor) for tensor in leaves(w))

    def __str__(self):
        return f"each({self.inner})"


@dataclass(frozen=True, init=False)
class Sum(Compression):
    """An additive combination of compressions.

        min over θ1..θm of ‖w − Δ1(θ1) − ... − Δm(θm)‖² + penalties

    `solver` "exact" takes a quantization plus at most kappa corrections to its global optimum, or
    to a point with a certified gap, see `codebook_l0`, `scaled_binary_l0` and `kmeans_l0` of
    `lcref.projections`; "alternate" lets each part in turn project the residual of the others;
    "auto" is exact where that is known how and cheap.

    No half-step of an alternation raises the objective; that is checked on every one. It stops when
    a cycle lowers the objective by at most tol of itself ("stationary"), or after the given cycles
    ("unconverged"). Not exact: the answer can depend on which part goes first. `restarts` tries
    each part first in turn and keeps the best; by default only where there is no last C step to
    start from. A sum of which only one part can be nonzero is that part's projection, and exact.
    Low rank plus sparse may have no minimiser at all: rank 1 plus one correction comes as near as
    one likes to [[0,1,1],[1,0,0],[1,0,0]] with factors that diverge; there too the alternation
    stops where it stagnates.

    Parameters
    ----------
    terms : Compression, two or more
    solver : "auto", "exact" or "alternate"
    restarts : bool, optional
    cycles : int, at least 1
    tol : float, at least 0

    Notes
    -----
    The cost of the exact solver's projection; of an alternation, in every cycle, that of the
    projection of each term. Carreira-Perpiñán and Idelbayev, arXiv 2107.04380.
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
        options = checked(solver=solver, restarts=restarts, cycles=cycles, tol=tol)
        _set(self, **{"terms": terms, "restarts": None, **options})
        if solver == "exact" and not self._solvable(np.zeros(1), range(len(terms))):
            raise ValueError("solver='exact' takes a quantization whose codebook is fixed, two "
                             f"opposite values or k values, plus prune(kappa or keep), not {self}")

    def _one(self, w, mu, start):
        live = [i for i, term in enumerate(self.terms) if not term.vanishes(w)]
        if len(live) < 2:
            solved = tuple(term.project(w, mu, start and start.parts[i])
                           for i, term in enumerate(self.terms))
            only = solved[live[0] if live else 0]
            return parts.Sum(solved, only.status, only.gap)
        if self.solver != "alternate" and (pair := self._solvable(w, live)):
            return self._exact(w, *pair)
        found = [alternate(self.terms, w, mu, order, thetas, self.cycles, self.tol)
                 for order, thetas in self._starts(live, start)]
        cost, _ = _objective(self.terms, w, mu)  # traces may overflow
        with np.errstate(over="ignore", invalid="ignore"):  # so may totals: they cost ∞
            return in_range(min(found, key=lambda t: cost(t.parts, [t.decompress()])))

    _several = _one

    def _solvable(self, w, live):
        """(the corrections, the other part) where the live parts are such a pair, else ()."""
        if len(live) != 2:
            return ()
        pairs = [(j, i) for j, i in (live, live[::-1]) if self.terms[j].nonzeros(w) is not None]
        if len(pairs) != 1:
            return ()
        other, n = self.terms[pairs[0][1]], sum(map(size, leaves(w)))
        affordable = (self.solver == "exact" or other.learned <= FEW
                      or other.learned * n <= AFFORDABLE)
        return pairs[0] if other.correctable and affordable else ()

    def _exact(self, w, j, i):
        """The sum solved as part i plus the corrections j."""
        kappa, other = self.terms[j].nonzeros(w), self.terms[i]
        joined = isinstance(w, dict) and not isinstance(other, Each)
        layout = Layout.of(w) if joined else None
        solved = other.corrected(layout.join(w) if layout else w, kappa)
        corrections, rise = self.terms[j].held(solved.parts[1])
        found: Any = {i: solved.parts[0], j: corrections}
        if layout:
            found = {at: dataclasses.replace(part, layout=layout) for at, part in found.items()}
        every = (found.get(at) or term.project(w) for at, term in enumerate(self.terms))
        return parts.Sum(tuple(every), "certified" if rise else solved.status, solved.gap + rise)

    def _starts(self, live, start):
        """Pairs of the order in which the parts take turns and the θ they start from."""
        cold = [(live[i:] + live[:i], None) for i in range(len(live))]
        warm = [] if start is None else [(live, start.parts)]
        if self.restarts:
            return warm + cold
        return warm or (cold if self.restarts is None else cold[:1])

    def penalty(self, theta, mu, unit=1.0):
        return sum(term.penalty(part, mu, unit) for term, part in zip(self.terms, theta.parts))

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


class DescentError(ArithmeticError):
    """A half-step of an alternation raised its objective: a bug in a projection, not bad input."""


def alternate(terms: Sequence[Compression], w: Any, mu: float | None, order: list[int],
              thetas: Sequence[Part] | None, cycles: int, tol: float) -> parts.Sum:
    """Minimise ‖w − Σ_j Δ_j(θ_j)‖² + Σ_j penalty_j(θ_j) over one part after another, in order.

    θ_i ← argmin ‖(w − Σ_{j≠i} Δ_j(θ_j)) − Δ_i(θ_i)‖² + penalty_i(θ_i), in turn, until a cycle
    lowers the objective by at most tol of itself, or by no more than rounding. No half-step can
    raise it, because the θ_i it replaces is feasible for the same problem; a rise above rounding,
    and above the gap of a θ_i that is not claimed to be optimal, is a DescentError. A new θ_i that
    is no better leaves the old one in place.

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

    Notes
    -----
    In every cycle the cost of the projection of each term that takes turns. Carreira-Perpiñán and
    Idelbayev, arXiv 2107.04380.
    """
    weights(w)
    zero = combine(lambda t: 0 * t, w)
    found: list[Any] = list(thetas) if thetas else [
        None if i in order else term.project(w, mu) for i, term in enumerate(terms)]
    deltas = [zero if theta is None else theta.decompress() for theta in found]
    cost, unit = _objective(terms, w, mu)
    reached = cost(found, deltas)
    trace, status = [], "unconverged"
    for _ in range(cycles):
        before = reached
        for i in order:
            with np.errstate(over="ignore", invalid="ignore"):
                others = add([deltas[j] for j in order if j != i])
                residual = in_range(combine(operator.sub, w, others))
            theta = terms[i].project(residual, mu, found[i])
            reached = _half_step(w, found, deltas, i, theta, reached, cost, unit)
            trace.append(reached * unit * unit)
        if before - reached <= max(tol * reached, sum_slack(w, deltas, reached, unit)):
            status = "stationary"
            break
    return parts.Sum(tuple(found), status, math.inf, tuple(trace))


def _half_step(w, thetas, deltas, i, theta, before, cost, unit):
    """Put θ_i in place unless it is no better; return the objective. A rise is a DescentError."""
    trial, found = [*deltas], [*thetas]
    trial[i], found[i] = theta.decompress(), theta
    reached = cost(found, trial)
    gap = theta.gap / unit / unit if theta.status == "certified" else 0.0
    if reached > before and reached > before + gap + sum_slack(w, trial, before, unit):
        raise DescentError(f"part {i + 1} of a sum raised the objective from {before!r} to "
                           f"{reached!r}: its projection is not optimal; please report this")
    if reached <= before or thetas[i] is None:
        thetas[i], deltas[i] = theta, trial[i]
    return min(reached, before)


def _objective(terms, w, mu):
    """The function of (θ, Δ(θ)) that a sum minimises, in units of unit², and the unit.

    It is infinite until every part is set. The unit is a power of two that keeps the squares of
    w's entries within range.
    """
    unit = scale_of(*leaves(w))

    def cost(thetas, deltas):
        if None in thetas:
            return math.inf
        near = [combine(lambda t: wide(t) / unit, tree) for tree in (w, *deltas)]
        distance = sum(map(squared_norm, leaves(combine(operator.sub, near[0], add(near[1:])))))
        return distance + sum(t.penalty(theta, mu, unit) for t, theta in zip(terms, thetas))
    return cost, unit

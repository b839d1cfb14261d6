"""Judge one real result at full size: feasible or not, and how far from optimal at most."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import compressions
from ..inputs import real_array
from ..parts import Part, combine, leaves
from ..text import parse
from ..tolerance import objective_slack, squared_norm, wide
from .kinds import variance
from .sets import WHY, as_kind, over_the_radius
from .vectors.judge import FEASIBLE, as_joint, numerical_rank

Tree = Any  # one array, or a dict of name to array


@dataclass(frozen=True)
class Certificate:
    """What is known of one result.

    Attributes
    ----------
    feasible : bool
    reason : str
        Why it is not feasible, else "".
    objective : float
        ‖w − Δ(θ)‖² plus the penalty.
    bound : float
        A number that no feasible point undercuts.
    best : float
        The objective of the best feasible point known.
    tolerance : float
        What rounding explains.
    """

    feasible: bool
    reason: str
    objective: float
    bound: float
    best: float
    tolerance: float

    @property
    def excess(self) -> float:
        """How far above the optimum the objective is at most."""
        return max(self.objective - self.bound, 0.0)

    @property
    def optimal(self) -> bool:
        """Whether it is feasible, and proven optimal up to rounding."""
        return self.feasible and self.excess <= self.tolerance

    @property
    def beaten(self) -> bool:
        """Whether a feasible point with a lower objective is known, by more than rounding."""
        return self.objective > self.best + self.tolerance

    def __str__(self):
        lines = ["feasible: yes" if self.feasible else f"feasible: NO: {self.reason}",
                 f"objective ‖w − Δ(θ)‖²: {self.objective:.9g}",
                 f"the optimum lies between {self.bound:.9g} and {self.best:.9g}"]
        share = f" ({self.excess / self.bound:.3%})" if self.bound > 0 else ""
        if not self.feasible:
            return "\n".join(lines)
        if self.optimal:
            return "\n".join([*lines, f"optimal: yes, up to rounding ({self.tolerance:.1e})"])
        known = "NO" if self.beaten else "not known"
        return "\n".join([*lines, f"optimal: {known}; at most {self.excess:.6g} above the optimum"
                          f"{share}"])


def certify(w: Tree, theta_or_array: Any, compression: Any, mu: float | None = None) -> Certificate:
    """Judge one result of a compression at full size, without trying other inputs.

        feasible?   and   ‖w − Δ(θ)‖² − min over feasible θ' of ‖w − Δ(θ')‖² ≤ ?

    The bound is lcref's own C step, whose optimality is proven, less its gap; the sum of the
    squared singular values beyond the rank for low rank; and 0 for sums that are only alternated.
    That factors were rounded to half precision their product does not show.

    Parameters
    ----------
    w : array, or dict of name to array
        What was compressed.
    theta_or_array : part, array, dict of arrays, or tuple of these, the parts of a sum
        The result.
    compression : Compression or str
    mu : float, optional
        The penalty μ, for the penalty forms.

    Returns
    -------
    Certificate

    Raises
    ------
    ValueError
        Names or shapes differ, or something is not finite, or too large to be squared.

    Notes
    -----
    As the C step of the compression: a sort, an SVD, or for sums the alternation.
    """
    compression = parse(compression) if isinstance(compression, str) else compression
    delta, parts = _read(theta_or_array)
    delta, *given = [_named(w, tree) for tree in (delta, *(parts or []))]
    _require_squares(w, delta)
    reason = infeasible(compression, w, delta, given)
    best, bound = _optimum(compression, w, mu)
    objective = _distance(w, delta) + _penalty(compression, delta, mu, given)
    if not reason:  # it is a feasible point itself, and an alternation may have stopped above it
        best = max(min(best, objective), bound)
    tolerance = _tolerance(compression, w, delta)
    return Certificate(not reason, reason, objective, bound, best, tolerance)


def _read(answer):
    """(Δ(θ), its parts or None) of a part, of arrays, or of a tuple of parts."""
    if isinstance(answer, tuple):
        parts = [_read(one)[0] for one in answer]
        return combine(lambda *terms: sum(terms[1:], start=terms[0]), *parts), parts
    if isinstance(answer, Part):
        inner = getattr(answer, "parts", None)
        if isinstance(inner, tuple):  # a sum
            return answer.decompress(), [part.decompress() for part in inner]
        sums = {name: _read(part)[1] for name, part in inner.items()} if inner else {}
        if sums and all(sums.values()):  # a sum for each tensor: part by part
            return answer.decompress(), [dict(zip(sums, terms)) for terms in zip(*sums.values())]
        return answer.decompress(), None
    return answer, None


def _named(w, tree):
    """Δ under w's names and in their order, after a check; one tensor needs no name."""
    if isinstance(w, dict) and len(w) == 1 and not isinstance(tree, dict):
        tree = dict.fromkeys(w, tree)
    _same_shapes(w, tree)
    return {name: tree[name] for name in w} if isinstance(w, dict) else tree


def _require_squares(w, delta):
    with np.errstate(over="ignore"):  # the largest distance is that of opposite arrays
        most = 2 * (squared_norm(_flat(w)) + squared_norm(_flat(delta)))
    if math.isinf(most):
        raise ValueError("w or theta_or_array is too large to be squared: divide both by a power "
                         "of 2")


def _same_shapes(w, delta):
    if isinstance(w, dict) != isinstance(delta, dict):
        raise ValueError("w and the result must both be arrays, or both dicts of name to array")
    if isinstance(w, dict) and (missing := [name for name in w if name not in delta]):
        raise ValueError(f"the result lacks {', '.join(missing)}")
    for name in w if isinstance(w, dict) else [None]:
        one, other = (w, delta) if name is None else (w[name], delta[name])
        real_array(one, f"w[{name!r}]" if name else "w")
        real_array(other, f"theta_or_array: {name}" if name else "theta_or_array")
        if np.shape(one) != np.shape(other):
            raise ValueError(f"{name or 'the result'} has shape {np.shape(other)}, w has "
                             f"{np.shape(one)}")


def _pairs(w, delta):
    """Triples (name, w, Δ) of the tensors."""
    if not isinstance(w, dict):
        return [("", w, delta)]
    return [(name, x, delta[name]) for name, x in w.items()]


def infeasible(compression, w: Tree, delta: Tree, parts=None) -> str:
    """Why Δ(θ) is not feasible, "" where it is."""
    if isinstance(compression, compressions.Sum):
        return _infeasible_sum(compression, w, delta, parts)
    if isinstance(compression, compressions.Prune) and compression.storage == "float16" and (
            not FEASIBLE["round_to"](_flat(delta), "float16")):
        return "a value is not a half-precision number"
    if isinstance(compression, compressions.Each):
        found = [(name, infeasible(compression.inner, x, y, _part_of(parts, name)))
                 for name, x, y in _pairs(w, delta)]
    elif isinstance(compression, compressions.LowRank):
        found = [(name, _over_rank(compression, y)) for name, _, y in _pairs(w, delta)]
    elif isinstance(compression, compressions.Prune) and compression.axis is not None:
        live = sum(_nonzero_slices(y, compression.axis) for _, _, y in _pairs(w, delta))
        found = [("", WHY["group_l0_ball"] if live > compression.budget(w) else "")]
    else:
        found = [("", _in_one_set(compression, w, _flat(delta)))]
    return "; ".join(f"{name}: {why}" if name else why for name, why in found if why)


def _part_of(parts, name):
    """The parts of one tensor."""
    return [part[name] if isinstance(part, dict) else part for part in parts or ()]


def _nonzero_slices(y, axis):
    first = np.moveaxis(y, axis, 0)
    return int(np.sum(np.any(first.reshape(first.shape[0], -1), axis=1)))


def _flat(tree):
    return np.concatenate([np.ravel(x) for x in leaves(tree)])


def _in_one_set(term, w, theta):
    """Why a vector is not in the set of a compression that sees all tensors as one."""
    kind, given = as_kind(term, _flat(w))
    if kind == "l1_ball":
        return over_the_radius(_flat(w), theta, given[0])
    distinct = theta if kind == "l0_ball" else np.unique(theta)  # every other set is entry by entry
    return "" if FEASIBLE[kind](distinct, *given) else WHY[kind]


def _over_rank(term, y):
    from ..projections.lowrank import as_matrix

    if term.alpha is not None or numerical_rank(as_matrix(y, term.scheme)) <= term.rank:
        return ""
    return WHY["rank_ball"]


def _infeasible_sum(compression, w, delta, parts):
    """By its parts where they are given, else by counting what a codebook does not explain."""
    terms = compression.terms
    if parts:
        if len(parts) != len(terms):
            return f"{len(parts)} parts for a sum of {len(terms)}"
        found = [infeasible(term, w, part) for term, part in zip(terms, parts)]
        return "; ".join(f"part {i}: {why}" for i, why in enumerate(found, 1) if why)
    prune = [term for term in terms if term.nonzeros(w) is not None]
    other = [term for term in terms if term.nonzeros(w) is None]
    if len(prune) != 1 or len(other) != 1 or not other[0].correctable or (
            prune[0].storage == "float16"):
        return ("of this sum the total does not show whether each part is feasible: give the "
                "parts, a tuple in the order of the text")
    needed = _corrections(other[0], w, delta)
    kappa = prune[0].nonzeros(w)
    return "" if needed <= kappa else f"{needed} weights need a correction, κ is {kappa}"


def _corrections(other, w, delta):
    """How many weights a codebook does not explain at least."""
    if isinstance(other, compressions.Each):
        return sum(_corrections(other.inner, x, y) for _, x, y in _pairs(w, delta))
    theta = _flat(delta)
    kind, options = as_kind(other, theta)
    listed = tuple(x.tolist() if isinstance(x, np.ndarray) else x for x in options)
    name, given = as_joint([(kind, listed), ("l0_ball", (0,))]) or ("", ())
    if name == "codebook_l0":
        return int(np.sum(~np.isin(theta, np.asarray(given[0], theta.dtype))))
    values = np.abs(theta) if name == "scaled_binary_l0" else theta
    counts = np.sort(np.unique(values, return_counts=True)[1])[::-1]
    return theta.size - int(np.sum(counts[: given[0] if name == "kmeans_l0" else 1]))


def _distance(w, delta):
    return sum(squared_norm(wide(x) - wide(y)) for _, x, y in _pairs(w, delta))


def _penalty(compression, delta, mu, parts=()):
    """The price of Δ(θ), for the penalty forms; of a sum by its parts."""
    if isinstance(compression, compressions.Sum):
        return sum(_penalty(term, part, mu) for term, part in zip(compression.terms, parts))
    if isinstance(compression, compressions.Each):
        named = delta.items() if isinstance(delta, dict) else [("", delta)]
        return sum(_penalty(compression.inner, y, mu, _part_of(parts, name)) for name, y in named)
    if getattr(compression, "alpha", None) is None:
        return 0.0
    if mu is None:
        raise ValueError(f"{compression} is a penalty: it needs mu")
    price = 2 * compression.alpha / mu
    if isinstance(compression, compressions.LowRank):
        from ..projections.lowrank import as_matrix, rank_cost

        matrices = [as_matrix(x, compression.scheme) for x in leaves(delta)]
        return price * sum(rank_cost(compression.cost, sum(m.shape), compression.positions)(
            numerical_rank(m)) for m in matrices)
    theta = _flat(delta)
    return price * (math.fsum(abs(theta)) if compression.norm else np.count_nonzero(theta))


def _optimum(compression, w, mu):
    """(objective of the best feasible point known, a lower bound of all)."""
    if isinstance(compression, compressions.LowRank) and (
            compression.alpha is None and compression.storage == "float32"):
        tails = [_tail(x, compression) for x in leaves(w)]
        return sum(tails), sum(tails)
    part = compression.project(w, mu)
    delta = _named(w, part.decompress())
    best = _distance(w, delta) + compression.penalty(part, mu)
    proven = part.status in ("exact", "certified")
    return best, max(best - part.gap, 0.0) if proven else 0.0


def _tail(w, term):
    """Σ σ² beyond the rank, the optimum by the theorem of Eckart and Young."""
    from ..projections.lowrank import as_matrix
    from ..svd import decompose

    matrix = wide(as_matrix(w, term.scheme))
    values = decompose(matrix)[1]
    return float(np.sum(values[term.rank:] ** 2))


def _tolerance(compression, w, delta):
    """The published constant, twice: for this answer and for the one that it is compared with."""
    x, y = _flat(w), _flat(delta).astype(_flat(w).dtype)
    learned = _learned(compression)
    return 2 * objective_slack(x, y, spread=_spread(compression, w, delta), stationary=learned)


def _learned(compression):
    """Whether the answer is made of means, so that the first-order term is left out."""
    if isinstance(compression, compressions.Each):
        return _learned(compression.inner)
    if isinstance(compression, compressions.Sum):
        live = [term for term in compression.terms if not isinstance(term, compressions.Prune)]
        return len(live) == 1 and _learned(live[0])
    return getattr(compression, "k", None) is not None


def _spread(compression, w, delta, corrected=False):
    """D of the constant: centred where means are learned, or cancellation would be excused.

    Of a sum with corrections over all entries, the corrected ones too: an upper bound.
    """
    if isinstance(compression, compressions.Each):
        return sum(_spread(compression.inner, x, y, corrected) for _, x, y in _pairs(w, delta))
    if isinstance(compression, compressions.Sum):
        live = [term for term in compression.terms if not isinstance(term, compressions.Prune)]
        if len(live) == 1:
            return _spread(live[0], w, delta, corrected=True)
    x, y = _flat(w), _flat(delta)
    if _learned(compression):
        return variance(wide(x))
    if corrected and getattr(compression, "scale", False):
        return variance(wide(abs(x)))
    return squared_norm(x) + squared_norm(y)


__all__ = ["Certificate", "certify"]

"""The optimum of every problem in exact arithmetic, with what proves it, for inputs of any size.

Every function takes w and the parameters and returns a Found: the least objective as a Fraction,
whether only one θ attains it, and a certificate that a reader can evaluate. They share no code with
the projections. Where `lcref.verify.oracles` can search a problem exhaustively the generator holds
the two equal.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import accumulate, combinations, groupby
from typing import Any

import numpy as np

from ..oracles import kmeans_l0_runs, price, representable

DIGITS = 160  # decimal digits of the singular values' squares
NOISE = Decimal(10) ** -100  # a square below this share of their sum is a zero one
EQUAL = Decimal(10) ** -60  # two that differ by less than this share are equal


@dataclass(frozen=True)
class Found:
    """The least objective; whether one θ alone attains it (None: not known); what proves it."""

    optimum: Fraction
    unique: bool | None
    certificate: dict[str, Any] = field(default_factory=dict)


def fractions(w: Any) -> list[Fraction]:
    """The entries of w, exactly."""
    return [Fraction(float(x)) for x in np.ravel(w)]


def dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    """⟨a, b⟩."""
    return sum((p * q for p, q in zip(a, b)), Fraction(0))


def rounded(x: Fraction) -> str:
    """The hex text of the double nearest to x."""
    return float(x).hex()


# ---- the weights do not interact


def separable(w: Any, choices: Callable[[Fraction], Iterable[tuple[Fraction, Fraction]]]) -> Found:
    """The sum of each weight's least cost among its choices, pairs (cost, θ_i)."""
    total, unique = Fraction(0), True
    for x in fractions(w):
        costs = list(choices(x))
        least = min(cost for cost, _ in costs)
        total += least
        unique = unique and len({value for cost, value in costs if cost == least}) == 1
    return Found(total, unique, {"how": "separable"})


def entries(codebook: Any) -> Callable:
    """The choices of a codebook: each entry at its squared distance."""
    values = fractions(codebook)
    return lambda x: (((x - c) ** 2, c) for c in values)


def nearest(w: Any, codebook: Any) -> Found:
    """θ_i ∈ C."""
    return separable(w, entries(codebook))


def powers(c: int) -> list[float]:
    """0 and ±2⁻ⁱ, i = 0..c, ascending."""
    positive = [2.0**-i for i in range(c, -1, -1)]
    return [-x for x in reversed(positive)] + [0.0] + positive


def powers_of_two(w: Any, c: int) -> Found:
    """θ_i ∈ {0, ±2⁰, .., ±2⁻ᶜ}."""
    return nearest(w, powers(c))


def round_to(w: Any, dtype: str) -> Found:
    """θ_i representable in a floating dtype, or an N-bit integer times a free scale."""
    if dtype.startswith("int"):
        half = 2 ** (int(dtype[3:]) - 1)
        return scaled_codebook(w, range(-half, half))
    numbers = representable(dtype)

    def neighbours(x):
        i = bisect_left(numbers, x)
        return entries(numbers[max(i - 1, 0): i + 1])(x)

    return separable(w, neighbours)


def l0_penalty(w: Any, alpha: float, mu: float) -> Found:
    """A price 2α/μ on every nonzero: each weight is kept or dropped."""
    each = price(alpha, mu)
    return separable(w, lambda x: [(x * x, Fraction(0)), (each if x else Fraction(0), x)])


def l1_penalty(w: Any, alpha: float, mu: float) -> Found:
    """A price 2α/μ on ‖θ‖₁: each weight's problem is strictly convex."""
    each = price(alpha, mu)

    def points(x):
        stationary = max(x - each / 2, Fraction(0)), min(x + each / 2, Fraction(0))
        return [((x - t) ** 2 + each * abs(t), t) for t in (Fraction(0), *stationary)]

    return separable(w, points)


# ---- a budget of κ, each item at a cost of its own: a price for one more item is the dual


def dearest(costs: list[Fraction], kappa: int) -> tuple[Fraction, bool, int | None]:
    """(Σ of all but the κ dearest, whether one choice of those is best, which one sets the price).

    With the price p of that item, Σ min(cost, p) − κ·p equals the first.
    """
    order = sorted(range(len(costs)), key=lambda i: -costs[i])
    left = sum((costs[i] for i in order[kappa:]), Fraction(0))
    if not 0 < kappa < len(costs):
        return left, True, order[0] if order and not kappa else None
    last, first_out = order[kappa - 1], order[kappa]
    return left, costs[last] != costs[first_out] or not costs[last], last


def l0_ball(w: Any, kappa: int) -> Found:
    """At most κ nonzeros."""
    left, unique, of = dearest([x * x for x in fractions(w)], kappa)
    return Found(left, unique, {"how": "price", "of": of})


def group_l0_ball(w: Any, kappa: int, axis: int) -> Found:
    """At most κ nonzero slices."""
    slices = [np.take(w, i, axis=axis) for i in range(w.shape[axis])]
    norms = [sum((x * x for x in fractions(s)), Fraction(0)) for s in slices]
    left, unique, of = dearest(norms, kappa)
    return Found(left, unique, {"how": "price", "of": of})


def codebook_l0(w: Any, codebook: Any, kappa: int) -> Found:
    """A fixed codebook plus at most κ corrections."""
    each = [separable([x], entries(codebook)) for x in np.ravel(w)]
    costs = [found.optimum for found in each]
    left, unique, of = dearest(costs, kappa)
    limit = sorted(costs, reverse=True)[kappa] if kappa < len(costs) else None
    clear = all(f.unique for f in each if limit is not None and f.optimum <= limit)
    return Found(left, unique and clear, {"how": "price", "of": of})


def l1_ball(w: Any, radius: float) -> Found:
    """‖θ‖₁ ≤ r: at the multiplier τ the Lagrangian's least value is the optimum."""
    magnitudes = sorted(map(abs, fractions(w)), reverse=True)
    r, tau = Fraction(float(radius)), Fraction(0)
    if sum(magnitudes) > r:
        tau = max((total - r) / j for j, total in enumerate(accumulate(magnitudes), start=1))
    return Found(sum((min(x, tau) ** 2 for x in magnitudes), Fraction(0)), True,
                 {"how": "dual", "tau": rounded(tau)})


# ---- a codebook with a free scale


def scaled_codebook(w: Any, codebook: Any) -> Found:
    """θ ∈ a·Cⁿ, a ≥ 0 free: all assignments that are nearest for some a, each at its best scale.

    Between two of the breakpoints w_i / midpoint of C the nearest assignment stays the same, so one
    scale in each gap is tried. An assignment saves P²/Q, P = Σ w_i c_i > 0, Q = Σ c_i².
    """
    x, c = fractions(w), fractions(codebook)
    middles = [(a + b) / 2 for a, b in zip(c, c[1:])]
    best, scales = Fraction(0), {(Fraction(0),) * len(x)}
    for a in gaps({v / m for v in x for m in middles if v * m > 0}):
        chosen = [c[bisect_left(middles, v / a)] for v in x]
        p, q = dot(x, chosen), dot(chosen, chosen)
        saved = p * p / q if p > 0 else Fraction(0)
        if saved > best:
            best, scales = saved, set()
        if saved and saved == best:
            scales.add(tuple(p / q * s for s in chosen))
    least = sorted(map(abs, c))
    either = best > 0 and 0 in x and least[:1] == least[1:2]  # ±c are nearest to a zero
    a = max((max(map(abs, theta), default=Fraction(0)) for theta in scales), default=Fraction(0))
    return Found(sum((v * v for v in x), Fraction(0)) - best, len(scales) == 1 and not either,
                 {"how": "scales", "largest": rounded(a)})


def gaps(breakpoints: set[Fraction]) -> list[Fraction]:
    """A number in each gap between positive numbers, and beyond both ends."""
    ordered = sorted(breakpoints) or [Fraction(1)]
    inner = [(a + b) / 2 for a, b in zip(ordered, ordered[1:])]
    return [ordered[0] / 2, *inner, ordered[-1] * 2]


def binary(w: Any, scale: bool) -> Found:
    """θ ∈ {−1,1}ⁿ, or {−a,a}ⁿ."""
    return (scaled_codebook if scale else nearest)(w, (-1.0, 1.0))


def ternary(w: Any, scale: bool) -> Found:
    """θ ∈ {−1,0,1}ⁿ, or {−a,0,a}ⁿ."""
    return (scaled_codebook if scale else nearest)(w, (-1.0, 0.0, 1.0))


# ---- clusters


def spread(x: list[Fraction]) -> Fraction:
    """‖x − mean x‖²."""
    return sum((v * v for v in x), Fraction(0)) - sum(x, Fraction(0)) ** 2 / max(len(x), 1)


def runs(x: list[Fraction]) -> list[list[Fraction]]:
    """The sorted numbers, equal ones together."""
    return [list(group) for _, group in groupby(sorted(x))]


def clusters(x: list[Fraction], k: int) -> tuple[Fraction, bool, list[int]]:
    """(least distortion, whether one clustering attains it, where its clusters start).

    Dynamic programming over the last cut between distinct values; an optimum with fewer than k
    clusters exists only where the values are fewer. The starts count the sorted entries.
    """
    groups = runs(x)
    d, k = len(groups), min(k, len(groups))
    ends = [0, *accumulate(map(len, groups))]
    ordered = sorted(x)
    cost = {(i, j): spread(ordered[ends[i]: ends[j]]) for i, j in combinations(range(d + 1), 2)}
    layer: dict[int, tuple[Fraction, bool, list[int]]] = {0: (Fraction(0), True, [])}
    for _ in range(k):
        layer = {j: best_cut(layer, cost, ends, j) for j in range(1, d + 1) if min(layer) < j}
    return layer[d]


def best_cut(layer, cost, ends, j):
    """The best way to end a cluster after the first j values, for each way to start it."""
    ways = {i: before[0] + cost[i, j] for i, before in layer.items() if i < j}
    least = min(ways.values())
    starts = [i for i, value in ways.items() if value == least]
    i = starts[0]
    return least, len(starts) == 1 and layer[i][1], [*layer[i][2], ends[i]]


def kmeans(w: Any, k: int) -> Found:
    """At most k distinct values."""
    optimum, unique, starts = clusters(fractions(w), k)
    return Found(optimum, unique, {"how": "cuts", "starts": starts})


def kept_cluster(x: list[Fraction], kept: tuple[int, ...], k: int) -> tuple:
    """(least distortion of the kept entries, whether unique, θ with the others corrected)."""
    inside = [x[i] for i in kept]
    cost, unique, starts = clusters(inside, k)
    ordered, theta = sorted(inside), list(x)
    for i, j in zip(starts, [*starts[1:], len(ordered)]):
        for at in (at for at in kept if ordered[i] <= x[at] <= ordered[j - 1]):
            theta[at] = sum(ordered[i:j], Fraction(0)) / (j - i)
    return cost, unique, tuple(theta)


def kmeans_l0(w: Any, k: int, kappa: int) -> Found:
    """K-means plus at most κ corrections: all supports for small w, else runs of the sorted data.

    The second way gives the optimum alone; the generator adds the positions that attain it.
    """
    x, kappa = fractions(w), min(kappa, np.size(w))
    if len(x) > 9:
        return Found(kmeans_l0_runs(w, k, kappa)[-1], None, {"how": "runs"})
    found = [(kept, *kept_cluster(x, kept, k))
             for kept in combinations(range(len(x)), len(x) - kappa)]
    optimum = min(cost for _, cost, _, _ in found)
    best = [(kept, unique, theta) for kept, cost, unique, theta in found if cost == optimum]
    one = len({theta for *_, theta in best}) == 1 and all(unique for _, unique, _ in best)
    corrected = sorted(set(range(len(x))) - set(best[0][0]))
    return Found(optimum, one, {"how": "runs", "corrected": corrected})


def scaled_binary_l0(w: Any, kappa: int) -> Found:
    """{−a,a}ⁿ plus at most κ corrections: all windows of the sorted magnitudes."""
    x = fractions(w)
    order = sorted(range(len(x)), key=lambda i: abs(x[i]))
    m, size = [abs(x[i]) for i in order], max(len(x) - kappa, 0)
    if size == 0:
        return Found(Fraction(0), True, {"how": "windows", "first": 0})
    costs = [spread(m[i: i + size]) for i in range(len(x) - size + 1)]
    best = [i for i, cost in enumerate(costs) if cost == min(costs)]
    thetas = [window_theta(m, i, size) for i in best]
    unique = not min(costs) or (len(set(thetas)) == 1 and thetas[0][1])
    return Found(min(costs), unique, {"how": "windows", "first": best[0]})


def window_theta(m, first, size):
    """abs(θ) of a window of sorted magnitudes, and whether another θ costs the same."""
    a = sum(m[first: first + size]) / size
    edges = [(first - 1, first), (first + size - 1, first + size)]
    tied = any(m[i] == m[j] != a for i, j in edges if 0 <= i and j < len(m))
    return (*m[:first], *[a] * size, *m[first + size:]), not tied and not (m[first] == 0 < a)


# ---- low rank


def squares(w: Any) -> list[Decimal]:
    """The squared singular values, descending, to about 100 digits of their sum.

    The Gram matrix on the shorter side is exact; its eigenvalues by Jacobi's rotations in decimals.
    """
    w = w if w.shape[0] <= w.shape[1] else w.T
    with localcontext(prec=DIGITS, Emax=999999, Emin=-999999):
        rows = [[Decimal(float(x)) for x in row] for row in w]
        with localcontext(prec=5000):
            gram = [[sum((a * b for a, b in zip(p, q)), Decimal(0)) for q in rows] for p in rows]
        total = sum((gram[i][i] for i in range(len(gram))), Decimal(0))
        while any(abs(gram[i][j]) > total * NOISE / 100 for i, j in combinations(range(len(w)), 2)):
            for i, j in combinations(range(len(w)), 2):
                rotate(gram, i, j)
        found = sorted((gram[i][i] for i in range(len(w))), reverse=True)
        return [s if s > total * NOISE else Decimal(0) for s in found]


def rotate(a, p, q):
    """One Jacobi rotation of a symmetric matrix: a[p][q] becomes zero."""
    if not a[p][q]:
        return
    half = (a[q][q] - a[p][p]) / (2 * a[p][q])
    t = (1 if half >= 0 else -1) / (abs(half) + (half * half + 1).sqrt())
    c = 1 / (t * t + 1).sqrt()
    s = t * c
    for row in a:
        row[p], row[q] = c * row[p] - s * row[q], s * row[p] + c * row[q]
    up, uq = a[p], a[q]
    a[p] = [c * x - s * y for x, y in zip(up, uq)]
    a[q] = [s * x + c * y for x, y in zip(up, uq)]


def tails(values: list[Decimal]) -> list[Fraction]:
    """Σ of all but the r largest, for r = 0, 1, .., all."""
    return [sum(map(Fraction, values[r:]), Fraction(0)) for r in range(len(values) + 1)]


def is_one(values: list[Decimal], rank: int) -> bool:
    """Whether the r largest squares are one choice: the next is smaller, or zero."""
    if not 0 < rank < len(values):
        return True
    with localcontext(prec=DIGITS):
        gap = values[rank - 1] - values[rank]
        return not values[rank - 1] or gap > EQUAL * values[rank - 1]


def sigma(values: list[Decimal]) -> list[str]:
    """The singular values, each as the nearest double."""
    with localcontext(prec=DIGITS):
        return [float(s.sqrt()).hex() for s in values]


def rank_ball(w: Any, rank: int) -> Found:
    """rank(θ) ≤ r."""
    values = squares(w)
    optimum = tails(values)[min(rank, len(values))]
    return Found(optimum, is_one(values, rank),
                 {"how": "singular_values", "sigma": sigma(values)})


def rank_selection(w: Any, alpha: float, mu: float, cost: str) -> Found:
    """A price 2α/μ on r·(m + n), r free."""
    values, each = squares(w), price(alpha, mu) * sum(w.shape)
    totals = [tail + each * r for r, tail in enumerate(tails(values))]
    optimum = min(totals)
    close = [r for r, total in enumerate(totals) if total - optimum <= optimum / 10**60]
    used = {min(r, sum(s > 0 for s in values)) for r in close}
    return Found(optimum, len(used) == 1 and is_one(values, min(used)),
                 {"how": "singular_values", "sigma": sigma(values), "rank": close[0]})

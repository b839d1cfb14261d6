"""Optimal values found by exhaustive search, to judge the projections against.

Every function returns the least possible ‖w − θ‖² over the feasible θ, plus the penalty where the
problem has one, never θ itself, because the optimum may be reached at many points. Nothing of lcref
is imported, and no idea of the fast algorithms is used: no sorting, no thresholds, no prefix sums,
unless the docstring says so. A float is an integer times a power of two, so the searches run on
Python integers and their answer, a Fraction, is exact. The few that are not exact say how far off
they can be.

Arguments: w is a NumPy array or a sequence of floats of at most double precision, read as one
vector (`rank_ball`: a matrix). The searches take exponential time: n up to about 8.
"""

import math
import struct
from bisect import bisect_left
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, combinations, product

import numpy as np


def integers(w):
    """Write the floats w as integers times one common power of two: (list of int, Fraction)."""
    ratios = [float(x).as_integer_ratio() for x in np.ravel(w)]
    common = max((denominator for _, denominator in ratios), default=1)
    return [top * (common // bottom) for top, bottom in ratios], Fraction(1, common)


def kmeans(w, k):
    """Search all ways to give w at most k distinct values.

        min over θ of ‖w − θ‖²   subject to   θ has at most k distinct values

    Exhaustive: a feasible θ splits the positions into at most k blocks of equal value, and the best
    value of a block is its mean. The block of the first position left is any set that holds it, the
    others are split in the same way: each set partition occurs once, contiguous or not. Exact.
    """
    x, unit = integers(w)

    @lru_cache(maxsize=None)
    def cost(block):
        inside = [value for i, value in enumerate(x) if block >> i & 1]
        size = len(inside)
        return Fraction(size * sum(v * v for v in inside) - sum(inside) ** 2, max(size, 1))

    @lru_cache(maxsize=None)
    def best(left, k):
        if k == 1 or left == 0:
            return cost(left)
        first = left & -left
        others = companions = left ^ first
        found = cost(left)
        while companions:  # every proper subset of the others, the empty one last
            companions = (companions - 1) & others
            found = min(found, cost(first | companions) + best(others ^ companions, k - 1))
        return found

    return best((1 << len(x)) - 1, k) * unit**2


def kmeans_intervals(w, k):
    """Solve K-means by the plain dynamic programme over intervals of the sorted data.

        min over θ of ‖w − θ‖²   subject to   θ has at most k distinct values

    Exhaustive: in one dimension the clusters of an optimum are intervals of the sorted data, and
    all last cuts are tried for all prefixes, O(n² k); n up to a few thousand. Centred and in
    longdouble: off by at most 4·n·eps(longdouble)·‖w − mean w‖².
    """
    x = np.sort(np.ravel(w)).astype(np.longdouble)
    n = x.size
    if n == 0:
        return Fraction(0)
    exponent = int(np.frexp(np.max(np.abs(x)))[1])
    x = np.ldexp(x, -exponent)
    x = x - np.mean(x)
    sums = np.concatenate([[0], np.cumsum(x)])
    squares = np.concatenate([[0], np.cumsum(x * x)])
    length = np.arange(n + 1) - np.arange(n + 1)[:, None]  # [i, j]: size of cluster i..j-1
    cost = squares - squares[:, None] - (sums - sums[:, None]) ** 2 / np.where(length, length, 1)
    cost = np.where(length < 0, np.inf, np.maximum(cost, 0))
    best = cost[0]
    for _ in range(min(k, n) - 1):
        best = np.min(best[:, None] + cost, axis=0)
    return Fraction(*best[n].as_integer_ratio()) * Fraction(4) ** exponent


def patterns(w, levels, scale):
    """Search all assignments of integer levels to positions, each with its best scale.

        min over θ of ‖w − θ‖²   subject to   θ ∈ a·levelsⁿ,   a = 1, or a ≥ 0 free

    Exhaustive: all len(levels)ⁿ patterns s. The best scale of one, a = max(0, ⟨s, w⟩) / ‖s‖²,
    leaves ‖w‖² − max(0, ⟨s, w⟩)² / ‖s‖². Exact.
    """
    x, unit = integers(w)
    one = unit.denominator

    def cost(s):
        if not scale:
            return sum((value - level * one) ** 2 for value, level in zip(x, s))
        along = max(0, sum(value * level for value, level in zip(x, s)))
        return norm - Fraction(along**2, max(1, sum(level * level for level in s)))

    norm = sum(value * value for value in x)
    return min(cost(s) for s in product(levels, repeat=len(x))) * unit**2


def binary(w, scale):
    """Search all sign patterns: θ ∈ {−1,1}ⁿ, or {−a,a}ⁿ with a ≥ 0 free if `scale`. Exact."""
    return patterns(w, (-1, 1), scale)


def ternary(w, scale):
    """Search all patterns of −1, 0, 1: θ ∈ {−1,0,1}ⁿ, or {−a,0,a}ⁿ, a ≥ 0, if `scale`. Exact."""
    return patterns(w, (-1, 0, 1), scale)


def nearest(w, codebook):
    """Search all entries for each weight: θ ∈ Cⁿ. Exact, for the codebook as given: round it first.

    Exhaustive: the weights do not interact.
    """
    return codebook_l0(w, codebook, 0)


def powers_of_two(w, c):
    """Search all of {0, ±1, ±1/2, ..., ±2⁻ᶜ} for each weight. Exact."""
    powers = [math.ldexp(sign, -i) for i in range(c + 1) for sign in (-1, 1)]
    return nearest(w, [0.0, *powers])


def scaled_codebook(w, codebook):
    """Search all patterns of codebook entries, each with its best scale: θ ∈ a·Cⁿ, a ≥ 0. Exact.

    The entries may be written as integers times one unit, which the free scale takes in.
    """
    return patterns(w, integers(codebook)[0], True)


@lru_cache(maxsize=None)
def representable(dtype):
    """List all finite numbers of a 16-bit floating dtype, ascending, by decoding all bit patterns.

    A bfloat16 is the upper half of a float32.
    """
    every = range(2**16)
    if dtype == "float16":
        numbers = [struct.unpack("<e", struct.pack("<H", bits))[0] for bits in every]
    else:
        numbers = [struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in every]
    return sorted({x for x in numbers if math.isfinite(x)})


def round_to(w, dtype):
    """Compare the two representable neighbours of each weight, or search all patterns for intN.

        min over θ of ‖w − θ‖²   subject to   θ_i finite in dtype,  or  θ_i ∈ a·{−2ᴺ⁻¹..2ᴺ⁻¹−1}

    Exhaustive: only the numbers beside w_i in the list of all finite ones can be nearest; beyond
    its ends, the last one. Exact.
    """
    if dtype.startswith("int"):
        half = 2 ** (int(dtype.removeprefix("int")) - 1)
        return scaled_codebook(w, range(-half, half))
    numbers, total = representable(dtype), Fraction(0)
    for x in map(float, np.ravel(w)):
        i = bisect_left(numbers, x)
        total += min((Fraction(x) - Fraction(c)) ** 2 for c in numbers[max(i - 1, 0): i + 1])
    return total


def corrected(w, kappa, optimum):
    """Search all supports of a sum with an l0 part.

        min over θ, s of ‖w − θ − s‖²   subject to   θ feasible,   ‖s‖₀ ≤ κ

    where `optimum(kept)` is the least value of θ's problem on the positions that s leaves alone.
    Exhaustive: all supports of min(κ, n) positions (a smaller one is inside one of them, and costs
    no less); on its support s repairs everything, so those positions do not count. As exact as
    `optimum`, whose feasible set must not depend on n.
    """
    w = [float(x) for x in np.ravel(w)]
    return min(optimum(kept) for kept in combinations(w, max(len(w) - kappa, 0)))


def l0_ball(w, kappa):
    """Search all supports: ‖θ‖₀ ≤ κ, the cost is Σ w² over the positions left out. Exact."""
    return corrected(w, kappa, lambda kept: sum((Fraction(x) ** 2 for x in kept), Fraction(0)))


def price(alpha, mu):
    """2α/μ, exactly."""
    return 2 * Fraction(float(alpha)) / Fraction(float(mu))


def l0_penalty(w, alpha, mu):
    """Search all supports: Σ w² over the positions left out, plus (2α/μ)‖θ‖₀. Exact."""
    each = price(alpha, mu)
    return min(l0_ball(w, kappa) + each * kappa for kappa in range(np.size(w) + 1))


def l1_penalty(w, alpha, mu):
    """Search the signs of each weight: ‖w − θ‖² + (2α/μ)‖θ‖₁.

    Exhaustive: the weights do not interact, and an optimal θ_i is 0 or, with its sign s, the
    stationary point of (w_i − θ)² + (2α/μ)·s·θ, where that has the sign s. Exact.
    """
    each = price(alpha, mu)

    def best(x):
        points = [0, max(x - each / 2, 0), min(x + each / 2, 0)]
        return min((x - point) ** 2 + each * abs(point) for point in points)

    return sum((best(Fraction(float(x))) for x in np.ravel(w)), Fraction(0))


def group_l0_ball(w, kappa, axis):
    """Search all sets of slices: at most κ slices of θ along the axis are not zero.

    Exhaustive: the cost is Σ w² over the slices left out, n − κ of them or none. Exact.
    """
    w = np.asarray(w)
    costs = [l0_ball(np.take(w, i, axis=axis), 0) for i in range(w.shape[axis])]
    left_out = combinations(costs, max(len(costs) - kappa, 0))
    return min(sum(dropped, Fraction(0)) for dropped in left_out)


def kmeans_l0(w, k, kappa):
    """Search supports times set partitions: θ has at most k values, plus κ corrections. Exact."""
    return corrected(w, kappa, lambda kept: kmeans(kept, k))


def scaled_binary_l0(w, kappa):
    """Search supports times sign patterns: θ ∈ {−a,a}ⁿ, a ≥ 0, plus κ corrections. Exact."""
    return corrected(w, kappa, lambda kept: binary(kept, True))


def codebook_l0(w, codebook, kappa):
    """Search supports times codebook entries: θ ∈ Cⁿ, plus κ corrections.

    Exhaustive: with the support fixed the positions do not interact, and each tries every entry of
    the codebook C. Exact, for the codebook as given: round it to w's dtype first.
    """
    entries = [Fraction(float(c)) for c in np.ravel(codebook)]

    def nearest(kept):
        return sum((min((Fraction(x) - c) ** 2 for c in entries) for x in kept), Fraction(0))

    return corrected(w, kappa, nearest)


def shared(curves, kappa):
    """Search all ways to share κ corrections among arrays, each with a θ of its own.

        f(m) = min over κ_1 + ... + κ_T ≤ m of Σ_t f_t(κ_t)

    Returns the list f(0), .., f(κ). The list curves[t] = [f_t(0), f_t(1), ..] holds one array's
    least values with at most so many corrections, the last one for all larger numbers too.
    Exhaustive: every share of the last array is tried with the best of the arrays before it. As
    exact as the curves.
    """
    best = [Fraction(0)] * (kappa + 1)  # best[i]: i corrections for the arrays so far
    for f in curves:
        best = [min(best[i - j] + f[j] for j in range(min(i + 1, len(f))))
                for i in range(kappa + 1)]
    return best


def cost_of_run(x):
    """Give the function (i, j) → ‖x − mean x‖² · (j − i) of the integers x_i .. x_{j−1}. Exact."""
    sums = list(accumulate(x, initial=0))
    squares = list(accumulate((v * v for v in x), initial=0))
    return lambda i, j: (j - i) * (squares[j] - squares[i]) - (sums[j] - sums[i]) ** 2


def kmeans_l0_runs(w, k, kappa):
    """Solve K-means with 0, 1, .., κ corrections by dynamic programming over the sorted data.

        f(m) = min over θ, s of ‖w − θ − s‖²,   θ has at most k distinct values,   ‖s‖₀ ≤ m

    Returns the list f(0), .., f(min(κ, n)). Exhaustive: every kept value goes to its nearest entry,
    so clusters do not interleave, and a corrected value between two kept ones of a cluster can
    change places with the end of the cluster that is farther from the entry, at no cost. So the
    clusters of some optimum are runs of the sorted data. The last of the first j values is either
    corrected or the end of a run i .. j−1, for any i: all are tried, O(n² k κ), n up to about 150.
    Exact, in integers: the least common multiple of 1..n clears the denominators.
    """
    x, unit = integers(np.sort(np.ravel(w)))
    n, cost = len(x), cost_of_run(x)
    kappa, common = min(kappa, n), math.lcm(*range(1, n + 1))
    beyond = common * (1 + sum(v * v for v in x))  # more than any clustering costs
    run = np.zeros((n + 1, n + 1), dtype=object)  # [i, j]: the cost of i .. j−1, none at i = j
    for i, j in combinations(range(n + 1), 2):
        run[i, j] = cost(i, j) * (common // (j - i))
    best = np.full((kappa + 1, n + 1), beyond, dtype=object)  # [m, j]: first j values, m corrected
    for m in range(kappa + 1):
        best[m, : m + 1] = 0  # with no cluster
    for _ in range(min(k, n)):
        before, best = best, np.empty_like(best)
        for j in range(n + 1):
            best[:, j] = np.min(before[:, : j + 1] + run[: j + 1, j], axis=1)
            if j:
                best[1:, j] = np.minimum(best[1:, j], best[:-1, j - 1])
    return [Fraction(value, common) * unit**2 for value in best[:, n]]


def scaled_binary_l0_windows(w, kappa):
    """Solve scaled binary with 0, 1, .., κ corrections by trying all windows of abs(w).

        f(m) = min over θ, s of ‖w − θ − s‖²,   θ ∈ {−a,a}ⁿ, a ≥ 0,   ‖s‖₀ ≤ m

    Returns the list f(0), .., f(min(κ, n)). Exhaustive: with the sign of w_i, θ_i costs
    (abs(w_i) − a)², so a kept set costs the squared distance of its magnitudes to their mean, which
    is a feasible a. A corrected magnitude inside the span of the kept ones can change places with
    the end that is farther from a, at no cost, so some optimum keeps consecutive ones of the
    sorted magnitudes; all windows of n − m are tried, O(n²). Exact.
    """
    x, unit = integers(np.sort(np.abs(np.ravel(w))))
    n, cost = len(x), cost_of_run(x)
    least = [min(cost(i, i + n - m) for i in range(m + 1)) for m in range(min(kappa, n) + 1)]
    return [Fraction(value, max(n - m, 1)) * unit**2 for m, value in enumerate(least)]


def l1_ball(w, radius):
    """Search all faces of the l1 ball.

        min over θ of ‖w − θ‖²   subject to   ‖θ‖₁ ≤ r

    Exhaustive: a w outside the ball projects onto its boundary, into the relative interior of one
    face, given by the signs s ∈ {−1,0,1}ⁿ of θ. There θ is also the nearest point of the plane
    through the face, w_i − s_i·t on the support with t = (⟨s, w⟩ − r)/|s|. All 3ⁿ − 1 faces are
    tried, and the nearest points that are not in their face are dropped. Exact.
    """
    (*x, r), unit = integers([*np.ravel(w), radius])
    if sum(map(abs, x)) <= r:
        return Fraction(0)
    best = Fraction(sum(value * value for value in x))
    for s in product((-1, 0, 1), repeat=len(x)):
        size = sum(map(abs, s))
        excess = sum(sign * value for sign, value in zip(s, x)) - r  # t · size
        if size and all(sign * value * size >= excess for sign, value in zip(s, x) if sign):
            dropped = sum(value * value for sign, value in zip(s, x) if sign == 0)
            best = min(best, Fraction(excess**2, size) + dropped)
    return best * unit**2


def l1_ball_dual(w, radius, tau):
    """Bound the l1 ball's problem from below, for any n, by its Lagrangian at the multiplier τ.

        min over θ of ‖w − θ‖² + 2τ(‖θ‖₁ − r)   ≤   min over ‖θ‖₁ ≤ r of ‖w − θ‖²

    for every τ ≥ 0, with equality at the best τ (strong duality: the problem is convex). The left
    side separates: w² where abs(w) ≤ τ, else 2τ·abs(w) − τ². Exact, whatever τ.
    """
    (*x, r, t), unit = integers([*np.ravel(w), radius, tau])
    total = sum(v * v if abs(v) <= t else 2 * t * abs(v) - t * t for v in x)
    return (total - 2 * t * r) * unit**2


def l1_ball_root(w, radius):
    """Solve the l1 ball's problem for any n: Brent's method for τ, then the dual bound.

    A lower bound of the optimum, exactly; below it by at most about n·(1e-15·max abs(w))², since
    the dual is stationary at the root of Σ max(abs(w) − τ, 0) = r.
    """
    from scipy.optimize import brentq

    (*x, limit), _ = integers([*np.ravel(w), radius])
    if sum(map(abs, x)) <= limit:
        return Fraction(0)
    magnitudes = np.abs(np.ravel(w)).astype(np.float64)
    exponent = int(np.frexp(np.max(magnitudes))[1])
    magnitudes, r = np.ldexp(magnitudes, -exponent), math.ldexp(radius, -exponent)

    def excess(tau):
        return math.fsum(np.maximum(magnitudes - tau, 0)) - r

    # at a radius within rounding of ‖w‖₁ the sum may miss the sign change: then τ is 0
    tau = brentq(excess, 0.0, 1.0, xtol=1e-300, rtol=1e-15) if excess(0.0) > 0 else 0.0
    return l1_ball_dual(w, radius, math.ldexp(tau, exponent))


def rank_ball(w, rank):
    """Sum the squares of all but the `rank` largest singular values.

        min over θ of ‖w − θ‖²   subject to   rank(θ) ≤ r

    The sum is the optimum by the theorem of Eckart and Young. The singular values come from no
    LAPACK routine: pairs of columns are rotated until all are orthogonal (one-sided Jacobi), then
    they are the columns' norms. In longdouble: off by at most 8·m·n·eps(longdouble)·‖w‖².
    """
    w = np.asarray(w, dtype=np.longdouble)
    exponent = int(np.frexp(np.max(np.abs(w), initial=0.0))[1])
    a = np.ldexp(w if w.shape[0] >= w.shape[1] else w.T, -exponent)
    small = a.shape[0] * np.finfo(np.longdouble).eps
    for _ in range(60):  # sweeps; about 8 are enough, convergence is quadratic
        rotated = False
        for p, q in combinations(range(a.shape[1]), 2):
            x, y = a[:, p].copy(), a[:, q].copy()
            inner, bound = x @ y, small * np.sqrt(x @ x) * np.sqrt(y @ y)
            if abs(inner) > bound:
                half = (y @ y - x @ x) / (2 * inner)
                tangent = np.copysign(1 / (abs(half) + np.hypot(1, half)), half)
                cosine = 1 / np.hypot(1, tangent)
                a[:, p], a[:, q] = cosine * (x - tangent * y), cosine * (tangent * x + y)
                rotated = True
        if not rotated:
            break
    squares = np.sort(np.sum(a * a, axis=0))
    tail = np.sum(squares[: max(squares.size - rank, 0)])
    return Fraction(*tail.as_integer_ratio()) * Fraction(4) ** exponent


def rank_selection(w, alpha, mu, cost):
    """Search all ranks: the tail beyond r, plus (2α/μ)·cost(r) for a function of r.

    As exact as `rank_ball`.
    """
    ranks = range(min(np.shape(w)) + 1)
    return min(rank_ball(w, r) + price(alpha, mu) * Fraction(cost(r)) for r in ranks)

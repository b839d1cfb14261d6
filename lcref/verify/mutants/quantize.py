"""Wrong projections onto codebooks, and the right ones that they are variations of."""

import numpy as np

from . import mutant


def nearest_entries(w, codebook):
    """The entry of the codebook nearest to each weight."""
    codebook = np.asarray(codebook)
    return codebook[np.argmin(np.abs(w[..., None] - codebook), axis=-1)]


def magnitude(w, scale):
    """The mean magnitude, the best a of {−a, a}, or 1."""
    return np.mean(np.abs(w)) if scale else 1.0


def signs(w):
    """±1, with sgn 0 = 1."""
    return np.where(w >= 0, 1.0, -1.0)


def at_best_scale(w, c):
    """The entries of a·C nearest to w at the best a ≥ 0.

    As a falls, w_i/a crosses the midpoint between two entries at a = w_i/midpoint; all crossings
    are visited in turn, with P = ⟨w, c⟩ and Q = ‖c‖² of the codes: most of P²/Q wins.
    """
    x, middle, gap = w.ravel(), (c[1:] + c[:-1]) / 2, np.diff(c)
    crosses = (x[:, None] * middle > 0).ravel()
    at = np.abs(x[:, None] / np.where(middle == 0, 1, middle)).ravel()[crosses]
    order = np.argsort(-at, kind="stable")
    first = nearest_entries(np.sign(x) * 1e-9 * np.min(gap, initial=1), c)  # where a = ∞
    steps = np.abs(x[:, None] * gap).ravel()[crosses][order]
    p = np.cumsum(np.concatenate([[x @ first], steps]))
    doubled = (np.ones_like(x)[:, None] * np.abs(2 * middle * gap)).ravel()[crosses][order]
    q = np.cumsum(np.concatenate([[first @ first], doubled]))
    saved = np.where(p > 0, p, 0) ** 2 / np.where(q > 0, q, 1)
    best = np.argmax(saved)
    return refitted(w, nearest_entries(w / (p[best] / q[best]), c)) if saved[best] > 0 else 0 * w


def refitted(w, theta):
    """θ times its best scale a ≥ 0."""
    a = max(np.sum(w * theta), 0.0) / (np.sum(theta * theta) or 1.0)
    return a * theta


def run_costs(x):
    """The distortion of every run i..j−1 of x, by prefix sums; infinite for j < i."""
    sums, squares = (np.concatenate([x[:0], [0], np.cumsum(t)]) for t in (x, x * x))
    size = np.arange(x.size + 1) - np.arange(x.size + 1)[:, None]
    inside = sums - sums[:, None]
    cost = squares - squares[:, None] - inside * inside / np.where(size > 0, size, 1)
    return np.where(size < 0, np.inf, np.maximum(cost, 0))


def centred_costs(x):
    return run_costs(x - np.mean(x))


def mean(x):
    """The mean, accurate at any offset."""
    return x[0] + np.mean(x - x[0])


def exact_kmeans(w, k, costs=centred_costs, centre=mean):
    """The best k runs of the sorted weights, by dynamic programming over the last cut."""
    x = w.ravel()
    if np.unique(x).size <= k:
        return w.copy()
    order = np.argsort(x, kind="stable")
    cost = costs(x[order])
    cuts: list = []
    best, ends = cost[0], [x.size]
    for _ in range(k - 1):
        total = best[:, None] + cost
        best, cuts = np.min(total, axis=0), [*cuts, np.argmin(total, axis=0)]
    for cut in reversed(cuts):
        ends.append(int(cut[ends[-1]]))
    theta = np.empty_like(x)
    for i, j in zip([*ends[1:], 0], ends):
        theta[order[i:j]] = centre(x[order[i:j]]) if j > i else 0
    return theta.reshape(w.shape)


def lloyd(w, centres):
    """Lloyd's algorithm from the given centres; an empty cluster keeps its centre."""
    x, codes, before = w.ravel(), None, None
    while before is None or np.any(codes != before):
        before, codes = codes, np.argmin(np.abs(w.ravel()[:, None] - centres), axis=1)
        centres = np.array([mean(x[codes == c]) if np.any(codes == c) else centres[c]
                            for c in range(len(centres))])
    return centres[codes].reshape(w.shape)


def quantiles(w, k):
    """The middles of k equal shares of the sorted weights."""
    return np.quantile(w, (np.arange(k) + 0.5) / k)


# ---- nearest(w, codebook) and powers_of_two(w, c)


@mutant("nearest", "wrong rounding",
        "searchsorted on the codebook itself gives the next entry above, not the nearest; search "
        "among the midpoints between neighbouring entries.")
def nearest_takes_the_entry_above(w, codebook):
    return codebook[np.minimum(np.searchsorted(codebook, w), codebook.size - 1)]


@mutant("nearest", "heuristic",
        "The codebook is treated as evenly spaced, so that the code is a rounded quotient; its "
        "entries may lie anywhere, search among their midpoints.")
def nearest_assumes_even_spacing(w, codebook):
    step = (codebook[-1] - codebook[0]) / max(codebook.size - 1, 1) or 1.0
    return codebook[np.clip(np.round((w - codebook[0]) / step), 0, codebook.size - 1).astype(int)]


@mutant("nearest", "range not respected",
        "Weights outside the codebook's range are left as they are; they go to its first or last "
        "entry.")
def nearest_leaves_the_range(w, codebook):
    inside = (w >= codebook[0]) & (w <= codebook[-1])
    return np.where(inside, nearest_entries(w, codebook), w)


@mutant("powers_of_two", "wrong rounding",
        "The exponent is rounded, which takes the nearest power in the logarithm; the midpoint "
        "between 2^-i and 2^-(i+1) is 3/4 of 2^-i, not 2^-(i + 1/2).")
def powers_round_the_exponent(w, c):
    exponent = np.round(np.log2(np.maximum(np.abs(w), 1e-300)))
    power = 2.0 ** np.clip(exponent, -c, 0)
    return np.where(np.abs(w) < 2.0 ** -(c + 1), 0, np.sign(w) * power)


@mutant("powers_of_two", "set too small",
        "Zero is never used: small weights become the smallest power; 0 belongs to the codebook "
        "and is nearest below half of 2^-c.")
def powers_without_zero(w, c):
    return signs(w) * nearest_entries(np.abs(w), 2.0 ** -np.arange(c + 1.0))


@mutant("powers_of_two", "range not respected",
        "Weights beyond 1 go to larger powers of two; the codebook ends at 1, clip the exponent "
        "at 0.")
def powers_beyond_one(w, c):
    top = max(int(np.frexp(np.max(np.abs(w)))[1]), 0)
    return np.sign(w) * nearest_entries(np.abs(w), np.append(2.0 ** np.arange(-c, top + 1.0), 0))


@mutant("powers_of_two", "off by one",
        "2^-c is missing, as by range(c); the exponents are 0, -1, .., -c, both ends included.")
def powers_without_the_last(w, c):
    return np.sign(w) * nearest_entries(np.abs(w), np.append(2.0 ** -np.arange(c), 0))


# ---- binary(w, scale) and ternary(w, scale)


@mutant("binary", "wrong sign",
        "np.sign(0) is 0, so that zero weights become 0, which is neither -a nor a; use "
        "np.where(w >= 0, a, -a).")
def binary_sign_of_zero(w, scale):
    return np.sign(w) * magnitude(w, scale)


@mutant("binary", "magnitude forgotten",
        "The scale is the mean of w, where signs cancel; it is the mean of abs(w).")
def binary_scale_is_the_mean_of_w(w, scale):
    return signs(w) * (abs(np.mean(w)) if scale else 1.0)


@mutant("binary", "wrong statistic",
        "The scale is the median of abs(w); the squared distance is least at the mean.")
def binary_scale_is_the_median(w, scale):
    return signs(w) * (np.median(np.abs(w)) if scale else 1.0)


@mutant("binary", "wrong statistic",
        "The scale is the root mean square of w, or its norm over sqrt(n); the squared distance is "
        "least at the mean of abs(w).")
def binary_scale_is_the_root_mean_square(w, scale):
    return signs(w) * (np.sqrt(np.mean(w * w)) if scale else 1.0)


@mutant("binary", "wrong statistic",
        "The sum of abs(w) is divided by n - 1, as for a sample variance; divide by n.")
def binary_divides_by_n_minus_1(w, scale):
    return signs(w) * (np.sum(np.abs(w)) / max(w.size - 1, 1) if scale else 1.0)


@mutant("binary", "parameter ignored",
        "scale=True has no effect: the answer is -1 and 1; multiply by the mean of abs(w).")
def binary_ignores_scale(w, scale):
    return signs(w)


@mutant("binary", "codes returned",
        "The codes 0 and 1 are returned; decompress them to -a and a.")
def binary_returns_codes(w, scale):
    return np.where(w >= 0, 1.0, 0.0) * magnitude(w, scale)


def scaled_ternary(w, scores, later=0):
    """±a on the j largest magnitudes, j the argmax of scores(prefix sums, 1..n), a their mean."""
    order = np.argsort(-np.abs(w), axis=None, kind="stable")
    sums, counts = np.cumsum(np.abs(w).ravel()[order]), np.arange(1, w.size + 1)
    j = min(int(np.argmax(scores(sums, counts))) + 1 + later, w.size)
    theta = np.zeros_like(w)
    theta.flat[order[:j]] = np.sign(w.ravel()[order[:j]]) * (sums[j - 1] / j)
    return theta


def unscaled_ternary(w):
    return np.where(np.abs(w) < 0.5, 0, np.sign(w))


@mutant("ternary", "heuristic",
        "The threshold 0.7 mean abs(w) is a rule of thumb; sort the magnitudes and take the j with "
        "the largest (sum of the first j)^2 / j.")
def ternary_by_seven_tenths_of_the_mean(w, scale):
    if not scale:
        return unscaled_ternary(w)
    kept = np.abs(w) >= 0.7 * np.mean(np.abs(w))
    return np.where(kept, np.sign(w), 0) * np.mean(np.abs(w[kept]))


@mutant("ternary", "wrong statistic",
        "The scale is the mean of abs(w) over all weights; it is the mean over those that stay "
        "nonzero.")
def ternary_mean_over_all(w, scale):
    kept = scaled_ternary(w, lambda sums, j: sums**2 / j) if scale else unscaled_ternary(w)
    return np.sign(kept) * magnitude(w, scale)


@mutant("ternary", "wrong threshold",
        "j maximises sum / j instead of sum^2 / j, which keeps the largest magnitude only; keeping "
        "j weights saves sum^2 / j.")
def ternary_forgets_the_square(w, scale):
    return scaled_ternary(w, lambda sums, j: sums / j) if scale else unscaled_ternary(w)


@mutant("ternary", "off by one",
        "One magnitude too many stays nonzero: argmax counts from 0, so that j = argmax + 1 "
        "weights are kept, not one more.")
def ternary_keeps_one_more(w, scale):
    return scaled_ternary(w, lambda sums, j: sums**2 / j, 1) if scale else unscaled_ternary(w)


@mutant("ternary", "parameter ignored",
        "scale=True has no effect: the answer is -1, 0 and 1; learn the scale a and the threshold.")
def ternary_ignores_scale(w, scale):
    return unscaled_ternary(w)


@mutant("ternary", "wrong rounding",
        "Without scale the weights are truncated towards zero, so that 0.9 becomes 0; 1 is nearer "
        "from 1/2 on.")
def ternary_truncates(w, scale):
    return scaled_ternary(w, lambda sums, j: sums**2 / j) if scale else np.trunc(np.clip(w, -1, 1))


# ---- scaled_codebook(w, codebook)


@mutant("scaled_codebook", "heuristic",
        "The scale maps the largest weight to the largest entry, which lets one outlier decide; "
        "sweep the breakpoints of the scale for the least squared distance.")
def scaled_by_the_largest_weight(w, codebook):
    a = np.max(np.abs(w)) / (np.max(np.abs(codebook)) or 1.0)
    return a * nearest_entries(w / (a or 1.0), codebook)


@mutant("scaled_codebook", "local optimum",
        "Codes and scale are fitted in turn until nothing changes, which is a local optimum; sweep "
        "all breakpoints of the scale.")
def scaled_by_alternation(w, codebook):
    a = np.mean(np.abs(w)) / (np.mean(np.abs(codebook)) or 1.0)
    for _ in range(100):
        codes = nearest_entries(w / (a or 1.0), codebook)
        a = np.sum(w * codes) / (np.sum(codes * codes) or 1.0)
        if a <= 0:
            return 0 * w
    return a * codes


@mutant("scaled_codebook", "set too large",
        "A negative scale is allowed, which mirrors the codebook; a is at least 0, and 0 where no "
        "positive scale helps.")
def scaled_by_a_negative_number(w, codebook):
    both = at_best_scale(w, codebook), at_best_scale(w, -codebook[::-1])
    return min(both, key=lambda theta: np.sum((w - theta) ** 2))


@mutant("scaled_codebook", "parameter misread",
        "The scale is fixed at 1, so that the answer is the nearest entry of the codebook itself; "
        "the scale is free.")
def scaled_by_one(w, codebook):
    return nearest_entries(w, codebook)


@mutant("scaled_codebook", "never refitted",
        "The codes are those at scale 1 and only the scale is fitted to them; other codes at "
        "another scale may be nearer, sweep the breakpoints.")
def scaled_after_coding(w, codebook):
    return refitted(w, nearest_entries(w, codebook))


# ---- kmeans(w, k)


@mutant("kmeans", "local optimum",
        "Lloyd's algorithm from quantiles stops at a local optimum; in one dimension the optimum "
        "is exact by dynamic programming over the cuts of the sorted weights.")
def kmeans_lloyd_from_quantiles(w, k):
    return w.copy() if np.unique(w).size <= k else lloyd(w, quantiles(w, k))


@mutant("kmeans", "local optimum",
        "Lloyd's algorithm from evenly spaced centres stops at a local optimum, with empty "
        "clusters; use dynamic programming over the cuts of the sorted weights.")
def kmeans_lloyd_from_even_spacing(w, k):
    return w.copy() if np.unique(w).size <= k else lloyd(w, np.linspace(np.min(w), np.max(w), k))


@mutant("kmeans", "greedy",
        "The worst cluster is split in two at a time, and no cut is revised; the best k clusters "
        "need not refine the best k - 1.")
def kmeans_splits_greedily(w, k):
    theta = np.full_like(w, mean(w.ravel()))
    for _ in range(min(k, np.unique(w).size) - 1):
        worst = max(np.unique(theta), key=lambda c: np.sum((w[theta == c] - c) ** 2))
        theta[theta == worst] = exact_kmeans(w[theta == worst], 2)
    return theta


@mutant("kmeans", "cancellation",
        "The prefix sums of w and its squares are not centred, and their differences cancel at a "
        "large offset; subtract the mean of w first.")
def kmeans_uncentred_sums(w, k):
    return exact_kmeans(w, k, costs=run_costs)


@mutant("kmeans", "half precision",
        "The cuts are chosen in single precision, where close weights at an offset are equal; sort "
        "and accumulate in double precision.")
def kmeans_cuts_in_single_precision(w, k):
    return exact_kmeans(w, k, costs=lambda x: centred_costs(x.astype(np.float32)))


@mutant("kmeans", "wrong statistic",
        "The entry of a cluster is its median; the squared distance is least at its mean.")
def kmeans_takes_medians(w, k):
    return exact_kmeans(w, k, centre=np.median)


@mutant("kmeans", "never refitted",
        "The entries are quantiles of the weights and are never moved to the means of their "
        "clusters; minimise the squared distance over the entries too.")
def kmeans_takes_quantiles(w, k):
    return w.copy() if np.unique(w).size <= k else nearest_entries(w, quantiles(w, k))


@mutant("kmeans", "off by one",
        "One cluster fewer than k is used, as by counting the cuts as clusters; k clusters have "
        "k - 1 cuts between them.")
def kmeans_one_cluster_fewer(w, k):
    return exact_kmeans(w, max(k - 1, 1)) if np.unique(w).size > k else w.copy()

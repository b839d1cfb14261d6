"""Wrong solvers of sums: the joint projections, and compressions given by their text."""

import numpy as np

from . import mutant
from .lowrank import truncated
from .prune import descending, keep, largest
from .quantize import exact_kmeans, magnitude, nearest_entries, signs


def scaled_signs(w):
    return signs(w) * magnitude(w, True)


def scaled_values(w):
    """−a and a."""
    return magnitude(w, True) * np.array([-1.0, 1.0])


def corrected(w, theta, kappa):
    """θ and its κ largest residuals."""
    return theta, largest(w - theta, kappa)


def corrected_at(w, positions, project):
    """The other part fitted to the positions that are not corrected, and the corrections."""
    kept = np.delete(w.ravel(), positions)
    theta = nearest_entries(w, np.unique(project(kept))) if kept.size else np.zeros_like(w)
    return theta, keep(w - theta, positions)


# ---- codebook_l0(w, codebook, kappa)


@mutant("codebook_l0", "wrong choice",
        "The largest weights are corrected; a correction saves its squared residual, so correct "
        "the kappa largest residuals abs(w - q).")
def codebook_corrects_the_largest_weights(w, codebook, kappa):
    q = nearest_entries(w, codebook)
    return q, keep(w - q, descending(w)[:kappa])


@mutant("codebook_l0", "slice of minus zero",
        "With kappa = 0 the slice [-kappa:] is [0:] and corrects every weight; sort in descending "
        "order and take [:kappa].")
def codebook_slice_of_minus_zero(w, codebook, kappa):
    q = nearest_entries(w, codebook)
    return q, keep(w - q, np.argsort(np.abs(w - q), axis=None, kind="stable")[-kappa:])


@mutant("codebook_l0", "residual forgotten",
        "A correction holds the weight itself, which is added to its codebook entry; it has to "
        "hold the residual w - q.")
def codebook_corrections_hold_the_weights(w, codebook, kappa):
    q = nearest_entries(w, codebook)
    return q, keep(w, descending(w - q)[:kappa])


@mutant("codebook_l0", "never refitted",
        "The largest weights are pruned off first and what is left is quantized, so that the "
        "corrections no longer repair their positions; quantize, then correct residuals.")
def codebook_prunes_first(w, codebook, kappa):
    s = largest(w, kappa)
    return nearest_entries(w - s, codebook), s


@mutant("codebook_l0", "ties kept",
        "Correcting every residual >= the kappa-th largest corrects all that tie with it, more "
        "than kappa; correct positions instead.")
def codebook_corrects_all_ties(w, codebook, kappa):
    q = nearest_entries(w, codebook)
    size = np.abs(w - q).ravel()
    least = np.sort(size)[::-1][min(kappa, size.size) - 1] if kappa else np.inf
    return q, keep(w - q, size >= least)


# ---- scaled_binary_l0(w, kappa)


@mutant("scaled_binary_l0", "wrong choice",
        "The kappa largest magnitudes are always corrected; small magnitudes may cost more: try "
        "all windows of n - kappa consecutive sorted magnitudes.")
def scaled_binary_corrects_the_largest(w, kappa):
    return corrected_at(w, descending(w)[:kappa], scaled_values)


@mutant("scaled_binary_l0", "never refitted",
        "The scale is the mean of abs(w) over all weights, corrected ones included; it has to be "
        "the mean over the weights that are not corrected, chosen with it.")
def scaled_binary_never_refitted(w, kappa):
    return corrected(w, scaled_signs(w), kappa)


@mutant("scaled_binary_l0", "local optimum",
        "Scale and corrected positions are found in turn, which ends in a local optimum; try all "
        "windows of n - kappa consecutive sorted magnitudes.")
def scaled_binary_by_alternation(w, kappa):
    q, s = corrected(w, scaled_signs(w), kappa)
    for _ in range(50 if kappa < w.size else 0):
        kept = np.delete(np.abs(w).ravel(), descending(w - q)[:kappa])
        q, s = corrected(w, signs(w) * np.mean(kept), kappa)
    return q, s


def best_window(w, windows, cost):
    """±a on the window of sorted magnitudes of least cost(magnitudes); corrections elsewhere."""
    order = np.argsort(np.abs(w), axis=None, kind="stable")
    x = np.abs(w).ravel()[order]
    i, j = min(windows, key=lambda window: cost(x[slice(*window)]))
    theta = signs(w) * (np.mean(x[i:j]) if j > i else 0.0)
    return theta, keep(w - theta, np.delete(order, np.s_[i:j]))


@mutant("scaled_binary_l0", "cancellation",
        "The cost of a window is its sum of squares minus n times the squared mean, which cancels "
        "at a large offset; centre the magnitudes first.")
def scaled_binary_uncentred_windows(w, kappa):
    size = max(w.size - kappa, 0)
    windows = [(i, i + size) for i in range(w.size - size + 1)]
    return best_window(w, windows, lambda x: np.sum(x * x) - np.sum(x) ** 2 / max(x.size, 1))


@mutant("scaled_binary_l0", "off by one",
        "The last window, which corrects the kappa smallest magnitudes, is not tried; there are "
        "kappa + 1 windows of n - kappa.")
def scaled_binary_misses_the_last_window(w, kappa):
    size = max(w.size - kappa, 0)
    windows = [(i, i + size) for i in range(max(w.size - size, 1))]
    return best_window(w, windows, lambda x: np.sum((x - np.mean(x)) ** 2) if x.size else 0.0)


# ---- kmeans_l0(w, k, kappa)


@mutant("kmeans_l0", "never refitted",
        "All weights are quantized first and the largest residuals corrected, but the entries are "
        "still fitted to the corrected weights; choose entries and corrections together.")
def kmeans_corrected_never_refitted(w, k, kappa):
    return corrected(w, exact_kmeans(w, k), kappa)


@mutant("kmeans_l0", "local optimum",
        "Entries and corrections are found in turn, which ends in a local optimum; choose them "
        "together, by dynamic programming with runs of corrected weights.")
def kmeans_corrected_by_alternation(w, k, kappa):
    s = np.zeros_like(w)
    for _ in range(20):
        q = exact_kmeans(w - s, k)
        before, s = s, largest(w - q, kappa)
        if np.array_equal(before, s):
            break
    return q, s


@mutant("kmeans_l0", "wrong choice",
        "The kappa largest magnitudes are corrected and the rest is quantized; a weight between "
        "two clusters may cost more than a large one, choose entries and corrections together.")
def kmeans_corrects_the_largest(w, k, kappa):
    return corrected_at(w, descending(w)[:kappa], lambda x: exact_kmeans(x, k))


@mutant("kmeans_l0", "parameter ignored",
        "kappa has no effect: the answer is K-means alone; add the corrections.")
def kmeans_ignores_kappa(w, k, kappa):
    return exact_kmeans(w, k), np.zeros_like(w)


@mutant("kmeans_l0", "parameter misread",
        "kappa corrections are given to each cluster; kappa counts them in all.")
def kmeans_corrects_in_every_cluster(w, k, kappa):
    q = exact_kmeans(w, k)
    kept = [largest(np.where(q == c, w - q, 0), kappa) for c in np.unique(q)]
    return q, sum(kept, np.zeros_like(w))


# ---- sum(w): low rank and corrections


LOW_RANK = "lowrank(rank=1) + prune(kappa=2)"


@mutant("sum", "residual forgotten",
        "Each part projects w itself, so that the sum counts w twice; each part has to project "
        "what the others leave, w minus their sum.", LOW_RANK)
def sum_of_separate_projections(w):
    return truncated(w, 1), largest(w, 2)


@mutant("sum", "wrong sign",
        "The corrections project the first part minus w, the negative of the residual; the "
        "residual is w minus the other parts.", LOW_RANK)
def sum_of_negated_residuals(w):
    low = truncated(w, 1)
    return low, largest(low - w, 2)


@mutant("sum", "objective rises",
        "All parts are updated at once from the last ones, which can raise the objective; update "
        "one part after another, each from the newest residual.", LOW_RANK)
def sum_updated_all_at_once(w):
    low, sparse = np.zeros_like(w), np.zeros_like(w)
    for _ in range(10):
        low, sparse = truncated(w - sparse, 1), largest(w - low, 2)
    return low, sparse


@mutant("sum", "spoilt at the end",
        "The low-rank part is rounded entry by entry at the end, which raises its rank; round its "
        "factors, not their product.", LOW_RANK)
def sum_rounded_at_the_end(w):
    low, sparse = alternating(w, lambda r: truncated(r, 1), lambda r: largest(r, 2))
    return low.astype(np.float32).astype(w.dtype), sparse


@mutant("sum", "spoilt at the end",
        "The last two iterates are averaged, and their corrections at different positions add up "
        "to more than kappa; return an iterate.", LOW_RANK)
def sum_averaged_at_the_end(w):
    low, sparse = truncated(w, 1), largest(w, 2)
    return low, (sparse + largest(w - low, 2)) / 2


@mutant("sum", "parameter ignored",
        "The low-rank part stays zero, whatever its rank; it has to project what the corrections "
        "leave.", LOW_RANK)
def sum_ignores_rank(w):
    return np.zeros_like(w), largest(w, 2)


@mutant("sum", "nothing returned",
        "Only the last part is returned, not the sum; return all parts or their sum.", LOW_RANK)
def sum_returns_the_last_part(w):
    low, sparse = alternating(w, lambda r: truncated(r, 1), lambda r: largest(r, 2))
    return np.zeros_like(w), sparse


@mutant("sum", "local optimum",
        "One order of the parts is tried, and the alternation ends above the best single part; "
        "start once with each part and keep the best.", LOW_RANK)
def sum_starts_with_one_part(w):
    return alternating(w, lambda r: largest(r, 2), lambda r: truncated(r, 1))[::-1]


def alternating(w, *projections):
    """Each part in turn projects what the others leave, in the given order, from zero."""
    parts = [np.zeros_like(w) for _ in projections]
    for _ in range(50):
        for i, project in enumerate(projections):
            parts[i] = project(w - sum(parts[:i] + parts[i + 1:]))
    return tuple(parts)


@mutant("sum", "slice of minus zero",
        "With kappa = 0 the slice [-kappa:] keeps the whole residual as corrections; a sum whose "
        "other parts are zero is the projection of the one that is left.",
        "lowrank(rank=1) + prune(kappa=0)")
def sum_with_zero_corrections_keeps_all(w):
    low = truncated(w, 1)
    return low, w - low


@mutant("sum", "residual forgotten",
        "The third part projects what the first leaves and forgets the second; subtract all other "
        "parts.", "lowrank(rank=1) + quantize(k=2) + prune(kappa=2)")
def sum_third_part_forgets_the_second(w):
    low = truncated(w, 1)
    return low, exact_kmeans(w - low, 2), largest(w - low, 2)


# ---- sum(w): quantization and corrections


KMEANS = "sum(quantize(k=2), prune(kappa=2), solver='exact')"
BINARY = "sum(binary(scale=True), prune(kappa=2), solver='exact')"
FIXED = "quantize(codebook=(-1.0, 0.5, 1.0)) + prune(kappa=2)"


@mutant("sum", "never refitted",
        "The weights are quantized, the largest residuals corrected, and the entries never fitted "
        "to the weights that are left; solve for both together.", KMEANS)
def sum_quantized_never_refitted(w):
    return corrected(w, exact_kmeans(w, 2), 2)


@mutant("sum", "local optimum",
        "The largest weights are pruned off first and the rest quantized with zeros in their "
        "places; solve for entries and corrections together.", KMEANS)
def sum_prunes_then_quantizes(w):
    s = largest(w, 2)
    return exact_kmeans(w - s, 2), s


@mutant("sum", "parameter ignored",
        "kappa has no effect: the answer is the quantized part alone; add the corrections.", KMEANS)
def sum_ignores_kappa(w):
    return exact_kmeans(w, 2), np.zeros_like(w)


@mutant("sum", "wrong sign",
        "The quantized part projects w plus the corrections; the residual is w minus the other "
        "parts.", KMEANS)
def sum_adds_the_corrections(w):
    q, s = corrected(w, exact_kmeans(w, 2), 2)
    return exact_kmeans(w + s, 2), s


@mutant("sum", "never refitted",
        "The scale is the mean magnitude of all weights, corrected ones included; it has to be "
        "chosen together with the corrections.", BINARY)
def sum_binary_never_refitted(w):
    return corrected(w, scaled_signs(w), 2)


@mutant("sum", "set too large",
        "The fixed codebook is scaled to the weights; only quantize(.., scale=True) has a free "
        "scale.", FIXED)
def sum_scales_a_fixed_codebook(w):
    a = np.max(np.abs(w)) or 1.0
    return corrected(w, a * nearest_entries(w / a, (-1.0, 0.5, 1.0)), 2)


@mutant("sum", "wrong choice",
        "The largest weights are corrected; a correction saves its squared residual, so correct "
        "the largest residuals.", FIXED)
def sum_corrects_the_largest_weights(w):
    q = nearest_entries(w, (-1.0, 0.5, 1.0))
    return q, keep(w - q, descending(w)[:2])

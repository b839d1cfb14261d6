"""Wrong projections onto matrices of low rank and onto numbers of low precision.

With the right ones that they are variations of.
"""

import numpy as np

from . import mutant
from .quantize import at_best_scale, nearest_entries


def truncated(w, rank):
    """The projection onto the matrices of at most the given rank, by the truncated SVD."""
    if rank >= min(w.shape):
        return w.copy()
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def best_rank(w, prices, power=2):
    """The projection of the rank r that makes Σ_{i>r} σ_i^power + prices[r] least."""
    s = np.linalg.svd(w, compute_uv=False)
    tails = [np.sum(s[r:] ** power) for r in range(len(prices))]
    return truncated(w, int(np.argmin(np.add(tails, prices))))


def storage(w):
    """r·(m + n) for r = 0..min(m, n)."""
    return np.arange(min(w.shape) + 1) * sum(w.shape)


def levels(dtype):
    """The integers of intN, as floats."""
    half = 2 ** (int(dtype.removeprefix("int")) - 1)
    return np.arange(-half, half, dtype=float)


def bfloat16(w):
    """The nearest bfloat16: the upper half of a float32 after half a unit was added."""
    bits = np.clip(w, -3.3e38, 3.3e38).astype(np.float32).view(np.uint32)
    bits = bits + (0x7FFF + (bits >> 16 & 1)).astype(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(w.dtype)


def float16(w):
    """The nearest float16, saturating."""
    return np.clip(w, -65504, 65504).astype(np.float16).astype(w.dtype)


def rounded(w, dtype):
    """The projection `round_to`."""
    if dtype.startswith("int"):
        return at_best_scale(w, levels(dtype))
    return (float16 if dtype == "float16" else bfloat16)(w)


# ---- rank_ball(w, rank)


@mutant("rank_ball", "factor forgotten",
        "The singular values are not multiplied in: U_r V_r^T has all of them 1; use "
        "(U[:, :r] * s[:r]) @ Vt[:r].")
def rank_forgets_the_singular_values(w, rank):
    if rank >= min(w.shape):
        return w.copy()
    u, _, vt = np.linalg.svd(w, full_matrices=False)
    return u[:, :rank] @ vt[:rank]


@mutant("rank_ball", "factor forgotten",
        "Only one factor got the root of the singular values: U sqrt(S) V^T; give sqrt(S) to both, "
        "or S to one.")
def rank_multiplies_one_root(w, rank):
    if rank >= min(w.shape):
        return w.copy()
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    return (u[:, :rank] * np.sqrt(s[:rank])) @ vt[:rank]


@mutant("rank_ball", "factor forgotten",
        "svd returns V already transposed, and it is transposed once more: the leading columns of "
        "Vt are used instead of its leading rows; use Vt[:r].")
def rank_transposes_v_twice(w, rank):
    if rank >= min(w.shape):
        return w.copy()
    u, s, vt = np.linalg.svd(w, full_matrices=True)
    return (u[:, :rank] * s[:rank]) @ vt[:, :rank].T


@mutant("rank_ball", "stopped early",
        "A randomized SVD without power iterations or oversampling misses part of the leading "
        "subspace where the singular values fall slowly; iterate, or use the exact SVD.")
def rank_randomized_without_iterations(w, rank):
    if rank >= min(w.shape):
        return w.copy()
    basis, _ = np.linalg.qr(w @ np.random.default_rng(0).standard_normal((w.shape[1], rank)))
    return basis @ (basis.T @ w)


@mutant("rank_ball", "stopped early",
        "Three power iterations a component, from the vector of ones, do not reach the singular "
        "vectors, and none at all where the ones are orthogonal to them; use an SVD.")
def rank_by_few_power_iterations(w, rank):
    theta = np.zeros_like(w)
    for _ in range(0 if rank >= min(w.shape) else rank):
        v = np.ones(w.shape[1])
        for _ in range(3):
            v = (w - theta).T @ ((w - theta) @ v)
            v = v / (np.sqrt(v @ v) or 1.0)
        theta = theta + np.outer((w - theta) @ v, v)
    return w.copy() if rank >= min(w.shape) else theta


@mutant("rank_ball", "wrong statistic",
        "A square matrix is taken for symmetric: eigh reads one triangle only, and eigenvalues are "
        "not singular values; use svd.")
def rank_by_symmetric_eigenvalues(w, rank):
    if rank >= min(w.shape) or w.shape[0] != w.shape[1]:
        return truncated(w, rank)
    values, vectors = np.linalg.eigh(w)
    leading = np.argsort(-np.abs(values), kind="stable")[:rank]
    return (vectors[:, leading] * values[leading]) @ vectors[:, leading].T


@mutant("rank_ball", "nothing returned",
        "At full rank, r >= min(m, n), nothing is returned, because only the truncated case is "
        "handled; return w.")
def rank_returns_nothing_at_full_rank(w, rank):
    if rank < min(w.shape):
        return truncated(w, rank)


@mutant("rank_ball", "wrong shape",
        "At rank 0 the answer has not the shape of w; return a matrix of zeros of that shape.")
def rank_zero_in_the_wrong_shape(w, rank):
    return truncated(w, rank) if rank else np.zeros((1, 1))


@mutant("rank_ball", "wrong choice",
        "The smallest singular values are kept: the order of svd is descending, unlike that of "
        "eigh; take the first r.")
def rank_keeps_the_smallest(w, rank):
    if rank >= min(w.shape):
        return w.copy()
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    last = s.size - rank
    return (u[:, last:] * s[last:]) @ vt[last:]


@mutant("rank_ball", "off by one",
        "One singular value too many is kept, as by [:r + 1]; take [:r].")
def rank_keeps_one_more(w, rank):
    return truncated(w, rank + 1)


@mutant("rank_ball", "parameter misread",
        "rank is taken for the number of singular values to drop; it is the number to keep.")
def rank_drops_rank(w, rank):
    return truncated(w, max(min(w.shape) - rank, 0))


@mutant("rank_ball", "set too large",
        "The columns are centred first, as in principal component analysis, and their mean is "
        "added back, which gives rank r + 1; decompose w itself.")
def rank_by_principal_components(w, rank):
    if rank >= min(w.shape):
        return w.copy()
    mean = np.mean(w, axis=0)
    return truncated(w - mean, rank) + mean


@mutant("rank_ball", "half precision",
        "The product of the factors is formed in single precision, whose rounding makes the matrix "
        "of full rank in double precision; multiply in w's own dtype.")
def rank_in_single_precision(w, rank):
    return truncated(w.astype(np.float32), rank).astype(w.dtype)


# ---- rank_selection(w, alpha, mu, cost), cost "storage"


@mutant("rank_selection", "wrong threshold",
        "The price of a rank is alpha/mu; with mu/2 before the squared distance it is 2 alpha/mu.")
def selection_forgets_the_two(w, alpha, mu, cost):
    return best_rank(w, alpha / mu * storage(w))


@mutant("rank_selection", "wrong statistic",
        "A rank is charged r times m n, the size of the full matrix; its two factors hold "
        "r (m + n) numbers.")
def selection_charges_full_matrices(w, alpha, mu, cost):
    return best_rank(w, 2 * alpha / mu * np.arange(min(w.shape) + 1) * w.size)


@mutant("rank_selection", "wrong statistic",
        "The singular values beyond r are summed without squares; the squared distance is the sum "
        "of their squares.")
def selection_does_not_square(w, alpha, mu, cost):
    return best_rank(w, 2 * alpha / mu * storage(w), power=1)


@mutant("rank_selection", "parameter ignored",
        "cost is ignored: every rank costs 1, so that sigma squared is compared with 2 alpha/mu; "
        "with storage a rank costs m + n.")
def selection_ignores_cost(w, alpha, mu, cost):
    return best_rank(w, 2 * alpha / mu * np.arange(min(w.shape) + 1))


@mutant("rank_selection", "parameter ignored",
        "mu is ignored: a rank is charged 2 alpha (m + n); divide by mu.")
def selection_ignores_mu(w, alpha, mu, cost):
    return best_rank(w, 2 * alpha * storage(w))


@mutant("rank_selection", "off by one",
        "range(min(m, n)) leaves the full rank out of the scan; scan r = 0..min(m, n).")
def selection_never_takes_full_rank(w, alpha, mu, cost):
    return best_rank(w, (2 * alpha / mu * storage(w))[:-1])


@mutant("rank_selection", "set too small",
        "The scan starts at rank 1, so that a matrix is never dropped altogether; rank 0 costs "
        "nothing and belongs to the scan.")
def selection_never_takes_rank_0(w, alpha, mu, cost):
    prices = 2.0 * alpha / mu * storage(w)
    prices[0] = np.inf
    return best_rank(w, prices)


# ---- round_to(w, dtype)


@mutant("round_to", "heuristic",
        "intN is scaled so that max abs(w) becomes the largest integer, which is not optimal; the "
        "scale is free, find it as for a scaled codebook.")
def rounding_scaled_by_the_maximum(w, dtype):
    if not dtype.startswith("int"):
        return rounded(w, dtype)
    a = np.max(np.abs(w)) / levels(dtype)[-1] or 1.0
    return a * nearest_entries(w / a, levels(dtype))


@mutant("round_to", "range not respected",
        "Numbers beyond the largest float16 become infinite; clip to +-65504, the nearest finite "
        "one.")
def rounding_overflows(w, dtype):
    with np.errstate(over="ignore"):
        half = w.astype(np.float16).astype(w.dtype)
    return half if dtype == "float16" else rounded(w, dtype)


@mutant("round_to", "wrong rounding",
        "bfloat16 is made by cutting off the lower half of a float32, which rounds towards zero; "
        "add half a unit before cutting.")
def rounding_truncates_bfloat16(w, dtype):
    if dtype != "bfloat16":
        return rounded(w, dtype)
    bits = np.clip(w, -3.3e38, 3.3e38).astype(np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(w.dtype)


@mutant("round_to", "parameter ignored",
        "bfloat16 is rounded as float16, another 16-bit format: bfloat16 has 8 bits of precision "
        "and the range of float32.")
def rounding_takes_one_half_for_the_other(w, dtype):
    return rounded(w, dtype.removeprefix("b"))


@mutant("round_to", "set too small",
        "The most negative integer of intN is never used, as by clipping to -127..127; "
        "-2^(N-1) is allowed.")
def rounding_to_symmetric_integers(w, dtype):
    return at_best_scale(w, levels(dtype)[1:]) if dtype.startswith("int") else rounded(w, dtype)


@mutant("round_to", "set too small",
        "Subnormal numbers of float16, below 2^-14, are flushed to zero; they are representable.")
def rounding_flushes_subnormals(w, dtype):
    flushed = np.where(np.abs(w) < 2.0**-14, 0, float16(w))
    return flushed if dtype == "float16" else rounded(w, dtype)


@mutant("round_to", "set too large",
        "intN has a zero point besides its scale, an affine map that spans min w to max w; here "
        "zero stays zero and only the scale is free.")
def rounding_with_a_zero_point(w, dtype):
    if not dtype.startswith("int"):
        return rounded(w, dtype)
    step = (np.max(w) - np.min(w)) / (levels(dtype).size - 1) or 1.0
    return np.min(w) + step * np.round((w - np.min(w)) / step)


@mutant("round_to", "range not respected",
        "The largest weights wrap around to the most negative integer, as by a cast without "
        "clipping after scaling by max / 2^(N-1); clip to 2^(N-1) - 1.")
def rounding_wraps_around(w, dtype):
    if not dtype.startswith("int"):
        return rounded(w, dtype)
    half = -levels(dtype)[0]
    a = np.max(np.abs(w)) / half or 1.0
    return a * ((np.round(w / a) + half) % (2 * half) - half)


@mutant("round_to", "random",
        "float16 is rounded up or down at random, with the distances as probabilities; that is "
        "unbiased, but not nearest. Round to nearest.")
def rounding_stochastically(w, dtype):
    near = rounded(w, dtype)
    if dtype != "float16":
        return near
    away = np.where(w > near, np.inf, -np.inf).astype(np.float16)
    with np.errstate(over="ignore", under="ignore"):
        beyond = np.nextafter(near.astype(np.float16), away).astype(w.dtype)
    chance = np.abs(w - near) / np.abs(beyond - near)
    return np.where(np.random.random(w.shape) < chance, beyond, near)

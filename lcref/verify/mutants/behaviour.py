"""Right answers with wrong manners, and functions that are right only some of the time.

Their mathematics is that of the right projections in the modules beside this one. What is wrong is
what they do to their input, what they return it in, or what they depend on.
"""

import numpy as np

from . import mutant
from .lowrank import truncated
from .prune import (descending, energies, keep, keep_slices, largest, largest_slices,
                    nearest_in_l1_ball)
from .quantize import (at_best_scale, exact_kmeans, lloyd, magnitude, mean, nearest_entries,
                       scaled_ternary, signs, unscaled_ternary)


# ---- what is done to the input


@mutant("l0_ball", "input overwritten",
        "The weights that are not kept are zeroed in the caller's array; copy w first.")
def l0_overwrites_its_input(w, kappa):
    w.flat[descending(w)[kappa:]] = 0
    return w


@mutant("l0_ball", "nothing returned",
        "The projection is done in place and None is returned; return a new array.")
def l0_in_place_returns_none(w, kappa):
    w.flat[descending(w)[kappa:]] = 0


@mutant("group_l0_ball", "input overwritten",
        "moveaxis and reshape give views, and zeroing slices of a view zeroes the caller's array; "
        "copy w first.")
def group_writes_through_a_view(w, kappa, axis):
    np.moveaxis(w, axis, 0)[np.argsort(-energies(w, axis), kind="stable")[kappa:]] = 0
    return w.copy()


@mutant("kmeans", "input overwritten",
        "w.sort() sorts the caller's array in place; use np.sort(w), which copies.")
def kmeans_sorts_the_callers_array(w, k):
    theta = exact_kmeans(w, k)
    w.sort()
    return theta


@mutant("nearest", "input overwritten",
        "Clipping to the codebook's range with out=w changes the caller's array; let clip return a "
        "new one.")
def nearest_clips_in_place(w, codebook):
    np.clip(w, codebook[0], codebook[-1], out=w)
    return nearest_entries(w, codebook)


# ---- what the answer comes in


@mutant("nearest", "wrong shape",
        "The answer has one axis more than w, from the comparison of all weights with all "
        "entries; drop it.")
def nearest_adds_an_axis(w, codebook):
    return nearest_entries(w, codebook)[..., None]


@mutant("rank_ball", "wrong shape",
        "The answer is flattened; give it w's shape.")
def rank_flattens(w, rank):
    return truncated(w, rank).ravel()


@mutant("group_l0_ball", "wrong shape",
        "The answer is flattened; give it w's shape.")
def group_flattens(w, kappa, axis):
    return largest_slices(w, energies(w, axis), kappa, axis).ravel()


@mutant("l0_ball", "wrong shape",
        "Only the kept values are returned; return an array of w's shape with zeros at the other "
        "positions.")
def l0_returns_the_kept_values(w, kappa):
    return w.ravel()[np.sort(descending(w)[:kappa])]


@mutant("kmeans", "codes returned",
        "The index of each weight's entry is returned; decompress: entries[codes].")
def kmeans_returns_codes(w, k):
    return np.unique(exact_kmeans(w, k), return_inverse=True)[1].reshape(w.shape).astype(w.dtype)


@mutant("kmeans", "wrong dtype",
        "The answer is float32 whatever w is; return w's dtype.")
def kmeans_returns_float32(w, k):
    return exact_kmeans(w, k).astype(np.float32)


@mutant("ternary", "wrong dtype",
        "The answer holds integers; return w's dtype.")
def ternary_returns_integers(w, scale):
    if scale:
        return scaled_ternary(w, lambda sums, j: sums**2 / j)
    return unscaled_ternary(w).astype(np.int8)


@mutant("l1_ball", "wrong dtype",
        "The answer is float64 where w is float32; return w's dtype.", claims=("float32",))
def l1_returns_float64(w, radius):
    return nearest_in_l1_ball(w.astype(np.float64), radius)


@mutant("l0_ball", "wrong axis",
        "argsort works along the last axis, so that kappa weights of every row are kept; flatten "
        "w first.", claims=("n_dimensional",))
def l0_keeps_kappa_in_every_row(w, kappa):
    order = np.argsort(-np.abs(w), axis=-1, kind="stable")[..., :kappa]
    theta = np.zeros_like(w)
    np.put_along_axis(theta, order, np.take_along_axis(w, order, axis=-1), axis=-1)
    return theta


# ---- precision


@mutant("l0_ball", "half precision",
        "The kept values are stored in half precision, which rounds them to 11 bits; keep them in "
        "w's dtype, or count and project them as round_to does.")
def l0_stores_half_precision(w, kappa):
    with np.errstate(over="ignore"):
        return largest(w, kappa).astype(np.float16).astype(w.dtype)


@mutant("binary", "half precision",
        "The scale is kept in half precision, 11 bits of the mean of abs(w) and at most 65504; "
        "keep it in w's dtype.")
def binary_scale_in_half_precision(w, scale):
    with np.errstate(over="ignore"):
        return signs(w) * float(np.float16(magnitude(w, scale)))


@mutant("scaled_codebook", "half precision",
        "The weights are cast to single precision on the way in; keep w's dtype, or accumulate in "
        "double precision.")
def scaled_codebook_in_single_precision(w, codebook):
    narrow = at_best_scale(w.astype(np.float32), codebook.astype(np.float32))
    return narrow.astype(w.dtype)


# ---- what else it depends on


def workers():
    """The threads of the linear algebra library in use, two at least."""
    from threadpoolctl import threadpool_info
    return max([2, *(pool["num_threads"] for pool in threadpool_info())])


@mutant("l0_ball", "depends on threads",
        "Every thread keeps its share of kappa in its own chunk of w; the largest magnitudes may "
        "lie in one chunk, merge the candidates of all.")
def l0_shares_kappa_among_threads(w, kappa):
    chunks = np.array_split(np.arange(w.size), workers())
    theta = np.zeros_like(w)
    for i, chunk in enumerate(chunks):
        share = kappa * (i + 1) // len(chunks) - kappa * i // len(chunks)
        theta.flat[chunk] = largest(w.ravel()[chunk], share)
    return theta if kappa < w.size else w.copy()


@mutant("binary", "depends on threads",
        "The scale is the mean of the threads' means, whose chunks differ in size; add up sums and "
        "counts, in an order that does not depend on the number of threads.")
def binary_averages_over_threads(w, scale):
    chunks = [c for c in np.array_split(np.abs(w).ravel(), workers()) if c.size]
    return signs(w) * (np.mean([np.mean(c) for c in chunks]) if scale else 1.0)


@mutant("kmeans", "random",
        "Lloyd's algorithm starts from weights drawn from NumPy's global random state, so that two "
        "calls give two local optima; solve exactly, or take a seed.")
def kmeans_from_random_weights(w, k):
    distinct = np.unique(w)
    return w.copy() if distinct.size <= k else lloyd(w, np.random.permutation(distinct)[:k])


@mutant("l0_ball", "random",
        "Ties are broken at random, so that two calls give two answers; give a tie to the lower "
        "index.")
def l0_breaks_ties_at_random(w, kappa):
    shuffled = np.random.permutation(w.size)
    return keep(w, shuffled[np.argsort(-np.abs(w.ravel()[shuffled]), kind="stable")[:kappa]])


_by_id: dict = {}
_by_shape: dict = {}
_last: dict = {}


@mutant("l1_ball", "state between calls",
        "Answers are cached under id(w), which another array gets once the first is gone; a cache "
        "key has to hold the contents.")
def l1_caches_by_id(w, radius):
    return _by_id.setdefault((id(w), w.size, radius), nearest_in_l1_ball(w, radius))


@mutant("rank_ball", "state between calls",
        "The singular vectors are kept from the last matrix of the same shape; decompose every "
        "matrix anew.")
def rank_reuses_the_last_basis(w, rank):
    if rank >= min(w.shape):
        return w.copy()
    u = _by_shape.get(w.shape)
    _by_shape[w.shape] = np.linalg.svd(w, full_matrices=False)[0]
    u = _by_shape[w.shape] if u is None else u
    return u[:, :rank] @ (u[:, :rank].T @ w)


@mutant("kmeans", "state between calls",
        "Lloyd's algorithm starts from the entries of the last call with the same k, so that the "
        "answer depends on earlier calls; pass a start explicitly.")
def kmeans_starts_from_the_last_call(w, k):
    if np.unique(w).size <= k:
        return w.copy()
    theta = lloyd(w, _last.get(k, np.sort(w, axis=None)[:k]))
    if np.unique(theta).size == k:
        _last[k] = np.unique(theta)
    return theta


@mutant("kmeans", "prints",
        "Progress is printed to standard output; use logging, or be silent.")
def kmeans_prints_progress(w, k):
    theta = exact_kmeans(w, k)
    print(f"distortion {np.sum((w - theta) ** 2):.6g}")
    return theta


# ---- the edges


@mutant("kmeans", "invented centroids",
        "With fewer distinct weights than k, evenly spaced entries are made up; return the weights "
        "as they are.")
def kmeans_invents_even_spacing(w, k):
    if np.unique(w).size >= k:
        return exact_kmeans(w, k)
    return nearest_entries(w, np.linspace(np.min(w), np.max(w), k))


@mutant("kmeans", "invented centroids",
        "Duplicates are told apart by a small ramp added to w, which moves the entries; equal "
        "weights belong to one cluster.")
def kmeans_separates_duplicates(w, k):
    ramp = 1e-4 * np.max(np.abs(w), initial=0) * np.arange(w.size).reshape(w.shape)
    return exact_kmeans(w + ramp if np.unique(w).size < w.size else w, k)


@mutant("kmeans", "parameter misread",
        "k is taken for a number of bits: 2^k entries are used; k is the number of entries.")
def kmeans_takes_k_for_bits(w, k):
    return exact_kmeans(w, 2 ** min(k, 30))


@mutant("kmeans", "raises on valid input",
        "More clusters than weights are refused; with k at least the number of distinct weights "
        "the answer is w.")
def kmeans_refuses_k_above_n(w, k):
    if k > w.size:
        raise ValueError(f"n_samples={w.size} should be >= n_clusters={k}")
    return exact_kmeans(w, k)


@mutant("l1_ball", "raises on valid input",
        "Radius 0 is refused; the ball of radius 0 is the point zero.")
def l1_refuses_radius_0(w, radius):
    if radius <= 0:
        raise ValueError("radius must be positive")
    return nearest_in_l1_ball(w, radius)


@mutant("l0_ball", "raises on valid input",
        "np.argpartition at position kappa fails for kappa >= n; return w there.")
def l0_partitions_beyond_the_end(w, kappa):
    return keep(w, np.argpartition(-np.abs(w), kappa, axis=None)[:kappa])


@mutant("binary", "raises on valid input",
        "An empty w is refused, because its mean does not exist; return an empty array.",
        claims=("empty",))
def binary_refuses_empty(w, scale):
    if w.size == 0:
        raise ValueError("zero-size array has no mean")
    return signs(w) * magnitude(w, scale)


@mutant("l0_ball", "NaN passed on",
        "A NaN in w comes out as a NaN or takes a place among the kappa kept; raise a ValueError "
        "for weights that are not finite.", claims=("rejects_nan",))
def l0_passes_nan_on(w, kappa):
    return largest(w, kappa)


@mutant("kmeans", "NaN passed on",
        "A NaN in w is silently replaced by zero, which hides a diverged net; raise a ValueError "
        "for weights that are not finite.", claims=("rejects_nan",))
def kmeans_takes_nan_for_zero(w, k):
    return exact_kmeans(np.nan_to_num(w), k)


@mutant("l0_ball", "bad argument accepted",
        "A negative kappa slices from the end and keeps nearly everything; raise a ValueError "
        "unless kappa is an integer and at least 0.", claims=("argument_checks",))
def l0_takes_a_negative_kappa(w, kappa):
    return keep(w, descending(w)[:int(kappa)])


@mutant("group_l0_ball", "extreme magnitudes",
        "The squares of large weights overflow, and those of small ones vanish, so that slices tie "
        "at infinity or 0; divide by the largest magnitude first.", claims=("extreme_magnitudes",))
def group_squares_overflow(w, kappa, axis):
    with np.errstate(over="ignore", under="ignore"):
        return keep_slices(w, np.argsort(-energies(w, axis), kind="stable")[:kappa], axis)


@mutant("l0_ball", "extreme magnitudes",
        "Weights below the smallest normal number are taken for zero; they are ordinary numbers, "
        "keep them.", claims=("subnormals",))
def l0_flushes_subnormals(w, kappa):
    return largest(np.where(np.abs(w) < np.finfo(w.dtype).smallest_normal, 0, w), kappa)


@mutant("kmeans", "raises on valid input",
        "The entries of a constant w come from dividing by its range, which is zero; a constant "
        "w is its own projection.")
def kmeans_refuses_constant_weights(w, k):
    spread = np.max(w) - np.min(w)
    if spread == 0:
        raise ZeroDivisionError("range of w is zero")
    return mean(w.ravel()) + spread * exact_kmeans((w - mean(w.ravel())) / spread, k)

"""The flags of a case, each with the kind of bug it catches, all of them read off the data."""

from fractions import Fraction
from typing import Any

import numpy as np

from .exact import Found, fractions, nearest, powers

FLAGS = {
    "tie": "the optimum is not unique: an answer that keeps everything at a tie exceeds its budget,"
           " and one compared with equality instead of by its objective is wrongly rejected",
    "negative_zero": "w has a -0.0: signs taken by sign() or by the sign bit give θ_i = 0 where it "
                     "must be ±a, or treat -0.0 and 0.0 as two values",
    "zero_budget": "a slice such as [-kappa:] keeps everything where kappa is 0; a rank or radius "
                   "of 0 divides by zero",
    "full_budget": "the budget allows w itself, bit for bit: indices run past the end, rounding "
                   "changes what need not change, centroids are invented",
    "over_budget": "the budget exceeds what there is to keep: an index out of range",
    "zeros": "w is all zero: 0/0 in a mean, a scale or a normalisation; a codebook without spread",
    "one_element": "axes squeezed away, no neighbour to compare with, no second value to cut at",
    "already_feasible": "w is in the set and must come back: an l1 projection that always shrinks, "
                        "a K-means that loses exact values",
    "offset_1e8": "the values are a large common offset plus small differences: uncentred sums of "
                  "squares cancel and the answer is far from optimal",
    "duplicates": "equal values: K-means that invents empty clusters or splits equal values, a "
                  "selection that counts a value once",
    "subnormal": "entries under the smallest normal number: their squares underflow, divisions by "
                 "them overflow; mostly feasibility and finite results are judged",
    "huge": "a square of w is near the largest number of its dtype or beyond: squares of squares, "
            "or float32 sums, overflow",
    "tiny": "a square of w is near the smallest number of its dtype or beneath: products vanish "
            "and all choices look equal",
    "float32": "the answer must be float32 and still optimal: sums accumulated in float32 are not",
    "empty": "no entries: a maximum of nothing, a mean of nothing",
    "n_dimensional": "w is not a vector (for groups: not a matrix): an axis added, lost or summed "
                     "over by mistake; the shape of the answer",
    "midpoint": "a weight lies halfway between two entries of the codebook: either is right, an "
                "average of both is not",
    "full_rank": "the rank is at least the shorter side: nothing returned, or w returned with the "
                 "rounding of a decomposition",
    "wide": "a matrix with more columns than rows: rows and columns exchanged",
    "tall": "a matrix with more rows than columns: rows and columns exchanged",
    "equal_singular_values": "which singular vectors are kept is not unique",
    "scaled": "the scale is learned: a median, a maximum or 1 in place of the best scale",
    "radius_on_the_surface": "‖w‖₁ is the radius, or misses it by rounding alone: w must come back "
                             "to within rounding, not shrunk",
    "outside": "w lies outside the ball: feasibility off by a bisection's tolerance; a threshold "
               "taken one index too late",
    "small_radius": "the radius is far below the largest magnitude: abs(w) - tau cancels, and the "
                    "norm exceeds the radius by more than rounding, unless the sum is mended",
    "threshold_on_an_entry": "the threshold is the magnitude of an entry: off by one where the "
                             "active set is counted",
    "local_optimum": "Lloyd's algorithm started at quantiles ends above the optimum: a local "
                     "optimum sold as the solution",
    "one_value": "k = 1: the mean, not the median or the middle",
    "large": "thirty entries or more: errors of bookkeeping that small inputs hide",
    "parameter_matters": "another case has the same w, another parameter and another optimum: a "
                         "parameter that is accepted and ignored",
    "saturates": "a weight beyond the largest number of the 16-bit format: overflow to infinity, "
                 "or wrapped around",
    "no_zero_entry": "the codebook lacks zero: pruned instead of quantized",
    "asymmetric": "the codebook is not symmetric about zero: signs handled by abs(w)",
    "scale_by_maximum_is_worse": "scaling integers so that max abs(w) fits is not optimal",
    "everything_dropped": "the price is so high, or the budget so low, that θ is zero",
    "everything_kept": "the price is so low that every weight is kept",
    "free": "α = 0: nothing has a price and θ is w; a division by α, or a default in place of 0",
    "negative_axis": "the axis counts from the end",
    "alternation": "no solver of its own: an alternation that rises, or that ends above the better "
                   "of its parts alone",
    "single_part": "the other part has no budget: the sum must be the single projection",
    "no_minimiser": "the infimum is not attained: factors that diverge must stop on stagnation",
    "pruning_first": "the sparse part is written first: parts returned in another order",
    "augmented_lagrangian": "with multipliers: a multiplier with the wrong sign, one not carried "
                            "over, or one added to the target instead of taken off",
    "quadratic_penalty": "without multipliers: λ must stay 0",
    "fixed_mu": "μ stays at mu0: a growth that is applied all the same",
    "growing_mu": "μ grows: updated before the multipliers instead of after, or one step late",
    "leaves_direct_compression": "the choice of the C step changes along the path: a θ that is "
                                 "computed once and kept",
}

BUDGETS = {"l0_ball": "kappa", "kmeans": "k", "rank_ball": "rank", "group_l0_ball": "kappa",
           "codebook_l0": "kappa", "scaled_binary_l0": "kappa", "kmeans_l0": "kappa",
           "l1_ball": "radius"}
MATRICES = ("group_l0_ball", "rank_ball", "rank_selection", "sum")
PENALTIES = ("l0_penalty", "l1_penalty", "rank_selection")


def of_the_weights(kind: str, w: np.ndarray) -> dict[str, bool]:
    """Flags that w alone decides."""
    magnitudes = np.abs(w).ravel().astype(float)
    largest, info = np.max(magnitudes, initial=0), np.finfo(w.dtype)
    nonzero = magnitudes[magnitudes > 0]
    moderate = 1e100 if w.dtype == np.float64 else 1e15
    return {
        "negative_zero": bool(np.any(np.signbit(w) & (w == 0))), "zeros": largest == 0 < w.size,
        "one_element": w.size == 1, "empty": w.size == 0, "float32": w.dtype == np.float32,
        "offset_1e8": w.size > 1 and np.min(magnitudes, initial=np.inf) >= 9e7
        and largest <= 2 * np.min(magnitudes),
        "duplicates": np.unique(w).size < w.size,
        "subnormal": bool(np.any(nonzero < info.smallest_normal)), "huge": largest > moderate,
        "tiny": float(info.smallest_normal) <= largest < 1 / moderate,
        "n_dimensional": w.ndim != (2 if kind in MATRICES else 1),
        "wide": kind in MATRICES and w.ndim == 2 and w.shape[0] < w.shape[1],
        "tall": kind in MATRICES and w.ndim == 2 and w.shape[0] > w.shape[1],
        "large": w.size >= 30,
    }


def limit(kind: str, w: np.ndarray, given: dict[str, Any]) -> Any:
    """The least budget at which w itself is feasible."""
    if kind == "group_l0_ball":
        return w.shape[given["axis"]]
    if kind == "rank_ball":
        return min(w.shape)
    if kind == "l1_ball":
        return sum(map(abs, fractions(w)))
    return np.unique(w).size if kind == "kmeans" else w.size


def of_the_budget(kind: str, w: np.ndarray, given: dict[str, Any]) -> dict[str, bool]:
    """Flags of the kinds that have a budget."""
    if kind not in BUDGETS:
        return {}
    budget, full = given[BUDGETS[kind]], limit(kind, w, given)
    top = float(np.max(np.abs(w), initial=0))
    surface = kind == "l1_ball" and 0 < abs(Fraction(budget) - full) * 2**50 <= full
    return {"zero_budget": budget == 0, "full_budget": w.size > 0 and budget >= full,
            "over_budget": budget > full, "outside": kind == "l1_ball" and budget < full,
            "full_rank": kind == "rank_ball" and budget >= full,
            "negative_axis": given.get("axis", 0) < 0,
            "small_radius": kind == "l1_ball" and 0 < 20 * budget <= top,
            "one_value": given.get("k") == 1,
            "radius_on_the_surface": kind == "l1_ball" and (surface or 0 < budget == full)}


def codebook_of(kind: str, given: dict[str, Any]) -> list[float] | None:
    """The entries that the kind fixes, whatever the scale."""
    if "codebook" in given:
        return np.ravel(given["codebook"]).tolist()
    if kind == "round_to":
        half = 2.0 ** (int(given["dtype"][3:]) - 1) if given["dtype"].startswith("int") else 0
        return [float(i) for i in range(-int(half), int(half))] or None
    return {"binary": [-1.0, 1.0], "ternary": [-1.0, 0.0, 1.0],
            "powers_of_two": powers(given.get("c", 0))}.get(kind)


def of_the_codebook(kind: str, w: np.ndarray, given: dict[str, Any]) -> dict[str, bool]:
    """Flags of the kinds with a codebook."""
    half = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}.get(given.get("dtype", ""))
    c = codebook_of(kind, given)
    if not c:
        return {"saturates": half is not None and bool(np.any(np.abs(w) > half))}
    scaled = kind in ("scaled_codebook", "round_to") or given.get("scale") is True
    return {"scaled": scaled, "no_zero_entry": 0.0 not in c,
            "asymmetric": sorted(-x for x in c) != c,
            "midpoint": not scaled and not nearest(w, c).unique}


def lloyd(x: list[Fraction], k: int) -> Fraction:
    """The distortion at which Lloyd's algorithm ends, from the middles of k equal shares."""
    x = sorted(x)
    centres = sorted({x[(2 * i + 1) * len(x) // (2 * k)] for i in range(k)})
    for _ in range(100):
        blocks: list[list[Fraction]] = [[] for _ in centres]
        for v in x:
            blocks[min(range(len(centres)), key=lambda i: abs(v - centres[i]))].append(v)
        before, centres = centres, [sum(b, Fraction(0)) / len(b) for b in blocks if b]
        if centres == before:
            break
    return sum((min((v - c) ** 2 for c in centres) for v in x), Fraction(0))


def of_the_optimum(kind: str, w: np.ndarray, given: dict[str, Any], found: Found,
                   tolerance: Fraction) -> dict[str, bool]:
    """Flags that need the optimum."""
    x, penalised = fractions(w), kind in PENALTIES
    norm, worse = sum((v * v for v in x), Fraction(0)), found.optimum + tolerance
    at_max = False
    if given.get("dtype", "").startswith("int") and norm:
        unit = max(map(abs, x)) / (2 ** (int(given["dtype"][3:]) - 1) - 1)
        at_max = sum((v - round(v / unit) * unit) ** 2 for v in x) > worse
    tau = float.fromhex(found.certificate.get("tau", "0x0p+0"))
    return {"tie": found.unique is False, "free": given.get("alpha") == 0,
            "equal_singular_values": kind[:4] == "rank" and found.unique is False,
            "already_feasible": not penalised and not found.optimum and w.size > 0,
            "threshold_on_an_entry": tau > 0 and Fraction(tau) in set(map(abs, x)),
            "local_optimum": kind == "kmeans" and w.size > 2 and lloyd(x, given["k"]) > worse,
            "scale_by_maximum_is_worse": at_max,
            "everything_dropped": found.optimum == norm > 0,
            "everything_kept": penalised and bool(norm) and kept_all(kind, x, w, given, found)}


def kept_all(kind, x, w, given, found):
    """Whether a penalty form keeps every weight, or the full rank, at a price."""
    if kind == "rank_selection":
        return found.certificate["rank"] == min(w.shape)
    tau = Fraction(given["alpha"]) / Fraction(given["mu"])
    return all(v * v > 2 * tau if kind == "l0_penalty" else abs(v) > tau for v in x)


def flags_of(kind: str, w: np.ndarray, given: dict[str, Any], found: Found,
             tolerance: Fraction) -> list[str]:
    """The flags of one case of a projection, in the order of FLAGS."""
    holds = {**of_the_weights(kind, w), **of_the_budget(kind, w, given),
             **of_the_codebook(kind, w, given),
             **of_the_optimum(kind, w, given, found, tolerance)}
    return [flag for flag in FLAGS if holds.get(flag)]

"""certify: feasible or not, and how far from the optimum, against exhaustive search."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcref.text import parse
from lcref.verify import oracles
from lcref.verify.certificates import certify

EXACT = [
    ("quantize(k=2)", None), ("quantize(codebook=(-1.0, 0.25, 1.0))", None),
    ("quantize(codebook=(-1.0, 0.25, 1.0), scale=True)", None), ("binary()", None),
    ("binary(scale=True)", None), ("ternary()", None), ("ternary(scale=True)", None),
    ("powersoftwo(c=3)", None), ("round(dtype='float16')", None),
    ("round(dtype='bfloat16')", None), ("round(dtype='int4')", None), ("prune(kappa=7)", None),
    ("prune(keep=0.25)", None), ("prune(radius=3.5)", None), ("prune(radius=0)", None),
    ("prune(alpha=0.1)", 0.5), ("prune(alpha=0.1, norm=1)", 0.5),
    ("prune(groups=3, axis=0)", None), ("prune(keep=0.5, axis=1)", None),
    ("lowrank(rank=1)", None), ("lowrank(rank=2, scheme=2)", None), ("lowrank(alpha=0.02)", 0.5),
    ("each(quantize(k=2))", None), ("each(binary(scale=True))", None),
    ("each(prune(kappa=3))", None), ("each(prune(radius=1.5))", None),
    ("each(prune(alpha=0.1))", 0.5), ("each(lowrank(alpha=0.02))", 0.5),
    ("quantize(k=2) + prune(kappa=4)", None), ("each(quantize(k=2)) + prune(keep=0.2)", None),
    ("each(quantize(k=2) + prune(kappa=2))", None), ("binary(scale=True) + prune(kappa=4)", None),
    ("quantize(codebook=(-1.0, 0.25, 1.0)) + prune(kappa=4)", None),
    ("powersoftwo(c=2) + prune(kappa=4)", None), ("prune(kappa=0) + quantize(k=2)", None)]
ALTERNATED = [
    ("lowrank(rank=1) + prune(kappa=4)", None), ("prune(radius=2.0) + quantize(k=2)", None),
    ("quantize(k=2) + binary(scale=True) + prune(kappa=1)", None),
    ("each(lowrank(rank=1) + prune(kappa=2))", None), ("prune(alpha=0.1) + quantize(k=2)", 0.5)]
# an entry that no point of the set has beside the others, and what the reason says
CHANGED = [
    ("quantize(k=2)", "distinct"), ("quantize(codebook=(-1.0, 0.25, 1.0))", "codebook"),
    ("quantize(codebook=(-1.0, 0.25, 1.0), scale=True)", "scale"), ("binary()", "−1 and 1"),
    ("binary(scale=True)", "−a and a"), ("ternary(scale=True)", "−a, 0 and a"),
    ("powersoftwo(c=3)", "power of two"), ("round(dtype='float16')", "representable"),
    ("round(dtype='int4')", "representable"), ("prune(radius=3.5)", "‖θ‖₁"),
    ("lowrank(rank=1)", "rank"), ("lowrank(rank=2, scheme=2)", "rank"),
    ("each(quantize(k=2))", "dense: "), ("quantize(k=2) + prune(kappa=0)", "correction"),
    ("binary(scale=True) + prune(kappa=0)", "correction")]


def weights(dtype="float64", seed=0):
    """A matrix and a convolution."""
    rng = np.random.default_rng(seed)
    return {"dense": rng.standard_normal((4, 5)).astype(dtype),
            "conv": rng.standard_normal((4, 3, 2, 2)).astype(dtype)}


def solved(text, w, mu=None):
    return parse(text).project(w, mu)


def vectors(least, most):
    return st.lists(st.floats(-8, 8, width=16), min_size=least, max_size=most).map(np.array)


# ---- the right answers

@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("text, mu", EXACT)
def test_an_exact_c_step_is_certified_optimal(text, mu, dtype):
    w = weights(dtype)
    found = certify(w, solved(text, w, mu), text, mu)
    assert found.optimal and not found.beaten and not found.reason, str(found)


@pytest.mark.parametrize("text, mu", EXACT)
def test_its_arrays_alone_are_certified_optimal(text, mu):
    w = weights()
    assert certify(w, solved(text, w, mu).decompress(), text, mu).optimal


@pytest.mark.parametrize("text, mu", ALTERNATED)
def test_an_alternated_c_step_is_feasible_and_not_beaten(text, mu):
    w = weights()
    found = certify(w, solved(text, w, mu), text, mu)
    assert found.feasible and not found.beaten and found.bound == 0, str(found)


def test_a_sum_may_be_given_as_a_tuple_of_parts():
    w, text = weights(), "lowrank(rank=1) + prune(kappa=4)"
    parts = tuple(part.decompress() for part in solved(text, w).parts)
    assert certify(w, parts, text).feasible


def test_an_alternated_sum_in_total_alone_asks_for_its_parts():
    w, text = weights(), "lowrank(rank=1) + prune(kappa=4)"
    assert "give the parts" in certify(w, solved(text, w).decompress(), text).reason


def test_the_parts_of_a_sum_are_counted():
    w, text = weights(), "lowrank(rank=1) + prune(kappa=4)"
    zero = {name: 0 * x for name, x in w.items()}
    assert certify(w, (zero, zero, zero), text).reason == "3 parts for a sum of 2"


def test_a_part_of_a_sum_that_is_not_feasible_is_named():
    w, text = weights(), "lowrank(rank=1) + prune(kappa=4)"
    zero = {name: 0 * x for name, x in w.items()}
    assert certify(w, (zero, w), text).reason.startswith("part 2: ")


def test_one_array_needs_no_name():
    w = weights()["dense"]
    assert certify(w, solved("quantize(k=2)", w), "quantize(k=2)").optimal


def test_one_named_tensor_is_certified():
    w = {"dense": weights()["dense"]}
    assert certify(w, {"dense": solved("quantize(k=2)", w).decompress()}, "quantize(k=2)").optimal


def test_the_part_of_one_named_tensor_is_certified():
    w = {"dense": weights()["dense"]}
    assert certify(w, solved("quantize(k=2)", w), "quantize(k=2)").optimal


def test_the_order_of_the_names_does_not_matter():
    w = weights()
    theta = solved("quantize(k=2)", w).decompress()
    assert certify(w, dict(reversed(theta.items())), "quantize(k=2)").optimal


def test_tensors_that_were_not_compressed_are_left_out():
    w = weights()
    theta = {**solved("quantize(k=2)", w).decompress(), "bias": np.arange(3.0)}
    assert certify(w, theta, "quantize(k=2)").optimal


def test_a_compression_may_be_an_object():
    w = weights()
    assert certify(w, solved("binary()", w), parse("binary()")).optimal


# ---- the wrong ones

@pytest.mark.parametrize("text, reason", CHANGED)
def test_a_changed_entry_is_infeasible_with_a_reason(text, reason):
    w = weights()
    theta = solved(text, w).decompress()
    theta["dense"] = theta["dense"].copy()
    theta["dense"][1, 1] += 3.14159
    found = certify(w, theta, text)
    assert not found.feasible and not found.optimal and reason in found.reason


@pytest.mark.parametrize("text", ["prune(kappa=7)", "prune(keep=0.25)", "prune(groups=3, axis=0)",
                                  "prune(keep=0.5, axis=1)", "each(prune(kappa=3))"])
def test_one_nonzero_too_many_is_infeasible(text):
    w = weights()
    theta = {name: x.copy() for name, x in solved(text, w).decompress().items()}
    theta["dense"].flat[np.flatnonzero(theta["dense"] == 0)[0]] = 1.0
    assert "more than κ" in certify(w, theta, text).reason


def test_an_infeasible_result_says_so_in_the_first_line():
    w = weights()
    assert str(certify(w, w, "quantize(k=2)")).startswith("feasible: NO: there are more than k")


def test_a_feasible_worse_point_is_beaten():
    # kept 1 where 2 is best: 4 + 0 instead of 1 + 0
    assert certify(np.array([1.0, 2.0, 0.0]), np.array([1.0, 0, 0]), "prune(kappa=1)").beaten


def test_its_excess_is_the_distance_to_the_optimum():
    found = certify(np.array([1.0, 2.0, 0.0]), np.array([1.0, 0, 0]), "prune(kappa=1)")
    assert (found.objective, found.bound, found.best, found.excess) == (4.0, 1.0, 1.0, 3.0)


def test_a_beaten_result_says_so_with_its_excess():
    found = certify(np.array([1.0, 2.0, 0.0]), np.array([1.0, 0, 0]), "prune(kappa=1)")
    assert "optimal: NO; at most 3 above the optimum (300.000%)" in str(found)


def test_a_penalty_is_part_of_the_objective():
    # 2α/μ = 1: the weight 3 is worth its price, 0.5 is not
    found = certify(np.array([3.0, 0.5]), np.array([3.0, 0.5]), "prune(alpha=1.0)", 2.0)
    assert (found.objective, found.bound) == (2.0, 1.25)


def test_a_penalty_of_each_tensor_is_part_of_the_objective():
    w = {"a": np.array([3.0]), "b": np.array([0.5])}
    found = certify(w, w, "each(prune(alpha=1.0))", 2.0)
    assert (found.objective, found.bound) == (2.0, 1.25)


def test_a_penalty_of_a_part_is_part_of_the_objective():
    w = np.array([3.0, 0.5])
    found = certify(w, (w, 0 * w), "prune(alpha=1.0) + quantize(codebook=(0.0,))", 2.0)
    assert found.objective == 2.0


def test_a_result_better_than_the_alternation_is_the_best_known():
    # the alternation stops above 0 here, and w = Δ1 + Δ2 by construction
    rng = np.random.default_rng(3)
    low = np.outer(rng.standard_normal(6), rng.standard_normal(6))
    sparse = np.where(rng.random((6, 6)) < 0.3, rng.standard_normal((6, 6)), 0)
    text = f"lowrank(rank=1) + prune(kappa={np.count_nonzero(sparse)})"
    found = certify(low + sparse, (low, sparse), text)
    assert found.feasible and found.best <= found.objective <= found.tolerance


# ---- the bounds, against exhaustive search

SMALL = {
    "kmeans": lambda w, n: (f"quantize(k={n})", oracles.kmeans(w, n)),
    "binary": lambda w, n: ("binary(scale=True)", oracles.binary(w, True)),
    "ternary": lambda w, n: ("ternary(scale=True)", oracles.ternary(w, True)),
    "nearest": lambda w, n: ("quantize(codebook=(-1.0, 0.25))", oracles.nearest(w, [-1, 0.25])),
    "scaled_codebook": lambda w, n: ("quantize(codebook=(-1.0, 0.25), scale=True)",
                                     oracles.scaled_codebook(w, [-1, 0.25])),
    "powers_of_two": lambda w, n: (f"powersoftwo(c={n})", oracles.powers_of_two(w, n)),
    "round_to": lambda w, n: ("round(dtype='int2')", oracles.round_to(w, "int2")),
    "l0_ball": lambda w, n: (f"prune(kappa={n})", oracles.l0_ball(w, n)),
    "l1_ball": lambda w, n: (f"prune(radius={n})", oracles.l1_ball(w, n)),
    "l0_penalty": lambda w, n: (f"prune(alpha={n})", oracles.l0_penalty(w, n, 0.5)),
    "l1_penalty": lambda w, n: (f"prune(alpha={n}, norm=1)", oracles.l1_penalty(w, n, 0.5)),
    "kmeans_l0": lambda w, n: (f"quantize(k={n}) + prune(kappa=1)", oracles.kmeans_l0(w, n, 1)),
    "scaled_binary_l0": lambda w, n: (f"binary(scale=True) + prune(kappa={n})",
                                      oracles.scaled_binary_l0(w, n))}


@pytest.mark.parametrize("kind", SMALL)
@given(w=vectors(1, 6), n=st.integers(1, 3))
def test_the_optimum_lies_between_the_bounds(kind, w, n):
    text, optimum = SMALL[kind](w, n)
    found = certify(w, 0 * w, text, 0.5)
    assert found.bound - found.tolerance <= optimum <= found.best + found.tolerance


@given(w=vectors(12, 12), rank=st.integers(0, 3))
def test_the_optimum_of_low_rank_lies_between_the_bounds(w, rank):
    w = w.reshape(3, 4)
    found = certify(w, 0 * w, f"lowrank(rank={rank})")
    optimum = oracles.rank_ball(w, rank)
    assert found.bound - found.tolerance <= optimum <= found.best + found.tolerance


@given(w=vectors(12, 12), kappa=st.integers(0, 4), axis=st.integers(0, 1))
def test_the_optimum_of_slices_lies_between_the_bounds(w, kappa, axis):
    w = w.reshape(3, 4)
    found = certify(w, 0 * w, f"prune(groups={kappa}, axis={axis})")
    optimum = oracles.group_l0_ball(w, kappa, axis)
    assert found.bound - found.tolerance <= optimum <= found.best + found.tolerance


@given(w=vectors(1, 6), codes=st.lists(st.booleans(), min_size=6, max_size=6))
def test_the_excess_of_any_two_values_is_right(w, codes):
    theta = np.where(codes[: w.size], 1.5, -0.5)
    found = certify(w, theta, "quantize(k=2)")
    right = float(np.sum((w - theta) ** 2) - oracles.kmeans(w, 2))
    assert abs(found.excess - right) <= found.tolerance


@given(w=vectors(1, 6), codes=st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_point_is_beaten_only_if_the_optimum_is_below_it(w, codes):
    theta = np.where(codes[: w.size], 1.5, -0.5)
    above = float(np.sum((w - theta) ** 2) - oracles.kmeans(w, 2))
    found = certify(w, theta, "quantize(k=2)")
    assert above > 0 if found.beaten else above <= 2 * found.tolerance


# ---- what cannot be judged

@pytest.mark.parametrize("theta, message", [
    ({"dense": np.zeros((4, 5))}, "lacks conv"),
    ({"dense": np.zeros((5, 4)), "conv": np.zeros((4, 3, 2, 2))}, "dense has shape"),
    ({"dense": np.full((4, 5), np.nan), "conv": np.zeros((4, 3, 2, 2))}, "dense has a NaN"),
    ({"dense": np.full((4, 5), np.inf), "conv": np.zeros((4, 3, 2, 2))}, "an infinity"),
    (np.zeros((4, 5)), "both be arrays, or both dicts")])
def test_a_result_that_does_not_fit_w_is_an_error(theta, message):
    with pytest.raises(ValueError, match=message):
        certify(weights(), theta, "quantize(k=2)")


def test_a_part_of_another_shape_is_an_error():
    w = weights()["dense"]
    with pytest.raises(ValueError, match="shape"):
        certify(w, (w, np.zeros(5)), "lowrank(rank=1) + prune(kappa=4)")


def test_a_nan_in_w_is_an_error():
    with pytest.raises(ValueError, match="NaN"):
        certify(np.array([1.0, np.nan]), np.zeros(2), "quantize(k=2)")


@pytest.mark.parametrize("text", ["prune(alpha=0.1)", "lowrank(alpha=0.1)",
                                  "each(prune(alpha=0.1))"])
def test_a_penalty_without_mu_is_an_error(text):
    w = {"dense": weights()["dense"]}
    with pytest.raises((ValueError, TypeError), match="mu"):
        certify(w, w, text)


def test_a_text_that_is_no_compression_is_an_error():
    with pytest.raises(ValueError, match="unknown compression"):
        certify(np.ones(2), np.ones(2), "quantise(k=2)")


# ---- full size

@pytest.mark.parametrize("text", ["quantize(k=2)", "prune(keep=0.01)", "each(binary(scale=True))",
                                  "lowrank(rank=3)"])
def test_a_large_layer_is_certified_in_seconds(text):
    w = np.random.default_rng(0).standard_normal((512, 4608)).astype("float32")
    theta, clock = solved(text, w), time.perf_counter()
    assert certify(w, theta, text).optimal
    assert time.perf_counter() - clock < 30


def vgg16():
    """Weights in the shapes of VGG16 with the classifier 512-512-10: 15.2 million of them."""
    outs = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    shapes = [(m, n, 3, 3) for m, n in zip(outs, [3, *outs])] + [(512, 512)] * 2 + [(10, 512)]
    rng = np.random.default_rng(0)
    return {f"layer{i}": rng.standard_normal(shape).astype("float32")
            for i, shape in enumerate(shapes)}


@pytest.mark.long
@pytest.mark.parametrize("text", ["quantize(k=2)", "prune(keep=0.01)", "each(binary(scale=True))",
                                  "lowrank(rank=3)"])
def test_the_weights_of_vgg16_are_certified_in_seconds(text):
    w = vgg16()
    theta, clock = solved(text, w), time.perf_counter()
    assert certify(w, theta, text).optimal
    assert time.perf_counter() - clock < 120


# ---- the tolerance excuses no mistake


@pytest.mark.parametrize("text", ["quantize(k=2)", "each(quantize(k=2))",
                                  "quantize(k=2) + prune(kappa=0)"])
def test_an_offset_excuses_no_worse_clusters(text):
    w = {"w": 1e8 + np.random.default_rng(0).normal(size=1000)}
    split = w["w"] > 1e8 + 1.0  # the best cut is near the mean, 1e8
    worse = {"w": np.where(split, w["w"][split].mean(), w["w"][~split].mean())}
    assert certify(w, worse, text).beaten


def test_the_scale_of_a_sum_with_corrections_is_not_excused_by_its_size():
    rng = np.random.default_rng(0)
    w = (1e8 + rng.normal(size=1000)) * rng.choice([-1, 1], size=1000)
    off = np.sign(w) * (np.mean(np.abs(w)) + 0.5)  # an excess of 0.25 a weight
    assert certify(w, off, "binary(scale=True) + prune(kappa=0)").beaten


def test_weights_whose_squares_overflow_are_refused():
    w = np.array([1e200, -1e200])
    with pytest.raises(ValueError, match="too large to be squared"):
        certify(w, 0 * w, "prune(kappa=0)")

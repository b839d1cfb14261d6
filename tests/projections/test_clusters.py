"""Buckets, blocks and samples: small arrays are taken apart as the largest are."""

import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import kmeans, l0_ball, l1_ball, there
from problems import PROBLEMS, answer, name_of, objective, slack, vectors

from lcref import parts, projections
from lcref.projections import clusters, priced, prune, scales
from lcref.projections.clusters import Ascending
from lcref.verify import oracles

pytestmark = pytest.mark.everywhere
left_of_cuts, running_sums, split = map(there, (clusters.left_of_cuts, clusters.running_sums,
                                                clusters.split))
sums, mean_and_spread = map(there, (Ascending.sums, Ascending.mean_and_spread))
largest = there(prune.largest)

PIECES = [(clusters, "BUCKETS", 1), (clusters, "ENOUGH", 1), (scales, "BUCKETS", 1),
          (priced, "BUCKETS", 1), (priced, "SMALL", 0), (parts, "BLOCK", 3), (prune, "SAMPLED", 4),
          (prune, "STRIDE", 2), (prune, "PASSES", 1)]


@contextlib.contextmanager
def in_pieces():
    """Buckets of a few weights, blocks of three and samples of every second."""
    before = [getattr(module, name) for module, name, _ in PIECES]
    for module, name, value in PIECES:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(PIECES, before):
            setattr(module, name, value)


# ---- the optimum, bit by bit


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@given(data=st.data())
def test_no_feasible_point_is_nearer_where_w_is_taken_apart(problem, count, data):
    w = data.draw(problem.weights(max_size=problem.small), label="w")
    budget = data.draw(problem.budgets(w), label="budget")
    with in_pieces():
        found = answer(problem, w, budget)
    gap = found.value - problem.optimum(w, budget)
    count(name_of(problem), w, budget, gap, found.slack)
    assert gap <= found.slack  # the published constant


@given(w=vectors(max_size=60), k=st.integers(1, 8))
def test_kmeans_reaches_the_optimum_over_intervals_by_buckets(w, k):
    with in_pieces():
        theta = kmeans(w, k).decompress()
    optimum = oracles.kmeans_intervals(w, k)
    assert objective(w, theta) <= optimum + slack(PROBLEMS["kmeans"], w, theta)


@pytest.mark.costly
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_kmeans_reaches_the_optimum_on_two_thousand_points_by_few_buckets(
        monkeypatch, dtype, k, offset):
    monkeypatch.setattr(clusters, "BUCKETS", 40)
    w = (np.random.default_rng(k).standard_t(2, size=2000) + offset).astype(dtype)
    theta = kmeans(w, k).decompress()
    optimum = oracles.kmeans_intervals(w, k)
    assert objective(w, theta) <= optimum + slack(PROBLEMS["kmeans"], w, theta)


def test_of_two_best_clusterings_that_mirror_each_other_one_is_found():
    half = np.array([1.0, 1.1, 1.2, 5.0, 5.1, 9.0])
    w = np.concatenate([-half, half])
    with in_pieces():
        theta = kmeans(w, 3).decompress()
    assert objective(w, theta) <= oracles.kmeans(w, 3) + slack(PROBLEMS["kmeans"], w, theta)


# ---- the bound


@given(w=vectors(max_size=12).filter(lambda w: np.unique(w).size > 2), data=st.data())
def test_clusters_with_a_cut_in_a_bucket_save_no_more_than_its_bound(w, data):
    w = np.sort(w.astype(np.float64))
    s = data.draw(st.integers(0, w.size - 2))
    e = data.draw(st.integers(s + 1, w.size - 1))
    u = w[e]
    if not w[s] < u:
        return
    scale = float(np.max(np.abs(w)))
    x = Ascending(w / scale)
    (n,), (total,) = left_of_cuts(x, np.array([s]), np.array([e]))
    bound = total**2 / n + (np.sum(x.values) - total) ** 2 / (w.size - n)
    cut = data.draw(st.floats(w[s], u).filter(lambda cut: cut > w[s])) / scale
    half = data.draw(st.floats(1e-3, 10))
    low, high = cut - half, cut + half  # centres whose midpoint lies in the bucket
    saved = np.sum(np.maximum(2 * low * x.values - low**2, 2 * high * x.values - high**2))
    # 12 sums of numbers up to 500, each off by its rounding
    assert saved <= bound + 1e-12


def test_a_bucket_of_one_weight_is_a_cut_behind_it():
    x = Ascending(np.array([-2.0, -1.0, 0.5, 4.0]))
    starts = np.arange(3)
    counts, sums = left_of_cuts(x, starts, starts + 1)
    assert (counts.tolist(), sums.tolist()) == ([1, 2, 3], [-2.0, -3.0, -2.5])


def test_buckets_are_split_into_about_as_many_and_cover_the_same_weights():
    starts, ends, whole = split(np.array([0, 100]), np.array([70, 101]), 10)
    assert (starts.tolist(), ends.tolist()) == (
        [*range(0, 70, 8), 100], [*range(8, 70, 8), 70, 101])
    assert whole.tolist() == [0] * 9 + [1]


# ---- sums


@pytest.mark.parametrize("origin", [0, 1, 5, 12])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("few", [0, 100])
def test_sums_run_outwards_from_the_origin(origin, power, few, monkeypatch):
    monkeypatch.setattr(clusters, "FEW", few)
    monkeypatch.setattr(parts, "BLOCK", 3)
    values = np.arange(-6.0, 7.0)
    x = Ascending(values, scale=2.0, centre=0.5, origin=origin)
    halves = (values / 2 - 0.5) ** power  # sums of a few halves and quarters are exact
    expected = [halves[origin:e].sum() if e >= origin else -halves[e:origin].sum()
                for e in range(14)]
    assert sums(x, np.arange(14), power).tolist() == expected


def test_the_spread_of_a_run_far_from_the_centre_keeps_its_digits(monkeypatch):
    monkeypatch.setattr(parts, "BLOCK", 3)
    x = Ascending(np.array([0.0, 1e9, 1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 4]))
    assert mean_and_spread(x, 1, 6) == (1e9 + 2, 10.0)


def test_running_sums_lose_one_rounding_and_not_one_a_step():
    x = np.full(100_000, 0.1)
    exact = np.arange(100_001) * 0.1  # each off by one rounding of the product
    assert np.max(np.abs(running_sums(x) - exact) / np.maximum(exact, 0.1)) <= 2 * 2.0**-52


# ---- selection from a sample


@pytest.mark.parametrize("kind", ["drawn", "ties", "periodic"])
@pytest.mark.parametrize("kappa", [1, 3000, 40_000])
def test_a_sample_chooses_the_same_as_a_stable_sort(kind, kappa):
    rng = np.random.default_rng(0)
    w = rng.normal(size=200_000)
    if kind == "ties":
        w = np.round(w, 1)
    if kind == "periodic":  # the sample sees the small ones alone
        w[::prune.STRIDE] *= 1e-3
    first = np.argsort(-np.abs(w), kind="stable")[:kappa]
    assert l0_ball(w, kappa).indices.tolist() == np.sort(first).tolist()


@pytest.mark.parametrize("kind", ["drawn", "periodic", "small"])
@pytest.mark.parametrize("share", [1e-4, 0.1, 0.9, 1.1])
def test_a_sample_finds_the_threshold_of_the_l1_ball_that_a_sort_finds(kind, share):
    w = np.random.default_rng(0).normal(size=100_000)
    if kind == "periodic":  # the sample sees the small ones alone, or the large ones
        w[::prune.STRIDE] *= 1e-3
    if kind == "small":
        w[np.arange(w.size) % prune.STRIDE > 0] *= 1e-3
    radius = share * np.sum(np.abs(w))
    descending = np.sort(np.abs(w))[::-1]
    thresholds = (np.cumsum(descending) - radius) / np.arange(1, w.size + 1)
    tau = max(0.0, thresholds[np.flatnonzero(descending > thresholds)[-1]])
    expected = np.sign(w) * np.maximum(np.abs(w) - tau, 0)
    # the textbook's running sum of 10⁵ terms is off by its roundings
    np.testing.assert_allclose(l1_ball(w, radius).decompress(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("sampled", [4, 10**9])
def test_the_largest_values_of_pieces_end_to_end_are_found(sampled, monkeypatch):
    for name, value in (("SAMPLED", sampled), ("STRIDE", 2)):
        monkeypatch.setattr(prune, name, value)
    x, y = np.array([0.0, 3, -1, 0.5, 0.25, 0, 0, 0.1]), np.array([1.0, -4, 1, 0])
    pieces = [(lambda x: 2 * x, (x,)), (lambda a, b: a - b, (y, np.array([0.0, 0, 3, 0])))]
    positions, values = largest(pieces, 2)
    assert (positions.tolist(), values.tolist()) == ([1, 9], [6.0, -4.0])
    positions, values = largest(pieces, 4)  # of the three that tie, the lower indices
    assert (positions.tolist(), values.tolist()) == ([1, 2, 9, 10], [6.0, -2.0, -4.0, -2.0])


# ---- memory

ROWS = {"nearest": ([-0.1, 0.0, 0.1],), "binary": (True,), "ternary": (True,),
        "powers_of_two": (3,), "scaled_codebook": ([-2.0, -1.0, 0.0, 1.0],), "kmeans": (16,),
        "l0_ball": (10_000,), "l1_ball": (10_000.0,), "l0_penalty": (0.01, 1.0),
        "l1_penalty": (0.1, 1.0), "round_to": ("int4",), "group_l0_ball": (100, 1),
        "rank_ball": (8,), "rank_selection": (3.0, 1.0), "codebook_l0": ([-0.1, 0.1], 10_000),
        "scaled_binary_l0": (10_000,), "kmeans_l0": (2, 10_000)}


def test_every_projection_has_a_row():
    assert sorted(ROWS) == projections.__all__


@pytest.mark.of_numpy
@pytest.mark.parametrize("name", ROWS)
def test_a_projection_takes_less_than_four_times_its_input(name):
    w = np.random.default_rng(0).normal(size=(300, 2700)) * 0.1
    project = getattr(projections, name)
    tracemalloc.start()
    try:
        project(w, *ROWS[name])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert w.nbytes + peak < 4 * w.nbytes

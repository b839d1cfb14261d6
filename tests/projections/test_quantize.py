"""Quantization: what holds of one projection only, and values worked by hand."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import PROBLEMS, objective, slack, vectors

from lcref.projections import binary, kmeans, ternary
from lcref.verify import oracles

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


@st.composite
def duplicates(draw):
    """Vectors with few distinct values, and a k around their number."""
    values = draw(st.lists(vectors(max_size=1).filter(len), min_size=1, max_size=5))
    pool = np.concatenate(values)
    w = pool[draw(st.lists(st.integers(0, pool.size - 1), min_size=1, max_size=20))]
    return w, draw(st.integers(1, 7))


# ---- kmeans


@given(w=vectors(max_size=60), k=st.integers(1, 8))
def test_kmeans_reaches_the_optimum_over_intervals(w, k):
    theta = kmeans(w, k).decompress()
    # the published constant; the dynamic programme's own error is 2000 times smaller
    optimum = oracles.kmeans_intervals(w, k)
    assert objective(w, theta) <= optimum + slack(PROBLEMS["kmeans"], w, theta)


@DTYPES
@pytest.mark.parametrize("k", [2, 3, 5, 8])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_kmeans_reaches_the_optimum_on_two_thousand_points(dtype, k, offset):
    rng = np.random.default_rng(k)
    w = (rng.standard_t(2, size=2000) + offset).astype(dtype)
    theta = kmeans(w, k).decompress()
    # the published constant; the dynamic programme's own error is 2000 times smaller
    optimum = oracles.kmeans_intervals(w, k)
    assert objective(w, theta) <= optimum + slack(PROBLEMS["kmeans"], w, theta)


@given(case=duplicates())
def test_kmeans_has_as_many_entries_as_there_are_values_up_to_k(case):
    w, k = case
    assert kmeans(w, k).entries.shape == (min(k, np.unique(w).size),)


@given(w=vectors(max_size=30), k=st.integers(1, 8))
def test_kmeans_uses_every_entry(w, k):
    part = kmeans(w, k)
    assert np.unique(part.codes).tolist() == list(range(part.entries.size))


@given(case=duplicates())
def test_kmeans_puts_equal_values_into_one_cluster(case):
    w, k = case
    codes = kmeans(w, k).codes
    assert all(np.unique(codes[w == value]).size == 1 for value in w)


@given(w=vectors(max_size=30).filter(len), k=st.integers(1, 8))
def test_kmeans_entries_lie_within_the_data(w, k):
    entries = kmeans(w, k).entries
    assert np.min(w) <= np.min(entries) and np.max(entries) <= np.max(w)


@given(w=vectors(max_size=30), k=st.integers(1, 8))
def test_kmeans_entries_ascend(w, k):
    entries = kmeans(w, k).entries
    assert np.all(entries[1:] > entries[:-1])


@given(case=duplicates(), more=st.integers(0, 3))
def test_kmeans_with_a_value_for_each_returns_w_itself(case, more):
    w = case[0] + 0.0  # −0 and 0 are one value
    theta = kmeans(w, np.unique(w).size + more).decompress()
    assert theta.tobytes() == w.tobytes()


@given(w=vectors(max_size=30).filter(len), k=st.integers(1, 8))
def test_kmeans_entries_are_the_means_of_their_clusters(w, k):
    part = kmeans(w, k)
    for code, entry in enumerate(part.entries):
        cluster = [Fraction(value) for value in w[part.codes == code].tolist()]
        mean = sum(cluster) / len(cluster)
        # centring moves the data by an eps of the largest magnitude, the u·M of the published
        # constant; 8·n·ε·spread, as published, for sums of n terms in float64
        spread = max(abs(x - mean) for x in map(Fraction, w.tolist()))
        moved = Fraction(float(np.finfo(w.dtype).eps)) * Fraction(float(np.max(np.abs(w))))
        assert abs(Fraction(float(entry)) - mean) <= moved + 8 * len(w) * spread / 2**52


def test_kmeans_of_one_cluster_is_the_mean():
    assert kmeans(np.array([1.0, 2.0, 6.0]), 1).decompress().tolist() == [3.0, 3.0, 3.0]


def test_kmeans_splits_where_lloyd_from_the_ends_gets_stuck():
    w = np.array([0.0, 1.0, 10.0, 11.0, 100.0])
    assert kmeans(w, 3).entries.tolist() == [0.5, 10.5, 100.0]


def test_kmeans_keeps_opposite_ends_of_the_floating_range_apart():
    largest = np.finfo(np.float64).max
    assert kmeans(np.array([-largest, largest]), 1).entries.tolist() == [0.0]


def test_kmeans_codes_follow_the_order_of_w_not_of_the_values():
    part = kmeans(np.array([[9.0, 0.0], [1.0, 10.0]]), 2)
    assert (part.codes.tolist(), part.entries.tolist()) == ([[1, 0], [0, 1]], [0.5, 9.5])


# ---- binary and ternary


@pytest.mark.parametrize("project", [binary, ternary])
@pytest.mark.parametrize("scale", [False, True])
@given(w=vectors(max_size=30))
def test_entries_of_a_fixed_pattern_do_not_descend(project, scale, w):
    entries = project(w, scale=scale).entries
    assert np.all(entries[1:] >= entries[:-1])


@DTYPES
def test_binary_takes_the_sign_and_zero_goes_up(dtype):
    w = np.array([-2.0, -1e-30, 0.0, 1e-30, 5.0], dtype)
    assert binary(w).decompress().tolist() == [-1.0, -1.0, 1.0, 1.0, 1.0]


@DTYPES
def test_scaled_binary_takes_the_mean_magnitude(dtype):
    w = np.array([-1.0, 2.0, -6.0], dtype)
    assert binary(w, scale=True).decompress().tolist() == [-3.0, 3.0, -3.0]


@DTYPES
def test_scaled_binary_of_zeros_is_zero(dtype):
    assert not np.any(binary(np.zeros(3, dtype), scale=True).decompress())


@DTYPES
def test_ternary_rounds_to_zero_under_one_half_only(dtype):
    below = np.nextafter(dtype(0.5), dtype(0))
    w = np.array([-0.5, -below, 0.0, below, 0.5, 3.0], dtype)
    assert ternary(w).decompress().tolist() == [-1.0, 0.0, 0.0, 0.0, 1.0, 1.0]


@DTYPES
def test_scaled_ternary_takes_the_mean_of_the_largest(dtype):
    # of 1, 5, 7: 7²/1 = 49, 12²/2 = 72, 13²/3 = 56.3, so the two largest stay
    w = np.array([1.0, -7.0, 5.0], dtype)
    assert ternary(w, scale=True).decompress().tolist() == [0.0, -6.0, 6.0]


@DTYPES
def test_scaled_ternary_keeps_the_smallest_number_of_all(dtype):
    w = np.zeros(4, dtype)
    w[3] = np.finfo(dtype).smallest_subnormal
    assert ternary(w, scale=True).decompress().tolist() == w.tolist()


@DTYPES
def test_the_mean_magnitude_of_the_largest_numbers_does_not_overflow(dtype):
    w = np.full(2, np.finfo(dtype).max, dtype)  # the mean of two is exact
    assert np.all(binary(w, scale=True).decompress() == w)

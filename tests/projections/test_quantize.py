"""Quantization: what holds of one projection only, and values worked by hand."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import (binary, kmeans, nearest, powers_of_two, round_to, scaled_codebook,
                    ternary)
from problems import PROBLEMS, codebooks, objective, slack, vectors

from lcref.parts import Codebook, Dense
from lcref.verify import oracles

pytestmark = pytest.mark.everywhere

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


@pytest.mark.costly
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


# ---- a given codebook


@DTYPES
@pytest.mark.parametrize("codebook, midpoint, chosen", [
    ([1.0, 2.0], 1.5, 1.0), ([-2.0, -1.0], -1.5, -1.0),  # the smaller magnitude
    ([0.0, 1.0], 0.5, 0.0), ([-1.0, 0.0], -0.5, 0.0), ([-1.0, 3.0], 1.0, -1.0),
    ([-3.0, 1.0], -1.0, 1.0),
    ([-1.0, 1.0], 0.0, -1.0), ([-1.0, 1.0], -0.0, -1.0),  # equal magnitudes: the smaller entry
])
def test_a_midpoint_goes_to_the_smaller_magnitude_then_the_smaller_entry(
    dtype, codebook, midpoint, chosen, place
):
    below, above = (np.nextafter(dtype(midpoint), dtype(end)) for end in (-9, 9))
    part = nearest(place(np.array([below, midpoint, above], dtype)), codebook)
    codes = [codebook.index(chosen) if i == 1 else i // 2 for i in range(3)]
    assert [int(part.codes[i]) for i in range(3)] == codes


@given(data=st.data(), w=vectors(max_size=30))
def test_nearest_takes_an_entry_at_the_least_distance_of_all(data, w):
    codebook = data.draw(codebooks(w))
    theta = nearest(w, codebook).decompress()
    for x, chosen in zip(w.tolist(), theta.tolist()):
        off = [abs(Fraction(x) - Fraction(c)) for c in codebook]
        # a midpoint is rounded once in float64
        near = Fraction(max(map(abs, codebook))) / 2**52
        assert abs(Fraction(x) - Fraction(chosen)) <= min(off) + near


@given(data=st.data(), w=vectors(max_size=30))
def test_nearest_leaves_the_entries_of_the_codebook_alone(data, w):
    codebook = data.draw(codebooks(w))
    x = np.array(codebook, w.dtype)
    part = nearest(x, codebook)
    assert part.decompress().tolist() == x.tolist() == part.entries.tolist()


def test_nearest_sees_the_midpoint_of_subnormal_numbers():
    h = np.finfo(np.float64).smallest_subnormal
    w = np.array([4, 6]) * h  # 5·h lies between 3·h and 7·h, of which the halves are not numbers
    assert nearest(w, [3 * h, 7 * h]).codes.tolist() == [0, 1]


def test_nearest_sees_the_midpoint_of_the_largest_numbers():
    largest = float(np.finfo(np.float64).max)
    w = np.array([-largest, -1.0, 1.0, largest])
    assert nearest(w, [-largest, largest]).codes.tolist() == [0, 0, 1, 1]


@DTYPES
def test_nearest_of_a_matrix_is_worked_by_hand(dtype):
    part = nearest(np.array([[0.2, -9.0], [5.0, 1.1]], dtype), [-1, 0.5, 2])
    assert (part.codes.tolist(), part.entries.tolist()) == ([[1, 0], [2, 1]], [-1.0, 0.5, 2.0])
    assert part.bits() == 4 * 2  # a fixed codebook is not stored


def test_nearest_of_one_entry_is_that_entry():
    assert nearest(np.array([-9.0, 3.0]), [2.5]).decompress().tolist() == [2.5, 2.5]


def test_codes_beyond_256_entries_do_not_wrap_around():
    w = np.arange(300.0)
    assert nearest(w, w).decompress().tolist() == w.tolist()


@DTYPES
def test_powers_of_two_are_worked_by_hand(dtype):
    # 0.75 lies midway between 1/2 and 1, 0.125 between 0 and 1/4
    w = np.array([9.0, 0.8, 0.75, 0.3, 0.125, 0.126, -0.6, -0.1], dtype)
    theta = powers_of_two(w, 2).decompress()
    assert theta.tolist() == [1.0, 1.0, 0.5, 0.25, 0.0, 0.25, -0.5, 0.0]


@pytest.mark.parametrize("c", [0, 1, 7])
def test_powers_of_two_have_2c_plus_3_entries(c):
    entries = powers_of_two(np.zeros(1), c).entries.tolist()
    assert len(entries) == 2 * c + 3 and entries == [-x for x in entries[::-1]]


@given(w=vectors(max_size=30))
def test_powers_of_two_with_c_zero_are_the_ternary_numbers(w):
    # but at one half, which ternary rounds away from zero
    w = np.where(np.abs(w) == 0.5, 0, w)
    assert powers_of_two(w, 0).decompress().tolist() == ternary(w).decompress().tolist()


# ---- a codebook times a free scale


@DTYPES
def test_the_scaled_codebook_is_worked_by_hand(dtype):
    # (2, 1, −5) on (½, ½, −1): P = 6.5, Q = 1.5, a = 13/3, which no other pattern beats
    part = scaled_codebook(np.array([2.0, 1.0, -5.0], dtype), [-1.0, 0.5])
    assert part.codes.tolist() == [1, 1, 0]
    # one rounding in float64, one to w's dtype
    np.testing.assert_allclose(part.entries, [-13 / 3, 13 / 6], rtol=np.finfo(dtype).eps)
    assert part.bits() == 3 + 32  # one bit a code, and the scale


@DTYPES
def test_the_scale_may_be_so_large_that_all_but_a_few_weights_take_the_least_entry(dtype):
    # a = 4 on (0, 0, 1): the two small ones save less than they would move a
    w = np.array([0.5, -1.0, 4.0], dtype)
    assert scaled_codebook(w, [0.0, 1.0]).decompress().tolist() == [0.0, 0.0, 4.0]


@pytest.mark.costly
@DTYPES
@pytest.mark.parametrize("codebook", [[-2.0, -1.0, 0.0, 1.0], [1.0, 3.0, 4.0], [-5.0, 0.5, 2.0]])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_no_scale_that_any_weight_changes_its_entry_at_beats_the_scaled_codebook(
    dtype, codebook, offset
):
    w = (np.random.default_rng(0).standard_t(2, size=300) + offset).astype(dtype)
    theta = scaled_codebook(w, codebook).decompress()
    value, allowed = objective(w, theta), slack(PROBLEMS["scaled_codebook"], w, theta)
    c, x = np.array(codebook), w.astype(np.float64)
    scales = np.divide.outer(x, [(p + q) / 2 for p in c for q in c if p + q]).ravel()
    for a in np.unique(np.abs(scales))[::25]:
        s = c[np.argmin(np.abs(x[:, None] - a * c), axis=1)].tolist()  # then its best scale
        along = sum(Fraction(v) * Fraction(i) for v, i in zip(w.tolist(), s))
        best = max(along, 0) / (sum(Fraction(i) ** 2 for i in s) or 1)
        optimum = sum((Fraction(v) - best * Fraction(i)) ** 2 for v, i in zip(w.tolist(), s))
        # the published constant
        assert value <= optimum + allowed


@DTYPES
def test_the_pattern_of_an_infinite_scale_is_tried(dtype):
    # every weight at the 1 next to zero saves 7.125² / 3 = 16.9; with −2 it is 9.75² / 6 = 15.8
    w = np.array([4.0, 4.0, -0.875], dtype)
    assert scaled_codebook(w, [-2.0, 1.0]).decompress().tolist() == [2.375] * 3


@DTYPES
def test_a_codebook_of_one_entry_is_scaled_to_the_mean(dtype):
    w = np.array([4.0, 8.0, 6.0], dtype)
    assert scaled_codebook(w, [2.0]).decompress().tolist() == [6.0] * 3


@DTYPES
def test_a_scale_may_not_be_negative(dtype):
    assert not np.any(scaled_codebook(np.array([-1.0, -3.0], dtype), [1.0, 2.0]).decompress())


@given(w=vectors(max_size=30))
def test_the_codebook_of_two_signs_is_scaled_binary(w):
    theta, other = scaled_codebook(w, [-1, 1]).decompress(), binary(w, scale=True).decompress()
    # both are within their slack of the same optimum
    allowed = max(slack(PROBLEMS["scaled_binary"], w, x) for x in (theta, other))
    assert abs(objective(w, theta) - objective(w, other)) <= allowed


@given(w=vectors(max_size=30))
def test_the_codebook_of_two_signs_and_zero_is_scaled_ternary(w):
    theta, other = scaled_codebook(w, [-1, 0, 1]).decompress(), ternary(w, scale=True).decompress()
    # both are within their slack of the same optimum
    allowed = max(slack(PROBLEMS["scaled_ternary"], w, x) for x in (theta, other))
    assert abs(objective(w, theta) - objective(w, other)) <= allowed


@given(data=st.data(), w=vectors(max_size=30), exponent=st.sampled_from([-60, -1, 3, 50]))
def test_a_codebook_that_is_scaled_already_gives_the_same_theta(data, w, exponent):
    w = w.astype(np.float64)
    codebook = data.draw(codebooks(w, unit=1.0))
    scaled = scaled_codebook(w, [c * 2.0**exponent for c in codebook]).decompress()
    assert scaled.tolist() == scaled_codebook(w, codebook).decompress().tolist()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("codebook", [range(-128, 128), [-1000.0, 0.25, 1.0]])
def test_no_entry_of_the_scaled_codebook_overflows(dtype, codebook):
    w = np.array([np.finfo(dtype).max], dtype)
    part = scaled_codebook(w, [float(c) for c in codebook])
    assert np.all(np.isfinite(part.entries))
    assert part.decompress().tolist() == w.tolist()


# ---- rounding to another dtype


FLOATS = pytest.mark.parametrize("name", ["float16", "bfloat16"])


@given(w=vectors(max_size=30))
def test_rounding_to_float16_is_as_near_as_that_of_numpy(w):
    w = np.clip(w, -65504, 65504)
    theta = round_to(w, "float16").decompress()
    assert objective(w, theta) == objective(w, w.astype(np.float16))


@pytest.mark.costly
@FLOATS
@DTYPES
def test_rounding_reaches_the_nearest_at_every_representable_number_and_beside_it(name, dtype):
    every = np.array(oracles.representable(name))[:: 37]
    w = np.concatenate([every, every * (1 + 2.0**-12), every * (1 - 2.0**-8)]).astype(dtype)
    theta = round_to(w, name).decompress()
    assert objective(w, theta) == oracles.round_to(w, name)


@FLOATS
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_rounding_saturates_at_the_largest_number_of_both_dtypes(name, dtype):
    largest = float(np.finfo(dtype).max)
    both = max(x for x in oracles.representable(name) if x <= largest)
    theta = round_to(np.array([largest, -largest], dtype), name).decompress()
    assert theta.tolist() == [both, -both]


@FLOATS
@given(w=vectors(max_size=30))
def test_rounding_twice_is_rounding_once(name, w):
    once = round_to(w, name).decompress()
    assert round_to(once, name).decompress().tobytes() == once.tobytes()


@DTYPES
def test_rounding_is_worked_by_hand(dtype):
    w = np.array([1 + 2**-7, 1 + 2**-9, 257.5, -1e-30, 3e38], dtype)
    theta = round_to(w, "bfloat16").decompress()
    # 8 digits: 2⁻⁹ is a quarter of the spacing at 1, and 256, 258 are neighbours
    assert theta[:3].tolist() == [1 + 2**-7, 1.0, 258.0]
    half = round_to(np.array([2049.5, 2.0**-24, 2.0**-26, 1e5], dtype), "float16")
    assert half.decompress().tolist() == [2050.0, 2.0**-24, 0.0, 65504.0]


@FLOATS
def test_a_rounded_weight_is_stored_in_16_bits(name):
    part = round_to(np.ones((2, 3)), name)
    assert isinstance(part, Dense)
    assert (part.bits("float32"), part.bits("float16")) == (6 * 16, 6 * 16)


@pytest.mark.parametrize("bits", range(2, 9))
def test_integers_of_n_bits_are_their_own_rounding(bits):
    w = np.arange(-2.0 ** (bits - 1), 2.0 ** (bits - 1))
    part = round_to(w, f"int{bits}")
    assert isinstance(part, Codebook)
    assert part.decompress().tolist() == w.tolist()
    assert part.bits() == bits * 2**bits + 32


def test_integers_are_scaled_better_than_to_the_largest_magnitude():
    w = np.array([1.0, 1.0, 1.0, 1.6])
    theta = round_to(w, "int2").decompress()  # {−2, −1, 0, 1}·a: a = 1.15, not 1.6
    assert theta.tolist() == [1.15] * 4

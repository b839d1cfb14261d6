"""Where NumPy has a text of its own, it is held equal to that of the array standard."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import PLACES, moved, on_host

from lcref import parts
from lcref.projections import clusters, outliers, priced, prune

there = PLACES["array_api_strict-device1"]
VALUES = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-9, 9)), min_size=1,
                  max_size=40).map(np.array)  # with ties


def both(function, *args):
    """The answers of NumPy's text and of the standard's, each to copies of its own."""
    host, far = moved(args, np.copy), moved(args, there)
    return function(*host), moved(function(*far), on_host)


def same(one, other):
    assert one.dtype == other.dtype and one.tolist() == other.tolist()


@given(x=VALUES, data=st.data())
def test_the_k_th_largest_magnitude_by_selection_is_that_of_a_sort(x, data):
    k = data.draw(st.integers(1, x.size))
    one, other = both(lambda x: prune._kth_largest(x, k), x)
    assert float(one) == float(other)


@given(x=VALUES, data=st.data())
def test_the_first_maximum_of_segments_by_reduceat_is_that_by_doubling(x, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, x.size - 1)) if x.size > 1 else st.just(())))
    starts, ends = np.array([0, *cuts]), np.array([*cuts, x.size])
    same(*both(clusters._segment_argmax, x, starts, ends - starts))


@given(x=VALUES)
def test_the_running_minimum_of_numpy_is_that_by_doubling(x):
    same(*both(priced._running_minimum, x))


@pytest.mark.parametrize("spare", [0, 1, 30, 150, 250, 290])  # beyond 150 all is sorted
@pytest.mark.parametrize("decimals", [0, 9])  # with ties, and without
def test_the_ends_by_selection_are_those_of_a_sort(spare, decimals):
    x = np.round(np.random.default_rng(spare).normal(size=600), decimals)
    one, other = both(lambda x: outliers._ends_in_order(x, spare), x)
    for end in (slice(spare), slice(x.size - spare, None)):
        same(one[end], other[end])
    same(np.sort(one), other)  # and nothing is lost between them


@given(x=VALUES)
def test_a_vector_sorted_in_its_own_memory_is_one_sorted_anew(x):
    same(*both(lambda x: clusters.ascending(x, reuse=True), x))


@given(x=VALUES, data=st.data())
def test_the_first_sums_by_reduceat_are_the_running_sums(x, data):
    ends = np.array(sorted(data.draw(st.lists(st.integers(0, x.size), min_size=1, max_size=9))))
    one, other = both(clusters._first_sums, x, ends)
    # 40 numbers up to 9 are added up, with 40 roundings of 360 at most
    np.testing.assert_allclose(one, other, rtol=0, atol=40 * 360 * 2.0**-53)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("block", [1, 6, 10**6])
def test_the_norms_of_slices_by_blocks_of_rows_are_those_at_once(axis, block, monkeypatch):
    monkeypatch.setattr(prune, "BLOCK", block)
    w = np.arange(-12.0, 12.0).reshape(8, 3)  # whole numbers: exact
    same(*both(lambda w: prune._slice_norms(w, axis, 1.0), w))


@given(x=VALUES)
def test_corrections_put_at_their_positions_are_those_looked_up(x):
    kept = np.flatnonzero(x > 0)
    same(*both(lambda i, v: parts.Sparse(i, v, x.shape).decompress(), kept, x[kept]))


@pytest.mark.parametrize("n", [0, 1, 7, 8, 20])
def test_blocks_cover_a_vector_once_and_one_does_on_a_device(n, monkeypatch):
    monkeypatch.setattr(parts, "BLOCK", 8)
    for x, most in ((np.arange(n), 8), (there(np.arange(n)), max(n, 1))):
        ends = list(parts.block_ends(x))
        assert [i for i, j in ends for i in range(i, j)] == list(range(n))
        assert all(j - i <= most for i, j in ends) and len(ends) <= -(-n // most) + (n == 0)

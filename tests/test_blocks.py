"""Work in blocks of rows: every row once, in any number of threads, with the same bits."""
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from lcref import blocks
from lcref.blocks import in_blocks, workspace
from lcref.nets import build, lenet300, threads, value_and_grad
from lcref.nets.models import resnet


def step(net, params, x, labels):
    """Everything that one step computes, by name."""
    value, grads, statistics = value_and_grad(net)(params, x, labels)
    return {"loss": np.array(value), **grads, **statistics}


def problem(net, n, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return (net.init(rng, dtype), rng.normal(size=(n, *net.input_shape)).astype(dtype),
            rng.integers(0, net.classes, n))


def with_threads(n, f, *args):
    with threads(n):
        return f(*args)


def same_bits(one, other):
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert one[name].tobytes() == other[name].tobytes(), name


# ----- the blocks ----------------------------------------------------------------------------

@given(st.integers(0, 300), st.integers(1, 3 * blocks.BLOCK), st.integers(1, 3))
def test_the_blocks_hold_every_row_once_in_order_whatever_the_threads(rows, row_size, n):
    with threads(n):
        cut = in_blocks(lambda block: (block.start, block.stop), rows, row_size)
    assert [i for start, stop in cut for i in range(start, stop)] == list(range(rows))
    assert cut == in_blocks(lambda block: (block.start, block.stop), rows, row_size)
    for start, stop in cut:
        assert stop > start and (stop - start - 1) * row_size < blocks.BLOCK


@given(st.integers(0, 300), st.integers(1, 3 * blocks.BLOCK), st.integers(1, 20))
def test_blocks_end_at_multiples_of_what_is_asked_for(rows, row_size, multiple):
    cut = in_blocks(lambda block: (block.start, block.stop), rows, row_size, multiple)
    assert [i for start, stop in cut for i in range(start, stop)] == list(range(rows))
    assert all(start % multiple == 0 for start, _ in cut)


def test_work_that_fits_the_cache_is_one_block():
    assert in_blocks(lambda block: block, 8, blocks.BLOCK // 8) == [slice(0, 8)]
    assert len(in_blocks(lambda block: block, 8, blocks.BLOCK // 8 + 1)) > 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_results_are_in_the_order_of_the_rows(n):
    def work(block):
        time.sleep(0.002 * (block.start % 3 == 0))      # the first of three is the slowest
        return block.start
    with threads(n):
        assert in_blocks(work, 24, blocks.BLOCK) == list(range(24))


# ----- the threads ---------------------------------------------------------------------------

@pytest.mark.parametrize("n", [2, 3])
def test_n_threads_work_at_a_time(n):
    meet = threading.Barrier(n, timeout=20)
    with threads(n):
        names = in_blocks(lambda block: (meet.wait(), threading.get_ident())[1], n, blocks.BLOCK)
    assert len(set(names)) == n


def test_outside_and_with_one_thread_the_caller_does_all_the_work():
    def idents():
        return set(in_blocks(lambda block: (time.sleep(0.001), threading.get_ident())[1], 16,
                             blocks.BLOCK))
    assert idents() == {threading.get_ident()}
    with threads(2), threads(1):
        assert idents() == {threading.get_ident()}


@pytest.mark.parametrize("at", [0, 1])
def test_an_exception_in_any_thread_reaches_the_caller(at):
    here, meet = threading.get_ident(), threading.Barrier(2, timeout=20)

    def work(block):
        meet.wait()
        if (threading.get_ident() == here) == (at == 0):
            raise ArithmeticError(f"in block {block.start}")
        return 0
    with threads(2):
        with pytest.raises(ArithmeticError, match="in block [01]$"):
            in_blocks(work, 2, blocks.BLOCK)
        assert in_blocks(lambda block: block.start, 9, blocks.BLOCK) == list(range(9))


def test_floating_point_errors_are_treated_in_every_thread_as_the_caller_asks():
    huge, meet = np.full(4, 1e300), threading.Barrier(2, timeout=20)

    def work(block):
        meet.wait()
        return huge * huge
    with threads(2):
        with np.errstate(over="ignore"):    # a warning is an error in these tests
            assert np.isinf(in_blocks(work, 2, blocks.BLOCK)).all()
        for how in ("raise", "warn"):
            with np.errstate(over=how), pytest.raises((FloatingPointError, RuntimeWarning)):
                in_blocks(work, 2, blocks.BLOCK)


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def settings():
    return blas_threads(), (blocks._pool, blocks._threads)


def test_threads_restores_what_was_before_nested_and_after_an_exception():
    before = settings()
    with threads(3):
        assert set(blas_threads()) <= {1}
        outer = settings()
        with threads(2):
            assert settings()[1][1] == 2
        assert settings() == outer
        with pytest.raises(KeyError):
            with threads(1):
                raise KeyError
        assert settings() == outer
        meet = threading.Barrier(3, timeout=20)     # the outer pool still has its threads
        assert len(in_blocks(lambda block: meet.wait(), 3, blocks.BLOCK)) == 3
    assert settings() == before


def test_the_blas_has_one_thread_inside_and_what_it_had_after():
    with threadpool_limits(2, user_api="blas"):
        if 2 not in blas_threads():
            pytest.skip("this BLAS cannot be given two threads")
        for n in (1, 2):
            with threads(n):
                assert set(blas_threads()) == {1}
            assert 2 in blas_threads()


@pytest.mark.parametrize("n", [0, -1])
def test_under_one_thread_is_an_error_and_changes_nothing(n):
    before = settings()
    with pytest.raises(ValueError, match=f"at least 1, got {n}"):
        with threads(n):
            pass
    assert settings() == before


# ----- memory that is used again -------------------------------------------------------------

def test_a_workspace_keeps_its_memory_by_name_and_thread():
    one = workspace("test", 100, np.float32)
    assert one.shape == (100,) and one.dtype == np.float32
    assert np.shares_memory(one, workspace("test", 50, np.float64))
    assert not np.shares_memory(one, workspace("other", 100, np.float32))
    assert workspace("test", 1000, np.float64).shape == (1000,)
    meet = threading.Barrier(2, timeout=20)
    with threads(2):
        a, b = in_blocks(lambda block: (meet.wait(), workspace("test", 9, np.float64))[1], 2,
                         blocks.BLOCK)
    assert not np.shares_memory(a, b)


# ----- whole steps ---------------------------------------------------------------------------

@pytest.mark.parametrize("net, n, block", [
    (build("resnet20", (3, 32, 32), 10), 24, blocks.BLOCK), (resnet(8), 7, 1 << 15),
    (build("lenet5", (1, 28, 28), 10), 40, 1 << 16), (lenet300(), 256, blocks.BLOCK),
    (lenet300(), 65, 1 << 10), (build("nin", (3, 8, 8), 5), 5, 1 << 13)],
    ids=["resnet20", "resnet8", "lenet5", "lenet300", "lenet300-small", "nin"])
def test_a_step_has_the_same_bits_for_every_number_of_threads(net, n, block, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", block)
    params, x, labels = problem(net, n)

    def run(count):
        with threads(count):
            value, *dicts = value_and_grad(net)(params, x, labels, np.random.default_rng(1))
        return {"loss": np.array(value), **dicts[0], **dicts[1]}
    expected = run(1)
    assert set(expected) == {"loss", *net.shapes}
    for count in (2, 3, 2):
        same_bits(run(count), expected)


@pytest.mark.parametrize("net, n", [(resnet(8), 5), (build("lenet5", (1, 28, 28), 10), 6),
                                    (lenet300(20, 4), 33)], ids=["resnet8", "lenet5", "lenet300"])
@pytest.mark.parametrize("block", [1, 5000, 1 << 40])
def test_the_size_of_the_blocks_changes_a_step_by_rounding_only(net, n, block, monkeypatch):
    params, x, labels = problem(net, n, np.float64)
    expected = step(net, params, x, labels)
    monkeypatch.setattr(blocks, "BLOCK", block)
    for name, value in step(net, params, x, labels).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-11 * scale,
                                   err_msg=name)

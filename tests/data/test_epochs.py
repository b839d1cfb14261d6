"""Batches of an epoch against plain loops, and the threads that prepare them."""
import gc
import inspect
import threading
import time
import weakref

import numpy as np
import pytest

from lcref.data import batches

N = 23
X = np.arange(2 * N, dtype=np.float32).reshape(N, 2)
LABELS = np.arange(N) % 10


def halved(x):
    return x / 2


def noisy(x, rng):
    return x + rng.normal(size=x.shape)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("lcref-batches")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert threads() == []


def test_an_epoch_takes_the_rows_in_the_order_of_one_permutation(place):
    rng, twin = np.random.default_rng(3), np.random.default_rng(3)
    epoch = list(batches(place(X), place(LABELS), 5, rng))
    order = twin.permutation(N)
    assert rng.bit_generator.state == twin.bit_generator.state
    assert [x.shape for x, _ in epoch] == [(5, 2)] * 4 + [(3, 2)]
    for i, (x, labels) in enumerate(epoch):
        rows = order[5 * i:5 * i + 5]
        for array, whole in ((x, place(X)), (labels, place(LABELS))):
            assert (type(array), array.dtype, array.device) == (type(whole), whole.dtype,
                                                                whole.device)
            expected = np.array([(X if whole.ndim == 2 else LABELS)[row] for row in rows])
            assert bool((array == place(expected)).all() if type(array) is np.ndarray else
                        array.__array_namespace__().all(array == place(expected)))


@pytest.mark.parametrize("batch", [1, 7, N, 100])
@pytest.mark.parametrize("prepare", [None, halved, noisy])
def test_an_epoch_visits_every_row_once(batch, prepare):
    epoch = list(batches(X, LABELS, batch, np.random.default_rng(0), prepare, workers=2))
    assert len(epoch) == -(-N // batch)
    assert sorted(int(label) for _, labels in epoch for label in labels) == sorted(LABELS.tolist())
    if prepare is halved:
        assert sorted(2 * x[0] for x, _ in epoch for x in x) == X[:, 0].tolist()


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_prepared_batches_are_those_of_a_plain_loop_whatever_the_workers(workers):
    rng, twin = np.random.default_rng(4), np.random.default_rng(4)
    epoch = list(batches(X, LABELS, 4, rng, noisy, workers))
    order, seed = twin.permutation(N), int(twin.integers(2**63))
    assert rng.bit_generator.state == twin.bit_generator.state
    assert len(epoch) == 6
    for i, (x, labels) in enumerate(epoch):
        rows = order[4 * i:4 * i + 4]
        noise = np.random.default_rng((seed, i)).normal(size=(len(rows), 2))
        assert np.array_equal(x, X[rows] + noise) and np.array_equal(labels, LABELS[rows])


@pytest.mark.parametrize("prepare, seeds", [(None, 0), (halved, 0), (np.negative, 0), (noisy, 1)])
@pytest.mark.parametrize("read", [0, 1, 3])
def test_the_state_of_rng_does_not_depend_on_how_far_the_epoch_is_read(prepare, seeds, read):
    rng, twin = np.random.default_rng(5), np.random.default_rng(5)
    epoch = batches(X, LABELS, 4, rng, prepare)
    for _ in range(read):
        next(epoch)
    epoch.close()
    twin.permutation(N)
    for _ in range(seeds):
        twin.integers(2**63)
    assert rng.bit_generator.state == twin.bit_generator.state


def test_arrays_of_the_standard_are_prepared_in_the_caller_s_thread(place):
    seen = []

    def prepare(x):
        seen.append(threading.current_thread() is threading.main_thread())
        return -x

    x = place(X)
    epoch = list(batches(x, place(LABELS), 8, np.random.default_rng(0), prepare, workers=2))
    assert len(epoch) == len(seen) == 3
    assert set(seen) == {not isinstance(x, np.ndarray)}
    assert all(type(part) is type(x) for part, _ in epoch)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_at_most_workers_and_two_batches_are_in_memory(workers):
    alive, most, lock = [0], [0], threading.Lock()

    def add(change):
        with lock:
            alive[0] += change
            most[0] = max(most[0], alive[0])

    def prepare(x):
        y = x + 1
        add(1)
        weakref.finalize(y, add, -1)
        return y

    for i, (x, _) in enumerate(batches(X, LABELS, 1, np.random.default_rng(0), prepare, workers)):
        deadline = time.monotonic() + 30
        while i == 3 and alive[0] < workers + 1 and time.monotonic() < deadline:
            time.sleep(0.001)   # the threads get as far ahead as they should,
        if i < 6:
            time.sleep(0.03)    # and as they may
    assert workers < most[0] <= workers + 2


def test_two_workers_prepare_two_batches_at_the_same_time():
    both = threading.Barrier(2, timeout=30)

    def prepare(x):
        both.wait()     # returns when two threads are here
        return x

    assert len(list(batches(X, LABELS, 4, np.random.default_rng(0), prepare, workers=2))) == 6


def test_one_worker_prepares_a_batch_while_the_caller_has_the_one_before():
    started = [threading.Event() for _ in range(6)]
    calls = iter(started)

    def prepare(x):
        next(calls).set()
        return x

    epoch = batches(X, LABELS, 4, np.random.default_rng(0), prepare)
    for event in started:
        next(epoch)
        following = started.index(event) + 1
        assert following == 6 or started[following].wait(timeout=30)
    epoch.close()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("end", ["close", "drop", "break"])
def test_an_epoch_that_is_left_early_leaves_no_threads(workers, end):
    made = []

    def prepare(x):
        made.append(len(x))
        return x

    epoch = batches(X, LABELS, 1, np.random.default_rng(0), prepare, workers)
    for _ in epoch:
        assert threads()
        break
    if end == "close":
        epoch.close()
    del epoch
    gc.collect()
    assert threads() == [] and len(made) <= 2 + workers


def test_an_epoch_that_was_never_begun_starts_no_threads():
    epoch = batches(X, LABELS, 4, np.random.default_rng(0), halved, workers=2)
    assert threads() == []
    epoch.close()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_exception_in_prepare_is_raised_at_its_batch_and_ends_the_threads(workers):
    order = np.random.default_rng(6).permutation(N)
    bad = X[order[13], 0]       # in batch 3 of 4 rows

    def prepare(x):
        if bad in x[:, 0]:
            raise ArithmeticError("a bad row")
        return x

    epoch, got = batches(X, LABELS, 4, np.random.default_rng(6), prepare, workers), []
    with pytest.raises(ArithmeticError, match="a bad row"):
        for x, _ in epoch:
            got.append(x)
    assert np.array_equal(np.concatenate(got), X[order[:12]])
    assert threads() == [] and list(epoch) == []


def test_a_prepare_without_a_parameter_called_rng_is_given_none():
    def prepare(x, scale=3):
        return scale * x

    x, _ = next(batches(X, LABELS, N, np.random.default_rng(0), prepare))
    assert sorted(x[:, 0]) == (3 * X[:, 0]).tolist()


def test_a_built_in_function_without_a_signature_can_prepare():
    with pytest.raises(ValueError):
        inspect.signature(max)
    epoch = batches(X[:, 0], LABELS, 1, np.random.default_rng(0), max)
    assert sorted(x for x, _ in epoch) == X[:, 0].tolist()


@pytest.mark.parametrize("workers", [1, 2])
def test_no_rows_make_no_batches(workers):
    assert list(batches(X[:0], LABELS[:0], 4, np.random.default_rng(0), halved, workers)) == []


@pytest.mark.parametrize("change, says", [
    ({"labels": LABELS[:-1]}, "x has 23 rows, labels 22"),
    ({"batch": 0}, "batch must be an integer, at least 1, not 0"),
    ({"batch": 2.5}, "batch must be an integer"),
    ({"workers": 0}, "workers must be an integer, at least 1, not 0"),
    ({"first": -1}, "first must be an integer, at least 0, not -1"),
    ({"first": 7}, "first is 7, but there are 6 batches"),
])
def test_a_wrong_argument_is_an_error_at_once(change, says):
    arguments = {"x": X, "labels": LABELS, "batch": 4, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match=says):
        batches(**arguments | change)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("prepare", [None, halved, noisy])
def test_batches_that_are_skipped_change_none_that_follow_and_are_not_prepared(prepare, workers):
    def read(first, seen):
        rng = np.random.default_rng(5)

        def watched(x, rng):
            seen.append(x)
            return noisy(x, rng) if prepare is noisy else halved(x)
        found = batches(X, LABELS, 4, rng, watched if prepare else None, workers, first)
        return [(x.tobytes(), y.tobytes()) for x, y in found], rng.bit_generator.state
    every, state = read(0, [])
    for first in range(7):
        prepared: list = []
        found, state_found = read(first, prepared)
        assert found == every[first:] and state_found == state
        assert len(prepared) == (6 - first if prepare else 0)

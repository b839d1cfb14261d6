"""Turns are counted as stated, and the peak of memory is that of the arrays a call holds."""

import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from lcref.bench import timing


class Clock:
    """Time that passes only in the calls made by `call`."""

    def __init__(self, monkeypatch):
        self.now, self.log = 0.0, []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def call(self, name, *lasts):
        """A call that takes so many seconds at its first turn, its second, ...; the last stays."""
        left = list(lasts)

        def call():
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
        return call


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_calls_take_turns_and_the_first_turn_is_not_counted(clock):
    calls = [clock.call("a", 0.9, 0.1, 0.3), clock.call("b", 0.8, 0.2, 0.4)]
    assert timing.taking_turns(calls, 2) == [pytest.approx([0.1, 0.3]), pytest.approx([0.2, 0.4])]
    assert clock.log == ["a", "b"] * 3


@pytest.mark.parametrize("lasts, adapt, counted", [
    (1.0, True, 7), (1.1, True, 3), (5.0, True, 3), (5.1, True, 1), (5.1, False, 7)])
def test_a_slow_call_has_fewer_turns_unless_all_shall_have_as_many(clock, lasts, adapt, counted):
    times, quick = timing.taking_turns([clock.call("slow", lasts), clock.call("quick", 0.5)], 7,
                                       adapt)
    assert times == pytest.approx([lasts] * counted) and len(quick) == 7
    assert clock.log.count("slow") == max(counted, 1) + (counted > 1)


def test_never_more_turns_than_asked_for(clock):
    assert timing.taking_turns([clock.call("slow", 2.0)], 1) == [pytest.approx([2.0])]


def test_a_quick_call_is_repeated_until_a_turn_lasts_five_milliseconds(clock):
    times, = timing.taking_turns([clock.call("quick", 0.001)], 2)
    assert times == pytest.approx([0.001] * 2) and len(clock.log) == 1 + 2 * 6
    clock.log.clear()
    timing.taking_turns([clock.call("quicker", 1e-7)], 2)
    assert len(clock.log) == 1 + 2 * timing.REPEATS


def test_the_median_is_not_moved_by_one_turn_that_was_disturbed(clock):
    assert timing.medians([clock.call("a", 9.0, 0.2, 70.0, 0.1)], 3, adapt=False) == [
        pytest.approx(0.2)]


def test_what_grows_in_proportion_is_judged_from_a_hundredth_and_a_tenth():
    asked = []

    def measure(m):
        asked.append(m)
        return 2 * m
    assert timing.beyond(measure, 10**6, 2 * 10**6 - 1) and asked == [10**4]
    assert not timing.beyond(measure, 10**6, 2 * 10**6) and asked[1:] == [10**4, 10**5]
    assert not timing.beyond(measure, 9999, 0) and asked[3:] == []


def test_what_grows_faster_is_found_out_at_a_tenth():
    assert timing.beyond(lambda m: m**2, 10**5, 10 * 10**8 - 1)
    assert not timing.beyond(lambda m: m**2, 10**5, 10 * 10**8)


def test_the_peak_is_the_bytes_of_the_arrays_that_live_at_once():
    def result():
        return np.ones(10**6)

    def result_and_temporary():
        return np.sqrt(np.ones(10**6))

    def one_after_the_other():
        np.ones(10**6)
        return np.ones(10**6)
    for call, arrays in ((result, 1), (result_and_temporary, 2), (one_after_the_other, 1)):
        assert 8e6 * arrays <= timing.traced_peak(call) < 8e6 * arrays + 1e5


def test_arrays_that_were_there_before_are_not_counted():
    w = np.ones(10**6)
    assert timing.traced_peak(lambda: float(w[0])) < 1e5


def test_tracing_ends_also_where_the_call_raises():
    import tracemalloc

    with pytest.raises(ZeroDivisionError):
        timing.traced_peak(lambda: 1 / 0)
    assert not tracemalloc.is_tracing()


@pytest.mark.parametrize("threads", [1, 2])
def test_all_libraries_have_so_many_threads_inside_and_theirs_again_after(threads):
    before = {info["filepath"]: info["num_threads"] for info in threadpool_info()}
    with timing.limited(threads):
        inside = threadpool_info()
        assert inside and all(info["num_threads"] == threads for info in inside)
    after = {info["filepath"]: info["num_threads"] for info in threadpool_info()}
    assert {path: after[path] for path in before} == before


def test_torch_has_so_many_threads_inside_and_its_own_again_after():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    before = torch.get_num_threads()
    with timing.limited(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before

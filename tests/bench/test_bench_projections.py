"""A timing holds what was measured, compares objectives, and says what was left out and why."""

import dataclasses
import math
import sys

import numpy as np
import pytest

from lcref.bench import projections as bench
from lcref.bench.cases import BY_NAME, Case
from lcref.bench.peers import Peer


@pytest.fixture
def peers(monkeypatch):
    """Give l0_ball these peers, and no other: name -> (call, array)."""
    def put(**calls):
        rows = tuple(Peer(name, "numpy", call) for name, call in calls.items())
        monkeypatch.setitem(bench.PEERS, "l0_ball", rows)
    return put


def largest(w, kappa):
    """The κ largest by a full sort."""
    theta = np.zeros_like(w)
    kept = np.argsort(-np.abs(w))[:kappa]
    theta[kept] = w[kept]
    return theta


def timed(n=2000, **how):
    return bench.time_projection("l0_ball 1%", n, turns=1, **how)


# ---- the exponent

@pytest.mark.parametrize("power", [0.0, 1.0, 1.37, 2.0])
def test_the_exponent_of_a_power_law_is_its_power(power):
    points = [(n, 3e-9 * n**power) for n in (10**4, 10**5, 10**6, 10**7)]
    assert bench.exponent(points) == pytest.approx(power, abs=1e-12)


def test_the_exponent_is_the_least_squares_fit_of_the_logarithms():
    # log10 of n: 0, 1, 2; of seconds: 0, 0, 3; slope Σ(x − 1)y / Σ(x − 1)² = 3 / 2
    assert bench.exponent([(1, 1), (10, 1), (100, 1000)]) == pytest.approx(1.5)


def test_of_fewer_than_two_sizes_there_is_no_exponent():
    assert bench.exponent([]) is None
    assert bench.exponent([(10, 1.0)]) is None
    assert bench.exponent([(10, 1.0), (10, 2.0)]) is None


# ---- what is measured

@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ratios_are_those_of_the_seconds_and_the_objective_that_of_the_answer(peers, dtype):
    peers(sorted=largest)
    t = timed(dtype=dtype)
    assert (t.name, t.function, t.n, t.dtype, t.left_out) == (
        "l0_ball 1%", "l0_ball", 2000, dtype, "")
    assert t.sorts == pytest.approx(t.seconds / t.sort_seconds)
    assert t.copies == pytest.approx(t.seconds / t.copy_seconds)
    assert min(t.seconds, t.sort_seconds, t.copy_seconds) > 0
    w = BY_NAME["l0_ball 1%"].data(2000, dtype)
    dropped = np.sort(np.abs(w.astype(float)))[:-20]
    assert t.objective == pytest.approx(float(np.sum(dropped**2)), rel=1e-12)
    peer, = t.peers
    assert peer.faster == pytest.approx(peer.seconds / t.seconds)
    assert peer.objective == pytest.approx(t.objective, rel=1e-12) and peer.higher is False


def test_every_value_is_a_plain_number_or_text(peers):
    peers(sorted=largest)
    t = timed()
    for row in (t, *t.peers):
        for field in dataclasses.fields(row):
            assert type(getattr(row, field.name)) in (str, int, float, bool, tuple, type(None))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_memory_is_the_input_and_the_peak_of_the_call_in_units_of_the_input(monkeypatch, dtype):
    """Two arrays more that a call holds are two times the input more."""
    real = BY_NAME["l0_ball 1%"]

    class Wasteful(Case):
        def call(self, w, kappa):
            held = w.copy(), w.copy()
            return held and real.call(w, kappa)
    plain = timed(100_000, dtype=dtype, peers=False).memory
    monkeypatch.setitem(bench.BY_NAME, real.name, Wasteful(
        *(getattr(real, f.name) for f in dataclasses.fields(real))))
    assert plain > 1.01     # w and the result
    assert timed(100_000, dtype=dtype, peers=False).memory == pytest.approx(plain + 2, abs=0.05)


def test_without_peers_none_is_called(peers):
    def fails(w, kappa):
        raise AssertionError("called")
    peers(fails=fails)
    assert timed(peers=False).peers == ()


def test_a_matrix_of_a_million_entries_also_has_the_peak_of_a_fresh_process():
    t = bench.time_projection("group_l0_ball 3%", 10**6, turns=1, peers=False)
    # at least the input itself and the mask or norms; the process rounds to pages and caches
    assert 1 <= t.process_memory < 5
    assert bench.time_projection("group_l0_ball 3%", 2000, turns=1,
                                 peers=False).process_memory is None


# ---- objectives

def test_a_peer_with_a_lower_objective_is_seen(monkeypatch, peers):
    peers(sorted=largest)
    real = BY_NAME["l0_ball 1%"]

    class Worse(Case):
        def call(self, w, kappa):
            return real.call(w, kappa - 1)
    monkeypatch.setitem(bench.BY_NAME, real.name, Worse(
        *(getattr(real, f.name) for f in dataclasses.fields(real))))
    assert timed().peers[0].higher is True


def test_a_peer_that_is_not_feasible_is_not_compared(peers):
    def nothing(w, kappa):
        theta = largest(w, kappa)
        theta[np.flatnonzero(theta)[0]] = np.nan
        return theta
    peers(generous=lambda w, kappa: largest(w, kappa + 1), nothing=nothing)
    generous, nothing = timed().peers
    assert generous.higher is None and generous.objective < timed().objective
    assert nothing.higher is None and math.isnan(nothing.objective)


def test_a_worse_peer_does_not_make_lcref_higher(peers):
    peers(stingy=lambda w, kappa: largest(w, kappa - 1))
    peer, = timed().peers
    assert peer.higher is False and peer.objective > timed().objective


# ---- what is left out

def test_a_peer_that_is_not_installed_is_named_as_missing_and_the_others_are_timed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ckwrap", None)
    t = bench.time_projection("kmeans k=2", 1000, turns=1)
    found = {peer.package: peer for peer in t.peers}
    assert found["ckwrap"].left_out == "not installed"
    assert found["ckwrap"].seconds is found["ckwrap"].faster is found["ckwrap"].objective is None
    assert t.seconds > 0


def test_a_peer_that_raises_is_left_out_with_its_error(peers):
    def broken(w, kappa):
        raise RuntimeError("no such luck")
    peers(broken=broken, sorted=largest)
    first, second = timed().peers
    assert first.left_out == "raised RuntimeError: no such luck" and first.seconds is None
    assert second.left_out == "" and second.seconds > 0
    first, _ = timed(10_000).peers      # where it is tried on less data before
    assert first.left_out == "raised RuntimeError: no such luck"


def test_a_peer_that_would_take_too_long_is_not_called_at_that_size(peers, monkeypatch):
    asked = []

    def slow(w, kappa):
        asked.append(w.size)
        return largest(w, kappa)
    peers(slow=slow)
    monkeypatch.setattr(bench, "PATIENCE", 0.0)
    peer, = timed(20_000).peers
    assert peer.left_out == "would take over 0 s" and peer.seconds is None and asked == [2000]


def test_a_projection_that_would_take_too_long_or_all_memory_is_not_called(monkeypatch):
    monkeypatch.setattr(bench, "OWN_PATIENCE", 0.0)
    t = timed(20_000)
    assert (t.left_out, t.seconds, t.peers) == ("would take over 0 s", None, ())
    monkeypatch.setattr(bench, "free_memory", lambda: 1.0)
    assert timed(20_000).left_out == "would need more memory than is free"


@pytest.mark.parametrize("arguments, says", [
    (("l1_bal", 100), "unknown projection 'l1_bal'; did you mean 'l1_ball'"),
    (("binary", 0), "n and turns must be at least 1, got 0 and 7"),
    (("binary", 100, "float16"), "dtype must be 'float32' or 'float64'"),
    (("binary", 100, "float64", 1, 0), "n and turns must be at least 1, got 100 and 0")])
def test_wrong_arguments_are_refused(arguments, says):
    with pytest.raises(ValueError) as error:
        bench.time_projection(*arguments)
    assert says in str(error.value)

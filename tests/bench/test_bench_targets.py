"""The targets are those that were set, and a row is met only where all that it asks for holds."""

import pytest

from lcref.bench import targets as bench
from lcref.bench.lsteps import LStep
from lcref.bench.projections import PeerTiming, Timing

PEER = "kmeans1d.cluster"


def timing(seconds=0.01, n=10**6, peer_seconds=0.1, higher=False, left_out="", **how):
    peer = PeerTiming(PEER, "kmeans1d", "", peer_seconds, peer_seconds and peer_seconds / seconds,
                      3.5, higher, left_out)
    return Timing(**{"name": "kmeans k=2", "function": "kmeans", "n": n, "dtype": "float64",
                     "seconds": seconds, "sort_seconds": 0.02, "sorts": seconds / 0.02,
                     "memory": 3.0, "objective": 2.5, "peers": (peer,)} | how)


@pytest.fixture
def gives(monkeypatch):
    """Let every measurement of a projection, or of an L step, be this one."""
    def put(result):
        asked = []

        def measure(*arguments, **how):
            asked.append((arguments, how))
            return result
        monkeypatch.setattr(bench, "l_step" if isinstance(result, LStep) else "time_projection",
                            measure)
        return asked
    return put


# ---- the list

SET = {     # what: (against, bound, target)
    "kmeans k=2, n=1e6": [(PEER, "at least", 8), ("sklearn KMeans(n_init=10)", "at least", 50)],
    "kmeans k=16, n=266k": [(PEER, "at least", 1.2), ("sklearn KMeans(n_init=10)", "at least", 12)],
    "rank_ball r=8, 512 x 4608": [("scipy.linalg.svd", "at least", 3)],
    **{f"{name}, n=1e7": [("numpy.sort of abs(w)", "at most", 1.5)]
       for name in ("l0_ball 1%", "l1_ball", "ternary scale")},
    "scaled_binary_l0 3%, n=1e7": [("numpy.sort of abs(w)", "at most", 2)],
    "L step LeNet300, batch 256": [("PyTorch, eager float32", "at most", 1)],
    "L step ResNet20, batch 128": [("PyTorch, eager float32", "at most", 2)],
    "C step ResNet20, each(quantize(k=2)) + prune(keep=0.03)":
        [("L step of 15 epochs, %", "at most", 1)],
}
SIZES = {"kmeans k=2, n=1e6": 10**6, "kmeans k=16, n=266k": 266_000,
         "rank_ball r=8, 512 x 4608": 512 * 4608}


def test_the_targets_are_these_and_the_growth_of_every_projection():
    assert set(bench.TARGETS) == set(SET) | {f"growth of {case.name}" for case in bench.CASES}


@pytest.mark.parametrize("name", [name for name in SET if "step" not in name])
def test_a_target_of_a_projection_measures_it_at_its_size_against_what_was_set(name, gives):
    peers = tuple(PeerTiming(peer, "x", "", 1.0, 100.0, 3.5, False) for peer, _, _ in SET[name])
    asked = gives(timing(peers=peers))
    rows = bench.TARGETS[name](name, 2, 5)
    assert [(row.against, row.bound, row.target) for row in rows] == SET[name]
    (arguments, how), = asked
    assert name.startswith(arguments[0]) and arguments[1] == SIZES.get(name, 10**7)
    assert (how["threads"], how["turns"]) == (2, 5)


# ---- the verdict

@pytest.mark.parametrize("bound, measured, met", [
    ("at least", 8.0, True), ("at least", 7.99, False), ("at most", 8.0, True),
    ("at most", 8.01, False)])
def test_a_number_is_met_at_its_target_and_missed_beyond_it(bound, measured, met):
    row = bench.judged("w", "v", bound, 8.0, measured)
    assert row.met is met and row.measured == measured
    assert bench.judged("w", "v", bound, 8.0, measured, also=False).met is False
    assert bench.judged("w", "v", bound, 8.0, None).met is None


@pytest.mark.parametrize("how, met", [
    ({"peer_seconds": 0.08}, True), ({"peer_seconds": 0.079}, False),
    ({"peer_seconds": 0.5, "higher": True}, False), ({"peer_seconds": 0.5, "higher": None}, False)])
def test_a_peer_must_be_so_much_slower_and_have_no_lower_objective(how, met, gives):
    gives(timing(**how))
    row, = bench.against_peers("kmeans k=2", 10**6, {PEER: 8}, "the name", 1, 7)
    assert row.met is met and row.what == "the name"
    assert row.measured == pytest.approx(how["peer_seconds"] / 0.01)
    assert "objectives 2.5 and 3.5" in row.note
    assert ("lcref's is higher" in row.note) == bool(how.get("higher"))


def test_a_peer_that_is_missing_is_no_verdict_and_is_said(gives):
    gives(timing(peer_seconds=None, left_out="not installed"))
    row, = bench.against_peers("kmeans k=2", 10**6, {PEER: 8}, "the name", 1, 7)
    assert (row.measured, row.met, row.note) == (None, None, f"{PEER} not installed")


def test_a_projection_that_was_left_out_is_no_verdict_and_is_said(gives):
    gives(Timing("kmeans k=2", "kmeans", 10**7, "float64", left_out="would take over 120 s"))
    for rows in (bench.against_peers("kmeans k=2", 10**7, {PEER: 8}, "the name", 1, 7),
                 bench.against_sorts("kmeans k=2", 1.5, "the name", 1, 7)):
        row, = rows
        assert (row.measured, row.met, row.note) == (None, None, "would take over 120 s")


@pytest.mark.parametrize("seconds, met", [(0.03, True), (0.031, False)])
def test_a_slow_projection_misses_its_number_of_sorts(seconds, met, gives):
    gives(timing(seconds=seconds))
    row, = bench.against_sorts("l1_ball", 1.5, "the name", 1, 7)
    assert row.met is met and row.measured == pytest.approx(seconds / 0.02)
    assert row.note == f"{1e3 * seconds:.4g} ms and 20 ms"


@pytest.mark.parametrize("ratio, met", [(1.0, True), (1.01, False), (None, None)])
def test_an_l_step_is_held_to_the_time_of_pytorch(ratio, met, gives):
    asked = gives(LStep("lenet300", 256, 3.0, 1.0, 1.0, ratio and 3.0 / ratio, ratio=ratio))
    row, = bench.TARGETS["L step LeNet300, batch 256"]("L step LeNet300, batch 256", 2, 5)
    assert row.met is met and row.measured == ratio
    assert asked == [(("lenet300", 2, 5), {})]
    assert ("not installed" in row.note) == (ratio is None)


@pytest.mark.parametrize("c_step, met", [(9.9, True), (10.1, False)])
def test_a_c_step_is_a_share_of_15_epochs_of_391_batches(c_step, met, gives, monkeypatch):
    gives(LStep("resnet20", 128, 1e6 / (15 * 391), 1.0, 1.0))   # 1000 s in all
    ran = []

    def seconds(call):
        ran.append(call())
        return [1e6, c_step - 1, c_step + 1, c_step][len(ran) - 1]   # the first is not counted
    monkeypatch.setattr(bench, "seconds", seconds)
    name = "C step ResNet20, each(quantize(k=2)) + prune(keep=0.03)"
    row, = bench.TARGETS[name](name, 1, 7)
    assert row.measured == pytest.approx(c_step / 10) and row.met is met
    thetas, params = ran[-1]
    assert sum(params[layer].size for layer in params if params[layer].ndim > 1) == 268_336
    assert thetas[0].parts[1].indices.size == int(0.03 * 268_336)


# ---- growth

def timings(power, **last):
    rows = [timing(1e-9 * n**power, n) for n in bench.SIZES]
    return rows[:-1] + [timing(**{"seconds": 1e-9 * 1e7**power, "n": 10**7} | last)]


@pytest.mark.parametrize("power, met", [(1.1, True), (1.15 - 1e-9, True), (1.2, False)])
def test_the_exponent_of_a_power_law_is_held_to_its_target(power, met):
    row, _ = bench.grown("kmeans k=2", timings(power))
    assert row.measured == pytest.approx(power) and row.met is met
    assert (row.what, row.target) == ("exponent of kmeans k=2", 1.15)
    assert row.note == f"1e+04 to 1e+07; {power:.2f} from the last but one to the last"


@pytest.mark.parametrize("memory, process, measured, met", [
    (3.0, None, 3.0, True), (4.1, None, 4.1, False), (3.0, 4.5, 4.5, False), (3.5, 2.0, 3.5, True)])
def test_the_larger_peak_is_held_to_four_times_the_input(memory, process, measured, met):
    _, row = bench.grown("kmeans k=2", timings(1, memory=memory, process_memory=process))
    assert (row.what, row.target, row.measured, row.met) == (
        "peak memory of kmeans k=2", 4.0, measured, met)


def test_a_size_that_was_left_out_is_said_beside_the_exponent_of_the_others():
    left_out = Timing("kmeans k=2", "kmeans", 10**7, "float64",
                      left_out="would need more memory than is free")
    slope, memory = bench.grown("kmeans k=2", timings(1)[:-1] + [left_out])
    assert slope.measured == pytest.approx(1)
    assert slope.note == ("1e+04 to 1e+06; 1.00 from the last but one to the last; "
                          "at 1e+07 it would need more memory than is free")
    assert (memory.measured, memory.met) == (None, None) and memory.note == left_out.left_out


def test_the_exponent_of_the_last_two_sizes_is_said_where_a_constant_hides_it():
    rows = [timing(1e-3 + 1e-9 * n**1.3, n) for n in bench.SIZES]
    slope, _ = bench.grown("kmeans k=2", rows)
    # log10 of (0.001 + 10^0.1) / (0.001 + 10^-1.2) is 1.29
    assert slope.measured < 1.15 and "1.29 from the last but one to the last" in slope.note


def test_growth_is_measured_from_ten_thousand_to_ten_million_without_peers(gives):
    asked = gives(timing())
    rows, = bench.measure_targets(["growth of l1_ball"], threads=2, turns=3)
    assert [row.what for row in rows] == ["exponent of l1_ball", "peak memory of l1_ball"]
    assert [arguments for arguments, _ in asked] == [
        ("l1_ball", 10**i) for i in (4, 5, 6, 7)]
    assert all(how == {"threads": 2, "turns": 3, "peers": False} for _, how in asked)

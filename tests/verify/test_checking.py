"""What a run reports: of functions that are right, and of functions with one mistake each."""

import itertools
import json
import os
import subprocess
import sys
import textwrap
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import strategies as st

import lcref
from lcref import projections
from lcref.verify.checking import check, property_names
from lcref.verify.kinds import KINDS
from lcref.verify.properties import Property
from lcref.verify.report import Report, Result
from lcref.verify.sets import over_the_radius

SUMS = ("quantize(k=2) + prune(kappa=3)", "lowrank(rank=1) + prune(kappa=2)",
        "sum(quantize(codebook=[-1, 0, 1]), prune(kappa=2), solver='exact')")

# ---- implementations of the ℓ0 ball, right and wrong


def right(w, kappa):
    theta = np.zeros_like(w)
    keep = np.argsort(-np.abs(w), kind="stable")[:kappa]
    theta[keep] = w[keep]
    return theta


def right_with_the_last_of_a_tie(w, kappa):
    return right(w[::-1], kappa)[::-1].copy()


def smallest(w, kappa):
    """Keeps the smallest magnitudes."""
    return w - right(w, max(w.size - kappa, 0))


def nothing(w, kappa):
    right(w, kappa)


def a_list(w, kappa):
    return right(w, kappa).tolist()


def a_row(w, kappa):
    return right(w, kappa)[None]


def overwrites(w, kappa):
    w[:] = right(w, kappa)
    return w


def talks(w, kappa):
    print("kept", kappa)
    return right(w, kappa)


def crashes(w, kappa):
    raise KeyError("no such weight")


def hangs(w, kappa):
    while True:
        time.sleep(0.01)


COUNTER = itertools.count()


def random(w, kappa):
    return right(w, kappa) if next(COUNTER) % 2 else np.zeros_like(w)


def few(fn, kind="l0_ball", **options):
    return check(fn, kind, **{"max_examples": 10, **options})


def result(report, name):
    (found,) = [each for each in report.results if each.name == name]
    return found


def statuses(report):
    return {each.name: each.status for each in report.results}


# ---- what is right conforms


@pytest.mark.parametrize("kind", KINDS)
def test_the_projection_of_lcref_conforms(kind):
    report = few(getattr(projections, kind), kind)
    assert report.ok, report
    assert {each.status for each in report.results} == {"passed", "not claimed"}


@pytest.mark.parametrize("text", SUMS)
def test_the_sum_of_lcref_conforms(text):
    report = few(lcref.parse(text).project, "sum", compression=text)
    assert report.ok, report
    assert {each.status for each in report.results} == {"passed", "not claimed"}


@pytest.mark.parametrize("fn", [right, right_with_the_last_of_a_tie])
def test_whichever_of_a_tie_is_kept_the_answer_passes(fn):
    report = few(fn)
    assert report.ok, report
    w = np.array([1.0, -1.0])
    assert (right(w, 1) != right_with_the_last_of_a_tie(w, 1)).all()


def test_a_zero_of_either_sign_passes():
    def minus_zeros(w, kappa):
        theta = right(w, kappa)
        theta[theta == 0] = -0.0
        return theta

    assert np.signbit(minus_zeros(np.array([1.0, 2.0]), 1)[0])
    report = few(minus_zeros)
    assert report.ok, report


def test_another_factorisation_of_the_same_product_passes():
    def with_other_factors(w, rank):
        left, s, right = np.linalg.svd(w, full_matrices=False)
        return (-2 * left[:, :rank] * s[:rank]) @ (-right[:rank] / 2)

    report = few(with_other_factors, "rank_ball")
    assert report.ok, report


def test_an_answer_may_be_a_part_of_lcref():
    report = few(projections.l0_ball)
    assert isinstance(projections.l0_ball(np.ones(2), 1), lcref.parts.Sparse)
    assert report.ok, report


def test_an_answer_of_a_joint_kind_may_be_a_tuple_of_its_parts():
    def parts(w, k, kappa):
        both = projections.kmeans_l0(w, k, kappa)
        return tuple(part.decompress() for part in both.parts)

    assert len(parts(np.array([1.0, 2.0, 9.0]), 1, 1)) == 2
    report = few(parts, "kmeans_l0")
    assert report.ok, report


# ---- what is wrong is reported as that, in words

WRONG = {
    "an answer that is not returned": (nothing, "feasible", "returned None"),
    "a list": (a_list, "feasible", "list"),
    "another shape": (a_row, "keeps_shape_and_dtype", "returned shape (1, "),
    "an input that is overwritten": (overwrites, "does_not_write_its_input",
                                     "wrote to its input: w was"),
    "a line that is printed": (talks, "prints_nothing", "wrote to standard output: 'kept "),
    "an exception": (crashes, "feasible", "raised KeyError on valid input: 'no such weight'"),
    "a random answer": (random, "deterministic",
                        "two calls with the same arguments gave different answers"),
    "an answer that is not optimal": (smallest, "optimal", "not optimal: the objective is"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_words(what):
    fn, name, words = WRONG[what]
    report = few(fn, max_examples=30, properties=[name, "ties"])
    assert not report.ok and not report
    assert result(report, name).status == "failed"
    assert words in result(report, name).message
    assert "does NOT conform" in str(report)


def test_printing_alone_fails_no_other_property():
    assert [each.name for each in few(talks).failures] == ["prints_nothing"]


def test_overwriting_the_input_alone_fails_no_other_property():
    assert [each.name for each in few(overwrites).failures] == ["does_not_write_its_input"]


def test_a_hang_is_reported_and_leaves_the_rest_skipped():
    started = time.perf_counter()
    report = few(hangs, time_limit=0.5)
    assert time.perf_counter() - started < 5
    ran = [each for each in report.results if each.status != "not claimed"]
    assert ran[0].status == "failed" and "did not return within 0.5 s" in ran[0].message
    assert {each.status for each in ran[1:]} == {"skipped"}
    assert report.failures == ran
    assert not report.ok


def test_what_is_skipped_is_not_ok():
    def hangs_on_zeros(w, kappa):
        return right(w, kappa) if w.any() else hangs(w, kappa)

    report = few(hangs_on_zeros, time_limit=0.2, properties=["zeros", "ties"],
                 expected_failures={"zeros": "known to hang"})
    assert statuses(report) == {"zeros": "expected failure", "ties": "skipped"}
    assert not report.ok


# ---- what the caller gets wrong


def test_a_function_of_another_signature_is_a_type_error():
    with pytest.raises(TypeError, match=r"called as <lambda>\(w, kappa\)"):
        few(lambda w: w)


def test_what_cannot_be_called_is_a_type_error():
    with pytest.raises(TypeError):
        few(3)


def test_an_unknown_kind_is_a_value_error_that_names_the_nearest():
    with pytest.raises(ValueError, match="unknown kind 'l0_bal'.*did you mean.*l0_ball"):
        few(right, "l0_bal")


@pytest.mark.parametrize(("option", "what"), [
    ({"claims": ["rejects_nans"]}, "unknown claim 'rejects_nans'.*rejects_nan"),
    ({"claims": ["ties"]}, "unknown claim 'ties'"),  # is required, cannot be claimed
    ({"properties": ["tie"]}, "unknown property 'tie'.*ties"),
    ({"expected_failures": {"tie": "why"}}, "unknown expected failure 'tie'.*ties"),
])
def test_an_unknown_name_is_a_value_error(option, what):
    with pytest.raises(ValueError, match=what):
        few(right, **option)


def test_a_sum_without_its_text_is_a_value_error():
    with pytest.raises(ValueError, match="needs a compression text"):
        few(right, "sum")


def test_a_text_with_another_kind_is_a_value_error():
    with pytest.raises(ValueError, match="goes with kind sum"):
        few(right, compression="prune(kappa=3)")


# ---- what counts


def test_an_expected_failure_that_fails_leaves_the_report_ok():
    report = few(talks, expected_failures={"prints_nothing": "a log, on purpose"})
    assert result(report, "prints_nothing").status == "expected failure"
    assert "a log, on purpose" in result(report, "prints_nothing").message
    assert report.ok, report


def test_an_expected_failure_that_passes_is_a_failure():
    report = few(right, expected_failures={"prints_nothing": "a log, on purpose"})
    assert [each.name for each in report.failures] == ["prints_nothing"]
    assert "passed, but was expected to fail" in result(report, "prints_nothing").message
    assert not report.ok


def accepts_everything(w, kappa):
    """Right, but refuses no NaN and no negative κ."""
    return right(w, max(int(kappa), 0))


def test_optional_properties_do_not_count_unless_they_are_claimed():
    report = few(accepts_everything)
    assert statuses(report)["rejects_nan"] == "not claimed"
    assert "rejects_nan" not in report.required
    assert report.ok, report


def test_a_claim_adds_the_property_that_it_names():
    report = few(accepts_everything, claims=["rejects_nan"])
    assert [each.name for each in report.failures] == ["rejects_nan"]
    assert statuses(report)["argument_checks"] == "not claimed"
    assert not report.ok


def test_all_claims_run_every_property():
    report = few(accepts_everything, claims="all")
    assert "not claimed" not in statuses(report).values()
    assert result(report, "rejects_nan").status == "failed"
    assert result(report, "argument_checks").status == "failed"
    assert report.required == property_names("l0_ball", "all") == tuple(statuses(report))


def test_only_the_properties_that_are_asked_for_run():
    report = few(smallest, properties=["prints_nothing", "deterministic"])
    assert statuses(report) == {"prints_nothing": "passed", "deterministic": "passed"}
    assert report.ok, report


def test_after_the_first_failure_nothing_runs_where_that_is_asked_for():
    calls = []

    def counted(w, kappa):
        calls.append(w)
        return w

    report = few(counted, stop_at_first=True)
    ran = [each for each in report.results if each.status != "not claimed"]
    assert [each.status for each in ran] == ["failed"] + ["skipped"] * (len(ran) - 1)
    assert len(calls) < 30
    assert not report.ok


@pytest.mark.parametrize("status", ["passed", "expected failure"])
def test_a_report_that_lacks_a_required_property_is_not_ok(status):
    feasible = Result("feasible", status)
    assert Report("l0_ball", "fn", (feasible,), ("feasible",)).ok
    assert not Report("l0_ball", "fn", (feasible,), ("feasible", "optimal")).ok
    assert not Report("l0_ball", "fn", (feasible, Result("optimal", "not claimed")),
                      ("feasible", "optimal")).ok


def test_a_property_without_an_input_is_skipped_and_the_report_is_not_ok(monkeypatch):
    def none(kind):
        return st.just((np.ones(2), 1)).filter(lambda case: False)

    def holds(subject, arguments):
        raise AssertionError("there is no input")

    monkeypatch.setattr("lcref.verify.checking.properties_of",
                        lambda kind: [Property("never", "holds of nothing", none, holds)])
    report = few(lcref.projections.l0_ball, "l0_ball")
    assert statuses(report) == {"never": "skipped"} and not report.ok
    assert "no input was tried" in str(report)


# ---- sums

LOW_RANK = "lowrank(rank=1) + prune(kappa=2)"


@pytest.mark.parametrize("text", SUMS)
def test_every_claim_of_a_sum_is_judged(text):
    report = few(lcref.parse(text).project, "sum", compression=text, claims="all")
    assert "not claimed" not in statuses(report).values()
    assert report.ok, report


def test_the_optimum_of_a_sum_that_is_only_alternated_cannot_be_claimed():
    with pytest.raises(ValueError, match="unknown claim 'optimal'"):
        few(lcref.parse(LOW_RANK).project, "sum", compression=LOW_RANK, claims=["optimal"])


def test_an_alternation_that_claims_the_optimum_is_held_to_it():
    text = "sum(quantize(k=2), prune(kappa=2), solver='alternate', restarts=False)"
    report = few(lcref.parse(text).project, "sum", compression=text, max_examples=100,
                 claims=["optimal"], properties=["optimal"])
    assert statuses(report) == {"optimal": "failed"}


def test_what_cannot_be_seen_from_a_total_is_not_said_to_hold():
    text = "quantize(k=2) + prune(kappa=3)"

    def total(w):
        return lcref.parse(text).project(w).decompress()

    report = few(total, "sum", compression=text)
    assert statuses(report)["stationary"] == "not claimed"
    assert "return the parts" in result(report, "stationary").message
    assert report.ok, report
    assert not few(total, "sum", compression=text, properties=["stationary"]).ok


# ---- the counterexample


def test_the_counterexample_runs_when_pasted_and_shows_the_wrong_answer(tmp_path, monkeypatch):
    (tmp_path / "pruning_by_hand.py").write_text(textwrap.dedent('''
        def keeps_everything(w, kappa):
            return w + 0.0
    '''))
    monkeypatch.syspath_prepend(tmp_path)
    import pruning_by_hand

    failed = result(few(pruning_by_hand.keeps_everything), "feasible")
    found = evaluated(failed.counterexample)
    ran = subprocess.run([sys.executable, "-c", failed.counterexample], capture_output=True,
                         text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{found['w'] + 0.0}\n"
    assert np.count_nonzero(found["w"]) > found["kappa"]


def evaluated(code):
    """The arguments that a counterexample sets, without the call."""
    names = {}
    body = [line for line in code.splitlines() if not line.startswith(("from ", "print("))]
    exec("\n".join(body), names)
    return names


@pytest.mark.parametrize(("fn", "name"), [(smallest, "optimal"), (crashes, "feasible")])
def test_the_counterexample_is_small(fn, name):
    failed = result(few(fn, max_examples=50, properties=[name]), name)
    assert evaluated(failed.counterexample)["w"].size <= 3


def test_the_counterexample_is_the_smallest_and_simplest_that_fails():
    def wrong_for_four_or_more(w, kappa):
        return right(w, kappa) if w.size < 4 else smallest(w, kappa)

    failed = result(few(wrong_for_four_or_more, max_examples=200, properties=["optimal"]),
                    "optimal")
    w = evaluated(failed.counterexample)["w"]
    assert sorted(abs(w)) == [0, 0, 0, 1]


def test_the_numbers_of_a_message_are_those_of_the_problem():
    failed = result(few(smallest, max_examples=50, properties=["optimal"]), "optimal")
    given = evaluated(failed.counterexample)
    squares = sorted(Fraction(x) ** 2 for x in given["w"].tolist())
    kappa = min(given["kappa"], len(squares))
    best, worst = sum(squares[: len(squares) - kappa]), sum(squares[kappa:])
    assert best < worst
    assert f"the objective is {float(worst)!r}, the optimum is {float(best)!r} " in failed.message
    assert f"# the optimum is {float(best)!r}" in failed.counterexample


def test_what_the_function_says_of_its_objective_is_not_believed():
    class Boasts:
        gap, objective, status, optimum = 0.0, 0.0, "exact", 0.0

        def __init__(self, theta):
            self.theta = theta

        def decompress(self):
            return self.theta

    only = dict(properties=["optimal", "optimal_at_size"])
    assert statuses(few(lambda w, kappa: Boasts(right(w, kappa)), **only)) == {
        "optimal": "passed", "optimal_at_size": "passed"}
    assert statuses(few(lambda w, kappa: Boasts(smallest(w, kappa)), **only)) == {
        "optimal": "failed", "optimal_at_size": "failed"}


# ---- the report


def test_the_report_as_json_holds_the_same():
    report = few(smallest, properties=["feasible", "optimal", "ties"])
    data = json.loads(report.json())
    assert {each["name"]: each["status"] for each in data["results"]} == statuses(report)
    assert [each["counterexample"] for each in data["results"]] == [
        each.counterexample for each in report.results]
    assert (data["ok"], data["kind"], data["target"]) == (False, "l0_ball", "smallest")
    assert data["required"] == list(report.required)


def test_the_report_as_text_has_a_line_for_each_property():
    report = few(right)
    for each in report.results:
        (line,) = [line for line in str(report).splitlines() if line.split()[:1] == [each.name]]
        assert each.status in line and each.says in line
    assert "right conforms" in str(report)


def test_two_runs_give_the_same_report():
    first, second = (few(smallest, properties=["optimal", "ties"]) for _ in range(2))
    assert [(each.status, each.message, each.counterexample) for each in first.results] == [
        (each.status, each.message, each.counterexample) for each in second.results]


# ---- the l1 ball, whose radius a right answer may miss by rounding


def textbook(w, radius):
    """Duchi et al. 2008: sort, add up, subtract."""
    falling = np.sort(np.abs(w))[::-1]
    tau = (np.cumsum(falling) - radius) / np.arange(1, w.size + 1)
    return np.sign(w) * np.maximum(np.abs(w) - tau[falling > tau][-1], 0)


def test_the_rounding_of_the_sum_is_no_violation_of_the_radius_and_more_is():
    w = np.array([1e8, 99999999.0, 100000000.000475, 99999999.91336, 99999999.913356,
                  100000000.001, 100000000.0001])
    theta, r = textbook(w, 100000000.001), 100000000.001
    assert sum(map(Fraction, theta.tolist())) > Fraction(r) * (1 + Fraction(7, 2**52))
    assert over_the_radius(w, theta, r) == ""
    assert "more than the radius" in over_the_radius(w, theta * (1 + 1e-13), r)


def test_a_length_beyond_the_largest_float_is_compared_too():
    w = np.full(4, 1.7e308)
    assert over_the_radius(w, w / 8, 1.7e308) == ""
    assert "more than the radius" in over_the_radius(w, w, 1.7e308)

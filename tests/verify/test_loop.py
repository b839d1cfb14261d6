"""The judge of LC loops: what it lets pass, what it stops, and what it says then."""

import copy
import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from scipy.sparse.linalg import LinearOperator, cg

from lcref import Prune, Quantize, Schedule, Task, iterate
from lcref.lsteps import LeastSquares
from lcref.verify.loop import PROPERTIES, constrained_least_squares, problems, trace
from lcref.verify.mutants import by_kind
from lcref.verify.mutants import loop as loops
from lcref.verify.properties import Violation

BY_NAME = {prop.name: prop for prop in PROPERTIES}


# ---- right loops


def lcref_loop(X, y, w, projection, budget, mu0, a, steps, penalty):
    """lcref's own loop."""
    compression = {"l0_ball": lambda: Prune(kappa=budget), "l1_ball": lambda: Prune(radius=budget),
                   "kmeans": lambda: Quantize(budget)}[projection]()
    return [(step.params["w"], step.delta["w"], step.lam["w"])
            for step in iterate({"w": w}, [Task("w", compression)], LeastSquares(X, y, "w"),
                                Schedule(mu0, a, steps, penalty))]


def scaled_loop(X, y, w, projection, budget, mu0, a, steps, penalty):
    """ADMM in its scaled form, u = λ/μ, with an L step by conjugate gradients to 1e-10."""
    def project(v):
        return loops.PROJECTIONS[projection](v, budget)

    mu, theta, u = mu0, project(w), 0.0 * w
    for _ in range(steps):
        ridge = LinearOperator((w.size, w.size), lambda v: X.T @ (X @ v) + mu * v, dtype=float)
        w, _ = cg(ridge, X.T @ y + mu * (theta + u), x0=w, rtol=1e-10, maxiter=1000)
        theta = project(w - u)
        u = u - (w - theta) if penalty == "augmented" else u
        yield {"w": w.copy(), "theta": theta, "lambda": mu * u}
        mu, u = mu * a, u / a


def subject(fn):
    """Call fn as the kit does: on copies, to its end."""
    def call(*arguments):
        raw = fn(*copy.deepcopy(arguments))
        return SimpleNamespace(raw=raw if isinstance(raw, tuple) else list(raw))
    return call


def judge(fn, prop, phases=(Phase.generate,), examples=60):
    """Try a property of fn; the arguments and the Violation of the failure, if any."""
    tried = []

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True, phases=phases,
              report_multiple_bugs=False, suppress_health_check=list(HealthCheck))
    @given(prop.cases("lc"))
    def run(arguments):
        tried.append(arguments)
        prop.holds(subject(fn), arguments)

    try:
        run()
    except Violation as violation:
        return tried[-1], violation
    return None


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.name)
@pytest.mark.parametrize("fn", [lcref_loop, scaled_loop, loops.right_loop])
def test_a_right_loop_passes(fn, prop):
    assert judge(fn, prop) is None


# ---- wrong loops: the property that stops each, and words of the message

KILLS = {
    "adds_to_the_multipliers": ("multipliers", r"wrong sign: μ \(w − θ\) was added"),
    "pulls_to_theta_minus_lambda": ("l_step_is_optimal", "is θ − λ/μ, λ has the wrong sign"),
    "projects_w_plus_lambda": ("c_step_is_optimal", r"projects w \+ λ/μ, λ has the wrong sign"),
    "updates_with_the_old_theta": ("multipliers", "before the C step, with the old θ"),
    "updates_before_the_c_step": ("c_step_is_optimal", "updated before the C step"),
    "updates_without_mu": ("multipliers", "subtracted without μ"),
    "updates_with_the_next_mu": ("multipliers", "the μ of the next step"),
    "updates_with_half_of_mu": ("multipliers", "updated with μ/2"),
    "replaces_the_multipliers": ("multipliers", "replaced by"),
    "never_updates_the_multipliers": ("multipliers", "never updated"),
    "updates_with_the_quadratic_penalty": ("multipliers", "with the quadratic penalty λ stays 0"),
    "never_rescales_the_scaled_multipliers": ("l_step_is_optimal", "the μ of the step before"),
    "returns_lambda_over_mu": ("l_step_is_optimal", "what is returned as λ is λ/μ"),
    "pulls_to_theta_alone": ("l_step_is_optimal", "is θ, without λ/μ"),
    "pulls_to_theta_plus_undivided_lambda": ("l_step_is_optimal", "λ is not divided by μ"),
    "pulls_to_the_last_w": ("l_step_is_optimal", "pulled to the last w"),
    "doubles_the_penalty": ("l_step_is_optimal", "μ/2 is taken as μ"),
    "doubles_the_loss": ("l_step_is_optimal", "L is taken without its ½"),
    "averages_the_loss": ("l_step_is_optimal", "L is the mean over the rows"),
    "takes_one_gradient_step_from_zero": ("l_step_is_optimal", "stops before its minimum"),
    "takes_three_gradient_steps": ("l_step_is_optimal", "stops before its minimum"),
    "forgets_the_loss": ("l_step_is_optimal", "leaves L out"),
    "grows_mu_too_early": ("l_step_is_optimal", "μ grows before the first step"),
    "grows_mu_linearly": ("l_step_is_optimal", "μ grows linearly"),
    "never_grows_mu": ("l_step_is_optimal", "μ does not grow"),
    "projects_w_alone": ("c_step_is_optimal", "projects w, not w − λ/μ"),
    "projects_w_minus_undivided_lambda": ("c_step_is_optimal", "λ is not divided by μ"),
    "projects_the_target": ("c_step_is_optimal", "projects the target of the L step"),
    "never_compresses_again": ("c_step_is_optimal", "the C step is left out"),
    "keeps_the_first_support": ("c_step_is_optimal", "entries that were 0 stay 0"),
    "returns_uncompressed_weights": ("l_step_is_optimal", "what is returned as θ is w"),
    "starts_at_zero": ("starts_at_direct_compression", "starts from θ = 0"),
    "starts_at_the_reference": ("starts_at_direct_compression", "starts from θ = w"),
    "ends_one_step_early": ("steps", "the loop ends too early"),
    "returns_the_start_too": ("steps", "the start is returned as if it were a step"),
    "returns_the_old_theta": ("l_step_is_optimal", "θ is returned one step late"),
    "returns_only_the_last_step": ("steps", "step 0 is a ndarray that is not a tuple"),
    "returns_the_same_arrays": ("steps", "the same array, which the later step overwrites"),
}
WRITING = {"writes_into_the_reference", "writes_into_the_data"}
WRONG = {each.name: each.fn for each in by_kind("lc")}


def test_there_is_an_expectation_of_every_wrong_loop():
    assert KILLS.keys() | WRITING == WRONG.keys()
    assert not KILLS.keys() & WRITING


@pytest.mark.parametrize("name", KILLS)
def test_a_wrong_loop_is_stopped_and_its_mistake_is_named(name):
    expected, words = KILLS[name]
    for prop in PROPERTIES:
        failure = judge(WRONG[name], prop, examples=40)
        if failure:
            break
    assert failure and prop.name == expected
    with pytest.raises(Violation, match=words):
        raise failure[1]


@pytest.mark.parametrize("name", ["adds_to_the_multipliers", "pulls_to_theta_alone",
                                  "projects_w_plus_lambda", "starts_at_zero"])
def test_the_mistake_is_still_named_where_the_case_is_made_small(name):
    expected, words = KILLS[name]
    _, violation = judge(WRONG[name], BY_NAME[expected], (Phase.generate, Phase.shrink))
    with pytest.raises(Violation, match=words):
        raise violation


@pytest.mark.parametrize("name", sorted(WRITING))
def test_a_loop_that_writes_into_its_input_does_so_on_a_small_case(name):
    X, y = 4 * np.eye(2), np.array([8.0, 4.0])
    arguments = (X, y, y / 4, "l0_ball", 1, 3.0, 1.1, 2, "augmented")
    before = copy.deepcopy(arguments)
    WRONG[name](*arguments)
    assert any(not np.array_equal(a, b) for a, b in zip(arguments[:3], before[:3]))


def test_a_loop_without_multipliers_misses_the_constrained_optimum():
    _, violation = judge(WRONG["never_updates_the_multipliers"],
                         BY_NAME["reaches_the_constrained_optimum"])
    assert "λ stays 0" in str(violation) and violation.returned > violation.optimum


# ---- reading what was returned

STEP = (np.ones(2), np.zeros(2), np.ones(2))


@pytest.mark.parametrize("entry", [
    STEP, list(STEP), dict(zip(("w", "theta", "lambda"), STEP)),
    dict(zip(("w", "theta", "lam"), STEP)), SimpleNamespace(w=STEP[0], theta=STEP[1], lam=STEP[2])])
def test_a_step_is_a_tuple_a_dict_or_an_object(entry):
    for raw in ([entry, entry], (entry, entry), iter([entry, entry])):
        for found in trace(raw):
            assert all(np.array_equal(x, z) for x, z in zip(found, STEP))


@pytest.mark.parametrize("raw, words", [
    (None, "not one NoneType"), ({"w": 1}, "not one dict"), ([], "no steps at all"),
    ([STEP[:2]], "step 0 is a tuple that is not"), ([STEP, {"w": STEP[0]}], "step 1 is a dict"),
    ([(*STEP[:2], None)], "array of zeros"), ([(STEP[0], "two", STEP[2])], "θ of step 0"),
    ([(STEP[0].astype(np.float32), *STEP[1:])], "w of step 0 has dtype float32"),
    ([STEP, (*STEP[:2], np.array([1, math.nan]))], "λ of step 1 is not finite"),
    ([(STEP[0][:, None], *STEP[1:])], r"w of step 0 has shape \(2, 1\)")])
def test_what_is_not_a_list_of_steps_is_named(raw, words):
    with pytest.raises(Violation, match=words):
        trace(raw)


# ---- the independent solver


def best_of_all_faces(X, y, radius):
    """min ½ ‖Xθ − y‖² over ‖θ‖₁ ≤ r: inside, or by the KKT equations of each face of the ball."""
    free = np.linalg.lstsq(X, y)[0]
    if np.sum(np.abs(free)) <= radius:
        return 0.5 * float(np.sum((X @ free - y) ** 2))
    least = math.inf
    for signs in product((-1.0, 0.0, 1.0), repeat=X.shape[1]):
        on = np.flatnonzero(signs)
        if on.size:
            s, part = np.array(signs)[on], X[:, on]
            kkt = np.block([[part.T @ part, s[:, None]], [s[None, :], np.zeros((1, 1))]])
            theta = np.linalg.solve(kkt, np.append(part.T @ y, radius))[:-1]
            if np.all(theta * s >= 0):
                least = min(least, 0.5 * float(np.sum((part @ theta - y) ** 2)))
    return least


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_constrained_minimum_is_the_least_over_all_faces_and_its_gap_bounds_it(problem):
    X, y, w = problem
    for part in (0.0, 0.3, 0.9, 1.5):
        radius = part * float(np.sum(np.abs(w)))
        theta, value, gap = constrained_least_squares(X, y, radius)
        expected = best_of_all_faces(X, y, radius) if radius else 0.5 * float(y @ y)
        # nonnegative least squares to some hundred roundings of ‖y‖², and of its condition number
        # of at most 30 in X and that of the last row
        assert abs(value - expected) <= 1e-11 * float(y @ y)
        assert 0 <= gap <= 1e-6 * float(y @ y)
        assert np.sum(np.abs(theta)) <= radius * (1 + 1e-12)
        worse = 0.9 * theta  # feasible too: the optimum is within its gap
        g = X.T @ (X @ worse - y)
        bound = g @ worse + radius * np.max(np.abs(g))
        assert 0.5 * np.sum((X @ worse - y) ** 2) - bound <= expected + 1e-11 * float(y @ y)

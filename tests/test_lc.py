"""The loop against an independent solver, its own formulas, and the paths of single parts."""

import itertools
import math

import numpy as np
import pytest
from compared import KINDS
from places import compress, iterate, on_host, there
from scipy.optimize import minimize

from lcref import (Binary, Compression, Each, LowRank, Prune, Quantize, Schedule, Sum, Task,
                   Ternary, lc, parse)
from lcref.lsteps import SGD, Diverged, LeastSquares
from lcref.nets import linear, value_and_grad

pytestmark = pytest.mark.everywhere
direct_compression = there(lc.direct_compression)


def bits(tree):
    """All that is in a dict of arrays, down to the sign of zero."""
    return {name: (on_host(t).shape, on_host(t).dtype, on_host(t).tobytes())
            for name, t in tree.items()}


def same_path(one, other):
    """Equal steps, bit for bit, but for the times and what the L step keeps to itself."""
    for a, b in zip(one, other, strict=True):
        assert (a.step, a.mu, a.feasibility) == (b.step, b.mu, b.feasibility)
        for field in ("params", "delta", "lam"):
            assert bits(getattr(a, field)) == bits(getattr(b, field)), (a.step, field)


# ---- the constrained optimum of least squares in an l1 ball, by another way

SIGNS = np.array([1, -1, 1, 1, -1, 1.0])
RNG = np.random.default_rng(5)
N = SIGNS.size
# XᵀX has eigenvalues 1, ..., 4, so that every rate below is known
X = (np.linalg.qr(RNG.normal(size=(12, N)))[0] * np.sqrt(np.linspace(1, 4, N))
     @ np.linalg.qr(RNG.normal(size=(N, N)))[0])
Y = X @ (SIGNS * np.linspace(0.1, 1.5, N)) + 0.3 * RNG.normal(size=12)
RADIUS = 2.0
FREE = np.linalg.lstsq(X, Y)[0]


def gradient(w):
    """∇L(w) of L(w) = ½ ‖X w − Y‖²."""
    return X.T @ (X @ w - Y)


def constrained_optimum():
    """min L(w) over ‖w‖₁ ≤ RADIUS, by trying every face of the ball.

    Outside lies the free minimum, so the optimum is on the boundary, inside one face: signs s, and
    support where s is not 0. It minimises L on the plane ⟨s, w⟩ = RADIUS of that support, by the
    KKT equations; of the minima that lie in their own face the least is the optimum.
    """
    best = math.inf, None
    for s in itertools.product((-1.0, 0, 1), repeat=N):
        on = np.flatnonzero(s)
        if not on.size:
            continue
        s, a = np.array(s)[on], X[:, on]
        kkt = np.block([[a.T @ a, s[:, None]], [s[None, :], np.zeros((1, 1))]])
        w = np.linalg.solve(kkt, np.append(a.T @ Y, RADIUS))[:-1]
        if np.all(w * s > 0):
            best = min(best, (float(((a @ w - Y) ** 2).sum()), (tuple(on), tuple(w))))
    _, (on, values) = best
    w = np.zeros(N)
    w[list(on)] = values
    return w


OPTIMUM = constrained_optimum()


@pytest.mark.of_numpy
def test_the_optimum_by_faces_is_that_of_a_general_solver():
    split = minimize(lambda v: 0.5 * ((X @ (v[:N] - v[N:]) - Y) ** 2).sum(), np.full(2 * N, 0.1),
                     jac=lambda v: np.concatenate([gradient(v[:N] - v[N:]),
                                                   -gradient(v[:N] - v[N:])]),
                     bounds=[(0, None)] * 2 * N, method="SLSQP",
                     constraints={"type": "ineq", "fun": lambda v: RADIUS - v.sum(),
                                  "jac": lambda v: -np.ones(2 * N)},
                     options={"ftol": 1e-14, "maxiter": 1000})
    assert np.abs(FREE).sum() > RADIUS and 0 < np.count_nonzero(OPTIMUM) < N
    # SLSQP stops on the objective, to 1e-14: its point is then good to the root of that, 1e-7
    np.testing.assert_allclose(split.x[:N] - split.x[N:], OPTIMUM, rtol=0, atol=1e-6)


def ball_path(schedule, compression=Prune(radius=RADIUS)):
    return iterate({"w": FREE}, [Task("w", compression)], LeastSquares(X, Y, "w"), schedule)


def last(path):
    *_, step = path
    return step


def error(w):
    return float(np.linalg.norm(w - OPTIMUM) / np.linalg.norm(OPTIMUM))


@pytest.mark.costly
@pytest.mark.parametrize("mu", [0.5, 2.0, 8.0])
def test_a_fixed_mu_with_multipliers_converges_to_the_constrained_optimum(mu):
    step = last(ball_path(Schedule(mu0=mu, a=1, steps=400)))
    # This is ADMM; with eigenvalues from 1 to 4 its error shrinks by at least 8/9 a step at these
    # μ (its rate is max(4/(4 + μ), μ/(1 + μ))): under 1e-20 after 400, so rounding is what is left.
    assert error(step.delta["w"]) <= 1e-10
    assert error(step.params["w"]) <= 1e-10


@pytest.mark.costly
def test_several_passes_at_each_of_a_growing_mu_converge_to_the_constrained_optimum():
    step = last(ball_path(Schedule(mu0=0.5, a=1.1, steps=300, passes=10)))
    # 10 passes at each μ from 0.5 to 8: still 300 contractions by 8/9 or better, 4e-16 in all
    assert error(step.delta["w"]) <= 1e-10


@pytest.mark.costly
@pytest.mark.parametrize("penalty", ["augmented", "quadratic"])
def test_a_mu_that_doubles_at_every_step_freezes_far_from_the_optimum(penalty):
    step = last(ball_path(Schedule(mu0=1.0, a=2, steps=60, penalty=penalty)))
    assert step.feasibility < 1e-9  # it has stopped moving
    assert error(step.delta["w"]) > 1e-2


@pytest.mark.costly
def test_the_quadratic_penalty_is_off_by_the_inverse_of_mu():
    errors = [error(last(ball_path(Schedule(mu0=mu, a=1, steps=20 * mu, penalty="quadratic"))
                         ).delta["w"]) for mu in (64, 128)]
    # At a fixed μ the two steps contract by μ/(1 + μ): about e⁻²⁰ in 20 μ steps. The optimum of
    # the penalised problem is off by c/μ + O(1/μ²): doubling μ halves that, up to a few times 1/μ.
    assert 1.8 <= errors[0] / errors[1] <= 2.2


@pytest.mark.parametrize("penalty", ["augmented", "quadratic"])
def test_the_first_weights_and_parts_tend_to_the_reference_and_its_direct_compression(penalty):
    for compression in (Prune(radius=RADIUS), Quantize(2), Prune(kappa=3)):
        for mu in (1e-6, 1e-9):
            first = next(ball_path(Schedule(mu0=mu, a=2, steps=1, penalty=penalty), compression))
            _, direct = direct_compression({"w": FREE}, [Task("w", compression)])
            # The L step moves w by at most μ/(1 + μ)·‖Δ − w‖, since the least eigenvalue of XᵀX is
            # 1, and near a w without ties these projections move by no more; 1e-14 for rounding.
            bound = mu * np.linalg.norm(direct["w"] - FREE) + 1e-14
            assert np.linalg.norm(first.params["w"] - FREE) <= bound
            assert np.linalg.norm(first.delta["w"] - direct["w"]) <= bound


# ---- multipliers, targets, penalties, step by step

@pytest.mark.costly
def test_at_the_fixed_point_the_multipliers_are_the_gradient_of_the_loss():
    # ∇L(w) + μ (w − Δ − λ/μ) = 0 and w = Δ
    step = last(ball_path(Schedule(mu0=2.0, a=1, steps=400)))
    scale = np.linalg.norm(gradient(OPTIMUM))
    np.testing.assert_allclose(step.lam["w"], gradient(OPTIMUM), rtol=0, atol=1e-10 * scale)


MIXED = {"a": RNG.normal(size=(3, 4)), "b": RNG.normal(size=(4, 2)), "c": RNG.normal(size=(5, 5)),
         "bias": RNG.normal(size=3)}
AIM = {name: t + RNG.normal(size=t.shape) for name, t in MIXED.items()}
TASKS = [Task(("a", "b"), Each(Quantize(2)) + Prune(kappa=3)), Task("c", LowRank(2))]


class Quadratic:
    """L(w) = c/2 ‖w − aim‖², whose L step is a mean of the aim and the target; notes its calls."""

    def __init__(self, aim=None, c=2.0):
        self.aim, self.c, self.calls = AIM if aim is None else aim, c, []

    def __call__(self, params, targets, mu, step, state):
        self.calls.append((targets, mu, step, state))
        w = {name: (self.c * self.aim[name] + mu * targets[name]) / (self.c + mu)
             if name in targets else self.aim[name] for name in params}
        return w, (state or 0) + 1


def mixed_path(schedule, l_step=None, **options):
    return list(iterate(MIXED, TASKS, l_step or Quadratic(), schedule, **options))


GROWING = Schedule(mu0=0.3, a=1.3, steps=12)
EPS = 2.0**-52


def test_the_multipliers_change_by_minus_mu_times_the_infeasibility():
    steps = mixed_path(GROWING)
    lam = {name: np.zeros_like(MIXED[name]) for name in "abc"}
    for step in steps:
        for name in lam:
            gap = step.mu * (step.params[name] - step.delta[name])
            expected = lam[name] - gap
            # three roundings of what is added
            scale = np.abs(lam[name]) + np.abs(gap) + step.mu * np.abs(step.params[name])
            assert np.all(np.abs(step.lam[name] - expected) <= 4 * EPS * scale)
        lam = step.lam


def test_the_quadratic_penalty_keeps_the_multipliers_at_zero():
    for step in mixed_path(Schedule(mu0=0.3, a=1.3, steps=5, penalty="quadratic")):
        assert all(not np.any(t) for t in step.lam.values())


def test_the_l_step_is_given_the_decompressed_weights_plus_lambda_over_mu():
    l_step = Quadratic()
    steps = mixed_path(GROWING, l_step)
    for before, (targets, mu, _, _) in zip(steps, l_step.calls[1:]):
        assert list(targets) == ["a", "b", "c"]
        for name, target in targets.items():
            shift = before.lam[name] / mu
            # two roundings of what is added
            scale = np.abs(before.delta[name]) + np.abs(shift)
            assert np.all(np.abs(target - (before.delta[name] + shift)) <= 2 * EPS * scale)


def test_the_first_target_is_direct_compression():
    l_step = Quadratic()
    mixed_path(GROWING, l_step)
    _, direct = direct_compression(MIXED, TASKS)
    targets = l_step.calls[0][0]
    for name, target in targets.items():
        np.testing.assert_array_equal(target, direct[name])


@pytest.mark.parametrize("penalty", ["augmented", "quadratic"])
def test_the_c_step_projects_the_weights_minus_lambda_over_mu(penalty):
    steps = list(iterate(MIXED, [Task("c", Prune(kappa=6))], Quadratic(),
                         Schedule(mu0=0.3, a=1.3, steps=12, penalty=penalty)))
    for before, step in zip(steps, steps[1:]):
        shifted = step.params["c"] - before.lam["c"] / step.mu
        top = np.argsort(np.abs(shifted), axis=None)[-6:]  # no ties among random numbers
        expected = np.zeros(25)
        expected[top] = shifted.ravel()[top]
        np.testing.assert_allclose(step.delta["c"].ravel(), expected, rtol=4 * EPS, atol=0)


@pytest.mark.of_numpy
def test_the_c_step_is_given_mu_and_the_part_that_the_last_one_found():
    given = []

    class Following(Compression):
        def _one(self, w, mu, start):
            given.append((mu, start))
            return Binary().project(w)

    steps = list(iterate(MIXED, [Task("a", Binary()), Task("c", Following())], Quadratic(),
                         GROWING))
    assert [mu for mu, _ in given] == [steps[0].mu, *(step.mu for step in steps)]
    assert given[0][1] is None  # direct compression, whose part the first step goes on from
    assert all(start is before.theta[1] for (_, start), before in zip(given[2:], steps))
    assert given[1][1] is not None


@pytest.mark.parametrize("passes", [1, 3])
def test_mu_grows_by_a_after_the_passes_and_the_l_step_is_told(passes):
    l_step = Quadratic()
    steps = mixed_path(Schedule(mu0=0.25, a=1.5, steps=8, passes=passes), l_step)
    expected = [0.25 * 1.5 ** (k // passes) for k in range(8)]  # exact: few binary digits
    assert [step.mu for step in steps] == expected
    assert [(mu, k) for _, mu, k, _ in l_step.calls] == list(zip(expected, range(8)))


def test_the_l_step_is_given_the_state_that_it_returned():
    l_step = Quadratic()
    steps = mixed_path(GROWING, l_step)
    assert [state for *_, state in l_step.calls] == [None, *range(1, 12)]
    assert [step.state for step in steps] == list(range(1, 13))


def infeasibility(step):
    """‖w − Δ(θ)‖ and ‖w‖ over the tensors of all tasks."""
    w = np.concatenate([step.params[name].ravel() for name in "abc"])
    delta = np.concatenate([step.delta[name].ravel() for name in "abc"])
    return np.linalg.norm(w - delta), np.linalg.norm(w)


def test_feasibility_is_the_relative_distance_over_all_tasks():
    for step in mixed_path(GROWING):
        distance, norm = infeasibility(step)
        # two norms of 45 squares, each to 45 roundings at most
        assert step.feasibility == pytest.approx(distance / norm, rel=50 * EPS)


@pytest.mark.costly
def test_the_path_stops_at_the_first_step_that_is_feasible_to_the_tolerance():
    schedule = Schedule(mu0=0.3, a=1.3, steps=60)
    ratios = [distance / norm for distance, norm in map(infeasibility, mixed_path(schedule))]
    for tol in (0.2, 0.01):
        stopped = mixed_path(Schedule(mu0=0.3, a=1.3, steps=60, tol=tol))
        assert len(stopped) == 1 + next(k for k, ratio in enumerate(ratios) if ratio <= tol)


def test_a_compression_that_changes_nothing_is_feasible_at_the_first_step():
    steps = list(iterate(MIXED, [Task("c", Prune(kappa=25))], Quadratic(), GROWING))
    assert [step.feasibility for step in steps] == [0]


def test_weights_that_are_all_zero_are_feasible():
    aim = {"c": np.zeros((2, 2))}
    steps = list(iterate(aim, [Task("c", Prune(kappa=1))], Quadratic(aim), GROWING))
    assert [step.feasibility for step in steps] == [0]


@pytest.mark.parametrize("scale", [1e-170, 1.0, 1e170])
def test_feasibility_does_not_depend_on_the_scale_of_the_weights(scale):
    aim = {"c": np.array([3.0, 4, 1]) * scale}
    step = next(iterate(aim, [Task("c", Prune(kappa=2))], Quadratic(aim), GROWING))
    # the target of the L step is (3, 4, 0): w is (3, 4, 2·1/(2 + μ))
    small = 2 / 2.3
    assert step.feasibility == pytest.approx(small / math.sqrt(25 + small**2), rel=1e-12)


# ---- one path for a single compression and for a sum with nothing else in it

ZERO = {"kappa": Prune(kappa=0), "keep": Prune(keep=0.0), "radius": Prune(radius=0.0),
        "rank": LowRank(0)}


@pytest.mark.costly
@pytest.mark.parametrize("single", [
    Quantize(2), Binary(scale=True), Ternary(scale=True), Prune(kappa=4), Prune(radius=2.0),
    LowRank(1), Each(Quantize(2)), Quantize(2) + Prune(kappa=2),
    Each(Quantize(2) + Prune(kappa=2))], ids=str)
def test_the_path_of_a_sum_whose_other_parts_are_zero_is_that_of_the_single_compression(single):
    def path(compression):
        return list(iterate(MIXED, [Task(("a", "b", "c"), compression)], Quadratic(), GROWING))
    alone = path(single)
    for zeros in (*((z,) for z in ZERO.values()), *itertools.combinations(ZERO.values(), 2)):
        same_path(path(Sum(single, *zeros)), alone)
        same_path(path(Sum(*zeros, single)), alone)


@pytest.mark.costly
@pytest.mark.parametrize("both", [Quantize(2) + Prune(kappa=2), LowRank(1) + Prune(kappa=4)],
                         ids=str)
def test_the_path_of_two_parts_and_a_zero_is_that_of_the_two_parts(both):
    def path(compression):
        return list(iterate(MIXED, [Task(("a", "b", "c"), compression)], Quadratic(), GROWING))
    alone = path(both)
    for zero in ZERO.values():
        same_path(path(both + zero), alone)
        same_path(path(zero + both), alone)


# ---- stopping between two lines, and going on

def sgd_for(tensors, seed=0):
    """SGD on the mean over rows of ½ ‖w − row‖², for all tensors laid end to end."""
    names, sizes = list(tensors), [t.size for t in tensors.values()]
    rows = np.random.default_rng(1).normal(size=(40, sum(sizes)))

    def value_and_grad(params, x, labels):
        w = np.concatenate([params[name].ravel() for name in names])
        grads = np.split(np.mean(w - x, axis=0), np.cumsum(sizes)[:-1])
        return 0.5 * float(np.mean((w - x) ** 2)), {
            name: g.reshape(params[name].shape) for name, g in zip(names, grads)}

    return SGD(value_and_grad, rows, np.zeros(40), lr=0.1, batch=16, epochs=2, seed=seed)


@pytest.mark.costly
@pytest.mark.parametrize("make", [Quadratic, lambda: sgd_for(MIXED)])
def test_a_path_resumed_from_any_step_goes_on_bit_for_bit(make):
    schedule = Schedule(mu0=0.3, a=1.3, steps=7, passes=2)
    steps = mixed_path(schedule, make())
    for step in steps:
        same_path(mixed_path(schedule, make(), resume=step), steps[step.step + 1:])


@pytest.mark.costly
def test_a_path_resumed_from_a_step_that_was_feasible_has_ended():
    schedule = Schedule(mu0=0.3, a=1.3, steps=60, tol=0.2)
    steps = mixed_path(schedule)
    assert len(steps) < 60
    assert mixed_path(schedule, resume=steps[-1]) == []


def test_nothing_is_computed_before_the_first_step_is_asked_for():
    calls = []

    class Loud(Compression):
        def _one(self, w, mu, start):
            calls.append("c step")
            return Binary().project(w)

    l_step = Quadratic()
    path = iterate(MIXED, [Task("c", Loud())], l_step, GROWING)
    assert (calls, l_step.calls) == ([], [])
    next(path)
    assert (calls, len(l_step.calls)) == (["c step", "c step"], 1)  # direct compression, step 0


def test_one_seed_gives_one_path():
    same_path(mixed_path(GROWING, sgd_for(MIXED)), mixed_path(GROWING, sgd_for(MIXED)))


def test_another_seed_gives_another_path():
    one, other = (mixed_path(GROWING, sgd_for(MIXED, seed))[-1] for seed in (0, 1))
    assert not np.array_equal(one.params["a"], other.params["a"])


@pytest.mark.of_numpy
@pytest.mark.parametrize("l_step", [Quadratic(), sgd_for(MIXED)])
def test_the_reference_weights_are_not_written_to(l_step):
    params = {name: t.copy() for name, t in MIXED.items()}
    for t in params.values():
        t.setflags(write=False)
    compress(params, TASKS, l_step, GROWING)
    assert bits(params) == bits(MIXED)
    assert list(params) == list(MIXED)


@pytest.mark.of_numpy
def test_the_arrays_of_a_step_are_not_changed_by_the_steps_after_it():
    path = iterate(MIXED, TASKS, sgd_for(MIXED), GROWING)
    seen = []
    for step in path:
        seen.append((step, bits(step.params), bits(step.delta), bits(step.lam)))
    for step, params, delta, lam in seen:
        assert (bits(step.params), bits(step.delta), bits(step.lam)) == (params, delta, lam)


# ---- what comes out

def test_a_codebook_a_tensor_plus_shared_corrections_is_what_comes_out():
    result = compress(MIXED, TASKS, Quadratic(), GROWING)
    pair = {name: result.params[name] for name in "ab"}
    # some choice of 3 corrected positions leaves at most two values in each tensor
    spots = [(name, i) for name in pair for i in range(pair[name].size)]
    assert any(all(len(set(np.delete(pair[name], [i for n, i in choice if n == name]))) <= 2
                   for name in pair) for choice in itertools.combinations(spots, 3))


def test_a_low_rank_task_comes_out_with_its_rank():
    singular = np.linalg.svd(compress(MIXED, TASKS, Quadratic(), GROWING).params["c"])[1]
    assert singular[2] <= 8 * 5 * EPS * singular[0] < singular[1]


def test_an_untouched_tensor_comes_out_as_the_l_step_left_it():
    result = compress(MIXED, TASKS, Quadratic(), GROWING)
    np.testing.assert_array_equal(result.params["bias"], AIM["bias"])


def test_the_parts_of_a_result_decompress_to_its_weights():
    result = compress(MIXED, TASKS, Quadratic(), GROWING)
    assert list(result.thetas) == [0, 1]
    dense = {**result.thetas[0].decompress(), "c": result.thetas[1].decompress()}
    assert bits(dense) == bits({name: result.params[name] for name in "abc"})
    assert list(result.params) == list(MIXED)


@pytest.mark.costly
def test_the_loop_lowers_the_loss_that_direct_compression_left():
    def loss(params):
        return sum(float(((params[name] - AIM[name]) ** 2).sum()) for name in "abc")
    result = compress(MIXED, TASKS, Quadratic(), Schedule(mu0=0.1, a=1.1, steps=60))
    assert loss(result.params) < loss(result.direct)


def test_direct_compression_is_the_projection_of_the_reference():
    params = {"w": np.array([[1.0, -4], [0.5, 3]]), "bias": np.array([7.0])}
    thetas, direct = direct_compression(params, [Task("w", Prune(kappa=2))])
    assert bits(direct) == bits({"w": np.array([[0.0, -4], [0, 3]]), "bias": np.array([7.0])})
    assert list(thetas[0].indices) == [1, 3]
    result = compress(params, [Task("w", Prune(kappa=2))], Quadratic(params), GROWING)
    assert bits(result.direct) == bits(direct)


def test_the_ratio_is_that_of_bits_counted_by_hand():
    params = {"w": np.array([[1.0, 1, 2, 2], [1, 2, 2, 9]]), "v": np.array([[0.0, 5, 0, 0, 6]]),
              "bias": np.array([1.0, 2])}
    tasks = [Task("w", Quantize(2)), Task("v", Prune(kappa=2))]
    ratio = compress(params, tasks, Quadratic(params), GROWING).ratio
    # w: 8 codes of 1 bit, 2 entries of 32. v: 2 values, positions 1 and 4: 1 and 2 zeros before,
    # at one bit 2 + 3, at two bits 2 + 2. The bias: 2 · 32. The reference: 15 · 32.
    assert ratio == {"float16": 480 / (8 + 64 + 2 * 16 + 4 + 64),
                     "float32": 480 / (8 + 64 + 2 * 32 + 4 + 64)}


def test_the_losses_of_a_step_are_those_of_the_weights_and_of_the_compressed_net():
    def evaluate(params):
        return {"loss": float(sum(t.sum() for t in params.values())), "bias": params["bias"][0]}
    for step in mixed_path(GROWING, evaluate=evaluate):
        delta = {**step.params, **step.delta}
        assert step.loss == evaluate(step.params)["loss"]
        assert step.compressed_loss == evaluate(delta)["loss"] != step.loss
        assert bits(step.compressed) == bits(delta)
        assert step.summary()["compressed_bias"] == AIM["bias"][0]


@pytest.mark.of_numpy
def test_the_history_has_every_step_in_order_and_each_is_shown():
    shown = []
    result = compress(MIXED, TASKS, Quadratic(), GROWING, on_step=shown.append)
    assert [summary["step"] for summary in result.history] == list(range(12))
    assert [step.step for step in shown] == list(range(12))
    assert result.last is shown[-1]
    assert result.feasibility == result.history[-1]["feasibility"]


def test_the_status_of_every_task_is_in_the_history():
    alternating = Sum(*TASKS[0].compression.terms, solver="alternate")
    tasks = [Task(("a", "b"), alternating), TASKS[1]]
    history = compress(MIXED, tasks, Quadratic(), GROWING).history
    assert {tuple(sorted(summary["status"].items())) for summary in history} == {
        ((0, "stationary"), (1, "exact"))}


# ---- input

GOOD = Task("c", Binary())


@pytest.mark.parametrize("tasks, says", [
    ([], "no tasks"),
    ([GOOD, Task("bias", Binary()), Task(("a", "c"), Binary())], "tasks 0 and 2 .*'c'"),
    ([GOOD, Task(("a", "bios"), Binary())], "task 1.*'bios'.*did you mean 'bias'"),
    ([GOOD, Binary()], "task 1 must be a Task")])
def test_tasks_that_do_not_fit_are_an_error_at_the_call(tasks, says):
    for call in (lambda: iterate(MIXED, tasks, Quadratic(), GROWING),
                 lambda: compress(MIXED, tasks, Quadratic(), GROWING),
                 lambda: direct_compression(MIXED, tasks)):
        with pytest.raises(ValueError, match=says):
            call()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["c", "bias"])
def test_a_weight_that_is_not_finite_is_an_error_at_the_call_that_names_its_tensor(name, bad):
    params = {**MIXED, name: np.append(MIXED[name].ravel(), bad)}
    with pytest.raises(ValueError, match=f"^{name} "):
        iterate(params, [GOOD], Quadratic(), GROWING)


def test_a_tensor_of_integers_is_an_error_at_the_call_that_names_it():
    with pytest.raises(TypeError, match="^c .*int64"):
        iterate({"c": np.arange(3, dtype=np.int64)}, [GOOD], Quadratic(), GROWING)


@pytest.mark.parametrize("change, error", [
    ({"c": np.full((5, 5), math.nan)}, Diverged), ({"bias": np.full(3, math.inf)}, Diverged),
    ({"c": np.zeros((5, 4))}, ValueError), ({}, ValueError),
    ({"c": np.ones((5, 5), int)}, TypeError)])
def test_what_the_l_step_breaks_is_an_error_at_its_step_that_names_the_tensor(change, error):
    def l_step(params, targets, mu, step, state):
        kept = {name: t for name, t in params.items() if change or name != "c"}
        return {**kept, **change} if step == 2 else params, state

    path = iterate(MIXED, [GOOD], l_step, GROWING)
    assert [next(path).step, next(path).step] == [0, 1]
    with pytest.raises(error, match="'bias'" if "bias" in change else "'c'"):
        next(path)


@pytest.mark.parametrize("change, says", [
    ({"mu0": 0}, "mu0.*0"), ({"mu0": -1.0}, "mu0"), ({"mu0": math.inf}, "mu0"),
    ({"mu0": math.nan}, "mu0"), ({"a": 0.99}, "growth a .* not 0.99"), ({"a": math.nan}, "a must"),
    ({"steps": 0}, "steps"), ({"steps": 2.5}, "steps"), ({"passes": 0}, "passes"),
    ({"penalty": "augmentd"}, "'augmented' or 'quadratic', not 'augmentd'"),
    ({"tol": -1e-9}, "tol"), ({"tol": math.nan}, "tol")])
def test_a_schedule_out_of_its_range_is_an_error_that_names_the_value(change, says):
    with pytest.raises(ValueError, match=says):
        Schedule(**{"mu0": 1.0, "a": 1.1, "steps": 3} | change)


# ---- other dtypes and devices

def test_the_path_of_least_squares_is_the_same_on_every_device(place):
    def path(at):
        return list(iterate({"w": at(FREE)}, [Task("w", Quantize(2) + Prune(kappa=1))],
                            LeastSquares(at(X), at(Y), "w"), Schedule(mu0=0.5, a=1.2, steps=15)))
    for host, far in zip(path(np.asarray), path(place), strict=True):
        for field in ("params", "delta", "lam"):
            # 15 solves with condition numbers under 10, each good to a few hundred roundings;
            # the multipliers are μ times a difference of weights, with μ up to 0.5 · 1.2¹⁴ = 6.4
            np.testing.assert_allclose(on_host(getattr(far, field)["w"]),
                                       getattr(host, field)["w"], rtol=0, atol=1e-11)


EVERY_KIND = [*KINDS, "each(quantize(k=3)) + prune(kappa=2)",
              "binary(scale=True) + prune(keep=0.2)", "ternary() + prune(kappa=3)",
              "sum(quantize(k=2), prune(kappa=3), solver='alternate')",
              "sum(lowrank(rank=1), prune(kappa=4), cycles=4)",
              "each(ternary(scale=True)) + binary()",
              "sum(binary(scale=True), prune(alpha=0.05), cycles=4)",
              "sum(lowrank(alpha=0.05), round(dtype='int3'), prune(groups=2, axis=1), cycles=4)"]


def same_to_rounding(here, far, most):
    """Equal paths, the codes and positions too, up to so much of the largest weight."""
    for host, other in zip(here, far, strict=True):
        for field in ("params", "delta", "lam"):
            for name, t in getattr(host, field).items():
                moved = on_host(getattr(other, field)[name])
                assert moved.dtype == t.dtype
                np.testing.assert_allclose(moved, t, rtol=0, atol=most * max(1, host.mu),
                                           err_msg=f"{field} {name} of step {host.step}")
        assert {i: p.status for i, p in host.theta.items()} == {
            i: p.status for i, p in other.theta.items()}
        assert other.feasibility == pytest.approx(host.feasibility, rel=1e-6, abs=most)


@pytest.mark.torch
@pytest.mark.parametrize("text", EVERY_KIND)
def test_least_squares_with_every_kind_of_compression_is_the_same_on_every_device(text, place):
    rng = np.random.default_rng(2)
    x, y, w = (rng.normal(size=shape) for shape in ((30, 6), (30, 8), (8, 6)))

    def path(at):
        return lc.iterate({"w": at(w)}, [Task("w", parse(text))],
                          LeastSquares(at(x), at(y), "w"), Schedule(mu0=5.0, a=1.3, steps=6))
    # The data have condition numbers under 4, and each solve is good to a few hundred roundings,
    # 1e-13. No weight of these draws is nearer than that to where a projection jumps, and between
    # such places a C step moves no more than the weights do, an alternation a few times as much;
    # the multipliers are μ times a difference of weights.
    same_to_rounding(path(np.asarray), path(place), 1e-10)


@pytest.mark.parametrize("text", ["each(quantize(k=2)) + prune(kappa=5)", "lowrank(rank=2)",
                                  "sum(lowrank(rank=1), prune(kappa=9), cycles=4)",
                                  "binary(scale=True)", "prune(alpha=0.01)"])
def test_sgd_on_a_small_net_is_the_same_on_every_device(text, place):
    rng, net = np.random.default_rng(4), linear(6, 3)
    x, labels = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    params = net.init(rng, np.float64)

    def path(at):
        step = SGD(value_and_grad(net), at(x), at(labels), lr=0.1, batch=16, epochs=3, seed=1)
        return lc.iterate({name: at(p) for name, p in params.items()},
                          [Task("fc1.weight", parse(text))], step,
                          Schedule(mu0=0.5, a=1.4, steps=5))
    # 45 batches in all, each off by a few roundings of numbers near 1, which the convex loss and
    # the penalty do not enlarge; the multipliers as above
    same_to_rounding(path(np.asarray), path(place), 1e-12)


def test_everything_stays_on_the_device_of_the_weights(place):
    params = {"w": place(FREE), "bias": place(np.ones(2))}
    home = getattr(params["w"], "device", None)
    tasks = [Task("w", Quantize(2) + Prune(kappa=1))]
    for step in iterate(params, tasks, LeastSquares(place(X), place(Y), "w"), GROWING):
        for t in (*step.params.values(), *step.delta.values(), *step.lam.values()):
            assert getattr(t, "device", None) == home
    assert step.step == 11


@pytest.mark.parametrize("scalar", [float, np.float64])
def test_single_precision_stays_single_precision(scalar):
    params = {name: t.astype(np.float32) for name, t in MIXED.items()}
    aim = {name: t.astype(np.float32) for name, t in AIM.items()}

    def l_step(params, targets, mu, step, state):
        return Quadratic(aim)(params, targets, float(mu), step, state)

    schedule = Schedule(mu0=scalar(0.3), a=1.3, steps=3)
    for step in iterate(params, TASKS, l_step, schedule):
        assert {t.dtype for t in (*step.delta.values(), *step.lam.values())} == {
            np.dtype(np.float32)}


@pytest.mark.of_numpy
def test_an_l_step_that_writes_in_place_spoils_neither_reference_nor_direct_compression():
    reference = {name: t.copy() for name, t in MIXED.items()}

    def l_step(params, targets, mu, step, state):
        params["bias"] += 1
        return params, state

    result = compress(reference, TASKS, l_step, Schedule(mu0=0.3, a=1.3, steps=2))
    assert np.array_equal(reference["bias"], MIXED["bias"])
    assert np.array_equal(result.direct["bias"], MIXED["bias"])


@pytest.mark.parametrize("answer", [None, {}, ({"a": 1},), "ab"])
def test_an_l_step_returns_a_pair(answer):
    with pytest.raises(ValueError, match="must return"):
        next(iterate(MIXED, TASKS, lambda *_: answer, GROWING))


def test_an_evaluation_is_a_dict():
    with pytest.raises(ValueError, match="evaluate must return a dict, not None"):
        next(iterate(MIXED, TASKS, Quadratic(), GROWING, evaluate=lambda params: None))


def test_an_evaluation_cannot_overwrite_the_step():
    (step, *_) = mixed_path(GROWING, evaluate=lambda params: {"loss": 1.0, "step": 99})
    assert step.summary()["step"] == 0


def test_a_path_is_resumed_with_its_own_tasks():
    (step, *_) = mixed_path(GROWING)
    with pytest.raises(ValueError, match="tasks of a, b, c, not these"):
        iterate(MIXED, TASKS[:1], Quadratic(), GROWING, resume=step)


@pytest.mark.of_numpy
def test_tensors_compressed_together_have_one_dtype():
    mixed = MIXED | {"a": MIXED["a"].astype(np.float32)}
    with pytest.raises(ValueError, match="a float32, b float64"):
        next(iterate(mixed, TASKS, Quadratic(), GROWING))


def test_tasks_may_come_from_a_generator():
    steps = list(iterate(MIXED, (task for task in TASKS), Quadratic(), GROWING))
    same_path(steps, mixed_path(GROWING))


def test_a_schedule_that_overflows_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match="overflows"):
        Schedule(mu0=1, a=10, steps=400)


@pytest.mark.parametrize("spoil, says", [
    (lambda p: {k: v for k, v in p.items() if k != "bias"}, "must return 'bias'"),
    (lambda p: p | {"c": p["c"][:2]}, r"must return 'c' with shape \(5, 5\)")])
def test_what_an_l_step_loses_or_spoils_is_named_at_that_step(spoil, says):
    def l_step(params, targets, mu, step, state):
        return spoil(params) if step == 1 else params, state

    steps = iterate(MIXED, TASKS, l_step, GROWING)
    next(steps)
    with pytest.raises(ValueError, match=says):
        next(steps)


# ----- overflow: the largest float32 is 3.4e38 -------------------------------------------------

SINGLE = Task("w", Binary(scale=True))


@pytest.mark.of_numpy
@pytest.mark.parametrize("w, mu, answers, what", [
    ([1, 2], 1, [[1, 2], [3, 3.5], [math.nan, 1]], "w, as the L step returned it, has"),
    ([1, 2], 1, [[1, 2], [3e38, math.inf]], "w, as the L step returned it, has"),
    # Δ(θ) is the mean of 3.3e38 three times and 0: w − Δ(θ) = −λ/μ is −2.5e38 at the last one
    ([3e38, 1, 1, 1], 1, [[3.3e38, 3.3e38, 3.3e38, 0]], "Δ\\(θ\\) [+] λ/μ has"),
    # −λ/μ = w − Δ(θ) is 1e38 after step 0
    ([1, 2], 1, [[3e38, 1e38], [3e38, 1e38]], "w − λ/μ has"),
    ([1, 2], 10, [[1, 2], [3e38, 1e38]], "λ has")])     # μ (w − Δ(θ)) = 1e39
def test_an_overflow_is_named_with_the_weights_and_the_state_before_its_step(w, mu, answers, what):
    answers, task = [np.array(answer, np.float32) for answer in answers], SINGLE

    def l_step(params, targets, mu, step, state):
        return {"w": answers[step]}, step

    path, found = iterate({"w": np.array(w, np.float32)}, [task], l_step, Schedule(mu, 1, 9)), []
    with np.errstate(over="ignore", invalid="ignore"):
        with pytest.raises(Diverged, match=what) as caught:
            found.extend(path)
    error, before = caught.value, [np.array(w, np.float32), *answers][len(found)]
    assert error.step == len(found) and error.state == (len(found) - 1 if found else None)
    assert error.params["w"].tobytes() == before.tobytes() and np.isfinite(before).all()
    assert (error.epoch, error.batch, error.rate) == (None, None, None)


@pytest.mark.of_numpy
def test_a_direct_compression_that_overflows_is_refused():
    # σ₁ u₁ v₁ᵀ of [[a, a], [a, 0]] is 1.17 a at the first entry
    w = {"w": np.array([[3.2e38, 3.2e38], [3.2e38, 0]], np.float32)}
    tasks = [Task("w", LowRank(rank=1))]
    with np.errstate(over="ignore"):
        with pytest.raises(Diverged, match="Δ.* at 'w' in direct compression") as caught:
            direct_compression(w, tasks)
        assert caught.value.params is w
        with pytest.raises(Diverged, match="Δ.* has a NaN or an infinity at 'w'"):
            next(iterate(w, tasks, Quadratic(), GROWING))
        small = {"w": w["w"] / np.float32(1e30)}
        with pytest.raises(Diverged, match="^Δ.θ. has a NaN or an infinity at 'w' in step 0") as no:
            next(iterate(small, tasks, lambda *_: (w, None), GROWING))
        assert no.value.params["w"].tobytes() == small["w"].tobytes()
    half = {"w": w["w"].astype(np.float64)}
    assert direct_compression(half, tasks)[1]["w"].max() > 3.7e38

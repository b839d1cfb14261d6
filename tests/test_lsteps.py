"""The L steps against a loop written out, and against independent solvers."""
import json
import math
import subprocess
import sys

import array_api_strict
import numpy as np
import pytest

from lcref.data import load
from lcref.lsteps import SGD, LeastSquares
from lcref.nets import evaluate, lenet300, linear, value_and_grad

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(23, 4)), RNG.normal(size=(23, 3))
W, BIAS, TARGET = RNG.normal(size=(3, 4)), RNG.normal(size=3), RNG.normal(size=(3, 4))
PARAMS, TARGETS = {"w": W, "b": BIAS}, {"w": TARGET}


def quadratic(params, x, y):
    """Mean over the batch of ½ ‖W x + b − y‖², and its gradient."""
    residual = x @ params["w"].T + params["b"] - y
    n = x.shape[0]
    return 0.5 * float((residual ** 2).sum()) / n, {"w": residual.T @ x / n,
                                                    "b": residual.sum(axis=0) / n}


def sgd(**changes):
    return SGD(quadratic, X, Y, **{"lr": 0.05, "batch": 8, "epochs": 3, "seed": 11} | changes)


def written_out(params, targets, mu, eta, momentum, epochs, batch, seed):
    """Nesterov's method as published for PyTorch, with none of the code under test."""
    rng = np.random.default_rng(seed)
    w = {name: p.copy() for name, p in params.items()}
    velocity = {name: 0 * p for name, p in params.items()}
    for _ in range(epochs):
        order = list(rng.permutation(len(X)))
        while order:
            rows, order = order[:batch], order[batch:]
            _, g = quadratic(w, X[rows], Y[rows])
            for name in w:
                if name in targets:
                    g[name] = g[name] + mu * (w[name] - targets[name])
                velocity[name] = momentum * velocity[name] + g[name]
                w[name] = w[name] - eta * (g[name] + momentum * velocity[name])
    return w, velocity


@pytest.mark.parametrize("targets", [{}, TARGETS, {"b": BIAS + 1, "w": TARGET}])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_nesterovs_method_on_the_penalised_loss(targets, momentum):
    params, state = sgd(momentum=momentum)(PARAMS, targets, 2.0, 4, None)
    w, velocity = written_out(PARAMS, targets, 2.0, 0.05 * 0.98 ** 4, momentum, 3, 8, 11)
    for name in PARAMS:
        np.testing.assert_allclose(params[name], w[name], rtol=0, atol=1e-14)
        np.testing.assert_allclose(state["velocity"][name], velocity[name], rtol=0, atol=1e-13)


def test_a_tensor_of_many_blocks_is_updated_in_every_block(monkeypatch):
    whole, _ = sgd()(PARAMS, TARGETS, 2.0, 0)
    monkeypatch.setattr("lcref.lsteps.BLOCK", 5)        # 12 elements: blocks of 5, 5 and 2
    blocks, _ = sgd()(PARAMS, TARGETS, 2.0, 0)
    for name in PARAMS:
        np.testing.assert_array_equal(whole[name], blocks[name])


def test_at_a_large_mu_the_l_step_ends_at_its_target():
    def constant_slope(params, x, y):
        return 0.0, {"w": np.full((3, 4), 6.0)}
    step = SGD(constant_slope, X, Y, lr=1.0, momentum=0.0, batch=23, epochs=200)
    # ∇L = 6 everywhere: the minimum of L + μ/2 ‖w − target‖² is at target − 6/μ
    for mu in (1e2, 1e6):
        params, _ = step({"w": W}, TARGETS, mu, 0)
        np.testing.assert_allclose(params["w"], TARGET - 6 / mu, rtol=1e-12, atol=1e-12)


def test_the_rate_decays_with_the_step_and_is_clipped_at_one_over_mu():
    step = sgd(lr=0.5, decay=0.9)
    assert step.rate(1.0, 0) == 0.5
    assert math.isclose(step.rate(1.0, 2), 0.405)
    assert step.rate(4.0, 2) == 0.25
    assert math.isclose(step.rate(4.0, 2, penalised=False), 0.405)


def test_the_clip_is_seen_in_the_length_of_one_step():
    def flat(params, x, y):
        return 0.0, {name: np.ones_like(p) for name, p in params.items()}
    step = SGD(flat, X, Y, lr=0.5, decay=1.0, momentum=0.0, batch=23, epochs=1)
    moved, _ = step(PARAMS, {"w": W}, 8.0, 0)           # the target is w: no penalty gradient
    np.testing.assert_allclose(moved["w"], W - 1 / 8, rtol=1e-14)
    np.testing.assert_allclose(moved["b"], BIAS - 1 / 8, rtol=1e-14)
    moved, _ = step(PARAMS, {"w": W}, 1.0, 0)
    np.testing.assert_allclose(moved["w"], W - 0.5, rtol=1e-14)
    moved, _ = step(PARAMS, {}, 8.0, 0)                 # no target, no clip
    np.testing.assert_allclose(moved["w"], W - 0.5, rtol=1e-14)


def test_a_saved_state_continues_bit_for_bit():
    once, end = sgd(epochs=5, decay=1.0)(PARAMS, TARGETS, 2.0, 1)
    params, state = sgd(epochs=2, decay=1.0)(PARAMS, TARGETS, 2.0, 1)
    saved = {"velocity": {name: v.copy() for name, v in state["velocity"].items()},
             "rng": json.loads(json.dumps(state["rng"])), "epoch": state["epoch"]}
    params, state = sgd(epochs=3, decay=1.0, seed=99)(params, TARGETS, 2.0, 1, saved)
    for name in PARAMS:
        np.testing.assert_array_equal(params[name], once[name])
        np.testing.assert_array_equal(state["velocity"][name], end["velocity"][name])
    assert state["epoch"] == end["epoch"] == 5 and state["rng"] == end["rng"]


def test_an_l_step_writes_to_nothing_it_is_given():
    step = sgd()
    before, targets = {name: p.copy() for name, p in PARAMS.items()}, {"w": TARGET.copy()}
    params, state = step(PARAMS, TARGETS, 2.0, 0)
    copies = ({name: p.copy() for name, p in params.items()},
              {name: v.copy() for name, v in state["velocity"].items()}, repr(state["rng"]))
    step(params, TARGETS, 2.0, 1, state)
    for name in PARAMS:
        np.testing.assert_array_equal(PARAMS[name], before[name])
        np.testing.assert_array_equal(params[name], copies[0][name])
        np.testing.assert_array_equal(state["velocity"][name], copies[1][name])
    np.testing.assert_array_equal(TARGET, targets["w"])
    assert repr(state["rng"]) == copies[2] and state["epoch"] == 3


def test_the_layout_of_the_arrays_in_memory_makes_no_difference():
    fortran = {name: np.asfortranarray(p) for name, p in PARAMS.items()}
    expected, _ = sgd()(PARAMS, TARGETS, 2.0, 0)
    params, _ = sgd()(fortran, {"w": TARGET[:, ::-1][:, ::-1]}, 2.0, 0)
    np.testing.assert_allclose(params["w"], expected["w"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("xp", [np, array_api_strict])
def test_the_parameters_keep_their_dtype_when_the_targets_have_another(xp):
    def single(a):
        return xp.asarray(a, dtype=xp.float32)

    def flat(params, x, y):
        return 0.0, {name: xp.ones_like(p) for name, p in params.items()}
    step = SGD(flat, single(X), single(Y), lr=0.05, epochs=1)
    params, state = step({name: single(p) for name, p in PARAMS.items()},
                         {"w": xp.asarray(TARGET)}, 2.0, 0)
    assert {p.dtype for p in [*params.values(), *state["velocity"].values()]} <= {single(0).dtype}


def test_every_epoch_visits_every_row_once_and_the_first_step_has_its_own_length():
    seen, calls = [], []

    def watch(params, x, y):
        seen.append(x[:, 0].copy())
        return quadratic(params, x, y)
    step = SGD(watch, X, Y, lr=0.01, batch=10, epochs=1, first_epochs=2,
               on_batch=lambda *a: calls.append(a))
    _, state = step(PARAMS, {}, 1.0, 0)
    assert [len(rows) for rows in seen] == [10, 10, 3, 10, 10, 3] and state["epoch"] == 2
    for epoch in (seen[:3], seen[3:]):
        assert sorted(np.concatenate(epoch)) == sorted(X[:, 0])
    assert (np.concatenate(seen[:3]) != np.concatenate(seen[3:])).any()
    assert [call[:3] for call in calls] == [(0, e, b) for e in (0, 1) for b in (0, 1, 2)]
    first = quadratic(PARAMS, *((a[np.random.default_rng(0).permutation(23)[:10]])
                                for a in (X, Y)))[0]
    assert math.isclose(calls[0][3], first, rel_tol=1e-14)
    _, state = step(PARAMS, {}, 1.0, 1, state)
    assert len(seen) == 9 and state["epoch"] == 3


def test_sgd_on_a_device_of_the_array_standard_equals_numpy():
    place = array_api_strict.Device("device1")

    def there(a):
        return array_api_strict.asarray(a, device=place)

    def strict_quadratic(params, x, y):
        xp, n = array_api_strict, x.shape[0]
        residual = x @ params["w"].T + params["b"] - y
        return 0.0, {"w": residual.T @ x / n, "b": xp.sum(residual, axis=0) / n}
    step = SGD(strict_quadratic, there(X), there(Y), lr=0.05, batch=8, epochs=3, seed=11)
    params, state = step({name: there(p) for name, p in PARAMS.items()}, {"w": there(TARGET)},
                         2.0, 0)
    params, _ = step(params, {"w": there(TARGET)}, 2.0, 1, state)
    expected, state = sgd()(PARAMS, TARGETS, 2.0, 0)
    expected, _ = sgd()(expected, TARGETS, 2.0, 1, state)
    for name, p in params.items():
        assert p.device == place
        p = np.asarray(p.to_device(array_api_strict.Device("CPU_DEVICE")))
        np.testing.assert_allclose(p, expected[name], rtol=0, atol=1e-14)


def test_training_lowers_the_loss_and_the_error_on_the_digits():
    data, net = load("digits"), lenet300(64, 10, "relu")
    params = net.init(np.random.default_rng(0))
    step = SGD(value_and_grad(net), data.x_train, data.y_train, lr=0.05, batch=64, epochs=6)
    trained, _ = step(params, {}, 1.0, 0)
    before, after = (evaluate(net, p, data.x_train, data.y_train) for p in (params, trained))
    assert after["loss"] < 0.1 * before["loss"] and after["error"] < 3
    assert evaluate(net, trained, data.x_test, data.y_test)["error"] < 6
    again, _ = step(params, {}, 1.0, 0)
    for name in params:
        np.testing.assert_array_equal(trained[name], again[name])


def test_a_loss_that_diverges_is_an_error_that_says_where():
    data, net = load("digits"), linear(64, 10)
    params = net.init(np.random.default_rng(0))
    params["fc1.weight"][0, 0] = np.nan
    step = SGD(value_and_grad(net), data.x_train, data.y_train, lr=0.25, epochs=1)
    with pytest.raises(FloatingPointError) as error:
        step(params, {}, 1.0, 2)
    for word in ("loss is nan", "L step 2", "epoch 0, batch 0", f"{.25 * .98**2:g}", "smaller lr"):
        assert word in str(error.value)
    with pytest.raises(FloatingPointError, match=r"L step 0, in epoch \d+, batch \d.* rate 1e\+06"):
        sgd(lr=1e6, epochs=100)(PARAMS, {}, 1.0, 0)


def test_a_weight_that_overflows_in_the_last_batch_is_an_error():
    def cliff(params, x, y):
        return 0.0, {"w": np.full((3, 4), 1e308), "b": np.zeros(3)}
    with pytest.raises(FloatingPointError, match="w has a NaN or an infinity"):
        SGD(cliff, X, Y, lr=100.0, batch=23, epochs=1)(PARAMS, {}, 1.0, 0)


@pytest.mark.parametrize("change", [
    {"lr": 0.0}, {"lr": math.nan}, {"decay": 0.0}, {"momentum": 1.0}, {"momentum": -0.1},
    {"batch": 0}, {"epochs": -1}, {"first_epochs": -1}])
def test_sgd_rejects_settings_out_of_range(change):
    (name, value), = change.items()
    with pytest.raises(ValueError, match=f"needs that .*{name}.*{name}={value}"):
        sgd(**change)


def test_sgd_rejects_a_training_set_whose_rows_do_not_match():
    with pytest.raises(ValueError, match="23 rows of x, 22 of labels"):
        SGD(quadratic, X, Y[:-1], lr=0.1)


@pytest.mark.parametrize("step", [sgd(), LeastSquares(X, Y, "w")])
@pytest.mark.parametrize("targets, mu, says", [
    (TARGETS, 0.0, "mu must be positive"), (TARGETS, math.inf, "mu must be positive"),
    ({"v": TARGET}, 1.0, "'v', but the parameters are w, b"),
    ({"w": TARGET[0]}, 1.0, r"\(4,\), the parameter \(3, 4\)")])
def test_an_l_step_rejects_targets_that_do_not_fit(step, targets, mu, says):
    with pytest.raises(ValueError, match=says):
        step(PARAMS, targets, mu, 0)


# ----- least squares -------------------------------------------------------------------------

@pytest.mark.parametrize("mu", [1e-6, 0.3, 1e4])
def test_least_squares_solves_the_stacked_system(mu):
    # ½ ‖X Wᵀ − Y‖² + μ/2 ‖W − T‖² is ½ ‖[X; √μ I] Wᵀ − [Y; √μ Tᵀ]‖²
    params, state = LeastSquares(X, Y)({"weight": W}, {"weight": TARGET}, mu, 0, "kept")
    stacked = np.vstack([X, math.sqrt(mu) * np.eye(4)])
    rhs = np.vstack([Y, math.sqrt(mu) * TARGET.T])
    expected = np.linalg.lstsq(stacked, rhs)[0].T
    np.testing.assert_allclose(params["weight"], expected, rtol=1e-11, atol=1e-12)
    assert state == "kept"


def test_the_gradient_of_the_penalised_least_squares_vanishes_at_the_l_step():
    params, _ = LeastSquares(X, Y, "w")(PARAMS, TARGETS, 0.7, 0)
    w = params["w"]
    gradient = [[sum((X[n] @ w[o] - Y[n, o]) * X[n, i] for n in range(23))
                 + 0.7 * (w[o, i] - TARGET[o, i]) for i in range(4)] for o in range(3)]
    np.testing.assert_allclose(gradient, 0, atol=1e-12)
    assert params["b"] is BIAS and PARAMS["w"] is W


def test_least_squares_of_a_vector_is_that_of_one_output():
    vector, _ = LeastSquares(X, Y[:, 0])({"weight": W[0]}, {"weight": TARGET[0]}, 0.7, 0)
    expected = np.linalg.lstsq(np.vstack([X, math.sqrt(0.7) * np.eye(4)]),
                               np.concatenate([Y[:, 0], math.sqrt(0.7) * TARGET[0]]))[0]
    assert vector["weight"].shape == (4,)
    np.testing.assert_allclose(vector["weight"], expected, rtol=1e-11)


def test_least_squares_without_a_target_is_the_solution_of_least_norm():
    dependent = np.column_stack([X, X[:, 0] + X[:, 1]])
    w = np.zeros((3, 5))
    params, _ = LeastSquares(dependent, Y)({"weight": w}, {}, 1.0, 0)
    np.testing.assert_allclose(params["weight"], np.linalg.lstsq(dependent, Y)[0].T, atol=1e-12)


def test_the_loss_of_least_squares_is_half_the_sum_of_squares():
    step = LeastSquares(np.array([[1., 2], [3, 4]]), np.array([[1.], [0]]))
    assert step.loss({"weight": np.array([[1., -2]])}) == (4**2 + 5**2) / 2


def test_least_squares_on_a_device_of_the_array_standard_equals_numpy():
    place = array_api_strict.Device("device1")
    x, y, w, target = (array_api_strict.asarray(a, device=place) for a in (X, Y, W, TARGET))
    step = LeastSquares(x, y, "w")
    for targets, there in ((TARGETS, {"w": target}), ({}, {})):
        expected, _ = LeastSquares(X, Y, "w")(PARAMS, targets, 0.7, 0)
        params, _ = step({"w": w}, there, 0.7, 0)
        assert params["w"].device == place
        result = np.asarray(params["w"].to_device(array_api_strict.Device("CPU_DEVICE")))
        np.testing.assert_allclose(result, expected["w"], rtol=1e-13)
    assert math.isclose(step.loss({"w": w}), LeastSquares(X, Y, "w").loss({"w": W}))


def test_least_squares_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match=r"\(23, 4\) and \(22, 3\)"):
        LeastSquares(X, Y[:-1])
    with pytest.raises(ValueError, match=r"\(23,\) and \(23, 3\)"):
        LeastSquares(X[:, 0], Y)
    with pytest.raises(ValueError, match=r"'weight' of shape \(3, 4\), got .*'w'"):
        LeastSquares(X, Y)(PARAMS, {}, 1.0, 0)
    with pytest.raises(ValueError, match=r"'w' of shape \(4,\)"):
        LeastSquares(X, Y[:, 0], "w").loss(PARAMS)
    with pytest.raises(ValueError, match="depends on 'w' alone"):
        LeastSquares(X, Y, "w")(PARAMS, {"w": TARGET, "b": BIAS}, 1.0, 0)


def test_the_l_steps_import_neither_autograd_nor_the_nets():
    code = ("import sys, lcref.lsteps; "
            "print([m for m in sys.modules if m.startswith(('autograd', 'lcref.nets', 'scipy'))])")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr

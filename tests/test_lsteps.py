"""The L steps against a loop written out, and against independent solvers."""
import json
import math
import pickle
import subprocess
import sys

import array_api_strict
import numpy as np
import pytest

from lcref import lc
from lcref.compressions import Quantize, Task
from lcref.data import load
from lcref.flat import Weights
from lcref.lsteps import LBFGS, SGD, Diverged, LeastSquares
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
    monkeypatch.setattr("lcref.flat.BLOCK", 5)        # 12 elements: blocks of 5, 5 and 2
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


# ----- SGD: weight decay, schedules, statistics, draws ------------------------------------------

def test_weight_decay_adds_its_multiple_of_the_weights_to_every_gradient():
    params, _ = sgd(weight_decay=0.3, epochs=2)(PARAMS, TARGETS, 2.0, 0)
    w, velocity = {name: p.copy() for name, p in PARAMS.items()}, {"w": 0.0, "b": 0.0}
    rng = np.random.default_rng(11)
    for _ in range(2):
        order = rng.permutation(23)
        for rows in (order[:8], order[8:16], order[16:]):
            _, g = quadratic(w, X[rows], Y[rows])
            g = {"w": g["w"] + 0.3 * w["w"] + 2.0 * (w["w"] - TARGET), "b": g["b"] + 0.3 * w["b"]}
            for name in w:
                velocity[name] = 0.9 * velocity[name] + g[name]
                w[name] = w[name] - 0.05 * (g[name] + 0.9 * velocity[name])
    for name in w:
        np.testing.assert_allclose(params[name], w[name], rtol=0, atol=1e-14)


def test_sgd_takes_the_steps_of_pytorchs_optimizer():
    torch = pytest.importorskip("torch", reason="the peer needs PyTorch")
    leaves = [torch.tensor(p.copy(), requires_grad=True) for p in (W, BIAS)]
    peer = torch.optim.SGD(leaves, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.3)
    rng = np.random.default_rng(11)
    for order in [rng.permutation(23) for _ in range(3)]:
        for rows in (order[:8], order[8:16], order[16:]):
            peer.zero_grad()
            residual = torch.tensor(X[rows]) @ leaves[0].T + leaves[1] - torch.tensor(Y[rows])
            loss = 0.5 * (residual ** 2).sum() / len(rows)
            loss = loss + (leaves[0] - torch.tensor(TARGET)).square().sum()     # μ/2 = 1
            loss.backward()
            peer.step()
    params, _ = sgd(weight_decay=0.3)(PARAMS, TARGETS, 2.0, 0)
    for name, leaf in zip(("w", "b"), leaves):
        np.testing.assert_allclose(params[name], leaf.detach().numpy(), rtol=0, atol=1e-13)


def test_the_rate_decays_with_the_epoch_and_starts_anew_in_each_step():
    step = sgd(lr=0.5, decay=0.9, epoch_decay=0.5)
    for k, e, expected in ((0, 0, 0.5), (0, 2, 0.125), (2, 0, 0.405), (2, 1, 0.2025)):
        assert math.isclose(step.rate(1.0, k, epoch=e), expected)
    assert step.rate(100.0, 0, epoch=1) == 0.01
    assert step.rate(100.0, 0, penalised=False, epoch=1) == 0.25
    lengths = []

    def flat(params, x, y):
        lengths.append(float(params["b"][0]))
        return 0.0, {name: np.ones_like(p) for name, p in params.items()}
    step = SGD(flat, X, Y, lr=0.5, decay=0.9, epoch_decay=0.5, momentum=0.0, batch=23, epochs=3)
    for k in (0, 1):
        end, _ = step(PARAMS, {}, 1.0, k)
        moved = -np.diff([*lengths[-3:], end["b"][0]])
        np.testing.assert_allclose(moved, 0.5 * 0.9 ** k * np.array([1, 0.5, 0.25]), rtol=1e-12)


def test_a_rate_may_be_a_function_of_the_step_and_the_epoch():
    def milestones(step, epoch):
        return 0.1 if step == 0 else 0.01 if epoch < 2 else 0.001
    step = sgd(lr=milestones)
    for k, e, expected in ((0, 9, 0.1), (5, 1, 0.01), (5, 2, 0.001)):
        assert step.rate(1.0, k, epoch=e) == expected
    assert step.rate(1e3, 0) == 1e-3
    assert math.isclose(sgd(lr=milestones, decay=0.5, epoch_decay=0.25).rate(1.0, 2, epoch=1),
                        0.01 * 0.5 ** 2 * 0.25)
    single = {name: p.astype(np.float32) for name, p in PARAMS.items()}
    constant, _ = sgd(lr=lambda step, epoch: np.float64(0.05))(single, TARGETS, 2.0, 3)
    expected, _ = sgd(lr=0.05, decay=1.0)(single, TARGETS, 2.0, 3)
    np.testing.assert_array_equal(constant["w"], expected["w"])


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_function_that_gives_no_rate_is_an_error_that_says_where(bad):
    step = sgd(lr=lambda step, epoch: bad if epoch else 0.1)
    with pytest.raises(ValueError, match=f"positive and finite, got {bad} for L step 4, epoch 1"):
        step(PARAMS, {}, 1.0, 4)


def normalised(params, x, y):
    """The loss of `quadratic`, with a running mean of y, and a parameter that nothing uses."""
    loss, grads = quadratic(params, x, y)
    return loss, grads, {"mean": 0.5 * params["mean"] + 0.5 * y.mean(axis=0)}


def test_statistics_are_stored_and_what_has_neither_stays_as_it_is():
    start = {"frozen": np.ones(2), "mean": np.zeros(3, np.float32), **PARAMS}
    seen = []

    def watch(params, x, y):
        seen.append(y)
        return normalised(params, x, y)
    params, state = SGD(watch, X, Y, lr=0.05, batch=8, epochs=3, seed=11)(start, TARGETS, 2.0, 0)
    mean = np.zeros(3)
    for y in seen:
        mean = 0.5 * mean + 0.5 * sum(y) / len(y)
    np.testing.assert_allclose(params["mean"], mean, rtol=1e-5)
    assert params["mean"].dtype == np.float32 and not start["mean"].any()
    np.testing.assert_array_equal(params["frozen"], np.ones(2))
    expected, _ = sgd()(PARAMS, TARGETS, 2.0, 0)
    for name in PARAMS:
        np.testing.assert_array_equal(params[name], expected[name])
    assert state["velocity"].keys() == {"w", "b"} and list(params) == list(start)


def test_statistics_are_copied_also_where_the_same_array_is_returned_again():
    own = np.zeros(3)

    def reuses(params, x, y):
        own[...] = y.mean(axis=0)
        return *quadratic(params, x, y), {"mean": own}
    params, _ = SGD(reuses, X, Y, lr=0.05)({**PARAMS, "mean": np.zeros(3)}, {}, 1.0, 0)
    np.testing.assert_allclose(params["mean"], Y.mean(axis=0), rtol=1e-12)
    own[...] = 7
    assert (params["mean"] != 7).all()


def test_a_saved_state_continues_bit_for_bit_with_statistics_and_draws():
    def noisy(params, x, y, rng):
        return normalised(params, x + 0.1 * rng.normal(size=x.shape), y)

    def run(epochs, params, state):
        step = SGD(noisy, X, Y, lr=0.05, decay=1.0, batch=8, epochs=epochs, seed=11, draws=True,
                   prepare=lambda x, rng: x + 0.1 * rng.normal(size=x.shape))
        return step(params, TARGETS, 2.0, 1, state)
    start = {**PARAMS, "mean": np.zeros(3)}
    once, end = run(5, start, None)
    again, state = run(3, *run(2, start, None))
    for name in start:
        np.testing.assert_array_equal(again[name], once[name])
    assert state["rng"] == end["rng"] and state["epoch"] == end["epoch"] == 5


def test_a_random_loss_draws_from_the_generator_of_the_order():
    drawn = []

    def noisy(params, x, y, rng):
        drawn.append(rng.random())
        return quadratic(params, x, y)
    SGD(noisy, X, Y, lr=0.01, batch=12, epochs=2, seed=5, draws=True)(PARAMS, {}, 1.0, 0)
    rng, expected = np.random.default_rng(5), []
    for _ in range(2):
        rng.permutation(23)
        expected += [rng.random(), rng.random()]
    assert drawn == expected


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_prepared(workers):
    pixels = np.round(100 * X).astype(np.int16)
    step = SGD(quadratic, pixels, Y, lr=0.05, batch=8, epochs=3, seed=11, workers=workers,
               prepare=lambda rows: rows / 128)
    params, _ = step(PARAMS, TARGETS, 2.0, 0)
    expected, _ = SGD(quadratic, pixels / 128, Y, lr=0.05, batch=8, epochs=3, seed=11)(
        PARAMS, TARGETS, 2.0, 0)
    np.testing.assert_array_equal(params["w"], expected["w"])


def test_gradients_may_name_other_parameters_from_batch_to_batch():
    calls = []

    def alternate(params, x, y):
        calls.append({name: p.copy() for name, p in params.items()})
        loss, grads = quadratic(params, x, y)
        return loss, grads if len(calls) % 2 else {"w": grads["w"]}
    params, state = SGD(alternate, X, Y, lr=0.05, batch=6, epochs=1)(PARAMS, {}, 1.0, 0)
    b, v, order = BIAS, 0.0, np.random.default_rng(0).permutation(23)
    for i in range(4):
        np.testing.assert_allclose(calls[i]["b"], b, rtol=0, atol=1e-14)
        if i % 2 == 0:
            rows = order[6 * i:6 * i + 6]
            g = quadratic(calls[i], X[rows], Y[rows])[1]["b"]
            v = 0.9 * v + g
            b = b - 0.05 * (g + 0.9 * v)
    np.testing.assert_allclose(params["b"], b, rtol=0, atol=1e-14)
    np.testing.assert_allclose(state["velocity"]["b"], v, rtol=0, atol=1e-14)


@pytest.mark.parametrize("xp", [np, array_api_strict])
def test_many_small_tensors_move_as_each_would_alone(xp):
    rng, shapes = np.random.default_rng(8), [(), (3,), (2, 5), (1,), (4, 1, 3), (7,), (0,), (30,)]
    start = {f"p{i}": xp.asarray(rng.normal(size=shape), dtype=xp.float32 if i % 3 else xp.float64)
             for i, shape in enumerate(shapes)}
    slope = {name: 0.5 * p + 1 for name, p in start.items()}
    targets = {name: 2 * start[name] for name in ("p2", "p3", "p6", "p7")}

    def loss_of(names):
        return lambda params, x, y: (0.0, {name: slope[name] + params[name] for name in names})

    def run(names, wanted):
        step = SGD(loss_of(names), xp.asarray(X), xp.asarray(Y), lr=0.1, batch=8, epochs=2,
                   weight_decay=0.01)
        return step({name: start[name] for name in names}, wanted, 2.0, 0)
    together, state = run(list(start), targets)
    for name, p in start.items():
        alone, own = run([name], {name: targets[name]} if name in targets else {})
        assert together[name].dtype == p.dtype and together[name].shape == p.shape
        np.testing.assert_array_equal(np.asarray(together[name]), np.asarray(alone[name]))
        np.testing.assert_array_equal(np.asarray(state["velocity"][name]),
                                      np.asarray(own["velocity"][name]))


def test_small_tensors_share_a_vector_and_on_a_device_all_of_a_kind_do(monkeypatch):
    monkeypatch.setattr("lcref.flat.BLOCK", 8)
    shapes = {"a": (5,), "b": (3, 3), "c": (1,), "d": (2,), "e": (7,), "f": (20,)}
    for xp, expected in ((np, [["c", "d", "a"], ["e"], ["b"]]),
                         (array_api_strict, [["c", "d", "a", "e", "b"]])):
        params = {name: xp.zeros(shape) for name, shape in shapes.items()}
        weights = Weights(params, {}, {"f": params["f"]})
        weights.move({name: p + 1 for name, p in params.items()}, mu=1.0, eta=1.0, m=0.0, omega=0)
        assert [pack.names for pack in weights.packs] == [*expected, ["f"]]
        for p in weights.w.values():
            assert bool(xp.all(p == -1))


@pytest.mark.parametrize("answer, says", [
    ((0.0, {"v": W}), "a gradient for 'v', but the parameters are w, b"),
    ((0.0, {"w": W.T}), r"gradient of w has shape \(4, 3\), the parameter \(3, 4\)"),
    ((0.0, {"w": W}, {"c": BIAS}), "a new value for 'c'"),
    ((0.0, {"w": W}, {"b": W}), "new value of b has shape"),
    ((0.0, {"w": W}, {"w": W}), "w has a gradient, and a new value"),
    ((0.0, {"b": BIAS}), "w has a target but no gradient")])
def test_an_answer_that_does_not_fit_the_parameters_is_an_error(answer, says):
    with pytest.raises(ValueError, match=says):
        SGD(lambda params, x, y: answer, X, Y, lr=0.1)(PARAMS, TARGETS, 1.0, 0)


def test_a_state_that_does_not_fit_the_parameters_is_an_error():
    _, state = sgd()(PARAMS, TARGETS, 2.0, 0)
    with pytest.raises(ValueError, match="the velocity of w has shape"):
        sgd()({"w": W.T, "b": BIAS}, {}, 2.0, 1, state)


# ----- SGD that diverges -------------------------------------------------------------------------

def explodes(epoch, batch, how):
    """`normalised` that goes wrong in one batch of 8 of 23 rows: how(answer) is what it returns."""
    calls = iter(range(1000))

    def f(params, x, y):
        answer = normalised(params, x, y)
        return how(*answer) if next(calls) == 3 * epoch + batch else answer
    return f


START = {**PARAMS, "mean": np.zeros(3)}
WAYS = {
    "the loss is nan": lambda loss, grads, statistics: (math.nan, grads, statistics),
    "the loss is inf": lambda loss, grads, statistics: (math.inf, grads, statistics),
    "mean has a NaN": lambda loss, grads, statistics: (loss, grads, {"mean": math.inf + BIAS})}


@pytest.mark.parametrize("says", WAYS)
def test_what_diverged_carries_the_weights_and_the_state_at_the_start_of_the_epoch(says):
    step = SGD(explodes(2, 2, WAYS[says]), X, Y, lr=0.05, batch=8, epochs=5, seed=11)
    with pytest.raises(Diverged, match=says) as caught:
        step(START, TARGETS, 2.0, 3)
    error = caught.value
    assert (error.step, error.epoch) == (3, 2) and error.rate == 0.05 * 0.98 ** 3
    assert error.batch == (2 if "loss" in says else None)
    good, state = SGD(normalised, X, Y, lr=0.05, batch=8, epochs=2, seed=11)(START, TARGETS, 2.0, 3)
    for name in START:
        np.testing.assert_array_equal(error.params[name], good[name])
    # from there a run goes on as if nothing had been
    go_on = SGD(normalised, X, Y, lr=0.05, batch=8, epochs=3)
    rest, end = go_on(error.params, TARGETS, 2.0, 3, error.state)
    expected, same = go_on(good, TARGETS, 2.0, 3, state)
    for name in START:
        np.testing.assert_array_equal(rest[name], expected[name])
    assert end["rng"] == same["rng"] and end["epoch"] == 5


def test_divergence_in_the_first_epoch_carries_what_the_call_was_given():
    step = SGD(explodes(0, 1, WAYS["the loss is nan"]), X, Y, lr=0.05, batch=8)
    with pytest.raises(Diverged) as caught:
        step(START, TARGETS, 2.0, 0)
    assert caught.value.state is None and caught.value.batch == 1
    for name in START:
        np.testing.assert_array_equal(caught.value.params[name], START[name])


def test_a_weight_that_overflows_is_seen_at_the_end_of_its_epoch():
    calls = []

    def cliff(params, x, y):
        calls.append(1)
        return 0.0, {"w": np.full((3, 4), 1e308), "b": np.zeros(3)}
    with pytest.raises(Diverged, match="in epoch 0, after its last batch, at learning rate 100;"):
        SGD(cliff, X, Y, lr=100.0, batch=8, epochs=4)(PARAMS, {}, 1.0, 0)
    assert len(calls) == 3


def test_what_diverged_can_be_pickled():
    with pytest.raises(Diverged) as caught:
        sgd(lr=1e6, epochs=100)(PARAMS, {}, 1.0, 7)
    error = pickle.loads(pickle.dumps(caught.value))
    assert type(error) is Diverged and str(error) == str(caught.value)
    assert (error.step, error.epoch, error.batch) == (7, caught.value.epoch, caught.value.batch)
    np.testing.assert_array_equal(error.params["w"], caught.value.params["w"])
    assert error.state["epoch"] == caught.value.state["epoch"] == error.epoch > 0


@pytest.mark.parametrize("change", [
    {"lr": 0.0}, {"lr": math.nan}, {"decay": 0.0}, {"momentum": 1.0}, {"momentum": -0.1},
    {"epoch_decay": 0.0}, {"epoch_decay": 1.1}, {"weight_decay": -1.0},
    {"weight_decay": math.inf}, {"workers": 0},
    {"batch": 0}, {"epochs": -1}, {"first_epochs": -1}])
def test_sgd_rejects_settings_out_of_range(change):
    (name, value), = change.items()
    with pytest.raises(ValueError, match=f"needs that .*{name}.*{name}={value}"):
        sgd(**change)


def test_sgd_lists_every_setting_that_is_out_of_range():
    with pytest.raises(ValueError, match="that lr is .*; that momentum .*; that batch is"):
        sgd(lr=-1.0, momentum=2.0, batch=0)


@pytest.mark.parametrize("make", [lambda y: SGD(quadratic, X, y, lr=0.1),
                                  lambda y: LBFGS(quadratic, X, y)])
def test_an_l_step_rejects_a_training_set_whose_rows_do_not_match(make):
    with pytest.raises(ValueError, match="23 rows of x, 22 of labels"):
        make(Y[:-1])
    with pytest.raises(ValueError, match="at least one"):
        make(Y[:0])


@pytest.mark.parametrize("step", [sgd(), LeastSquares(X, Y, "w"), LBFGS(quadratic, X, Y)])
@pytest.mark.parametrize("targets, mu, says", [
    (TARGETS, 0.0, "mu must be positive"), (TARGETS, math.inf, "mu must be positive"),
    ({"v": TARGET}, 1.0, "'v', but the parameters are w, b"),
    ({"w": TARGET[0]}, 1.0, r"\(4,\), the parameter \(3, 4\)")])
def test_an_l_step_rejects_targets_that_do_not_fit(step, targets, mu, says):
    with pytest.raises(ValueError, match=says):
        step(PARAMS, targets, mu, 0)


# ----- L-BFGS --------------------------------------------------------------------------------

LABELS = RNG.integers(0, 3, 23)


def logistic(params, x, labels):
    """Mean cross-entropy of multinomial logistic regression, and its gradient."""
    z = x @ params["w"].T + params["b"]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(len(x)), labels]).mean()
    p[np.arange(len(x)), labels] -= 1
    return loss, {"w": p.T @ x / len(x), "b": p.mean(axis=0)}


def newton(mu, target):
    """The minimum of `logistic` plus μ/2 ‖(w, b) − target‖², with the Hessian written out."""
    inputs = np.column_stack([X, np.ones(23)])      # the bias is the weight of a 1
    w = target.copy()
    for _ in range(50):
        p = np.exp(inputs @ w.T)
        p /= p.sum(axis=1, keepdims=True)
        g = (p - np.eye(3)[LABELS]).T @ inputs / 23 + mu * (w - target)
        curvature = p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None, :]   # (23, 3, 3)
        h = np.einsum("nij,nk,nl->ikjl", curvature, inputs, inputs).reshape(15, 15) / 23
        step = np.linalg.solve(h + mu * np.eye(15), g.ravel()).reshape(3, 5)
        w = w - min(1.0, 1 / np.linalg.norm(step)) * step       # none is longer than 1
    assert abs(g).max() < 1e-12
    return w


def penalised(function, x, y, params, targets, mu):
    """Its value, from one batch of all rows."""
    return function(params, x, y)[0] + 0.5 * mu * sum(
        float(((params[name] - t) ** 2).sum()) for name, t in targets.items())


@pytest.mark.parametrize("mu", [0.01, 1.0, 100.0])
def test_l_bfgs_finds_the_minimum_that_newtons_method_finds(mu):
    targets = {"w": TARGET, "b": BIAS + 1}
    params, state = LBFGS(logistic, X, LABELS, tolerance=1e-8, batch=7)(PARAMS, targets, mu, 0)
    expected = newton(mu, np.column_stack([TARGET, BIAS + 1]))
    # the objective is strongly convex with μ: ‖w − w*‖ ≤ ‖gradient‖ / μ ≤ √15 · tolerance / μ
    bound = math.sqrt(15) * (1e-8 + 1e-12) / mu
    assert np.linalg.norm(np.column_stack([params["w"], params["b"]]) - expected) <= bound
    assert state["converged"]
    assert math.isclose(state["value"], penalised(logistic, X, LABELS, params, targets, mu))


@pytest.mark.parametrize("mu", [0.05, 5.0])
def test_l_bfgs_finds_the_least_squares_that_the_closed_form_finds(mu):
    def half_squares(params, x, y):     # 23 times a mean, that is the sum over all rows
        loss, grads = quadratic({"w": params["weight"], "b": np.zeros(3)}, x, y)
        return 23 * loss, {"weight": 23 * grads["w"]}
    params, _ = LBFGS(half_squares, X, Y, tolerance=1e-9, batch=5)(
        {"weight": W}, {"weight": TARGET}, mu, 0)
    expected, _ = LeastSquares(X, Y)({"weight": W}, {"weight": TARGET}, mu, 0)
    np.testing.assert_allclose(params["weight"], expected["weight"], rtol=0,
                               atol=math.sqrt(12) * 1e-9 / mu)


def wavy(params, x, y):
    """A loss with many local minima."""
    w = params["w"]
    return float(np.cos(3 * w).sum() + 0.1 * (w ** 2).sum()), {"w": -3 * np.sin(3 * w) + 0.2 * w}


def test_l_bfgs_keeps_a_rounded_start_that_is_better_than_its_rounded_answer():
    h, kept = np.array([[1.0, 0.99], [0.99, 1.0]]), 0       # a narrow valley across the axes

    def valley(params, x, y):
        d = params["w"] - centre
        return float(d @ h @ d), {"w": 2 * h @ d}
    for centre in np.random.default_rng(6).normal(size=(20, 2)):
        down, up = np.floor(centre * 256) / 256, np.ceil(centre * 256) / 256
        corners = [np.array([a, b], np.float16) for a in (down[0], up[0]) for b in (down[1], up[1])]
        value, start = min(((valley({"w": w.astype(float)}, X, Y)[0], w) for w in corners),
                           key=lambda corner: corner[0])
        params, state = LBFGS(valley, X, Y)({"w": start}, {}, 1.0, 0)
        after = valley({"w": params["w"].astype(float)}, X, Y)[0]
        assert after <= value and math.isclose(state["value"], after)
        assert params["w"].dtype == np.float16 and not np.shares_memory(params["w"], start)
        kept += np.array_equal(params["w"], start)
    assert kept


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("iterations", [1, 2, 100])
def test_l_bfgs_never_ends_higher_than_it_starts_and_keeps_the_dtypes(dtype, iterations):
    rng = np.random.default_rng(4)
    for _ in range(20):
        params, targets = {"w": rng.normal(size=6).astype(dtype)}, {"w": rng.normal(size=6)}
        step = LBFGS(wavy, X, Y, max_iterations=iterations)
        for _ in range(4):              # the later ones start at an optimum, rounded to dtype
            before = penalised(wavy, X, Y, {"w": params["w"].astype(float)}, targets, 1.5)
            params, state = step(params, targets, 1.5, 0)
            after = penalised(wavy, X, Y, {"w": params["w"].astype(float)}, targets, 1.5)
            assert after <= before and params["w"].dtype == dtype
            assert math.isclose(state["value"], after, rel_tol=1e-12, abs_tol=1e-12)


def test_l_bfgs_computes_in_float64():
    seen = set()

    def watch(params, x, labels):
        seen.update({x.dtype, *(p.dtype for p in params.values())})
        return logistic(params, x, labels)
    params, _ = LBFGS(watch, X.astype(np.float32), LABELS)(
        {name: p.astype(np.float32) for name, p in PARAMS.items()}, {}, 1.0, 0)
    assert seen == {np.dtype(np.float64)}


def test_l_bfgs_writes_to_nothing_it_is_given_and_repeats_itself():
    params, targets = {name: p.copy() for name, p in PARAMS.items()}, {"w": TARGET.copy()}
    step = LBFGS(logistic, X, LABELS)
    once, state = step(params, targets, 0.5, 0)
    again, _ = step(params, targets, 0.5, 0)
    for name in PARAMS:
        np.testing.assert_array_equal(params[name], PARAMS[name])
        np.testing.assert_array_equal(once[name], again[name])
        assert not np.shares_memory(once[name], params[name])
    np.testing.assert_array_equal(targets["w"], TARGET)
    settled, _ = step(once, targets, 0.5, 0)
    assert not np.shares_memory(settled["w"], once["w"])


def test_the_state_of_l_bfgs_counts_and_makes_no_difference():
    step = LBFGS(logistic, X, LABELS, max_iterations=3)
    first, state = step(PARAMS, TARGETS, 0.5, 0)
    assert state["iterations"] == 3 and not state["converged"] and "LIMIT" in state["message"]
    with_state, later = step(first, TARGETS, 0.5, 1, json.loads(json.dumps(state)))
    without, own = step(first, TARGETS, 0.5, 1)
    np.testing.assert_array_equal(with_state["w"], without["w"])
    for count in ("iterations", "evaluations"):
        assert later[count] == state[count] + own[count]


def test_l_bfgs_prepares_its_batches_and_their_size_makes_no_difference_but_rounding():
    pixels, shapes = np.round(100 * X).astype(np.int16), set()

    def watch(params, x, labels):
        shapes.add(x.shape)
        return logistic(params, x, labels)
    common = {"tolerance": 1e-9, "prepare": lambda rows: (rows / 128).astype(np.float32)}
    small, _ = LBFGS(watch, pixels, LABELS, batch=9, **common)(PARAMS, TARGETS, 0.5, 0)
    assert shapes == {(9, 4), (5, 4)}
    exact = (pixels / 128).astype(np.float32).astype(float)
    whole, _ = LBFGS(logistic, exact, LABELS, tolerance=1e-9)(PARAMS, TARGETS, 0.5, 0)
    np.testing.assert_allclose(small["w"], whole["w"], rtol=0, atol=1e-7)


def test_a_parameter_the_loss_ignores_goes_to_its_target_or_stays():
    start = {**PARAMS, "idle": np.ones(2), "pulled": np.ones(2)}
    params, _ = LBFGS(logistic, X, LABELS, tolerance=1e-10)(
        start, {"w": TARGET, "pulled": np.array([3.0, -4.0])}, 2.0, 0)
    np.testing.assert_array_equal(params["idle"], np.ones(2))
    np.testing.assert_allclose(params["pulled"], [3, -4], rtol=0, atol=1e-9)


@pytest.mark.parametrize("start", [0.0, 0.5, -3.0])
def test_l_bfgs_backs_away_from_where_the_loss_is_not_finite(start):
    def barrier(params, x, y):          # −log(1 − w) − 10 w: the minimum is at 0.9, NaN beyond 1
        w = params["w"]
        return float((-np.log(1 - w) - 10 * w).sum()), {"w": 1 / (1 - w) - 10}
    params, _ = LBFGS(barrier, X, Y, tolerance=1e-8)({"w": np.full(3, start)}, {}, 1.0, 0)
    np.testing.assert_allclose(params["w"], 0.9, rtol=0, atol=1e-8)


def test_l_bfgs_that_cannot_start_says_where_and_carries_what_it_was_given():
    params = {"w": np.full((3, 4), np.nan), "b": BIAS}
    with pytest.raises(Diverged, match="not finite at the start of L step 5") as caught:
        LBFGS(logistic, X, LABELS)(params, {}, 1.0, 5, {"iterations": 1, "evaluations": 2})
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.step == 5 and error.epoch is error.batch is error.rate is None
    assert error.state["iterations"] == 1
    np.testing.assert_array_equal(error.params["b"], BIAS)


def test_l_bfgs_refuses_what_is_no_function_of_the_parameters():
    with pytest.raises(ValueError, match=r"statistics of the batch \(mean\): use SGD"):
        LBFGS(normalised, X, Y)(START, {}, 1.0, 0)
    with pytest.raises(ValueError, match="draws is False, for a random loss needs SGD"):
        LBFGS(logistic, X, LABELS, draws=True)
    empty, _ = LBFGS(lambda *a: (*logistic(*a), {}), X, LABELS)(PARAMS, {}, 1.0, 0)
    assert empty.keys() == PARAMS.keys()


def test_l_bfgs_refuses_arrays_of_a_device():
    x, w, b = (array_api_strict.asarray(a) for a in (X, W, BIAS))
    with pytest.raises(ValueError, match="NumPy arrays; use SGD"):
        LBFGS(logistic, x, LABELS)({"w": w, "b": b}, {}, 1.0, 0)


@pytest.mark.parametrize("change", [{"max_iterations": 0}, {"tolerance": 0.0}, {"history": 0},
                                    {"tolerance": math.nan}, {"batch": 0}])
def test_l_bfgs_rejects_settings_out_of_range(change):
    (name, value), = change.items()
    with pytest.raises(ValueError, match=f"LBFGS needs that {name} .*{name}={value}"):
        LBFGS(logistic, X, LABELS, **change)


def test_l_bfgs_is_an_l_step_of_the_algorithm():
    data, net = load("digits"), linear(64, 10)
    x, y = data.x_train.reshape(-1, 64)[:300], data.y_train[:300]
    step = LBFGS(value_and_grad(net), x, y, max_iterations=50)
    reference, _ = step(net.init(np.random.default_rng(0)), {}, 1.0, 0)

    def error(params):
        return evaluate(net, params, x, y)
    task = Task(("fc1.weight",), Quantize(k=2))
    result = lc.compress(reference, [task], step, lc.Schedule(1e-3, 2.0, 14), error)
    assert error(reference)["error"] == 0
    assert error(result.params)["loss"] < 0.7 * error(result.direct)["loss"]
    assert len(np.unique(result.params["fc1.weight"])) == 2
    assert result.last.state["iterations"] > 14


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
    step, w = LeastSquares(DEPENDENT, Y), np.zeros((3, 5))
    with pytest.warns(RuntimeWarning, match="x has rank 4, but 5 inputs.* of least norm"):
        params, _ = step({"weight": w}, {}, 1.0, 0)
    np.testing.assert_allclose(params["weight"], np.linalg.lstsq(DEPENDENT, Y)[0].T, atol=1e-12)
    assert step.rank == 4 and LeastSquares(X, Y).rank == 4


DEPENDENT = np.column_stack([X, X[:, 0] + X[:, 1]])     # of rank 4


@pytest.mark.parametrize("mu", [1e-300, 1e-30, 1e-16, 1e-9, 0.3, 1e9, 1e300])
def test_dependent_columns_keep_the_target_where_the_loss_says_nothing(mu):
    # X (1, 1, 0, 0, -1)ᵀ = 0, so the minimiser has T's component along that vector, whatever mu;
    # in the other directions it tends to least squares as μ → 0 and to T as μ → ∞.
    null = np.array([1, 1, 0, 0, -1]) / math.sqrt(3)
    target = np.random.default_rng(3).normal(size=(3, 5))
    params, _ = LeastSquares(DEPENDENT, Y)({"weight": 0 * target}, {"weight": target}, mu, 0)
    w = params["weight"]
    np.testing.assert_allclose(w @ null, target @ null, rtol=0, atol=1e-13)
    exact = {True: np.linalg.lstsq(DEPENDENT, Y)[0].T @ (np.eye(5) - np.outer(null, null))
             + np.outer(target @ null, null), False: target}
    if not 1e-16 < mu < 1e16:   # ‖W − its limit‖ is about μ/σ² or σ²/μ, and σ² is about 10
        np.testing.assert_allclose(w, exact[mu < 1], rtol=0, atol=1e-12)
    gradient = (w @ DEPENDENT.T - Y.T) @ DEPENDENT + min(mu, 1e9) * (w - target)
    assert mu > 1 or np.abs(gradient).max() < 1e-12


@pytest.mark.parametrize("scale", [1e-150, 1e-7, 1e7, 1e150])
def test_the_condition_of_x_is_not_squared_and_no_magnitude_of_x_overflows(scale):
    # Two columns that differ by 1e-7: XᵀX would be singular to working precision.
    rng = np.random.default_rng(4)
    x = rng.normal(size=(30, 1)) + [[0, 1e-7]] * rng.normal(size=(30, 1))
    w = np.array([[2.0, -1.0]]) / scale
    params, _ = LeastSquares(scale * x, x @ (scale * w.T))({"weight": w}, {}, 1.0, 0)
    np.testing.assert_allclose(scale * params["weight"], [[2.0, -1.0]], rtol=1e-7)


def test_least_squares_that_overflow_are_an_error_with_the_weights_as_they_were():
    step, start = LeastSquares(1e-200 * X, 1e200 * Y), {"weight": W}
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(Diverged) as error:
        step(start, {}, 1.0, 7, "state")
    assert error.value.params is start and error.value.state == "state" and error.value.step == 7


def test_least_squares_answer_in_the_dtype_of_the_weights():
    w = W.astype(np.float32)
    expected, _ = LeastSquares(X, Y)({"weight": W}, {"weight": TARGET}, 0.3, 0)
    params, _ = LeastSquares(X, Y)({"weight": w}, {"weight": TARGET}, 0.3, 0)
    assert params["weight"].dtype == np.float32
    np.testing.assert_allclose(params["weight"], expected["weight"], rtol=2**-23)


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
    for name, x, y in [("x", X.astype(int), Y), ("y", X, Y.astype(complex)), ("x", [[1.0]], Y)]:
        with pytest.raises(TypeError, match=f"^{name} must"):
            LeastSquares(x, y)
    for name, x, y in [("x", X * np.nan, Y), ("y", X, Y + math.inf)]:
        with pytest.raises(ValueError, match=f"^{name} has a NaN or an infinity"):
            LeastSquares(x, y)
    with pytest.raises(ValueError, match="neither 0"):
        LeastSquares(X[:0], Y[:0])
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


# ----- going on in the midst of an L step --------------------------------------------------------

class Enough(Exception):
    """Ends an L step where a test wants it."""


def noisy(params, x, y, rng):
    """The loss of `normalised` on inputs of which a random part is left out."""
    return normalised(params, x * (rng.random(x.shape) < 0.7), y)


def shaken(x, rng):
    return x + rng.normal(size=x.shape)


EVERYTHING = {"draws": True, "prepare": shaken, "weight_decay": 0.1, "epoch_decay": 0.7,
              "first_epochs": 2}
MODELS = {"plain": (quadratic, {}, PARAMS),
          "all options": (noisy, EVERYTHING, {**PARAMS, "mean": np.zeros(3), "frozen": W})}


def same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes(), name


def broken_off(loss, options, params, state, step, after):
    """What `pause` makes after so many batches of an L step, which then ends."""
    def pause(make):
        nonlocal after
        after -= 1
        if not after:
            found.append(make())
            raise Enough
    found: list = []
    with pytest.raises(Enough):
        SGD(loss, X, Y, lr=0.05, batch=8, epochs=3, seed=11, pause=pause, **options)(
            params, TARGETS, 2.0, step, state)
    return found[0]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("model", MODELS)
def test_from_every_batch_an_l_step_goes_on_to_the_bits_of_the_unbroken_one(model, step, workers):
    loss, options, start = MODELS[model]
    whole = SGD(loss, X, Y, lr=0.05, batch=8, epochs=3, seed=11, workers=workers, **options)
    before, state = whole(start, TARGETS, 2.0, 5)       # so that there is a velocity
    expected, end = whole(before, TARGETS, 2.0, step, state)
    batches_in_all = 3 * (options.get("first_epochs", 3) if step == 0 else 3)
    for after in range(1, batches_in_all + 1):
        params, saved = broken_off(loss, options, before, state, step, after)
        saved["rng"], saved["inside"] = json.loads(json.dumps([saved["rng"], saved["inside"]]))
        found, state_found = whole(params, TARGETS, 2.0, step, saved)
        same_bits(found, expected)
        same_bits(state_found["velocity"], end["velocity"])
        assert {**state_found, "velocity": 0} == {**end, "velocity": 0}


def test_an_l_step_that_was_broken_off_twice_in_one_epoch_ends_at_the_same_bits():
    loss, options, start = MODELS["all options"]
    expected, _ = SGD(loss, X, Y, lr=0.05, batch=8, epochs=3, seed=11, **options)(
        start, TARGETS, 2.0, 1)
    params, state = broken_off(loss, options, start, None, 1, 4)
    params, state = broken_off(loss, options, params, state, 1, 1)
    assert state["inside"]["epoch"] == 1 and state["inside"]["batch"] == 2 and state["epoch"] == 1
    found, _ = SGD(loss, X, Y, lr=0.05, batch=8, epochs=3, seed=11, **options)(
        params, TARGETS, 2.0, 1, state)
    same_bits(found, expected)


def test_what_pause_makes_are_copies_and_nothing_is_made_unless_it_is_asked_for(monkeypatch):
    made = []
    step = sgd(pause=lambda make: made.append(make()))
    w, state = step(PARAMS, TARGETS, 2.0, 0)
    assert len(made) == 9
    assert len({p["w"].tobytes() for p, _ in made}) == 9
    assert len({s["velocity"]["w"].tobytes() for _, s in made}) == 9
    same_bits(made[-1][0], w)
    counted = []
    monkeypatch.setattr("lcref.lsteps.copies", lambda arrays: counted.append(0))
    sgd(epochs=1, pause=lambda make: None)(PARAMS, TARGETS, 2.0, 0)
    assert counted == []


def test_a_state_inside_an_epoch_that_the_step_does_not_have_is_refused():
    _, state = broken_off(quadratic, {}, PARAMS, None, 1, 8)
    with pytest.raises(ValueError, match="inside epoch 2, but L step 1 has 2"):
        sgd(epochs=2)(PARAMS, TARGETS, 2.0, 1, state)


def test_divergence_after_going_on_inside_an_epoch_gives_back_what_the_call_was_given():
    params, state = broken_off(quadratic, {}, PARAMS, None, 1, 4)
    with pytest.raises(Diverged) as error:
        sgd(lr=1e300, decay=1.0)(params, {}, 2.0, 1, state)
    assert (error.value.epoch, error.value.params, error.value.state) == (1, params, state)


def test_lbfgs_pauses_after_every_batch_with_what_it_was_given():
    data, net, made = load("digits"), linear(64, 10), []
    params, state = net.init(np.random.default_rng(0)), {"iterations": 4, "evaluations": 5}
    step = LBFGS(value_and_grad(net), data.x_train, data.y_train, max_iterations=2, batch=500,
                 pause=lambda make: made.append(make()))
    _, end = step(params, {}, 1.0, 0, state)
    assert len(made) == 3 * (end["evaluations"] - 5)
    assert all(p is params and s is state for p, s in made)

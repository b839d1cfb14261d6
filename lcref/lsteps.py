"""L steps: argmin over w of L(w) + μ/2 ‖w − target‖².

An L step is any callable l_step(params, targets, mu, step, state) -> (params, state). `params`
is a dict of all tensors of the model; `targets` holds Δ(θ) + λ/μ for the tensors that are
compressed, and the other tensors are trained on L alone; `step` counts from 0; `state` is the
L step's own, None at first. It returns new dicts and never writes to an array it is given. With
targets = {} an L step is the plain training of a reference model.
"""
import math
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from .data import batches
from .flat import Weights, check_fit, check_targets, copies, cut, end_to_end
from .inputs import NUMBERS, array_of, real_array
from .leastsquares import LeastSquares
from .loop_inputs import Diverged

__all__ = ["SGD", "LBFGS", "LeastSquares", "Diverged"]

Array = Any
Params = dict[str, Array]

DECAY = 0.98    # of a rate that is a number, from one L step to the next


# ----- stochastic gradient descent -----------------------------------------------------------

class SGD:
    """L step by stochastic gradient descent with Nesterov's momentum.

        v ← m v + g,   w ← w − η (g + m v)   with   g = ∇L(w) + ω w + μ (w − target)

    once for every batch, for every parameter that has a gradient. It is PyTorch's optimizer with
    nesterov=True, no dampening and weight_decay = ω, on the penalised loss; as there, ω applies
    to biases and normalisations too, and a parameter without a gradient keeps its value. The
    rate in epoch e of step k, both counted from 0 and e anew in each step, is

        η = min(lr · decay^k · epoch_decay^e, 1/μ)

    for the gradient of the penalty alone is μ (w − target), so that a rate above 1/μ would step
    beyond the target, and above 2/μ would diverge. The clip is left out where targets is empty.
    This is a heuristic: it promises no optimum, of L or of the batch.

    Parameters
    ----------
    value_and_grad : callable
        value_and_grad(params, x, labels) -> (mean loss of the batch, gradients), or
        -> (mean loss, gradients, statistics). Both are dicts by name, of arrays of the shapes
        and dtypes of params. Statistics are new values of parameters that have no gradient, as
        the running means of a normalisation; what is in neither dict stays as it is.
    x, labels : arrays with the same number of rows
        The training set; each epoch visits every row once, in an order drawn anew.
    lr : float or callable
        lr > 0, or lr(step, epoch) -> a rate, for milestones and warm-up. The decays multiply it.
    decay, epoch_decay : float
        0 < decay ≤ 1, 0 < epoch_decay ≤ 1. A decay of None is 0.98, and 1 for a callable lr.
    momentum, weight_decay : float
        0 ≤ m < 1, 0 ≤ ω < ∞.
    batch : int
        Rows in a batch; the last one of an epoch has what is left.
    epochs, first_epochs : int
        Epochs in each L step, and in step 0 (None: the same).
    seed : int
        Of the order of the rows, and of what value_and_grad and prepare draw.
    draws : bool
        Call value_and_grad(params, x, labels, rng), for a loss that is random (dropout).
    prepare : callable, optional
        prepare(x) -> what value_and_grad is given for x of a batch, or prepare(x, rng) where it
        has a parameter of that name; see `lcref.data.batches`.
    workers : int
        Threads that prepare batches; they change no result.
    on_batch : callable, optional
        on_batch(step, epoch, batch, loss) after every batch; batches count from 0 in each epoch.
    pause : callable, optional
        pause(make) after every batch, where make() returns copies (params, state) to go on from.
    capture : callable, optional
        capture(move) -> a function that does what move(x, labels, η) does, the gradient of a batch
        and the step, on arrays: `lcref.cuda.Graph` replays it on a GPU. Then value_and_grad must
        do the same in every call and wait for nothing; not for a loss that draws.

    Raises
    ------
    ValueError
        A parameter above is out of its range; in a call: mu is not positive, lr gives no rate,
        or targets, gradients, statistics or the state do not fit params.
    Diverged
        In a call: the loss became infinite or NaN, or a weight, which is looked at after each
        epoch. A FloatingPointError that carries the last good weights.

    Notes
    -----
    The state is a dict of "velocity" (dict of arrays, of the parameters that had a gradient),
    "rng" (state of the bit generator) and "epoch" (how many were done in all). A state of `pause`
    also has "inside": the "epoch" of this L step and how many of its batches were done ("batch"),
    and the "rng" from which their order was drawn. A call with a saved state continues bit for
    bit, and with one of `pause`, the same targets, mu and step, ends where the call ends that it
    was taken from. The clip is that of Carreira-Perpiñán, arXiv 1707.01209.
    The velocity is carried from one L step to the next.

    An epoch costs the gradients of all rows, and O(parameters) a batch beside them. A call needs
    three copies of the parameters (weights, velocity, targets), and from its second epoch on two
    more (weights and velocity at the start of the epoch).
    """

    def __init__(self, value_and_grad: Callable, x: Array, labels: Array, *,
                 lr: float | Callable[[int, int], float], decay: float | None = None,
                 epoch_decay: float = 1.0, momentum: float = 0.9, weight_decay: float = 0.0,
                 batch: int = 256, epochs: int = 20, first_epochs: int | None = None,
                 seed: int = 0, draws: bool = False, prepare: Callable | None = None,
                 workers: int = 1,
                 on_batch: Callable[[int, int, int, float], None] | None = None,
                 pause: Callable[[Callable], None] | None = None,
                 capture: Callable[[Callable], Callable] | None = None):
        self.value_and_grad, self.x, self.labels = value_and_grad, x, labels
        self.lr, self.epoch_decay, self.momentum = lr, epoch_decay, momentum
        self.decay = decay if decay is not None else 1.0 if callable(lr) else DECAY
        self.weight_decay, self.batch, self.epochs, self.seed = weight_decay, batch, epochs, seed
        self.first_epochs = epochs if first_epochs is None else first_epochs
        self.draws, self.prepare, self.workers = draws, prepare, workers
        self.on_batch, self.pause, self.capture = on_batch, pause, capture
        self._check()

    def _check(self):
        _check_settings(self, {
            "lr is positive and finite": callable(self.lr) or 0 < self.lr < math.inf,
            "decay is positive and at most 1": 0 < self.decay <= 1,
            "epoch_decay is positive and at most 1": 0 < self.epoch_decay <= 1,
            "momentum is at least 0 and under 1": 0 <= self.momentum < 1,
            "weight_decay is at least 0 and finite": 0 <= self.weight_decay < math.inf,
            "batch is at least 1": self.batch >= 1,
            "epochs and first_epochs are at least 0": min(self.epochs, self.first_epochs) >= 0,
            "workers is at least 1": self.workers >= 1,
            "capture is None where draws is True": not (self.capture and self.draws),
        }, "lr", "decay", "epoch_decay", "momentum", "weight_decay", "batch", "epochs",
            "first_epochs", "workers")

    def rate(self, mu: float, step: int, penalised: bool = True, epoch: int = 0) -> float:
        """Return η = min(lr · decay^k · epoch_decay^e, 1/μ), unclipped if nothing is penalised."""
        lr = self.lr(step, epoch) if callable(self.lr) else self.lr
        if not 0 < lr < math.inf:
            raise ValueError(f"lr(step, epoch) must be positive and finite, got {lr} for L step "
                             f"{step}, epoch {epoch}")
        eta = float(lr * self.decay ** step * self.epoch_decay ** epoch)
        return min(eta, 1 / mu) if penalised else eta

    def __call__(self, params: Params, targets: Params, mu: float, step: int,
                 state: dict[str, Any] | None = None) -> tuple[Params, dict[str, Any]]:
        """Return (params, state) after the epochs of this step."""
        check_targets(params, targets, mu)
        rng = np.random.default_rng(self.seed)
        if state is not None:
            check_fit(params, state["velocity"], "velocity")
            rng.bit_generator.state = state["rng"]
        good, inside = (params, state), (state or {}).get("inside")
        weights = Weights(params, state["velocity"] if state else {}, targets)
        first, epochs = inside["epoch"] if inside else 0, self.epochs if step else self.first_epochs
        done = (state["epoch"] if state else 0) - first     # epochs of the L steps before
        if inside and first >= epochs:
            raise ValueError(f"the state is inside epoch {first}, but L step {step} has {epochs}")
        move = self._move(weights, mu, rng)
        with np.errstate(over="ignore", invalid="ignore"):  # divergence is caught as such
            for epoch in range(first, epochs):
                if epoch > first:
                    good, inside = _saved(weights, rng, done + epoch), None
                try:
                    self._epoch(weights, move, mu, rng, step, epoch, done, inside)
                except Diverged as error:
                    error.params, error.state = good
                    raise
        return weights.w, _state(weights.v, rng, done + epochs)

    def _move(self, weights, mu, rng):
        """move(x, labels, eta): one step of v and w on a batch, at this μ; the loss before it."""
        extra = (rng,) if self.draws else ()

        def move(x, labels, eta):
            loss, *moves = self.value_and_grad(weights.w, x, labels, *extra)
            weights.move(*moves, mu=mu, eta=eta, m=self.momentum, omega=self.weight_decay)
            return loss
        return self.capture(move) if self.capture else move

    def _epoch(self, weights, move, mu, rng, step, epoch, done, inside):
        eta = self.rate(mu, step, bool(weights.targets), epoch)
        found = {"step": step, "epoch": epoch, "rate": eta}
        if self.capture:
            xp = array_namespace(self.x)     # what is recorded holds no number that will change
            eta = xp.asarray(eta, dtype=xp.float64, device=device(self.x))
        start, all_batches = self._batches(rng, inside)
        with closing(all_batches):
            for i, (x, labels) in enumerate(all_batches, inside["batch"] if inside else 0):
                loss = float(move(x, labels, eta))
                if not math.isfinite(loss):
                    raise _diverged(f"the loss is {loss}", batch=i, **found)
                if self.on_batch:
                    self.on_batch(step, epoch, i, loss)
                if self.pause:
                    here = {"epoch": epoch, "batch": i + 1, "rng": start}
                    self.pause(partial(_saved, weights, rng, done + epoch, inside=here))
        for name, p in weights.w.items():
            if not bool(array_namespace(p).all(array_namespace(p).isfinite(p))):
                raise _diverged(f"{name} has a NaN or an infinity", batch=None, **found)

    def _batches(self, rng, inside):
        """Return the state that the order of an epoch is drawn from, and what is left of it."""
        now = rng.bit_generator.state
        if inside:
            rng.bit_generator.state = inside["rng"]
        start = rng.bit_generator.state
        left = batches(self.x, self.labels, self.batch, rng, self.prepare, self.workers,
                       inside["batch"] if inside else 0)
        if inside:
            rng.bit_generator.state = now   # what was drawn inside the batches that are done
        return start, left


def _state(velocity, rng, epoch, **inside):
    return {"velocity": velocity, "rng": rng.bit_generator.state, "epoch": epoch, **inside}


def _saved(weights, rng, epoch, **inside):
    """Copies (params, state)."""
    return copies(weights.w), _state(copies(weights.v), rng, epoch, **inside)


def _diverged(what, step, epoch, batch, rate):
    where = f"batch {batch}" if batch is not None else "after its last batch"
    return Diverged(f"{what} in L step {step}, in epoch {epoch}, {where}, at learning rate "
                    f"{rate:g}; try a smaller lr, and see that the inputs and the parameters at "
                    f"the start are finite", step=step, epoch=epoch, batch=batch, rate=rate)


def _check_settings(step, limits, *names):
    """Raise ValueError with all the limits that do not hold, and the settings of those names."""
    for name in ("x", "labels"):
        xp, values = array_of(getattr(step, name), name, NUMBERS, range(1, 9)), getattr(step, name)
        if xp.isdtype(values.dtype, "real floating"):
            real_array(values, name)
    rows, labels = step.x.shape[0], step.labels.shape[0]
    limits = {"x and labels have as many rows, and at least one": rows == labels > 0, **limits}
    broken = [limit for limit, holds in limits.items() if not holds]
    if broken:
        settings = ", ".join(f"{name}={getattr(step, name)}" for name in names)
        raise ValueError(f"{type(step).__name__} needs that {'; that '.join(broken)} (got {rows} "
                         f"rows of x, {labels} of labels, {settings})")


# ----- L-BFGS --------------------------------------------------------------------------------

class LBFGS:
    """L step by L-BFGS on the whole training set, for small nets.

        min over w of L(w) + μ/2 ‖w − target‖²

    L is the mean loss over all rows, the penalty runs over the tensors that have a target, and
    all is computed in float64. The answer is a local minimum to within the tolerance: no entry
    of the gradient of the objective exceeds it. Which one depends on the weights at the start,
    and it is not promised to be a global one, unless L is convex. Where the search ends sooner,
    the answer is the best point it reached, and the state says so. The objective is never higher
    than at the start, also after rounding to the dtypes of params. Nothing is random.

    Parameters
    ----------
    value_and_grad : callable
        value_and_grad(params, x, labels) -> (mean loss, gradients), params and the floating x in
        float64. A parameter without a gradient is one that L does not depend on.
    x, labels : NumPy arrays with the same number of rows
    max_iterations : int
    tolerance : float
        Largest entry of the gradient at which to stop, absolute.
    history : int
        Pairs of steps and gradient differences that stand for the curvature.
    batch : int
        Rows that value_and_grad is given at a time. It bounds the memory and changes the result
        by rounding only.
    prepare : callable, optional
        prepare(x) -> what value_and_grad is given; nothing random, so no augmentation.
    draws : bool
        Of the settings of SGD, to be refused: a loss that is random has no line search.
    pause : callable, optional
        pause(make) after every batch, as of SGD; make() returns (params, state) as the call was
        given them, for a search cannot go on in its midst: it starts anew, to the same bits.

    Raises
    ------
    ValueError
        A parameter above is out of its range; in a call: mu is not positive, targets do not fit
        params, a parameter is no NumPy array, or value_and_grad returns statistics: a loss that
        normalises by the batch is no function of the parameters, and needs SGD.
    Diverged
        In a call: the loss or its gradient at the start is infinite or NaN.

    Notes
    -----
    One iteration takes one or two passes over the training set, and O(history) times the number
    of parameters in time and memory. The state is a dict of numbers and a text: "iterations"
    and "evaluations" in all calls, and of the last one "value" (of the objective), "converged"
    (whether the tolerance was met) and "message" (SciPy's). It is not needed to go on: each call
    starts its history anew, for the objective is another one. Byrd, Lu, Nocedal and Zhu, SIAM
    J. Sci. Comput. 16, 1995; `scipy.optimize.minimize`, method L-BFGS-B, without bounds.
    """

    def __init__(self, value_and_grad: Callable, x: Array, labels: Array, *,
                 max_iterations: int = 200, tolerance: float = 1e-5, history: int = 10,
                 batch: int = 1000, prepare: Callable | None = None, draws: bool = False,
                 pause: Callable[[Callable], None] | None = None):
        self.value_and_grad, self.x, self.labels = value_and_grad, x, labels
        self.max_iterations, self.tolerance, self.history = max_iterations, tolerance, history
        self.batch, self.prepare, self.draws, self.pause = batch, prepare, draws, pause
        _check_settings(self, {
            "max_iterations is at least 1": max_iterations >= 1,
            "tolerance is positive and finite": 0 < tolerance < math.inf,
            "history is at least 1": history >= 1,
            "batch is at least 1": batch >= 1,
            "draws is False, for a random loss needs SGD": not draws,
        }, "max_iterations", "tolerance", "history", "batch", "draws")

    def __call__(self, params: Params, targets: Params, mu: float, step: int,
                 state: dict[str, Any] | None = None) -> tuple[Params, dict[str, Any]]:
        """Return (params, state) with the weights at the end of the search."""
        check_targets(params, targets, mu)
        if not all(map(is_numpy_array, [self.x, *params.values()])):
            raise ValueError("LBFGS works on NumPy arrays; use SGD on a device")
        with np.errstate(over="ignore", invalid="ignore"):
            loss = partial(self.mean_loss, begin=(params, state))
            objective = _Objective(loss, params, targets, mu)
            if not math.isfinite(objective.first):
                raise Diverged(f"the loss, or its gradient, is not finite at the start of L step "
                               f"{step}; see that the inputs and the parameters are finite",
                               params=params, state=state, step=step)
            w, found = self._search(objective, params)
            value, _ = objective(_vector(w, params))
        if not value <= objective.first:    # rounding may cost more than was gained
            w, value = copies(params), objective.first
        done = state or {"iterations": 0, "evaluations": 0}
        return w, {"iterations": done["iterations"] + int(found.nit),
                   "evaluations": done["evaluations"] + objective.evaluations,
                   "value": value, "message": found.message,
                   "converged": bool(np.max(abs(found.jac), initial=0.0) <= self.tolerance)}

    def _search(self, objective, params):
        """Return the weights found, in the dtypes of params, and SciPy's report."""
        from scipy.optimize import minimize
        options = {"maxiter": self.max_iterations, "maxcor": self.history, "ftol": 0.0,
                   "gtol": self.tolerance, "maxfun": 25 * self.max_iterations}
        found = minimize(objective, _vector(params, params), method="L-BFGS-B", jac=True,
                         options=options)
        w = {name: p.astype(params[name].dtype) for name, p in cut(found.x, params).items()}
        return w, found

    def mean_loss(self, params: Params, begin: Any = None) -> tuple[float, Params]:
        """Return the loss of the whole training set and its gradient, in float64."""
        total, gradient = 0.0, dict[str, Array]()
        for x, labels in self._chunks():
            loss, grads, *statistics = self.value_and_grad(params, x, labels)
            if any(statistics):
                some = ", ".join([*statistics[0]][:3])
                raise ValueError(f"LBFGS needs a loss that depends on the parameters alone, this "
                                 f"one has statistics of the batch ({some}): use SGD")
            share = len(labels) / len(self.labels)
            total += share * float(loss)
            for name, g in grads.items():
                gradient[name] = gradient.get(name, 0.0) + share * g
            if self.pause and begin:
                self.pause(lambda: begin)
        return total, gradient

    def _chunks(self):
        """Yield the training set in its order, floating x as float64."""
        for i in range(0, len(self.x), self.batch):
            x, labels = self.x[i:i + self.batch], self.labels[i:i + self.batch]
            x = self.prepare(x) if self.prepare else x
            floating = np.issubdtype(x.dtype, np.floating)
            yield x.astype(np.float64, copy=False) if floating else x, labels


class _Objective:
    """L(w) + μ/2 ‖w − target‖² and its gradient, as functions of one float64 vector."""

    def __init__(self, mean_loss, params, targets, mu):
        self.mean_loss, self.params, self.mu, self.evaluations = mean_loss, params, mu, 0
        self.targets = {name: t.astype(np.float64) for name, t in targets.items()}
        self.first, self.cliff = math.nan, math.nan     # until the value at the start is known
        self.first, _ = self(_vector(params, params))
        self.cliff = self.first + max(1.0, abs(self.first))

    def __call__(self, vector):
        """Return (value, gradient); where they are not finite, a cliff that a search backs from."""
        w = cut(vector, self.params)
        value, gradient = self.mean_loss(w)
        self.evaluations += 1
        check_fit(w, gradient, "gradient")
        for name, target in self.targets.items():
            d = w[name] - target
            value += 0.5 * self.mu * float(np.vdot(d, d))
            gradient[name] = gradient.get(name, 0.0) + self.mu * d
        flat = _vector(gradient, self.params)
        if not (math.isfinite(value) and np.isfinite(flat).all()):
            return self.cliff, np.zeros_like(flat)
        return value, flat


def _vector(arrays, like):
    """Return the arrays end to end as one float64 vector, with zeros for those missing."""
    return end_to_end([arrays.get(name, np.zeros(p.shape)).astype(np.float64)
                       for name, p in like.items()])

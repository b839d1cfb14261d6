"""L steps: argmin over w of L(w) + μ/2 ‖w − target‖².

An L step is any callable l_step(params, targets, mu, step, state) -> (params, state). `params`
is a dict of all tensors of the model; `targets` holds Δ(θ) + λ/μ for the tensors that are
compressed, and the other tensors are trained on L alone; `step` counts from 0; `state` is the
L step's own, None at first. It returns new dicts and never writes to an array it is given. With
targets = {} an L step is the plain training of a reference model.
"""
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

__all__ = ["SGD", "LeastSquares"]

Array = Any
Params = dict[str, Array]

BLOCK = 32768   # elements that the update works on at a time: few enough to stay in the cache


class SGD:
    """L step by stochastic gradient descent with Nesterov's momentum.

        v ← m v + g,   w ← w − η (g + m v)   with   g = ∇L(w) + μ (w − target)

    once for every batch; this is the form of PyTorch's optimizer. The rate of step k is
    η_k = min(lr · decay^k, 1/μ): the gradient of the penalty alone is μ (w − target), so that a
    rate above 1/μ would step beyond the target, and above 2/μ would diverge. The clip is left
    out where targets is empty. This is a heuristic: it promises no optimum, of L or of the batch.

    Parameters
    ----------
    value_and_grad : callable
        value_and_grad(params, x, labels) -> (mean loss of the batch, dict of gradients).
    x, labels : arrays with the same number of rows
        The training set; each epoch visits every row once, in an order drawn anew.
    lr, decay, momentum : float
        lr > 0, 0 < decay ≤ 1, 0 ≤ momentum < 1.
    batch : int
        Rows in a batch; the last one of an epoch has what is left.
    epochs, first_epochs : int
        Epochs in each L step, and in step 0 (None: the same).
    seed : int
        Of the order of the rows.
    on_batch : callable, optional
        on_batch(step, epoch, batch, loss) after every batch; epochs count from 0 in each L
        step, batches in each epoch.

    Raises
    ------
    ValueError
        A parameter above is out of its range; in a call: mu is not positive, or targets does
        not fit params.
    FloatingPointError
        In a call: the loss or a weight became infinite or NaN.

    Notes
    -----
    The state is a dict of "velocity" (dict of arrays), "rng" (state of the bit generator) and
    "epoch" (how many were done in all). A call with a saved state continues bit for bit. The
    clip is that of Carreira-Perpiñán, arXiv 1707.01209. The velocity is carried from one L
    step to the next.
    """

    def __init__(self, value_and_grad: Callable, x: Array, labels: Array, *, lr: float,
                 decay: float = 0.98, momentum: float = 0.9, batch: int = 256, epochs: int = 20,
                 first_epochs: int | None = None, seed: int = 0,
                 on_batch: Callable[[int, int, int, float], None] | None = None):
        self.value_and_grad, self.x, self.labels = value_and_grad, x, labels
        self.lr, self.decay, self.momentum = lr, decay, momentum
        self.batch, self.epochs, self.seed, self.on_batch = batch, epochs, seed, on_batch
        self.first_epochs = epochs if first_epochs is None else first_epochs
        limits = {
            "x and labels have as many rows, and at least one":
                x.shape[0] == labels.shape[0] and x.shape[0] > 0,
            "lr is positive and finite": 0 < lr < math.inf,
            "decay is positive and at most 1": 0 < decay <= 1,
            "momentum is at least 0 and under 1": 0 <= momentum < 1,
            "batch is at least 1": batch >= 1,
            "epochs and first_epochs are at least 0": min(epochs, self.first_epochs) >= 0,
        }
        broken = [limit for limit, holds in limits.items() if not holds]
        if broken:
            raise ValueError(f"SGD needs that {'; that '.join(broken)} (got {x.shape[0]} rows of "
                             f"x, {labels.shape[0]} of labels, lr={lr}, decay={decay}, momentum="
                             f"{momentum}, batch={batch}, epochs={epochs}, first_epochs="
                             f"{first_epochs})")

    def rate(self, mu: float, step: int, penalised: bool = True) -> float:
        """Return η_k = min(lr · decay^k, 1/μ), or lr · decay^k where nothing is penalised."""
        eta = self.lr * self.decay ** step
        return min(eta, 1 / mu) if penalised else eta

    def __call__(self, params: Params, targets: Params, mu: float, step: int,
                 state: dict[str, Any] | None = None) -> tuple[Params, dict[str, Any]]:
        """Return (params, state) after the epochs of this step."""
        _check_targets(params, targets, mu)
        eta = self.rate(mu, step, bool(targets))
        rng = np.random.default_rng(self.seed)
        w = {name: _flat_copy(p) for name, p in params.items()}
        target = {name: _flat_copy(t, w[name].dtype) for name, t in targets.items()}
        if state is None:
            v, done = {name: array_namespace(p).zeros_like(p) for name, p in w.items()}, 0
        else:
            v, done = {name: _flat_copy(u) for name, u in state["velocity"].items()}, state["epoch"]
            rng.bit_generator.state = state["rng"]
        shaped = _shape_as(params, w)                       # views: they follow w
        epochs = self.epochs if step else self.first_epochs
        with np.errstate(over="ignore", invalid="ignore"):  # divergence is caught as such
            for epoch in range(epochs):
                self._epoch(shaped, w, v, target, mu, eta, rng, step, epoch)
        _check_finite(w, step, eta)
        return shaped, {"velocity": _shape_as(params, v), "rng": rng.bit_generator.state,
                        "epoch": done + epochs}

    def _epoch(self, shaped, w, v, target, mu, eta, rng, step, epoch):
        for i, (x, labels) in enumerate(self._batches(rng)):
            loss, grads = self.value_and_grad(shaped, x, labels)
            if not math.isfinite(loss):
                raise FloatingPointError(_diverged(f"the loss is {loss}", step, eta, epoch, i))
            for name, p in w.items():
                self._update(p, v[name], grads[name], target.get(name), mu, eta)
            if self.on_batch:
                self.on_batch(step, epoch, i, loss)

    def _batches(self, rng) -> Iterator[tuple[Array, Array]]:
        """Yield the training set in random order; a batch is valid until the next one."""
        order = rng.permutation(self.x.shape[0])
        for i in range(0, len(order), self.batch):
            rows = order[i:i + self.batch]
            yield _take(self.x, rows), _take(self.labels, rows)

    def _update(self, w, v, grad, target, mu, eta):
        """Move the flat arrays w and v by one step, a block after another."""
        grad = array_namespace(grad).reshape(grad, (-1,))
        for i in range(0, w.shape[0], BLOCK):
            b = slice(i, min(i + BLOCK, w.shape[0]))
            g, w_b, v_b = grad[b], w[b], v[b]
            if target is not None:
                g = g + mu * (w_b - target[b])          # g = ∇L + μ (w − target)
            v_b *= self.momentum
            v_b += g                                    # v ← m v + g
            w_b -= eta * (g + self.momentum * v_b)      # w ← w − η (g + m v)


def _flat_copy(p, dtype=None):
    xp = array_namespace(p)
    return xp.reshape(xp.astype(p, dtype or p.dtype), (-1,))    # astype always copies


def _shape_as(params, flat):
    """Return views of the flat arrays in the shapes of params."""
    return {name: array_namespace(p).reshape(flat[name], p.shape, copy=False)
            for name, p in params.items()}


def _take(a, rows):
    xp = array_namespace(a)
    return xp.take(a, rows if is_numpy_array(a) else xp.asarray(rows, device=device(a)),
                   axis=0)


def _check_targets(params, targets, mu):
    if targets and not 0 < mu < math.inf:
        raise ValueError(f"mu must be positive and finite, got {mu}")
    for name, target in targets.items():
        if name not in params:
            raise ValueError(f"a target for {name!r}, but the parameters are {', '.join(params)}")
        if tuple(target.shape) != tuple(params[name].shape):
            raise ValueError(f"the target of {name} has shape {tuple(target.shape)}, "
                             f"the parameter {tuple(params[name].shape)}")


def _check_finite(w, step, eta):
    for name, p in w.items():
        xp = array_namespace(p)
        if not bool(xp.all(xp.isfinite(p))):
            raise FloatingPointError(_diverged(f"{name} has a NaN or an infinity", step, eta))


def _diverged(what, step, eta, *epoch_and_batch):
    where = "after its last batch"
    if epoch_and_batch:
        where = "in epoch {}, batch {}".format(*epoch_and_batch)
    return (f"{what} in L step {step}, {where}, at learning rate {eta:g}; try a smaller lr, "
            f"and see that the inputs and the parameters at the start are finite")


class LeastSquares:
    """L step for least squares, in closed form.

        min over W of ½ ‖X Wᵀ − Y‖² + μ/2 ‖W − T‖²

    The gradient (W Xᵀ − Yᵀ) X + μ (W − T) is zero where (XᵀX + μ I) Wᵀ = XᵀY + μ Tᵀ. Optimal
    and unique because the objective is strictly convex for μ > 0. Without a target the problem
    is plain least squares, and the solution of least norm is taken.

    Parameters
    ----------
    x : array of shape (n, inputs), real floating
    y : array of shape (n, outputs), or (n,) for a W of shape (inputs,)
    name : str
        The parameter that is W, of shape (outputs, inputs) or (inputs,).

    Raises
    ------
    ValueError
        x and y do not fit; in a call: mu is not positive, or there is another target than W's,
        or params has no W of the right shape.

    Notes
    -----
    XᵀX and XᵀY are formed once, O(n · inputs²); a call costs O(inputs³). The normal equations
    square the condition number of X, which μ bounds: use float64. The state is passed on as it
    is, and `step` makes no difference.
    """

    def __init__(self, x: Array, y: Array, name: str = "weight"):
        if x.ndim != 2 or y.ndim not in (1, 2) or x.shape[0] != y.shape[0]:
            raise ValueError(f"x must be (n, inputs) and y (n, outputs) or (n,), got "
                             f"{tuple(x.shape)} and {tuple(y.shape)}")
        xp = array_namespace(x, y)
        self.x, self.name = x, name
        self.shape = (*y.shape[1:], x.shape[1])         # of W
        self.y = xp.reshape(y, (x.shape[0], -1))        # (n, outputs)
        self.gram, self.xty = x.T @ x, x.T @ self.y

    def __call__(self, params: Params, targets: Params, mu: float, step: int,
                 state: Any = None) -> tuple[Params, Any]:
        """Return (params, state) with the optimal W; the other parameters are as given."""
        _check_targets(params, targets, mu)
        self._check(params, targets)
        xp = array_namespace(self.x)
        if targets:
            t = xp.reshape(targets[self.name], (-1, self.x.shape[1]))
            eye = xp.eye(t.shape[1], dtype=t.dtype, device=device(t))
            # (XᵀX + μ I) Wᵀ = XᵀY + μ Tᵀ
            wt = xp.linalg.solve(self.gram + mu * eye, self.xty + mu * t.T)
        else:
            wt = xp.linalg.pinv(self.x) @ self.y
        return {**params, self.name: xp.reshape(wt.T, self.shape)}, state

    def loss(self, params: Params) -> float:
        """Return ½ ‖X Wᵀ − Y‖²."""
        self._check(params, {})
        xp = array_namespace(self.x)
        w = xp.reshape(params[self.name], (-1, self.x.shape[1]))
        return 0.5 * float(xp.sum((self.x @ w.T - self.y) ** 2))

    def _check(self, params, targets):
        if self.name not in params or tuple(params[self.name].shape) != self.shape:
            found = {name: tuple(p.shape) for name, p in params.items()}
            raise ValueError(f"need a parameter {self.name!r} of shape {self.shape}, got {found}")
        if targets.keys() - {self.name}:
            raise ValueError(f"the loss depends on {self.name!r} alone, got targets for "
                             f"{', '.join(targets)}")

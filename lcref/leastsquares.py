"""The L step for least squares, in closed form."""
from typing import Any

from array_api_compat import array_namespace, device

from .flat import check_targets

__all__ = ["LeastSquares"]

Array = Any
Params = dict[str, Array]


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
        check_targets(params, targets, mu)
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

"""The L step for least squares, in closed form."""
import warnings
from typing import Any

from array_api_compat import array_namespace

from .flat import check_targets
from .inputs import real_array
from .loop_inputs import finite
from .svd import decompose
from .tolerance import EPS, wide

__all__ = ["LeastSquares"]

Array = Any
Params = dict[str, Array]


class LeastSquares:
    """L step for least squares, in closed form.

        min over W of ½ ‖X Wᵀ − Y‖² + μ/2 ‖W − T‖²

    With X = U S Vᵀ the gradient, (W Xᵀ − Yᵀ) X + μ (W − T), is zero at

        Wᵀ = Tᵀ + V (S + μ S⁻¹)⁻¹ (Uᵀ Y − S Vᵀ Tᵀ),

    optimal and unique because the objective is strictly convex for μ > 0. Singular values of at
    most max(n, inputs)·ε·σ₁ count as zero: in their directions W is T. Without a target the
    problem is plain least squares, Wᵀ = V S⁻¹ Uᵀ Y: where X has a lower rank than inputs, so that
    there are other solutions, that of least norm is taken, with a RuntimeWarning.

    Parameters
    ----------
    x : array of shape (n, inputs), real floating, neither 0
    y : array of shape (n, outputs), or (n,) for a W of shape (inputs,)
    name : str
        The parameter that is W, of shape (outputs, inputs) or (inputs,).

    Attributes
    ----------
    rank : int
        Of X, the singular values that count as zero left out.

    Raises
    ------
    ValueError, TypeError
        x and y do not fit, are empty, not finite or not real floating; in a call: mu is not
        positive, or there is another target than W's, or params has no W of the right shape.
    Diverged
        In a call: W overflows. It carries params, state and step.

    Notes
    -----
    X is decomposed once, in float64, O(n · inputs · min(n, inputs)); a call costs O(inputs · rank ·
    outputs). No XᵀX is formed, which would square the condition number of X. W is returned in its
    own dtype. The state is passed on as it is. Golub and Van Loan, Matrix Computations,
    2013, on ridge regression.
    """

    def __init__(self, x: Array, y: Array, name: str = "weight"):
        real_array(x, "x"), real_array(y, "y")
        if x.ndim != 2 or y.ndim not in (1, 2) or x.shape[0] != y.shape[0] or 0 in x.shape:
            raise ValueError(f"x must be (n, inputs), neither 0, and y (n, outputs) or (n,), got "
                             f"{tuple(x.shape)} and {tuple(y.shape)}")
        xp = array_namespace(x, y)
        self.x, self.name = wide(x), name
        self.shape = (*y.shape[1:], x.shape[1])             # of W
        self.y = xp.reshape(wide(y), (x.shape[0], -1))      # (n, outputs)
        u, s, vt = decompose(self.x)
        self.rank = r = int(xp.sum(xp.astype(s > max(x.shape) * EPS * s[0], xp.int64)))
        self.uty, self.s, self.vt = u[:, :r].T @ self.y, s[:r, None], vt[:r, :]

    def __call__(self, params: Params, targets: Params, mu: float, step: int,
                 state: Any = None) -> tuple[Params, Any]:
        """Return (params, state) with the optimal W; the other parameters are as given."""
        check_targets(params, targets, mu)
        self._check(params, targets)
        xp, w = array_namespace(self.x), params[self.name]
        if targets:
            tt = xp.reshape(wide(targets[self.name]), (-1, self.x.shape[1])).T  # Tᵀ
            # Wᵀ = Tᵀ + V (S + μ S⁻¹)⁻¹ (Uᵀ Y − S Vᵀ Tᵀ)
            wt = tt + self.vt.T @ ((self.uty - self.s * (self.vt @ tt)) / (self.s + mu / self.s))
        else:
            if self.rank < self.x.shape[1]:
                warnings.warn(f"x has rank {self.rank}, but {self.x.shape[1]} inputs: of many "
                              "least-squares solutions that of least norm is taken",
                              RuntimeWarning, stacklevel=2)
            wt = self.vt.T @ (self.uty / self.s)
        new = {self.name: xp.astype(xp.reshape(wt.T, self.shape), w.dtype)}
        finite(new, "W", {"params": params, "state": state, "step": step})
        return {**params, **new}, state

    def loss(self, params: Params) -> float:
        """Return ½ ‖X Wᵀ − Y‖²."""
        self._check(params, {})
        xp = array_namespace(self.x)
        w = xp.reshape(wide(params[self.name]), (-1, self.x.shape[1]))
        return 0.5 * float(xp.sum((self.x @ w.T - self.y) ** 2))

    def _check(self, params, targets):
        if self.name not in params or tuple(params[self.name].shape) != self.shape:
            found = {name: tuple(p.shape) for name, p in params.items()}
            raise ValueError(f"need a parameter {self.name!r} of shape {self.shape}, got {found}")
        if targets.keys() - {self.name}:
            raise ValueError(f"the loss depends on {self.name!r} alone, got targets for "
                             f"{', '.join(targets)}")

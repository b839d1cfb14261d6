"""What is timed: every projection, with the parameters and the data it is called with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import projections
from ..parts import Array

LAYERS, SCALES = 20, (0.02, 0.2)
ASPECT = 9      # of a matrix: as many times more columns than rows, as in a 3 × 3 convolution
KEEP, SPARSE = 0.01, 0.03
FEW = (-0.1, -0.03, 0.0, 0.03, 0.1)     # a codebook


@dataclass(frozen=True)
class Case:
    """A projection with its parameters: function(w, *arguments(w))."""

    name: str
    function: str
    arguments: Callable[[Array], tuple[Any, ...]] = lambda w: ()
    matrix: bool = False
    penalty: Callable[..., float] = lambda theta, *arguments: 0.0
    excess: Callable[..., float] = lambda theta, *arguments: 0.0  # over the constraint, or rounding

    def call(self, w: Array, *arguments: Any) -> Any:
        """The projection of w."""
        return getattr(projections, self.function)(w, *arguments)

    def data(self, n: int, dtype: str) -> Array:
        """Weights, n of them or, for a matrix, about n."""
        return matrix(n, dtype) if self.matrix else weights(n, dtype)

    @property
    def family(self) -> str:
        """The module of the projection: quantize, prune, lowrank or joint."""
        return getattr(projections, self.function).__module__.rpartition(".")[2]


def weights(n: int, dtype: str) -> Array:
    """n weights as of a net: Gaussian, in 20 layers of standard deviations from 0.02 to 0.2.

    They are geometrically spaced, so that all weights together have the heavy tails of a net's.
    """
    w = gaussian(n, dtype)
    for part, scale in zip(np.array_split(w, LAYERS), np.geomspace(*SCALES, LAYERS)):
        part *= scale   # in place: nothing more is allocated, see `process_peak`
    return w


def matrix(n: int, dtype: str) -> Array:
    """A Gaussian matrix of about n entries, 9 times as wide as high, of deviation 0.05.

    Its singular values have no gap anywhere, which is the hard case for a truncated decomposition.
    """
    rows = max(round((n / ASPECT) ** 0.5), 1)
    w = gaussian(ASPECT * rows**2, dtype).reshape(rows, -1)
    w *= 0.05
    return w


def gaussian(n: int, dtype: str) -> Array:
    """n draws, the same at each call."""
    kind: Any = dtype   # of the two that NumPy draws
    return np.random.default_rng(0).standard_normal(n, dtype=kind)


def share(of: float) -> Callable[[Array], tuple[int]]:
    """κ as a share of the weights."""
    return lambda w: (max(int(of * w.size), 1),)


def radius(w):
    return (0.1 * float(np.sum(np.abs(w), dtype=float)),)


def rows_kept(w):
    """κ of the rows."""
    return max(int(SPARSE * len(w)), 1), 0


def too_many(theta, kappa):
    return float(np.count_nonzero(theta) - kappa)


def too_long(theta, radius):
    """Over the radius, beyond the rounding of each entry of θ: feasible is ‖θ‖₁ ≤ r (1 + n u)."""
    length = float(np.sum(np.abs(theta), dtype=float))
    return length - radius * (1 + theta.size * float(np.finfo(theta.dtype).eps))


def of_nonzeros(theta, alpha, mu):
    return 2 * alpha / mu * float(np.count_nonzero(theta))


def of_the_norm(theta, alpha, mu):
    return 2 * alpha / mu * float(np.sum(np.abs(theta), dtype=float))


def of_the_rank(theta, alpha, mu):
    return 2 * alpha / mu * sum(theta.shape) * int(np.linalg.matrix_rank(theta))


CASES = (
    Case("nearest, 5 entries", "nearest", lambda w: (np.array(FEW, w.dtype),)),
    Case("powers_of_two c=5", "powers_of_two", lambda w: (5,)),
    Case("scaled_codebook, 5 entries", "scaled_codebook", lambda w: ((-2, -1, 0, 1, 2),)),
    Case("round_to float16", "round_to", lambda w: ("float16",)),
    Case("round_to bfloat16", "round_to", lambda w: ("bfloat16",)),
    Case("round_to int8", "round_to", lambda w: ("int8",)),
    Case("binary", "binary"),
    Case("binary scale", "binary", lambda w: (True,)),
    Case("ternary", "ternary"),
    Case("ternary scale", "ternary", lambda w: (True,)),
    Case("kmeans k=2", "kmeans", lambda w: (2,)),
    Case("kmeans k=16", "kmeans", lambda w: (16,)),
    Case("l0_ball 1%", "l0_ball", share(KEEP), excess=too_many),
    Case("l1_ball", "l1_ball", radius, excess=too_long),
    Case("l0_penalty", "l0_penalty", lambda w: (0.02, 1.0),      # threshold √(2α/μ) = 0.2
         penalty=of_nonzeros),
    Case("l1_penalty", "l1_penalty", lambda w: (0.2, 1.0),       # threshold α/μ
         penalty=of_the_norm),
    Case("group_l0_ball 3%", "group_l0_ball", rows_kept, matrix=True),
    Case("rank_ball r=8", "rank_ball", lambda w: (8,), matrix=True),
    # 2α/μ·(m + n) beside σ² from s²·(√n − √m)² to s²·(√n + √m)², s = 0.05: a rank between
    Case("rank_selection", "rank_selection", lambda w: (0.5 * 0.05**2, 1.0),
         matrix=True, penalty=of_the_rank),
    Case("codebook_l0, 2 entries, 3%", "codebook_l0",
         lambda w: ((-0.05, 0.05), *share(SPARSE)(w))),
    Case("scaled_binary_l0 3%", "scaled_binary_l0", share(SPARSE)),
    Case("kmeans_l0 k=2, 3%", "kmeans_l0", lambda w: (2, *share(SPARSE)(w))),
)
BY_NAME = {case.name: case for case in CASES}

"""Peers for sparsity: the l0 and l1 balls, whole slices, and the two penalties."""

import math
from functools import partial

import numpy as np

from .table import Peer, peer

PEERS: list[Peer] = []
AWAY_FROM_0 = ("feasible optimal optimal_at_size deterministic ties one_element offset_1e8 "
               "permutation signs scaling monotone idempotent")
EVERY = f"{AWAY_FROM_0} zero_budget"
SLICE = "defect: the slice [:-κ] is empty at κ = 0, and w comes back whole"
AT_0 = "defect: not finite at radius 0, which the manual does not exclude"

as_l0_ball = partial(peer, PEERS, kind="l0_ball")
as_group_l0_ball = partial(peer, PEERS, kind="group_l0_ball")
as_l1_ball = partial(peer, PEERS, kind="l1_ball")
as_l0_penalty = partial(peer, PEERS, kind="l0_penalty")
as_l1_penalty = partial(peer, PEERS, kind="l1_penalty")

# ---- the l0 ball, for entries and for slices


@as_l0_ball("pyproximal.L0Ball", "pyproximal", {SLICE: EVERY})
def pyproximal_l0_ball(w, kappa):
    from pyproximal import L0Ball

    return L0Ball(kappa).prox(w, 1.0)


@as_l0_ball("pyproximal.L0Ball, kappa > 0", "pyproximal")
def pyproximal_l0_ball_of_one(w, kappa):
    """As pyproximal.L0Ball, where κ ≥ 1; the adapter answers for κ = 0."""
    return pyproximal_l0_ball(w, kappa) if kappa else np.zeros_like(w)


@as_l0_ball("tensorly.tenalg.proximal.hard_thresholding", "tensorly")
def tensorly_hard_thresholding(w, kappa):
    from tensorly.tenalg.proximal import hard_thresholding

    return hard_thresholding(w, kappa)


@as_l0_ball("torch.nn.utils.prune.L1Unstructured", "torch")
def torch_l1_unstructured(w, kappa):
    """The amount to prune is the number of entries dropped, max(n − κ, 0)."""
    import torch
    from torch.nn.utils.prune import L1Unstructured

    return L1Unstructured(amount=max(w.size - kappa, 0)).prune(torch.from_numpy(w)).numpy()


@as_group_l0_ball("torch.nn.utils.prune.LnStructured", "torch")
def torch_ln_structured(w, kappa, axis):
    """The amount to prune is the number of slices dropped; n=2 orders them by the l2 norm."""
    import torch
    from torch.nn.utils.prune import LnStructured

    slices = LnStructured(amount=max(w.shape[axis] - kappa, 0), n=2, dim=axis)
    return slices.prune(torch.from_numpy(w)).numpy()


BY_L1 = "defect: keeps the columns of largest l1 norm; the projection, those of largest l2 norm"


@as_group_l0_ball("pyproximal.L10Ball", "pyproximal", {SLICE: EVERY})
def pyproximal_l10_ball(w, kappa, axis):
    """The "orthogonal projection" on the matrices with κ nonzero columns, found by the l1 norm of
    the columns (L10BallProj, Notes); the two do not agree.
    """
    from pyproximal import L10Ball

    columns = np.moveaxis(w, axis, -1)
    rows = columns.shape[0]
    return np.moveaxis(L10Ball(rows, kappa).prox(columns.ravel(), 1.0).reshape(rows, -1), -1, axis)


@as_group_l0_ball("pyproximal.L10Ball, kappa > 0", "pyproximal",
                  {BY_L1: "optimal_at_size"})
def pyproximal_l10_ball_of_one(w, kappa, axis):
    """As pyproximal.L10Ball, where κ ≥ 1; the adapter answers for κ = 0."""
    return pyproximal_l10_ball(w, kappa, axis) if kappa else np.zeros_like(w)


# ---- the l1 ball


def by_simplex(project, w, radius):
    """θ = w inside the ball; outside, sgn(w) times the projection of abs(w) on {θ ≥ 0, Σθ = r}."""
    if np.sum(np.abs(w)) <= radius:
        return w.copy()
    return np.sign(w) * project(np.abs(w), radius)


@as_l1_ball("ot.utils.proj_simplex", "POT")
def pot_proj_simplex(w, radius):
    """The projection on the simplex; the adapter adds the signs and the inside of the ball."""
    from ot.utils import proj_simplex

    return by_simplex(proj_simplex, w, radius)


@as_l1_ball("tensorly.tenalg.proximal.simplex_prox", "tensorly",
            {"defect: at radius 0 no entry exceeds its mean, and index −1 is taken":
             EVERY.replace("one_element ", "")})
def tensorly_simplex_prox(w, radius):
    """The projection on the simplex; the adapter adds the signs and the inside of the ball."""
    from tensorly.tenalg.proximal import simplex_prox

    return by_simplex(simplex_prox, w, radius)


@as_l1_ball("tensorly.tenalg.proximal.simplex_prox, radius > 0", "tensorly")
def tensorly_simplex_prox_positive(w, radius):
    """As simplex_prox above, where the radius is positive; the adapter answers for radius 0."""
    return tensorly_simplex_prox(w, radius) if radius else np.zeros_like(w)


@as_l1_ball("tensorly.tenalg.proximal.soft_sparsity_prox", "tensorly")
def tensorly_soft_sparsity_prox(w, radius):
    from tensorly.tenalg.proximal import soft_sparsity_prox

    return soft_sparsity_prox(w, radius)


BISECTION = "contract: τ by bisection to an absolute tolerance of xtol=1e-5, the default"


@as_l1_ball("pyproximal.L1Ball", "pyproximal",
            {BISECTION: f"{AWAY_FROM_0} feasible_input"})
def pyproximal_l1_ball(w, radius):
    """By bisection, to an absolute tolerance xtol, 1e-5 by default (L1Ball, Parameters)."""
    from pyproximal import L1Ball

    return L1Ball(w.size, radius).prox(w, 1.0)


OUTWARD = "defect: points inside the ball are moved outward"


@as_l1_ball("proxop.L1Ball", "proxop",
            {OUTWARD: "optimal optimal_at_size full_budget ties one_element feasible_input "
                      "offset_1e8 monotone idempotent"})
def proxop_l1_ball(w, radius):
    """The radius must be positive (L1Ball); the adapter answers for radius 0."""
    from proxop import L1Ball

    return L1Ball(radius).prox(w) if radius else np.zeros_like(w)


def in_double(function, w, *parameters):
    """The function of a JAX library at w, in w's dtype: JAX is in single precision otherwise."""
    import jax

    with jax.enable_x64(True):
        return np.asarray(function(jax.numpy.asarray(w), *parameters))


@as_l1_ball("jaxopt.projection.projection_l1_ball", "jaxopt", {AT_0: EVERY})
def jaxopt_l1_ball(w, radius):
    from jaxopt.projection import projection_l1_ball

    return in_double(projection_l1_ball, w, radius)


@as_l1_ball("optax.projections.projection_l1_ball", "optax", {AT_0: EVERY})
def optax_l1_ball(w, radius):
    from optax.projections import projection_l1_ball

    return in_double(projection_l1_ball, w, radius)


# ---- penalties: ‖w − θ‖² + (2α/μ)·f(θ) is the prox of (α/μ)·f, and of threshold √(2α/μ) for l0


def hard(alpha, mu):
    return math.sqrt(2 * alpha / mu)


LINEAR = "defect: the threshold is τσ, as in its manual; that of the prox of τσ‖·‖₀ is √(2τσ)"


@as_l0_penalty("pyproximal.L0", "pyproximal",
               {LINEAR: "optimal optimal_at_size one_element offset_1e8 scaling"})
def pyproximal_l0(w, alpha, mu):
    """"Proximal operator of the l0 norm", with the threshold τσ (L0, Notes); the two do not agree.

    τ = 1/μ, σ = α.
    """
    from pyproximal import L0

    return L0(sigma=alpha).prox(w, 1 / mu)


@as_l0_penalty("proxop.L0Norm", "proxop")
def proxop_l0(w, alpha, mu):
    """γ = α/μ must be positive (L0Norm); the adapter answers for α = 0."""
    from proxop import L0Norm

    return L0Norm().prox(w, alpha / mu) if alpha else w.copy()


@as_l0_penalty("torch.nn.functional.hardshrink", "torch")
def torch_hardshrink(w, alpha, mu):
    """Zero where abs(w) ≤ λ; λ = √(2α/μ)."""
    import torch

    return torch.nn.functional.hardshrink(torch.from_numpy(w), hard(alpha, mu)).numpy()


@as_l0_penalty("pywt.threshold, hard", "PyWavelets")
def pywt_hard(w, alpha, mu):
    """Zero where abs(w) is under the threshold √(2α/μ)."""
    import pywt

    return pywt.threshold(w, hard(alpha, mu), mode="hard")


@as_l1_penalty("pyproximal.L1", "pyproximal")
def pyproximal_l1(w, alpha, mu):
    """τ = 1/μ, σ = α."""
    from pyproximal import L1

    return L1(sigma=alpha).prox(w, 1 / mu)


@as_l1_penalty("proxop.L1Norm", "proxop")
def proxop_l1(w, alpha, mu):
    """γ = α/μ must be positive (L1Norm); the adapter answers for α = 0."""
    from proxop import L1Norm

    return L1Norm().prox(w, alpha / mu) if alpha else w.copy()


@as_l1_penalty("pyunlocbox.functions.norm_l1", "pyunlocbox")
def pyunlocbox_l1(w, alpha, mu):
    """λ = α, T = 1/μ."""
    from pyunlocbox.functions import norm_l1

    return norm_l1(lambda_=alpha).prox(w, 1 / mu)


@as_l1_penalty("tensorly.tenalg.proximal.soft_thresholding", "tensorly")
def tensorly_soft_thresholding(w, alpha, mu):
    from tensorly.tenalg.proximal import soft_thresholding

    return soft_thresholding(w, alpha / mu)


@as_l1_penalty("skglm.utils.prox_funcs.ST_vec", "skglm")
def skglm_soft_thresholding(w, alpha, mu):
    from skglm.utils.prox_funcs import ST_vec

    return ST_vec(w, alpha / mu)


@as_l1_penalty("torch.nn.functional.softshrink", "torch")
def torch_softshrink(w, alpha, mu):
    import torch

    return torch.nn.functional.softshrink(torch.from_numpy(w), alpha / mu).numpy()


@as_l1_penalty("pywt.threshold, soft", "PyWavelets",
               {"defect: NaN where w and the threshold are both 0; PyWavelets #866":
                "feasible optimal optimal_at_size deterministic full_budget zeros ties "
                "one_element permutation signs scaling"})
def pywt_soft(w, alpha, mu):
    import pywt

    return pywt.threshold(w, alpha / mu, mode="soft")


@as_l1_penalty("pywt.threshold, soft, alpha > 0", "PyWavelets")
def pywt_soft_positive(w, alpha, mu):
    """As pywt.threshold, soft, where α > 0; the adapter answers for α = 0."""
    return pywt_soft(w, alpha, mu) if alpha else w.copy()


@as_l1_penalty("jaxopt.prox.prox_lasso", "jaxopt")
def jaxopt_lasso(w, alpha, mu):
    """l1reg = α, scaling = 1/μ."""
    from jaxopt.prox import prox_lasso

    return in_double(prox_lasso, w, alpha, 1 / mu)

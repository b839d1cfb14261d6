"""Peers for low rank: truncated singular value decompositions, and a price for the rank."""

from functools import partial

import numpy as np

from .table import Peer, peer

PEERS: list[Peer] = []
RANDOM = "contract: a randomized method, approximate by design"

as_rank_ball = partial(peer, PEERS, kind="rank_ball")


def first(rank, u, s, vt):
    """The first `rank` terms of Σ s_i·u_i·v_iᵀ."""
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


@as_rank_ball("numpy.linalg.svd", "numpy")
def numpy_svd(w, rank):
    return first(rank, *np.linalg.svd(w, full_matrices=False))


@as_rank_ball("scipy.linalg.svd", "scipy")
def scipy_svd(w, rank):
    from scipy.linalg import svd

    return first(rank, *svd(w, full_matrices=False))


@as_rank_ball("torch.linalg.svd", "torch")
def torch_svd(w, rank):
    import torch

    return first(rank, *torch.linalg.svd(torch.from_numpy(w), full_matrices=False)).numpy()


def tensorly_svd(w, rank, method):
    """tensorly.tenalg.svd_interface; a rank beyond min(m, n) warns, so no more is asked for."""
    from tensorly.tenalg import svd_interface

    u, s, vt = svd_interface(w, method, n_eigenvecs=min(rank, *w.shape), random_state=0)
    return (u * s) @ vt


@as_rank_ball("tensorly.tenalg.svd_interface, truncated_svd", "tensorly")
def tensorly_truncated_svd(w, rank):
    return tensorly_svd(w, rank, "truncated_svd")


@as_rank_ball("tensorly.tenalg.svd_interface, symeig_svd", "tensorly")
def tensorly_symeig_svd(w, rank):
    """By the eigenvectors of wᵀw or wwᵀ (symeig_svd)."""
    return tensorly_svd(w, rank, "symeig_svd")


@as_rank_ball("tensorly.tenalg.svd_interface, randomized_svd", "tensorly",
              {RANDOM: "optimal_at_size permutation signs"})
def tensorly_randomized_svd(w, rank):
    """Randomized: 5 more columns than the rank, 2 power iterations (randomized_svd)."""
    return tensorly_svd(w, rank, "randomized_svd")


@as_rank_ball("torch.svd_lowrank", "torch",
              {RANDOM: "optimal optimal_at_size ties permutation signs"})
def torch_svd_lowrank(w, rank):
    """"This is a randomized method" (svd_lowrank), with q = rank and a seed set before each call.
    """
    import torch

    torch.manual_seed(0)
    u, s, v = torch.svd_lowrank(torch.from_numpy(w), q=min(rank, *w.shape))
    return ((u * s) @ v.T).numpy()


@as_rank_ball("sklearn.decomposition.TruncatedSVD", "scikit-learn")
def sklearn_truncated_svd(w, rank):
    """Randomized by default; 1 ≤ n_components ≤ the number of columns, at least 2 (TruncatedSVD).
    The adapter answers for rank 0 and for one column.
    """
    from sklearn.decomposition import TruncatedSVD

    if not rank or w.shape[1] == 1:
        return w * bool(rank)
    fit = TruncatedSVD(min(rank, w.shape[1]), random_state=0)
    return fit.inverse_transform(fit.fit_transform(w))


@as_rank_ball("scipy.sparse.linalg.svds, arpack", "scipy",
              {"defect: the zero matrix raises ArpackError": "zeros"})
def scipy_svds_arpack(w, rank):
    """1 ≤ k ≤ min(m, n) − 1 (svds); the default solver. The adapter answers for other ranks."""
    from scipy.sparse.linalg import svds

    if not 0 < rank < min(w.shape):
        return w * bool(rank)
    u, s, vt = svds(w, k=rank, rng=0)
    return (u * s) @ vt


RANK_DEFICIENT = "defect: invents singular values of a matrix of lower rank than k"


@as_rank_ball("scipy.sparse.linalg.svds, propack", "scipy",
              {RANK_DEFICIENT: "full_budget ties feasible_input offset_1e8",
               "contract: raises where the default number of iterations does not suffice": "signs"})
def scipy_svds_propack(w, rank):
    """1 ≤ k ≤ min(m, n) (svds); the adapter asks for no more, and answers for rank 0."""
    from scipy.sparse.linalg import svds

    if not rank:
        return np.zeros_like(w)
    u, s, vt = svds(w, k=min(rank, *w.shape), solver="propack", rng=0)
    return (u * s) @ vt


@peer(PEERS, "proxop.Rank", "proxop", kind="rank_selection")
def proxop_rank(w, alpha, mu, cost):
    """γ·rank with γ = (α/μ)·(m + n), which must be positive (Rank); the adapter answers for α = 0.
    """
    from proxop import Rank

    return Rank().prox(w, alpha / mu * sum(w.shape)) if alpha else w.copy()

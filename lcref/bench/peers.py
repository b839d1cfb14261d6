"""Other libraries' ways to the same answers, to be timed beside ours.

A peer is called as one of its users would call it, and its answer becomes an array only after the
clock has stopped. Where that costs nothing the adapters are those of `lcref.verify.peers`; theirs
for K-means also count the distinct weights, which here would be unfair.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

import numpy as np

from ..parts import Array
from ..verify.peers import PEERS as ADAPTERS
from ..verify.peers.lowrank import first
from ..verify.peers.quantize import decode

MODULES = {"scikit-learn": "sklearn"}   # of distributions with another name


@dataclass(frozen=True)
class Peer:
    """A function of another library: array(w, call(w, *arguments), *arguments) is its θ."""

    name: str
    package: str  # the distribution, as on PyPI
    call: Callable
    array: Callable[..., Array] = lambda w, answer, *arguments: answer
    promise: str = ""  # what it promises instead of the projection

    @property
    def installed(self) -> bool:
        """Whether its library can be imported."""
        return find_spec(MODULES.get(self.package, self.package)) is not None


def version(package: str) -> str:
    """Of an installed distribution."""
    return metadata.version(package)


def adapted(name: str, promise: str = "") -> Peer:
    """The peer of that name in `lcref.verify.peers`."""
    found, = [peer for peer in ADAPTERS if peer.name == name]
    return Peer(name.partition(", ")[0], found.package, found.fn, promise=promise)


def kmeans1d_cluster(w, k):
    import kmeans1d

    return kmeans1d.cluster(w, k)


def ckwrap_ckmeans(w, k):
    import ckwrap

    found = ckwrap.ckmeans(w, k)
    return found.labels, found.centers


def sklearn_kmeans(w, k):
    from sklearn.cluster import KMeans

    fit = KMeans(k, n_init=10, random_state=0).fit(w.reshape(-1, 1))
    return fit.labels_, fit.cluster_centers_


def of_labels(w, answer, *arguments):
    return decode(w, *answer)


def torch_topk(w, kappa):
    import torch

    x = torch.from_numpy(w)
    kept = torch.topk(x.abs(), kappa, sorted=False).indices
    return kept, x[kept]


def torch_kthvalue(w, kappa):
    import torch

    x = torch.from_numpy(w)
    magnitude = x.abs()
    least = torch.kthvalue(magnitude, w.size - kappa + 1).values
    kept = torch.nonzero(magnitude >= least)[:, 0]
    return kept, x[kept]


def of_positions(w, answer, *arguments):
    theta = np.zeros_like(w)
    theta[answer[0].numpy()] = answer[1].numpy()
    return theta


def scipy_svd(w, *arguments):
    from scipy.linalg import svd

    return svd(w, full_matrices=False)


def scipy_svds(w, rank):
    from scipy.sparse.linalg import svds

    return svds(w, k=rank, rng=0)


def torch_svd(w, *arguments):
    import torch

    return torch.linalg.svd(torch.from_numpy(w), full_matrices=False)


def torch_svd_lowrank(w, rank):
    import torch

    torch.manual_seed(0)
    u, s, v = torch.svd_lowrank(torch.from_numpy(w), q=rank)
    return u, s, v.T


def of_factors(w, answer, rank):
    return first(rank, *map(np.asarray, answer))


def at_best_rank(w, answer, alpha, mu):
    """Of all ranks the one of least Σ_{i>r} σ_i² + (2α/μ)·r·(m + n): keep σ_i² above the price."""
    return of_factors(w, answer, int(np.sum(np.asarray(answer[1])**2 > 2 * alpha / mu * sum(
        w.shape))))


KMEANS = (Peer("kmeans1d.cluster", "kmeans1d", kmeans1d_cluster, of_labels),
          Peer("ckwrap.ckmeans", "ckwrap", ckwrap_ckmeans, of_labels),
          Peer("sklearn KMeans(n_init=10)", "scikit-learn", sklearn_kmeans, of_labels,
               "a local search"))
PEERS: dict[str, tuple[Peer, ...]] = {  # by the function's name
    "kmeans": KMEANS,
    "nearest": (adapted("scipy.cluster.vq.vq"),),
    "l0_ball": (Peer("torch.topk", "torch", torch_topk, of_positions),
                Peer("torch.kthvalue", "torch", torch_kthvalue, of_positions),
                adapted("pyproximal.L0Ball")),
    "l1_ball": (adapted("pyproximal.L1Ball", "τ by bisection to 1e-5"),),
    "l0_penalty": (adapted("torch.nn.functional.hardshrink"),),
    "l1_penalty": (adapted("torch.nn.functional.softshrink"),),
    "group_l0_ball": (adapted("torch.nn.utils.prune.LnStructured"),),
    "rank_ball": (Peer("scipy.linalg.svd", "scipy", scipy_svd, of_factors),
                  Peer("scipy.sparse.linalg.svds", "scipy", scipy_svds, of_factors),
                  Peer("torch.linalg.svd", "torch", torch_svd, of_factors),
                  Peer("torch.svd_lowrank", "torch", torch_svd_lowrank, of_factors,
                       "a randomized method")),
    "rank_selection": (Peer("scipy.linalg.svd", "scipy", scipy_svd, at_best_rank),
                       Peer("torch.linalg.svd", "torch", torch_svd, at_best_rank)),
}

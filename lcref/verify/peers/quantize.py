"""Peers for K-means, a given codebook, and rounding to a shorter format."""

import math
from functools import partial

import numpy as np

from .table import Peer, peer

PEERS: list[Peer] = []
TWICE = ("contract: no correct rounding from float64 is promised; it rounds twice, first to "
         "float32 (inferred)")
LOCAL = "contract: a local search, and says so"
EMPTY = "defect: a cluster may come back empty, its centre NaN, where k is the number of values"
OFFSET = ("defect: clusters are wrong from an offset of about 1e7 on; prefix sums of uncentred "
          "squares cancel (inferred)")

as_kmeans = partial(peer, PEERS, kind="kmeans")
as_nearest = partial(peer, PEERS, kind="nearest")
as_round_to = partial(peer, PEERS, kind="round_to")


def distinct(w, k):
    """k, at most the number of distinct values: beyond it some libraries raise, as documented."""
    return min(k, np.unique(w).size)


def decode(w, labels, centres):
    return np.asarray(centres).astype(w.dtype).ravel()[np.asarray(labels)].reshape(w.shape)


def mean(values):
    """The mean with two roundings, where a library gives the clusters and not their means."""
    return math.fsum(values) / len(values)


@as_kmeans("sklearn.cluster.KMeans", "scikit-learn",
           {LOCAL: "optimal_at_size permutation"})
def sklearn_kmeans(w, k):
    """A local search with n_init=10 restarts: "it falls in local minima" (KMeans, Notes).

    Fewer distinct values than clusters raise a warning; the adapter asks for no more.
    """
    from sklearn.cluster import KMeans

    fit = KMeans(distinct(w, k), n_init=10, random_state=0).fit(w.reshape(-1, 1))
    return decode(w, fit.labels_, fit.cluster_centers_)


@as_kmeans("scipy.cluster.vq.kmeans2", "scipy",
           {LOCAL: "optimal optimal_at_size ties feasible_input offset_1e8 permutation signs "
                   "scaling monotone idempotent"})
def scipy_kmeans2(w, k):
    """A local search from one start: "attempts to minimize" (kmeans2). A cluster may end empty."""
    from scipy.cluster.vq import kmeans2

    centres, labels = kmeans2(w, distinct(w, k), minit="++", rng=0)
    return decode(w, labels, centres)


@as_kmeans("kmeans1d.cluster", "kmeans1d", {OFFSET: "offset_1e8"})
def kmeans1d_cluster(w, k):
    """"The globally optimal k clusters for n 1D data points" (README)."""
    import kmeans1d

    return decode(w, *kmeans1d.cluster(w, k))


@as_kmeans("ckwrap.ckmeans", "ckwrap", {EMPTY: "feasible keeps_shape_and_dtype deterministic"})
def ckwrap_ckmeans(w, k):
    """"Returns the optimal k-means clustering result" (ckmeans).

    k beyond the number of distinct values raises; the adapter asks for no more.
    """
    import ckwrap

    found = ckwrap.ckmeans(w, distinct(w, k))
    return decode(w, found.labels, found.centers)


@as_kmeans("ckmeans_1d_dp.ckmeans", "ckmeans-1d-dp",
           {"defect: one value raises; its one weight stands for equal weights (inferred)":
            "feasible optimal keeps_shape_and_dtype deterministic prints_nothing full_budget "
            "zeros ties one_element feasible_input offset_1e8"})
def ckmeans_1d_dp(w, k):
    """"Perform optimal univariate k-means" (ckmeans). The adapter asks for no more clusters than
    there are distinct values.
    """
    from ckmeans_1d_dp import ckmeans

    found = ckmeans(w, distinct(w, k))
    return decode(w, found.cluster, found.centers)


@as_kmeans("ckmeans_1d_dp.ckmeans, n > 1", "ckmeans-1d-dp")
def ckmeans_1d_dp_of_two(w, k):
    """As ckmeans_1d_dp.ckmeans, where there are two values or more; the adapter answers for one.

    At 10,000 inputs a defect of the library itself was found: for w = [0, 2, 2, 1, 1, 1e-8, 1e-12,
    1e-12] and k = 5, one 2 goes into a cluster with both 1s, at a distortion of 2/3 above the
    optimum; k = 5 would do for the five distinct values.
    """
    return w.copy() if w.size == 1 else ckmeans_1d_dp(w, k)


@as_kmeans("ckmeans.ckmeans", "ckmeans")
def ckmeans_rust(w, k):
    """"The least within-group sum of squares", but for cost differences below the resolution of
    float64 sums, for instance at 1e8 (README, notes). k beyond n raises; the adapter asks for no
    more. The clusters come sorted; the adapter finds the positions.
    """
    from ckmeans import ckmeans

    clusters = ckmeans(w, min(k, w.size))
    labels = np.empty(w.size, dtype=int)
    labels[np.argsort(w, kind="stable")] = np.repeat(range(len(clusters)), [*map(len, clusters)])
    return decode(w, labels, [mean(c) for c in clusters])


@as_kmeans("jenkspy.JenksNaturalBreaks", "jenkspy", {OFFSET: "offset_1e8"})
def jenkspy_breaks(w, k):
    """The Fisher-Jenks algorithm, "to calculate the optimal class boundaries" (README).

    k beyond the number of distinct values raises; the adapter asks for no more.
    """
    from jenkspy import JenksNaturalBreaks

    fit = JenksNaturalBreaks(distinct(w, k))
    fit.fit(w)
    return decode(w, fit.labels_, [mean(group) for group in fit.groups_])


@as_nearest("scipy.cluster.vq.vq", "scipy")
def scipy_vq(w, codebook):
    """The code "of the closest centroid" (vq)."""
    from scipy.cluster.vq import vq

    return codebook[vq(w[:, None], codebook[:, None])[0]]


@as_nearest("scipy.spatial.KDTree", "scipy")
def scipy_kdtree(w, codebook):
    from scipy.spatial import KDTree

    return codebook[KDTree(codebook[:, None]).query(w[:, None])[1]]


def elsewhere(w, dtype):
    """lcref's answer, for a format the library has no cast to: no cast has a free scale."""
    from ...projections import round_to

    return round_to(w, dtype).decompress()


OVERFLOW = "contract: overflow is infinite, as in IEEE 754, not the largest finite value"


@as_round_to("numpy.ndarray.astype", "numpy", {OVERFLOW: "offset_1e8"})
def numpy_astype(w, dtype):
    """Overflow is infinite. float16 only: the other formats are answered by lcref."""
    if dtype != "float16":
        return elsewhere(w, dtype)
    return w.astype(np.float16).astype(w.dtype)


@as_round_to("ml_dtypes.bfloat16", "ml_dtypes", {TWICE: "ties"})
def ml_dtypes_astype(w, dtype):
    """Overflow is infinite. bfloat16 only: the other formats are answered by lcref. Rounds
    twice, first to float32 (inferred): 1 + 2⁻⁸ + 2⁻⁴⁰ goes to 1 as bfloat16, not to 1 + 2⁻⁷.
    """
    if dtype != "bfloat16":
        return elsewhere(w, dtype)
    import ml_dtypes

    return w.astype(ml_dtypes.bfloat16).astype(w.dtype)


@as_round_to("torch.Tensor.to", "torch", {OVERFLOW: "offset_1e8", TWICE: "ties"})
def torch_to(w, dtype):
    """Overflow is infinite. float16 and bfloat16 only: the other formats are answered by lcref.
    Rounds twice, first to float32 (inferred): 1 + 2⁻⁸ + 2⁻⁴⁰ goes to 1 as bfloat16, not to 1 + 2⁻⁷.
    """
    if dtype.startswith("int"):
        return elsewhere(w, dtype)
    import torch

    w = torch.from_numpy(w)
    return w.to(getattr(torch, dtype)).to(w.dtype).numpy()

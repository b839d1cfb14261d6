"""Each peer answers the question that lcref is asked."""

import sys

import numpy as np
import pytest

from lcref.bench.cases import CASES
from lcref.bench.peers import PEERS

ROWS = [(case, peer) for case in CASES for peer in PEERS.get(case.function, ())]
# What gives another answer than the optimum, by its own manual.
OTHERS = {"sklearn KMeans(n_init=10)", "pyproximal.L1Ball", "torch.svd_lowrank"}


def objective(case, w, theta):
    return float(np.sum((w - theta) ** 2)) + case.penalty(theta, *case.arguments(w))


@pytest.mark.parametrize("case, peer", ROWS, ids=lambda row: row.name)
def test_a_peer_reaches_the_optimum_or_promises_less(case, peer):
    if not peer.installed:
        pytest.skip(f"{peer.package} is not installed")
    w = case.data(3000, "float64")
    arguments = case.arguments(w)
    ours = objective(case, w, case.call(w, *arguments).decompress())
    answer = peer.array(w, peer.call(w, *arguments), *arguments)
    assert answer.shape == w.shape and answer.dtype == w.dtype
    theirs = objective(case, w, answer)
    if peer.name in OTHERS:
        assert peer.promise and 0.99 * ours < theirs < 1.2 * ours
    else:
        assert not peer.promise and abs(theirs - ours) <= 1e-11 * ours
        assert case.excess(answer, *arguments) <= 0


def test_the_peers_of_the_targets_are_there_with_ten_restarts_of_scikit_learn(monkeypatch):
    names = {peer.name for peer in PEERS["kmeans"]}
    assert names == {"kmeans1d.cluster", "ckwrap.ckmeans", "sklearn KMeans(n_init=10)"}
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn is not installed")
    seen, real = [], cluster.KMeans

    def spy(k, **options):
        seen.append((k, options["n_init"]))
        return real(k, **options)
    monkeypatch.setattr(cluster, "KMeans", spy)
    peer, = [peer for peer in PEERS["kmeans"] if peer.package == "scikit-learn"]
    peer.call(np.linspace(-1, 1, 50), 3)
    assert seen == [(3, 10)]


@pytest.mark.parametrize("module, package", [("sklearn", "scikit-learn"), ("ckwrap", "ckwrap")])
def test_a_library_that_cannot_be_imported_is_not_installed(module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    for peer in PEERS["kmeans"]:
        if peer.package == package:
            assert not peer.installed

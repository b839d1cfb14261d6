"""A singular value decomposition that fails.

LAPACK's gesdd is known to fail on rare finite matrices, by the BLAS and the machine. None is at
hand (of 470,000 random ones, graded, sparse and of low rank, it failed here on none), so NumPy's
function is replaced by one that fails in each of the ways that are known.
"""

import warnings

import numpy as np
import pytest
from compared import on_host

from lcref import LowRank, cli, verify
from lcref.lsteps import LeastSquares
from lcref.projections import rank_ball, rank_selection
from lcref.svd import decompose
from lcref.tolerance import objective_slack
from lcref.verify import oracles

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])
REAL = np.linalg.svd


def does_not_converge(*_, **__):
    raise np.linalg.LinAlgError("SVD did not converge")


def answers(spoil):
    def spoiled(x, *args, **options):
        return spoil(*(part.copy() for part in REAL(x, *args, **options)))
    return spoiled


def with_nan(u, s, vt):
    vt[-1, -1] = np.nan
    return u, s, vt


FAILURES = pytest.mark.parametrize("fails, why", [
    (does_not_converge, "did not converge"), (answers(with_nan), "its answer is wrong"),
    (answers(lambda u, s, vt: (u, s * (1 + 1e-9), vt)), "its answer is wrong")])


@FAILURES
@DTYPES
@pytest.mark.parametrize("scale", [1.0, 2.0 ** 100])
def test_where_a_decomposition_fails_another_driver_finds_the_optimum_and_says_so(
        fails, why, dtype, scale, place, monkeypatch):
    w = (np.random.default_rng(0).normal(size=(12, 9)) * scale).astype(dtype)
    monkeypatch.setattr(np.linalg, "svd", fails)
    with pytest.warns(RuntimeWarning, match=f"12 × 9 matrix failed .*{why}.* gesvd is used"):
        part = rank_ball(place(w), 4)
    with pytest.warns(RuntimeWarning, match="gesvd is used"):
        selected = rank_selection(place(w), scale ** 2, 1.0)
    monkeypatch.setattr(np.linalg, "svd", REAL)
    assert part.left.device == place(w).device
    theta = on_host(part.decompress())
    optimum = oracles.rank_ball(w, 4)
    distance = float(np.sum((w.astype(np.float64) - theta) ** 2))
    assert distance <= optimum + objective_slack(w, theta)
    assert selected.left.shape == rank_selection(place(w), scale ** 2, 1.0).left.shape


@FAILURES
def test_least_squares_and_certificates_go_on_as_well(fails, why, monkeypatch):
    rng = np.random.default_rng(2)
    x, y, w = rng.normal(size=(9, 4)), rng.normal(size=(9, 2)), rng.normal(size=(5, 6))
    cut = rank_ball(w, 2).decompress()
    monkeypatch.setattr(np.linalg, "svd", fails)
    with pytest.warns(RuntimeWarning, match="gesvd is used"):
        step = LeastSquares(x, y)
    with pytest.warns(RuntimeWarning, match="gesvd is used"):
        assert verify.certify(w, cut, LowRank(rank=2)).optimal
    params, _ = step({"weight": np.zeros((2, 4))}, {}, 1.0, 0)
    monkeypatch.setattr(np.linalg, "svd", REAL)
    np.testing.assert_allclose(params["weight"].T, np.linalg.lstsq(x, y)[0], rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (300, 2), (200, 200)])
@pytest.mark.parametrize("decay", [0, 1, 30, 600])
@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e150])
def test_an_answer_that_is_right_is_not_doubted(shape, decay, scale):
    # singular values that are alike, and such as fall to nothing; a warning is an error here
    w = np.random.default_rng(1).normal(size=shape) * scale
    w *= np.exp(-decay * np.arange(shape[1]) / shape[1])
    u, s, vt = decompose(w)
    np.testing.assert_allclose((u * s) @ vt, w, rtol=0, atol=1e-13 * scale * shape[0] * shape[1])


def test_a_decomposition_that_no_driver_finds_is_an_error_that_names_w(monkeypatch):
    import scipy.linalg
    monkeypatch.setattr(np.linalg, "svd", does_not_converge)
    monkeypatch.setattr(scipy.linalg, "svd", does_not_converge)
    with pytest.warns(RuntimeWarning, match="gesvd is used"):
        with pytest.raises(ValueError, match="^w, as a 3 × 4 matrix, has no singular .* gesvd"):
            rank_ball(np.ones((3, 4)), 1)


def test_a_command_says_so_in_a_line_of_its_own(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(np.linalg, "svd", does_not_converge)
    w = np.random.default_rng(3).normal(size=(5, 6))
    for name, tensor in (("ref", w), ("model", np.outer(w[:, 0], w[0]))):
        np.savez(tmp_path / f"{name}.npz", **{"fc.weight": tensor})
    flags = ["certify", tmp_path / "ref.npz", tmp_path / "model.npz"]
    with warnings.catch_warnings():
        warnings.simplefilter("default", RuntimeWarning)    # Python's own; pytest's is an error
        assert cli.main([*map(str, flags), "--compress", "lowrank(rank=1)",
                         "--max-excess", "inf"]) == 0
    lines = set(capfd.readouterr().err.splitlines())    # one for each place that decomposes
    assert len(lines) == 1, lines
    assert lines.pop().startswith("lcref certify: warning: the singular value decomposition of a ")

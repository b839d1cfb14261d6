"""The places where tests compute, and that nothing leaves its place unless asked."""

import contextlib
import os
from pathlib import Path

import array_api_strict
import numpy as np
import places
import pytest
from array_api_strict import _array_object
from compared import KINDS, MU, heavy_tailed, same_part
from places import PLACES, home, put

from lcref import Schedule, Task, iterate, parse, projections
from lcref.leastsquares import LeastSquares

pytest_plugins = ["pytester"]

DEVICE = "array_api_strict-device1"
SUMS = ["each(quantize(k=3)) + prune(kappa=2)", "binary(scale=True) + prune(keep=0.2)",
        "ternary() + prune(kappa=3)", "sum(quantize(k=2), prune(kappa=3), solver='alternate')",
        "sum(lowrank(rank=1), prune(kappa=4), cycles=4)", "each(ternary(scale=True)) + binary()",
        "sum(binary(scale=True), prune(alpha=0.5), cycles=4)",
        "sum(lowrank(alpha=0.2), round(dtype='int3'), prune(groups=2, axis=1), cycles=4)"]
W = {"a": heavy_tailed(1, (30, 8)), "b": heavy_tailed(2, (12, 8))}


@contextlib.contextmanager
def leaving(monkeypatch, most=0):
    """Fail where more than so many numbers leave an array of the standard, by whatever way."""
    def guarded(name):
        before = getattr(_array_object.Array, name)

        def method(self, *args, **options):
            assert self.size <= most, f"{name} of {self.size} numbers"
            return before(self, *args, **options)
        monkeypatch.setattr(_array_object.Array, name, method)
    with monkeypatch.context() as monkeypatch:
        for name in ("to_device", "__dlpack__", "__array__", "__buffer__"):
            if hasattr(_array_object.Array, name):
                guarded(name)
        yield


def test_an_array_that_leaves_its_device_is_seen(monkeypatch):
    w = PLACES[DEVICE](np.ones(3))
    for take in (places.on_host, lambda x: x.to_device(array_api_strict.Device("CPU_DEVICE"))):
        with leaving(monkeypatch), pytest.raises(AssertionError, match="to_device of 3 numbers"):
            take(w)
    with leaving(monkeypatch), pytest.raises(AssertionError, match="__dlpack__ of 3 numbers"):
        np.from_dlpack(w)


@pytest.mark.parametrize("text", [*KINDS, *SUMS])
def test_a_c_step_moves_no_array_off_its_device(text, monkeypatch):
    w = put(W, PLACES[DEVICE])
    with leaving(monkeypatch):
        theta = parse(text).project(w, MU)
        theta.decompress(), theta.bits(), parse(text).project(w, MU, theta).decompress()


ARGUMENTS = {"nearest": ([-0.1, 0.0, 0.1],), "binary": (True,), "ternary": (True,),
             "powers_of_two": (3,), "scaled_codebook": ([-2.0, 0.0, 1.0],), "kmeans": (5,),
             "l0_ball": (40,), "l1_ball": (10.0,), "l0_penalty": (0.01, 1.0),
             "l1_penalty": (0.1, 1.0), "round_to": ("bfloat16",), "group_l0_ball": (3, 1),
             "rank_ball": (2,), "rank_selection": (3.0, 1.0), "codebook_l0": ([-0.1, 0.1], 20),
             "scaled_binary_l0": (20,), "kmeans_l0": (3, 20)}


@pytest.mark.parametrize("name", projections.__all__)
@pytest.mark.parametrize("n", [240, 5000])  # below and above what is searched in one table
def test_a_projection_moves_no_array_off_its_device(name, n, monkeypatch):
    w = PLACES[DEVICE](heavy_tailed(3, (n // 8, 8)))
    with leaving(monkeypatch):
        getattr(projections, name)(w, *ARGUMENTS[name]).decompress()


@pytest.mark.parametrize("text", ["quantize(k=2) + prune(kappa=3)", *SUMS[4:6]])
def test_the_loop_moves_no_array_off_its_device(text, monkeypatch):
    rng = np.random.default_rng(0)
    x, y, w = put([rng.normal(size=shape) for shape in ((40, 8), (40, 6), (6, 8))], PLACES[DEVICE])
    with leaving(monkeypatch):
        *_, last = iterate({"weight": w}, [Task("weight", parse(text))], LeastSquares(x, y),
                           Schedule(mu0=0.5, a=1.3, steps=4))
    assert last.step == 3


# ---- PyTorch

@pytest.mark.torch
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("text", [*KINDS, *SUMS])
def test_a_compression_gives_arrays_of_the_kind_of_its_weights(text, dtype, place):
    w = {name: place(t.astype(dtype)) for name, t in W.items()}
    theta = parse(text).project(w, MU)
    for name, t in theta.decompress().items():
        assert type(t) is type(w[name]) and t.dtype == w[name].dtype
        assert t.shape == w[name].shape and t.device == w[name].device


# ---- the mechanism

@pytest.mark.torch
@pytest.mark.everywhere
@pytest.mark.parametrize("text", SUMS[:3])
def test_a_part_that_was_brought_home_is_that_of_numpy(text):
    found = parse(text).project(W, MU)
    before, places.HERE = places.HERE, "numpy"
    try:
        expected = parse(text).project(W, MU)
    finally:
        places.HERE = before
    assert all(type(t) is np.ndarray for t in found.decompress().values())
    assert found.bits() == expected.bits() and type(found) is type(expected)


PLACED = """
    import pytest
    from hypothesis import given, settings
    from hypothesis import strategies as st

    seen = []

    @pytest.mark.everywhere
    @given(i=st.integers())
    @settings(max_examples=20)
    def test_everywhere(i):
        seen.append(i)

    def test_so_many():
        print("examples", len(seen))

    def test_asked(place):
        pass

    @pytest.mark.away
    def test_away(place):
        pass
"""
USUAL = ["numpy", DEVICE, *(["cuda"] if not places.missing("cuda") else [])]


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on PLACED in a process of its own, with the conftest of these tests."""
    tests = Path(__file__).parent
    path = filter(None, [str(tests.parent), str(tests), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    pytester.makeconftest((tests / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(PLACED)
    return lambda *args: pytester.runpytest_subprocess("-p", "no:cacheprovider", "-v", *args)


def places_in(result, test):
    return [line.split("[")[1].split("]")[0] for line in result.outlines if f"::{test}[" in line]


def test_a_test_runs_at_its_places_and_away_from_numpy_with_few_examples(run):
    result = run("-rP")
    assert result.ret == 0
    assert places_in(result, "test_everywhere") == places_in(result, "test_asked") == USUAL
    assert places_in(result, "test_away") == USUAL[1:]
    few = 3 * (len(USUAL) - 1)  # beside the 20 of NumPy
    result.stdout.fnmatch_lines([f"examples {20 + few}"])


def test_a_place_that_was_asked_for_is_the_only_one_and_runs_in_full(run):
    result = run("--place", DEVICE, "-rP")
    result.assert_outcomes(passed=3, deselected=1)  # what says nothing of places is of NumPy
    for test in ("test_everywhere", "test_asked", "test_away"):
        assert places_in(result, test) == [DEVICE]
    assert "::test_so_many" in run("--place", DEVICE, "--place", "numpy").stdout.str()


@pytest.mark.parametrize("name, says", [("moon", "invalid choice: 'moon'"), *(
    (name, f"--place {name}: *") for name in ("torch", "cuda") if places.missing(name))])
def test_a_place_that_is_not_there_is_a_usage_error_with_the_reason(run, name, says):
    result = run("--place", name)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{says}*"])


def test_what_is_of_numpy_stays_as_it_is():
    theta = parse(SUMS[0]).project(W, MU)
    assert home(theta) is theta
    same_part(put(theta, np.asarray), theta)

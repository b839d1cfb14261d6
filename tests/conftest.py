"""Hypothesis profiles, the places where tests compute, and the count of optima compared.

A test computes at several places: see `places`. Without `--place` these are NumPy, the second
device of array_api_strict, PyTorch where the test is marked `torch` and PyTorch is installed, and a
GPU where CuPy finds one. Away from NumPy a Hypothesis test marked `everywhere` then takes FEW
examples; in full it takes them by, say,

    pytest tests/projections --place array_api_strict-device1
    pytest tests/projections tests/test_*.py tests/nets --place cuda

A test that says nothing of places is of NumPy, and with `--place` runs where that is among them.
"""

import datetime
import json
import os
import platform
import shlex
from importlib.metadata import version
from pathlib import Path

import numpy as np
import places
import pytest
from hypothesis import settings

import lcref
from lcref.data import cifar

# Chosen by --hypothesis-profile, else by HYPOTHESIS_PROFILE, else ci where CI is set, else dev.
settings.register_profile("dev", max_examples=60, deadline=None)
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True, database=None)
# Of 30,000 small inputs at least 20,000 differ: up to three in ten are drawn again.
settings.register_profile("deep", max_examples=30_000, deadline=None)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")
)


# ---- places

FEW = 3  # examples of a test that runs in full on NumPy: the texts differ by place, not the cases


def places_of(test):
    """The names of the places where a test runs that asks for arrays, or is everywhere."""
    if test.config.option.place:
        return test.config.option.place
    if test.get_closest_marker("costly"):
        return ["numpy"]
    names = [places.STRICT[1]] if test.get_closest_marker("away") else ["numpy", places.STRICT[1]]
    more = ["torch", "cuda"] if test.get_closest_marker("torch") else ["cuda"]
    return names + [name for name in more if not places.missing(name)]


def pytest_generate_tests(metafunc):
    test, asked = metafunc.definition, "place" in metafunc.fixturenames
    everywhere = test.get_closest_marker("everywhere") and not test.get_closest_marker("of_numpy")
    if asked or everywhere:
        metafunc.parametrize("place" if asked else "here", places_of(test), indirect=True,
                             scope="session")


@pytest.fixture(scope="session")
def place(request):
    """Put a NumPy array where the thing under test should work: `w = place(w)`."""
    return places.PLACES[request.param]


@pytest.fixture(scope="session", autouse=True)
def here(request):
    """Compute there, in a test that is marked `everywhere`."""
    places.HERE = getattr(request, "param", "numpy")
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in places.SEAMS:
            patch.setattr(owner, name, places.there(getattr(owner, name)))
        yield
    places.HERE = "numpy"


def where(item):
    """The name of the place where a test runs."""
    params = getattr(item, "callspec", None) and item.callspec.params or {}
    return params.get("here", params.get("place", "numpy"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leave out what runs elsewhere, and float16 where the array standard is, which has none."""
    def runs(item):
        params = getattr(item, "callspec", None) and item.callspec.params or {}
        return where(item) in (config.option.place or places.PLACES) and not (
            "here" in params and params["here"] in places.STRICT and params.get("dtype")
            is np.float16)
    config.hook.pytest_deselected(items=[item for item in items if not runs(item)])
    items[:] = filter(runs, items)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Fewer examples away from NumPy, unless the place was asked for."""
    test, name = pyfuncitem.obj, "_hypothesis_internal_use_settings"  # Hypothesis has no public way
    if where(pyfuncitem) == "numpy" or "here" not in pyfuncitem.callspec.params or (
            pyfuncitem.config.option.place or not getattr(test, "is_hypothesis_test", False)):
        return (yield)
    full = getattr(test, name)
    setattr(test, name, settings(full, max_examples=min(FEW, full.max_examples)))
    try:
        return (yield)
    finally:
        setattr(test, name, full)


@pytest.fixture
def small_cifar(tmp_path_factory, monkeypatch):
    """The folder of a CIFAR-10 of 30 images and 6 for the test, in the binary version."""
    number = 6      # of images in each file, instead of 10,000
    folder, rng = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    monkeypatch.setattr(cifar, "IMAGES", number)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        records = rng.integers(256, size=(number, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(number) % 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


# ---- how many answers were compared with the optimum, and how far above it they were

COUNTS = pytest.StashKey()  # of a dict: name -> row of the table
COLUMNS = ("float64", "float32", "distinct", "above tolerance", "largest share")
LEGEND = """
float64, float32: instances in that dtype whose objective was compared with the exact optimum
distinct: how many of them differ from one another in w or in the budget
above tolerance: how many exceed the optimum by more than the tolerance
largest share: the largest excess over the optimum, divided by the tolerance"""


def pytest_addoption(parser):
    parser.addoption("--counts", metavar="FILE", type=Path, help="write the table of answers "
                     "compared with the optimum as JSON, with command, date and versions")
    parser.addoption("--place", action="append", choices=places.PLACES, metavar="NAME",
                     help=f"compute there alone, in full: {', '.join(places.PLACES)}; repeatable")


def pytest_configure(config):
    config.stash[COUNTS] = {}
    for name in config.option.place or ():
        if why := places.missing(name):
            raise pytest.UsageError(f"--place {name}: {why}")


@pytest.fixture(scope="session")
def count(pytestconfig):
    """Count one answer before it is judged: `count(name, w, budget, gap, tolerance)`.

    The gap is the objective minus the exact optimum; w is an array, or a list of arrays of one
    dtype. Every call counts, so where Hypothesis shrinks a failure its attempts count too; but
    those of NumPy alone, or of the one place that was asked for.
    """
    seen = set()

    def add(name, w, budget, gap, tolerance):
        if places.HERE not in (pytestconfig.option.place or ["numpy"])[:1]:
            return
        arrays = w if isinstance(w, (list, tuple)) else [w]
        instance = hash((name, repr(budget), *((str(x.dtype), x.shape, x.tobytes())
                                               for x in arrays)))
        share = gap / tolerance if tolerance else gap * 10**9
        row = pytestconfig.stash[COUNTS].setdefault(name, dict.fromkeys(COLUMNS, 0))
        row[str(arrays[0].dtype)] += 1
        row["distinct"] += instance not in seen
        row["above tolerance"] += not gap <= tolerance
        row["largest share"] = max(row["largest share"], float(min(share, 10**9)))
        seen.add(instance)

    return add


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Add the rows of a pytest-xdist worker to those of the process that prints them."""
    rows = node.config.stash[COUNTS]
    for name, new in getattr(node, "workeroutput", {}).pop("counts", {}).items():
        old = rows.get(name, dict.fromkeys(COLUMNS, 0))
        rows[name] = {column: max(old[column], new[column]) if column == "largest share"
                      else old[column] + new[column] for column in COLUMNS}


def pytest_sessionfinish(session):
    config = session.config
    if hasattr(config, "workeroutput"):  # this is a worker of pytest-xdist
        config.workeroutput["counts"] = config.stash[COUNTS]
    elif config.option.counts:
        packages, rows = ("numpy", "scipy", "hypothesis", "pytest"), config.stash[COUNTS]
        config.option.counts.write_text(json.dumps({
            "command": shlex.join(["python", "-m", "pytest", *config.invocation_params.args]),
            "date": datetime.date.today().isoformat(),
            "versions": {"python": platform.python_version(), "lcref": lcref.__version__,
                         **{name: version(name) for name in packages}},
            "columns": LEGEND.strip().splitlines(), "rows": dict(sorted(rows.items()))},
            indent=1) + "\n")


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[COUNTS]
    if not rows or config.get_verbosity() < 0:
        return
    terminalreporter.section("answers compared with the optimum")
    width = max(map(len, rows))
    line = "{:<{}}  {:>8}  {:>8}  {:>8}  {:>15}  {:>13}"
    terminalreporter.line(line.format("projection", width, *COLUMNS))
    for name, row in sorted(rows.items()):
        cells = [f"{row[c]:.2g}" if c == "largest share" else f"{row[c]:,}" for c in COLUMNS]
        terminalreporter.line(line.format(name, width, *cells))
    terminalreporter.line(LEGEND)

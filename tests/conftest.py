"""Hypothesis profiles, the arrays of the numerical tests, and the count of optima compared."""

import datetime
import json
import os
import platform
import shlex
from importlib.metadata import version
from pathlib import Path

import array_api_strict
import numpy as np
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


def namespaces():
    """Name the places where arrays live, each with a function that puts a NumPy array there."""
    second = array_api_strict.Device("device1")  # no NumPy call can read an array on this device
    return {
        "numpy": np.asarray,
        "array_api_strict": array_api_strict.asarray,
        "array_api_strict-device1": lambda w: array_api_strict.asarray(w, device=second),
    }


@pytest.fixture(scope="session", params=namespaces().values(), ids=namespaces().keys())
def place(request):
    """Put a NumPy array where the thing under test should work: `w = place(w)`."""
    return request.param


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


def pytest_configure(config):
    config.stash[COUNTS] = {}


@pytest.fixture(scope="session")
def count(pytestconfig):
    """Count one answer before it is judged: `count(name, w, budget, gap, tolerance)`.

    The gap is the objective minus the exact optimum; w is an array, or a list of arrays of one
    dtype. Every call counts, so where Hypothesis shrinks a failure its attempts count too.
    """
    seen = set()

    def add(name, w, budget, gap, tolerance):
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

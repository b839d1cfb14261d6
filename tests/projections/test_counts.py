"""The table of answers compared with the optimum counts what was really run, and says so once."""

import json
import os
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
    import numpy as np
    import pytest
    from hypothesis import given, settings
    from hypothesis import strategies as st

    @pytest.mark.parametrize("name", ["good", "bad"])
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    @given(i=st.integers(0, 10**9))
    @settings(max_examples=30, database=None)
    def test_counted(name, dtype, count, i):
        count(name, np.asarray([i, 1], dtype), None, 3 if name == "bad" else 1, 2)

    def test_counted_twice(count):
        for w in ([1.0], [1.0], [2.0]):
            count("again", np.asarray(w), None, -1, 0)

    def test_not_counted():
        pass
"""
WORKERS = pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "two workers"])


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on TESTS in a process of its own, with the conftest of these tests."""
    tests = Path(__file__).parent.parent
    path = filter(None, [str(tests.parent), str(tests), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    pytester.makeconftest((tests / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(TESTS)
    return lambda *args: pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


@WORKERS
def test_every_answer_is_counted_once_wherever_it_ran(run, pytester, workers):
    result = run("--counts", "counts.json", *workers)
    result.assert_outcomes(passed=6)
    kept = json.loads((pytester.path / "counts.json").read_text())
    rows = kept["rows"]
    assert list(rows) == ["again", "bad", "good"]
    for name, above, share in (("bad", 60, 1.5), ("good", 0, 0.5)):
        assert (rows[name]["float64"], rows[name]["float32"]) == (30, 30)
        assert (rows[name]["above tolerance"], rows[name]["largest share"]) == (above, share)
    assert rows["again"] == {"float64": 3, "float32": 0, "distinct": 2, "above tolerance": 0,
                             "largest share": 0}
    assert kept["command"].startswith("python -m pytest") and "numpy" in kept["versions"]
    result.stdout.re_match_lines([r"projection +float64 +float32 +distinct .*",
                                  r"again +3 +0 +2 +0 +0", r"bad +30 +30 +\d+ +60 +1\.5"])


@WORKERS
def test_nothing_is_printed_where_nothing_was_counted(run, workers):
    result = run("-k", "not_counted", *workers)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*optimum*")

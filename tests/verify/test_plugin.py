"""The pytest plugin, run by pytest in a process of its own on small test modules."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lcref
from lcref import verify
from lcref.verify.plugin import conforms

ROOT = Path(__file__).parent.parent.parent

ADAPTERS = '''
import numpy as np
import pytest

from lcref import verify

few = dict(max_examples=5)


def largest(w, kappa):
    theta = np.zeros_like(w)
    keep = np.argsort(-abs(w), kind="stable")[:kappa]
    theta[keep] = w[keep]
    return theta


def talkative(w, kappa):
    print("pruning")
    return largest(w, kappa)
'''

MINE = ADAPTERS + '''

@verify.conforms("l0_ball", **few)
def right(w, kappa):
    return largest(w, kappa)


@verify.conforms("l0_ball", **few)
def test_prints(w, kappa):
    return talkative(w, kappa)


@verify.conforms("l0_ball", **few)
def negates(w, kappa):
    return -largest(w, kappa)


@pytest.mark.filterwarnings("default")
@verify.conforms("l0_ball", expected_failures={"prints_nothing": "a progress bar"}, **few)
def prints_as_expected(w, kappa):
    return talkative(w, kappa)


@verify.conforms("l0_ball", expected_failures={"prints_nothing": "a progress bar"}, **few)
def prints_no_more(w, kappa):
    return largest(w, kappa)


@verify.conforms("l0_ball", **few)
@pytest.fixture(scope="module")
def above():
    return largest


@pytest.fixture(params=[largest, talkative], ids=["quiet", "talkative"], name="one_of_two")
@verify.conforms("l0_ball", **few)
def below(request):
    return request.param


def test_what_is_marked_stays_what_it_was(above, one_of_two):
    w = np.array([1.0, -2.0])
    for function in (right, above, one_of_two):
        assert function(w, 1).tolist() == [0.0, -2.0]
'''


def run_pytest(folder, *arguments, **modules):
    """Run pytest with this plugin alone on test modules: (exit status, standard output)."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nxfail_strict = true\nfilterwarnings = error\n")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path,
                   "PYTEST_ADDOPTS": "", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "lcref.verify.plugin", "-p", "no:cacheprovider",
         *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout


def outcomes(output):
    """Test id, without the file -> PASSED, FAILED, XFAIL, ... in the order of the run."""
    return dict(re.findall(r"^\S+\.py::(\S+) ([A-Z]+)\b", output, re.MULTILINE))


def of(name, output):
    """Property -> outcome of one adapter or fixture."""
    return {match[1]: outcome for test, outcome in outcomes(output).items()
            if (match := re.fullmatch(rf"{re.escape(name)}\[(.*)\]", test))}


def failed(name, output):
    return {each for each, outcome in of(name, output).items() if outcome == "FAILED"}


def section(test, output):
    """What pytest prints below the heading of one failed test."""
    return re.search(rf"^_+ {re.escape(test)} _+\n(.*?)^(?:___|===)", output,
                     re.MULTILINE | re.DOTALL)[1]


@pytest.fixture(scope="module")
def names():
    return verify.property_names("l0_ball")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    status, output = run_pytest(tmp_path_factory.mktemp("mine"), "-v", test_mine=MINE)
    assert status == 1
    return output


# ---- one test a property -----------------------------------------------------------------------


def test_each_adapter_has_one_test_a_property_in_the_order_of_the_report(output, names):
    for name in ("right", "test_prints", "negates", "prints_as_expected", "above"):
        assert tuple(of(name, output)) == names


def test_a_right_function_passes_every_property(output):
    assert set(of("right", output).values()) == {"PASSED"}


def test_a_wrong_function_fails_at_the_properties_it_breaks_and_passes_the_others(output):
    assert failed("test_prints", output) == {"prints_nothing"}
    assert "optimal" in failed("negates", output)
    assert not failed("negates", output) & {"feasible", "prints_nothing", "deterministic"}


def test_a_failure_shows_the_property_its_message_and_a_snippet_without_a_traceback(output):
    shown = section("negates[optimal]", output)
    assert re.match(r"optimal of l0_ball: \S", shown)
    for line in ("import numpy as np", "from test_mine import negates", "print(negates(w, kappa))"):
        assert line in shown.splitlines()
    assert "Traceback" not in shown and "plugin.py" not in shown


def test_a_fixture_is_judged_whether_marked_above_or_below(output, names):
    assert set(of("above", output).values()) == {"PASSED"}
    assert len(of("below", output)) == 2 * len(names)


def test_each_parameter_of_a_fixture_is_judged_by_itself(output, names):
    wanted = {f"{which}-{name}" for which in ("quiet", "talkative") for name in names}
    found = of("below", output)
    assert set(found) == wanted
    assert {each for each in found if found[each] != "PASSED"} == {"talkative-prints_nothing"}


def test_what_is_marked_is_still_a_function_or_a_fixture(output):
    rest = {test: outcome for test, outcome in outcomes(output).items() if "stays" in test}
    assert len(rest) == 2 and set(rest.values()) == {"PASSED"}


# ---- expected failures -------------------------------------------------------------------------


def test_an_expected_failure_is_reported_as_such(output):
    found = of("prints_as_expected", output)
    assert found.pop("prints_nothing") == "XFAIL" and set(found.values()) == {"PASSED"}


def test_an_expected_failure_that_passes_fails_with_the_reason_it_was_expected(output):
    assert failed("prints_no_more", output) == {"prints_nothing"}
    assert "a progress bar" in section("prints_no_more[prints_nothing]", output)


def test_the_reason_is_shown_and_runxfail_shows_the_failure(tmp_path):
    chosen = ("-v", "-rx", "-k", "prints_as_expected and prints_nothing")
    status, shown = run_pytest(tmp_path, *chosen, test_mine=MINE)
    assert status == 0 and "a progress bar" in shown and len(outcomes(shown)) == 1
    status, shown = run_pytest(tmp_path, *chosen, "--runxfail")
    assert status == 1 and failed("prints_as_expected", shown) == {"prints_nothing"}


# ---- what is collected -------------------------------------------------------------------------


def collected(output):
    return re.findall(r"^test_mine\.py::(\S+)$", output, re.MULTILINE)


def test_claims_add_properties_and_the_others_are_not_collected(tmp_path, names):
    claiming = ADAPTERS + '\nmine = verify.conforms("l0_ball", claims=("float32",))(largest)\n'
    status, shown = run_pytest(tmp_path, "--collect-only", "-q", test_mine=claiming)
    claimed = verify.property_names("l0_ball", ("float32",))
    assert status == 0 and "float32" in claimed and "float32" not in names
    assert [test for test in collected(shown) if test.startswith("mine[")] == [
        f"mine[{name}]" for name in claimed]


ERRORS = {
    "kind": ('@verify.conforms("l7_ball")\ndef mine(w, kappa): ...', "l7_ball"),
    "claim": ('@verify.conforms("l0_ball", claims=("beauty",))\ndef mine(w, kappa): ...',
              "beauty"),
    "expected failure": ('@verify.conforms("l0_ball", expected_failures={"beauty": "none"})\n'
                         'def mine(w, kappa): ...', "expected_failures names beauty"),
    "class": ('class TestMine:\n    @verify.conforms("l0_ball")\n    def mine(self, w, kappa): ...',
              "TestMine.mine: conforms goes on a function"),
}


@pytest.mark.parametrize("text, message", ERRORS.values(), ids=ERRORS.keys())
def test_an_unknown_name_or_a_method_is_an_error_of_collection_in_words(tmp_path, text, message):
    status, shown = run_pytest(tmp_path, test_mine=f"from lcref import verify\n\n{text}\n")
    assert status == 2 and "1 error" in shown
    assert message in shown
    assert "Traceback" not in shown and "plugin.py" not in shown


def test_workers_of_xdist_collect_the_same_tests(tmp_path):
    pytest.importorskip("xdist")
    status, shown = run_pytest(tmp_path, "-p", "xdist", "-n", "2", "-k", "right or below",
                               test_mine=MINE)
    assert status == 1 and re.search(r"1 failed, \d+ passed", shown)
    assert "FAILED test_mine.py::below[talkative-prints_nothing]" in shown


# ---- the mark ----------------------------------------------------------------------------------


def test_what_cannot_be_marked_is_refused():
    with pytest.raises(TypeError, match="wrap it in a function"):
        conforms("l0_ball")(abs)
    with pytest.raises(TypeError, match="wrap it in a function"):
        conforms("l0_ball")(dict)
    with pytest.raises(TypeError, match="twice"):
        conforms("l0_ball")(conforms("l1_ball")(lambda w, budget: w))
    assert verify.conforms is conforms


# ---- start-up ----------------------------------------------------------------------------------


def in_a_fresh_process(code, **environment):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path, **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_plugin_loads_nothing_that_takes_time():
    modules = in_a_fresh_process("import json, sys, lcref.verify.plugin; "
                                 "print(json.dumps(sorted(sys.modules)))", EAGER_IMPORT="")
    assert not {"numpy", "scipy", "hypothesis", "pytest"} & set(modules)
    assert [name for name in modules if name.startswith("lcref")] == [
        "lcref", "lcref.verify", "lcref.verify.plugin"]


@pytest.mark.parametrize("eager", ["", "1"])
def test_the_names_that_are_loaded_on_first_use_are_all_there(eager):
    code = ("import json, lcref; from lcref import *; "
            "print(json.dumps([dir(lcref), [n for n in lcref.__all__ if n not in globals()]]))")
    listed, missing = in_a_fresh_process(code, EAGER_IMPORT=eager)
    assert missing == [] and {*lcref.__all__, "__version__"} <= set(listed)
    for module in ("lc", "parts", "compressions", "composition", "text", "tolerance", "inputs"):
        assert module in listed and getattr(lcref, module).__name__ == f"lcref.{module}"
    with pytest.raises(AttributeError, match="no_such_name"):
        lcref.no_such_name


def test_the_stub_lists_the_names_that_the_package_lists():
    stub = (ROOT / "lcref" / "__init__.pyi").read_text(encoding="utf-8")
    public = re.search(r"^__all__ = (\[.*?\])", stub, re.MULTILINE | re.DOTALL)[1]
    assert json.loads(public) == lcref.__all__

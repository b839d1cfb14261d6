"""The choice of a cell is the one that a search through all of them makes, by held-out errors."""

import json
import math
import re
import shlex

import numpy as np
import pytest
import sweep_results
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lcref import choice, cli

# Few different values, so that ties are frequent.
POINTS = st.lists(st.tuples(st.sampled_from([1.0, 2.0, 4.0, 8.5, 16.0]),
                            st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0])), max_size=12)
# Ties of both kinds, in which the lower key is the worse cell.
TIES = [(1.0, 2.0), (4.0, 0.5), (2.0, 0.5), (8.0, 1.0), (8.0, 4.0)]


def made(points):
    """Cells at these (ratio, held-out error); test errors fall as held-out ones rise."""
    cells = sweep_results.cells(len(points), seed=3)
    for cell, (ratio, error) in zip(cells, points, strict=True):
        cell["result"]["ratio"] = {"float16": 100 - ratio, "float32": ratio}
        cell["result"]["lc"] |= {"held_out_error": error, "test_error": 50 - error}
    return cells


def held_out(cell):
    return cell["result"]["lc"]["held_out_error"]


@given(POINTS)
def test_the_front_is_every_point_that_no_other_point_dominates(points):
    def dominated(ratio, error):
        return any(r >= ratio and e <= error and (r > ratio or e < error) for r, e in points)

    assert choice.front(points) == [i for i, point in enumerate(points) if not dominated(*point)]


def test_equal_points_are_on_the_front_together_and_a_nan_never_is():
    points = [(10, 2.0), (10, 2.0), (5, 1.0), (5, 2.0), (20, float("nan")), (float("nan"), 0.0)]
    assert choice.front(points) == [0, 1, 2]
    assert choice.front([]) == []


@given(POINTS.filter(len), st.sampled_from([0.0, 0.4, 1.0, 3.0, 9.0]))
@example(TIES, 9.0)
@example(TIES, 0.4)
def test_within_an_error_the_choice_has_the_largest_ratio(points, limit):
    cells = made(points)
    cell, satisfied = choice.best(cells, max_error=limit)
    within = [other for other in cells if held_out(other) <= limit]
    assert satisfied == bool(within)
    for other in within or cells:   # nobody is better by ratio, then error, then key
        mine, theirs = ([-c["result"]["ratio"]["float32"], held_out(c), c["key"]]
                        for c in (cell, other))
        if not within:
            mine, theirs = ([c[1], c[0], c[2]] for c in (mine, theirs))
        assert mine <= theirs


@given(POINTS.filter(len), st.sampled_from([0.0, 2.0, 5.0, 16.0, 17.0]))
@example(TIES, 2.0)
@example(TIES, 17.0)
def test_within_a_ratio_the_choice_has_the_lowest_held_out_error(points, limit):
    cells = made(points)
    cell, satisfied = choice.best(cells, min_ratio=limit)
    within = [other for other in cells if other["result"]["ratio"]["float32"] >= limit]
    assert satisfied == bool(within)
    for other in within or cells:
        mine, theirs = ([held_out(c), -c["result"]["ratio"]["float32"], c["key"]]
                        for c in (cell, other))
        if not within:
            mine, theirs = ([c[1], c[0], c[2]] for c in (mine, theirs))
        assert mine <= theirs


def test_the_test_errors_have_no_say():
    cells = made([(10.0, 2.0), (10.0, 3.0), (4.0, 1.0)])
    chosen = [choice.best(cells, min_ratio=5)[0]["key"], choice.best(cells, max_error=2)[0]["key"]]
    for cell, error in zip(cells, (99.0, 0.0, 0.0), strict=True):
        cell["result"]["lc"]["test_error"] = error
    assert chosen == [cells[0]["key"]] * 2 == [choice.best(cells, min_ratio=5)[0]["key"],
                                               choice.best(cells, max_error=2)[0]["key"]]


def test_a_ratio_is_the_cell_s_own_unless_a_convention_is_named():
    cells = made([(10.0, 2.0), (20.0, 2.0)])
    cells[0]["result"]["storage"] = "float16"   # its own ratio is 90
    assert choice.ratio(cells[0]) == 90 and choice.ratio(cells[1]) == 20
    for storage, winner in ((None, 0), ("float32", 1), ("float16", 0)):
        assert choice.best(cells, max_error=2, storage=storage)[0] is cells[winner]


@pytest.mark.parametrize("limits", [{}, {"max_error": 1.0, "min_ratio": 2.0}])
def test_a_choice_needs_exactly_one_limit(limits):
    with pytest.raises(ValueError, match="exactly one of max_error and min_ratio"):
        choice.best(made([(1.0, 1.0)]), **limits)


@pytest.mark.parametrize("name", ["max_error", "min_ratio"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "3", [3.0], np.ones(1), 1j, True])
def test_a_limit_is_a_number_from_zero(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be a finite number, at least 0, not "):
        choice.best(made([(1.0, 1.0)]), **{name: value})


def test_a_number_of_numpy_is_a_limit_and_a_wrong_argument_is_named():
    cells = made([(1.0, 1.0), (2.0, 4.0)])
    assert choice.best(cells, max_error=np.float32(2)) == (cells[0], True)
    with pytest.raises(ValueError, match="^storage must be 'float16' or 'float32', not 'float8'"):
        choice.best(cells, max_error=2, storage="float8")
    with pytest.raises(ValueError, match="^cells must be those that did not fail"):
        choice.best(sweep_results.cells(1, failed=1), max_error=2)
    with pytest.raises(TypeError, match="^out must be a path, not None"):
        next(choice.results(None))


@pytest.mark.parametrize("points", ["abc", [(1j, 2.0)], [(1.0, 2.0, 3.0)], [(None, 2.0)], [()],
                                    [("1", "2")], np.ones((2, 3)), np.ones((2, 2), complex),
                                    np.array([["a", "b"]])], ids=str)
def test_points_that_are_no_pairs_of_numbers_are_refused_by_name(points):
    with pytest.raises(TypeError, match="^points must be pairs of numbers"):
        choice.front(points)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8])
def test_the_front_of_an_array_is_that_of_its_pairs(dtype):
    points = np.array([[1, 2], [3, 4], [2, 3], [3, 5]], dtype)
    assert choice.front(points) == choice.front(np.asfortranarray(points)) == [0, 1, 2]


def test_results_without_held_out_errors_are_refused_with_the_fix():
    cells = made([(1.0, 1.0), (2.0, 2.0)])
    del cells[1]["result"]["lc"]["held_out_error"]
    with pytest.raises(ValueError, match=re.escape("put hold-out = 0.1 in the file of the sweep")):
        choice.best(cells, max_error=9)
    with pytest.raises(ValueError, match="no cell has a result"):
        choice.best([], max_error=9)


# ---- the files ---------------------------------------------------------------------------------


def test_results_come_by_key_and_whole_and_unfinished_files_are_no_results(tmp_path):
    cells = sweep_results.cells(20, failed=3)
    sweep_results.write(tmp_path, cells)
    folder = tmp_path / "cells" / cells[0]["key"][:2]
    (folder / f".{cells[0]['key']}.json").write_text("{", encoding="utf-8")   # being written
    read = list(choice.results(tmp_path))
    assert read == sorted(cells, key=lambda cell: cell["key"])
    good, bad = choice.finished(read)
    assert [len(good), len(bad)] == [20, 3] and all("error" in cell for cell in bad)


def ruin(cell, where):
    """The text of a cell's file with one thing wrong."""
    if where == "half":
        return json.dumps(cell)[:300]
    cell = json.loads(json.dumps(cell))
    if where == "another's key":
        cell["key"] = "0" * 32
    elif where == "a list":
        cell = [cell]
    elif where == "error without traceback":
        cell["error"] = "ValueError"
    elif where == "text for a number":
        cell["result"]["lc"]["held_out_error"] = "none"
    elif where == "no device":
        cell["result"]["settings"]["device"] = "cpu; ls"
    else:
        first, _, last = where.rpartition(".")
        del (cell[first] if first else cell)[last]
    return json.dumps(cell)


@pytest.mark.parametrize("where", [
    "half", "another's key", "a list", "error without traceback", "text for a number",
    "no device", "kind", "key", "settings", "axes", "result", "result.lc", "result.ratio",
    "result.storage", "result.versions"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, where):
    cell, = sweep_results.cells(1)
    sweep_results.write(tmp_path, [cell])
    file, = tmp_path.glob("cells/*/*.json")
    file.write_text(ruin(cell, where), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{re.escape(str(file))} is damaged .*; remove it"):
        list(choice.results(tmp_path))


NOT_NUMBERS = ["1.5", "", "nan", True, [], [[]], {}, {"": 0}, 10**400, math.nan, math.inf, None]


@pytest.mark.parametrize("net", ["reference", "direct", "lc", "ratio"])
@pytest.mark.parametrize("value", NOT_NUMBERS, ids=lambda value: repr(value)[:9])
def test_what_stands_for_a_number_and_is_none_is_an_error_that_names_its_file(net, value, tmp_path):
    for name in ("float16", "float32") if net == "ratio" else (
            "loss", "held_out_error", "test_error", "train_error"):
        cell, = sweep_results.cells(1)
        cell["result"][net][name] = value
        sweep_results.write(tmp_path, [cell])
        file, = tmp_path.glob("cells/*/*.json")
        if value is None and name == "held_out_error" or name == "loss" and type(value) is float:
            assert next(choice.results(tmp_path))["key"] == cell["key"]     # not drawn, not chosen
        else:
            with pytest.raises(ValueError, match=f"{re.escape(str(file))} is damaged .*; remove "):
                list(choice.results(tmp_path))


PLACES = st.lists(st.integers(0, 20), min_size=1, max_size=3)
JSON = st.none() | st.booleans() | st.floats() | st.text(max_size=4) | st.sampled_from(
    [0, -1, 10**400, "nan", "1e5", [], [0], {}, {"": None}, "</script>", "delete"])


def put(tree, places, value):
    """Let another value stand at a place in a tree of dicts."""
    name = sorted(tree)[places[0] % len(tree)]
    if len(places) > 1 and isinstance(tree[name], dict) and tree[name]:
        put(tree[name], places[1:], value)
    elif value == "delete":
        del tree[name]
    else:
        tree[name] = value


@given(number=st.integers(0, 3), places=PLACES, value=JSON,
       limit=st.sampled_from(["--max-error", "--min-ratio"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_says_best_chooses_or_names_it(number, places, value, limit,
                                                       tmp_path_factory, capsys):
    folder, cells = tmp_path_factory.mktemp("out"), sweep_results.cells(3, failed=1)
    sweep_results.write(folder, cells)
    cell = cells[number]
    file, = folder.glob(f"cells/*/{cell['key']}.json")
    put(cell, places, value)
    file.write_text(json.dumps(cell), encoding="utf-8")
    status, out, err = lcref(capsys, "best", folder, limit, 3)
    if status == 2:
        assert out == "" and err.count("\n") == 1
        assert str(file) in err or "has no held-out error" in err and file.stem in err
    else:
        assert err.startswith("lcref best: no cell has") if status else err == ""
        said = out.partition("lcref compress")[0]
        assert "nan" not in said or cell["kind"] == "nan"   # a text, of which any is printed


def test_a_file_that_is_no_text_is_damaged(tmp_path):
    cell, = sweep_results.cells(1)
    sweep_results.write(tmp_path, [cell])
    next(tmp_path.glob("cells/*/*.json")).write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match="is damaged"):
        list(choice.results(tmp_path))


def test_a_folder_without_results_is_an_error_that_says_how_to_make_some(tmp_path):
    with pytest.raises(ValueError, match=f"`lcref sweep FILE --out {re.escape(str(tmp_path))}`"):
        list(choice.results(tmp_path))


# ---- lcref best --------------------------------------------------------------------------------


def lcref(capsys, *arguments):
    """(exit status, standard output, standard error)."""
    status = cli.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_best_prints_the_cell_its_errors_and_those_of_the_reference(tmp_path, capsys):
    cells = sweep_results.cells(30, failed=2)
    sweep_results.write(tmp_path, cells)
    status, out, err = lcref(capsys, "best", tmp_path, "--max-error", 4)
    within = [cell for cell in cells[:30] if held_out(cell) <= 4]
    chosen = max(within, key=lambda cell: cell["result"]["ratio"]["float32"])
    assert (status, err) == (0, "")
    assert "of 30 cells, 2 failed" in out
    assert f"{chosen['kind']}, key {chosen['key']}" in out
    assert f"ratio {chosen['result']['ratio']['float32']:.2f} (float32, as held)" in out
    for title, net in (("reference", "reference"), ("LC", "lc")):
        line = next(line for line in out.splitlines() if line.startswith(title))
        errors = [chosen["result"][net][f"{part}_error"] for part in ("held_out", "test", "train")]
        assert re.findall(r"\d+\.\d\d", line) == [f"{error:.2f}" for error in errors]
    assert out.splitlines()[-1] == choice.command(chosen)


def test_best_in_json_is_the_result_with_the_command(tmp_path, capsys):
    cells = sweep_results.cells(30, failed=2)
    sweep_results.write(tmp_path, cells)
    status, out, err = lcref(capsys, "best", tmp_path, "--min-ratio", 20, "--storage", "float16",
                             "--json")
    answer = json.loads(out)
    within = [cell for cell in cells[:30] if cell["result"]["ratio"]["float16"] >= 20]
    chosen = min(within, key=held_out)
    assert status == 0 and "the lowest held-out error with a ratio of at least 20" in err
    assert answer == {**chosen, "chosen_ratio": chosen["result"]["ratio"]["float16"],
                      "command": choice.command(chosen), "cells": 30, "failed": 2}


def test_best_ends_with_status_1_and_names_the_nearest_where_there_is_none(tmp_path, capsys):
    cells = made([(10.0, 2.25), (20.0, 3.5), (30.0, 2.25)])
    sweep_results.write(tmp_path, cells)
    status, out, err = lcref(capsys, "best", tmp_path, "--max-error", 2)
    assert (status, out) == (1, "")
    assert "a held-out error of at most 2%; the nearest has a held-out error of 2.25% " in err
    assert "at ratio 30.00" in err and cells[2]["key"] in err
    status, out, err = lcref(capsys, "best", tmp_path, "--min-ratio", 31)
    assert (status, out) == (1, "") and cells[2]["key"] in err


@pytest.mark.parametrize("limits", [[], ["--max-error", "1", "--min-ratio", "2"]])
def test_best_without_one_limit_is_wrong_usage(tmp_path, capsys, limits):
    assert cli.main(["best", str(tmp_path), *limits]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "--max-error" in err and "--min-ratio" in err


def test_best_of_a_folder_without_results_is_wrong_input(tmp_path, capsys):
    status, out, err = lcref(capsys, "best", tmp_path, "--max-error", 2)
    assert (status, out) == (2, "") and err.startswith("lcref best: error: no results in")


def test_the_command_holds_every_setting_as_a_shell_reads_it():
    cell, = sweep_results.cells(1, **{
        "compress": "each(quantize(k=2))  + prune(keep=0.01) # it's \"that\" $HOME", "mu0": 1e-5,
        "augment": False, "task": ["fc1.weight: prune(kappa=5)", "fc2.weight: lowrank(rank=1)"],
        "activation": None, "net": "-x"})
    assert shlex.split(choice.command(cell)) == [
        "lcref", "compress", "--data", "digits", "--reference-epochs", "30", "--hold-out", "0.1",
        "--compress", "each(quantize(k=2))  + prune(keep=0.01) # it's \"that\" $HOME",
        "--seed", "0", "--mu0", "1e-05", "--no-augment", "--task", "fc1.weight: prune(kappa=5)",
        "--task", "fc2.weight: lowrank(rank=1)", "--net=-x", "--out", f"model-{cell['key'][:8]}"]
    cell["settings"] = {"augment": True}
    assert choice.command(cell) == f"lcref compress --augment --out model-{cell['key'][:8]}"


def test_the_command_makes_the_model_again(tmp_path, capsys, monkeypatch):
    settings = {"net": "linear", "reference-epochs": 2, "steps": 2, "epochs": 1, "mu0": 1e-2,
                "compress": "each(quantize(k=3)) + prune(keep=0.05)", "seed": 4}
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    assert cli.main(["compress", *flags, "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    result["lc"]["held_out_error"] = 5.0
    cell = sweep_results.cell(0, np.random.default_rng(0))
    sweep_results.write(tmp_path, [cell | {"settings": settings, "result": result}])
    status, out, _ = lcref(capsys, "best", tmp_path, "--max-error", 10)
    assert status == 0
    monkeypatch.chdir(tmp_path)
    assert cli.main([*shlex.split(out.splitlines()[-1])[1:], "--json", "--quiet"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["settings"] == result["settings"] and again["ratio"] == result["ratio"]
    assert again["lc"]["test_error"] == result["lc"]["test_error"]
    assert (tmp_path / f"model-{cell['key'][:8]}" / "model.npz").is_file()

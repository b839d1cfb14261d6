"""`lcref explain` says what the docstrings say, and where the code and its oracle are."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

import lcref
from lcref import cli, compressions, explain, lc, lsteps, parts, projections
from lcref.explain import explanations

PACKAGE = Path(lcref.__file__).parent
KNOWN = explanations()
PUBLIC = {**{f"projections.{name}": getattr(projections, name) for name in projections.__all__
             if inspect.isfunction(getattr(projections, name))},
          **{f"parts.{name}": thing for name, thing in vars(parts).items()
             if inspect.isclass(thing) and issubclass(thing, parts.Part)},
          **{f"compressions.{name}": getattr(compressions, name)
             for name in compressions.__all__},
          **{f"compressions.{name}": getattr(lcref, name) for name in lcref.__all__
             if isinstance(getattr(lcref, name), type(compressions.Compression))
             and issubclass(getattr(lcref, name), compressions.Compression)},
          **{f"lc.{name}": getattr(lc, name) for name in (
              "c_step", "multipliers", "iterate", "direct_compression", "compress", "Schedule")},
          **{f"lsteps.{name}": getattr(lsteps, name) for name in lsteps.__all__}}


def printed(capsys, *arguments):
    assert cli.main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def line_at(place):
    """The line of code that is named, without its decorators."""
    file, number = re.fullmatch(r"lcref/(.+):(\d+)", place).groups()
    lines = (PACKAGE / file).read_text().splitlines()[int(number) - 1:]
    return next(line for line in lines if not line.startswith("@"))


def function_at(place):
    """The name of what is defined at a place."""
    return re.match(r"(?:def|class) (\w+)\b", line_at(place))[1]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_projection_part_compression_and_step_is_explained_where_it_is(name):
    assert function_at(KNOWN[name]["place"]) == name.split(".")[1]


@pytest.mark.parametrize("name", PUBLIC)
def test_an_explanation_has_every_line_of_the_docstring_and_says_nothing_else(name):
    found, text = KNOWN[name], inspect.getdoc(PUBLIC[name])
    lines = set(explain._text(found).splitlines())
    headings = set(re.findall(r"^\w+(?=\n-+$)|^-+$", text, re.M))
    assert set(text.splitlines()) - headings <= lines
    added = lines - set(text.splitlines()) - {found["call"], found["tests"], *found["oracles"]}
    assert all(re.match(rf"-- |\w+, in {found['place']}$", line) for line in added), added


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.startswith("projections.")])
def test_of_a_projection_all_that_a_proof_needs_is_said(name):
    found, short = KNOWN[name], name.split(".")[1]
    assert found["problem"].lstrip().startswith("min over ") and "‖w − θ" in found["problem"]
    assert re.search("[Oo]ptimal|[Ee]xact|because", found["why"])
    assert re.search(r"unique|tie\b", found["why"] + found["Notes"])
    assert re.search(r"O\(", found["Notes"]) and re.search(r"arXiv|[12]\d{3}\b", found["Notes"])
    (oracle,) = found["oracles"]
    assert oracle.startswith("lcref/verify/oracles.py:")
    assert function_at(oracle.split(" ")[0]) == short == oracle.split(" ")[1].rstrip(":")


W = np.array([[0.9, -1.2], [5.0, 0.3]])
ARGUMENTS = {"binary": (), "codebook_l0": ([-1, 1], 1), "group_l0_ball": (1, 0), "kmeans": (2,),
             "kmeans_l0": (2, 1), "l0_ball": (2,), "l0_penalty": (1.0, 1.0), "l1_ball": (1.0,),
             "l1_penalty": (1.0, 1.0), "nearest": ([-1, 1],), "powers_of_two": (2,),
             "rank_ball": (1,), "rank_selection": (1.0, 1.0, "storage"), "round_to": ("float16",),
             "scaled_binary_l0": (1,), "scaled_codebook": ([-1, 1],), "ternary": ()}


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.startswith("projections.")])
def test_of_a_projection_the_part_and_the_status_are_said_that_it_returns(name):
    theta, said = PUBLIC[name](W, *ARGUMENTS[name.split(".")[1]]), KNOWN[name]["Returns"]
    assert type(theta).__name__ in said.splitlines()[0] and f'"{theta.status}"' in said


@pytest.mark.parametrize("name, oracles", [
    ("compressions.Quantize", {"kmeans", "nearest", "scaled_codebook"}),
    ("compressions.Ternary", {"ternary"}),
    ("compressions.LowRank", {"rank_ball", "rank_selection"}),
    ("compressions.Prune", {"l0_ball", "l1_ball", "l0_penalty", "l1_penalty", "group_l0_ball"}),
    ("compressions.Sum", {"codebook_l0", "scaled_binary_l0", "kmeans_l0"}),
    ("lc.c_step", {"c_step_is_optimal"}), ("lc.multipliers", {"multipliers"}),
    ("lc.iterate", {"reaches_the_constrained_optimum"}), ("parts.Codebook", set()),
    ("lc.direct_compression", {"starts_at_direct_compression"}),
    ("lsteps.LeastSquares", {"l_step_is_optimal"})])
def test_who_knows_the_optimum_or_judges_the_step_is_named_and_is_there(name, oracles):
    places = [oracle.split(" ")[0] for oracle in KNOWN[name]["oracles"]]
    assert {function_at(place) for place in places} == oracles and len(places) == len(oracles)
    assert {place.split(":")[0] for place in places} <= {
        "lcref/verify/loop.py" if name.startswith("l") else "lcref/verify/oracles.py"}


TESTS = {"projections": r"tests/projections/test_(quantize|prune|lowrank|joint)\.py",
         "compressions": r"tests/test_(compressions|composition)\.py",
         **{name: rf"tests/test_{name}\.py" for name in ("parts", "lc", "lsteps")}}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_file_of_the_tests_is_there_and_is_of_the_module(name):
    file, (module, short) = KNOWN[name]["tests"], name.split(".")
    text = (PACKAGE.parent / file).read_text()
    assert re.fullmatch(TESTS[module], file)
    assert short in text or short in ("Part", "Compression", "c_step")    # tested through others


@pytest.mark.parametrize("name", [
    name for name in PUBLIC if name.split(".")[1] not in (
        "Compression", "Task", "Schedule", "Diverged", "Part")])
def test_the_cost_is_said_of_all_that_computes(name):
    assert re.search(r"O\(|[Cc]ost|time|needs", KNOWN[name]["Notes"])


def test_of_a_part_the_bits_are_said_and_of_the_multipliers_the_formula():
    for name in ("Codebook", "Sparse", "LowRank", "Dense", "ByTensor", "Sum"):
        assert "bits" in KNOWN[f"parts.{name}"]["Notes"]
    assert KNOWN["lc.multipliers"]["problem"].strip() == "λ ← λ − μ (w − Δ(θ))"


@pytest.mark.parametrize("asked, names", [
    ("l0_ball", ["projections.l0_ball"]), ("L0Ball", ["projections.l0_ball"]),
    ("sum", ["parts.Sum", "compressions.Sum"]), ("parts.sum", ["parts.Sum"]),
    ("powersoftwo", ["projections.powers_of_two", "compressions.PowersOfTwo"]),
    ("quantize", ["compressions.Quantize"]), ("sgd", ["lsteps.SGD"]),
    ("prune", ["compressions.Prune"]), ("lowrank", ["parts.LowRank", "compressions.LowRank"]),
    ("each", ["compressions.Each"]), ("ternary", ["projections.ternary", "compressions.Ternary"])])
def test_a_name_is_found_as_users_write_it(capsys, asked, names):
    assert list(json.loads(printed(capsys, asked, "--json"))) == names
    text = printed(capsys, asked)
    assert text.startswith(KNOWN[names[0]]["call"])
    for name in names:
        assert KNOWN[name]["place"] in text and KNOWN[name]["summary"] in text


@pytest.mark.parametrize("arguments", [(), ("--list",)])
def test_without_a_name_all_are_listed_by_kind(capsys, arguments):
    text = printed(capsys, *arguments)
    kinds = {block.splitlines()[0]: re.findall(r"^  (\S+) +\S", block, re.M)
             for block in text.split("\n\n")}
    assert list(kinds) == ["projections", "sums solved exactly", "parts", "compressions", "steps"]
    assert kinds["sums solved exactly"] == [
        "projections.codebook_l0", "projections.kmeans_l0", "projections.scaled_binary_l0"]
    listed = [name for names in kinds.values() for name in names]
    assert len(listed) == len(set(listed)) and PUBLIC.keys() <= set(listed) == KNOWN.keys()
    assert list(json.loads(printed(capsys, *arguments, "--json"))) == listed


def test_json_is_one_object_of_the_explanations_by_full_name(capsys):
    found = json.loads(printed(capsys, "c_step", "--json"))
    assert list(found) == ["lc.c_step"] and found["lc.c_step"] == KNOWN["lc.c_step"]
    assert found["lc.c_step"]["problem"].strip() == "θ ← argmin over θ of ‖w − λ/μ − Δ(θ)‖²"


def test_a_name_and_the_list_of_all_are_not_asked_for_at_once(capsys):
    assert cli.main(["explain", "kmeans", "--list"]) == 2
    assert "--list: not allowed with argument NAME" in capsys.readouterr().err


def test_an_unknown_name_is_an_error_that_suggests_one(capsys):
    assert cli.main(["explain", "kmeens"]) == 2
    assert "nothing is called 'kmeens'; did you mean 'kmeans'?" in capsys.readouterr().err

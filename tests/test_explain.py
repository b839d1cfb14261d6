"""`lcref explain` says what the docstrings say, and where the code and its oracle are."""

import inspect
import json
import re
from pathlib import Path

import pytest

import lcref
from lcref import cli, compressions, lc, lsteps, parts, projections
from lcref.explain import explanations

PACKAGE = Path(lcref.__file__).parent
KNOWN = explanations()
PUBLIC = {**{f"projections.{name}": getattr(projections, name) for name in projections.__all__
             if inspect.isfunction(getattr(projections, name))},
          **{f"parts.{name}": thing for name, thing in vars(parts).items()
             if inspect.isclass(thing) and issubclass(thing, parts.Part)},
          **{f"compressions.{name}": getattr(compressions, name)
             for name in compressions.__all__},
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


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_projection_part_compression_and_step_is_explained_where_it_is(name):
    found, short = KNOWN[name], name.split(".")[1]
    assert re.match(rf"(def|class) {short}\b", line_at(found["place"]))
    text = inspect.getdoc(PUBLIC[name])
    for key in ("summary", "problem", "why", "Parameters", "Returns", "Raises", "Notes"):
        assert found.get(key, "") in text, key      # nothing is said in other words
    said = "".join(found.get(key, "") for key in ("summary", "problem", "why", "Notes"))
    left_out = re.sub(r"\n-+\n|\s|Parameters|Returns|Raises|Notes", "", text.replace(said, ""))
    assert len(said) > len(found["summary"]) or left_out, name


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.startswith("projections.")])
def test_of_a_projection_problem_solution_reason_cost_and_oracle_are_said(name):
    found, short = KNOWN[name], name.split(".")[1]
    assert found["problem"].lstrip().startswith("min over ") and "‖w − θ" in found["problem"]
    assert re.search("[Oo]ptimal|[Ee]xact|nearest", found["why"])
    assert re.search(r"O\(", found["Notes"])
    place, oracle = found["oracle"].split(" ", 1)
    assert line_at(place).startswith(f"def {short}(") and oracle.startswith(f"{short}: ")
    assert place.startswith("lcref/verify/oracles.py:")


def test_of_a_part_the_bits_are_said_and_of_the_multipliers_the_formula():
    for name in ("Codebook", "Sparse", "LowRank", "Dense", "ByTensor", "Sum"):
        assert "bits" in KNOWN[f"parts.{name}"]["Notes"]
    assert KNOWN["lc.multipliers"]["problem"].strip() == "λ ← λ − μ (w − Δ(θ))"


@pytest.mark.parametrize("asked, names", [
    ("l0_ball", ["projections.l0_ball"]), ("L0Ball", ["projections.l0_ball"]),
    ("sum", ["parts.Sum", "compressions.Sum"]), ("parts.sum", ["parts.Sum"]),
    ("powersoftwo", ["projections.powers_of_two", "compressions.PowersOfTwo"]),
    ("quantize", ["compressions.Quantize"]), ("sgd", ["lsteps.SGD"])])
def test_a_name_is_found_as_users_write_it(capsys, asked, names):
    assert [found["name"] for found in json.loads(printed(capsys, asked, "--json"))] == names
    text = printed(capsys, asked)
    assert text.startswith(KNOWN[names[0]]["call"])
    for name in names:
        assert KNOWN[name]["place"] in text and KNOWN[name]["summary"] in text


def test_without_a_name_all_are_listed_by_kind(capsys):
    text = printed(capsys)
    assert [line for line in text.splitlines() if line and not line.startswith(" ")] == [
        "projections", "parts", "compressions", "steps"]
    listed = re.findall(r"^  (\S+) ", text, re.M)
    assert len(listed) == len(set(listed)) and PUBLIC.keys() <= set(listed) == KNOWN.keys()
    assert [found["name"] for found in json.loads(printed(capsys, "--json"))] == listed


def test_an_unknown_name_is_an_error_that_suggests_one(capsys):
    assert cli.main(["explain", "kmeens"]) == 2
    assert "nothing is called 'kmeens'; did you mean 'kmeans'?" in capsys.readouterr().err

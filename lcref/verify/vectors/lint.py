"""Lint the files of vectors: schema, texts, flags, answers, optima and certificates."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from . import case_of, decode
from .certificates import complaint
from .flags import FLAGS, of_the_budget, of_the_codebook, of_the_weights
from .generate import PARAMETERS, text_of
from .judge import infeasible_sum, objective, verdict
from .sums import reduced

LEAST_CASES = 1700  # of all projections and sums
LEAST_RUNS = 40
HEX = re.compile(r"-?0x")


def lint(folder: Path) -> list[str]:
    """Everything that is wrong with the files of a folder, a line each."""
    problems: list[str] = []
    cases: Counter[str] = Counter()
    for kind in PARAMETERS:
        text = (folder / f"{kind}.json").read_text(encoding="utf-8")
        problems += [f"{kind}.json: {one}" for one in lint_text(kind, text)]
        cases[kind] = len(json.loads(text)["cases"])
    if cases.total() - cases["lc"] < LEAST_CASES or cases["lc"] < LEAST_RUNS:
        problems.append(f"only {cases.total() - cases['lc']} cases and {cases['lc']} runs")
    return problems


def lint_text(kind: str, text: str) -> list[str]:
    """Everything that is wrong with one file; its cases are looked at once their form is right."""
    document = json.loads(text)
    found = list(schema(document)) or list(of_the_file(kind, document, text))
    return found or list(of_the_cases(document))


def schema(document: dict[str, Any]) -> Iterator[str]:
    """What the schema says against a file."""
    from jsonschema import Draft202012Validator

    path = Path(__file__).parent / "schema.json"
    validator = Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))
    for error in validator.iter_errors(document):
        yield f"{error.json_path}: {error.message[:200]}"


def of_the_file(kind: str, document: dict[str, Any], text: str) -> Iterator[str]:
    """The head of a file, its form, its ids and its flags."""
    if text != text_of(document):
        yield "not in the canonical form; run fmt"
    if (document["kind"], document["parameters"]) != (kind, PARAMETERS[kind]):
        yield "another kind, or other parameters"
    ids = Counter(case["id"] for case in document["cases"])
    yield from (f"{name}: the id occurs {count} times" for name, count in ids.items() if count > 1)
    used = {flag for case in document["cases"] for flag in case["flags"]}
    for flag in sorted(used ^ document["flags"].keys()):
        yield f"flag {flag} is " + ("not explained" if flag in used else "explained, not used")
    for flag, words in document["flags"].items():
        if FLAGS.get(flag) != words:
            yield f"flag {flag} is explained in other words than in flags.py"
    for case in document["cases"]:
        yield from (f"{case['id']}: {value} is not canonical" for value in floats(case)
                    if float.fromhex(value).hex() != value)


def floats(value: Any) -> Iterator[str]:
    """All hex texts in a case."""
    if isinstance(value, str) and HEX.match(value):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from floats(inner)


def of_the_cases(document: dict[str, Any]) -> Iterator[str]:
    """Each case of a file that passed everything else."""
    kind = document["kind"]
    judge = {"lc": of_a_run, "sum": of_a_sum}.get(kind, of_a_projection)
    for fields in document["cases"]:
        case = case_of(document, fields)
        yield from (f"{case.id}: {message}" for message in judge(case) if message)


def of_a_projection(case):
    """The answer, the certificate, and the flags that inputs alone decide."""
    w, *parameters = case.arguments
    yield verdict(case, case.theta)
    yield complaint(case.kind, w, tuple(parameters), case.fields["certificate"],
                    Fraction(case.optimum), Fraction(case.tolerance))
    given = dict(zip(PARAMETERS[case.kind], parameters))
    holds = {**of_the_weights(case.kind, w), **of_the_budget(case.kind, w, given),
             **of_the_codebook(case.kind, w, given)}
    wrong = {flag for flag, true in holds.items() if bool(true) != (flag in case.flags)}
    yield wrong and f"flags {sorted(wrong)} do not fit the input"
    yield from of_uniqueness(case)


def of_uniqueness(case):
    """The flag of a tie, and an optimum of 0, which w alone attains."""
    if ("tie" in case.flags) != (case.unique is False):
        yield "unique and the flag tie contradict each other"
    w, penalised = case.arguments[0], "alpha" in case.fields
    if case.optimum == 0 == case.tolerance and not penalised and not np.array_equal(case.theta, w):
        yield "an optimum of 0 and another θ than w"


def of_a_sum(case):
    """Parts that add up, and an optimum or a bound."""
    w, text = case.arguments
    parts, fields = tuple(map(decode, case.fields["parts"])), case.fields
    yield verdict(case, parts) or infeasible_sum(text, case.theta, parts)
    if not np.array_equal(np.sum(parts, axis=0, dtype=w.dtype), case.theta):
        yield "the parts do not add up to theta"
    problem = reduced(text)
    if (case.optimum is None) != ("bound" in fields) or bool(problem) != (case.optimum is not None):
        yield "a sum has an optimum or a bound"
    elif problem:
        yield complaint(problem[0], w, problem[1], fields["certificate"],
                        Fraction(case.optimum), Fraction(case.tolerance))
    else:
        yield of_a_bound(case, objective("sum", w, case.theta))


def of_a_bound(case, value):
    """lower ≤ the objective, and upper is the least objective of a part alone."""
    bound = {name: decode(x) for name, x in case.fields["bound"].items() if name != "alone"}
    alone = map(float.fromhex, case.fields["bound"]["alone"])
    if bound["upper"] != min(alone):
        return "upper is not the better part alone"
    return None if Fraction(bound["lower"]) <= value + Fraction(
        case.tolerance) else "an objective under the lower bound"


def of_a_run(case):
    """The trace passes as an answer, and its multipliers and penalties follow from each other."""
    steps = [{name: decode(value) for name, value in step.items()}
             for step in case.fields["trace"]]
    yield verdict(case, steps)
    (mu0, a, count, penalty), lam = case.arguments[5:], np.zeros_like(case.arguments[2])
    if len(steps) != count:
        yield "a trace of another length than steps"
    for k, step in enumerate(steps):
        if step["mu"] != mu0 * a**k:
            yield f"mu of step {k} is not mu0·a^k"
        lam = lam - (penalty == "augmented") * step["mu"] * (step["w"] - step["theta"])
        if not np.allclose(step["lambda"], lam, rtol=0, atol=case.tolerance):
            yield f"lambda of step {k} does not follow from the steps before"
        off = np.linalg.norm(step["w"] - step["theta"]) / np.linalg.norm(step["w"])
        if abs(off - step["feasibility"]) > 1e-12:
            yield f"feasibility of step {k} is not ‖w − θ‖/‖w‖"

"""Write, format and lint the files of vectors.

    python -m lcref.verify.vectors.generate write [--out DIR]
    python -m lcref.verify.vectors.generate fmt [--out DIR]
    python -m lcref.verify.vectors.generate lint [--out DIR]

Inputs are drawn from seeds, optima are exact, answers come from the projections and are held to the
optima. The same files come out everywhere, but for the last bits of theta.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from . import encode, inputs, sums, traces
from .answers import corrected, optimum, solve
from .flags import FLAGS, flags_of

HERE = Path(__file__).parent
VERSION = 1

PARAMETERS = {
    "nearest": ["codebook"], "binary": ["scale"], "ternary": ["scale"], "powers_of_two": ["c"],
    "scaled_codebook": ["codebook"], "kmeans": ["k"], "l0_ball": ["kappa"], "l1_ball": ["radius"],
    "l0_penalty": ["alpha", "mu"], "l1_penalty": ["alpha", "mu"],
    "group_l0_ball": ["kappa", "axis"], "rank_ball": ["rank"],
    "rank_selection": ["alpha", "mu", "cost"], "round_to": ["dtype"],
    "codebook_l0": ["codebook", "kappa"], "scaled_binary_l0": ["kappa"],
    "kmeans_l0": ["k", "kappa"], "sum": ["compression"],
    "lc": ["X", "y", "w", "projection", "budget", "mu0", "a", "steps", "penalty"],
}
PROBLEMS = {
    "nearest": "min ‖w − θ‖² over θ_i ∈ C",
    "binary": "min ‖w − θ‖² over θ ∈ {−1, 1}ⁿ, or with scale over {−a, a}ⁿ, a ≥ 0 free",
    "ternary": "min ‖w − θ‖² over θ ∈ {−1, 0, 1}ⁿ, or with scale over {−a, 0, a}ⁿ, a ≥ 0 free",
    "powers_of_two": "min ‖w − θ‖² over θ_i ∈ {0, ±1, ±1/2, .., ±2⁻ᶜ}",
    "scaled_codebook": "min ‖w − θ‖² over θ ∈ a·Cⁿ, a ≥ 0 free",
    "kmeans": "min ‖w − θ‖² over θ with at most k distinct values",
    "l0_ball": "min ‖w − θ‖² over ‖θ‖₀ ≤ κ",
    "l1_ball": "min ‖w − θ‖² over ‖θ‖₁ ≤ r",
    "l0_penalty": "min ‖w − θ‖² + (2α/μ)‖θ‖₀",
    "l1_penalty": "min ‖w − θ‖² + (2α/μ)‖θ‖₁",
    "group_l0_ball": "min ‖w − θ‖² over θ with at most κ nonzero slices along the axis",
    "rank_ball": "min ‖w − θ‖² over rank(θ) ≤ r",
    "rank_selection": "min ‖w − θ‖² + (2α/μ)·r·(m + n) over r and rank(θ) ≤ r",
    "round_to": "min ‖w − θ‖² over θ_i representable in dtype; for intN over "
                "a·{−2ᴺ⁻¹, .., 2ᴺ⁻¹ − 1}, a ≥ 0 free",
    "codebook_l0": "min ‖w − q − s‖² over q_i ∈ C, ‖s‖₀ ≤ κ; θ = q + s",
    "scaled_binary_l0": "min ‖w − q − s‖² over q ∈ {−a, a}ⁿ, a ≥ 0 free, ‖s‖₀ ≤ κ; θ = q + s",
    "kmeans_l0": "min ‖w − q − s‖² over q with at most k distinct values, ‖s‖₀ ≤ κ; θ = q + s",
    "sum": "min ‖w − θ_1 − θ_2 ..‖² over the feasible sets of the parts that the text names",
    "lc": "the learning-compression algorithm on L(w) = ½‖Xw − y‖², step by step",
}


# ---- cases


def hexed(x: Fraction) -> str:
    """The hex text of the double nearest to x."""
    return float(x).hex()


def fields_of(kind: str, number: int, w: np.ndarray, parameters: tuple) -> dict[str, Any]:
    """One case of a projection."""
    found = optimum(kind, w, parameters)
    solved = solve(kind, w, parameters, found)
    found = corrected(found, w, parameters[0], solved.parts) if kind == "kmeans_l0" else found
    given = dict(zip(PARAMETERS[kind], parameters))
    flags = flags_of(kind, w, given, found, solved.tolerance)
    encoded = {name: encode(value) for name, value in given.items()}
    return {"id": f"{kind}-{number:04}", "w": encode(w), **encoded, "theta": encode(solved.theta),
            "optimum": hexed(found.optimum), "tolerance": hexed(solved.tolerance),
            "unique": found.unique, "certificate": found.certificate, "flags": flags}


def fields_of_sum(number: int, text: str, w: np.ndarray) -> dict[str, Any]:
    """One case of kind sum, with its parts."""
    found, solved, bound = sums.solved(text, w)
    limit = {} if bound is None else {"bound": {
        "upper": hexed(bound["upper"]), "lower": hexed(bound["lower"]),
        "alone": [hexed(value) for value in bound["alone"]]}}
    return {"id": f"sum-{number:04}", "w": encode(w), "compression": text,
            "theta": encode(solved.theta), "parts": [encode(part) for part in solved.parts],
            "optimum": None if bound else hexed(found.optimum), **limit,
            "tolerance": hexed(solved.tolerance), "unique": found.unique,
            "certificate": found.certificate, "flags": sums.flags(text, w, found, bool(bound))}


def fields_of_run(number: int, problem: traces.Problem, steps: list) -> dict[str, Any]:
    """One run of the algorithm."""
    trace = [traces.published(step) for step in steps[1:]]
    start = np.array([float(v) for v in steps[0].theta])
    margin = None if problem.projection == "l1_ball" else hexed(min(s.margin for s in steps))
    return {"id": f"lc-{number:04}",
            **{name: encode(value) for name, value in problem.arguments.items()},
            "start": encode(start),
            "trace": [{name: encode(value) for name, value in step.items()} for step in trace],
            "tolerance": traces.tolerance(trace).hex(), "margin": margin, "unique": True,
            "certificate": {"how": "rational"}, "flags": traces.flags(problem, steps)}


def distinct(given: Iterable[tuple]) -> Iterator[tuple]:
    """The inputs without repetitions."""
    seen = set()
    for one in given:
        key = json.dumps([encode(x) if not isinstance(x, tuple) else [*map(encode, x)]
                          for x in one])
        if key not in seen:
            seen.add(key)
            yield one


def mark_parameters(cases: list[dict[str, Any]], names: list[str]) -> None:
    """Flag the cases whose w occurs with other parameters and another optimum."""
    optima: dict[str, set] = {}
    for case in cases:
        optima.setdefault(json.dumps(case["w"]), set()).add(case["optimum"])
    order = list(FLAGS)
    for case in cases:
        if names and len(optima[json.dumps(case["w"])]) > 1:
            case["flags"] = sorted({*case["flags"], "parameter_matters"}, key=order.index)


def document(kind: str) -> dict[str, Any]:
    """The whole file of a kind."""
    if kind == "lc":
        cases = [fields_of_run(i, *run) for i, run in enumerate(traces.problems(), start=1)]
    elif kind == "sum":
        cases = [fields_of_sum(i, *one) for i, one in enumerate(distinct(sums.given()), start=1)]
    else:
        given = distinct(inputs.weights_and_parameters(kind))
        cases = [fields_of(kind, i, *one) for i, one in enumerate(given, start=1)]
        mark_parameters(cases, PARAMETERS[kind])
    used = {flag for case in cases for flag in case["flags"]}
    return {"format": "lcref-vectors", "version": VERSION, "kind": kind,
            "problem": PROBLEMS[kind], "parameters": PARAMETERS[kind],
            "flags": {flag: text for flag, text in FLAGS.items() if flag in used}, "cases": cases}


# ---- files


def text_of(document: dict[str, Any]) -> str:
    """The canonical form: a line for each field of the head, for each flag and for each case."""
    def line(value):
        return json.dumps(value, ensure_ascii=False)

    def block(brackets, lines):
        return brackets[0] + "\n" + ",\n".join(f"  {one}" for one in lines) + "\n" + brackets[1]

    forms = {"flags": lambda flags: block("{}", (f"{line(k)}: {line(v)}"
                                                 for k, v in flags.items())),
             "cases": lambda cases: block("[]", map(line, cases))}
    fields = (f"{line(name)}: {forms.get(name, line)(value)}" for name, value in document.items())
    return "{\n" + ",\n".join(fields) + "\n}\n"


def write(folder: Path) -> None:
    """Compute all files anew."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in PARAMETERS:
        made = document(kind)
        (folder / f"{kind}.json").write_text(text_of(made), encoding="utf-8")
        print(f"{kind}: {len(made['cases'])} cases", file=sys.stderr)


def fmt(folder: Path) -> None:
    """Put files that were edited by hand into the canonical form."""
    for kind in PARAMETERS:
        path = folder / f"{kind}.json"
        path.write_text(text_of(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lcref.verify.vectors.generate",
                                     description="Write, format or lint the test vectors.")
    parser.add_argument("command", choices=["write", "fmt", "lint"])
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR",
                        help="the folder of the files (default: the package's own)")
    options = parser.parse_args(argv)
    if options.command != "lint":
        {"write": write, "fmt": fmt}[options.command](options.out)
        return 0
    from .lint import lint

    problems = lint(options.out)
    print("\n".join(problems) or "nothing to complain of", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

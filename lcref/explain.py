"""`lcref explain`: what a projection, a part or a step solves, and why, in its own words.

All of it is read from the docstrings and the lines of the code; nothing is said here again.
"""

import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from . import projections
from .inputs import did_you_mean

__all__ = ["explanations", "run_explain"]

PACKAGE = Path(__file__).parent
MODULES = {"projections": "projection", "parts": "part", "compressions": "compression",
           "lc": "step", "lsteps": "step"}
KINDS = {"projection": "projections", "sum": "sums solved exactly", "part": "parts",
         "compression": "compressions", "step": "steps"}
JUDGES = {"c_step": "c_step_is_optimal", "multipliers": "multipliers",
          "direct_compression": "starts_at_direct_compression",
          "iterate": "reaches_the_constrained_optimum",
          "LeastSquares": "l_step_is_optimal"}      # of a step, in `verify.loop`
HEADING = re.compile(r"^(\w+)\n-+$", re.M)      # of a section of a docstring
TITLES = {"problem": "problem", "why": "solution, and why", "Returns": "answer, and guarantee",
          "Yields": "answer", "Parameters": "given", "Attributes": "holds", "Raises": "errors",
          "Notes": "cost, and source", "Examples": "for example"}


def explanations() -> dict[str, dict[str, Any]]:
    """What there is to explain, by its full name, such as "projections.l0_ball".

    Returns
    -------
    dict of dict
        Of each "kind" ("projection", "sum", "part", "compression" or "step"), "name", "call",
        "summary", "place" (the file and the line), and as far as the docstring has them "problem",
        "why", "Parameters", "Returns", "Raises" and "Notes"; "oracles", who knows the optimum or
        judges the step, each with its place; and "tests", the file of its tests.
    """
    found = [{"kind": "sum" if thing.__module__.endswith(".joint") else kind,
              "name": f"{module}.{name}", **_of(thing), "oracles": _oracles(kind, thing),
              "tests": _tests(module, thing)}
             for module, kind in MODULES.items() for name, thing in _public(module)]
    return {of["name"]: of for of in sorted(found, key=lambda of: [*KINDS].index(of["kind"]))}


def _public(module):
    """The names that a module offers, and what they are: functions and classes of its own."""
    found = import_module(f".{module}", __package__)
    names = getattr(found, "__all__", [n for n in vars(found) if not n.startswith("_")])
    things = {name: getattr(found, name) for name in names}
    kinds = (type,) if module == "parts" else (type, FunctionType)
    return [(name, thing) for name, thing in things.items() if isinstance(thing, kinds)
            and (hasattr(found, "__all__") or thing.__module__ == found.__name__)]


def _of(thing):
    """What the docstring of a function or a class says, by section, and where it is."""
    text = inspect.getdoc(thing) or ""
    first, *rest = HEADING.split(text)
    summary, *paragraphs = first.strip().split("\n\n")
    sections = dict(zip(rest[::2], (section.strip("\n") for section in rest[1::2])))
    problems = [p for p in paragraphs if p.startswith("    ")]
    said = [p for p in paragraphs if p not in problems[:1]]
    described = {"problem": "\n\n".join(problems[:1]), "why": "\n\n".join(said), **sections}
    return {"call": f"{thing.__name__}{_signature(thing)}", "summary": summary,
            "place": _place(thing), **{key: text for key, text in described.items() if text}}


def _signature(thing):
    """How it is called, without types."""
    parameters = inspect.signature(thing).parameters.values()
    return f"({', '.join(str(p.replace(annotation=p.empty)) for p in parameters)})"


def _place(thing):
    file = Path(inspect.getsourcefile(thing) or "")
    return f"{PACKAGE.name}/{file.relative_to(PACKAGE)}:{inspect.getsourcelines(thing)[1]}"


def _oracles(kind, thing):
    """Who knows the optimum of a projection, or of those that a compression names; who judges."""
    from .verify import loop, oracles
    named = {"projection": [thing.__name__], "compression": re.findall(
        r"`(?:lcref\.projections\.)?(\w+)`", thing.__doc__ or "")}.get(kind, [])
    known = [getattr(oracles, name) for name in named if name in projections.__all__]
    known += [getattr(loop, JUDGES[thing.__name__])] if thing.__name__ in JUDGES else []
    return [f"{_place(oracle)} {oracle.__name__}: {_of(oracle)['summary']}" for oracle in known]


def _tests(module, thing):
    """The file of the tests in the repository, which mirrors the package."""
    source = module if module == "lsteps" else Path(inspect.getsourcefile(thing) or "").stem
    return f"tests/{'projections/' * (module == 'projections')}test_{source}.py"


# ---- lcref explain


def run_explain(args) -> int:
    """lcref explain: print what is said of a name, or all names."""
    known = explanations()
    chosen = _named(args.name, known) if args.name else list(known)
    if args.json:
        print(json.dumps({name: known[name] for name in chosen}, indent=1, ensure_ascii=False))
    else:
        print("\n\n".join(_text(known[name]) for name in chosen) if args.name else _list(known))
    return 0


def _named(name, known):
    """The full names that a name fits: with or without the module, capitals or underscores."""
    def plain(text):
        return text.lower().replace("_", "")
    fits = [full for full in known if plain(name) in (plain(full), plain(full.split(".")[-1]))]
    if not fits:
        short = list(dict.fromkeys(full.split(".")[-1] for full in known))
        raise ValueError(f"nothing is called {name!r:.60}{did_you_mean(name, short)}")
    return fits


def _text(of):
    """An explanation for people."""
    lines = [of["call"], f"{of['kind']}, in {of['place']}", "", of["summary"]]
    for key, title in TITLES.items():
        if key in of:
            lines += ["", f"-- {title}", "", of[key]]
    return "\n".join([*lines, "", "-- oracles, and tests", "", *of["oracles"], of["tests"]])


def _list(known):
    """All names with their summaries, by kind."""
    width = max(len(name) for name in known)
    lines = []
    for kind, title in KINDS.items():
        lines += ["", title] + [f"  {name:{width}}  {of['summary'].splitlines()[0]}"
                                for name, of in known.items() if of["kind"] == kind]
    return "\n".join(lines[1:])

"""Run the properties of a kind against one implementation."""

import time
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from ..inputs import did_you_mean, whole
from .elsewhere import OnDevice
from .kinds import Kind, kind_of
from .properties import Property, Unseen, Violation, properties_of
from .report import EXPECTED, FAILED, NOT_CLAIMED, PASSED, SKIPPED, Report, Result, snippet
from .subject import Subject
from .targets import Function, Hang, Program, require_signature

ELSEWHERE = ("does_not_write_its_input",)  # cannot be seen in another process


def property_names(kind: str, claims: Collection[str] = (),
                   compression: str | None = None) -> tuple[str, ...]:
    """The names of the properties that a run executes, in order.

    Parameters
    ----------
    kind, claims, compression
        As of `check`.

    Returns
    -------
    tuple of str
    """
    known = properties_of(kind_of(kind, compression))
    claimed = _claimed(known, claims)
    return tuple(p.name for p in known if p.group != "optional" or p.name in claimed)


def _claimed(known, claims):
    optional = [p.name for p in known if p.group == "optional"]
    claims = [claims] if isinstance(claims, str) else list(claims)
    if claims == ["all"]:
        return optional
    _known(claims, optional, "claim")
    return claims


def _known(names, known, what):
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}{did_you_mean(name, known)}")


def check(fn: Callable | Program, kind: str, *, compression: str | None = None,
          max_examples: int = 100, claims: Collection[str] = (),
          expected_failures: dict[str, str] | None = None, time_limit: float = 10.0,
          properties: Collection[str] | None = None, stop_at_first: bool = False,
          name: str | None = None) -> Report:
    """Judge a function that claims to be one of the projections, a sum's C step or the loop.

    Parameters
    ----------
    fn : callable
        Takes w and the kind's parameters by position, plain NumPy arrays; returns Δ(θ).
    kind : str
        The name of a projection, "sum" or "lc".
    compression : str, optional
        The text of the sum, for kind "sum".
    max_examples : int
        Inputs tried for each property.
    claims : collection of str, or "all"
        Optional properties that the function claims to have.
    expected_failures : dict of property to reason
        Properties that are known to fail. One that passes is a failure.
    time_limit : float
        Seconds for one call of a function, which then has a thread; inf for no limit.
    properties : collection of str, optional
        Run only these; the report is ok when they hold.
    stop_at_first : bool
        Stop at the first failure, without looking for a smaller input.
    name : str, optional
        What the report calls the function.

    Returns
    -------
    Report
        With `ok` and `results`, each with `name`, `status`, `message` and `counterexample`.

    Raises
    ------
    TypeError
        fn is not callable, or cannot take the arguments.
    ValueError
        An unknown kind, property or claim.
    """
    what, expected = kind_of(kind, compression), dict(expected_failures or {})
    known = properties_of(what)
    claimed = _claimed(known, claims)
    every = [p.name for p in known]
    _known(expected, every, "expected failure")
    _known(properties or (), every, "property")
    chosen = [p for p in known if (p.name in properties if properties else
                                   p.group != "optional" or p.name in claimed)]
    subject = _subject(fn, what, time_limit)
    run = _Run(subject, whole(max_examples, "max_examples", least=1), stop_at_first,
               _call(fn, what), expected)
    results = [run(p) if p in chosen else Result(p.name, NOT_CLAIMED, says=p.says, group=p.group)
               for p in known if p in chosen or not properties]
    seen = {r.name for r in results if r.status != NOT_CLAIMED}
    required = [p.name for p in chosen if p.name in seen]
    return Report(kind, name or _how(fn)[1], tuple(results), tuple(required), compression,
                  run.diagnosis())


def _subject(fn, kind, seconds):
    """The thing under test behind one way of calling it."""
    count = len(kind.parameters) + 1
    if isinstance(fn, Program):
        return Subject(fn, kind, count)
    if not callable(fn):
        raise TypeError(f"the thing to check, fn, must be a function, not {fn!r}")
    names = ("X" if kind.name == "lc" else "w", *kind.parameters)
    counts = tuple(range(count, count - kind.optional - 1, -1))
    return Subject(Function(fn, seconds), kind, require_signature(fn, counts, names))


def _how(fn):
    """(the line that imports the function, its name)."""
    if isinstance(fn, Program):
        return "from lcref.verify import of_program", fn.command
    module, path = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not module or not path or "<" in path or module == "__main__":
        return "", path if path and "<" not in path else getattr(fn, "__name__", "fn")
    first = path.partition(".")[0]
    return f"from {module} import {first}", path


def _call(fn, kind):
    """(the line before a call, the thing called) as code that runs when pasted."""
    line, name = _how(fn)
    if isinstance(fn, OnDevice):
        start = f"from lcref.verify import on_device\nanswer = on_device({name}, {fn.place.name!r})"
        return f"{line}\n{start}", "answer"
    if not isinstance(fn, Program):
        return line, name
    sum_of = f", {kind.compression!r}" if kind.compression else ""
    start = f"program = of_program({fn.command!r}, {kind.name!r}{sum_of})"
    return f"{line}\n{start}\ndef answer(*given):\n    return program(given).value", "answer"


class _Run:
    """One run: the properties one after another, until the function hangs."""

    def __init__(self, subject, max_examples, stop_at_first, how, expected):
        self.subject, self.max_examples, self.how = subject, max_examples, how
        self.stop_at_first, self.expected = stop_at_first, expected
        self.stopped, self.wrong, self.unseen = "", [], ""

    def out_of_sight(self, p):
        return isinstance(self.subject.target, Program) and p.name in ELSEWHERE

    def __call__(self, p: Property) -> Result:
        if self.out_of_sight(p):
            return Result(p.name, NOT_CLAIMED, "another process cannot write to its input",
                          says=p.says, group=p.group)
        if self.stopped:
            return Result(p.name, SKIPPED, f"not run: {self.stopped}", says=p.says, group=p.group)
        clock = time.perf_counter()
        self.unseen = ""
        found, examples = self.search(p)
        status, message, code = self.verdict(p, found, examples)
        if status == FAILED and self.stop_at_first:
            self.stopped = f"{p.name} failed"
        return Result(p.name, status, message, code, p.says, p.group, examples,
                      time.perf_counter() - clock)

    def settings(self):
        """Hypothesis settings by which a run repeats, and keeps no files."""
        from hypothesis import HealthCheck, Phase, settings

        return settings(max_examples=self.max_examples, database=None, deadline=None,
                        phases=[Phase.generate] + [Phase.shrink] * (not self.stop_at_first),
                        derandomize=True, report_multiple_bugs=False, print_blob=False,
                        suppress_health_check=list(HealthCheck))

    def search(self, p):
        """((violation, arguments) of the smallest input found, or None; how many were tried)."""
        from hypothesis import given
        from hypothesis.errors import Flaky, Unsatisfiable

        last: list[Any] = [None]
        tried = [0]

        @self.settings()
        @given(p.cases(self.subject.kind))
        def holds(arguments):
            tried[0] += last[0] is None
            try:
                p.holds(self.subject, arguments)
            except Violation as violation:
                last[0] = violation, arguments
                raise
            except Hang as hang:
                last[0] = Violation(str(hang)), arguments
                self.stopped = str(hang)
                raise

        try:
            with np.errstate(all="ignore"):
                holds()
        except Unseen as reason:
            self.unseen = str(reason)
        except (Violation, Hang, Flaky, Unsatisfiable, ExceptionGroup):
            pass
        return last[0], tried[0]

    def verdict(self, p, found, examples):
        """(status, message, counterexample) of one property."""
        expected = self.expected.get(p.name)
        if self.unseen:
            return NOT_CLAIMED, self.unseen, ""
        if found is None and not examples:
            return SKIPPED, "no input was tried", ""
        if found is None:
            return (PASSED, "", "") if expected is None else (
                FAILED, f"passed, but was expected to fail ({expected}): take it out of the "
                        "expected failures", "")
        violation, arguments = found
        names = ("X" if self.subject.kind.name == "lc" else "w", *self.subject.kind.parameters)
        code = snippet(self.how, names, arguments[: self.subject.count], violation.returned,
                       violation.optimum)
        if expected is not None:
            return EXPECTED, f"{violation} (expected: {expected})", code
        if p.name not in ("prints_nothing", "does_not_write_its_input", "rejects_nan",
                          "argument_checks"):  # those that look at the answer
            self.wrong.append(arguments)
        return FAILED, str(violation), code

    def diagnosis(self):
        """The mistake whose answers are those that were seen, in words; "" where none fits."""
        from .diagnosis import probable

        return probable(self.subject.kind, self.subject.calls, self.wrong)


def of_program(program: str, kind: str, compression: str | None = None,
               time_limit: float = 10.0) -> Program:
    """A program in another language as a thing to check: pass it to `check` with the same kind.

    Parameters
    ----------
    program : str
        The command that starts it.
    kind, compression, time_limit
        As of `check`.

    Returns
    -------
    Program
        A function of NumPy arrays; `with` ends the program.
    """
    what: Kind = kind_of(kind, compression)
    names = ("X" if kind == "lc" else "w", *what.parameters)
    return Program(program, kind, names, compression, time_limit)

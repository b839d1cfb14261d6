"""What must hold of an implementation, one property a line of the report.

An answer is judged by its objective and its feasibility, never by equality with another answer:
where the optimum is not unique every optimal answer passes.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from .cases import (at_size, empty, feasible_points, fixed_budget, n_dimensional, scaled_by,
                    special, ties, usual, with_nan, wrong_arguments)


class Violation(AssertionError):
    """A property does not hold: in words a user can act on, with the two numbers, if any."""

    def __init__(self, message, returned=None, optimum=None):
        super().__init__(message)
        self.returned, self.optimum = returned, optimum


class Unseen(Exception):
    """A property cannot be judged from what was returned, for the reason given."""


@dataclass(frozen=True)
class Property:
    """One thing that must hold, and the inputs on which it is tried.

    `cases(kind)` is a Hypothesis strategy of tuples of positional arguments, w first, and
    `holds(subject, arguments)` raises a Violation where it does not hold. `group` is "required",
    "derived" or "optional".
    """

    name: str
    says: str
    cases: Callable[[Any], Any]
    holds: Callable[[Any, tuple], None]
    group: str = "required"


def number(value):
    """A Fraction as a float, infinite beyond the range."""
    try:
        return float(value)
    except OverflowError:
        return np.inf


# ---- judging one answer


def feasible(subject, arguments):
    """The answer, which must be in the feasible set."""
    answer, (w, *budget) = subject.judged(*arguments), arguments
    why = subject.kind.infeasible(w, answer.theta, tuple(budget), answer.parts)
    if why:
        raise Violation(f"the answer is not feasible: {why}", answer.theta)
    return answer


def measured(subject, arguments):
    """(objective, slack) of the answer, which must be feasible."""
    answer, (w, *budget) = feasible(subject, arguments), arguments
    exact = replace_parts(answer, w)
    return (subject.kind.value(w, exact, tuple(budget)),
            subject.kind.slack(w, answer.theta, tuple(budget), answer.parts), answer)


def replace_parts(answer, w):
    """The answer as it is summed in double precision, so that rounding of the sum is not judged."""
    if not answer.parts:
        return answer.theta
    return sum(part.astype(np.float64) for part in answer.parts)


def least(kind, arguments):
    """A number that no feasible point undercuts, and how it is known."""
    w, *budget = arguments
    if w.size <= kind.small and kind.optimum:
        return kind.optimum(w, *budget), "by exhaustive search"
    part = kind.projected(w, *budget)
    theta = part.decompress()
    value, slack = (of(w, theta, tuple(budget)) for of in (kind.value, kind.slack))
    return value - Fraction(part.gap), f"as certified by lcref, up to {number(slack):.1e}"


def optimal(subject, arguments):
    """The answer's objective may exceed the optimum by rounding alone."""
    value, slack, answer = measured(subject, arguments)
    best, how = least(subject.kind, arguments)
    if value > best + slack:
        share = number(value / best - 1) if best > 0 else 0.0
        over = f", {share:.3%} above" if 1e-4 < share < 100 else ""
        raise Violation(f"not optimal: the objective is {number(value)!r}, the optimum is "
                        f"{number(best)!r} ({how}){over}; rounding explains {number(slack):.1e}",
                        answer.theta, number(best))


# ---- required


def keeps_shape_and_dtype(subject, arguments):
    """θ.shape = w.shape and θ.dtype = w.dtype."""
    answer, w = subject(*arguments), arguments[0]
    if answer.theta.shape != w.shape:
        raise Violation(f"returned shape {answer.theta.shape}, w has {w.shape}", answer.theta)
    if answer.theta.dtype != w.dtype:
        raise Violation(f"returned {answer.theta.dtype}, w is {w.dtype}", answer.theta)


def bits(x):
    """The bytes of an array, so that equal means equal bit for bit; anything else as it is."""
    return (x.shape, x.dtype.str, x.tobytes()) if isinstance(x, np.ndarray) else x


def does_not_write_its_input(subject, arguments):
    """The arguments are the same to the last bit after the call."""
    with contextlib.suppress(Violation):  # what it returned is judged elsewhere
        subject(*arguments)
    for i, (before, after) in enumerate(zip(arguments, subject.given)):
        if bits(before) != bits(after):
            name = "w" if subject.kind.name != "lc" and i == 0 else f"argument {i + 1}"
            raise Violation(f"wrote to its input: {name} was {before!r} and is {after!r} after the "
                            "call; work on a copy", after)


@cache
def blas():
    """The BLAS libraries, looked up once."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def content(answer):
    """The bits of an answer, to compare two of them."""
    if answer.theta is not None:
        return bits(answer.theta)
    from .loop_steps import trace

    return [[bits(x) for x in step] for step in trace(answer.raw)]


def deterministic(subject, arguments):
    """Two calls agree bit for bit, and one BLAS thread and two in the objective."""
    first, second = subject(*arguments), subject(*arguments)
    if content(first) != content(second):
        raise Violation("two calls with the same arguments gave different answers: "
                        "a random or a kept state", second.theta)
    if subject.kind.name in ("lc", "sum") or first.theta.shape != arguments[0].shape:
        return
    try:
        with blas().limit(limits=2):
            value, slack, _ = measured(subject, arguments)
        with blas().limit(limits=1):
            other, more, answer = measured(subject, arguments)
    except Violation:
        return  # not feasible, which is judged elsewhere
    if abs(value - other) > slack + more:
        raise Violation("the objective depends on the number of BLAS threads: "
                        f"{number(other)!r} with one, {number(value)!r} with two", answer.theta)


def prints_nothing(subject, arguments):
    """Nothing goes to sys.stdout."""
    printed = subject(*arguments).printed
    if printed:
        raise Violation(f"wrote to standard output: {printed[:60]!r}; print to standard error")


# ---- derived: facts about objectives, which hold on inputs too large to search


def _same_objective(subject, arguments, others, factor=1, what=""):
    value, slack, _ = measured(subject, arguments)
    other, more, answer = measured(subject, others)
    if abs(value * factor - other) > max(slack * factor, more):
        raise Violation(f"{what} changes the objective from {number(value * factor)!r} to "
                        f"{number(other)!r}, which it must not: one of the two is not optimal",
                        answer.theta)


def permutation(subject, arguments):
    """The least ‖w − θ‖² is that of the permuted w; of a matrix by rows and columns."""
    w, *budget = arguments
    moved, rng = w, np.random.default_rng(0)
    for axis in range(w.ndim):
        moved = np.take(moved, rng.permutation(w.shape[axis]), axis=axis)
    _same_objective(subject, arguments, (moved, *budget), what="another order of the weights")


def signs(subject, arguments):
    """The least ‖w − θ‖² is that of w with some signs changed."""
    w, *budget = arguments
    flips = {"all": lambda: -np.ones_like(w),
             "lines": lambda: np.where(np.arange(w.shape[0]) % 2, -1.0, 1.0)[:, None],
             "each": lambda: np.where(np.arange(w.size) % 3 == 1, -1.0, 1.0).reshape(w.shape),
             }[subject.kind.signs]()
    _same_objective(subject, arguments, (w * flips, *budget), what="a change of signs")


def scaling(subject, arguments):
    """The least ‖4w − θ‖² is 16 times that of w, with the parameters for 4w."""
    w, *budget = arguments
    _same_objective(subject, arguments, (4 * w, *subject.kind.stretch(tuple(budget), 4.0)), 16,
                    "w times 4, up to the factor of 16,")


def monotone(subject, arguments):
    """A larger feasible set has no larger least ‖w − θ‖²."""
    w, *budget = arguments
    value, _, _ = measured(subject, arguments)
    looser, slack, answer = measured(subject, (w, *subject.kind.larger(tuple(budget))))
    if looser > value + slack:
        raise Violation(f"a larger budget raises the objective from {number(value)!r} to "
                        f"{number(looser)!r}", answer.theta)


def idempotent(subject, arguments):
    """Π(Π(w)) is as near to Π(w) as rounding allows."""
    w, *budget = arguments
    theta = feasible(subject, arguments).theta.astype(w.dtype)
    again, slack, answer = measured(subject, (theta, *budget))
    if again > slack:
        raise Violation("the projection of its own answer is another point: the squared distance "
                        f"is {number(again):.3g}, rounding explains {number(slack):.1e}",
                        answer.theta)


# ---- optional


def refuses(what):
    """An exception must be raised."""
    def holds(subject, arguments):
        try:
            answer = subject(*arguments)
        except Violation as violation:
            if isinstance(violation.__cause__, Exception):
                return
            raise
        raise Violation(f"accepted {what} without an error", answer.theta)
    return holds


def shaped_optimum(subject, arguments):
    """Of w's shape and dtype, and optimal."""
    keeps_shape_and_dtype(subject, arguments)
    optimal(subject, arguments)


PROPERTIES = (
    Property("feasible", "the answer is in the feasible set", usual(30), feasible),
    Property("optimal", "no feasible point is nearer, by exhaustive search", usual(), optimal),
    Property("optimal_at_size", "nor for up to 200 weights, by certificate", at_size, optimal),
    Property("keeps_shape_and_dtype", "the answer has w's shape and dtype", usual(30),
             keeps_shape_and_dtype),
    Property("does_not_write_its_input", "the arguments are left as they were", usual(30),
             does_not_write_its_input),
    Property("deterministic", "the same arguments give the same answer", usual(30), deterministic),
    Property("prints_nothing", "nothing is written to standard output", usual(), prints_nothing),
    Property("zero_budget", "right where only 0 is feasible", fixed_budget("zero"), optimal),
    Property("full_budget", "right where w itself is feasible", fixed_budget("full"), optimal),
    Property("zeros", "right for zeros of both signs",
             special(lambda w: np.copysign(np.zeros_like(w), w)), optimal),
    Property("ties", "right where magnitudes tie, or lie halfway", ties, optimal),
    Property("one_element", "right for a single weight",
             special(lambda w: w.ravel()[:1].reshape((1,) * w.ndim)), optimal),
    Property("feasible_input", "a feasible w is left in place", feasible_points, optimal),
    Property("offset_1e8", "right for weights near 1e8", special(lambda w: w + 1e8), optimal),
    Property("permutation", "the order of the weights does not matter", at_size, permutation,
             "derived"),
    Property("signs", "the signs of the weights do not matter", at_size, signs, "derived"),
    Property("scaling", "the objective scales with the square", at_size, scaling, "derived"),
    Property("monotone", "a larger budget never costs more", at_size, monotone, "derived"),
    Property("idempotent", "projecting an answer leaves it in place", at_size, idempotent,
             "derived"),
    Property("rejects_nan", "a NaN or an infinity is an error", with_nan,
             refuses("a NaN or an infinity"), "optional"),
    Property("empty", "an empty w gives an empty answer", empty, shaped_optimum, "optional"),
    Property("subnormals", "right for subnormal weights", scaled_by(5e-324, 2.0**-1060), optimal,
             "optional"),
    Property("extreme_magnitudes", "right at 1e-160 and 1e306", scaled_by(1e-160, 2.0**1000),
             optimal, "optional"),
    Property("argument_checks", "an invalid parameter is an error", wrong_arguments,
             refuses("an invalid parameter"), "optional"),
    Property("float32", "right and in single precision for float32",
             usual(dtypes=(np.float32,)), shaped_optimum, "optional"),
    Property("n_dimensional", "right for other numbers of axes", n_dimensional, shaped_optimum,
             "optional"),
)


def applies(name, kind):
    """Whether a property is one of a kind's."""
    if name in ("zero_budget", "full_budget"):
        return getattr(kind, name.removesuffix("_budget")) is not None
    has = {"signs": bool(kind.signs), "scaling": kind.stretch is not None,
           "monotone": kind.larger is not None, "idempotent": not kind.penalised,
           "feasible_input": not kind.penalised, "argument_checks": bool(kind.wrong),
           "n_dimensional": not kind.name.startswith("rank"),
           "subnormals": kind.name != "rank_ball"}  # rounded to few values, no product has low rank
    return has.get(name, True)


def properties_of(kind) -> tuple[Property, ...]:
    """All properties of a kind, the optional ones too."""
    if kind.name == "lc":
        from .loop import PROPERTIES as LOOP

        generic = ("does_not_write_its_input", "deterministic", "prints_nothing")
        return (*LOOP, *(replace(p, cases=LOOP[0].cases) for p in PROPERTIES if p.name in generic))
    if kind.name == "sum":
        from .sums import of_sum

        return of_sum(kind, PROPERTIES)
    return tuple(p for p in PROPERTIES if applies(p.name, kind))

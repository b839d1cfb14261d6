"""What must hold of a function that claims to be the C step of a sum.

Optimality is required where the text says solver='exact', and can be claimed otherwise; an
alternation is judged by what it promises: every half-step descends, and it stops where none gains.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from .. import compressions
from ..text import parse
from ..tolerance import sum_slack
from .cases import usual
from .kinds import KINDS
from .properties import (Property, Unseen, Violation, feasible, keeps_shape_and_dtype, measured,
                         number)
from .sets import terms_of

GAIN = 0.01  # a share of the objective that no half-step from the answer may gain


def alone(kind, w):
    """The objective of each part by itself, of those beside which 0 is feasible for the others."""
    terms, parts = terms_of(kind.compression), kind.terms(w)
    zero = np.zeros_like(w)
    holds_zero = [not KINDS[name].infeasible(w, zero, given) for name, given in parts]
    found = []
    for i, term in enumerate(terms):
        if all(holds_zero[:i] + holds_zero[i + 1:]):
            theta = term.project(w).decompress()
            found.append((kind.value(w, theta, ()), kind.slack(w, theta, ())))
    return found


def no_half_step_rises(subject, arguments):
    """The first half-step leaves one part alone, so the answer is no worse than the worst of them.

    Where the answer has a trace, the objective after every half-step, that is looked at as well.
    """
    value, slack, answer = measured(subject, arguments)
    given = getattr(answer.raw, "trace", ())  # of an array that is a method
    trace = [] if callable(given) else [x for x in given if np.isfinite(x)]
    w = arguments[0]
    off = sum_slack(w, answer.parts or [answer.theta], max([0.0, *trace]), 1.0)
    for i, (before, after) in enumerate(zip(trace, trace[1:]), 1):
        if after > before + off:
            raise Violation(f"half-step {i} raised the objective from {before!r} to {after!r}",
                            answer.theta)
    if trace and value > Fraction(min(trace)) + slack + Fraction(off):
        raise Violation(f"the objective {number(value)!r} is above the least of the trace, "
                        f"{min(trace)!r}: another point than the last is returned", answer.theta)
    single = alone(subject.kind, w)
    if single and value > max(single)[0] + max(slack, max(single)[1]):
        raise Violation(f"the objective {number(value)!r} is above that of every part alone, at "
                        f"most {number(max(single)[0])!r}: since the first half-step, which leaves "
                        "one part alone, it has risen; each part must project w minus the others",
                        answer.theta, number(max(single)[0]))


def no_worse_than_a_part(subject, arguments):
    value, slack, answer = measured(subject, arguments)
    single = alone(subject.kind, arguments[0])
    if single and value > min(single)[0] + max(slack, min(single)[1]):
        raise Violation(f"the objective {number(value)!r} is above that of one part alone, "
                        f"{number(min(single)[0])!r}", answer.theta, number(min(single)[0]))


def stationary(subject, arguments):
    """No part, projected anew, lowers the objective by more than a hundredth."""
    value, slack, answer = measured(subject, arguments)
    w = arguments[0]
    if not answer.parts:
        raise Unseen("return the parts, a tuple of arrays, to have this judged")
    for i, term in enumerate(terms_of(subject.kind.compression)):
        others = sum((part for j, part in enumerate(answer.parts) if j != i), 0 * w)
        total = others + term.project(w - others).decompress()
        better = subject.kind.value(w, total, ())
        if value - better > Fraction(GAIN) * value + slack + subject.kind.slack(w, total, ()):
            raise Violation(f"not stationary: part {i + 1}, projected anew on what the others "
                            f"leave of w, lowers the objective from {number(value)!r} to "
                            f"{number(better)!r}", answer.theta, number(better))


def optimal(subject, arguments):
    """The objective may exceed that of lcref's exact or certified sum by its gap and rounding."""
    value, slack, answer = measured(subject, arguments)
    w = arguments[0]
    part = exactly(subject.kind.compression).project(w)
    theta = part.decompress()
    best = subject.kind.value(w, theta, ()) + Fraction(part.gap)
    if value > best + slack + subject.kind.slack(w, theta, ()):
        raise Violation(f"not optimal: the objective is {number(value)!r}, a feasible sum has "
                        f"{number(best)!r}", answer.theta, number(best))


def shaped(subject, arguments):
    """Of w's shape and dtype, and feasible."""
    keeps_shape_and_dtype(subject, arguments)
    feasible(subject, arguments)


def exactly(text):
    """The sum with the solver of its own, by which its optimum is known; None where it has none."""
    try:
        return compressions.Sum(*terms_of(text), solver="exact")
    except ValueError:
        return None


def single_part(subject, arguments):
    """Where the other parts have no budget the sum is the projection of the one that is left."""
    single = min(alone(subject.kind, arguments[0]))
    value, slack, answer = measured(subject, arguments)
    if value > single[0] + max(slack, single[1]):
        raise Violation("with nothing to spend for the other parts the answer must be the one "
                        f"part's projection: its objective is {number(single[0])!r}, this one "
                        f"{number(value)!r}", answer.theta, number(single[0]))


def lives(kind):
    """How many parts of the text have something to spend."""
    return sum(not term.vanishes(np.zeros((2, 2))) for term in terms_of(kind.compression))


FROM_EVERY_KIND = {  # of the properties of every kind, and how they are judged of a sum
    "feasible": feasible, "keeps_shape_and_dtype": None, "does_not_write_its_input": None,
    "deterministic": None, "prints_nothing": None, "zeros": feasible, "ties": feasible,
    "one_element": feasible, "offset_1e8": feasible, "rejects_nan": None, "empty": shaped,
    "float32": shaped,
}


def of_sum(kind, generic):
    """The properties of a sum: those of every kind that apply, and its own."""
    own = [replace(p, holds=FROM_EVERY_KIND[p.name] or p.holds) for p in generic
           if p.name in FROM_EVERY_KIND]
    exact = getattr(parse(kind.compression), "solver") == "exact"
    own += [
        Property("no_half_step_rises", "no half-step raises the objective", usual(20),
                 no_half_step_rises),
        Property("stationary", "no part, projected anew, gains a hundredth", usual(20), stationary,
                 "derived"),
    ]
    if exactly(kind.compression):
        own.append(Property("optimal", "no feasible sum is nearer, by certificate", usual(20),
                            optimal, "required" if exact else "optional"))
    if exact:
        own.append(Property("no_worse_than_a_part", "never worse than a part alone", usual(20),
                            no_worse_than_a_part))
    if lives(kind) == 1:
        own.append(Property("single_part", "the projection of the only part that has a budget",
                            usual(20), single_part))
    return tuple(own)

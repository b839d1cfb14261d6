"""The thing under test, called with copies of its arguments, and how its answers are read."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .kinds import Kind
from .properties import Violation


@dataclass(frozen=True)
class Answer:
    """What one call returned: the raw value, Δ(θ) as one array, and its parts where it has any."""

    raw: Any
    theta: Any  # an array; None of kind lc
    parts: tuple[np.ndarray, ...]
    printed: str


def read(raw: Any, w: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """(Δ(θ), its parts) of an array, an lcref part, or a tuple of arrays; else a Violation."""
    if raw is None:
        raise Violation("returned None: the result must be returned, not only written in place")
    many = getattr(raw, "parts", raw)
    if isinstance(many, (tuple, list)) and many and not isinstance(many[0], (int, float, list)):
        parts = tuple(read(part, w)[0] for part in many)
        if any(part.shape != w.shape for part in parts):
            raise Violation(f"the parts have shapes {[part.shape for part in parts]}, w has "
                            f"{w.shape}", raw)
        return sum(parts[1:], start=parts[0]), parts
    if hasattr(raw, "decompress"):
        raw = raw.decompress()
    if hasattr(raw, "mask"):
        raise Violation("returned a masked array", raw)
    if getattr(raw, "dtype", None) == np.longdouble != np.float64:
        raise Violation(f"returned the dtype {raw.dtype}, w has {w.dtype}", raw)
    if not isinstance(raw, (np.ndarray, np.generic)):
        raise Violation(f"returned a {type(raw).__name__}, not a NumPy array", raw)
    theta = np.asarray(raw)
    if theta.dtype.kind not in "fiu":
        raise Violation(f"returned an array of {theta.dtype}, not of real numbers", raw)
    return theta, ()


@dataclass
class Subject:
    """A function of one kind under test.

    `target(arguments)` returns a Call with the value and what was printed. Every call is kept in
    `calls`, with its arguments, so that the probable mistake can be looked for.
    """

    target: Any
    kind: Kind
    count: int  # how many arguments it takes
    calls: list = field(default_factory=list)
    given: tuple = ()  # the arguments of the last call, as it left them

    def __call__(self, *arguments) -> Answer:
        """Call the thing with copies of the arguments; an exception it raises is a Violation."""
        self.given = tuple(x.copy() if isinstance(x, np.ndarray) else x for x in arguments)
        try:
            call = self.target(self.given[: self.count])
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"raised {type(error).__name__} on valid input: {error}") from error
        if self.kind.name == "lc":
            return Answer(call.value, None, (), call.printed)
        theta, parts = read(call.value, arguments[0])
        self.calls.append((arguments, theta))
        return Answer(call.value, theta, parts, call.printed)

    def judged(self, *arguments) -> Answer:
        """An answer in w's shape, finite."""
        answer, w = self(*arguments), arguments[0]
        if answer.theta.shape != w.shape:
            raise Violation(f"returned shape {answer.theta.shape}, w has {w.shape}", answer.theta)
        if not np.all(np.isfinite(answer.theta)):
            raise Violation("returned a NaN or an infinity for finite weights", answer.theta)
        return answer

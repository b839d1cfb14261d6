"""The report of a verification: a line a property, and for a failure the input that shows it."""

import json
import textwrap
from dataclasses import asdict, dataclass

import numpy as np

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
NOT_CLAIMED, EXPECTED = "not claimed", "expected failure"


@dataclass(frozen=True)
class Result:
    """One property: its status, and for a failure what is wrong and code that shows it.

    Attributes
    ----------
    name : str
    status : str
        "passed", "failed", "skipped", "not claimed" or "expected failure".
    message, counterexample : str
        What is wrong, and code that shows it; "" where nothing is.
    says : str
        What the property asks for.
    group : str
        "required", "derived" or "optional".
    examples : int
        How many were tried.
    seconds : float
    """

    name: str
    status: str
    message: str = ""
    counterexample: str = ""
    says: str = ""
    group: str = "required"
    examples: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """What `check` found. `ok` is whether everything that the kind requires ran and holds.

    Attributes
    ----------
    kind, target : str
        What was asked for, and what was judged.
    results : tuple of Result
        One for every property.
    required : tuple of str
        The names of the properties that must run and hold.
    compression : str or None
        Of kind "sum".
    diagnosis : str
        The probable mistake in words, "" where none fits.
    """

    kind: str
    target: str
    results: tuple[Result, ...]
    required: tuple[str, ...]
    compression: str | None = None
    diagnosis: str = ""

    @property
    def ok(self) -> bool:
        ran = {r.name for r in self.results if r.status in (PASSED, EXPECTED)}
        return bool(ran) and set(self.required) <= ran and not self.failures

    @property
    def failures(self) -> list[Result]:
        return [r for r in self.results if r.status in (FAILED, SKIPPED)]

    def __bool__(self):
        return self.ok

    def as_dict(self) -> dict:
        """The report as plain data, for JSON."""
        return {"kind": self.kind, "target": self.target, "compression": self.compression,
                "ok": self.ok, "required": list(self.required), "diagnosis": self.diagnosis,
                "results": [asdict(r) for r in self.results]}

    def json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False)

    def __str__(self):
        what = f"{self.kind} {self.compression!r}" if self.compression else self.kind
        lines = [f"{self.target} as {what}", ""]
        width = max(len(r.name) for r in self.results)
        for r in self.results:
            ran = f"{r.examples} inputs" if r.examples else ""
            lines.append(f"  {r.name:<{width}}  {r.status:<16}  {ran:>12}  {r.says}".rstrip())
        lines += self._failures()
        if self.diagnosis:
            lines += ["", f"Probable mistake: {self.diagnosis}"]
        held = sum(r.status in (PASSED, EXPECTED) for r in self.results)
        verdict = "conforms" if self.ok else "does NOT conform"
        lines += ["", f"{self.target} {verdict}: {held} properties hold, {len(self.failures)} do "
                  f"not, {sum(r.status == NOT_CLAIMED for r in self.results)} not claimed"]
        return "\n".join(lines)

    def _failures(self):
        """Each failure with the code that shows it; those in the same words together."""
        alike: dict[str, list[Result]] = {}
        for r in self.results:
            if r.status in (FAILED, SKIPPED, EXPECTED):
                alike.setdefault(r.message, []).append(r)
        lines = []
        for message, found in alike.items():
            lines += ["", *textwrap.wrap(f"{', '.join(r.name for r in found)}: {message}", 100)]
            code = min((r.counterexample for r in found), key=len)
            lines += ["", *("    " + line for line in code.splitlines())] if code else []
        return lines


def literal(value) -> str:
    """An argument as code that gives it back bit for bit."""
    if not isinstance(value, np.ndarray):
        return f"float({str(value)!r})" if value != value or value in (np.inf, -np.inf) else (
            repr(value))
    body = np.array2string(value, separator=", ", threshold=10**9, max_line_width=90,
                           formatter={"float": lambda x: repr(float(x))})
    body = body.replace("nan", "np.nan").replace("inf", "np.inf")
    dtype = "" if value.dtype == np.float64 else f", dtype=np.{value.dtype}"
    return f"np.array({body}{dtype})" if value.size else f"np.zeros({value.shape}{dtype})"


def snippet(how: tuple[str, str], names, arguments, returned, optimum) -> str:
    """Code that calls the thing under test on the arguments; it runs when pasted."""
    lines = ["import numpy as np", how[0]]
    lines += [f"{name} = {literal(value)}" for name, value in zip(names, arguments)]
    lines.append(f"print({how[1]}({', '.join(names[: len(arguments)])}))")
    if returned is not None:
        said = repr(returned).splitlines()
        lines += [f"# returned {said[0]}", *("#   " + line.strip() for line in said[1:12])]
    if optimum is not None:
        lines.append(f"# the optimum is {optimum!r}")
    return "\n".join(line for line in lines if line)

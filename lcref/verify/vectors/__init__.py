"""Test vectors of the projections: cases in JSON, and what a Python user needs to read them.

Each file KIND.json holds inputs, parameters, the optimum and a tolerance, floats as C99 hex texts;
schema.json says what every field means. An answer passes when it is feasible and its objective is
at most optimum + tolerance. The optima are those of exact arithmetic, see `lcref.verify.vectors.
exact`; `python -m lcref.verify.vectors.generate` wrote the files.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ...folder import write_whole

__all__ = ["Case", "Failure", "cases", "check", "kinds", "load", "write"]

Arguments = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """One case: fn(*arguments) is to be judged.

    `theta` is an optimal answer (of kind lc the last θ of the path), `optimum` and `tolerance` are
    None where the case has a bound or a trace instead, `unique` is None where it is not known;
    `fields` is the case as the file has it.
    """

    id: str
    kind: str
    arguments: Arguments
    theta: np.ndarray
    optimum: float | None
    tolerance: float | None
    unique: bool | None
    flags: tuple[str, ...]
    fields: dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """A case that an implementation fails, and why in a sentence."""

    id: str
    message: str
    flags: tuple[str, ...]


def kinds() -> list[str]:
    """The kinds that have a file of vectors, in alphabetical order."""
    names = (file.name for file in files(__name__).iterdir())
    return sorted(name.removesuffix(".json") for name in names
                  if name.endswith(".json") and name != "schema.json")


def load(kind: str) -> dict[str, Any]:
    """The file of one kind, as JSON gives it: floats are still texts."""
    if kind not in kinds():
        raise ValueError(f"no vectors of kind {kind!r}; there are {', '.join(kinds())}")
    return json.loads(files(__name__).joinpath(f"{kind}.json").read_text(encoding="utf-8"))


def decode(value: Any) -> Any:
    """A field of a case as Python has it: arrays, floats from hex texts, everything else as is."""
    if isinstance(value, dict) and {"shape", "dtype", "data"} <= value.keys():
        numbers = [float.fromhex(x) if isinstance(x, str) else x for x in value["data"]]
        return np.array(numbers, dtype=value["dtype"]).reshape(value["shape"])
    if isinstance(value, str) and value.lstrip("-").startswith("0x"):
        return float.fromhex(value)
    return value


def encode(value: Any) -> Any:
    """A NumPy array or a float as the files hold it; everything else as is."""
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "dtype": str(value.dtype),
                "data": [float(x).hex() for x in value.ravel()]}
    return value.hex() if isinstance(value, float) else value


def case_of(document: dict[str, Any], fields: dict[str, Any]) -> Case:
    """A case of a file of vectors, with its arguments in the order of the calling convention."""
    kind, last = document["kind"], fields.get("trace", [fields])[-1]
    arguments = [decode(fields[name]) for name in document["parameters"]]
    if kind not in ("lc", "sum"):
        arguments = [decode(fields["w"]), *arguments]
    if kind == "sum":
        arguments = [decode(fields["w"]), fields["compression"]]
    return Case(fields["id"], kind, tuple(arguments), decode(last["theta"]),
                decode(fields.get("optimum")), decode(fields["tolerance"]), fields["unique"],
                tuple(fields["flags"]), fields)


def cases(kind: str) -> list[Case]:
    """The cases of one kind, with NumPy arrays.

    The arguments are those of `fn` by position, w first: of kind sum (w, the compression as text),
    of kind lc (X, y, w, projection, budget, mu0, a, steps, penalty).
    """
    document = load(kind)
    return [case_of(document, fields) for fields in document["cases"]]


def check(fn: Callable, kind: str, chosen: Callable[[Case], bool] = bool) -> list[Failure]:
    """Call fn on the cases of a kind for which chosen(case) holds, and judge what it returns.

    fn is called as fn(*case.arguments), of kind sum as fn(w, compression). It may return an array,
    a part with decompress(), for sums of parts a tuple of arrays; for lc the list of its steps.
    An exception is a failure of its case, and so are a result of another shape or dtype and an
    argument that was written to.
    """
    from .judge import verdict

    failures = []
    for case in filter(chosen, cases(kind)):
        given = tuple(x.copy() if isinstance(x, np.ndarray) else x for x in case.arguments)
        try:
            message = verdict(case, fn(*given)) or _overwritten(case.arguments, given)
        except Exception as error:
            message = f"raised {type(error).__name__}: {error}"
        if message:
            failures.append(Failure(case.id, message, case.flags))
    return failures


def _overwritten(before, after):
    """What is wrong where an argument was written to."""
    pairs = [(a, b) for a, b in zip(before, after) if isinstance(a, np.ndarray)]
    same = all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)
    return None if same else "wrote to its input"


def write(folder: str | Path) -> list[Path]:
    """Copy all files of vectors and schema.json into a folder, made where it is missing.

    Returns the paths. A file of the same name that is not of this format is left alone, and then
    nothing is written: ValueError.
    """
    folder = Path(folder)
    shipped = {f"{name}.json": files(__name__).joinpath(f"{name}.json").read_bytes()
               for name in [*kinds(), "schema"]}
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    foreign = [name for name, content in shipped.items()
               if (folder / name).exists() and not _ours(folder / name, content)]
    if foreign:
        raise ValueError(f"{folder} has files of another origin, which would be overwritten: "
                         f"{', '.join(foreign)}; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in shipped.items():
        write_whole(folder / name, lambda stream, content=content: stream.write(content))
    return [folder / name for name in shipped]


def _ours(path, content):
    """Whether a file is the shipped one, or vectors or a schema of this format."""
    if not path.is_file():
        return False
    held = path.read_bytes()
    try:
        document = json.loads(held)
    except (RecursionError, ValueError):
        return held == content
    marks = (document.get("format"), document.get("title")) if isinstance(document, dict) else ()
    return held == content or "lcref-vectors" in marks

"""The text form of compressions and tasks, for the command line and for files."""

import ast
import dataclasses
import warnings

from .compressions import (Binary, Compression, Each, LowRank, PowersOfTwo, Prune, Quantize, Round,
                           Sum, Task, Ternary)
from .inputs import did_you_mean

KINDS = {kind.__name__.lower(): kind
         for kind in (Quantize, Binary, Ternary, PowersOfTwo, Round, Prune, LowRank, Each, Sum)}


def kinds() -> str:
    """Every kind of compression with its keywords, for help texts."""
    takes = {Each: ["A"], Sum: ["A, B, ..."]}
    return ", ".join("{}({})".format(name, ", ".join(takes.get(kind, []) + [
        f"{field.name}=" for field in dataclasses.fields(kind)
        if field.name not in ("terms", "inner")])) for name, kind in KINDS.items())


def parse(text: str) -> Compression:
    """Read a compression from its text, such as "each(quantize(k=2)) + prune(keep=0.03)".

    Only the names of the compressions, keywords, literals and + are understood; nothing is
    evaluated. `str` of a compression gives a text that reads back to an equal one.

    Parameters
    ----------
    text : str

    Returns
    -------
    Compression

    Raises
    ------
    ValueError
        With the text and a caret under the first thing that is wrong.
    """
    return _parse(_one_line(text), 0)


def parse_task(text: str) -> Task:
    """Read a task from its text, such as "fc1.weight, fc2.weight: prune(kappa=5000)".

    Parameters
    ----------
    text : str

    Returns
    -------
    Task

    Raises
    ------
    ValueError
        As of `parse`.
    """
    text = _one_line(text)
    names, colon, _ = text.partition(":")
    if not colon:
        raise _at(text, len(text), "a task is 'name, name: compression'; the colon is missing")
    return Task(tuple(name.strip() for name in names.split(",")), _parse(text, len(names) + 1))


def _one_line(text):
    """The text with every white space a blank, so that a caret can stand under any of it."""
    return "".join(" " if character.isspace() else character for character in text)


def _at(text, column, message):
    """The error that shows the text, or 200 characters of it, with a caret under the column."""
    first = max(0, min(column, len(text)) - 150)
    return ValueError(f"{message}\n  {text[first:first + 200]}\n  {' ' * (column - first)}^")


def _parse(text, start):
    """The compression in text[start:]; columns in errors count in the whole text."""
    body = text[start:]
    start += len(body) - len(body.lstrip())
    body = body.strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's on texts such as '1if'
            tree = ast.parse(body, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        offset = getattr(error, "offset", None) or len(body) + 1  # 0: at the end
        said = f": {error.msg}" if isinstance(error, SyntaxError) else ""
        raise _at(text, start + offset - 1, f"this is not a compression{said}") from None

    def fail(node, message, after=None):
        offset = node.col_offset if after is None else after.end_col_offset
        column = len(body.encode()[:offset].decode())
        column += len(body[column:]) - len(body[column:].lstrip())
        raise _at(text, start + column, message) from None

    try:
        return _build(tree, fail)
    except RecursionError:
        raise _at(text, start, "too long a sum, or too deeply nested") from None


def _build(node, fail):
    """A compression from a syntax tree of calls, keywords, literals and +."""
    if isinstance(node, ast.BinOp):
        if not isinstance(node.op, ast.Add):
            fail(node, "only + combines compressions", after=node.left)
        return _build(node.left, fail) + _build(node.right, fail)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        fail(node, "expected a compression such as quantize(k=2)")
    name = node.func.id
    if name not in KINDS:
        fail(node, f"unknown compression {name!r}{did_you_mean(name, KINDS)}")
    if node.args and name not in ("each", "sum"):
        first = dataclasses.fields(KINDS[name])[0].name
        fail(node.args[0], f"{name} takes keywords, such as {name}({first}=...)")
    inner = [_build(argument, fail) for argument in node.args]
    if name == "each" and len(inner) != 1:
        fail(node, "each needs one compression")
    options = {keyword.arg: _option(KINDS[name], keyword, node, fail) for keyword in node.keywords}
    missing = [f.name for f in dataclasses.fields(KINDS[name]) if f.name not in options
               and f.default is dataclasses.MISSING and f.name not in ("terms", "inner")]
    if missing:
        fail(node, f"{name} needs {', '.join(map(repr, missing))}")
    try:
        return KINDS[name](*inner, **options)
    except (OverflowError, ValueError) as error:    # 10**400 is no float
        return fail(node, str(error))


def _option(kind, keyword, call, fail):
    """The literal value of a keyword that the compression knows, given once in the call."""
    known = [f.name for f in dataclasses.fields(kind) if f.name not in ("terms", "inner")]
    if keyword.arg is None or not known:
        fail(keyword, f"{kind.__name__.lower()} does not take this")
    if [other.arg for other in call.keywords].count(keyword.arg) > 1:
        fail(keyword, f"{keyword.arg} is given twice")
    if keyword.arg not in known:
        fail(keyword, f"{kind.__name__.lower()} has no {keyword.arg!r}"
                      f"{did_you_mean(str(keyword.arg), known)}")
    try:
        value = ast.literal_eval(keyword.value)
        repr(value)     # a whole number of more digits than Python writes has none
        return value
    except (TypeError, ValueError):
        return fail(keyword.value, f"{keyword.arg} must be a plain number, or text in quotes")

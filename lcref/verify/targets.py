"""What is verified: a Python function, or a program that speaks JSON lines.

Both are called in the same way, with a tuple of arguments, and return a ``Call``; a call that is
not back within its time limit raises ``Hang``. Floats go to a program and may come back as C99
hexadecimal texts, so that no value is changed on the way.
"""

import contextlib
import ctypes
import difflib
import importlib
import inspect
import io
import json
import math
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

GRACE = 1.0                 # seconds a program has to end by itself
TAIL = 20                   # lines kept of what a program writes to its standard error
DTYPES = ("float16", "float32", "float64")
FLOAT = re.compile(r"[+-]?(0x[0-9a-f]+\.?[0-9a-f]*(p[+-]?[0-9]+)?|nan|inf|infinity)", re.I)


class Hang(BaseException):
    """The target did not return within its time limit.

    A BaseException, so that Hypothesis passes it on and does not repeat the call to shrink it.
    """

    def __init__(self, seconds: float = 10.0):
        super().__init__(f"did not return within {seconds:g} s")


class ProgramError(Exception):
    """A program reported an error, ended, or printed what is not an answer."""


@dataclass(frozen=True)
class Call:
    """What a target returned, and the text that went to ``sys.stdout`` meanwhile."""

    value: Any
    printed: str = ""


# Functions -------------------------------------------------------------------------------------

def load(text: str) -> Callable[..., Any]:
    """The callable that ``text``, such as "package.module:function", names.

    The current directory is put on ``sys.path``; what the module prints goes to standard error.
    """
    module, _, path = text.partition(":")
    if not (module and path):
        raise ValueError(f"{text!r} names no function: write module:function, such as a.b:prune")
    found = _import(module)
    for name in path.split("."):
        if not hasattr(found, name):
            close = difflib.get_close_matches(name, dir(found), n=1)
            meant = f"did you mean {close[0]!r}?" if close else "check its spelling"
            raise ValueError(f"{text}: there is no {name!r} in {module}; {meant}")
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{text} is of type {type(found).__name__}: name a function")
    return found


def _import(name: str) -> Any:
    sys.path[:0] = {os.getcwd()} - set(sys.path)
    importlib.invalidate_caches()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"the module {name} cannot be imported: {type(error).__name__}: {error}"
                         + _advice(name, error)) from error


def _advice(name: str, error: BaseException) -> str:
    if not isinstance(error, ModuleNotFoundError):
        return ""
    if "/" in name or name.endswith(".py"):
        return "; name the module with dots, such as package.module, not its file"
    if (name + ".").startswith(f"{error.name}."):
        return "; run this in the folder that holds it, or install it"
    return f"; it needs {error.name}: install that first"


def require_signature(fn: Callable[..., Any], counts: tuple[int, ...],
                      names: tuple[str, ...]) -> int:
    """The first of ``counts`` that is a number of positional arguments ``fn`` can be called with.

    TypeError where there is none. Where ``fn`` has no signature to be read, as some builtins,
    this is the first count.
    """
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return counts[0]
    for count in counts:
        with contextlib.suppress(TypeError):
            signature.bind(*[None] * count)
            return count
    name = getattr(fn, "__name__", type(fn).__name__)
    calls = " or ".join(f"{name}({', '.join(names[:count])})" for count in counts)
    raise TypeError(f"the function is called as {calls}, with arguments by position, but its "
                    f"own signature is {name}{signature}")


class Function:
    """A Python function under a time limit.

    The function runs in a thread of its own, or without a limit (inf) in the caller's, which
    saves a millisecond a call. One that does not return is told to stop, which Python code obeys
    and a call into compiled code only once it is back; compiled code that never releases the
    interpreter lock cannot be timed out.
    """

    def __init__(self, fn: Callable[..., Any], seconds: float = 10.0):
        self.fn, self.seconds = fn, seconds

    def __call__(self, arguments: tuple[Any, ...]) -> Call:
        """Call the function; what it raises is raised here, with its traceback."""
        outcome: Future[Any] = Future()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if self.seconds < math.inf:
                (thread := _thread(self._run, arguments, outcome)).join(min(self.seconds, 1e9))
            else:
                self._run(arguments, outcome)
        if not outcome.done():
            _stop_thread(thread)
            raise Hang(self.seconds)
        return Call(outcome.result(), printed.getvalue())

    def _run(self, arguments: tuple[Any, ...], outcome: Future[Any]) -> None:
        try:
            value = self.fn(*arguments)
            outcome.set_result(list(value) if isinstance(value, Iterator) else value)
        except SystemExit as end:
            outcome.set_exception(RuntimeError("called sys.exit").with_traceback(end.__traceback__))
        except BaseException as error:
            outcome.set_exception(error)


def _thread(target: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _stop_thread(thread: threading.Thread) -> None:
    """Raise SystemExit in ``thread`` at its next step of Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0),
                                               ctypes.py_object(SystemExit))


# The JSON forms of values ----------------------------------------------------------------------

def encode(value: Any) -> Any:
    """The JSON form of an argument: floats as hexadecimal texts, arrays as objects."""
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "dtype": value.dtype.name,
                "data": [encode(entry) for entry in value.ravel().tolist()]}
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form here")


def decode(value: Any) -> Any:
    """The value of a JSON form: an object is an array, and a hexadecimal text is a float."""
    if isinstance(value, dict):
        return _array(value)
    return _float(value) if isinstance(value, str) and FLOAT.fullmatch(value) else value


def _array(form: Any) -> np.ndarray:
    field = form.get if isinstance(form, dict) else {}.get
    shape, dtype, data = field("shape"), field("dtype"), field("data")
    if not (isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
            and dtype in DTYPES and isinstance(data, list)):
        raise ProgramError('an array is an object with a "shape" of whole numbers, a "dtype" '
                           f'({", ".join(DTYPES)}) and a flat list "data", not {_short(form)}')
    if len(data) != math.prod(shape):
        raise ProgramError(f"an array of shape {shape} has {math.prod(shape)} entries, "
                           f"but its data has {len(data)}")
    with np.errstate(over="ignore", under="ignore"):
        return np.array([_float(entry) for entry in data], float).astype(dtype).reshape(shape)


def _float(entry: Any) -> float:
    try:
        if isinstance(entry, str) and FLOAT.fullmatch(entry):
            return float.fromhex(entry)
        if isinstance(entry, (int, float)) and not isinstance(entry, bool):
            return float(entry)
    except OverflowError as error:
        raise ProgramError(f"{_short(entry)} is too large for a float64") from error
    raise ProgramError(f"an entry is a number or a text such as '0x1.8p+1', not {_short(entry)}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return repr(text if len(text) <= 100 else text[:97] + "...")


# Programs --------------------------------------------------------------------------------------

class _Process:
    """A started program, with threads that read what it writes."""

    def __init__(self, words: list[str]):
        pipe = subprocess.PIPE
        self.popen: Any = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe)
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self.errors: deque[str] = deque(maxlen=TAIL)
        self.threads = [_thread(self._read_lines), _thread(self._read_errors)]

    def _read_lines(self) -> None:
        for line in self.popen.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _read_errors(self) -> None:
        self.errors.extend(line.decode("utf-8", "replace").rstrip() for line in self.popen.stderr)

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):      # the reader sees that it has ended
            self.popen.stdin.write(line)
            self.popen.stdin.flush()

    def ask(self, line: bytes, seconds: float) -> bytes | None:
        """Send a line; the line that comes back, or None where the output has ended."""
        self.threads[2:] = [_thread(self._write, line)]     # a full pipe must not block
        try:
            return self.lines.get(timeout=min(seconds, 1e9))
        except queue.Empty:
            raise Hang(seconds) from None

    def ended(self) -> str:
        """How the program, whose output has ended, has ended itself."""
        try:
            how = f"ended with status {self.popen.wait(GRACE)}"
        except subprocess.TimeoutExpired:
            how = "closed its standard output"
        self.stop()
        return "\n".join([how, *self.errors])

    def finish(self) -> None:
        """Close the program's input, wait a moment for it to end, and kill it otherwise."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self.popen.stdin.close()
            self.popen.wait(GRACE)
        self.stop()

    def stop(self) -> None:
        """Kill the program where it still runs, and close the pipes."""
        self.popen.kill()
        self.popen.wait()
        for thread in self.threads:
            thread.join(GRACE)
        if not any(thread.is_alive() for thread in self.threads):   # else its child has a pipe
            for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
                with contextlib.suppress(OSError):
                    stream.close()


class Program(contextlib.AbstractContextManager["Program"]):
    """A program in any language that answers requests, one JSON object a line each way.

    It is started by the first call, and started anew by the call after one that it did not
    return from, that it ended in, or that it did not answer by the protocol.
    """

    def __init__(self, command: str, kind: str, names: tuple[str, ...],
                 compression: str | None = None, seconds: float = 10.0):
        self.command, self.kind, self.names = command, kind, names
        self.compression, self.seconds, self._count = compression, seconds, 0
        self._process: _Process | None = None

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End the program; a later call starts it again."""
        process, self._process = self._process, None
        if process is not None:
            process.finish()

    def __call__(self, arguments: tuple[Any, ...]) -> Call:
        """Send the arguments under their names, and return the value of the answer."""
        request = self._request(arguments)
        process = self._process = self._process or self._started()
        try:
            line = process.ask(request, self.seconds)
            if line is None:
                raise ProgramError(process.ended())
            answer = _answer(line, self._count)
        except BaseException:
            self._process = None
            process.stop()
            raise
        return Call(_value(answer, self.kind))

    def _request(self, arguments: tuple[Any, ...]) -> bytes:
        self._count += 1
        request = {"id": self._count, "kind": self.kind}
        request |= zip(self.names, map(encode, arguments), strict=True)
        if self.compression is not None:
            request["compression"] = self.compression
        return json.dumps(request).encode() + b"\n"

    def _started(self) -> _Process:
        try:
            return _Process(shlex.split(self.command))
        except (OSError, ValueError, IndexError) as error:
            raise ValueError(f"the command {self.command!r} cannot be started: {error}") from error


def _answer(line: bytes, number: int) -> dict[str, Any]:
    """The JSON object of a line that answers request ``number``."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or answer.get("id") != number:
        raise ProgramError("printed a line that is not an answer: "
                           + _short(line.decode("utf-8", "replace").strip())
                           + f', where a JSON object with "id": {number} was due')
    return answer


def _value(answer: dict[str, Any], kind: str) -> Any:
    """The array, the parts or the steps in an answer; ProgramError where it reports an error."""
    if answer.get("error") is not None:
        raise ProgramError(str(answer["error"]))
    key = "steps" if kind == "lc" else "theta" if "theta" in answer else "parts"
    if key == "theta":
        return _array(answer["theta"])
    if not isinstance(answer.get(key), list):
        raise ProgramError(f'the answer has no list "{key}"' + ' and no "theta"' * (kind != "lc"))
    return list(map(_step, answer[key])) if kind == "lc" else tuple(map(_array, answer[key]))


def _step(step: Any) -> dict[str, np.ndarray]:
    keys = "w", "theta", "lambda"
    if not isinstance(step, dict) or not step.keys() >= set(keys):
        raise ProgramError(f"a step has \"w\", \"theta\" and \"lambda\", not {_short(step)}")
    return {key: _array(step[key]) for key in keys}

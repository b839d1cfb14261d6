"""The command line. One verb a task; results on standard output, everything else on standard error.

Exit status: 0 done, 1 the answer is no, 2 wrong usage or input, or a file that cannot be written,
130 interrupted by SIGINT, 143 by SIGTERM, 141 where nobody reads standard output any more.
"""

import argparse
import difflib
import os
import sys
import warnings
from contextlib import suppress
from functools import partial

from . import __version__
from .verbs import VERBS

INPUT_ERRORS = (ValueError, TypeError, OSError, FloatingPointError, OverflowError)
LONGEST = 1000      # characters of a line of a message: the middle of a longer one is left out


def main(argv=None):
    """Run a command; return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters
    try:
        args = _arguments(argv)
    except SystemExit as end:   # of argparse, which has said why
        return end.code
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_warn, args.verb)
            status = args.run(args)
        print(end="", flush=True)
        return status
    except KeyboardInterrupt as stop:
        print(f"lcref {args.verb}: {str(stop) or 'interrupted'}", file=sys.stderr)
        return getattr(stop, "status", 130)
    except BrokenPipeError:
        _close_output()
        return 141
    except Exception as error:
        _close_output()
        if args.debug:
            raise
        print(f"lcref {args.verb}: error: {_said(error)}", file=sys.stderr)
        return 2


def _warn(verb, message, *_):
    """Show a warning as a line of the command, without the place in the code."""
    print(f"lcref {verb}: warning: {_line(str(message))}", file=sys.stderr)


def _close_output():
    """Let standard output, where it takes no more, not fail once more when Python ends."""
    try:
        print(end="", flush=True)
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _said(error):
    """The message of an error: one line, or the three of a text with a caret under its mistake."""
    text, kind = str(error), type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = f"memory does not suffice: {text or 'out of memory'}"
    elif not isinstance(error, INPUT_ERRORS):
        text = f"this is a mistake of lcref itself, {kind}: {text}; --debug shows the traceback"
    return "\n".join(map(_line, text.split("\n") if text.endswith("^") else [text])) or kind


def _line(text):
    """A text as one line that any terminal can show."""
    text = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}"
                   for c in text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST // 2]} ... {text[-LONGEST // 4:]}"


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {_line(message)} (see {self.prog} --help)\n")


def _arguments(argv):
    """The flags; of a run to resume also those that were given, by name, as `given`."""
    parser, verbs = _parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [name for action in verbs[args.verb]._actions for name in action.option_strings]
        name = unknown[0].partition("=")[0]
        near = f"; did you mean {difflib.get_close_matches(name, flags, 1, 0)[0]}?"
        verbs[args.verb].error(f"unrecognized arguments: {' '.join(unknown)}" + near * (
            name.startswith("-")))
    if getattr(args, "resume", None):
        verb, unset = verbs[args.verb], object()
        verb.set_defaults(**{name: unset for name in vars(args)
                             if name != "run" and verb.get_default(name) is not None})
        again = vars(parser.parse_args(argv))
        args.given = {name: value for name, value in again.items() if name in vars(args)
                      and name not in ("resume", "run", "verb")
                      and value is not unset and value is not None}
    return args


def _parser():
    """The parser, and those of the commands by name."""
    parser = _Parser(
        prog="lcref", allow_abbrev=False, description="The reference implementation of the "
        "learning-compression (LC) algorithm for additive combinations of compressions.")
    parser.add_argument("--version", action="version", version=f"lcref {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in VERBS:
        add(verbs)
    return parser, verbs.choices

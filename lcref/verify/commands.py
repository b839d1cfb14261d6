"""lcref verify, certify and vectors: what the command line does with them."""

import json
import math
import shlex
import shutil
import sys
from dataclasses import asdict

import numpy as np

from .. import storage
from ..inputs import did_you_mean, real_array
from ..tensors import read_tensors
from ..text import parse, parse_task
from .certificates import certify
from .checking import check, of_program
from .elsewhere import on_device
from .targets import load
from .vectors import write


def run_verify(args) -> int:
    """lcref verify: 0 where the target conforms, 1 where it does not."""
    if (args.target is None) == (args.exec is None):
        raise ValueError("name what to verify: a TARGET such as mypackage.pruning:prune, or a "
                         "program with --exec")
    expected = dict(_named(text) for text in args.expect_fail or ())
    claims = [name for text in args.claims or () for name in text.split(",")]
    options = {"compression": args.compress, "max_examples": args.max_examples, "claims": claims,
               "expected_failures": expected, "name": args.target or args.exec}
    if args.exec and args.device != "cpu":
        raise ValueError(f"--device {args.device} is for a function in this process; a program "
                         "of --exec is handed numbers")
    if args.target:
        fn = load(args.target)
        if args.device != "cpu":
            fn, options["name"] = on_device(fn, args.device), f"{args.target} on {args.device}"
        report = check(fn, args.kind, time_limit=args.time_limit, **options)
    else:
        _startable(args.exec)
        with of_program(args.exec, args.kind, args.compress, args.time_limit) as program:
            report = check(program, args.kind, **options)
    print(report, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(report.json())
    return 0 if report.ok else 1


def _startable(command):
    """Wrong usage, and not a wrong answer, where there is no such program."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"the command {command!r} cannot be read: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise ValueError(f"the command {command!r} cannot be started: there is no such program")


def _named(text):
    """NAME=reason as a pair."""
    name, equals, reason = text.partition("=")
    if not (equals and reason.strip()):
        raise ValueError(f"--expect-fail takes NAME=reason, not {text!r}")
    return name.strip(), reason.strip()


def run_certify(args) -> int:
    """lcref certify: 0 where every task is feasible and not beaten by more than allowed, else 1."""
    packed = storage.load(args.model) if storage.is_packed(args.model) else None
    reference, model = (read_tensors(file) for file in (args.reference, args.model))
    ok, found = True, []
    for names, compression in _tasks(args, reference | model, packed):
        w = _chosen(args.reference, reference, names)
        dense = _chosen(args.model, model, names, w)
        try:
            certificate = certify(w, _parts(packed, names, compression, w) or dense, compression,
                                  args.mu)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{args.reference} and {args.model}, {', '.join(names)}: "
                             f"{error}") from None
        allowed = args.max_excess * certificate.best if certificate.best else 0.0
        over = certificate.objective - certificate.best - certificate.tolerance
        right = certificate.feasible and (over <= allowed or args.max_excess == math.inf)
        ok = ok and right
        found.append({"tensors": names, "compression": str(compression), "ok": right,
                      "excess": certificate.excess, "optimal": certificate.optimal,
                      **asdict(certificate)})
        print(f"{', '.join(names)}: {compression}\n{certificate}\n",
              file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps({"ok": ok, "tasks": found}, indent=1, ensure_ascii=False))
    return 0 if ok else 1


def _parts(packed, names, compression, w):
    """θ, where a packed file holds it for this task in w's dtype, else None."""
    for i, task in enumerate(packed.tasks if packed else ()):
        if (list(task.names), task.compression) == (names, compression):
            return packed.thetas[i] if {x.dtype for x in w.values()} == {np.dtype("f4")} else None
    return None


def _tasks(args, tensors, packed):
    """Pairs of names and compression: of --task, or all weights (two axes or more) together.

    Where neither is given, those of a packed model.
    """
    if packed and args.compress is None and args.task is None:
        return [(list(task.names), task.compression) for task in packed.tasks]
    if (args.compress is None) == (args.task is None):
        raise ValueError("give either --compress for all weights together, or --task")
    if args.task:
        return [(list(task.names), task.compression) for task in map(parse_task, args.task)]
    names = [name for name, w in tensors.items() if w.ndim > 1] or list(tensors)
    if not names:
        raise ValueError(f"{args.reference} and {args.model} hold no tensor")
    return [(names, parse(args.compress))]


def _chosen(file, tensors, names, w=None):
    """The tensors of these names, real and finite; those of a model in the dtypes of w.

    Raises
    ------
    ValueError
        One is missing or is something else; the file and the tensor are named.
    """
    found = {}
    for name in names:
        if name not in tensors:
            raise ValueError(f"{file} has no tensor {name!r}{did_you_mean(name, tensors)}")
        try:
            real_array(tensors[name], name)
            with np.errstate(over="ignore"):
                found[name] = tensors[name] if w is None else tensors[name].astype(w[name].dtype)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from None
    return found


def run_vectors(args) -> int:
    """lcref vectors: copy the files of vectors and their schema into a folder."""
    paths = write(args.out)
    print(f"{len(paths)} files written to {args.out}")
    return 0

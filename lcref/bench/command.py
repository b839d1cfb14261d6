"""lcref bench: measure, and print tables or JSON."""

import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable
from datetime import date
from functools import partial
from importlib.util import find_spec

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..devices import device
from ..inputs import did_you_mean
from ..training import check_writable
from .cases import BY_NAME
from .lsteps import TASKS, known_net, l_step
from .peers import PEERS, version
from .projections import time_projection
from .report import as_json, markdown_table, tables, text_table, times_figure
from .targets import TARGETS

# The names of the rows of each group.
GROUPS: dict[str, Iterable[str]] = {"projections": BY_NAME, "lsteps": TASKS, "targets": TARGETS}


def run(args) -> int:
    """lcref bench: measure what was asked for, one thing after the other."""
    if args.out:
        check_writable(args.out)
    jobs, here = _jobs(args), device(args.device)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)     # before the minutes of measuring
    found: dict[str, list] = {"projections": [], "l_step": [], "targets": []}
    for kind, job in tqdm(jobs, unit="row", disable=args.quiet or None, file=sys.stderr):
        found[kind] += job()
    made = tables(found)
    tree = as_json(found, threads=args.threads, turns=args.turns, dtype=args.dtype,
                   device={"name": here.name, **here.facts}, versions=_versions(found),
                   machine=_machine(), date=str(date.today()))
    facts = f"{args.threads} thread{'s' * (args.threads > 1)}; on {here.name}; " + ", ".join(
        f"{name} {number}" for name, number in [*here.facts.items(), *tree["versions"].items()])
    if not args.quiet:
        print(*(f"{text_table(rows)}\n" for _, rows in made), facts, *_remarks(found, here),
              sep="\n", file=sys.stderr if args.json else sys.stdout)
    if args.out:
        _write(args.out, found, made, facts, tree)
    if args.json:
        print(json.dumps(tree, indent=1))
    return 0


def _jobs(args) -> list[tuple[str, Callable[[], list]]]:
    """(kind, function that gives its rows) of all that is to be measured."""
    groups = args.what or (["lsteps"] if args.net is not None else ["projections", "lsteps"])
    _check(groups, args)
    jobs: list[tuple[str, Callable[[], list]]] = []
    if "projections" in groups:
        jobs += [("projections", partial(_row, partial(time_projection, where=args.device), name, n,
                                         args.dtype, args.threads, args.turns))
                 for name in _chosen(BY_NAME, args) for n in args.sizes]
    if "lsteps" in groups:
        names = [args.net] if args.net is not None else _chosen(TASKS, args)
        jobs += [("l_step", partial(_row, l_step, name, args.threads, args.turns, args.device))
                 for name in names]
    if "targets" in groups:
        jobs += [("targets", partial(TARGETS[name], name, args.threads, args.turns))
                 for name in _chosen(TARGETS, args)]
    return jobs


def _check(groups, args):
    """ValueError where a group, a text of --only or the net says nothing."""
    for group in groups:
        if group not in GROUPS:
            raise ValueError(f"unknown group {group!r}{did_you_mean(group, GROUPS)}")
    if "targets" in groups and args.device != "cpu":
        raise ValueError(f"--device {args.device} is for projections and lsteps: the targets are "
                         "those of the host")
    for text in args.only or []:
        if not any(_in(text, name) for group in groups for name in GROUPS[group]):
            raise ValueError(f"--only {text!r:.60}: no row of {' or '.join(groups)} has that in "
                             "its name")
    if args.net is not None:
        known_net(args.net)
        if "lsteps" not in groups:
            raise ValueError(f"--net {args.net} is for the group lsteps, not {', '.join(groups)}")


def _in(text, name):
    return text != "" and text.lower() in name.lower()


def _row(measure, *arguments):
    return [measure(*arguments)]


def _chosen(names, args):
    """The names that one of the texts of --only is in, or all."""
    return [name for name in names if not args.only or any(_in(text, name) for text in args.only)]


def _write(out, found, made, facts, tree):
    """bench.json, bench.md and, of projections, times.png."""
    (out / "bench.json").write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    parts = [f"## {title}\n\n{markdown_table(rows)}\n" for title, rows in made]
    parts.append(f"{facts}; {tree['machine']}; {tree['date']}\n")
    (out / "bench.md").write_text("\n".join(parts), encoding="utf-8")
    if any(t.seconds is not None for t in found["projections"]):
        times_figure(found["projections"], out / "times.png")


def _versions(found):
    """Of lcref, NumPy and Python, and of the libraries that were compared."""
    peers = {peer.package: peer for peers in PEERS.values() for peer in peers if peer.installed}
    versions = {"lcref": __version__, "numpy": np.__version__, "python": platform.python_version()}
    if found["projections"] or found["targets"]:
        return versions | {package: version(package) for package in sorted(peers)}
    return versions | ({"torch": version("torch")} if find_spec("torch") else {})


def _machine():
    """The processor's name, where Linux says it, and the number of cores."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = re.findall(r"model name\s*: (.*)", file.read())
    except OSError:
        names = []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _remarks(found, here):
    """Sentences on what is missing."""
    if found["l_step"] and found["l_step"][0].torch_ms is None:
        yield ("PyTorch is not installed, so there is nothing to compare with: pip install torch"
               if find_spec("torch") is None else f"PyTorch does not compute on {here.name} here")
    missing = sorted({peer.package for t in found["projections"] for peer in t.peers
                      if peer.left_out == "not installed"})
    if missing:
        yield f"not installed: {', '.join(missing)}; pip install 'lcref[peers]' has all peers"

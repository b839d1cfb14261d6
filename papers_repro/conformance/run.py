"""Judge other libraries' projections with lcref.verify, each by what it promises.

    python papers_repro/conformance/run.py [--max-examples N] [--peer NAME] [--quick] [--out DIR]

Every peer of lcref.verify.peers that is installed is put to `check`. One JSON file a peer goes to
results/ beside this file, and README.md is written from them. A peer that the results already hold
for these versions and this number of examples is not run again.

    python papers_repro/conformance/run.py --false-alarms N [--peer NAME]

Puts each required property of the peers that are known to be right to N inputs, to see whether
one of them is called wrong. It writes after every property, and goes on where it was stopped.
"""

import argparse
import datetime
import json
import math
import os
import platform
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import hypothesis
import numpy as np
import scipy
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import lcref
from lcref.verify import check
from lcref.verify.kinds import kind_of
from lcref.verify.peers import PEERS
from lcref.verify.properties import properties_of

HERE = Path(__file__).parent
LONG = 1600  # characters of an input that is kept
ORDER = ("defect", "unexplained", "contract", "rounding")  # the worst first
VERDICTS = {"defect": "**fails**", "unexplained": "**fails**, no reason known",
            "rounding": "differs by rounding", "contract": "differs by contract"}
INTRODUCTION = """# Other libraries, judged

Each function below belongs to another library and does one of the projections of lcref, or is
widely used as if it did. `lcref.verify.check` asks of each the same questions: is the answer
feasible, is it an optimum, and do the properties hold that follow from the problem? The adapters
are in [lcref/verify/peers](../../lcref/verify/peers). They only translate; they repair nothing,
but answer in the library's place where its manual excludes a parameter, and say so.

"""
HOW_TO_READ = """## How to read it

- **passes**: no property failed that was asked for. A search that finds nothing is not a proof.
- **differs by contract**: the library promises something else, in its manual, than the kind does.
  This is no fault of the library; it says what to expect when it stands in for the projection.
- **differs by rounding**: right but for floating point; the error is larger than it need be, and
  the library promises no bound for it.
- **fails**: the library breaks its own promise. Small inputs are judged in exact rational
  arithmetic, by a search that shares no code with lcref's projections; larger ones by a feasible
  point that is better, or by lcref's certified optimum.

An optimal answer passes whichever it is, where several are optimal. An objective passes when it is
above the optimum by no more than rounding explains, the constant published in lcref's README. An
exception on valid input is a failure. The inputs are small, shrunk by Hypothesis, and some of them
are extreme on purpose: a failure at an offset of 1e8 says nothing about data near zero.

One input that fails can fail several properties, since most of them ask for an optimum; they stand
together below, with the smallest input of all. Where such an input hides what else a function
does, a second row excludes it, such as `kappa > 0`. A cause that was inferred from the answers, and
not read in the source, is marked as inferred.
"""


ALARMS = """
## No right function called wrong

Functions in whose answers nothing was found above, put to many more inputs of the required
properties (`--false-alarms`). What was found then, if anything, was looked at by hand: a fault of
the function stands with its contract, a fault of the kit was mended and its property run again. A
property that has few inputs has fewer to try.

"""


def versions(peer):
    """What the results of a peer depend on."""
    return {"python": platform.python_version(), peer.package: peer.version,
            **{module.__name__: module.__version__ for module in (lcref, np, scipy, hypothesis)}}


def judge(peer, max_examples):
    """The report of one peer, as a record; what it was expected to fail is not told to check."""
    start = time.perf_counter()
    with threadpool_limits(1):
        report = check(peer.fn, peer.kind, max_examples=max_examples, claims=peer.claims,
                       time_limit=60)
    results = [{"name": result.name, "status": result.status, "examples": result.examples,
                **kept(result.message, result.counterexample)} for result in report.results]
    return {"date": datetime.date.today().isoformat(), "results": results,
            "seconds": round(time.perf_counter() - start, 1)}


def kept(message, code):
    """The message and the input of one result, each where it is short enough to be read."""
    short = message if len(message) <= LONG // 4 else message[: LONG // 4] + " …"
    return {"message": short, "counterexample": code if len(code) <= LONG else ""}


def search_for_alarms(peers, examples, folder):
    """Put the required properties of right peers to many inputs, one record a peer."""
    for peer in tqdm([peer for peer in peers if not peer.expected_failures], unit="peer"):
        file = folder / f"{slug(peer.name)}.json"
        made_by = {"peer": peer.name, "max_examples": examples, "versions": versions(peer)}
        old = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        record = old if made_by.items() <= old.items() else {**made_by, "results": {}}
        for name in required(peer.kind):
            if name not in record["results"]:
                result = search(peer, name, examples)
                record["date"] = datetime.date.today().isoformat()
                record["results"][name] = {"status": result.status, "examples": result.examples,
                                           "message": result.message}
                save(file, record)


def required(kind):
    return [p.name for p in properties_of(kind_of(kind, None)) if p.group == "required"]


def search(peer, name, examples):
    """The result of one property."""
    with threadpool_limits(1):
        return check(peer.fn, peer.kind, max_examples=examples, properties=[name],
                     time_limit=math.inf).results[0]


def save(file, record):
    """Write the whole file or nothing."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, file)


def run(peers, max_examples, folder):
    """Judge the peers that the folder does not hold for these versions and examples."""
    for peer in tqdm(peers, unit="peer"):
        file = folder / f"{slug(peer.name)}.json"
        made_by = {"peer": peer.name, "kind": peer.kind, "max_examples": max_examples,
                   "versions": versions(peer)}
        old = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if not made_by.items() <= old.items():
            save(file, {**made_by, **judge(peer, max_examples)})


def slug(name):
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


# ---- README.md


def failures(record):
    return [result for result in record["results"] if result["status"] == "failed"]


def sort_of(peer, result):
    """Why a property failed: the first word of the reason that the table of peers gives."""
    return peer.expected_failures.get(result["name"], "unexplained").split(":")[0]


def verdict(peer, record):
    """The worst sort of failure, in words; "passes" where there is none."""
    sorts = {sort_of(peer, result) for result in failures(record)}
    return next((VERDICTS[sort] for sort in ORDER if sort in sorts), "passes")


def row(peer, record):
    count = Counter(result["status"] for result in record["results"])
    failed = ", ".join(result["name"] for result in failures(record))
    return [f"[{peer.name}](#{slug(peer.name)})" if failed else peer.name,
            f"{peer.package} {record['versions'][peer.package]}", peer.kind, verdict(peer, record),
            str(count["passed"]), failed]


def about(peer, record):
    text = (f"`{peer.name}`, {peer.package} {record['versions'][peer.package]}, "
            f"as `{peer.kind}`. {peer.contract}")
    return " ".join(text.split())


def by_reason(peer, record):
    """reason → the results that failed for it; a failure without a reason stands alone."""
    groups = {}
    for result in failures(record):
        reason = peer.expected_failures.get(result["name"], f"unexplained: {result['name']}")
        groups.setdefault(reason, []).append(result)
    return groups


def section(peer, record):
    """What a peer promises, and for each reason of failure the smallest input that shows it."""
    lines = [f"### {slug(peer.name)}", about(peer, record)]
    for reason, results in by_reason(peer, record).items():
        names = ", ".join(result["name"] for result in results)
        lines.append(f"**{names}**: {reason}")
        shown = min(results, key=lambda r: (not r["counterexample"], len(r["counterexample"])))
        lines.append(f"```\n{shown['name']}: {shown['message']}\n```")
        if shown["counterexample"]:
            lines.append(f"```python\n{shown['counterexample'].strip()}\n```")
    return "\n\n".join(lines) + "\n\n"


def contracts(pairs):
    """What the peers without a failure promise, where that is not the kind."""
    lines = [f"- {about(*pair)}" for pair in pairs if pair[0].contract and not failures(pair[1])]
    return "\n## Passed, by their own contract\n\n" + "\n".join(lines) + "\n" if lines else ""


def readme(folder):
    """README.md from the results of all peers in the folder."""
    pairs = []
    for peer in PEERS:
        file = folder / f"{slug(peer.name)}.json"
        if file.exists():
            pairs.append((peer, json.loads(file.read_text(encoding="utf-8"))))
    head = ["function", "version", "kind", "verdict", "properties passed", "failed"]
    rows = [head, ["---"] * len(head), *(row(*pair) for pair in pairs)]
    return (INTRODUCTION + made_by(pairs)
            + "".join(f"| {' | '.join(cells)} |\n" for cells in rows) + "\n" + HOW_TO_READ
            + contracts(pairs) + alarms(folder / "required") + "\n## The failures\n\n"
            + "".join(section(*pair) for pair in pairs if failures(pair[1])).rstrip() + "\n")


def alarms(folder):
    """How many inputs of the required properties the right peers passed, or else what failed."""
    rows = []
    for peer in PEERS:
        file = folder / f"{slug(peer.name)}.json"
        record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"results": {}}
        results = record["results"]
        if results and set(results) == set(required(peer.kind)):
            wrong = ", ".join(name for name, r in results.items() if r["status"] != "passed")
            counts = sorted(r["examples"] for r in results.values())
            rows.append([peer.name, str(len(results)), f"{sum(counts):,}", f"{counts[0]:,}",
                         wrong or "none", record["date"]])
    if not rows:
        return ""
    head = ["function", "required properties", "inputs", "least of a property", "found", "date"]
    lines = [f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows]]
    return ALARMS + "".join(lines)


def made_by(pairs):
    """The line above the table: command, dates, versions, threads."""
    if not pairs:
        return ""
    dates = sorted({record["date"] for _, record in pairs})
    shared = ("python", "lcref", "numpy", "scipy", "hypothesis")
    numbers = ", ".join(sorted({f"{name} {record['versions'][name]}" for _, record in pairs
                                for name in shared}))
    examples = ", ".join(sorted({f"{record['max_examples']:,}" for _, record in pairs}))
    seconds = sum(record["seconds"] for _, record in pairs)
    when = " to ".join(sorted({dates[0], dates[-1]}))
    return (f"`python papers_repro/conformance/run.py`, {when}, {numbers}; {examples} examples a "
            f"property, one thread, {seconds:.0f} s in all.\n\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-examples", type=int, help="inputs for each property (default: 1000; "
                        "50 with --quick)")
    parser.add_argument("--false-alarms", type=int, metavar="N", help="put only the required "
                        "properties of the peers that are right to N inputs each")
    parser.add_argument("--peer", action="append", help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="few inputs, to a new folder")
    parser.add_argument("--out", type=Path, help="the folder to write (default: this file's; with "
                        "--quick a new temporary one)")
    args = parser.parse_args()
    unknown = set(args.peer or []) - {peer.name for peer in PEERS}
    if unknown:
        parser.error(f"no peer of the name {', '.join(unknown)}; there are "
                     + ", ".join(peer.name for peer in PEERS))
    os.environ["OMP_NUM_THREADS"] = "1"  # for the libraries that are imported later
    out = args.out or (Path(tempfile.mkdtemp()) if args.quick else HERE)
    (out / "results").mkdir(parents=True, exist_ok=True)
    examples = args.max_examples or (50 if args.quick else 1000)
    chosen = [peer for peer in PEERS if peer.version and peer.name in (args.peer or [peer.name])]
    if args.false_alarms:
        (out / "results" / "required").mkdir(exist_ok=True)
        search_for_alarms(chosen, args.false_alarms, out / "results" / "required")
    else:
        run(chosen, examples, out / "results")
    (out / "README.md").write_text(readme(out / "results"), encoding="utf-8")
    missing = sorted({peer.package for peer in PEERS if not peer.version})
    print(f"{out}: {len(chosen)} peers", *["not installed:", *missing] * bool(missing))
    return 0


if __name__ == "__main__":
    sys.exit(main())

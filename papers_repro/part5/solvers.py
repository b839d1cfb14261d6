"""Compare the paper's alternation with the exact joint solvers, for quantization + corrections.

    python papers_repro/part5/solvers.py [--data-dir DIR] [--quick] [--out DIR]

A case is a sum of a quantized part and corrections, and the weights it is fitted to: random draws,
or a trained net. The excess of the alternation is its ‖w − Δ1(θ1) − Δ2(θ2)‖² over that of the
exact solver, minus 1. Cases that the results already hold are not run again.
"""

import argparse
import collections
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy
from matplotlib.figure import Figure
from tqdm import tqdm

import lcref
from lcref import Binary, Each, Prune, Quantize, Sum
from lcref.nets.checkpoints import read_npz
from lcref.tolerance import objective_slack, squared_norm

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import machine  # noqa: E402

RESULTS = Path(__file__).parent / "results"

DISTRIBUTIONS = {
    "Gaussian": lambda rng, n: rng.normal(size=n),
    "Laplace": lambda rng, n: rng.laplace(size=n),
    "Student t, 2 d.f.": lambda rng, n: rng.standard_t(2, size=n),
}
SEEDS = {150: 100, 10_000: 10}  # how many draws of n weights
NETS = {"LeNet300": "lenet300_mnist.npz", "ResNet20": "resnet20_cifar10.npz"}
SUMS = [(part, Prune(keep=keep)) for part in (Binary(scale=True), *map(Quantize, (2, 4, 16)))
        for keep in (0.01, 0.03, 0.05) if keep < 0.05 or isinstance(part, Binary)]
ORDERS = ("quantized first", "corrections first", "best of both")
CYCLES = (50, 100)  # the alternation's limits; the second is the default


def cases(data_dir, quick):
    """The rows of the table: (weights, the two terms, the draws of w)."""
    for n, seeds in SEEDS.items():
        for name, draw in DISTRIBUTIONS.items():
            draws = [draw(np.random.default_rng(seed), n) for seed in range(seeds)]
            for terms in SUMS[::2] if quick else SUMS:
                yield f"{name}, n = {n:,}", terms, draws[:seeds // 20 + 1] if quick else draws
    for name, file in NETS.items():
        params = read_npz(os.path.join(data_dir, "weights", file))
        w = {key: tensor for key, tensor in params.items() if tensor.ndim > 1}
        for quantized, corrections in SUMS[:4:3] if quick else SUMS:
            yield f"{name}, a codebook each tensor", (Each(quantized), corrections), [w]
            yield f"{name}, one codebook", (quantized, corrections), [w]


def flat(tree):
    """An array, or a dict of arrays, as one vector."""
    arrays = tree.values() if isinstance(tree, dict) else [tree]
    return np.concatenate([x.ravel() for x in arrays])


def timed(terms, w, **how):
    start = time.perf_counter()
    return Sum(*terms, **how).project(w), time.perf_counter() - start


def objective_and_slack(exact, w, of_magnitudes):
    """‖w − Δ1 − Δ2‖² and the published constant, with D over the weights not corrected."""
    x, theta, repair = flat(w), *(flat(part.decompress()) for part in exact.parts)
    kept = (np.abs(x) if of_magnitudes else x)[repair == 0].astype(np.float64)
    largest = float(np.max(np.abs([theta, repair])))
    slack = objective_slack(x, theta + repair, kept.size * float(np.var(kept)), largest=largest)
    return squared_norm(x.astype(np.float64) - theta - repair.astype(np.float64)), slack


def compare(terms, w):
    """The exact solver and the alternation in both orders on one w, as a flat record."""
    exact, seconds = timed(terms, w, solver="exact")
    runs = [timed(order, w, solver="alternate", restarts=False) for order in (terms, terms[::-1])]
    objective, slack = objective_and_slack(exact, w, "binary" in str(terms[0]))
    record = {"status": exact.status, "relative gap": exact.gap / objective,
              "relative slack": slack / objective, "seconds, exact": seconds,
              "seconds, both orders": sum(run[1] for run in runs)}
    for cycles in CYCLES:
        reached = [min(run.trace[:2 * cycles]) for run, _ in runs]  # two half-steps a cycle
        for order, value in zip(ORDERS, (*reached, min(reached))):
            record[f"{order}, {cycles} cycles"] = value / objective - 1
    record["below exact"] = min(reached) < objective - exact.gap - slack
    return record


def summary(records):
    """The records of one case: counts of words and flags, and least, median, largest of numbers."""
    columns = {key: [record[key] for record in records] for key in records[0]}
    return {"date": datetime.date.today().isoformat(), "draws": len(records),
            "status": dict(collections.Counter(columns.pop("status"))),
            "below exact": sum(columns.pop("below exact")),
            **{key: {"least": min(values), "median": float(np.median(values)),
                     "largest": max(values)} for key, values in columns.items()}}


def run(chosen, file, command):
    """Solve the cases that the file does not hold for these versions, and save after each."""
    versions = {module.__name__: module.__version__ for module in (lcref, np, scipy)}
    made_by = {"command": command, "machine": machine(),
               "versions": {"python": platform.python_version(), **versions}}
    old = json.loads(file.read_text()) if file.exists() else {}
    results = {**made_by, "cases": old["cases"] if made_by.items() <= old.items() else {}}
    for weights, terms, draws in tqdm(chosen, unit="case"):
        name = f"{weights}: {Sum(*terms)}"
        if name not in results["cases"]:
            results["cases"][name] = summary([compare(terms, w) for w in draws])
            file.write_text(json.dumps(results, indent=1) + "\n")
    return results


def table(results):
    """The results in Markdown."""
    rows = [["weights", "sum", "draws", "exact solver", "its relative gap, at most", *ORDERS,
             "below exact", "seconds: exact, both"], 10 * ["---"]]
    columns = [f"{order}, {CYCLES[1]} cycles" for order in ORDERS]
    for name, case in results["cases"].items():
        statuses = ", ".join(f"{count} {status}" for status, count in case["status"].items())
        seconds = [f"{case[f'seconds, {who}']['median']:.2g}" for who in ("exact", "both orders")]
        rows.append([*name.split(": "), str(case["draws"]), statuses,
                     f"{case['relative gap']['largest']:.1e}",
                     *(f"{case[column]['median']:.3%}, {case[column]['largest']:.3%}"
                       for column in columns),
                     str(case["below exact"]), ", ".join(seconds)])
    dates = sorted({case["date"] for case in results["cases"].values()})
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return (f"`{results['command']}`, {' to '.join(sorted({dates[0], dates[-1]}))}, "
            f"{results['machine']['processor']}, {versions}. Excess: median, largest.\n\n"
            + "".join(f"| {' | '.join(row)} |\n" for row in rows))


def picture(results, file):
    """The excess in each case, a panel for each number of weights and each net."""
    panels, sums = {}, [str(Sum(*terms)) for terms in SUMS[::-1]]
    for name, case in results["cases"].items():
        weights, text = name.replace("each(", "").replace(")) +", ") +").split(": ")
        first, second = weights.rsplit(", ", 1)
        title, series = (second, first) if second.startswith("n = ") else (first, second)
        panels.setdefault(title, {}).setdefault(series, []).append((sums.index(text), case))
    figure = Figure(figsize=(9, 8), dpi=200, layout="constrained")
    grid = figure.subplots(2, 2, sharey=True)
    for axes, (title, panel) in zip(grid.ravel(), panels.items()):
        for i, (series, rows) in enumerate(panel.items()):
            draw(axes, rows, 0.22 * (1 - i), color=f"C{i}", label=series)
        axes.set_xscale("symlog", linthresh=1e-3)
        axes.set(xlim=(-2e-4, 1e3), xlabel="excess over the exact optimum, %")
        axes.set_xticks([0, 1e-3, 0.1, 10, 1000], ["0", "0.001", "0.1", "10", "1000"])
        axes.set_yticks(range(len(sums)), sums, fontsize=8)
        axes.grid(alpha=0.25)
        axes.legend(title=title, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3,
                    frameon=False)
    figure.suptitle("Better of both orders: dot, the median draw; line, up to the largest. "
                    "Ring: the largest of the worse order", fontsize=10)
    figure.savefig(file, metadata={"Software": None})


def draw(axes, rows, offset, color, label):
    for row, case in rows:
        first, second, best = [case[f"{order}, {CYCLES[1]} cycles"] for order in ORDERS]
        excess = best["median"], best["largest"], max(first["largest"], second["largest"])
        low, high, ring = (100 * max(x, 0) for x in excess)
        axes.plot([low, high], [row + offset] * 2, color=color)
        axes.plot(ring, row + offset, "o", color=color, markersize=6, fillstyle="none")
        axes.plot(low, row + offset, "o", color=color, markersize=3.5, label=label)
        label = None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data_dir = os.environ.get("LCREF_DATA")
    parser.add_argument("--data-dir", default=data_dir, required=not data_dir, help="folder with "
                        "weights/ (default: the environment variable LCREF_DATA)")
    parser.add_argument("--quick", action="store_true", help="few draws of a sample of the cases")
    parser.add_argument("--out", type=Path, help="the folder to write (default: results/solvers; "
                        "with --quick a new temporary one)")
    args = parser.parse_args()
    out = args.out or (Path(tempfile.mkdtemp()) if args.quick else RESULTS / "solvers")
    out.mkdir(parents=True, exist_ok=True)
    command = "python papers_repro/part5/solvers.py" + " --quick" * args.quick
    results = run(list(cases(args.data_dir, args.quick)), out / "result.json", command)
    (out / "table.md").write_text(table(results))
    picture(results, out / "excess.png")
    below = sum(case["below exact"] for case in results["cases"].values())
    print(f"{out}: alternation below the exact solver beyond tolerance {below} times")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())

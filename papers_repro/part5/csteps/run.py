"""The C step of a sum: alternation beside the exact optimum, cycle by cycle, and time as n grows.

    python papers_repro/part5/csteps/run.py [--quick] [--data-dir DIR] [--out DIR]

On the weights of LeNet300 and ResNet20 every order of the parts is run for 100 cycles. Its excess
is its objective ‖w − Δ(θ)‖² over the optimum, minus 1: of the exact solver where there is one (less
its certified gap, so that the excess is an upper bound), else of the best point that any order
found in ten times as many cycles, which is not proven. Random draws, and more sums of this kind,
are in ../solvers.py. Times are seconds of the processor on one thread, the median of three draws.
Cases that the results already hold are not run again.
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from lcref import Binary, Each, LowRank, Prune, Quantize, Sum
from lcref.nets.checkpoints import read_npz
from lcref.tolerance import squared_norm

sys.path.insert(0, str(Path(__file__).parents[2]))
import common  # noqa: E402
import fronts  # noqa: E402

NETS = {"LeNet300": "lenet300_mnist.npz", "ResNet20": "resnet20_cifar10.npz"}
EXACT = [(Each(quantized), Prune(keep=keep)) for quantized, keep in (
    (Binary(scale=True), 0.03), (Quantize(k=2), 0.01), (Quantize(k=2), 0.03),
    (Quantize(k=4), 0.01), (Quantize(k=16), 0.01))]
OTHER = [(LowRank(rank=2), Prune(keep=0.02)), (LowRank(rank=8), Prune(keep=0.02)),
         (Each(Quantize(k=2)), LowRank(rank=2)),
         (Each(Quantize(k=2)), LowRank(rank=2), Prune(keep=0.01))]
CYCLES, SHOWN = 100, (1, 2, 5, 10, 20, 50, 100)
GROWTH = [Binary(), Binary(scale=True), Quantize(k=2), Quantize(k=4), Quantize(k=16)]
SIZES = (1_000, 10_000, 100_000, 1_000_000)


def clock(sum_, w):
    """The C step, and the seconds that it took the processor."""
    start = time.process_time()
    return sum_.project(w), time.process_time() - start


def alternated(terms, w, cycles=CYCLES):
    """Excess-to-be of one order: the objective after each cycle, kept where it stops early."""
    part, seconds = clock(Sum(*terms, solver="alternate", restarts=False, cycles=cycles, tol=0.0),
                          w)
    reached = list(part.trace[len(terms) - 1::len(terms)])
    return reached + reached[-1:] * (cycles - len(reached)), len(reached), seconds


def along_cycles(terms, w, exact):
    """The excess after each cycle, for every order of the parts."""
    orders = list(itertools.permutations(terms))
    runs = [alternated(order, w) for order in orders]
    if exact:
        part, seconds = clock(Sum(*terms, solver="exact"), w)
        left = {name: w[name] - dense for name, dense in part.decompress().items()}
        objective = sum(squared_norm(t.astype(np.float64)) for t in left.values())
        bound = {"status": part.status, "gap": part.gap / objective, "seconds": seconds}
        floor = objective - part.gap
    else:
        longer = [alternated(order, w, 10 * CYCLES)[0][-1] for order in orders]
        floor, bound = min(longer), {"status": "best known"}
    return {"exact": bound, "orders": [
        {"order": [str(term) for term in order], "excess": [value / floor - 1 for value in reached],
         "cycles": stopped, "seconds": seconds}
        for order, (reached, stopped, seconds) in zip(orders, runs)]}


def as_n_grows(quantized, n, draws):
    """Median seconds of the exact solver, and of the alternation in the better order."""
    terms, rows = (quantized, Prune(keep=0.03)), []
    for seed in range(draws):
        w = np.random.default_rng(seed).laplace(size=n)
        exact, seconds = clock(Sum(*terms, solver="exact"), w)
        runs = [clock(Sum(*order, solver="alternate", restarts=False), w)
                for order in (terms, terms[::-1])]
        best, alternation = min(runs, key=lambda run: min(run[0].trace))
        objective = squared_norm(w - exact.decompress())
        rows.append((seconds, alternation, min(best.trace) / objective - 1))
    columns = [float(np.median(column)) for column in zip(*rows)]
    return dict(zip(("exact", "alternation", "excess"), columns))


def cases(args):
    """(name, function of no arguments) of every case."""
    for net, file in NETS.items():
        params = read_npz(os.path.join(args.data_dir, "weights", file)) if args.data_dir else {
            "w": np.random.default_rng(len(file)).laplace(size=(40, 30)),
            "v": np.random.default_rng(1).normal(size=(10, 40))}
        w = {name: tensor for name, tensor in params.items() if tensor.ndim > 1}
        for terms in (EXACT[1:2] + OTHER[:1] if args.quick else EXACT + OTHER):
            yield (f"{net}: {Sum(*terms)}",
                   lambda terms=terms, w=w: along_cycles(terms, w, terms in EXACT))
    for quantized in GROWTH[:3] if args.quick else GROWTH:
        for n in SIZES[:2] if args.quick else SIZES:
            yield (f"n = {n:,}: {Sum(quantized, Prune(keep=0.03))}",
                   lambda quantized=quantized, n=n: as_n_grows(quantized, n, 3))


def run(args, file):
    """Solve the cases that the file does not hold, and save after each."""
    made = common.made_by("part5/csteps/run.py", args)
    known = json.loads(file.read_text())["cases"] if file.exists() else {}
    result = {**made, "cases": known}
    for name, solve in tqdm(list(cases(args)), unit="case", disable=None):
        if name not in known:
            known[name] = solve()
            file.write_text(json.dumps(result, ensure_ascii=False) + "\n")
    return result


def table(result):
    nets = [(name, case) for name, case in result["cases"].items() if "orders" in case]
    lines = [[name.split(": ")[0], ", then ".join(run["order"]), case["exact"]["status"],
              *(f"{100 * run['excess'][cycle - 1]:.2g}%" for cycle in SHOWN), run["cycles"],
              f"{run['seconds']:.2g}"
              + (f"; {case['exact']['seconds']:.2g}" if "seconds" in case["exact"] else "")]
             for name, case in nets for run in case["orders"]]
    text = fronts.markdown(["net", "order", "optimum", "excess after 1 cycle",
                            *map(str, SHOWN[1:]), "cycles until it stops",
                            "seconds: alternation; exact"], lines)
    sums = dict.fromkeys(name.split(": ")[1] for name, case in result["cases"].items()
                         if "alternation" in case)
    lines = []
    for name in sums:
        of_sum = {key.split(": ")[0]: case for key, case in result["cases"].items()
                  if key.endswith(f": {name}") and "alternation" in case}
        lines.append([name, *(f"{case['exact']:.2g}; {case['alternation']:.2g}; "
                              f"{100 * case['excess']:.2g}%" for case in of_sum.values())])
    return text + "\n" + fronts.markdown(
        ["seconds: exact; alternation; its excess", *of_sum], lines)


def figure(result, file):
    """The excess along cycles: a row for each net, the sums with an exact solver left."""
    nets = [(name, case) for name, case in result["cases"].items() if "orders" in case]
    picture = Figure(figsize=(9, 7.5), dpi=200, layout="constrained")
    grid = picture.subplots(len(NETS), 2, sharex=True, sharey=True)
    for axes_of, net in zip(grid, NETS):
        for axes, known in zip(axes_of, (True, False)):
            chosen = [(name.split(": ")[1], case) for name, case in nets
                      if name.startswith(net)
                      and (case["exact"]["status"] != "best known") == known]
            for i, (name, case) in enumerate(chosen):
                for j, run in enumerate(case["orders"]):
                    axes.plot(range(1, CYCLES + 1), np.maximum(run["excess"], 1e-9), color=f"C{i}",
                              linestyle=("-", "--", ":", "-.")[j % 4], linewidth=1.2,
                              label=name if j == 0 else None)
            axes.set(xscale="log", yscale="log", ylim=(1e-5, 0.5), title=f"{net}, over "
                     + ("the exact optimum" if known else "the best point known"))
            axes.title.set_fontsize(10)
            axes.legend(fontsize=7, loc="lower left")
            axes.grid(color="0.92")
    for axes in grid[-1]:
        axes.set_xlabel("cycles")
    for axes in grid[:, 0]:
        axes.set_ylabel("excess of the objective")
    picture.savefig(file, metadata={"Software": None})


def main():
    args = common.arguments(__doc__, Path(__file__).parent, reference=None)
    if not args.quick and not args.data_dir:
        sys.exit("the weights are needed: give --data-dir or set LCREF_DATA")
    result = run(args, args.out / "result.json")
    (args.out / "table.md").write_text(table(result))
    figure(result, args.out / "cycles.png")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measure where the time of a whole LC run on LeNet300 / MNIST goes, by phase.

    python papers_repro/part5/phases.py [--data-dir DIR] [--quick] [--out DIR] [--threads 1,2]

The run is the published one (batch 256, float32, each(quantize(k=2)) + prune(keep=0.01)) with fewer
epochs and steps: every batch costs the same, so the seconds of the phases inside an L step are
scaled to 20 epochs a step. One clock is read where a phase begins and where it ends, by wrappers
around the functions themselves. "Products alone" are those of a batch again and again on the same
arrays, which are then in the cache. As in `lcref compress` the next batch is gathered by a thread
beside, so "gathering" is the time that is waited for it, and the work of handing it over.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import lcref
from lcref import data, flat, lc, lsteps, nets, parse
from lcref.nets import layers, multilayer
from lcref.nets.checkpoints import read_params
from lcref.training import report

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import machine  # noqa: E402

RESULTS = Path(__file__).parent / "results"

COMPRESSION, BATCH, PUBLISHED_EPOCHS = "each(quantize(k=2)) + prune(keep=0.01)", 256, 20
PHASES = ("products, those of evaluation too", "rest of forward and backward", "update",
          "gathering", "C step", "rest of evaluation", "bookkeeping")


class Clock:
    """Seconds by name, of all calls of a function that `timed` wraps."""

    def __init__(self):
        self.seconds = {}

    def timed(self, name, f):
        def wrapper(*args, **kwargs):
            begin = time.perf_counter()
            try:
                return f(*args, **kwargs)
            finally:
                spent = time.perf_counter() - begin
                self.seconds[name] = self.seconds.get(name, 0.0) + spent
        return wrapper

    def iterated(self, name, f):
        """The same for a function that returns a generator, around each item."""
        def wrapper(*args, **kwargs):
            items = f(*args, **kwargs)
            take = self.timed(name, lambda: next(items, None))
            while (item := take()) is not None:
                yield item
        return wrapper


@contextmanager
def replaced(*places):
    """Set attributes of modules and classes, and put them back."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, value in places:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def measure(dataset, net, params, threads, epochs, steps):
    """The Clock of one run."""
    clock = Clock()
    value_and_grad = clock.timed("gradient", nets.value_and_grad(net))
    l_step = lsteps.SGD(value_and_grad, dataset.x_train, dataset.y_train, lr=0.09, decay=0.98,
                        batch=BATCH, epochs=epochs, prepare=dataset.prepare)
    timed_l_step = clock.timed("L step", l_step)
    tasks = [lcref.Task(tuple(net.weights), parse(COMPRESSION))]
    with nets.threads(threads), replaced(
            (multilayer, "_in_blocks", clock.timed("products", multilayer._in_blocks)),
            (layers, "_product", clock.timed("products of evaluation", layers._product)),
            (flat.Weights, "move", clock.timed("update", flat.Weights.move)),
            (lsteps, "batches", clock.iterated("gathering", lsteps.batches)),
            (lc, "c_step", clock.timed("C step", lc.c_step))):
        evaluate = clock.timed("evaluation", lambda p: report(net, p, dataset))
        begin = time.perf_counter()
        for _ in lc.iterate(params, tasks, timed_l_step, lc.Schedule(9e-5, 1.1, steps), evaluate):
            pass
        clock.seconds["total"] = time.perf_counter() - begin
    return clock


def replay(inputs, threads, turns=30):
    """Median seconds of the products of one batch, alone."""
    rng, widths = np.random.default_rng(0), (inputs, 300, 100, 10)
    h = [rng.normal(size=(BATCH, n)).astype(np.float32) for n in widths]
    w = [rng.normal(size=(m, n)).astype(np.float32) for n, m in zip(widths, widths[1:])]

    def once():
        for i in range(len(w)):
            multilayer._outputs(h[i], w[i])
            multilayer._product(h[i + 1].T, h[i])
            if i:
                multilayer._product(h[i + 1], w[i])
    times = []
    with nets.threads(threads):
        for _ in range(turns):
            begin = time.perf_counter()
            once()
            times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def phases(clock, epochs):
    """Seconds by phase of a run with as many steps and the published epochs in each."""
    s, scale = clock.seconds, PUBLISHED_EPOCHS / epochs
    rest = s["L step"] - s["gradient"] - s["update"] - s["gathering"]
    outside = s["total"] - s["L step"] - s["C step"] - s["evaluation"]
    of_evaluation = s["products of evaluation"]
    return dict(zip(PHASES, (
        s["products"] * scale + of_evaluation, (s["gradient"] - s["products"]) * scale,
        s["update"] * scale, s["gathering"] * scale, s["C step"],
        s["evaluation"] - of_evaluation, outside + rest * scale)))


def row(dataset, net, params, threads, epochs, steps):
    """The numbers of one number of threads, in JSON."""
    measure(dataset, net, params, threads, 1, 1)    # not counted: libraries and memory warm up
    clock = measure(dataset, net, params, threads, epochs, steps)
    found = phases(clock, epochs)
    batches = steps * epochs * -(-len(dataset.x_train) // BATCH)
    return {"threads": threads, "seconds": found,
            "not_products": 1 - found[PHASES[0]] / sum(found.values()),
            "ms_a_batch": {"L step": 1e3 * clock.seconds["L step"] / batches,
                           "products": 1e3 * clock.seconds["products"] / batches,
                           "products alone": 1e3 * replay(dataset.x_train.shape[1], threads)}}


def table(result):
    """Markdown: a phase a line, a number of threads a column pair."""
    rows = result["rows"]
    lines = ["| phase | " + " | ".join(f"{r['threads']} thread{'s' * (r['threads'] > 1)}, s | share"
                                       for r in rows) + " |", "|---|" + "---|---|" * len(rows)]
    for phase in PHASES:
        cells = (f"{(s := r['seconds'])[phase]:.2f} | {s[phase] / sum(s.values()):.1%}"
                 for r in rows)
        lines.append(f"| {phase} | " + " | ".join(cells) + " |")
    lines.append("| **not products** | " + " | ".join(
        f"| **{r['not_products']:.1%}**" for r in rows) + " |")
    for what in ("L step", "products", "products alone"):
        lines.append(f"| {what}, ms a batch | " + " | ".join(
            f"{r['ms_a_batch'][what]:.2f} | " for r in rows) + "|")
    about = (f"{result['steps']} LC steps of {result['epochs']} epochs, scaled to "
             f"{PUBLISHED_EPOCHS}; `{result['command']}`, {result['date']}")
    return "\n".join([about, "", *lines]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("LCREF_DATA"),
                        help="folder with MNIST (default: the environment variable LCREF_DATA)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default 1,2)")
    parser.add_argument("--quick", action="store_true", help="the bundled digits, one epoch a step")
    parser.add_argument("--out", type=Path, default=RESULTS / "phases")
    args = parser.parse_args()
    dataset = data.load("digits" if args.quick else "mnist", args.data_dir)
    net = nets.build("lenet300", dataset.x_train.shape[1], 10, "tanh")
    params = net.init(np.random.default_rng(0)) if args.quick else read_params(
        Path(args.data_dir, "weights", "lenet300_mnist.npz"), net)
    epochs, steps = (1, 2) if args.quick else (2, 4)
    rows = [row(dataset, net, params, threads, epochs, steps)
            for threads in map(int, args.threads.split(","))]
    result = {"command": "python papers_repro/part5/phases.py" + " --quick" * args.quick,
              "date": datetime.date.today().isoformat(), "machine": machine(),
              "versions": {"lcref": lcref.__version__, "numpy": np.__version__,
                           "python": platform.python_version()},
              "epochs": epochs, "steps": steps, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "phases.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "table.md").write_text(table(result))
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

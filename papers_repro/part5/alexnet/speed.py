"""What a batch of AlexNet takes on a CPU: its images, its L step, and a C step of all weights.

    python papers_repro/part5/alexnet/speed.py [--out DIR] [--quick]

Images of 500 × 375 pixels are drawn as JPEG files, for no ImageNet is needed to time them: blurred
noise with grain, so that a file has about the 110 KB that one of ImageNet has. All is on one
thread: seconds are medians of the turns, "processor" those that the process had a core for. Peak
memory is that of all arrays, as tracemalloc sees them, with weights, targets, velocity and inputs:
not of the resident process, from which the system may take pages away.
"""

import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
from PIL import Image

from lcref import data, nets, parse
from lcref.lsteps import SGD

sys.path.insert(0, str(Path(__file__).parents[2]))
import common  # noqa: E402
import fronts  # noqa: E402

BATCH, TURNS, IMAGES = 32, 3, 64
TEXT = "each(quantize(k=2)) + prune(keep=0.01, storage='float16')"
TRAINING_SET = 1_281_167


def draw(folder, images):
    """Write the images, in one class, and as many to test on as there must be."""
    rng, sizes = np.random.default_rng(0), []
    for part, count in (("train", images), ("val", 1)):
        below = Path(folder) / part / "n00000000"
        below.mkdir(parents=True)
        for i in range(count):
            coarse = np.clip(rng.normal(128, 60, (47, 63, 3)), 0, 255).astype(np.uint8)
            image = np.asarray(Image.fromarray(coarse).resize((500, 375)))
            grain = rng.normal(0, 15, image.shape)
            pixels = np.clip(image + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(below / f"{i}.JPEG", quality=90)
            sizes.append((below / f"{i}.JPEG").stat().st_size)
    return statistics.mean(sizes)


def timed(call, turns):
    """The median seconds of a call, and its median processor seconds, after a turn uncounted."""
    call()
    found = []
    for _ in range(turns):
        begin = time.perf_counter(), time.process_time()
        call()
        found.append([time.perf_counter() - begin[0], time.process_time() - begin[1]])
    return dict(zip(("seconds", "processor"), map(statistics.median, zip(*found))))


def reading(images, turns):
    """Reading a batch: the central parts, as for the test error, and random ones of training."""
    with tempfile.TemporaryDirectory() as folder:
        size = draw(folder, images)
        dataset = data.load("imagenet", folder)
        x, rng = dataset.x_train, np.random.default_rng(0)
        return {"mean bytes of a file": round(size),
                **{what: {"batch": images, **timed(call, turns)} for what, call in (
                    ("images, central part", lambda: dataset.prepare(x)),
                    ("images, random part", lambda: dataset.augment(x, rng)))}}


def problem(batch):
    """(net, weights, a batch of inputs, its labels)."""
    net, rng = nets.alexnet(), np.random.default_rng(0)
    x = rng.normal(size=(batch, *net.input_shape)).astype(np.float32)
    return net, net.init(rng), x, rng.integers(0, net.classes, batch)


def peak_of(call):
    """The most MB that all arrays made since tracemalloc began take while a call lasts."""
    tracemalloc.reset_peak()
    call()
    return round(tracemalloc.get_traced_memory()[1] / 2**20)


def learning(batch, turns):
    """Forward and backward of a batch, and an L step of this one batch: with penalty and update."""
    net, params, x, labels = problem(batch)
    gradient, rng = nets.value_and_grad(net), np.random.default_rng(0)
    step = l_step(net, params, x, labels)
    found = {"forward and backward": timed(lambda: gradient(params, x, labels, rng), turns),
             "L step of one batch": timed(step, turns)}
    tracemalloc.start()
    step = l_step(*problem(batch))
    step()
    found["L step of one batch"]["peak MB"] = peak_of(step)
    tracemalloc.stop()
    return {what: {"batch": batch, **row} for what, row in found.items()}


def l_step(net, params, x, labels):
    """A function that takes an L step, which goes on from the state of the last one."""
    sgd = SGD(nets.value_and_grad(net), x, labels, lr=1e-3, batch=len(x), epochs=1,
              draws=net.random)
    targets, state = {name: params[name].copy() for name in net.weights}, None

    def step():
        nonlocal state
        state = sgd(params, targets, 1e-3, 1, state)[1]
    return step


def compressing(turns):
    """The C step that is direct compression of weights as they are drawn."""
    tracemalloc.start()
    net, params, *_ = problem(1)
    weights, c_step = {name: params[name] for name in net.weights}, parse(TEXT)
    peak = peak_of(lambda: c_step.project(weights))
    tracemalloc.stop()
    return {"C step": {"batch": None, **timed(lambda: c_step.project(weights), turns),
                       "peak MB": peak}}


def table(found):
    """What was measured in Markdown, with what an epoch of ImageNet would take."""
    lines = []
    for what, row in found.items():
        if isinstance(row, dict):
            each = row["processor"] / row["batch"] if row["batch"] else None
            lines.append([what, row["batch"] or "", f"{row['seconds']:.2f}",
                          f"{row['processor']:.2f}", f"{1 / each:,.0f}" if each else "",
                          f"{each * TRAINING_SET / 3600:.1f}" if each else "",
                          f"{row['peak MB']:,}" if "peak MB" in row else ""])
    return fronts.markdown(["", "images", "seconds", "of processor", "images a second of processor",
                            f"hours for {TRAINING_SET:,} images", "peak MB"], lines)


def main():
    args = common.arguments(__doc__, Path(__file__).parent, reference=None)
    with nets.threads(1):
        found = reading(8 if args.quick else IMAGES, 1 if args.quick else TURNS)
        if not args.quick:
            found |= learning(BATCH, TURNS) | compressing(TURNS)
    made = {**common.made_by("part5/alexnet/speed.py", args), "threads": 1}
    (args.out / "speed.json").write_text(json.dumps({**made, "measured": found}, indent=1) + "\n")
    (args.out / "speed.md").write_text(table(found))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

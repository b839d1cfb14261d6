"""Part V on LeNet5 and MNIST: the error-ratio picture.

    python papers_repro/part5/lenet5/run.py [--quick] [--data-dir DIR] [--reference FILE]

The reference net is trained first, in WORK/lenet5-reference, unless one is given. An L step passes
over one of PARTS parts of the training images, the parts in turn, which `lcref compress` does not
do: the command of a row says its other settings. The training error and loss are those of the first
10,000 training images. With --quick the data are the bundled digits, enlarged.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from lcref import data, nets, training
from lcref.lsteps import SGD

sys.path.insert(0, str(Path(__file__).parents[2]))
import common  # noqa: E402
import fronts  # noqa: E402

PARTS, EVALUATED = 20, 10_000
REFERENCE = "lenet5-reference"
TRAIN = "--net lenet5 --activation relu --data mnist --epochs 3 --batch 64 --lr 0.02"
BASE = ("--net lenet5 --activation relu --data mnist --reference lenet5.npz --batch 64 "
        "--mu0 0.02 --growth 1.17 --steps 30 --epochs 1 --lr 0.02 --lr-decay 0.95")
TEXTS = [
    *(f"each(quantize(k={k}))" for k in (2, 4, 16)),
    *(f"prune(keep={keep})" for keep in (0.005, 0.01, 0.02, 0.05)),
    *(f"lowrank(rank={rank})" for rank in (2, 5, 10)),
    *(f"each(quantize(k=2)) + prune(keep={keep})" for keep in (0.0025, 0.005, 0.01, 0.03)),
    *(f"lowrank(rank={rank}) + prune(keep={keep})" for rank, keep in
      ((1, 0.005), (1, 0.01), (2, 0.01), (2, 0.02))),
    *(f"each(quantize(k=2)) + lowrank(rank={rank})" for rank in (1, 2)),
    *(f"each(quantize(k=2)) + lowrank(rank=1) + prune(keep={keep})" for keep in (0.005, 0.01)),
]
ROWS = common.short(BASE, TEXTS)
QUICK = common.short("--net lenet5 --data mnist --reference-epochs 2 --steps 2 --epochs 1",
                     [TEXTS[0], TEXTS[5], TEXTS[12]])


def by_parts(job):
    """An L step over one part of the training images, and the evaluation of a sample of them."""
    x, y = job.dataset.x_train, job.dataset.y_train
    settings = training.inputs_of_training(job.args, job.dataset, job.net)
    steps = [SGD(nets.value_and_grad(job.net), x[i::PARTS], y[i::PARTS], lr=job.args.lr,
                 decay=job.args.lr_decay, epochs=job.args.epochs, **settings)
             for i in range(PARTS)]
    sample = dataclasses.replace(job.dataset, x_train=x[:EVALUATED], y_train=y[:EVALUATED])

    def l_step(params, targets, mu, step, state):
        return steps[step % PARTS](params, targets, mu, step, state)
    return l_step, lambda params: training.report(job.net, params, sample)


def enlarged_digits(folder):
    """Write the bundled digits, 24 × 24 pixels in a frame of 2, as the files of MNIST."""
    digits = data.load("digits")
    for part, stem in (("train", "train"), ("test", "t10k")):
        x, y = getattr(digits, f"x_{part}"), getattr(digits, f"y_{part}")
        pixels = np.kron(x.reshape(-1, 8, 8), np.ones((1, 3, 3)))   # centred: 0 is the mean
        pixels = np.pad(127 + 120 * pixels, ((0, 0), (2, 2), (2, 2)), constant_values=127)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", y)):
            header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
            (folder / f"{stem}-{kind}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    return str(folder)


def main():
    args = common.arguments(__doc__, Path(__file__).parent, "lenet5.npz")
    if args.quick:
        args.data_dir = enlarged_digits(args.out)
    elif not Path(args.reference).exists():
        args.reference = str(common.trained(REFERENCE, TRAIN, args))
    known = common.run(QUICK if args.quick else ROWS, args, taken=by_parts)
    rows = list(known.values())
    fronts.picture(rows, args.out)
    text = "\n".join([fronts.errors_table(rows), fronts.front_table(rows),
                      fronts.kinds_table(rows, (1, 1.2, 1.5, 2, 3))])
    (args.out / "tables.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

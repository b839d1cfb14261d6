"""Part V on VGG16 and CIFAR-10: low rank plus corrections beside other compressions.

    python papers_repro/part5/vgg16/run.py [--quick] [--data-dir DIR] [--reference FILE]

Without --only the net is VGG16 with a quarter of the channels, which is trained first, in
WORK/vgg16-quarter-reference, unless a reference is given. VGG16 itself is for a GPU:

    python papers_repro/part5/vgg16/run.py --only 'vgg16-full-*' --reference FILE

With --quick the net is LeNet300 on the digits.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import common  # noqa: E402
import fronts  # noqa: E402

REFERENCE = "vgg16-quarter-reference"
TRAIN = ("--net vgg16-quarter --data cifar10 --epochs 30 --lr 0.05 --milestones 20,26 "
         "--weight-decay 5e-4 --batch 128 --augment")
BASE = ("--net vgg16-quarter --data cifar10 --reference vgg16-quarter.npz --batch 128 --augment "
        "--storage float16 --mu0 3e-3 --growth 4 --steps 6 --epochs 1 --lr 0.01 --lr-decay 0.6")
FULL = ("--net vgg16 --data cifar10 --reference vgg16.npz --batch 128 --augment --storage float16 "
        "--mu0 2e-5 --growth 1.2 --steps 60 --epochs 15 --lr 7e-4 --lr-decay 1 --epoch-decay 0.99 "
        "--device cuda")
TEXTS = ["lowrank(rank=2) + prune(keep=0.02)", "prune(keep=0.03)",
         "each(quantize(k=2)) + prune(keep=0.01)", "lowrank(rank=4)",
         "lowrank(rank=2) + prune(keep=0.04)", "prune(keep=0.06)"]
WIDE = ["lowrank(rank=2) + prune(keep=0.02)", "lowrank(rank=3) + prune(keep=0.02)",
        "each(quantize(k=2)) + prune(keep=0.01)", "lowrank(rank=10)", "prune(keep=0.025)"]
ROWS = common.short(BASE, TEXTS) | {
    name.replace("short", "vgg16-full"): flags for name, flags in common.short(FULL, WIDE).items()}
QUICK = common.short(common.QUICK, TEXTS[:4])


def main():
    args = common.arguments(__doc__, Path(__file__).parent, "vgg16-quarter.npz")
    args.only = args.only or ["short-*"]
    if not args.quick and not Path(args.reference).exists():
        args.reference = str(common.trained(REFERENCE, TRAIN, args))
    rows = list(common.run(QUICK if args.quick else ROWS, args).values())
    fronts.picture(rows, args.out, "float16")
    text = "\n".join([fronts.errors_table(rows, storage="float16"),
                      fronts.front_table(rows, "float16")])
    (args.out / "tables.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

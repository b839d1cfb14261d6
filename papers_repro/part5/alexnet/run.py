"""Part V on AlexNet and ImageNet: one bit a weight plus a few corrections. It has not run.

    python papers_repro/part5/alexnet/run.py --data-dir DIR --reference FILE

DIR has ImageNet in imagenet/train and imagenet/val, a folder a class, and FILE the weights of a
trained AlexNet; README.md says under which names. The rows are for a GPU, and go on where they were
stopped. With --quick three classes of a few images are drawn, and an AlexNet goes through one step.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
import common  # noqa: E402
import fronts  # noqa: E402

REFERENCE = "alexnet_imagenet.npz"
BASE = (f"--net alexnet --data imagenet --reference {REFERENCE} --batch 256 --augment "
        "--weight-decay 5e-4 --mu0 2e-5 --growth 1.44 --steps 30 --epochs 1 --lr 1e-3 "
        "--lr-decay 0.9 --train-sample 50000 --threads 16 --device cuda --storage float16")
ONE_BIT = "each(quantize(k=2))"
ROWS = {"alexnet-1bit": f"{BASE} --compress '{ONE_BIT}'"} | {
    f"alexnet-1bit-{p}percent": f"{BASE} --compress '{ONE_BIT} + prune(keep={p / 100:g})'"
    for p in (0.25, 0.5, 1)} | {
    "alexnet-keep-2percent": f"{BASE} --compress 'prune(keep=0.02)'"}
QUICK = {"short-1bit-1percent": "--net alexnet --data imagenet --reference-epochs 1 --batch 18 "
         "--lr 1e-3 --steps 1 --epochs 1 --storage float16 "
         f"--compress '{ONE_BIT} + prune(keep=0.01)'"}


def draw(folder, classes=3, images=6):
    """Write images of different sizes and kinds, the darker classes first, as ImageNet has them."""
    rng = np.random.default_rng(0)
    for part, count in (("train", images), ("val", images // 3)):
        for label in range(classes):
            below = folder / "imagenet" / part / f"n{label:08}"
            below.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                noise = rng.normal(60 + 60 * label, 25, (*rng.integers(180, 420, 2), 3))
                image = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
                image = image.convert(("RGB", "L", "CMYK")[i % 3])
                image.save(below / f"{below.name}_{i}.JPEG")
    return str(folder)


def main():
    args = common.arguments(__doc__, Path(__file__).parent, REFERENCE)
    if args.quick:
        args.data_dir = draw(args.out)
    rows = list(common.run(QUICK if args.quick else ROWS, args).values())
    text = fronts.errors_table(rows, storage="float16")
    (args.out / "tables.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

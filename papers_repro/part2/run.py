"""Part II: quantization of LeNet300 on MNIST, learned codebooks of k = 2 to 64 and fixed ones.

    python papers_repro/part2/run.py [--quick] [--data-dir DIR] [--reference FILE]

The learned codebooks are rows of part5/lenet300 as well, and are taken from its results where it
has them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import common  # noqa: E402
import fronts  # noqa: E402

LEARNED = [f"each(quantize(k={k}))" for k in (2, 4, 8, 16, 32, 64)]
FIXED = ["each(binary(scale=True))", "each(ternary(scale=True))"]
ROWS = common.short(f"{common.LENET300} {common.SHORT}", LEARNED + FIXED)
QUICK = common.short(common.QUICK, LEARNED[:2] + FIXED[:1])


def main():
    args = common.arguments(__doc__, Path(__file__).parent)
    rows = QUICK if args.quick else ROWS
    known = common.run(rows, args, [] if args.quick else [common.SINGLE])
    fronts.picture(list(known.values()), args.out)
    text = fronts.errors_table(known.values())
    (args.out / "table.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

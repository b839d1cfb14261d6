"""CVPR 2018: pruning LeNet300 on MNIST by l0 and l1, as constraints and as penalties.

    python papers_repro/cvpr2018/run.py [--quick] [--data-dir DIR] [--reference FILE]

Constraints of l0 are rows of part5/lenet300 as well, and are taken from its results where it has
them. Of an l1 ball the radius is given, of a penalty α; how many weights are left is for the
algorithm to find.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import common  # noqa: E402

FORMS = {
    "l0 constraint": [f"prune(keep={keep})" for keep in (0.01, 0.02, 0.05, 0.1)],
    "l0 penalty": [f"prune(alpha={alpha})" for alpha in ("1e-6", "3e-6", "1e-5", "3e-5")],
    "l1 constraint": [f"prune(radius={radius})" for radius in (500, 1000, 2000)],
    "l1 penalty": [f"prune(alpha={alpha}, norm=1)" for alpha in ("1e-5", "3e-5", "1e-4")],
}
BASE = f"{common.LENET300} {common.SHORT}"
ROWS = common.short(BASE, sum(FORMS.values(), []))
QUICK = common.short(common.QUICK, [texts[i] for texts, i in zip(FORMS.values(), (2, 2, 0, 2))])


def main():
    args = common.arguments(__doc__, Path(__file__).parent)
    rows = QUICK if args.quick else ROWS
    known = common.run(rows, args, [] if args.quick else [common.SINGLE])
    form_of = {name: form for form, texts in FORMS.items() for name in common.short("", texts)}
    drawn = [{**known[name], "kind": form_of[name]} for name in rows if name in known]
    common.picture(drawn, args.out)
    text = common.errors_table(drawn, {
        "form": lambda row: row["kind"],
        "weights left": lambda row: f"{row['nonzeros']:,} ({row['nonzeros'] / 2662:.2f}%)"
        if not args.quick else f"{row['nonzeros']:,}"})
    (args.out / "table.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

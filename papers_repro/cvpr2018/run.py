"""CVPR 2018: pruning LeNet300 on MNIST by l0 and l1, as constraints and as penalties.

    python papers_repro/cvpr2018/run.py [--quick] [--data-dir DIR] [--reference FILE]

Of an l0 ball the number of weights that are left is given, of an l1 ball the radius, of a penalty
α. How many weights of each layer are left is for the algorithm to find, and so are which: those are
counted that direct compression, at the first μ, would have pruned.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import common  # noqa: E402
import fronts  # noqa: E402

FORMS = {
    "l0 constraint": [f"prune(keep={keep})" for keep in (0.01, 0.02, 0.05)],
    "l0 penalty": [f"prune(alpha={alpha})" for alpha in ("1e-6", "3e-6", "1e-5", "3e-5")],
    "l1 constraint": [f"prune(radius={radius})" for radius in (500, 1000, 2000)],
    "l1 penalty": [f"prune(alpha={alpha}, norm=1)" for alpha in ("1e-5", "3e-5", "1e-4")],
}
LENET300, DIGITS = (235_200, 30_000, 1_000), (19_200, 30_000, 1_000)    # weights of the layers
BASE = f"{common.LENET300} {common.SHORT}"
ROWS = common.short(BASE, sum(FORMS.values(), []))
QUICK = common.short(common.QUICK, [texts[i] for texts, i in zip(FORMS.values(), (2, 2, 0, 1))])


def shares(row):
    """The share of each layer's weights that is left."""
    sizes = LENET300 if "--net lenet300" in row["command"] else DIGITS
    counts = [count for count, _ in row["left"].values()]
    return ", ".join(f"{100 * count / n:.2g}%" for count, n in zip(counts, sizes))


def moved(row):
    """The share of the weights that are left which direct compression would have pruned."""
    count, new = (sum(column) for column in zip(*row["left"].values()))
    return f"{100 * new / count:.0f}%" if count else "none left"


def objectives(row, rows):
    """Of an l0 penalty L + α·(weights left), and the least of all rows' nets at this α."""
    if row["kind"] != "l0 penalty":
        return ""
    alpha = float(row["tasks"][0].split("alpha=")[1].strip(")"))
    own, *least = (other["lc"]["loss"] + alpha * other["nonzeros"] for other in (row, *rows))
    return f"{own:.3g}; {min(least):.3g}"


def main():
    args = common.arguments(__doc__, Path(__file__).parent)
    rows = QUICK if args.quick else ROWS
    known = common.run(rows, args)
    form_of = {name: form for form, texts in FORMS.items() for name in common.short("", texts)}
    drawn = [{**known[name], "kind": form_of[name]} for name in rows if name in known]
    fronts.picture(drawn, args.out)
    text = fronts.errors_table(drawn, {
        "form": lambda row: row["kind"], "left": lambda row: f"{row['nonzeros']:,}",
        "of each layer": shares, "not in direct compression": moved,
        "L + α‖θ‖₀; least of all nets": lambda row: objectives(row, drawn)})
    (args.out / "table.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

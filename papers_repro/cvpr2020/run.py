"""CVPR 2020: the rank of each layer of LeNet300 on MNIST, selected along α.

    python papers_repro/cvpr2020/run.py [--quick] [--data-dir DIR] [--reference FILE]

    min over w, θ, r of  L(w) + α Σ cost(r_layer)   subject to   w_layer = U Vᵀ of rank r_layer

The cost is the storage, r·(m + n) numbers.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))
import common  # noqa: E402
import fronts  # noqa: E402

ALPHAS = ("3e-7", "1e-6", "3e-6", "1e-5", "3e-5", "1e-4")
BASE = f"{common.LENET300} {common.SHORT}"
ROWS = common.short(BASE, [f"each(lowrank(alpha={alpha}))" for alpha in ALPHAS])
QUICK = common.short(common.QUICK, [f"each(lowrank(alpha={alpha}))" for alpha in ("1e-5", "1e-4")])


def alpha_of(row):
    return float(row["tasks"][0].split("alpha=")[1].strip("()"))


def cost(row):
    """Σ r·(m + n) over the layers, whose m + n follows from the net."""
    sizes = {"fc1.weight": 300 + (784 if "mnist" in row["command"] else 64), "fc2.weight": 400,
             "fc3.weight": 110}
    return sum(rank * sizes[name] for name, rank in row["ranks"].items())


def objective(row, alpha):
    return row["lc"]["loss"] + alpha * cost(row)


def ranks_figure(rows, file):
    """The rank of each layer, and the test error, against α."""
    figure = Figure(figsize=(9, 3.8), dpi=200, layout="constrained")
    left, right = figure.subplots(1, 2)
    alphas = [alpha_of(row) for row in rows]
    for layer, marker in zip(rows[0]["ranks"], "o^s"):
        left.plot(alphas, [row["ranks"][layer] for row in rows], marker=marker, label=layer)
    left.set(xscale="log", yscale="symlog", xlabel="α", ylabel="selected rank", ylim=(-0.2, 300))
    left.legend()
    right.plot(alphas, [row["lc"]["test_error"] for row in rows], marker="o", label="LC")
    right.axhline(rows[0]["reference"]["test_error"], color="black", linestyle="--",
                  label="reference")
    right.set(xscale="log", yscale="log", xlabel="α", ylabel="test error, %")
    right.legend()
    for axes in (left, right):
        axes.grid(color="0.92")
    figure.savefig(file, metadata={"Software": None})


def main():
    args = common.arguments(__doc__, Path(__file__).parent)
    known = common.run(QUICK if args.quick else ROWS, args)
    rows = sorted(known.values(), key=alpha_of)
    ranks_figure(rows, args.out / "ranks.png")
    text = fronts.errors_table(rows, {
        "ranks of fc1, fc2, fc3": lambda row: ", ".join(map(str, row["ranks"].values())),
        "L + α·cost": lambda row: f"{objective(row, alpha_of(row)):.3g}",
        "least of all rows' nets at this α": lambda row: f"""{min(
            objective(other, alpha_of(row)) for other in rows):.3g}"""})
    (args.out / "table.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

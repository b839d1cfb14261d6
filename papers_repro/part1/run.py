"""Part I: the path of least squares from direct compression to the constrained optimum.

    python papers_repro/part1/run.py [--quick] [--out DIR]

    min over w of  L(w) = ½ ‖X w − y‖²   subject to   w in the l1 ball, or of k = 2 distinct values

The L step is in closed form, so that nothing is left to chance but the C step's local optima. For
the l1 ball, which is convex, the constrained optimum is that of a general solver, SLSQP on
w = p − q with p, q ≥ 0. For k = 2 values and few weights it is found by trying every partition of
the weights, and so is the whole path: for a partition with indicator Z the penalised problem

    min over w, c of  L(w) + μ/2 ‖w − Z c‖²

is a linear system. Nothing of lcref is used for either.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize

import lcref
from lcref import Prune, Quantize, Task
from lcref.lsteps import LeastSquares

sys.path.insert(0, str(Path(__file__).parents[1]))
import common  # noqa: E402
import fronts  # noqa: E402

MUS = 10.0 ** np.arange(-3, 5.01, 0.25)
PASSES = 200    # L and C steps at each μ of a path; with --quick 20


def problem(seed, inputs, rows=60):
    """X with columns of unequal scale, y from weights that are not compressible, and noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, inputs)) @ np.linalg.cholesky(
        0.6 * np.eye(inputs) + 0.4) * np.geomspace(0.5, 2, inputs)
    return x, x @ rng.laplace(size=inputs) + 0.5 * rng.normal(size=rows)


def loss(x, y, w):
    return 0.5 * float(np.sum((x @ w - y) ** 2))


# ---- oracles that share nothing with lcref -----------------------------------------------------


def optimum_l1(x, y, radius):
    """L's optimum in the l1 ball, by SLSQP."""
    n = x.shape[1]
    found = minimize(
        lambda z: loss(x, y, z[:n] - z[n:]), np.full(2 * n, radius / (4 * n)), method="SLSQP",
        jac=lambda z: np.concatenate([g := x.T @ (x @ (z[:n] - z[n:]) - y), -g]),
        bounds=[(0, None)] * 2 * n, options={"maxiter": 2000, "ftol": 1e-14},
        constraints={"type": "ineq", "fun": lambda z: radius - z.sum(),
                     "jac": lambda z: -np.ones(2 * n)})
    return found.x[:n] - found.x[n:]


def partitions(n):
    """Indicator matrices of all ways to put n weights into at most two clusters."""
    for rest in itertools.product((0, 1), repeat=n - 1):
        second = np.array((0, *rest))
        yield np.stack([1 - second, second], axis=1)[:, :1 + second.max()].astype(float)


def optimum_quantized(x, y):
    """L's optimum over the vectors of at most two values: least squares for each partition."""
    return min((z @ np.linalg.lstsq(x @ z, y, rcond=None)[0] for z in partitions(x.shape[1])),
               key=lambda w: loss(x, y, w))


def exact_path(x, y, mu):
    """The least L(w) + μ/2 ‖w − Z c‖² over w, c and the partition; returns (value, Z c)."""
    inverse = np.linalg.inv(x.T @ x + mu * np.eye(x.shape[1]))
    best = None
    for z in partitions(x.shape[1]):
        # with w = inverse (Xᵀy + μ Z c) the gradient in c, μ Zᵀ (Z c − w), is zero
        c = np.linalg.solve(z.T @ z - mu * z.T @ inverse @ z, z.T @ inverse @ x.T @ y)
        w = inverse @ (x.T @ y + mu * z @ c)
        value = loss(x, y, w) + mu / 2 * np.sum((w - z @ c) ** 2)
        if best is None or value < best[0]:
            best = float(value), z @ c
    return best


# ---- the algorithm -----------------------------------------------------------------------------


def path(x, y, compression, passes):
    """The quadratic-penalty path from the least-squares weights, with many passes at each μ."""
    l_step = LeastSquares(x, y)
    start = {"weight": np.linalg.lstsq(x, y, rcond=None)[0]}
    tasks = [Task(["weight"], compression)]
    schedule = lcref.Schedule(MUS[0], 10**0.25, passes * len(MUS), "quadratic", passes=passes)
    steps = itertools.islice(lcref.iterate(start, tasks, l_step, schedule),
                             passes - 1, None, passes)
    direct = compression.project(start["weight"]).decompress()
    return [row(x, y, step) for step in steps], direct


def row(x, y, step):
    w, delta = step.w["weight"], step.delta["weight"]
    return {"mu": step.mu, "loss of w": loss(x, y, w), "loss": loss(x, y, delta),
            "penalised": loss(x, y, w) + step.mu / 2 * float(np.sum((w - delta) ** 2)),
            "feasibility": step.feasibility, "delta": delta.tolist()}


def with_multipliers(x, y, compression, mu, steps=2000):
    """Δ(θ) of LC with multipliers at a fixed μ, which for a convex set is ADMM."""
    start = {"weight": np.linalg.lstsq(x, y, rcond=None)[0]}
    result = lcref.compress(start, [Task(["weight"], compression)], LeastSquares(x, y),
                            lcref.Schedule(mu, 1.0, steps, tol=1e-14))
    return result.params["weight"]


def convex(passes, seed=0, inputs=20):
    """The l1 ball of half the radius of the least-squares weights."""
    x, y = problem(seed, inputs)
    free = np.linalg.lstsq(x, y, rcond=None)[0]
    radius = 0.5 * float(np.abs(free).sum())
    best = optimum_l1(x, y, radius)
    steps, direct = path(x, y, Prune(radius=radius), passes)
    admm = with_multipliers(x, y, Prune(radius=radius), mu=30.0)
    return {"constraint": f"‖w‖₁ ≤ {radius:.4f}, half of the least-squares weights'",
            "weights": inputs, "least squares": loss(x, y, free), "direct": loss(x, y, direct),
            "optimum": loss(x, y, best), "multipliers, μ = 30": loss(x, y, admm),
            "distance of multipliers": distance(admm, best),
            "first distance to direct": distance(np.array(steps[0]["delta"]), direct),
            "last distance to optimum": distance(np.array(steps[-1]["delta"]), best),
            "path": steps}


def quantized(passes, seed=3, inputs=8):
    """k = 2 values for a few weights, with the path of the global optima beside LC's."""
    x, y = problem(seed, inputs)
    free = np.linalg.lstsq(x, y, rcond=None)[0]
    best = optimum_quantized(x, y)
    steps, direct = path(x, y, Quantize(k=2), passes)
    for step in steps:
        step["penalised, global"], delta = exact_path(x, y, step["mu"])
        step["loss, global"] = loss(x, y, delta)
    return {"constraint": "two distinct values", "weights": inputs,
            "least squares": loss(x, y, free), "direct": loss(x, y, direct),
            "optimum": loss(x, y, best),
            "first distance to direct": distance(np.array(steps[0]["delta"]), direct),
            "path": steps}


def many_quantized(seeds, inputs=8):
    """Excess loss over the global optimum, of direct compression and of LC, for each seed."""
    rows = []
    for seed in seeds:
        x, y = problem(seed, inputs)
        best = loss(x, y, optimum_quantized(x, y))
        free = np.linalg.lstsq(x, y, rcond=None)[0]
        direct = Quantize(k=2).project(free).decompress()
        fitted = {name: lcref.compress(
            {"weight": free}, [Task(["weight"], Quantize(k=2))], LeastSquares(x, y),
            lcref.Schedule(1e-2, 1.1, 150, name)).params["weight"]
            for name in ("augmented", "quadratic")}
        rows.append({"seed": seed, "direct": loss(x, y, direct) / best - 1,
                     **{name: loss(x, y, w) / best - 1 for name, w in fitted.items()}})
    return rows


def distance(a, b):
    """‖a − b‖ / ‖b‖."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# ---- what is written ---------------------------------------------------------------------------


def figure(problems, file):
    picture = Figure(figsize=(9, 4), dpi=200, layout="constrained")
    for axes, (title, found) in zip(picture.subplots(1, 2), problems.items()):
        mus = [step["mu"] for step in found["path"]]
        axes.plot(mus, [step["loss"] for step in found["path"]], color="#0072B2", label="L(Δ(θ))")
        axes.plot(mus, [step["loss of w"] for step in found["path"]], color="#E69F00",
                  label="L(w)")
        if "loss, global" in found["path"][0]:
            axes.plot(mus, [step["loss, global"] for step in found["path"]], ":", color="#009E73",
                      label="L(Δ(θ)) of the global optimum at μ")
        for level, color, style in (("direct", "#CC79A7", "--"), ("optimum", "black", "--"),
                                    ("least squares", "0.6", ":")):
            axes.axhline(found[level], color=color, linestyle=style, linewidth=1.2, label={
                "direct": "direct compression", "optimum": "constrained optimum"}.get(level, level))
        axes.set(xscale="log", yscale="log", xlabel="penalty μ", ylabel="loss", title=title)
        axes.legend(fontsize=8)
        axes.grid(color="0.92")
    picture.savefig(file, metadata={"Software": None})


def table(result):
    lines = []
    for title, found in result["problems"].items():
        last = found["path"][-1]
        lines.append([title, *(f"{found[name]:.6g}" for name in (
            "least squares", "direct", "optimum")), f"{last['loss']:.6g}",
            f"{last['loss'] / found['optimum'] - 1:.1e}", f"{last['feasibility']:.1e}"])
    text = fronts.markdown(["problem", "least squares", "direct compression",
                            "constrained optimum", "LC at the end of the path", "its excess",
                            "feasibility"], lines)
    rows = result["many"]
    lines = [[name, sum(row[name] < 1e-6 for row in rows),
              f"{100 * np.median([row[name] for row in rows]):.3g}%",
              f"{100 * max(row[name] for row in rows):.3g}%"]
             for name in ("direct", "quadratic", "augmented")]
    return text + "\n" + fronts.markdown(
        [f"of {len(rows)} problems of 8 weights, k = 2", "at the global optimum", "median excess",
         "largest excess"], lines)


def main():
    args = common.arguments(__doc__, Path(__file__).parent, reference=None)
    passes = 20 if args.quick else PASSES
    problems = {"l1 ball, 20 weights": convex(passes), "k = 2, 8 weights": quantized(passes)}
    result = {**common.made_by("part1/run.py", args), "problems": problems,
              "many": many_quantized(range(5 if args.quick else 200))}
    (args.out / "result.json").write_text(json.dumps(result, ensure_ascii=False) + "\n")
    (args.out / "table.md").write_text(table(result))
    figure(problems, args.out / "path.png")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

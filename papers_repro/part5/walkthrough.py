"""Part V by hand: a 4 × 6 matrix and a net of two layers through every step of the algorithm.

    python papers_repro/part5/walkthrough.py [--out DIR]

Read it from top to bottom with the paper beside it. Each section states the problem, computes the
answer from the formula with NumPy alone, and asserts that lcref gives the same; what is printed
names the file and the line of lcref that does it, found in the source when this runs. It writes
what it prints as walkthrough.md with four pictures.
"""

import argparse
import datetime
import inspect
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import lcref
from lcref import Binary, Prune, Quantize, Schedule, Sum, Task, composition, lc, projections
from lcref.lsteps import SGD, LeastSquares

W = np.array([[12, 1, 20, 7, -13, -13], [10, -11, 8, -8, -20, -13],
              [-5, -1, -10, 8, -11, -11], [-8, 13, -23, -12, 9, 6]]) / 10
KAPPA = 3
PART, CORRECTIONS = Binary(scale=True), Prune(kappa=KAPPA)
BLUE, RED, GREY = "#0072b2", "#d55e00", "#999999"   # told apart by colour-blind readers too
PAGE: list[str] = []    # what was said so far, in Markdown


def say(text=""):
    PAGE.append(text)
    print(text)


def show(name, array):
    """A number or a matrix, as a block."""
    rows = np.atleast_2d(np.asarray(array, float)) + 0.0
    lines = ["  ".join(f"{x:8.4f}" for x in row) for row in rows]
    say(f"```text\n{name} =\n" + "\n".join(lines) + "\n```\n")


def at(thing, text):
    """Where in lcref a statement stands, as `file:line`; an error where it stands no longer."""
    lines, first = inspect.getsourcelines(thing)
    (offset,) = (i for i, line in enumerate(lines) if text in line)
    file = Path(inspect.getsourcefile(thing)).relative_to(Path(lcref.__file__).parent.parent)
    return f"`{file.as_posix()}:{first + offset}`"


def numbers(positions):
    """The weights at some positions, for a sentence."""
    return ", ".join(f"{x:g}" for x in W.ravel()[positions])


def squares(x):
    return float(np.sum(x * x))


def picture(out, name, draw, title, x, y):
    """Draw into a new figure, write it, and put it on the page."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.set(title=title, xlabel=x, ylabel=y)
    figure.savefig(out / f"{name}.png", dpi=110)
    say(f"![{title}]({name}.png)\n")


# ---- 1 to 3: the problem, direct compression, the C step of one part ---------------------------


def problem():
    say("## 1. The problem\n")
    say("A layer of 4 × 6 weights w is held to a sum: every weight ±a, one bit and one number a "
        f"for all of them, plus κ = {KAPPA} floating-point corrections.\n\n"
        "    min over w, θ1, θ2 of  L(w)   subject to   w = Δ1(θ1) + Δ2(θ2),\n"
        "    Δ1(θ1) ∈ {−a, a}^(4×6),  a ≥ 0,   ‖Δ2(θ2)‖₀ ≤ κ\n")
    show("w", W)


def direct():
    say("## 2. Direct compression\n")
    say("Without corrections: the projection of w,\n\n    θ ← argmin over a, θ of ‖w − a θ‖², "
        "θ ∈ {−1, 1}\n\nFor any a ≥ 0 the sign of w_i is the better choice, as "
        "(w_i − a)² ≤ (w_i + a)² for w_i ≥ 0, which leaves Σ (abs(w_i) − a)²: least at the mean, "
        "a = (1/n) Σ abs(w_i). lcref: " + at(projections.binary, "def binary") + ".\n")
    a = np.abs(W).mean()
    theta = np.where(W >= 0, a, -a)
    show("a", a)
    assert np.allclose(theta, projections.binary(W, scale=True).decompress(), rtol=1e-15)
    worst = np.sort(((W - theta) ** 2).ravel())[-KAPPA:]
    say(f"‖w − Δ(θ)‖² = {squares(W - theta):.4f}, of which {KAPPA} weights cost {worst.sum():.4f}. "
        "That is what corrections are for.\n")


def one_part(out):
    say("## 3. The C step of one part\n")
    say("**At most κ nonzeros.** A kept weight costs 0 and a dropped one w_i²: keep the κ largest "
        "magnitudes. lcref: " + at(projections.l0_ball, "def l0_ball") + ".\n")
    kept = np.sort(np.argsort(-np.abs(W).ravel(), kind="stable")[:KAPPA])
    assert kept.tolist() == projections.l0_ball(W, KAPPA).indices.tolist()
    show("positions kept, and their weights", [kept, W.ravel()[kept]])
    say("**k = 2 values of any kind**, K-means in one dimension. Sort the weights; an optimal "
        "clustering cuts them once, and the entries are the means of the two runs. There are "
        "n − 1 cuts, and each is tried. lcref: " + at(projections.kmeans, "def kmeans") + ".\n")
    x = np.sort(W.ravel())
    costs = [squares(x[:i] - x[:i].mean()) + squares(x[i:] - x[i:].mean())
             for i in range(1, x.size)]
    best = int(np.argmin(costs)) + 1
    theta = projections.kmeans(W, 2)
    assert np.allclose(theta.entries, [x[:best].mean(), x[best:].mean()], rtol=1e-14)
    assert np.isclose(squares(W - theta.decompress()), costs[best - 1], rtol=1e-13)
    show(f"best of {x.size - 1} cuts, after {best} weights: entries", theta.entries)

    def draw(axes):
        axes.plot(np.arange(1, x.size) + 0.5, costs, "o-", color=BLUE, label="cost of the cut")
        axes.axvline(best + 0.5, color=RED, label=f"the least, {costs[best - 1]:.2f}")
        axes.legend(loc="upper left")
        other = axes.twinx()
        other.bar(np.arange(1, x.size + 1), x, color=GREY, alpha=0.5)
        other.set_ylabel("weight (grey)")
    picture(out, "cuts", draw, "K-means of 24 sorted weights: what each cut costs",
            "sorted weights", "‖w − θ‖²")


# ---- 4 and 5: a sum, by halves and exactly -----------------------------------------------------


def by_halves(out):
    say("## 4. A sum by halves\n")
    say("Δ1 + Δ2 by alternation: each part in turn is the projection of what the other leaves,\n\n"
        "    θ1 ← Π1(w − Δ2(θ2))     half-step of the quantized part\n"
        "    θ2 ← Π2(w − Δ1(θ1))     half-step of the corrections\n\n"
        "Neither can raise ‖w − Δ1 − Δ2‖², because the θ it replaces is feasible for the same "
        "problem. lcref: " + at(composition.alternate, "def alternate") + ", which asserts that on "
        "every half-step.\n")
    one, two, trace = np.zeros_like(W), np.zeros_like(W), []
    for cycle in range(100):
        before = trace[-1] if trace else np.inf
        rest = W - two
        one = np.where(rest >= 0, 1, -1) * np.abs(rest).mean()
        trace.append(squares(W - one - two))
        rest = W - one
        kept = np.argsort(-np.abs(rest).ravel(), kind="stable")[:KAPPA]
        two = np.zeros(W.size)
        two[kept] = rest.ravel()[kept]
        two = two.reshape(W.shape)
        trace.append(squares(W - one - two))
        if cycle < 3:
            say(f"Cycle {cycle + 1}: a = {np.abs(one).max():.4f}, objective {trace[-2]:.4f}; then "
                f"corrections at {np.sort(kept).tolist()}, objective {trace[-1]:.4f}.\n")
        if trace[-1] >= before * (1 - 1e-6):
            break
    assert all(b <= a * (1 + 1e-15) for a, b in zip(trace, trace[1:]))
    theta = Sum(PART, CORRECTIONS, solver="alternate", restarts=False).project(W)
    # the first entry of lcref's trace is infinite, until every part is set
    assert np.allclose(theta.trace[1:], trace[1:len(theta.trace)], rtol=1e-12)
    say(f"After {len(trace)} half-steps nothing changes: {trace[-1]:.4f}, status "
        f"`{theta.status}`.\n")
    return trace, np.sort(kept)


def exactly(out, trace, corrected):
    say("## 5. The same sum exactly\n")
    say("With the signs of w the weights that are not corrected cost Σ (abs(w_i) − a)²: choose κ "
        "weights to leave out and a. For any a the ones to keep are nearest to it, so they are a "
        "*window* of n − κ neighbours among the sorted magnitudes, and a is its mean: κ + 1 "
        "windows, of which the one with the least variance wins. lcref: "
        + at(projections.scaled_binary_l0, "def scaled_binary_l0") + ".\n")
    x, m = np.sort(np.abs(W).ravel()), W.size - KAPPA
    costs = [squares(x[i:i + m] - x[i:i + m].mean()) for i in range(KAPPA + 1)]
    best = int(np.argmin(costs))
    show("cost of the window that leaves out 0, 1, 2, 3 of the smallest", costs)
    theta = projections.scaled_binary_l0(W, KAPPA)
    total = squares(W - theta.decompress())
    assert np.isclose(total, costs[best], rtol=1e-13) and theta.status == "exact"
    assert total <= trace[-1] * (1 + 1e-13)
    say(f"The optimum is {costs[best]:.4f}, and the alternation of section 4 ended "
        f"{100 * (trace[-1] / total - 1):.1f}% above it: it corrects {numbers(corrected)}, the "
        f"optimum {numbers(theta.parts[1].indices)}. With the a of its corrections no half-step "
        "leads there. lcref takes the exact solver for this sum unless `solver='alternate'` is "
        "said.\n")
    show("Δ1(θ1) + Δ2(θ2)", theta.decompress())

    def objective(axes):
        axes.plot(np.arange(1, len(trace) + 1), trace, "o-", color=BLUE, label="alternation")
        axes.axhline(total, color=RED, label="exact")
        axes.legend()
        axes.set_xticks(np.arange(1, len(trace) + 1))
    picture(out, "half-steps", objective, "The objective along half-steps", "half-step",
            "‖w − Δ1 − Δ2‖²")

    def window(axes):
        inside = (np.arange(x.size) >= best) & (np.arange(x.size) < best + m)
        axes.bar(np.arange(1, x.size + 1)[inside], x[inside], color=BLUE, label="±a")
        axes.bar(np.arange(1, x.size + 1)[~inside], x[~inside], color=RED, label="corrected")
        axes.axhline(x[inside].mean(), color="black", ls="--", label="a")
        axes.legend()
    picture(out, "window", window, f"The window of {m} magnitudes, and the {KAPPA} corrections",
            "sorted magnitudes", "abs(w)")


# ---- 6 to 8: the L step, the multipliers, the loop ---------------------------------------------


def least_squares():
    """X and Y of a loss ½ ‖X Wᵀ − Y‖² whose minimiser is near W."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6))
    return x, x @ W.T + 0.1 * rng.normal(size=(40, 4))


def l_step():
    say("## 6. The L step\n")
    say("The loss here is ½ ‖X Wᵀ − Y‖², whose L step,\n\n    w ← argmin L(w) + μ/2 ‖w − T‖²,   "
        "T = Δ(θ) + λ/μ,\n\nis a linear system: its gradient (W Xᵀ − Yᵀ) X + μ (W − T) is zero. "
        "lcref: " + at(LeastSquares, "class LeastSquares") + "; the line of the loop is "
        + at(lc._iterate, "# L step") + ".\n")
    x, y = least_squares()
    mu, target = 5.0, projections.scaled_binary_l0(W, KAPPA).decompress()
    solved = np.linalg.solve(x.T @ x + mu * np.eye(6), x.T @ y + mu * target.T).T
    found, _ = LeastSquares(x, y)({"weight": W}, {"weight": target}, mu, 0, None)
    assert np.allclose(found["weight"], solved, rtol=0, atol=1e-12)
    gradient = (found["weight"] @ x.T - y.T) @ x + mu * (found["weight"] - target)
    say(f"μ = {mu}. The gradient there is at most {np.abs(gradient).max():.0e}.\n")
    assert np.abs(gradient).max() < 1e-11     # rounding: entries of 1e2, 40 terms
    show("w", found["weight"])

    def value_and_grad(params, inputs, outputs):
        residual = inputs @ params["weight"].T - outputs
        return 0.5 * squares(residual) / len(inputs), {
            "weight": residual.T @ inputs / len(inputs)}
    sgd = SGD(value_and_grad, x, y, lr=0.2, decay=1.0, batch=40, epochs=400)
    by_sgd, _ = sgd({"weight": W}, {"weight": target}, mu / 40, 0, None)
    off = np.abs(by_sgd["weight"] - solved).max()
    assert off < 1e-9      # 400 steps of a contraction by under 0.95 each
    say("SGD takes the mean of the losses where the sum was meant, so that its μ is μ / 40. With "
        "the whole set as a batch it is gradient descent with Nesterov's momentum; 400 "
        f"epochs end {'within 1e-9' if off < 1e-9 else 'elsewhere'} of the same w. "
        "lcref: " + at(SGD, "class SGD") + ".\n")
    return x, y


def multipliers(x, y):
    say("## 7. The multipliers\n")
    say("    λ ← λ − μ (w − Δ(θ))\n\nWhere the L step is exact its gradient is zero, "
        "∇L(w) = λ − μ (w − Δ(θ)) with the *old* θ. The new λ takes the new θ, and is ∇L(w) once w "
        "and Δ(θ) agree: the force by which the constraint holds w away from the minimum of L. "
        "lcref: " + at(lc.multipliers, "def multipliers") + ".\n")
    start = {"weight": np.linalg.lstsq(x, y, rcond=None)[0].T}
    tasks = [Task("weight", Sum(PART, CORRECTIONS))]
    first, second = list(lc.iterate(start, tasks, LeastSquares(x, y), Schedule(5.0, 2.0, 2)))
    for step, before in ((first, 0 * W), (second, first.lam["weight"])):
        w, delta = step.w["weight"], step.delta["weight"]
        assert np.allclose(step.lam["weight"], before - step.mu * (w - delta), atol=1e-12)
        # C step: θ ← argmin ‖w − λ/μ − Δ(θ)‖², here by the windows of section 5
        projected = projections.scaled_binary_l0(w - before / step.mu, KAPPA).decompress()
        assert np.allclose(delta, projected, atol=1e-12)
    show("λ after the first step, μ = 5", first.lam["weight"])
    return start, tasks


def loop(out, x, y, start, tasks):
    say("## 8. The loop\n")
    say("μ grows by a tenth in every step. w and Δ(θ) meet where no weight of the set is better. "
        "lcref: " + at(lc._iterate, "for k in range") + ". The last column is μ times what Δ(θ) "
        "moved in the step; were it not small at the end, θ would have frozen on its way.\n")

    def loss(params):
        return {"loss": 0.5 * squares(x @ params["weight"].T - y)}
    steps = list(lc.iterate(start, tasks, LeastSquares(x, y), Schedule(10.0, 1.1, 40), loss))
    say("| μ | L(w) | L(Δ(θ)) | ‖w − Δ(θ)‖ / ‖w‖ | largest gap of ∇L(w) and λ |")
    say("|---|---|---|---|---|")
    for step in [*steps[:4], *steps[9::10]]:
        gradient = (step.w["weight"] @ x.T - y.T) @ x
        say(f"| {step.mu:.3g} | {step.loss:.4f} | {step.compressed_loss:.4f} | "
            f"{step.feasibility:.1e} | {np.abs(gradient - step.lam['weight']).max():.1e} |")
    last, first = steps[-1], loss({"weight": tasks[0].compression.project(
        start["weight"]).decompress()})["loss"]
    # w − Δ(θ) is what λ changed by over μ, and μ is 10 · 1.1³⁹ = 411 at the end
    assert last.feasibility < 1e-6 and last.compressed_loss < first
    say(f"\nDirect compression has the loss {first:.4f}, LC {last.compressed_loss:.4f}.\n")
    chosen = [(1, 4), (3, 2), (0, 0), (2, 1)]

    def draw(axes):
        for i, (row, column) in enumerate(chosen):
            colour = (BLUE, RED, "black", "#009e73")[i]
            for lines, values in (("-", [s.w["weight"] for s in steps]),
                                  ("--", [s.delta["weight"] for s in steps])):
                axes.semilogx([s.mu for s in steps], [v[row, column] for v in values], lines,
                              color=colour, label=f"w[{row}, {column}]" if lines == "-" else None)
        axes.plot([], [], "--", color=GREY, label="Δ(θ)")
        axes.legend(ncols=3, loc="center", bbox_to_anchor=(0.6, 0.6))
    picture(out, "path", draw, "w (lines) and Δ(θ) (dashed) meet as μ grows", "μ", "weight")


# ---- 9: a net ----------------------------------------------------------------------------------


def net(params, x):
    """The outputs of two layers, tanh between them, and the values of the hidden layer."""
    hidden = np.tanh(x @ params["fc1.weight"].T)        # (n, 4)
    return hidden @ params["fc2.weight"].T, hidden      # (n, 2)


def value_and_grad(params, x, y):
    """½ the mean squared error, and its gradient by the chain rule."""
    out, hidden = net(params, x)
    error = (out - y) / len(x)                                          # ∂L/∂out
    back = (error @ params["fc2.weight"]) * (1 - hidden * hidden)       # tanh' = 1 − tanh²
    return 0.5 * squares(out - y) / len(x), {"fc1.weight": back.T @ x,
                                             "fc2.weight": error.T @ hidden}


def two_layers():
    say("## 9. A net with two layers\n")
    say("The same with w as the first layer, 2 × 4 weights behind a tanh, and L steps by SGD: the "
        "loop does not see which. Each layer has two values of its own, and they share κ = 4 "
        "corrections.\n")
    rng = np.random.default_rng(1)
    reference = {"fc1.weight": W.copy(), "fc2.weight": rng.normal(size=(2, 4))}
    x = rng.normal(size=(200, 6))
    y = net(reference, x)[0] + 0.05 * rng.normal(size=(200, 2))
    tasks = [Task(list(reference), Sum(lcref.Each(Quantize(k=2)), Prune(kappa=4)))]
    sgd = SGD(value_and_grad, x, y, lr=0.1, decay=1.0, batch=50, epochs=30)

    def loss(params):
        return {"loss": value_and_grad(params, x, y)[0]}
    result = lcref.compress(reference, tasks, sgd, Schedule(0.01, 1.3, 30), loss)
    direct, found = (loss(params)["loss"] for params in (result.direct, result.params))
    say(f"Loss of the reference {loss(reference)['loss']:.4f}, of direct compression {direct:.3f}, "
        f"of LC {found:.3f}; ‖w − Δ(θ)‖ / ‖w‖ {result.feasibility:.0e}, ratio "
        f"{result.ratio['float32']:.2f} ({sum(p.size for p in reference.values())} weights are few "
        "to share two codebooks).\n")
    assert found < direct and result.feasibility < 0.02
    show("fc2, Δ(θ)", result.params["fc2.weight"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results"
                        / "walkthrough", help="folder of the page and its pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    say("# A walk through the algorithm\n")
    say(f"Written by `python papers_repro/part5/walkthrough.py` on {datetime.date.today()}, lcref "
        f"{lcref.__version__}, NumPy {np.__version__}; line numbers are of that day.\n")
    problem()
    direct()
    one_part(out)
    exactly(out, *by_halves(out))
    x, y = l_step()
    loop(out, x, y, *multipliers(x, y))
    two_layers()
    (out / "walkthrough.md").write_text("\n".join(PAGE))
    return 0


if __name__ == "__main__":
    sys.exit(main())

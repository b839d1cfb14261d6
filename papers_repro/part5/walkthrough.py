"""Part V by hand: a 4 × 6 matrix and a net of two layers through every step of the algorithm.

    python papers_repro/part5/walkthrough.py [--out DIR]

Read it from top to bottom with the paper beside it. The docstring of a section is its text: it is
printed first, then what the section computes. Each value is computed from its formula with NumPy
alone and asserted to be what lcref gives, so that the script is a check of its own. The lines of
lcref are found in its source when this runs: a formula that no longer stands there is an error.
All that is printed is written to walkthrough.md, with four pictures; walkthrough_page.py has what
prints and draws.
"""

import argparse
import datetime
import itertools
import platform
import sys
from pathlib import Path

import matplotlib
import numpy as np

import lcref
from lcref import (Binary, Each, Prune, Quantize, Schedule, Sum, Task, composition, flat, lc, nets,
                   projections)
from lcref.lsteps import SGD, LeastSquares
from lcref.nets import layers

sys.path.insert(0, str(Path(__file__).parent))
import walkthrough_page as page  # noqa: E402
from walkthrough_page import in_lcref, numbers, picture, say, section, show, table  # noqa: E402

W = np.array([[12, 1, 20, 7, -13, -13], [10, -11, 8, -8, -20, -13],
              [-5, -1, -10, 8, -11, -11], [-8, 13, -23, -12, 9, 6]]) / 10
D = np.array([1.0, 2, 1, 2, 1, 2])      # of the loss, see section 1
KAPPA = 3
TASKS = [Task("weight", Binary(scale=True) + Prune(kappa=KAPPA))]
X, Y = np.diag(D), np.diag(D) @ W.T
PATH = Schedule(mu0=1.0, a=1.1, steps=40)


def squares(x):
    return float(np.sum(x * x))


def close(found, expected, ulps=64):
    """Equal but for rounding: that of sums of 24 numbers, which is a few ulps of the largest."""
    return np.abs(found - expected).max() <= ulps * np.finfo(float).eps * np.abs(expected).max()


# ---- 1 to 3: the problem, direct compression, the C step of one part ---------------------------


@section
def problem():
    """## 1. The problem

    The weights w of a layer, 4 × 6 of them, are held to a sum of two parts: every weight ±a, which
    is one bit a weight and one number a for all of them, plus κ = 3 floating-point corrections.

        min over w, θ1, θ2 of  L(w)   subject to   w = Δ1(θ1) + Δ2(θ2),
        Δ1(θ1) ∈ {−a, a}^(4×6),  a ≥ 0,   ‖Δ2(θ2)‖₀ ≤ κ

    The loss is least squares, L(w) = ½ ‖X wᵀ − Y‖², with six examples that see one input each:
    X = diag(d), and Y = X w_refᵀ for the weights w_ref below. So it is

        L(w) = ½ Σ_ij d_j² (w_ij − w_ref,ij)²

    and w_ref is the reference, with loss 0. An error in an even column costs 4 times as much.
    """
    show(w_ref=W, d=D)


@section
def direct_compression():
    """## 2. Direct compression

    The projection of the reference weights, θ = Π(w_ref). First without the corrections:

        Π(w) = argmin over a, θ of ‖w − θ‖²   subject to   θ ∈ {−a, a}^(4×6),  a ≥ 0

    For any a ≥ 0 the sign of w_i is the better choice, as abs(w_i − a sgn w_i) ≤ abs(w_i + a
    sgn w_i). This leaves Σ (abs(w_i) − a)², which is least at the mean, a = (1/n) Σ abs(w_i), and
    there it is Σ w_i² − (Σ abs(w_i))² / n.
    """
    total, a = np.abs(W).sum(), np.abs(W).mean()
    theta = projections.binary(W, scale=True).decompress()
    assert close(theta, np.where(W >= 0, a, -a))
    cost = squares(W) - total ** 2 / W.size
    assert close(squares(W - theta), cost)
    worst = np.sort(((W - theta) ** 2).ravel())[-KAPPA:]
    say(f"Σ abs(w_i) = {total:.1f}, so that a = {total:.1f} / {W.size} = {a:.4f}; Σ w_i² = "
        f"{squares(W):.2f}, so that ‖w − Δ(θ)‖² = {cost:.4f}. The {KAPPA} worst weights cost "
        f"{worst.sum():.4f} of that, which corrections would save: sections 4 and 5 project onto "
        "the sum.")
    in_lcref((projections.binary, "def binary("), (lc.direct_compression, "thetas = c_step("))


@section
def one_part(out):
    """## 3. The C step of one part

    **At most κ nonzeros.**  min ‖w − θ‖²  subject to  ‖θ‖₀ ≤ κ. A kept weight costs 0 and a dropped
    one w_i²: keep the κ of largest magnitude.

    **k values of any kind**, K-means in one dimension.  min ‖w − θ‖²  subject to
    θ ∈ {c_1, ..., c_k}^(4×6). Each weight takes the nearest value, so that in sorted order the
    clusters are k runs, and c_j is the mean of its run. With k = 2 there are n − 1 cuts: try each.
    """
    kept = corrections(W)
    assert np.array_equal(projections.l0_ball(W, KAPPA).decompress(), kept)
    say(f"The κ = {KAPPA} largest magnitudes are {numbers(W[kept != 0])}: without them ‖w − θ‖² "
        f"is Σ w_i² − {squares(kept):.2f} = {squares(W) - squares(kept):.2f}.")
    x, costs = np.sort(W.ravel()), cuts(np.sort(W.ravel()))
    m = int(np.argmin(costs)) + 1
    theta = projections.kmeans(W, 2)
    assert close(theta.entries, np.array([x[:m].mean(), x[m:].mean()]))
    assert close(squares(W - theta.decompress()), costs[m - 1])
    say(f"The best of the {len(costs)} cuts is after {m} weights: c_1 = {x[:m].sum():.1f} / {m} = "
        f"{theta.entries[0]:.4f} and c_2 = {x[m:].sum():.1f} / {x.size - m} = "
        f"{theta.entries[1]:.4f}, at the cost {costs[m - 1]:.4f}.")
    picture(out, "cuts", lambda *axes: page.draw_cuts(x, costs, m, *axes),
            "K-means with two values: the best cut of the sorted weights", 2)
    in_lcref((projections.l0_ball, "def l0_ball("), (projections.kmeans, "def kmeans("))


def cuts(x):
    """The cost Σ x² − (Σ x)² / m of both runs, of every cut of ascending x."""
    m, sums, total = np.arange(1, x.size), np.cumsum(x)[:-1], x.sum()
    return squares(x) - sums ** 2 / m - (total - sums) ** 2 / (x.size - m)


# ---- 4 and 5: a sum, by halves and exactly -----------------------------------------------------


def signs(rest):
    """Π1: ±a, with the mean magnitude as a."""
    return np.where(rest >= 0, 1, -1) * np.abs(rest).mean()


def corrections(rest):
    """Π2: the κ largest magnitudes; of equal ones the first."""
    kept = np.argsort(-np.abs(rest).ravel(), kind="stable")[:KAPPA]
    return np.where(np.isin(np.arange(rest.size), kept).reshape(rest.shape), rest, 0)


def alternation(turns):
    """Rows (projection, Δ, objective), until a cycle lowers the objective by at most 1e-6 of it."""
    deltas, rows = [np.zeros_like(W), np.zeros_like(W)], []
    while len(rows) < 4 or rows[-3][2] - rows[-1][2] > 1e-6 * rows[-1][2]:
        for i in (0, 1):
            deltas[i] = turns[i](W - deltas[1 - i])
            rows.append((turns[i], deltas[i], squares(W - deltas[0] - deltas[1])))
    return rows


def descends(rows, terms):
    """Assert that no half-step rises, but for rounding of 3, and that lcref takes the same ones."""
    trace = np.array([cost for _, _, cost in rows])
    assert all(np.diff(trace) <= 1e-14)
    theta = Sum(*terms, solver="alternate", restarts=False).project(W)
    # lcref's objective is infinite until both parts are set
    assert close(np.array(theta.trace[1:]), trace[1:]) and theta.status == "stationary"


@section
def by_halves():
    """## 4. A sum by halves

    The C step of the sum is  min over θ1, θ2 of ‖w − Δ1(θ1) − Δ2(θ2)‖². By alternation each part in
    turn is the projection of what the other one leaves:

        θ1 ← Π1(w − Δ2(θ2))     half-step of the quantized part
        θ2 ← Π2(w − Δ1(θ1))     half-step of the corrections

    Neither can raise the objective, for the θ that it replaces was feasible for the same problem.
    Both begin at 0. Here w = w_ref, as in direct compression. A cycle of two half-steps that lowers
    the objective by less than 1e-6 of it is the last. Where it ends depends on which part is first,
    and which one should be is not known beforehand: `Sum(..., solver="alternate")` tries both, but
    goes on from the last C step in a loop.
    """
    rows = alternation((signs, corrections))
    table(["half-step", "part", "value", "‖w − Δ1 − Δ2‖²"], [
        (i, *(("θ1", f"a = {np.abs(delta).max():.6f}") if part is signs else
              ("θ2", f"corrects {numbers(W[delta != 0])}")), f"{cost:.6f}")
        for i, (part, delta, cost) in enumerate(rows, 1)])
    other = alternation((corrections, signs))
    descends(rows, TASKS[0].compression.terms)
    descends(other, TASKS[0].compression.terms[::-1])
    say(f"The first row is section 2, and row 3 has the mean of what is then left, a = "
        f"{np.abs(W - rows[1][1]).sum():.4f} / {W.size}. With the corrections first it ends at "
        f"{other[-1][2]:.6f} after {len(other)} half-steps.")
    in_lcref((composition.alternate, "theta = terms[i].project("),
             (composition, "raise DescentError("))
    return rows, other


@section
def exactly(out, rows, other):
    """## 5. The same sum exactly

    Corrected weights cost nothing, the others Σ (abs(w_i) − a)². For any a the n − κ weights to
    keep are those whose magnitude is nearest to a, and they are neighbours in sorted order: a
    *window*. Its a is its mean, and its cost Σ w_i² − (Σ abs(w_i))² / (n − κ). There are κ + 1
    windows, and the one of least cost is the optimum. lcref solves this sum so, where
    `solver="alternate"` is not asked for.
    """
    x, m = np.sort(np.abs(W).ravel()), W.size - KAPPA
    windows = [x[i:i + m] for i in range(KAPPA + 1)]
    costs = [squares(kept) - kept.sum() ** 2 / m for kept in windows]
    best = int(np.argmin(costs))
    table(["window", "Σ abs(w_i)", "Σ w_i²", "a", "cost"], [
        (f"{i + 1} to {i + m}", f"{kept.sum():.1f}", f"{squares(kept):.2f}", f"{kept.mean():.4f}",
         f"{cost:.4f}") for i, (kept, cost) in enumerate(zip(windows, costs))])
    total = the_same_by_lcref(costs[best], rows, other)
    picture(out, "half-steps", lambda axes: page.draw_half_steps(rows, other, total, axes),
            "One bit plus corrections by halves: the squared distance never rises")
    picture(out, "window", lambda *axes: page.draw_window(x, costs, best, m, *axes),
            "One bit plus 3 corrections: four windows, and the best one", 2)
    in_lcref((projections.scaled_binary_l0, "def scaled_binary_l0("),
             (composition, "return self._exact("))


def the_same_by_lcref(cost, rows, other):
    """The optimum that lcref finds; say how it differs from the ends of the alternation."""
    theta = projections.scaled_binary_l0(W, KAPPA)
    total, corrected = squares(W - theta.decompress()), theta.parts[1].decompress() != 0
    assert close(total, cost) and theta.status == "exact" and theta.gap == 0
    assert np.array_equal(TASKS[0].compression.project(W).decompress(), theta.decompress())
    assert all(total <= trace[-1][2] + 1e-14 for trace in (rows, other))
    say(f"The optimum is {total:.4f}; the alternation that began with ±a ended "
        f"{100 * (rows[-1][2] / total - 1):.1f}% above it. It corrects "
        f"{numbers(W[rows[-1][1] != 0])}, the optimum {numbers(W[corrected])}.")
    show(**{"Δ1(θ1) + Δ2(θ2)": theta.decompress()})
    return total


@section
def other_codebooks():
    """**The same with other codebooks.** With a given codebook each weight goes to its nearest
    entry, and the κ largest residuals are corrected. With k = 2 learned values, which need not be
    opposite, the kept weights form two runs in sorted order, and corrected ones can lie between
    and beside them. Here all choices of κ weights, and all cuts of the rest, are tried.
    """
    residual = W - np.where(W >= 0, 1, -1)      # −1 and 1 are the entries
    theta = projections.codebook_l0(W, [-1, 1], KAPPA)
    fixed = squares(residual) - squares(corrections(residual))
    assert close(squares(W - theta.decompress()), fixed)
    x = np.sort(W.ravel())
    tried = [cuts(np.delete(x, left)).min() for left in itertools.combinations(range(24), KAPPA)]
    left = list(itertools.combinations(range(24), KAPPA))[int(np.argmin(tried))]
    theta = projections.kmeans_l0(W, 2, KAPPA)
    assert close(squares(W - theta.decompress()), min(tried)) and theta.status == "exact"
    say(f"Entries −1 and 1: {fixed:.2f}, and {numbers(W[corrections(residual) != 0])} are "
        f"corrected. Two learned values: of {len(tried)} choices the best is {min(tried):.4f}, and "
        f"corrects {numbers(x[list(left)])}; lcref finds the entries "
        f"{numbers(theta.parts[0].entries)} and the same cost, without trying all.")
    in_lcref((projections.codebook_l0, "def codebook_l0("),
             (projections.kmeans_l0, "def kmeans_l0("))


# ---- 6 to 8: the L step, the multipliers, the loop ---------------------------------------------


def gradient(w):
    """∇L(w)."""
    return (w @ X.T - Y.T) @ X


@section
def l_step():
    """## 6. The L step

        w ← argmin over w of L(w) + μ/2 ‖w − T‖²,   T = Δ(θ) + λ/μ

    is where the gradient (w Xᵀ − Yᵀ) X + μ (w − T) is zero: a linear system, which for this X has
    one equation a weight,

        w_ij = (d_j² w_ref,ij + μ T_ij) / (d_j² + μ)

    Here μ = 1, λ = 0, and Δ(θ) is that of section 5.
    """
    mu, target = 1.0, projections.scaled_binary_l0(W, KAPPA).decompress()
    w = LeastSquares(X, Y)({"weight": W}, {"weight": target}, mu, 0)[0]["weight"]
    assert close(w, (D ** 2 * W + mu * target) / (D ** 2 + mu))
    # zero but for rounding: terms of d² w and μ T, which are under 10 here
    assert np.abs(gradient(w) + mu * (w - target)).max() < 1e-13
    say(f"So w[0, 1] = (4 · {W[0, 1]:.1f} + 1 · {target[0, 1]:.4f}) / 5 = {w[0, 1]:.4f}, and the "
        "largest entry of the gradient is under 1e-13.")
    show(w=w)
    in_lcref((LeastSquares.__call__, "# Wᵀ = Tᵀ + V"), (lc, "# L step: w ← argmin"))
    return w, target, mu


def mean_loss(params, inputs, outputs):
    """L as a mean over the examples, and its gradient, as SGD takes them."""
    residual = inputs @ params["weight"].T - outputs
    return 0.5 * squares(residual) / len(inputs), {"weight": residual.T @ inputs / len(inputs)}


@section
def by_sgd(w, target, mu):
    """**The same by SGD** with Nesterov's momentum,

        v ← m v + g,   w ← w − η (g + m v),   g = ∇L(w) + μ (w − T),   η ≤ 1/μ

    It takes the mean over the 6 examples where L is their sum, so its μ is μ/6. With all examples
    in a batch it is a linear iteration: with h = (d_j² + μ)/6 the errors (w − w*, v) of a weight
    are multiplied in each epoch by

        ( 1 − η h (1 + m)   −η m² )
        ( h                  m    )

    In smaller batches the gradient has noise, and SGD ends near w* as far as the rate has fallen.
    """
    lr, m, epochs = 1.0, 0.9, 200
    radius = max(np.abs(np.linalg.eigvals(np.array(
        [[1 - lr * h * (1 + m), -lr * m * m], [h, m]]))).max() for h in (D ** 2 + mu) / 6)

    def distance(batch, epoch_decay):
        sgd = SGD(mean_loss, X, Y, lr=lr, momentum=m, batch=batch, epochs=epochs,
                  epoch_decay=epoch_decay)
        found, _ = sgd({"weight": W}, {"weight": target}, mu / 6, 0)
        return np.abs(found["weight"] - w).max()
    # radius^200 is under 1e-18, so that what is left is rounding, some ulps of 2.3
    assert radius ** epochs < 1e-18 and distance(6, 1.0) < 1e-13
    near = distance(2, 0.97)
    assert near < 0.01      # the noise of batches, less as the rate falls to 0.97^200 of itself
    say(f"With η = {lr} and m = {m} its eigenvalues are at most {radius:.4f}, and {epochs} epochs "
        "leave under 1e-18 of the error: SGD ends within 1e-13 of the closed form. In batches of "
        "2, with a rate that falls by 3% an epoch, it ends within 0.01.")
    in_lcref((flat, "# v ← m v + g"), (flat, "# w ← w − η (g + m v)"), (SGD.rate, "1 / mu"))


def checked(steps):
    """The steps, each asserted to be what its formulas give from the one before."""
    delta, lam = projections.scaled_binary_l0(W, KAPPA).decompress(), 0 * W
    for step in steps:
        w, mu = step.w["weight"], step.mu
        # L step: the gradient is zero but for rounding, of terms up to μ abs(w) and abs(λ)
        assert np.abs(gradient(w) + mu * (w - delta) - lam).max() < 1e-14 * (10 + 10 * mu)
        # C step: θ ← Π(w − λ/μ)
        delta = projections.scaled_binary_l0(w - lam / mu, KAPPA).decompress()
        assert np.array_equal(step.delta["weight"], delta)
        # multipliers: λ ← λ − μ (w − Δ(θ))
        lam = lam - mu * (w - delta)
        assert np.array_equal(step.lam["weight"], lam)
    return steps


@section
def multipliers():
    """## 7. The multipliers

        λ ← λ − μ (w − Δ(θ))

    An L step makes its gradient zero, so that ∇L(w) = λ − μ (w − Δ(θ)) with the θ before the C
    step. The new λ is the same with the θ after it: where θ no longer moves, λ = ∇L(w), the force
    by which the constraint holds w away from the minimum of L. The next L step and the next C step
    see it as a shift of λ/μ. Here is the first step of the loop, at μ = 1. Its L step began at λ =
    0 and was that of section 6.
    """
    loop = lc.iterate({"weight": W}, TASKS, LeastSquares(X, Y), PATH)
    step = checked([next(loop)])[0]
    w, delta, lam = (found["weight"] for found in (step.w, step.delta, step.lam))
    show(**{"Δ(θ), the projection of w": delta, "λ": lam})
    say(f"So λ[0, 1] = 0 − 1 · ({w[0, 1]:.4f} − {delta[0, 1]:.4f}) = {lam[0, 1]:.4f}.")
    in_lcref((lc, "# C step: θ ← argmin"), (lc, "# λ ← λ − μ"),
             (lc.multipliers, "return {name: lam[name] - mu"))


def best_of_all():
    """The least L(Δ) of all choices of corrections: a is then the mean of abs(w) weighted by d²."""
    x, price, best = np.abs(W).ravel(), np.broadcast_to(D ** 2, W.shape).ravel(), np.inf
    for left in itertools.combinations(range(W.size), KAPPA):
        kept, c = np.delete(x, left), np.delete(price, left)
        best = min(best, 0.5 * c @ (kept - c @ kept / c.sum()) ** 2)
    return best


@section
def loop(out):
    """## 8. The loop

        w ← w_ref;  θ ← Π(w);  λ ← 0
        for μ = μ0, μ0·a, μ0·a², ...:
            L step, C step, multipliers, as in sections 6, 5 and 7

    from μ0 = 1 by a = 1.1, for 40 steps. Each is asserted to follow from the one before by the
    three formulas. The last column is λ − ∇L(w), which is μ times what Δ(θ) moved in this step. At
    first the smallest weights change their sign from step to step, as λ/μ shifts them across 0.
    When the corrections have changed, w and Δ(θ) meet. With λ = 0 they do so only as 1/μ.
    """
    loss = LeastSquares(X, Y)

    def path(schedule):
        return list(lc.iterate({"weight": W}, TASKS, loss, schedule,
                               lambda params: {"loss": loss.loss(params)}))
    steps = checked(path(PATH))
    table(["step", "μ", "L(w)", "L(Δ(θ))", "corrects", "‖w − Δ(θ)‖ / ‖w‖", "max abs(λ − ∇L(w))"], [
        (s.step + 1, f"{s.mu:.3g}", f"{s.loss:.4f}", f"{s.compressed_loss:.4f}",
         numbers(np.sort(W.ravel()[s.theta[0].parts[1].indices])), f"{s.feasibility:.1e}",
         f"{np.abs(gradient(s.w['weight']) - s.lam['weight']).max():.1e}")
        for s in [*steps[:12], *steps[14::5]]])
    quadratic = path(Schedule(1.0, 1.1, 40, penalty="quadratic"))
    assert quadratic[-1].feasibility > 1e6 * steps[-1].feasibility
    picture(out, "path", lambda *axes: page.draw_path(steps, quadratic, *axes),
            "The weights and their compression meet as μ grows", 2)
    in_lcref((lc.Schedule.mu, "return self.mu0 * self.a **"), (lc, "feasibility <= schedule.tol"),
             (lc, "for k in range(last.step + 1"), (lc.feasibility, "def feasibility("))
    compare(steps[-1], path(Schedule(2.0, 1.2, 40))[-1], loss)


@section
def compare(last, hasty, loss):
    """**How good is the end?** With the signs of w_ref and given corrections the best a is the mean
    of abs(w_ref) weighted by d_j². So the problem of section 1 can be solved by trying all 2024
    choices of corrections. Direct compression corrects the weights that are farthest from ±a, LC
    those where that costs the loss most. But it is a local method: when μ begins at 2 and grows by
    1.2 it ends elsewhere.
    """
    direct, best = loss.loss(lcref.direct_compression({"weight": W}, TASKS)[1]), best_of_all()
    # at the end w − Δ(θ) is what λ still moves by, over μ = 1.1³⁹ = 41
    assert last.feasibility < 1e-9
    assert best - 1e-12 < last.compressed_loss < best + 1e-8 and last.compressed_loss < direct
    losses = {"best of all choices": best, "LC": last.compressed_loss,
              "LC from μ = 2 by 1.2": hasty.compressed_loss, "direct compression": direct}
    table(["", "loss"], [(name, f"{value:.4f}") for name, value in losses.items()])


# ---- 9: a net ----------------------------------------------------------------------------------


SHAPES = {"fc1.weight": (4, 6), "fc1.bias": (4,), "fc2.weight": (3, 4), "fc2.bias": (3,)}
V = np.array([[15, -7, 2, 9], [-4, 12, -10, -11], [-9, -6, 8, 3]]) / 10


def logits(params, x, training=None):
    """Two layers, tanh between them."""
    hidden = nets.tanh(nets.affine(x, params["fc1.weight"], params["fc1.bias"]))    # (n, 4)
    return nets.affine(hidden, params["fc2.weight"], params["fc2.bias"])            # (n, 3)


def backpropagation(params, x, labels):
    """The gradient of the mean cross-entropy by the chain rule."""
    hidden = np.tanh(x @ params["fc1.weight"].T + params["fc1.bias"])
    p = np.exp(hidden @ params["fc2.weight"].T + params["fc2.bias"])
    error = (p / p.sum(1, keepdims=True) - np.eye(3)[labels]) / len(x)  # ∂L/∂logits
    back = (error @ params["fc2.weight"]) * (1 - hidden ** 2)           # tanh' = 1 − tanh²
    return {"fc1.weight": back.T @ x, "fc1.bias": back.sum(0),
            "fc2.weight": error.T @ hidden, "fc2.bias": error.sum(0)}


def data_and_reference(net, gradients):
    """300 examples, labelled by the softmax of a net with weights W and V, and the trained net."""
    rng = np.random.default_rng(0)
    teacher = {"fc1.weight": W, "fc1.bias": np.zeros(4), "fc2.weight": 2 * V,
               "fc2.bias": np.zeros(3)}
    x = rng.normal(size=(300, 6))
    labels = np.argmax(logits(teacher, x) + rng.gumbel(size=(300, 3)), axis=1)
    train = SGD(gradients, x, labels, lr=0.2, batch=50, epochs=60, epoch_decay=0.97)
    return x, labels, train(teacher, {}, 1.0, 0)[0]


@section
def two_layers():
    """## 9. A net with two layers

        logits = W2 tanh(W1 x + b1) + b2,   L = mean cross-entropy

    W1 has 4 × 6 weights and W2 has 3 × 4. Each is held to two values of its own, and both share κ =
    4 corrections; the biases are of no task, and the L steps train them on L alone. L steps are by
    SGD in batches of 50 of the 300 examples. The loop does not see any of this: it is that of
    section 8, with dicts of two weights for w, Δ(θ) and λ.
    """
    net = nets.Net("two layers", (6,), 3, "tanh", SHAPES, logits)
    gradients = nets.value_and_grad(net)
    x, labels, reference = data_and_reference(net, gradients)
    _, found, _ = gradients(reference, x, labels)
    for name, expected in backpropagation(reference, x, labels).items():
        assert np.abs(found[name] - expected).max() < 1e-14     # rounding of 300 terms under 0.02
    say("The gradient of `lcref.nets` is that of backpropagation written out by hand, within "
        "1e-14.")
    tasks = [Task(net.weights, Each(Quantize(k=2)) + Prune(kappa=4))]
    sgd = SGD(gradients, x, labels, lr=0.1, batch=50, epochs=10)
    result = lcref.compress(reference, tasks, sgd, Schedule(mu0=0.01, a=1.2, steps=40),
                            lambda params: nets.evaluate(net, params, x, labels))
    say_net(net, reference, result, lambda params: nets.evaluate(net, params, x, labels)["loss"])
    in_lcref((nets.value_and_grad, "def value_and_grad("), (layers, "def affine("),
             (layers, "def softmax_cross_entropy("),
             (lcref.compress, "def compress("))


def say_net(net, reference, result, loss):
    for name in net.weights:
        show(**{f"{name}, reference": reference[name],
                f"{name}, Δ(θ) of direct compression": result.direct[name],
                f"{name}, Δ(θ) of LC": result.params[name]})
    table(["", "loss"], [(name, f"{loss(params):.4f}") for name, params in (
        ("reference", reference), ("direct compression", result.direct), ("LC", result.params))])
    # an L step by SGD is not exact; what is left is its noise, at most 1/μ of a gradient
    assert loss(reference) < loss(result.params) < loss(result.direct)
    assert result.feasibility < 0.02
    say("‖w − Δ(θ)‖ / ‖w‖ ends under 0.02. The ratio ρ is "
        f"{result.ratio['float32']:.2f}: 43 numbers are few to share codebooks.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results"
                        / "walkthrough", help="folder of the page and its pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    say("# A walk through the algorithm")
    say(f"Written by `python papers_repro/part5/walkthrough.py` on {datetime.date.today()}, lcref "
        f"{lcref.__version__}, NumPy {np.__version__}, matplotlib {matplotlib.__version__}, "
        f"Python {platform.python_version()}.")
    for part in (problem, direct_compression, lambda: one_part(out),
                 lambda: exactly(out, *by_halves()), other_codebooks, lambda: by_sgd(*l_step()),
                 multipliers, lambda: loop(out), two_layers):
        part()
    (out / "walkthrough.md").write_text("\n\n".join(page.PAGE) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

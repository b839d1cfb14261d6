"""papers_repro/part5/walkthrough.py runs, and what it says is so."""

import importlib
import itertools
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from lcref import lc

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "papers_repro" / "part5" / "walkthrough.py"
KEPT = SCRIPT.parent / "results" / "walkthrough" / "walkthrough.md"
LINE = re.compile(r"^- \[`(lcref/[\w/]+\.py):(\d+)`\]\((\S+)#L(\d+)\) `(.*)`$", re.M)
# what the lines that are named must say, in the order of the page
STATEMENTS = ["def binary(", "c_step(tasks, params, mu)", "def l0_ball(", "def kmeans(",
              ".project(residual", "raise DescentError", "def scaled_binary_l0(", "_exact(",
              "def codebook_l0(", "def kmeans_l0(", "Wᵀ = Tᵀ + V", "w ← argmin L(w)", "v ← m v + g",
              "w ← w − η (g + m v)", "1 / mu", "θ ← argmin ‖w − λ/μ", "λ ← λ − μ (w − Δ(θ))",
              "lam[name] - mu * (w[name] - delta[name])", "self.mu0 * self.a **",
              "<= schedule.tol", "for k in range(", "def feasibility(", "def value_and_grad(",
              "def affine(", "def softmax_cross_entropy(", "def compress("]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    out = tmp_path_factory.mktemp("walk")
    done = subprocess.run([sys.executable, SCRIPT, "--out", out], capture_output=True, text=True,
                          cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return out, (out / "walkthrough.md").read_text(encoding="utf-8")


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("walkthrough_page")


def block(text, name):
    """The matrix of a name, exact in the decimals that are printed."""
    lines = re.search(rf"^{re.escape(name)} =\n((?: .*\n)+)", text, re.M)[1].splitlines()
    return [[Fraction(x) for x in line.split()] for line in lines]


def weights(text):
    return [x for row in block(text, "w_ref") for x in row]


def one(pattern, text):
    """The one place in the text, as numbers or words."""
    (found,) = re.findall(pattern, text)
    return found


def rows(text, heads):
    """The rows of the table that begins with these heads."""
    below = text[text.index(f"| {heads} |"):].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in below]


def spread(run):
    return sum(x * x for x in run) - Fraction(sum(run)) ** 2 / len(run)


def best_left_out(values, cost):
    """The least cost of what is left of the values without 3 of them, over all choices."""
    return min(cost([x for i, x in enumerate(values) if i not in out])
               for out in itertools.combinations(range(len(values)), 3))


def said(number, exact):
    """Whether a number is the exact one, up to half a unit of its last place."""
    digits = len(number.partition(".")[2])
    return abs(Fraction(number) - exact) <= Fraction(1, 2 * 10**digits) + Fraction(1, 10**12)


def test_each_line_of_lcref_that_is_named_holds_what_is_said_to_be_there(walked):
    named = LINE.findall(walked[1])
    assert len(named) == len(STATEMENTS) == walked[1].count("](../../../../lcref/")
    for (file, number, link, anchor, source), statement in zip(named, STATEMENTS):
        assert statement in source and anchor == number
        assert (KEPT.parent / link).resolve() == ROOT / file
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        assert lines[int(number) - 1].strip() == source


def test_a_statement_that_is_no_longer_there_or_there_twice_is_an_error(page):
    with pytest.raises(LookupError, match="0 lines of lcref.lc"):
        page.at(lc, "# λ ← λ + μ (w − Δ(θ))")
    with pytest.raises(LookupError, match="not on one"):
        page.at(lc, "mu")


def test_the_optimum_of_one_bit_plus_corrections_is_that_of_all_choices_of_corrections(walked):
    """With the signs of w, and the mean magnitude of what is kept as a."""
    best = best_left_out([abs(x) for x in weights(walked[1])], spread)
    optimum, above = one(r"The optimum is ([\d.]+); .* ended ([\d.]+)% above", walked[1])
    assert said(optimum, best)
    costs = [Fraction(row[3]) for row in rows(walked[1], "half-step | part")]
    assert len(costs) == 10 and costs == sorted(costs, reverse=True) and costs[-1] > best
    assert float(above) == pytest.approx(float(100 * (costs[-1] / best - 1)), abs=0.06)
    assert min(Fraction(row[4]) for row in rows(walked[1], "window")) == Fraction(optimum)


def test_the_first_half_steps_are_the_mean_magnitude_and_the_three_largest_residuals(walked):
    w = weights(walked[1])
    a = sum(map(abs, w)) / 24
    residuals = [x - a if x >= 0 else x + a for x in w]
    first, second = rows(walked[1], "half-step | part")[:2]
    assert first[2] == f"a = {float(a):.6f}" and said(first[3], sum(x * x for x in residuals))
    order = sorted(range(24), key=lambda i: abs(residuals[i]))
    assert said(second[3], sum(residuals[i] ** 2 for i in order[:21]))
    assert second[2] == "corrects " + ", ".join(f"{float(w[i]):g}" for i in sorted(
        order[21:], key=lambda i: w[i]))


def two_runs(values):
    """The least cost of two runs of ascending values, of all cuts, and the number before it."""
    return min((spread(values[:i]) + spread(values[i:]), i) for i in range(1, len(values)))


def test_k_means_is_the_best_of_all_cuts_and_with_corrections_that_of_all_choices(walked):
    x = sorted(weights(walked[1]))
    cost, cut = two_runs(x)
    m, low, high, least = one(r"is after (\d+) weights: c_1 = .* = ([-\d.]+) and c_2 = .* = "
                              r"([-\d.]+), at the cost ([\d.]+)\.\n", walked[1])
    assert int(m) == cut and said(least, cost)
    assert said(low, sum(x[:cut]) / cut) and said(high, sum(x[cut:]) / (24 - cut))
    tenths = [int(10 * v) for v in x]
    best = min(fast_two_runs(np.delete(tenths, out))
               for out in itertools.combinations(range(24), 3))
    assert said(one(r"of 2024 choices the best is ([\d.]+),", walked[1]), best / 100)


def fast_two_runs(x):
    """The cost of two_runs of ascending integers."""
    sums = np.cumsum(x).tolist()
    return int(x @ x) - max(Fraction(s * s * (len(x) - m) + (sums[-1] - s) ** 2 * m,
                                     m * (len(x) - m)) for m, s in enumerate(sums[:-1], 1))


def test_the_l_step_and_the_first_multipliers_follow_by_hand(walked):
    """From Δ(θ) as printed, in 4 decimals: w to within half of the last, λ to within two halves."""
    text, half = walked[1], Fraction(1, 20000)
    w, ref, d = block(text, "w"), block(text, "w_ref"), block(text, "d")[0]
    start, delta = block(text, "Δ1(θ1) + Δ2(θ2)"), block(text, "Δ(θ), the projection of w")
    lam = block(text, "λ")
    for i, j in itertools.product(range(4), range(6)):
        solved = (d[j] ** 2 * ref[i][j] + start[i][j]) / (d[j] ** 2 + 1)
        assert abs(w[i][j] - solved) <= 2 * half
        assert abs(lam[i][j] + (w[i][j] - delta[i][j])) <= 3 * half


def test_the_path_ends_at_the_optimum_of_all_choices_of_corrections(walked):
    """½ Σ d² (abs(w) − a)² over the kept, where a is their mean weighted by d²."""
    d = block(walked[1], "d")[0]
    pairs = [(abs(x), d[i % 6] ** 2) for i, x in enumerate(weights(walked[1]))]

    def cost(kept):
        total = sum(c for _, c in kept)
        mean = sum(c * x for x, c in kept)
        return (sum(c * x * x for x, c in kept) - mean * mean / total) / 2
    best = best_left_out(pairs, cost)
    losses = dict(rows(walked[1], " | loss"))
    assert said(losses["best of all choices"], best) and said(losses["LC"], best)
    assert Fraction(losses["direct compression"]) > Fraction(losses["LC from μ = 2 by 1.2"]) > best
    last = rows(walked[1], "step | μ")[-1]
    assert last[0] == "40" and said(last[3], best) and float(last[5]) < 1e-9


def test_the_four_pictures_are_drawn_and_shown_on_the_page(walked):
    out, text = walked
    shown = re.findall(r"^!\[[^]]+\]\(([\w-]+\.png)\)$", text, re.M)
    assert shown == ["cuts.png", "half-steps.png", "window.png", "path.png"]
    for file in (folder / name for folder in (out, KEPT.parent) for name in shown):
        assert file.read_bytes().startswith(b"\x89PNG\r\n")
        pixels = np.uint8(255 * imread(file))   # (height, width, 4)
        assert 400 < pixels.shape[0] < 1000 and 800 < pixels.shape[1] < 1000
        assert len(np.unique(pixels.view(np.uint32))) > 20


def test_the_page_that_is_kept_is_what_the_script_writes_today(walked):
    """But for the line with the date and the versions. Where it differs, run the script again."""
    def plain(text):
        return [line for line in text.splitlines() if not line.startswith("Written by ")]
    assert plain(KEPT.read_text(encoding="utf-8")) == plain(walked[1])

"""papers_repro/part5/walkthrough.py runs, and what it says is so."""

import itertools
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "papers_repro" / "part5" / "walkthrough.py"
KEPT = SCRIPT.parent / "results" / "walkthrough" / "walkthrough.md"
LINES = re.compile(r"`(lcref/[\w/]+\.py):(\d+)`")
# what stands where the text says that it stands, in its order
STATEMENTS = ["def binary(", "def l0_ball(", "def kmeans(", "def alternate(",
              "def scaled_binary_l0(", "class LeastSquares", "# L step: w ← argmin", "class SGD",
              "def multipliers(", "for k in range("]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    out = tmp_path_factory.mktemp("walk")
    done = subprocess.run([sys.executable, SCRIPT, "--out", out], capture_output=True, text=True,
                          cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return out, (out / "walkthrough.md").read_text()


def weights(text):
    """The matrix that it begins with."""
    block = re.search(r"^w =\n((?: .*\n){4})", text, re.M)[1]
    return [[Fraction(x) for x in line.split()] for line in block.splitlines()]


def test_each_line_of_lcref_that_is_named_holds_what_is_said_to_be_there(walked):
    named = LINES.findall(walked[1])
    assert len(named) == len(STATEMENTS)
    for (file, number), statement in zip(named, STATEMENTS):
        assert statement in (ROOT / file).read_text().splitlines()[int(number) - 1]


def test_the_optimum_of_the_sum_is_that_of_all_choices_of_corrections(walked):
    w = [abs(x) for row in weights(walked[1]) for x in row]
    assert len(w) == 24
    best = None
    for left_out in itertools.combinations(range(24), 3):
        kept = [x for i, x in enumerate(w) if i not in left_out]
        a = sum(kept) / 21      # with the signs of w the best a is the mean magnitude
        cost = sum((x - a) ** 2 for x in kept)
        best = cost if best is None else min(best, cost)
    said = re.search(r"The optimum is ([\d.]+), and the alternation .* ended ([\d.]+)% above",
                     walked[1])
    assert float(said[1]) == pytest.approx(float(best), abs=5e-5)
    halves = [float(x) for x in re.findall(r"objective (\d+\.\d+)", walked[1])]
    assert halves == sorted(halves, reverse=True) and len(halves) == 6
    end = float(re.search(r"nothing changes: (\d+\.\d+)", walked[1])[1])
    assert float(said[2]) == pytest.approx(100 * (end / float(best) - 1), abs=0.06) and end > best


def test_the_best_cut_is_that_of_all_24_sorted_weights(walked):
    x = sorted(x for row in weights(walked[1]) for x in row)

    def spread(run):
        mean = sum(run) / len(run)
        return sum((v - mean) ** 2 for v in run)
    cut = min(range(1, 24), key=lambda i: spread(x[:i]) + spread(x[i:]))
    said = re.search(r"best of 23 cuts, after (\d+) weights: entries =\n +(\S+) +(\S+)", walked[1])
    assert int(said[1]) == cut
    assert float(said[2]) == pytest.approx(float(sum(x[:cut]) / cut), abs=5e-5)
    assert float(said[3]) == pytest.approx(float(sum(x[cut:]) / (24 - cut)), abs=5e-5)


def test_the_four_pictures_are_drawn_and_shown_on_the_page(walked):
    out, text = walked
    shown = re.findall(r"^!\[[^]]+\]\(([\w-]+\.png)\)$", text, re.M)
    assert shown == ["cuts.png", "half-steps.png", "window.png", "path.png"]
    for name in shown:
        pixels = imread(out / name)
        assert pixels.shape[0] > 300 and pixels.shape[1] > 600
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20
        assert (KEPT.parent / name).stat().st_size > 5000


def test_the_page_that_is_kept_says_the_same(walked):
    """But for the date, line numbers, rounding errors, and what 900 steps of SGD round to."""
    def plain(text):
        text = re.sub(r"-0\.0000|\d\.?\d*e[+-]\d+", "0", LINES.sub(r"\1", text.split("## 9.")[0]))
        return [line for line in text.splitlines() if not line.startswith("Written by")]
    assert plain(walked[1]) == plain(KEPT.read_text())

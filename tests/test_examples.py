"""The examples run as they stand and show what they promise."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def test_a_pytorch_module_is_compressed_no_worse_than_by_direct_compression(tmp_path):
    pytest.importorskip("torch", reason="the example compresses a PyTorch module; the extra "
                                        "`peers` brings PyTorch")
    example = ROOT / "examples" / "pytorch_module.py"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, example], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"^(\S.*?) +(\d+\.\d+)% test error$", done.stdout, re.MULTILINE)
    errors = {name: float(error) for name, error in shown}
    assert errors.keys() == {"reference", "direct compression", "LC"}
    assert errors["reference"] < 15
    assert errors["LC"] <= errors["direct compression"]
    ratio = float(re.search(r"'float16': ([\d.]+)", done.stdout).group(1))
    assert ratio > 15


def test_the_alternation_never_beats_the_exact_solver(tmp_path):
    rng, out = np.random.default_rng(0), tmp_path / "out"
    (tmp_path / "weights").mkdir()
    for name in ("lenet300_mnist", "resnet20_cifar10"):
        np.savez(tmp_path / "weights" / name, w=rng.normal(size=(30, 10)), b=rng.normal(size=30),
                 v=rng.laplace(size=(20, 5, 3, 3)))
    script = ROOT / "papers_repro" / "part5" / "solvers.py"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, script, "--quick", "--data-dir", tmp_path, "--out", out],
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    cases = json.loads((out / "result.json").read_text())["cases"]
    assert len(cases) == 38 and not any(case["below exact"] for case in cases.values())
    assert all(excess["least"] > -1e-6 or set(case["status"]) != {"exact"}
               for case in cases.values() for excess in [case["best of both, 100 cycles"]])
    assert (out / "table.md").read_text().count("\n") == 2 + 2 + 38
    assert (out / "excess.png").stat().st_size > 0


def test_the_phases_of_a_run_add_up_and_none_is_negative(tmp_path):
    script = ROOT / "papers_repro" / "part5" / "phases.py"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, script, "--quick", "--out", tmp_path],
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "phases.json").read_text())
    assert [row["threads"] for row in result["rows"]] == [1, 2]
    for row in result["rows"]:
        seconds = row["seconds"]
        assert min(seconds.values()) > 0
        products, gradient, update, gathering, *_ = seconds.values()
        assert row["not_products"] == pytest.approx(1 - products / math.fsum(seconds.values()))
        batches = 20 * -(-1437 // 256) * result["steps"]    # what the L steps are scaled to
        alone = 1e-3 * batches * row["ms_a_batch"]["products"]
        assert products > alone     # there are those of the evaluation, too
        assert alone + gradient + update + gathering <= (
            1e-3 * batches * row["ms_a_batch"]["L step"] * (1 + 1e-9))
    assert (tmp_path / "table.md").read_text() in done.stdout

"""The examples run as they stand and show what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

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

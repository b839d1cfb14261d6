"""lcref bench: what it reports, and that lcref and PyTorch do the same work in it."""
import inspect
import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest

from lcref import cli
from lcref.bench import lsteps as bench
from lcref.nets import build
from lcref.nets.net import Training

WITHOUT_TORCH = """
import sys
import time
sys.modules["torch"] = None         # no spec and no module, as where it is not installed
from lcref.cli import main
sys.exit(main(sys.argv[1:]))
"""
NETS = {"lenet300": 256, "lenet5": 256, "resnet20": 128}      # name: batch
MEASURED = ("lcref_ms", "lcref_mb", "lcref_step_mb")
OF_TORCH = ("torch_ms", "ratio", "torch_mb", "torch_step_mb")


def without_torch(*arguments):
    """A run of lcref in a process that finds no PyTorch: (status, output, standard error)."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True,
                          text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def torch_is_installed():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


# ----- what it reports -------------------------------------------------------------------------

def test_without_torch_its_numbers_are_null_and_a_sentence_says_so():
    status, stdout, stderr = without_torch("bench", "--net", "lenet300", "--turns", "1", "--json")
    assert status == 0, stderr
    found = json.loads(stdout)
    row, = found["l_step"]
    assert row.keys() == {"net", "batch", *MEASURED, *OF_TORCH}
    assert (row["net"], row["batch"]) == ("lenet300", 256)
    assert all(0 < row[key] < math.inf for key in MEASURED)
    assert all(row[key] is None for key in OF_TORCH)
    assert (found["threads"], found["turns"]) == (1, 1)
    assert found["versions"].keys() == {"lcref", "numpy", "python"}
    assert "PyTorch is not installed" in stderr and "lenet300, batch 256" in stderr


def test_with_torch_every_number_is_positive_and_finite_and_the_ratio_is_of_the_times(capsys):
    torch = torch_is_installed()
    assert cli.main(["bench", "--net", "lenet300", "--turns", "1", "--json", "--quiet"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    row, = found["l_step"]
    assert all(0 < row[key] < math.inf for key in (*MEASURED, *OF_TORCH))
    assert row["ratio"] == pytest.approx(row["lcref_ms"] / row["torch_ms"])
    # PyTorch itself takes more memory than NumPy; of a step neither can take more than the whole
    assert row["lcref_mb"] < row["torch_mb"]
    assert row["lcref_step_mb"] < row["lcref_mb"] and row["torch_step_mb"] < row["torch_mb"]
    assert found["versions"]["torch"] == torch.__version__
    assert said.err == ""


def test_a_step_holds_its_parameters_and_no_more_than_fifty_times_their_memory(no_torch):
    row = bench.l_step("lenet300", turns=1)
    copies = 3 * 266_610 * 4 / 2 ** 20      # weights, velocity and targets in MB
    assert copies < row.lcref_step_mb < 50 * copies


def test_milliseconds_are_those_of_one_batch_in_the_median_turn(no_torch, monkeypatch):
    clock, lasts = [0.0], iter([100.0, 1.0, 50.0, 3.0])     # seconds; the first turn is not counted

    def step():
        clock[0] += next(lasts)
    monkeypatch.setitem(bench.STEPS, "lcref", lambda name, threads, here: step)
    monkeypatch.setattr(bench, "_peak", lambda *_: (1.0, 0.5))
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert bench.l_step("lenet300", turns=3).lcref_ms == pytest.approx(3000 / 40)   # of 40 batches


BAD = {
    "an unknown net": (["--net", "resnet32"], "lenet300, lenet5, resnet20"),
    "an empty net": (["--net", ""], "lenet300, lenet5, resnet20"),
    "no turn": (["--turns", "0"], "--turns: takes a whole number, at least 1"),
    "fewer than no turns": (["--turns", "-1"], "--turns: takes a whole number, at least 1"),
    "no thread": (["--threads", "0"], "from 1 to 1024, not '0'"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_message_status_2_and_no_output(what, capsys):
    flags, message = BAD[what]
    assert cli.main(["bench", "--quiet", "--json", *flags]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.startswith("lcref bench: error: ") and said.out == ""


# ----- the same work ---------------------------------------------------------------------------

def drawn(name, dtype=np.float32):
    """A net of the bench, parameters moved off their first values, inputs and labels."""
    net, rng = build(name, bench.TASKS[name][0], 10), np.random.default_rng(1)
    params = {key: (p * np.exp(0.1 * rng.normal(size=p.shape)) + (p.ndim < 2)
                    * 0.1 * rng.random(p.shape)).astype(dtype)
              for key, p in net.init(rng).items()}
    return net, params, rng.normal(size=(16, *net.input_shape)).astype(dtype)


def test_the_nets_and_batches_are_those_of_the_table():
    assert {name: task[1] for name, task in bench.TASKS.items()} == NETS == dict(
        zip(bench.TORCH_NETS, NETS.values()))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_torch_function_of_a_net_gives_the_nets_logits(name, dtype):
    torch = torch_is_installed()
    net, params, x = drawn(name, dtype)
    ours = net.apply(params, x, Training())
    there = {key: torch.from_numpy(p.copy()) for key, p in params.items()}
    theirs = bench.TORCH_NETS[name](torch.nn.functional, there, torch.from_numpy(x)).numpy()
    assert theirs.dtype == dtype == ours.dtype
    assert np.abs(ours - theirs).max() <= 200 * np.finfo(dtype).eps * np.abs(ours).max()


def in_float64(problem):
    """The problem of a name in double precision, so that rounding does not hide a difference."""
    def f(name):
        net, params, targets, x, labels = problem(name)
        params, targets = ({key: p.astype(float) for key, p in arrays.items()}
                           for arrays in (params, targets))
        return net, params, targets, x.astype(float), labels
    return f


@pytest.mark.parametrize("name", NETS)
def test_l_steps_of_both_move_all_parameters_alike(name, monkeypatch):
    """Two steps of one batch each, so with momentum; with penalty and running statistics."""
    torch_is_installed()
    shape, _, _ = bench.TASKS[name]
    monkeypatch.setitem(bench.TASKS, name, (shape, 16, 1))
    monkeypatch.setattr(bench, "MU", 2.0)
    monkeypatch.setattr(bench, "_problem", in_float64(bench._problem))
    start = bench._problem(name)[1]
    steps = {"params": bench._lcref_step(name, 1), "p": bench._torch_step(name, 1)}
    for step in steps.values():
        step()
        step()
    ours, theirs = (inspect.getclosurevars(step).nonlocals[key] for key, step in steps.items())
    assert ours.keys() == theirs.keys() == start.keys()
    for key, p in start.items():
        moved, other = ours[key] - p, theirs[key].detach().numpy() - p
        assert moved.dtype == other.dtype == float and np.linalg.norm(moved) > 0, key
        assert np.linalg.norm(moved - other) <= 1e-6 * np.linalg.norm(moved), key


def test_both_see_as_many_inputs_in_a_turn():
    torch = torch_is_installed()
    for name, (_, batch, batches) in bench.TASKS.items():
        seen = {"lcref": 0, "torch": 0}
        with pytest.MonkeyPatch.context() as patch:
            def ours(net):
                def f(params, x, labels, *_):
                    seen["lcref"] += len(x)
                    return 1.0, {key: 0 * p for key, p in params.items()}
                return f

            def theirs(F, p, x):
                seen["torch"] += len(x)
                return sum((v.sum() for v in p.values()), torch.zeros(len(x), 10))
            patch.setattr(bench.nets, "value_and_grad", ours)
            patch.setitem(bench.TORCH_NETS, name, theirs)
            bench._lcref_step(name, 1)()
            bench._torch_step(name, 1)()
        assert seen == {"lcref": batch * batches, "torch": batch * batches}

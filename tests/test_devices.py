"""--device: arrays put there and back, whole commands on array_api_strict's device, and the errors.

No NumPy call can read an array of that device, so a command that ends there has moved nothing to
the host unasked. A GPU is asked for everywhere; what a machine must answer depends on what it has.
"""
import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec

import array_api_strict
import numpy as np
import pytest

from lcref import cli, resume
from lcref.devices import Device, device, host, named
from lcref.lc import Step
from lcref.parts import Sparse
from lcref.tree import placed

STRICT = array_api_strict.Device("device1")
WITHOUT = """
import sys
class Finder:
    def find_spec(name, *_):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Finder)
from lcref.cli import main
sys.exit(main(sys.argv[2:]))
"""
SHORT = ["--reference-epochs", "2", "--steps", "2", "--epochs", "1", "--lr", "0.01"]
TASKS = ["--task", "fc1.weight: prune(keep=0.1)", "--task", "fc3.weight: lowrank(rank=3)",
         "--task", "fc2.weight: each(binary(scale=True)) + prune(keep=0.02)"]


def run(*arguments):
    return cli.main(list(map(str, arguments)))


def lcref(*arguments, without=()):
    """A run in a process that finds none of these modules, as where they are not installed."""
    done = subprocess.run([sys.executable, "-c", WITHOUT, ",".join(without),
                           *map(str, arguments)], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


# ----- names -----------------------------------------------------------------------------------

@pytest.mark.parametrize("text, name", [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0"),
                                        ("cuda:12", "cuda:12"), ("strict", "strict")])
def test_a_name_is_kept_but_that_cuda_is_the_first_gpu(text, name):
    assert named(text) == name


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:01", "cuda:x",
                                  "cpu:0", " cpu", "cuda\n", "cuda:٣", None, 0, ["cpu"]])
def test_any_other_name_is_refused_with_those_there_are(name):
    for read in (named, device):
        with pytest.raises(ValueError, match=r"takes cpu, cuda, cuda:N .* or strict, not "):
            read(name)


# ----- there and back --------------------------------------------------------------------------

ARRAYS = {"float32": np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5,
          "float64": np.array([0.1, -0.0, np.inf, np.nan]), "uint8": np.arange(5, dtype=np.uint8),
          "int64": np.array([-2**62, 3]), "bool": np.array([True, False]),
          "0-d": np.array(1.5), "empty": np.zeros((0, 3)),
          "Fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
          "strided": np.arange(12.0)[::2], "backwards": np.arange(4.0)[::-1]}


@pytest.mark.parametrize("a", ARRAYS.values(), ids=ARRAYS)
def test_an_array_is_put_on_the_device_and_comes_back_to_the_bit(a):
    there = device("strict").put(a)
    assert there.device == STRICT
    back = host(there)
    assert type(back) is np.ndarray
    assert (back.shape, back.dtype, back.tobytes()) == (a.shape, a.dtype, a.tobytes())


def test_what_is_there_already_and_what_is_no_array_stays():
    here = device("strict")
    there = here.put(np.ones(2))
    assert here.put(there) is there and here.put(None) is None and here.put("a") == "a"
    assert here.put({"a": there, "b": np.ones(1)})["b"].device == STRICT


def test_an_array_on_the_device_shares_no_memory_with_its_source():
    a = np.zeros(3)
    there = device("strict").put(a)
    a[0] = 7.0
    assert float(there[0]) == 0.0


def test_on_the_host_nothing_is_copied():
    a = np.ones(3)
    assert device("cpu").put(a) is a and host(a) is a
    assert device("cpu").put({"a": a})["a"] is a and host({"a": a})["a"] is a


def test_a_tree_of_arrays_is_placed_with_all_else_as_it_was():
    part = Sparse(np.array([1, 3]), np.array([2.0, 4.0]), (2, 3))
    step = Step(3, 0.5, {"w": ARRAYS["Fortran"]}, {0: part}, {}, {}, 0.25,
                state={"epoch": [1, "a"]})
    there = placed({"step": step, "n": None, "one": np.float32(2)}, device("strict").put)
    assert there["step"].theta[0].values.device == there["step"].params["w"].device == STRICT
    assert (there["step"].step, there["step"].feasibility) == (3, 0.25)
    assert there["step"].state == {"epoch": [1, "a"]} and type(there["one"]) is np.float32
    back = placed(there, host)["step"]
    assert back.params["w"].tobytes() == ARRAYS["Fortran"].tobytes()
    assert back.theta[0].decompress().tobytes() == part.decompress().tobytes()


def test_a_device_says_its_kind_its_number_and_the_version_of_its_library():
    assert (Device("cuda:3").kind, Device("cuda:3").number) == ("cuda", 3)
    assert (Device("cpu").kind, Device("cpu").number, device("cpu").facts) == ("cpu", 0, {})
    assert device("strict").facts == {"array-api-strict": array_api_strict.__version__}


# ----- the errors ------------------------------------------------------------------------------

def beyond():
    """A GPU that this machine does not have, and what is said of it."""
    if find_spec("cupy") is None:
        return "cuda", "--device cuda needs CuPy: pip install 'lcref[cuda]'"
    from cupy.cuda import runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return "cuda", f"--device cuda:0: CuPy found no GPU: {error}"
    return f"cuda:{count}", f"--device cuda:{count}: the number of GPUs is {count}"


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """The folder in which the commands below find what they are given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "design.toml").write_text("steps = 1\nepochs = 0\nreference-epochs = 0\n")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "w.npz", **{"fc1.weight": rng.normal(size=(10, 64)).astype("f4"),
                                    "fc1.bias": np.zeros(10, "f4")})
    return tmp_path


COMMANDS = {
    "compress": ["compress", "--out", "out"], "train": ["train", "--out", "out"],
    "eval": ["eval", "w.npz", "--net", "linear"],
    "sweep": ["sweep", "design.toml", "--out", "out", "--workers", "1"],
    "verify": ["verify", "lcref.projections:l0_ball", "--as", "l0_ball"],
    "bench": ["bench", "projections", "--sizes", "10", "--out", "out"]}


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_gpu_that_is_not_there_is_one_line_of_every_command_with_status_2(verb, inputs, capsys):
    name, says = beyond()
    assert run(*COMMANDS[verb], "--device", name) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err
    assert err.startswith(f"lcref {verb}: error: ") and "mistake of lcref" not in err
    assert verb == "sweep" or not (inputs / "out").exists(), "written to before the device is known"


@pytest.mark.parametrize("name, module, says", [
    ("cuda", "cupy", "--device cuda needs CuPy: pip install 'lcref[cuda]'"),
    ("strict", "array_api_strict", "--device strict needs array-api-strict: pip install "
     "array-api-strict")])
def test_a_package_that_is_not_installed_is_named(name, module, says):
    status, out, err = lcref("compress", "--device", name, without=[module])
    assert (status, out) == (2, "") and err.count("\n") == 1 and says in err


def test_debug_shows_the_traceback():
    status, _, err = lcref("compress", "--device", beyond()[0], "--debug")
    assert status == 1 and "Traceback" in err and beyond()[1] in err


def test_without_either_package_the_host_is_all_that_is_needed(tmp_path):
    status, out, err = lcref("train", "--net", "linear", "--epochs", "1", "--out", tmp_path,
                             without=["cupy", "array_api_strict"])
    assert status == 0, err


@pytest.mark.parametrize("verb", COMMANDS)
def test_another_name_is_wrong_usage(verb, capsys):
    assert run(*COMMANDS[verb], "--device", "gpu") == 2
    err = capsys.readouterr().err
    assert "argument --device: takes cpu, cuda, cuda:N" in err and err.count("\n") == 1


def test_every_command_that_computes_has_the_flag_and_no_other_has():
    _, verbs = cli._parser()
    found = {verb for verb, parser in verbs.items() if "--device" in parser._option_string_actions}
    assert found == COMMANDS.keys()
    for verb in found:
        said = verbs[verb]._option_string_actions["--device"].help
        assert "needs array-api-strict" in said and "'lcref[cuda]'" in said


# ----- whole commands --------------------------------------------------------------------------

def arrays(file):
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def weights(file):
    found = arrays(file)
    assert all(a.dtype == np.float32 for a in found.values())
    return found


def same_up_to_rounding(one, other):
    """Weights that differ by what sums in another order do to float32 in some sixty updates.

    Which is 1e-5 of a tensor's largest; but a weight that is as near to a threshold of its
    projection may fall to the other side: three in all.
    """
    assert one.keys() == other.keys()
    apart = 0
    for name, a in one.items():
        apart += np.count_nonzero(abs(a - other[name]) > 1e-5 * abs(a).max())
    assert apart <= 3


def same_numbers(one, other):
    """Losses to the same rounding, of up to three such weights, and errors to one image."""
    for key, value in one.items():
        if key.endswith("loss"):
            assert other[key] == pytest.approx(value, rel=1e-4), key
        elif key.endswith("error"):
            assert other[key] == pytest.approx(value, abs=100 / 143 + 1e-9), key


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders and histories of one run of lcref compress on either device."""
    found = {}
    for name in ("cpu", "strict"):
        out = tmp_path_factory.mktemp("run") / name
        assert run("compress", *SHORT, *TASKS, "--hold-out", "0.1", "--quiet", "--device", name,
                   "--out", out) == 0
        found[name] = out, json.loads((out / "history.json").read_text())
    return found


def test_compression_on_a_device_has_the_numbers_of_the_host(runs):
    (_, here), (_, there) = runs["cpu"], runs["strict"]
    for which in ("reference", "direct", "lc"):
        assert here[which].keys() == there[which].keys() and "held_out_error" in here[which]
        same_numbers(here[which], there[which])
    assert len(here["steps"]) == len(there["steps"]) == 2
    for one, other in zip(here["steps"], there["steps"]):
        same_numbers(one, other)
        assert other["feasibility"] == pytest.approx(one["feasibility"], rel=1e-4)
        assert other["status"] == one["status"]
    assert there["ratio"] == pytest.approx(here["ratio"], rel=1e-3)     # three positions


@pytest.mark.parametrize("file", ["reference.npz", "compressed.npz"])
def test_compression_on_a_device_has_the_weights_of_the_host(runs, file):
    same_up_to_rounding(*(weights(runs[name][0] / file) for name in ("cpu", "strict")))


def test_compression_on_a_device_writes_every_file(runs):
    here, there = (sorted(os.listdir(runs[name][0])) for name in ("cpu", "strict"))
    assert here == there and {"model.npz", "path.png", "parts-3.png", "layer-1.png"} <= {*there}


def test_a_result_says_the_device_and_the_version_of_its_library(runs):
    version = {"array-api-strict": array_api_strict.__version__}
    for name, facts in (("cpu", {}), ("strict", version)):
        out, history = runs[name]
        settings = json.loads((out / "settings.json").read_text())
        for found in (history, settings):
            assert found["settings"]["device"] == name and found["device"] == facts


def test_the_packed_file_of_a_device_is_evaluated_on_either(runs, capsys):
    out, history = runs["strict"]
    for name in ("cpu", "strict"):
        assert run("eval", out / "model.npz", "--device", name, "--train", "--json",
                   "--quiet") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["test_error"] == pytest.approx(history["lc"]["test_error"], abs=1e-9)


@pytest.mark.parametrize("flags, says", [
    (["eval", "model.npz", "--from-parts"], "--from-parts computes on the host"),
    (["train", "--optimizer", "lbfgs", "--out", "new"], "--optimizer lbfgs computes on the host"),
    (["verify", "--exec", "cat", "--as", "l0_ball"], "a program of --exec is handed numbers"),
    (["bench", "targets"], "the targets are those of the host")])
def test_what_runs_on_the_host_alone_says_so(runs, flags, says, monkeypatch, capsys):
    monkeypatch.chdir(runs["cpu"][0])
    assert run(*flags, "--device", "strict") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err and "--device strict" in err
    assert not os.path.exists("new")


def test_training_on_a_device_has_the_weights_and_numbers_of_the_host(tmp_path, capsys):
    found = {}
    for name in ("cpu", "strict"):
        assert run("train", "--epochs", "2", "--lr", "0.01", "--hold-out", "0.1", "--device", name,
                   "--out", tmp_path / name, "--json", "--quiet") == 0
        found[name] = json.loads(capsys.readouterr().out)
        assert found[name]["settings"]["device"] == name
    assert "held_out_error" in found["cpu"]
    same_numbers(found["cpu"], found["strict"])
    same_up_to_rounding(*(weights(tmp_path / name / "weights.npz") for name in ("cpu", "strict")))


def test_the_weights_before_a_divergence_on_a_device_are_written(tmp_path, capsys):
    assert run("compress", "--lr", "1e30", "--reference-epochs", "2", "--device", "strict",
               "--quiet", "--out", tmp_path) == 2
    assert "last-good.npz holds the last good weights" in capsys.readouterr().err
    assert all(np.isfinite(a).all() for a in weights(tmp_path / "last-good.npz").values())


# ----- stopped, and gone on --------------------------------------------------------------------

@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """stopped(verb, n, *flags): the folder of a run on strict that SIGINT stops in batch n."""
    pause = resume.Record.pause

    def stop(verb, n, *flags):
        def counted(self, make):
            nonlocal n
            n -= 1
            if n == 0:
                signal.raise_signal(signal.SIGINT)
            pause(self, make)
        monkeypatch.setattr(resume.Record, "pause", counted)
        assert run(verb, "--quiet", "--device", "strict", "--out", tmp_path / "out", *flags) == 130
        monkeypatch.setattr(resume.Record, "pause", pause)
        return tmp_path / "out"
    return stop


@pytest.mark.parametrize("n", [9, 60], ids=["reference", "LC"])     # 21 batches an epoch
def test_a_run_on_a_device_goes_on_to_the_same_bits(runs, stopped, n, capsys):
    out = stopped("compress", n, *SHORT, *TASKS, "--hold-out", "0.1")
    for file in out.glob("checkpoint-*.npz"):
        assert all(a.dtype.kind in "iufb" for a in arrays(file).values())
    assert run("compress", "--resume", out, "--quiet") == 0
    for file in ("reference.npz", "compressed.npz", "model.npz"):
        one, other = arrays(out / file), arrays(runs["strict"][0] / file)
        assert {name: a.tobytes() for name, a in one.items()} == {
            name: a.tobytes() for name, a in other.items()}, file


def test_training_on_a_device_goes_on_to_the_same_bits(stopped, tmp_path):
    flags = ["--epochs", "3", "--net", "linear"]
    assert run("train", *flags, "--quiet", "--device", "strict", "--out", tmp_path / "whole") == 0
    out = stopped("train", 30, *flags)
    assert run("train", "--resume", out, "--quiet") == 0
    one, other = (weights(folder / "weights.npz") for folder in (out, tmp_path / "whole"))
    assert {name: a.tobytes() for name, a in one.items()} == {
        name: a.tobytes() for name, a in other.items()}


def test_a_run_does_not_go_on_on_another_device(stopped, capsys):
    out = stopped("train", 5, "--net", "linear", "--epochs", "1")
    assert run("train", "--resume", out, "--device", "cpu", "--quiet") == 2
    assert f"--device cpu, but the run in {out} has strict" in capsys.readouterr().err
    assert run("train", "--resume", out, "--device", "strict", "--quiet") == 0


@pytest.mark.parametrize("change, says", [
    (lambda there: there["settings"].update(device="cpu"), r"is of another run: .*device"),
    (lambda there: there["device"].update({"array-api-strict": "1.0"}),
     r"is of another run: device array-api-strict is '1.0' there"),
    (lambda there: there["settings"].update(device="gpu"), r"settings.json: --device takes cpu"),
    (lambda there: there["settings"].update(device=None), r"settings.json: --device takes cpu"),
    (lambda there: there["settings"].update(device=3), r"damaged: it has 'device' as 3")])
def test_settings_of_another_device_or_library_are_refused(stopped, change, says, capsys):
    out = stopped("train", 5, "--net", "linear", "--epochs", "1")
    there = json.loads((out / "settings.json").read_text())
    change(there)
    (out / "settings.json").write_text(json.dumps(there))
    capsys.readouterr()     # that it was stopped
    assert run("train", "--resume", out, "--quiet") == 2
    err = capsys.readouterr().err
    assert re.search(says, err) and err.count("\n") == 1


# ----- a sweep ---------------------------------------------------------------------------------

DESIGN = """hold-out = 0.1
steps = 2
epochs = 1
reference-epochs = 1
lr = 0.01
[[grid]]
compress = ["prune(keep=0.1)", "binary(scale=True)"]
"""


def cells(folder):
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("cells/*/*.json")}


def test_the_cells_of_a_sweep_run_on_the_device_and_say_so(tmp_path, capsys):
    (tmp_path / "design.toml").write_text(DESIGN)
    sweep = ["sweep", tmp_path / "design.toml", "--workers", "1", "--quiet"]
    for name in ("cpu", "strict"):
        assert run(*sweep, "--out", tmp_path / name, "--device", name) == 0
    here, there = cells(tmp_path / "cpu"), cells(tmp_path / "strict")
    assert here.keys() == there.keys() and len(here) == 2
    for key, cell in there.items():
        assert cell["result"]["settings"]["device"] == "strict"
        for which in ("reference", "direct", "lc"):
            same_numbers(here[key]["result"][which], cell["result"][which])
    assert run("best", tmp_path / "strict", "--max-error", "100") == 0
    assert "--device strict --out model-" in capsys.readouterr().out
    assert run("best", tmp_path / "cpu", "--max-error", "100") == 0
    assert "--device" not in capsys.readouterr().out


def test_a_folder_takes_the_cells_of_one_kind_of_device(tmp_path, capsys):
    (tmp_path / "design.toml").write_text("net = 'linear'\nsteps = 1\nepochs = 0\n"
                                          "reference-epochs = 0\n")
    sweep = ["sweep", tmp_path / "design.toml", "--workers", "1", "--quiet", "--out",
             tmp_path / "out"]
    assert run(*sweep) == 0
    assert run(*sweep, "--device", "strict") == 2
    err = capsys.readouterr().err
    assert "has results of --device cpu" in err and "take another folder" in err
    assert run(*sweep) == 0


def test_a_design_cannot_say_the_device(tmp_path, capsys):
    (tmp_path / "design.toml").write_text("device = 'strict'\n")
    assert run("sweep", tmp_path / "design.toml", "--out", tmp_path / "out") == 2
    assert "device: not a setting of a cell" in capsys.readouterr().err


# ----- what is verified, and what is timed -----------------------------------------------------

SUBJECTS = """
import array_api_strict as xp
import numpy as np
from lcref import projections

def by_sorting(w, kappa):
    assert w.device == xp.Device("device1")
    x = xp.reshape(w, (-1,))
    order = xp.argsort(xp.argsort(xp.abs(x), descending=True, stable=True), stable=True)
    return xp.reshape(xp.where(order < kappa, x, xp.zeros_like(x)), w.shape)

def part(w, kappa):
    return projections.l0_ball(w, kappa)

def from_the_host(w, kappa):
    return projections.l0_ball(np.from_dlpack(w), kappa).decompress()

def of_numpy(w, kappa):
    return projections.l0_ball(np.asarray(w), kappa).decompress()

def one_too_many(w, kappa):
    return by_sorting(w, kappa + 1)

def writes(w, kappa):
    theta = by_sorting(w, kappa)
    w[...] = 0.0
    return theta

def given_codebook(w, codebook):
    assert codebook.device == xp.Device("device1")
    return projections.nearest(w, codebook)
"""


@pytest.fixture
def subjects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "subjects_on_a_device", raising=False)
    (tmp_path / "subjects_on_a_device.py").write_text(SUBJECTS)

    def verify(name, kind="l0_ball"):
        """(exit status, results by name) of a function that is handed arrays on strict."""
        return run("verify", f"subjects_on_a_device:{name}", "--as", kind, "--max-examples", "20",
                   "--device", "strict", "--json")
    yield verify
    sys.path[:] = [folder for folder in sys.path if folder != str(tmp_path)]


@pytest.mark.parametrize("name", ["by_sorting", "part", "from_the_host"])
def test_a_function_of_arrays_on_the_device_conforms_wherever_its_answer_is(subjects, name, capsys):
    assert subjects(name) == 0
    assert json.loads(capsys.readouterr().out)["target"].endswith(f":{name} on strict")


def test_a_codebook_is_handed_over_on_the_device_too(subjects):
    assert subjects("given_codebook", "nearest") == 0


@pytest.mark.parametrize("name, failing", [
    ("of_numpy", "feasible"), ("one_too_many", "feasible"), ("writes", "does_not_write_its_input")])
def test_a_function_that_is_wrong_on_the_device_is_found(subjects, name, failing, capsys):
    assert subjects(name) == 1
    found = {r["name"]: r for r in json.loads(capsys.readouterr().out)["results"]}
    assert found[failing]["status"] == "failed"
    assert "on_device(" in found[failing]["counterexample"]


def test_the_counterexample_on_a_device_runs_when_pasted(subjects, capsys, tmp_path):
    subjects("one_too_many")
    found = json.loads(capsys.readouterr().out)["results"]
    code = next(r["counterexample"] for r in found if r["name"] == "feasible")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in code      # as was returned there


def test_projections_are_timed_on_the_device_with_the_peers_left_out_by_name(capsys):
    assert run("bench", "projections", "--only", "l0_ball 1%", "--only", "nearest", "--sizes",
               "1000", "--turns", "1", "--device", "strict", "--json", "--quiet") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == {"name": "strict", **device("strict").facts}
    names = {row["name"]: row for row in found["projections"]}
    for row in names.values():
        assert min(row["seconds"], row["sort_seconds"], row["copy_seconds"]) > 0
        assert row["memory"] is row["process_memory"] is None
        assert {peer["left_out"] for peer in row["peers"]} == {"takes no arrays on strict"}
    w = np.sort(abs(_bench_weights()))
    assert names["l0_ball 1%"]["objective"] == pytest.approx(float(w[:-10] @ w[:-10]), rel=1e-12)


def _bench_weights():
    from lcref.bench.cases import weights
    return weights(1000, "float64")


def test_the_sort_and_the_copy_are_made_where_w_is():
    from lcref.bench.projections import _units
    for w in (np.array([3.0, -1.0]), device("strict").put(np.array([3.0, -1.0]))):
        sort, copy = _units(w)
        assert sort().device == copy().device == w.device
        assert host(sort()).tolist() == [1.0, 3.0] and host(copy()).tolist() == [3.0, -1.0]


def test_an_l_step_on_strict_is_timed_alone(capsys):
    assert run("bench", "--net", "lenet300", "--turns", "1", "--device", "strict", "--json") == 0
    out, err = capsys.readouterr()
    row, = json.loads(out)["l_step"]
    assert row["lcref_ms"] > 0 and {row[key] for key in row if key not in (
        "net", "batch", "lcref_ms")} == {None}
    assert "PyTorch" in err and "on strict" in err

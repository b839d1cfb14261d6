"""lcref verify, certify and vectors: exit statuses, streams and messages."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lcref import Task, cli, direct_compression, storage
from lcref.text import parse

JAVASCRIPT = Path(__file__).parent / "javascript"
QUICK = ["--max-examples", "20"]
MODULE = """
import numpy as np

def right(w, kappa):
    theta = np.zeros_like(w)
    kept = np.argsort(-abs(w.ravel()), kind="stable")[:kappa]
    theta.ravel()[kept] = w.ravel()[kept]
    return theta

def keeps_ties(w, kappa):
    magnitudes = np.sort(abs(w))[::-1]
    if kappa == 0:
        return 0 * w
    return np.where(abs(w) >= magnitudes[min(kappa, w.size) - 1], w, 0)

def loud(w, kappa):
    print("{not json")
    return right(w, kappa)

def one_argument(w):
    return w

number = 3
"""
ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"id": request["id"], "theta": request["w"]}), flush=True)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A current directory of its own, with a module of targets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "commands_target.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("commands_target", None)


@pytest.fixture
def lcref(capsys):
    """Runs a command: (exit status, standard output, standard error)."""
    def run(*arguments):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return (status, *capsys.readouterr())
    return run


def verify(lcref, name, *arguments):
    return lcref("verify", f"commands_target:{name}", "--as", "l0_ball",
                 "--max-examples", "5", *arguments)


def statuses(stdout):
    return {result["name"]: result["status"] for result in json.loads(stdout)["results"]}


# ---- verify: functions

def test_a_right_function_exits_0(lcref):
    status, stdout, stderr = verify(lcref, "right")
    assert (status, stderr) == (0, "") and "commands_target:right conforms" in stdout


def test_a_wrong_function_exits_1(lcref):
    status, stdout, _ = verify(lcref, "keeps_ties")
    assert status == 1 and "does NOT conform" in stdout


def test_the_counterexample_imports_the_function(lcref):
    assert "from commands_target import keeps_ties" in verify(lcref, "keeps_ties")[1]


def test_json_is_one_object_on_standard_output(lcref):
    status, stdout, stderr = verify(lcref, "right", "--json")
    assert status == 0 and json.loads(stdout)["ok"] is True and "conforms" in stderr


def test_json_of_a_wrong_function_is_not_ok(lcref):
    status, stdout, _ = verify(lcref, "keeps_ties", "--json")
    assert status == 1 and json.loads(stdout)["ok"] is False


def test_a_function_that_prints_leaves_json_alone(lcref):
    status, stdout, _ = verify(lcref, "loud", "--json")
    assert status == 1 and statuses(stdout)["prints_nothing"] == "failed"


def test_a_module_that_prints_leaves_json_alone(lcref, folder):
    (folder / "commands_target.py").write_text("print('hello')\n" + MODULE)
    status, stdout, stderr = verify(lcref, "right", "--json")
    assert status == 0 and json.loads(stdout)["ok"] and "hello" in stderr


def test_an_expected_failure_conforms(lcref):
    assert verify(lcref, "loud", "--expect-fail", "prints_nothing=a progress bar")[0] == 0


def test_an_expected_failure_has_its_reason_in_the_report(lcref):
    stdout = verify(lcref, "loud", "--expect-fail", "prints_nothing=a progress bar")[1]
    assert "(expected: a progress bar)" in " ".join(stdout.split())


def test_an_expected_failure_that_passes_exits_1(lcref):
    assert verify(lcref, "right", "--expect-fail", "ties=not handled")[0] == 1


def test_a_claim_is_run(lcref):
    stdout = verify(lcref, "right", "--claims", "n_dimensional,float32", "--json")[1]
    assert {statuses(stdout)[name] for name in ("n_dimensional", "float32")} == {"passed"}


def test_a_claim_that_does_not_hold_exits_1(lcref):
    assert verify(lcref, "right", "--claims", "rejects_nan")[0] == 1


def test_all_claims_the_optional_properties(lcref):
    assert "not claimed" not in statuses(verify(lcref, "right", "--claims", "all",
                                                "--json")[1]).values()


def test_a_sum_is_verified(lcref, folder):
    (folder / "commands_target.py").write_text(
        "from lcref.text import parse\n"
        "def step(w):\n"
        "    return parse('quantize(k=2) + prune(kappa=2)').project(w)\n")
    assert lcref("verify", "commands_target:step", "--as", "sum", "--max-examples", "5",
                 "--compress", "quantize(k=2) + prune(kappa=2)")[0] == 0


@pytest.mark.parametrize("arguments, message", [
    (["--as", "l0_ball"], "name what to verify"),
    (["commands_target:right", "--exec", "true", "--as", "l0_ball"], "name what to verify"),
    (["commands_target", "--as", "l0_ball"], "names no function"),
    (["no_such_module:right", "--as", "l0_ball"], "no_such_module cannot be imported"),
    (["commands_target:rihgt", "--as", "l0_ball"], "did you mean 'right'"),
    (["commands_target:number", "--as", "l0_ball"], "is of type int"),
    (["commands_target:one_argument", "--as", "l0_ball"], "one_argument(w, kappa)"),
    (["commands_target:right", "--as", "l0_bal"], "'l0_bal'"),
    (["commands_target:right", "--as", "l0_ball", "--expect-fail", "ties"], "NAME=reason"),
    (["commands_target:right", "--as", "l0_ball", "--expect-fail", "ties= "], "NAME=reason"),
    (["commands_target:right", "--as", "l0_ball", "--expect-fail", "tie=x"], "'tie'"),
    (["commands_target:right", "--as", "l0_ball", "--claims", "empti"], "'empti'"),
    (["commands_target:right", "--as", "l0_ball", "--time-limit", "0"], "--time-limit"),
    (["commands_target:right", "--as", "l0_ball", "--time-limit", "nan"], "--time-limit"),
    (["commands_target:right", "--as", "l0_ball", "--time-limit", "inf"], "--time-limit"),
    (["commands_target:right", "--as", "l0_ball", "--max-examples", "0"], "--max-examples"),
    (["commands_target:one_argument", "--as", "sum"], "ompress"),
    (["commands_target:one_argument", "--as", "sum", "--compress", "quantize(k=2)"],
     "needs a sum"),
    (["commands_target:right", "--as", "l0_ball", "--compress", ""], "goes with kind sum"),
    (["commands_target:right", "--as", "l0_ball", "--compress",
      "quantize(k=2) + prune(kappa=1)"], "ompress")])
def test_wrong_usage_exits_2_with_one_line(lcref, arguments, message):
    status, stdout, stderr = lcref("verify", *arguments)
    assert (status, stdout) == (2, "") and message in stderr
    assert stderr.startswith("lcref verify: error: ") and stderr.count("\n") == 1


def test_a_text_that_cannot_be_read_exits_2_with_a_caret(lcref):
    status, _, stderr = lcref("verify", "commands_target:one_argument", "--as", "sum",
                              "--compress", "quantize(k=2) + prun(kappa=1)")
    assert status == 2 and stderr.splitlines()[-1].strip() == "^" and "Traceback" not in stderr


@pytest.mark.parametrize("arguments", [
    ["commands_target:right"], ["commands_target:right", "--as", "l0_ball", "--time-limit", "x"],
    ["commands_target:right", "--as", "l0_ball", "--no-such-flag"]])
def test_flags_that_cannot_be_read_exit_2(lcref, arguments):
    assert lcref("verify", *arguments)[0] == 2


def test_debug_shows_where_an_error_comes_from(lcref):
    with pytest.raises(ValueError, match="cannot be imported"):
        lcref("verify", "no_such_module:right", "--as", "l0_ball", "--debug")


def test_a_process_of_its_own_finds_modules_in_the_current_directory():
    done = subprocess.run(
        [sys.executable, "-m", "lcref", "verify", "commands_target:loud", "--as", "l0_ball",
         "--json", "--max-examples", "2"], capture_output=True, text=True, timeout=120,
        env={"PYTHONPATH": str(Path(cli.__file__).parents[1])})
    assert done.returncode == 1 and json.loads(done.stdout)["target"] == "commands_target:loud"


# ---- verify: programs

def program(folder, source):
    (folder / "program.py").write_text(source)
    return shlex.join([sys.executable, "-S", str(folder / "program.py")])


def verify_program(lcref, command, *arguments, kind="l0_ball"):
    return lcref("verify", "--exec", command, "--as", kind, *QUICK, *arguments)


node = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")


def served(module):
    return shlex.join(["node", str(JAVASCRIPT / "serve.js"), str(JAVASCRIPT / module)])


@node
@pytest.mark.parametrize("kind", ["l0_ball", "binary", "kmeans"])
def test_right_functions_in_javascript_conform(lcref, kind):
    status, stdout, _ = verify_program(lcref, served("projections.js"), kind=kind)
    assert status == 0, stdout


@node
@pytest.mark.parametrize("kind, expected", [
    ("l0_ball", "ties"), ("binary", "optimal"), ("kmeans", "optimal_at_size")])
def test_wrong_functions_in_javascript_do_not(lcref, kind, expected):
    status, stdout, _ = verify_program(lcref, served("broken.js"), "--json", kind=kind)
    assert status == 1 and statuses(stdout)[expected] == "failed"


@node
def test_a_kind_that_a_program_does_not_serve_exits_1(lcref):
    status, stdout, _ = verify_program(lcref, served("projections.js"), kind="ternary")
    assert status == 1 and "ternary is not served here" in stdout


def test_a_program_that_returns_w_is_not_feasible(lcref, folder):
    status, stdout, _ = verify_program(lcref, program(folder, ECHO), "--json")
    assert status == 1 and statuses(stdout)["feasible"] == "failed"


def test_a_program_that_dies_exits_1(lcref, folder):
    status, stdout, _ = verify_program(lcref, program(folder, "raise SystemExit(7)"),
                                       "--max-examples", "1")
    assert status == 1 and "ended with status 7" in stdout


def test_a_program_that_prints_garbage_exits_1(lcref, folder):
    source = "import sys\nfor line in sys.stdin:\n    print('hello', flush=True)\n"
    status, stdout, _ = verify_program(lcref, program(folder, source), "--max-examples", "1")
    assert status == 1 and "not an answer: 'hello'" in stdout


def test_a_program_that_hangs_exits_1(lcref, folder):
    status, stdout, _ = verify_program(lcref, program(folder, "import time\ntime.sleep(60)\n"),
                                       "--time-limit", "0.5")
    assert status == 1 and "did not return within 0.5 s" in stdout


def test_a_program_that_is_missing_exits_2(lcref):
    status, stdout, stderr = verify_program(lcref, "./no-such-program --flag")
    assert (status, stdout) == (2, "") and stderr.count("\n") == 1
    assert "'./no-such-program --flag' cannot be started" in stderr


@pytest.mark.parametrize("command", ["", "node 'serve.js"])
def test_a_command_that_names_no_program_exits_2(lcref, command):
    status, _, stderr = verify_program(lcref, command)
    assert status == 2 and stderr.count("\n") == 1 and "the command" in stderr


# ---- certify

TEXT = "each(quantize(k=2)) + prune(kappa=3)"


@pytest.fixture
def files(folder):
    """A reference with a bias, and its compression."""
    rng = np.random.default_rng(0)
    w = {"fc1.weight": rng.standard_normal((4, 5)), "fc2.weight": rng.standard_normal((3, 4))}
    bias = {"fc1.bias": rng.standard_normal(4)}
    np.savez(folder / "ref.npz", **w, **bias)
    np.savez(folder / "model.npz", **parse(TEXT).project(w).decompress(), **bias)
    return w


def certify(lcref, *arguments, model="model.npz"):
    return lcref("certify", "ref.npz", model, *arguments)


def test_the_optimum_is_certified_with_0(lcref, files):
    status, stdout, stderr = certify(lcref, "--compress", TEXT)
    assert (status, stderr) == (0, "") and "optimal: yes" in stdout


def test_json_of_a_certificate_is_one_object(lcref, files):
    status, stdout, stderr = certify(lcref, "--compress", TEXT, "--json")
    task, = json.loads(stdout)["tasks"]
    assert status == 0 and task["feasible"] and task["optimal"] and "optimal: yes" in stderr


def test_the_weights_are_those_with_two_axes_or_more(lcref, files):
    task, = json.loads(certify(lcref, "--compress", TEXT, "--json")[1])["tasks"]
    assert task["tensors"] == ["fc1.weight", "fc2.weight"]


def test_an_infeasible_model_exits_1(lcref, files):
    status, stdout, _ = certify(lcref, "--compress", "quantize(k=2)")
    assert status == 1 and "feasible: NO" in stdout


def test_max_excess_does_not_make_a_model_feasible(lcref, files):
    assert certify(lcref, "--compress", "quantize(k=2)", "--max-excess", "inf")[0] == 1


@pytest.fixture
def worse(files, folder):
    """[3, 4] pruned to the wrong one: 16 where 9 is best, 78% above."""
    np.savez(folder / "ref.npz", w=np.array([[3.0, 4.0]]))
    np.savez(folder / "model.npz", w=np.array([[3.0, 0.0]]))


def test_a_model_that_is_beaten_exits_1(lcref, worse):
    status, stdout, _ = certify(lcref, "--compress", "prune(kappa=1)")
    assert status == 1 and "optimal: NO; at most 7 above" in stdout


@pytest.mark.parametrize("share, expected", [("inf", 0), ("0.8", 0), ("0.7", 1), ("0", 1)])
def test_max_excess_is_a_share_of_the_best(lcref, worse, share, expected):
    assert certify(lcref, "--compress", "prune(kappa=1)", "--max-excess", share)[0] == expected


@pytest.mark.parametrize("share, expected", [("inf", 0), ("0.8", 1)])
def test_max_excess_where_the_best_is_0(lcref, worse, share, expected):
    assert certify(lcref, "--compress", "prune(kappa=2)", "--max-excess", share)[0] == expected


def test_a_single_tensor_is_certified_by_name(lcref, worse):
    assert certify(lcref, "--task", "w: prune(kappa=1)", "--max-excess", "1")[0] == 0


def test_tasks_are_certified_one_by_one(lcref, files, folder):
    w = files
    np.savez(folder / "model.npz", **{
        "fc1.weight": parse("quantize(k=2)").project(w["fc1.weight"]).decompress(),
        "fc2.weight": parse("prune(kappa=3)").project(w["fc2.weight"]).decompress()})
    status, stdout, _ = certify(lcref, "--task", "fc1.weight: quantize(k=2)", "--task",
                                "fc2.weight: prune(kappa=3)", "--json")
    assert status == 0 and [task["tensors"] for task in json.loads(stdout)["tasks"]] == [
        ["fc1.weight"], ["fc2.weight"]]


def test_one_task_that_is_wrong_is_enough_for_1(lcref, files):
    status, stdout, _ = certify(lcref, "--task", "fc1.weight: prune(kappa=20)", "--task",
                                "fc2.weight: prune(kappa=3)", "--max-excess", "inf", "--json")
    assert status == 1 and [t["ok"] for t in json.loads(stdout)["tasks"]] == [True, False]


def test_a_penalty_takes_mu(lcref, files):
    assert certify(lcref, "--compress", "prune(alpha=0.1)", "--mu", "2", "--max-excess",
                   "inf")[0] == 0


@pytest.mark.parametrize("arguments, message", [
    ([], "either --compress"),
    (["--compress", "binary()", "--task", "fc1.weight: binary()"], "either --compress"),
    (["--compress", "binary()", "--max-excess", "-1"], "--max-excess"),
    (["--compress", "binary()", "--max-excess", "nan"], "--max-excess"),
    (["--task", "fc1.wieght: binary()"], "did you mean 'fc1.weight'"),
    (["--compress", "prune(alpha=0.1)"], "mu")])
def test_wrong_usage_of_certify_exits_2_with_one_line(lcref, files, arguments, message):
    status, stdout, stderr = certify(lcref, *arguments)
    assert (status, stdout) == (2, "") and message in stderr and stderr.count("\n") == 1


def test_a_missing_file_exits_2(lcref, files):
    status, _, stderr = certify(lcref, "--compress", "binary()", model="no.npz")
    assert status == 2 and "no.npz" in stderr and stderr.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04hello"])
def test_a_file_that_is_no_npz_exits_2(lcref, files, folder, content):
    (folder / "bad.npz").write_bytes(content)
    status, _, stderr = certify(lcref, "--compress", "binary()", model="bad.npz")
    assert status == 2 and "bad.npz is not an .npz file" in stderr


def test_a_single_array_exits_2(lcref, files, folder):
    np.save(folder / "bad.npy", np.ones(3))
    status, _, stderr = certify(lcref, "--compress", "binary()", model="bad.npy")
    assert status == 2 and "bad.npy is not an .npz file" in stderr


def test_a_tensor_that_the_model_lacks_exits_2(lcref, files, folder):
    np.savez(folder / "model.npz", **{"fc1.weight": files["fc1.weight"]})
    status, _, stderr = certify(lcref, "--compress", "binary()")
    assert status == 2 and "model.npz has no tensor 'fc2.weight'" in stderr


def test_a_tensor_of_another_shape_exits_2(lcref, files, folder):
    np.savez(folder / "model.npz", **{name: x.T for name, x in files.items()})
    status, _, stderr = certify(lcref, "--compress", "binary()")
    assert status == 2 and "fc1.weight has shape" in stderr


def pack(folder, text, wrong=False):
    """ref.npz, and model.npz packed by the text; wrong: by a budget of one more."""
    w = {name: np.random.default_rng(i).standard_normal((6, 9)).astype(np.float32)
         for i, name in enumerate(("fc1.weight", "fc2.weight"))}
    np.savez(folder / "ref.npz", **w)
    tasks = [Task(tuple(w), parse(text))]
    made = [Task(tuple(w), parse(text.replace("kappa=7", "kappa=8")))] if wrong else tasks
    thetas, _ = direct_compression(w, made)
    (folder / "model.npz").write_bytes(storage.pack(w, tasks, thetas))


@pytest.mark.parametrize("text, optimal", [
    ("each(quantize(k=2)) + prune(kappa=7)", True), ("lowrank(rank=1) + prune(kappa=7)", False),
    ("binary(scale=True) + prune(kappa=7, storage='float16')", None),
    ("prune(kappa=7, storage='float16')", True)])
def test_a_packed_model_is_judged_part_by_part_by_its_own_text(lcref, folder, text, optimal):
    pack(folder, text)
    status, stdout, _ = certify(lcref, "--json")
    task, = json.loads(stdout)["tasks"]
    assert status == 0 and task["feasible"] and task["compression"] == str(parse(text))
    assert optimal is None or task["optimal"] is optimal
    assert certify(lcref, "--compress", text)[0] == 0      # the same text, given


@pytest.mark.parametrize("text", ["each(quantize(k=2)) + prune(kappa=7)",
                                  "lowrank(rank=1) + prune(kappa=7)",
                                  "binary() + prune(kappa=7, storage='float16')"])
def test_a_packed_model_with_a_correction_too_many_is_not_feasible(lcref, folder, text):
    pack(folder, text, wrong=True)
    status, stdout, _ = certify(lcref, "--max-excess", "inf")
    assert status == 1 and "more than" in stdout


def test_values_that_are_not_half_precision_are_not_feasible_where_the_text_says_so(lcref, folder):
    pack(folder, "prune(kappa=7)")
    text = "prune(kappa=7, storage='float16')"
    status, stdout, _ = certify(lcref, "--compress", text, "--max-excess", "inf")
    assert status == 1 and "a value is not a half-precision number" in stdout


def test_of_dense_weights_half_precision_corrections_cannot_be_judged(lcref, folder):
    pack(folder, "each(quantize(k=2)) + prune(kappa=7)")
    text = "each(quantize(k=2)) + prune(kappa=7, storage='float16')"
    status, stdout, _ = certify(lcref, "--compress", text, "--max-excess", "inf")
    assert status == 1 and "give the parts" in stdout


def test_a_sum_in_half_precision_cannot_be_verified_by_its_function(lcref):
    status, _, stderr = lcref("verify", "commands_target:one_argument", "--as", "sum",
                              "--compress", "binary() + prune(kappa=1, storage='float16')")
    assert status == 2 and "rounded to half precision cannot be verified" in stderr


# ---- vectors

def test_vectors_are_written(lcref, folder):
    status, stdout, _ = lcref("vectors", "--out", folder / "new" / "vectors")
    assert status == 0 and stdout.startswith("20 files written to ")
    assert len(list((folder / "new" / "vectors").glob("*.json"))) == 20


def test_vectors_may_be_written_twice(lcref, folder):
    assert [lcref("vectors", "--out", folder / "out")[0] for _ in range(2)] == [0, 0]


def test_vectors_leave_a_foreign_file_alone(lcref, folder):
    (folder / "l0_ball.json").write_text('{"mine": 1}')
    status, _, stderr = lcref("vectors", "--out", folder)
    assert status == 2 and "l0_ball.json" in stderr
    assert (folder / "l0_ball.json").read_text() == '{"mine": 1}'


def test_vectors_need_a_folder(lcref):
    assert lcref("vectors")[0] == 2

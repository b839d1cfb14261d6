"""Bad input to every command: one line that names what is wrong, and never a traceback."""

import io
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lcref import cli, experiment, storage
from lcref.compressions import Task
from lcref.lc import direct_compression
from lcref.text import parse

VERBS = cli._parser()[1]
SHAPES = {"fc1.weight": (10, 64), "fc1.bias": (10,)}     # of the linear net on the digits
TARGETS = """
def wrong(w, kappa):
    raise KeyError(kappa)

def answers(w, kappa):
    return ANSWER
"""


@pytest.fixture
def lcref(tmp_path, monkeypatch, capsys):
    """Runs a command in a folder of its own: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for folder in ("busy", "folder"):
        (tmp_path / folder).mkdir()
    (tmp_path / "busy" / "checkpoint-000001.npz").touch()
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "design.toml").write_text("net = 'nothing'\n")
    (tmp_path / "mnist.toml").write_text("data = 'mnist'\n")
    (tmp_path / "input_target.py").write_text(TARGETS)
    for name in ("ref.npz", "model.npz"):
        np.savez(tmp_path / name, **{name: np.ones(shape) for name, shape in SHAPES.items()})

    def run(*arguments):
        return (cli.main([str(argument) for argument in arguments]), *capsys.readouterr())
    yield run
    sys.modules.pop("input_target", None)


def refused(verb, answer):
    """The message, once the answer is seen to be a refusal as all should be."""
    status, out, err = answer
    assert (status, out) == (2, "") and err.startswith(f"lcref {verb}: error: "), answer
    lines = err.removesuffix("\n").split("\n")
    assert len(lines) == 1 or len(lines) == 3 and lines[2].strip() == "^", err
    assert all(len(line) <= 1000 and line.isprintable() for line in lines), err
    assert "mistake of lcref" not in err
    return err


# ---- flags: arguments that are right but for the flag under test, and stop before any work is done

LAST = "has not ended"      # the folder "busy" is refused after everything else was looked at
BASE = {
    "compress": (["--out", "busy", "--quiet"], LAST),
    "train": (["--out", "busy", "--quiet", "--net", "linear"], LAST),
    "sweep": (["design.toml", "--out", "new"], "the first cell: unknown net 'nothing'"),
    "eval": (["nowhere.npz", "--net", "linear"], "no file nowhere.npz"),
    "info": (["nowhere.npz"], "no file nowhere.npz"),
    "export": (["nowhere.npz", "--to", "npz"], "no file nowhere.npz"),
    "verify": (["os:nothing", "--as", "l0_ball"], "no 'nothing' in os"),
    "certify": (["nowhere.npz", "model.npz", "--compress", "binary()"], "no file nowhere.npz"),
    "vectors": (["--out", "text"], "text is not a folder"),
    "bench": (["--net", "nothing"], "unknown net 'nothing'"),
    "plot": (["nowhere"], "no results in nowhere"),
    "best": (["nowhere", "--max-error", "2"], "no results in nowhere"),
    "explain": (["nothing"], "nothing is called 'nothing'"),
}
FLAGS = [(verb, action.option_strings[-1], action) for verb, parser in VERBS.items()
         for action in parser._actions if action.option_strings and action.nargs is None]
NUMERIC = [(verb, flag) for verb, flag, action in FLAGS
           if action.type is not None and flag != "--out"
           and action.metavar not in ("DIR", "FILE", "E,E", "N,N", "WHERE")]
PATHS = [(verb, flag) for verb, flag, action in FLAGS
         if action.metavar in ("DIR", "FILE") or flag == "--out"]
TEXTS = [(verb, flag) for verb, flag, action in FLAGS
         if (verb, flag) not in NUMERIC + PATHS]

RANGES = {      # by flag: whether only whole numbers, the least and the largest; open ends as such
    **dict.fromkeys(("--reference-epochs", "--epochs", "--first-epochs", "--seed"),
                    (True, 0, math.inf)),
    **dict.fromkeys(("--steps", "--batch", "--turns", "--max-examples", "--train-sample"),
                    (True, 1, math.inf)),
    **dict.fromkeys(("--threads", "--workers"), (True, 1, 1024)),
    "--mu0": (False, 1e-300, sys.float_info.max),
    "--growth": (False, 1, sys.float_info.max),
    **dict.fromkeys(("--lr", "--mu", "--time-limit"), (False, 5e-324, sys.float_info.max)),
    **dict.fromkeys(("--lr-decay", "--epoch-decay"), (False, 5e-324, 1)),
    **dict.fromkeys(("--hold-out", "--momentum"), (False, 0, 1 - 2**-53)),
    **dict.fromkeys(("--max-error", "--min-ratio"), (False, 0, sys.float_info.max)),
    "--weight-decay": (False, 0, sys.float_info.max),
    "--checkpoint-minutes": (False, 0, math.inf), "--max-excess": (False, 0, math.inf),
}
OF_THEIR_OWN = {
    **dict.fromkeys(("--mu0", "--growth", "--steps"), "--mu0, --growth and --steps: mu0·a^k over"),
    "--hold-out": "rows to hold out is 0 of them; it must be at least one",
    "--min-ratio": "not allowed with argument --max-error"}
NUMBERS = ["nan", "inf", "-inf", "-1", "0", "1e308", "1e-320", "", "abc", "1e999", str(2**63),
           str(2**64), "０", "9" * 5000, "-0", "1", "0.5", "1025", "1_0", "0x10"]


def in_range(flag, text):
    """Whether a number lies in the range of its flag, by Python's own reading of it."""
    whole, least, largest = RANGES[flag]
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        return False
    return least <= value <= largest


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_debug_and_stops_where_the_tests_of_flags_want_it(verb, lcref):
    assert "--debug" in VERBS[verb]._option_string_actions
    flags, says = BASE[verb]
    assert says in refused(verb, lcref(verb, *flags))


def test_every_numeric_flag_has_its_range_here():
    assert {flag for _, flag in NUMERIC} == set(RANGES)


@pytest.mark.parametrize("verb, flag", NUMERIC)
def test_a_number_out_of_its_range_is_refused_with_its_flag_and_every_other_is_taken(
        verb, flag, lcref):
    flags, last = BASE[verb]
    for text in NUMBERS:
        said = refused(verb, lcref(verb, *flags, f"{flag}={text}"))
        if not in_range(flag, text):
            assert f"argument {flag}: takes a" in said and repr(text)[:60] in said
        elif last not in said:      # μ0·a^k has a range of its own, and a share of so many rows
            assert flag in OF_THEIR_OWN and OF_THEIR_OWN[flag] in said


TEXT = ["", "a\0b", "a\nb", "größe κ 🙂", "(" * 10_000, "[" * 10_000, "each(" * 2000, "-" * 10_000,
        "\x1b[2J", "'", "f" * 10_000]


WORDS = {"--as": "kind", "--exec": "command", "--compress": "compression"}  # for flags in messages


@pytest.mark.parametrize("verb, flag", TEXTS)
def test_a_text_that_makes_no_sense_is_refused_with_its_flag_or_itself(verb, flag, lcref):
    flags, _ = BASE[verb]
    flags = ["input_target:wrong", *flags[1:]] if verb == "verify" and flag != "--exec" else flags
    flags = flags[1:] if flag == "--exec" else flags
    flags = [flags[0], "--as", "sum"] if (verb, flag) == ("verify", "--compress") else flags
    flags = ["ref.npz", "model.npz"] if verb == "certify" else flags
    for text in TEXT:
        said = refused(verb, lcref(verb, *flags, f"{flag}={text}"))
        start = "".join(c for c in text[:10] if c.isprintable()).strip()
        word = WORDS.get(flag, flag[2:])
        assert word.rstrip("s") in said.lower() or "data set" in said or start and start in said


@pytest.mark.parametrize("verb, flag", PATHS)
def test_a_path_that_is_wrong_is_named(verb, flag, lcref, tmp_path):
    flags, _ = BASE[verb]
    if flag == "--data-dir":
        flags = ["mnist.toml", *flags[1:]] if verb == "sweep" else [*flags, "--data", "mnist"]
    if flag == "--out":
        flags = flags[2:] if flags[0] == "--out" else flags
        if verb == "export":
            theta = direct_compression({"w": np.ones(9, "f")}, [Task(("w",), parse("binary()"))], 1)
            task = (Task(("w",), parse("binary()")),)
            (tmp_path / "packed.npz").write_bytes(storage.pack({"w": np.ones(9, "f")}, task,
                                                               theta[0], {}))
            flags = ["packed.npz", "--to", "npz"]
    wrong = {"": f"argument {flag}: an empty path", "a\0b": f"argument {flag}: an empty path, or "
             "one with a NUL", "text/below": "text", "x" * 300: "x" * 255, "text": "text",
             "busy" if flag == "--out" else "missing": None}
    for path, named in wrong.items():
        if (verb, flag, path) in (("export", "--out", "text"), ("vectors", "--out", "busy"),
                                  ("sweep", "--out", "busy"), ("plot", "--out", "busy"),
                                  ("plot", "--out", "x" * 300), ("bench", "--out", "busy"),
                                  ("bench", "--out", "x" * 300)):
            continue        # these are right, or found out where they are made
        said = refused(verb, lcref(verb, *flags, f"{flag}={path}"))
        assert (named or path) in said, path
    assert (tmp_path / "text").read_text() == "hello\n"


@pytest.mark.parametrize("arguments, says", [
    (["compress", "--ste", "3"], "--ste 3; did you mean --steps?"),
    (["train", "--epoch=3"], "--epoch=3; did you mean --epochs?"),
    (["compress", "extra"], "unrecognized arguments: extra ("),
    (["info"], "FILE"), (["eval"], "FILE"), (["export", "f"], "--to"), (["vectors"], "--out"),
    (["verify", "a:b"], "--as"), (["certify", "a"], "MODEL.npz"), (["compress", "--lr"], "--lr"),
    (["export", "f", "--to", "pt"], "'npz', 'safetensors'"),
    (["compress", "--out", "/proc/nothing"], "--out /proc/nothing: /proc cannot be written to"),
    (["train", "--out", "o", "--net", "vgg16", "--optimizer", "lbfgs"],
     "cannot train vgg16: dropout is random; take SGD"),
    (["bench", "lstep"], "unknown group 'lstep'; known: projections, lsteps, targets; did you "
     "mean 'lsteps'?"),
    (["bench", "targets", "--net", "lenet5"], "--net lenet5 is for the group lsteps, not targets"),
    (["bench", "--only", "kmeans", "--only", "kmaens"], "--only 'kmaens': no row of projections or "
     "lsteps has that in its name"),
    (["bench", "--sizes", "1e4,0"], "--sizes: sizes are whole numbers from 1 to 1e9, got '1e4,0'"),
    (["bench", "--sizes", "1.5"], "--sizes: sizes are whole numbers from 1 to 1e9, got '1.5'"),
    (["bench", "--sizes", "1e10"], "--sizes: sizes are whole numbers from 1 to 1e9, got '1e10'"),
    (["bench", "--dtype", "float16"], "'float32', 'float64'"),
    (["info", "folder"], "folder is not a file"), (["eval", "folder"], "folder cannot be read"),
    (["eval", "text/below.safetensors"], "text/below.safetensors cannot be read"),
])
def test_wrong_usage_is_refused_in_a_line_that_says_the_remedy(arguments, says, lcref, small_cifar):
    if "vgg16" in arguments:
        arguments = [*arguments, "--data", "cifar10", "--data-dir", small_cifar]
    assert says in refused(arguments[0], lcref(*arguments))


def test_a_limit_of_time_beyond_what_threads_can_wait_is_no_fault_of_the_target(lcref):
    (Path("input_target.py")).write_text("def right(w, kappa):\n"
                                         "    from lcref.projections import l0_ball\n"
                                         "    return l0_ball(w, kappa).decompress()\n")
    assert 1e300 > threading.TIMEOUT_MAX
    assert lcref("verify", "input_target:right", "--as", "l0_ball", "--max-examples", "2",
                 "--time-limit", "1e300")[0] == 0


# ---- what escapes all checks

@pytest.mark.parametrize("error, says", [
    (KeyError("a"), "mistake of lcref itself, KeyError: 'a'; --debug shows the traceback"),
    (ZeroDivisionError("x"), "mistake of lcref itself, ZeroDivisionError: x; --debug"),
    (RecursionError("deep"), "mistake of lcref itself, RecursionError: deep"),
    (AssertionError(), "mistake of lcref itself, AssertionError"),
    (MemoryError(), "error: memory does not suffice: out of memory\n"),
    (np._core._exceptions._ArrayMemoryError((10**9,), np.dtype("f8")), "does not suffice: Unable "
     "to allocate 7.45 GiB"),
    (PermissionError(13, "Permission denied", "a.npz"), "error: a.npz: Permission denied\n"),
    (ValueError(), "error: ValueError\n"),
    (ValueError("two\nlines \x1b[2J"), "error: two lines �[2J\n"),
    (ValueError("x" * 5000), "xxx ... xxx"),
], ids=lambda value: type(value).__name__)
def test_whatever_a_command_raises_is_one_line_and_a_traceback_with_debug(error, says, lcref,
                                                                          monkeypatch):
    def run(args):
        raise error
    monkeypatch.setattr(experiment, "run", run)
    status, out, err = lcref("compress")
    assert (status, out) == (2, "") and says in err and err.count("\n") == 1 and len(err) < 1100
    with pytest.raises(type(error)):
        lcref("compress", "--debug")


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize("arguments", [["verify", "m:waits", "--as", "l0_ball"],
                                       ["compress", "--quiet", "--steps", "9999", "--growth", "1"]])
def test_a_command_that_is_interrupted_says_so_in_a_line(arguments, tmp_path):
    (tmp_path / "m.py").write_text("import time\ndef waits(w, kappa):\n    time.sleep(60)\n")
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), "LCREF_DATA": ""}
    process = subprocess.Popen([sys.executable, "-m", "lcref", *arguments], cwd=tmp_path, env=env,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(3)       # the function takes a minute, the run an hour
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", f"lcref {arguments[0]}: interrupted\n")
    assert process.returncode == 130


@pytest.mark.parametrize("tensors", [1, 2000])      # less than a buffer, and more than a pipe holds
@pytest.mark.parametrize("redirected, status, says", [
    ("| head -c 1", 141, ""), ("> /dev/full", 2, "No space left on device"), (">&-", 0, "")])
def test_a_standard_output_that_takes_nothing_ends_a_command_quietly(redirected, status, says,
                                                                     tensors, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    params = {f"w{i}": np.ones(3, "f") for i in range(tensors)}
    (tmp_path / "packed.npz").write_bytes(storage.pack(params, (), {}, {}))
    command = f"{sys.executable} -m lcref info packed.npz --json --quiet"
    piped = f"set -o pipefail; ({command}; exit $?) {redirected}"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    buffered["PYTHONPATH"] = str(Path(cli.__file__).parents[1])
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, cwd=tmp_path,
                          env=buffered)
    assert says in done.stderr and done.stderr.count("\n") == bool(says), done.stderr
    assert done.returncode == (0 if "head" in redirected and tensors == 1 else status)


# ---- files of weights

class Trap:
    """A pickle of it makes a folder when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def header(shape, descr="<f4"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def changed(change):
    """fc1.weight as something else."""
    def make(path, params):
        np.savez(path, **params | {"fc1.weight": change(params["fc1.weight"])})
    return make


def at(value, dtype="f4"):
    def change(w):
        w = w.astype(dtype)
        w[1, 2] = value
        return w
    return changed(change)


def members(*, first=None, twice=False):
    def make(path, params):
        rows = [("fc1.weight.npy", first or npy(params["fc1.weight"]))] * (1 + twice)
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")     # of zipfile on a name that is there twice
            for name, content in [*rows, ("fc1.bias.npy", npy(params["fc1.bias"]))]:
                archive.writestr(name, content)
    return make


def written(content):
    return lambda path, params: path.write_bytes(content)


def truncated(path, params):
    np.savez(path, **params)
    path.write_bytes(path.read_bytes()[:-100])


def trapped(w):
    traps = np.empty(w.shape, object)
    traps.fill(Trap())
    return traps


W = "fc1.weight"
FILES = {       # how the file is made, and what is said of it; None where it is right
    "NaN": (at(np.nan), f"{W} has a NaN or an infinity"),
    "infinity": (at(np.inf), f"{W} has a NaN or an infinity"),
    "too large for float32": (at(1e300, "f8"), f"{W} has a NaN or an infinity|{W}: .* too large"),
    "empty": (changed(lambda w: w[:0]), f"{W} has shape (0, 64)"),
    "of no axes": (changed(lambda w: w[0, 0]), f"{W} has shape ()"),
    "transposed": (changed(lambda w: w.T), f"{W} has shape (64, 10)"),
    "integers": (changed(lambda w: w.astype(int)), f"{W} .*int64"),
    "truths": (changed(lambda w: w > 0), f"{W} .*bool"),
    "complex": (changed(lambda w: w.astype(complex)), f"{W} .*complex128"),
    "texts": (changed(lambda w: w.astype("U2")), f"{W} .*<U2"),
    "records": (changed(lambda w: np.zeros(w.shape, "f4,i4")), f"{W} .*f0"),
    "objects": (changed(trapped), f"{W}: pickled objects"),
    "a pickle": (written(pickle.dumps(Trap())), "not an .npz file"),
    "a tensor missing": (lambda path, p: np.savez(path, **{"fc1.bias": p["fc1.bias"]}), W),
    "a tensor too many": (lambda path, p: np.savez(path, **p, **{"fc9.weight": p[W]}),
                          "fc9.weight"),
    "nothing": (lambda path, p: np.savez(path), "fc1.weight|hold no tensor"),
    "a name twice": (members(twice=True), f"it holds '{W}' twice"),
    "a shape without data": (members(first=header((10**13, 64))), f"{W}: its header says"),
    "a shape of 25 GB": (members(first=header((10**8, 64))), f"{W}: its header says"),
    "a shape of less data": (members(first=header((2,)) + bytes(40)), f"{W}: its header says"),
    "a negative shape": (members(first=header((-2, -5)) + bytes(40)), f"{W}: "),
    "a dtype of a gigabyte": (members(first=header((1,), "<U1000000000")), f"{W}: "),
    "no header": (members(first=b"\x93NUMPY"), f"{W}: "),
    "a header that is no dict": (members(first=b"\x93NUMPY\1\0\4\0f(x("), f"{W}: "),
    "truncated": (truncated, "not an .npz file"), "zero bytes": (written(b""), "not an .npz file"),
    "a text": (written(b"hello\n"), "not an .npz file"),
    "a folder": (lambda path, p: path.mkdir(), "cannot be read: Is a directory"),
    "missing": (lambda path, p: None, "no file"),
    "a link to itself": (lambda path, p: path.symlink_to(path), "cannot be read"),
    "Fortran order": (changed(np.asfortranarray), None),
    "the other order of bytes": (changed(lambda w: w.astype(">f4")), None),
    "float16": (changed(lambda w: w.astype("f2")), None),
    "float64": (changed(lambda w: w.astype("f8")), None),
    "subnormal": (changed(lambda w: w * np.float32(1e-42)), None),
    "negative zeros": (changed(lambda w: 0 * w - 0.0), None),
    "safetensors": (lambda path, p: save_file(p, path.with_suffix(".safetensors")), None),
}
USES = {
    "eval": ["eval", "FILE", "--net", "linear"],
    "compress": ["compress", "--net", "linear", "--reference", "FILE", "--compress", "binary()",
                 "--steps", "1", "--epochs", "0", "--quiet", "--json"],
    "train": ["train", "--net", "linear", "--reference", "FILE", "--epochs", "0", "--out", "out"],
    "certify REF": ["certify", "FILE", "plain.npz", "--compress", "binary()"],
    "certify MODEL": ["certify", "plain.npz", "FILE", "--compress", "binary()"],
}
BOTH = ("a tensor missing", "a tensor too many", "nothing")     # certify names the other file then


@pytest.fixture
def plain(lcref):
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape).astype("f4") for name, shape in SHAPES.items()}
    np.savez("plain.npz", **params)
    return params


def name_of(what):
    return "w.safetensors" if what == "safetensors" else "w.npz"


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("what", FILES)
def test_a_file_of_weights_is_used_or_named_with_its_tensor(what, use, lcref, plain):
    make, says = FILES[what]
    make(Path("w.npz"), plain)
    verb, *flags = [name_of(what) if flag == "FILE" else flag for flag in USES[use]]
    answer = lcref(verb, *flags)
    assert not Path("sprung").exists()
    if says is None:
        assert answer[0] == (verb == "certify"), answer      # normal weights are not binary
        assert "Warning" not in answer[2]
        return
    message = refused(verb, answer)
    assert "w.npz" in message or verb == "certify" and what in BOTH + ("empty", "of no axes",
                                                                       "transposed")
    assert re.search(says.replace("(", r"\(").replace(")", r"\)"), message) or (
        verb == "certify" and re.search(f"{W} has shape|has no tensor", message))


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("verb", ["info", "export"])
def test_a_file_that_is_not_packed_is_named(what, verb, lcref, plain):
    FILES[what][0](Path("w.npz"), plain)
    message = refused(verb, lcref(verb, name_of(what), *["--to", "npz"] * (verb == "export")))
    assert name_of(what) in message and not Path("sprung").exists()
    assert not list(Path().glob("*dense*"))


def test_weights_too_large_to_be_used_are_an_error_that_names_the_file_and_not_nan(lcref, plain):
    np.savez("w.npz", **plain | {W: np.full((10, 64), 3e38, "f")})
    assert "w.npz: the loss of linear over the test set is " in refused(
        "eval", lcref("eval", "w.npz", "--net", "linear", "--json"))
    assert "the loss of linear over the train set is " in refused(
        "compress", lcref(*["w.npz" if flag == "FILE" else flag for flag in USES["compress"]]))
    np.savez("w.npz", **plain | {W: np.full((10, 64), 1e308)})
    assert "w.npz and plain.npz, fc1.weight: w or theta_or_array is too large" in refused(
        "certify", lcref("certify", "w.npz", "plain.npz", "--compress", "quantize(k=2)"))


ANSWERS = ["np.full(w.shape, np.nan)", "np.full(w.shape, np.inf)", "w[:0]", "w.sum()",
           "w.astype(int)", "w.astype(complex)", "w.astype(object)", "w.astype(str)", "None", "'a'",
           "np.full(w.shape, 3e38)", "{}", "[[1], [1, 2]]", "w.astype('>f8') * 2", "[w]", "1j"]


@pytest.mark.parametrize("answer", ANSWERS)
def test_whatever_a_function_under_test_returns_is_judged(answer, lcref):
    Path("input_target.py").write_text("import numpy as np\n" + TARGETS.replace("ANSWER", answer))
    status, out, err = lcref("verify", "input_target:answers", "--as", "l0_ball", "--max-examples",
                             "2")
    assert (status, err) == (1, "") and "does NOT conform" in out

"""lcref train and lcref eval, run as a user runs them."""
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from lcref import cli, data, training
from lcref.lsteps import SGD


def arrays(file):
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def same(one, other):
    """Whether two files of weights hold the same bits."""
    a, b = arrays(one), arrays(other)
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


def error(params, part, activation=lambda z: np.maximum(z, 0)):
    """Percent of the digits that a fully connected net gets wrong, in NumPy."""
    digits = data.load("digits")
    h, layers = getattr(digits, f"x_{part}").astype(float), len(params) // 2
    for layer in range(1, layers + 1):
        h = h @ params[f"fc{layer}.weight"].T + params[f"fc{layer}.bias"]
        h = activation(h) if layer < layers else h
    wrong = np.count_nonzero(h.argmax(axis=1) != getattr(digits, f"y_{part}"))
    return 100 * wrong / len(h)


def train(out, *flags):
    return cli.main(["train", "--out", str(out), "--quiet", *map(str, flags)])


def history(out):
    return json.loads((out / "history.json").read_text())


def lcref(*arguments):
    """A run in a process of its own: (exit status, standard output, standard error)."""
    done = subprocess.run([sys.executable, "-m", "lcref", *map(str, arguments)],
                          capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


# ----- what training writes and prints ---------------------------------------------------------

@pytest.mark.parametrize("net, optimizer, epochs, most", [
    ("linear", "sgd", 10, 7), ("lenet300", "sgd", 10, 4), ("linear", "lbfgs", 30, 7),
    ("lenet300", "lbfgs", 30, 5)])
def test_training_reports_the_errors_of_the_weights_it_writes_and_they_are_low(
        net, optimizer, epochs, most, tmp_path, capsys):
    flags = ["--net", net, "--optimizer", optimizer, "--epochs", str(epochs)]
    assert cli.main(["train", *flags, "--out", str(tmp_path), "--json", "--quiet"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["weights"] == str(tmp_path / "weights.npz")
    params = arrays(summary["weights"])
    assert summary["test_error"] == error(params, "test") <= most
    assert summary["train_error"] == error(params, "train") <= most
    assert 0 < summary["seconds"] < 60
    assert summary["settings"]["net"] == net and summary["settings"]["optimizer"] == optimizer
    assert summary["versions"].keys() >= {"lcref", "numpy", "python"}
    written = history(tmp_path)
    assert {key: written[key] for key in summary} == summary
    assert cli.main(["eval", summary["weights"], "--net", net, "--train", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert all(again[key] == summary[key] for key in ("test_error", "train_error"))


def test_with_json_standard_output_is_one_object_and_the_text_is_on_standard_error(tmp_path):
    status, stdout, stderr = lcref("train", "--epochs", 2, "--json", "--out", tmp_path)
    assert status == 0 and json.loads(stdout).keys() >= {"test_error", "weights"}
    assert "test error" in stderr
    status, stdout, stderr = lcref("eval", tmp_path / "weights.npz", "--json")
    assert status == 0 and json.loads(stdout).keys() >= {"test_error", "weights", "net", "data"}
    assert "test error" in stderr and "train_error" not in stdout


def test_without_json_the_text_is_on_standard_output(tmp_path, capfd):
    assert cli.main(["train", "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert str(tmp_path / "weights.npz") in capfd.readouterr().out
    assert cli.main(["eval", str(tmp_path / "weights.npz")]) == 0
    said = capfd.readouterr()
    found = error(arrays(tmp_path / "weights.npz"), "test")
    assert said.out.startswith(f"lenet300 (relu) on digits: test error {found:.2f}")
    assert said.err == ""


@pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
def test_quiet_prints_nothing(optimizer, tmp_path, capfd):
    assert train(tmp_path, "--epochs", 2, "--optimizer", optimizer, "--net", "linear") == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
def test_a_seed_repeats_bit_for_bit_with_any_number_of_threads_and_another_differs(optimizer,
                                                                                   tmp_path):
    common = ["--epochs", 3, "--optimizer", optimizer]
    for name, seed, threads in (("a", 5, 1), ("b", 5, 2), ("c", 6, 1)):
        assert train(tmp_path / name, *common, "--seed", seed, "--threads", threads) == 0
    files = [tmp_path / name / "weights.npz" for name in "abc"]
    assert same(files[0], files[1]) and not same(files[0], files[2])


def test_no_epochs_write_the_weights_as_they_are_given(tmp_path):
    assert train(tmp_path / "first", "--epochs", 0, "--seed", 3) == 0
    first = tmp_path / "first" / "weights.npz"
    assert train(tmp_path / "again", "--epochs", 0, "--seed", 4, "--reference", first) == 0
    assert same(first, tmp_path / "again" / "weights.npz")
    assert not any(arrays(first)["fc1.bias"])
    assert history(tmp_path / "first")["epochs"] == []


def test_weights_in_safetensors_are_a_reference_too(tmp_path, capsys):
    assert train(tmp_path, "--epochs", 1) == 0
    capsys.readouterr()
    save_file(arrays(tmp_path / "weights.npz"), tmp_path / "w.safetensors")
    assert train(tmp_path / "again", "--epochs", 0, "--reference", tmp_path / "w.safetensors") == 0
    assert same(tmp_path / "weights.npz", tmp_path / "again" / "weights.npz")
    assert cli.main(["eval", str(tmp_path / "w.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_error"] == history(tmp_path)["test_error"]


# ----- rates, momentum, weight decay -----------------------------------------------------------

def descent(params, x, labels, rates, momentum, omega):
    """Nesterov's gradient descent on the softmax regression with W and b, in float64."""
    w = np.hstack([params["fc1.weight"], params["fc1.bias"][:, None]]).astype(float)
    x = np.hstack([x.astype(float), np.ones((len(x), 1))])
    v, wanted = np.zeros_like(w), np.eye(10)[labels]
    for eta in rates:
        exp = np.exp(x @ w.T)
        g = (exp / exp.sum(axis=1, keepdims=True) - wanted).T @ x / len(x) + omega * w
        v = momentum * v + g
        w -= eta * (g + momentum * v)
    return w


def test_training_is_nesterovs_descent_at_the_rates_of_the_milestones_and_the_decay(tmp_path):
    assert train(tmp_path / "start", "--net", "linear", "--epochs", 2) == 0
    start = tmp_path / "start" / "weights.npz"
    flags = ["--net", "linear", "--epochs", 6, "--batch", 2000, "--reference", start, "--lr", 0.4,
             "--milestones", "2,5", "--epoch-decay", 0.5, "--momentum", 0.8,
             "--weight-decay", 0.01]
    assert train(tmp_path / "out", *flags) == 0
    rates = [0.4, 0.2, 0.01, 0.005, 0.0025, 0.000125]   # a tenth from epochs 2 and 5 on, halved
    assert [row["lr"] for row in history(tmp_path / "out")["epochs"]] == pytest.approx(rates)
    digits, after = data.load("digits"), arrays(tmp_path / "out" / "weights.npz")
    expected = descent(arrays(start), digits.x_train, digits.y_train, rates, 0.8, 0.01)
    found = np.hstack([after["fc1.weight"], after["fc1.bias"][:, None]])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_history_names_each_epoch_with_its_loss_and_error(tmp_path):
    assert train(tmp_path, "--epochs", 3) == 0
    written = history(tmp_path)
    assert [row["epoch"] for row in written["epochs"]] == [0, 1, 2]
    assert written["epochs"][-1]["test_error"] == written["test_error"]
    digits, params = data.load("digits"), arrays(tmp_path / "weights.npz")
    h = digits.x_test.astype(float)
    for layer in (1, 2, 3):
        h = (np.maximum(h, 0) if layer > 1 else h) @ params[f"fc{layer}.weight"].T \
            + params[f"fc{layer}.bias"]
    log_p = h - np.log(np.exp(h).sum(axis=1, keepdims=True))
    expected = -log_p[np.arange(len(h)), digits.y_test].mean()
    assert written["epochs"][-1]["test_loss"] == pytest.approx(expected, rel=1e-5)


def test_lbfgs_ends_at_a_lower_loss_than_it_began(tmp_path):
    losses = []
    for n in (1, 10):
        assert train(tmp_path, "--net", "linear", "--optimizer", "lbfgs", "--epochs", n) == 0
        row, = history(tmp_path)["epochs"]
        assert row["iterations"] <= n and row["message"]
        losses.append(row["value"])
    assert losses[1] < 0.5 * losses[0] < 0.5 * math.log(10) * 2


# ----- what is left of a run that does not end well --------------------------------------------

@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process as POSIX does")
def test_a_run_that_is_killed_leaves_the_weights_and_the_history_of_an_epoch(tmp_path):
    out = tmp_path / "out"
    common = ["--net", "linear", "--batch", "8"]
    process = subprocess.Popen([sys.executable, "-m", "lcref", "train", "--out", out, *common,
                                "--epochs", "100000", "--quiet"])
    try:
        end = time.monotonic() + 60
        while not (out / "history.json").exists() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    done = len(history(out)["epochs"])
    assert done >= 1
    for epochs in (done, done + 1):     # killed after the weights were written, or before
        assert train(tmp_path / str(epochs), *common, "--epochs", epochs) == 0
    assert any(same(out / "weights.npz", tmp_path / str(epochs) / "weights.npz")
               for epochs in (done, done + 1))


def test_a_rate_that_diverges_ends_with_advice_and_the_weights_before_it(tmp_path, capsys):
    assert train(tmp_path / "start", "--epochs", 1) == 0
    start, out = tmp_path / "start" / "weights.npz", tmp_path / "out"
    capsys.readouterr()
    assert train(out, "--lr", "1e6", "--reference", start, "--json") == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("lcref train: error: ")
    for part in ("epoch 0, batch ", "rate 1e+06", str(out / "weights.npz"), "smaller --lr"):
        assert part in said.err
    assert all(np.isfinite(p).all() for p in arrays(out / "weights.npz").values())
    assert same(out / "weights.npz", start)


def test_divergence_after_many_epochs_leaves_the_weights_of_the_last_good_one(tmp_path, capfd):
    # w ← w − (g + 101 w): a hundred times larger, with the other sign, in each epoch
    growing = ["--net", "linear", "--batch", "2000", "--lr", "1", "--momentum", "0",
               "--weight-decay", "101"]
    assert train(tmp_path / "out", *growing, "--epochs", 100) == 2
    said = capfd.readouterr().err
    epoch = int(said.split("in epoch ")[1].split(",")[0])
    assert 15 < epoch < 25 and "Warning" not in said         # 3e38 is 100^19.2
    assert train(tmp_path / "good", *growing, "--epochs", epoch) == 0
    assert same(tmp_path / "out" / "weights.npz", tmp_path / "good" / "weights.npz")
    assert len(history(tmp_path / "out")["epochs"]) == epoch


def test_weights_that_are_finite_but_whose_loss_is_not_are_divergence_too(tmp_path, capsys):
    assert train(tmp_path / "start", "--epochs", 1) == 0
    start, out = tmp_path / "start" / "weights.npz", tmp_path / "out"
    capsys.readouterr()     # one batch, whose loss is fine, and whose step is not
    assert train(out, "--reference", start, "--batch", "2000", "--lr", "1e16") == 2
    said = capsys.readouterr().err
    assert f"in epoch 0, at learning rate 1e+16; {out / 'weights.npz'} holds the weights" in said
    assert same(out / "weights.npz", start)
    assert sorted(os.listdir(out)) == ["history.json", "settings.json", "weights.npz"]


# ----- wrong usage -------------------------------------------------------------------------------

BAD = {
    "an unknown net": (["--net", "lenet30"], "did you mean 'lenet300'"),
    "an unknown data set": (["--data", "cifar-10"], "did you mean 'cifar10'"),
    "an unknown activation": (["--activation", "gelu"], "known: relu, tanh"),
    "an activation of a net without": (["--net", "linear", "--activation", "relu"], "no hidden"),
    "images that are too small": (["--net", "lenet5"], "at least 16 × 16 pixels, got (1, 8, 8)"),
    "fewer than no epochs": (["--epochs", "-1"], "--epochs"),
    "no iterations": (["--epochs", "0", "--optimizer", "lbfgs"], "at least 1"),
    "a negative seed": (["--seed", "-1"], "--seed"),
    "no reference": (["--reference", "nowhere.npz"], "no file nowhere.npz"),
    "a reference of another kind": (["--reference", __file__], "not an .npz file"),
    "a folder without MNIST": (["--data", "mnist", "--data-dir", os.path.dirname(__file__)],
                               "train-images-idx3-ubyte"),
    "a folder without CIFAR-10": (["--data", "cifar10", "--data-dir", os.path.dirname(__file__)],
                                  "data_batch_1"),
    "no folder": (["--data", "cifar10", "--data-dir", "/no/such/folder"], "/no/such/folder"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_message_status_2_and_no_weights(what, tmp_path, capsys):
    flags, message = BAD[what]
    out = tmp_path / "out"
    assert train(out, *flags) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.startswith("lcref train: error: ")
    assert said.out == "" and "Traceback" not in said.err and "<function" not in said.err
    assert not out.exists() or os.listdir(out) == []


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1.5", "-1", "3,-1", "1;2", "1e2", ","])
def test_milestones_that_are_no_epochs_are_status_2(text, tmp_path, capsys):
    assert train(tmp_path / "out", f"--milestones={text}") == 2
    assert "whole numbers from 0" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--optimizer", "adam"], ["--epochs", "1.5"], ["--lr", "x"],
                                   ["--out", ""], ["--epoch", "3"], ["weights.npz"]])
def test_flags_that_argparse_refuses_are_status_2(flags, tmp_path):
    assert train(tmp_path / "out", *flags) == 2
    assert os.listdir(tmp_path) == []


def test_an_output_folder_is_needed():
    status, stdout, stderr = lcref("train", "--epochs", 1)
    assert status == 2 and stdout == "" and "--out" in stderr


def test_an_output_folder_is_made_with_those_above_it(tmp_path):
    assert train(tmp_path / "a" / "b", "--epochs", 0) == 0
    files = ["history.json", "settings.json", "weights.npz"]
    assert sorted(os.listdir(tmp_path / "a" / "b")) == files


@pytest.mark.parametrize("below", ["", "out"])
def test_an_output_that_is_a_file_is_refused_before_any_training(below, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert train(tmp_path / "file" / below, "--lr", "1e9") == 2
    assert "is not a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


class Untrained(SGD):
    def __call__(self, *arguments):
        raise AssertionError("trained before the folder was looked at")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder nobody can write to")
def test_a_folder_that_cannot_be_written_to_is_refused_before_any_training(monkeypatch, capsys):
    monkeypatch.setattr(training, "SGD", Untrained)
    assert train("/proc/self") == 2
    assert "/proc/self" in capsys.readouterr().err


# ----- nets of images ----------------------------------------------------------------------------

@pytest.mark.parametrize("net, epochs", [("resnet20", 2), ("nin", 1)])
def test_a_net_of_images_repeats_with_the_seed_and_any_number_of_threads(net, epochs, small_cifar,
                                                                         tmp_path):
    common = ["--net", net, "--data", "cifar10", "--data-dir", small_cifar, "--epochs", epochs,
              "--lr", 0.01]
    for name, flags in (("a", ["--threads", 1]), ("b", ["--threads", 2]), ("c", ["--seed", 1]),
                        ("d", ["--no-augment"])):
        assert train(tmp_path / name, *common, *flags) == 0
    files = [tmp_path / name / "weights.npz" for name in "abcd"]
    assert same(files[0], files[1])
    assert not same(files[0], files[2]) and not same(files[0], files[3])


def test_running_statistics_are_trained_written_and_read(small_cifar, tmp_path, capsys):
    flags = ["--net", "resnet20", "--data", "cifar10", "--data-dir", str(small_cifar)]
    assert train(tmp_path, *flags, "--epochs", 1, "--batch", 20) == 0
    params = arrays(tmp_path / "weights.npz")
    assert (params["bn1.running_mean"] != 0).all() and (params["bn1.running_var"] != 1).all()
    capsys.readouterr()
    assert cli.main(["eval", str(tmp_path / "weights.npz"), *flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last, = history(tmp_path)["epochs"]
    assert (found["test_error"], found["test_loss"]) == (last["test_error"], last["test_loss"])
    params["bn1.running_mean"] += 10
    np.savez(tmp_path / "moved.npz", **params)
    assert cli.main(["eval", str(tmp_path / "moved.npz"), *flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_loss"] != last["test_loss"]


@pytest.mark.parametrize("net, why", [("resnet20", "statistics of the batch"),
                                      ("nin", "random")])
def test_lbfgs_refuses_normalisation_and_dropout(net, why, small_cifar, tmp_path, capsys):
    assert train(tmp_path, "--net", net, "--data", "cifar10", "--data-dir", small_cifar,
                 "--optimizer", "lbfgs", "--epochs", 1) == 2
    message = capsys.readouterr().err
    assert why in message and "SGD" in message


@pytest.mark.parametrize("net, data_set, size", [("vgg16", "digits", "(1, 8, 8)"),
                                                 ("alexnet", "cifar10", "(3, 32, 32)")])
def test_a_net_for_larger_images_is_refused_with_both_sizes(net, data_set, size, small_cifar,
                                                            tmp_path, capsys):
    assert train(tmp_path, "--net", net, "--data", data_set, "--data-dir", small_cifar) == 2
    message = capsys.readouterr().err
    assert size in message and "at least" in message


@pytest.mark.parametrize("what", ["label", "truncated", "missing"])
def test_a_damaged_file_of_cifar_is_named_with_the_fault(what, small_cifar, tmp_path, capsys):
    file = small_cifar / "data_batch_3.bin"
    content = bytearray(file.read_bytes())
    content[5 * 3073] = 10
    fault = {"label": "label 5 is 10", "truncated": "truncated", "missing": "no data_batch_3.bin"}
    file.write_bytes(content if what == "label" else content[:-1])
    if what == "missing":
        file.unlink()
    assert train(tmp_path / "out", "--net", "resnet20", "--data", "cifar10",
                 "--data-dir", small_cifar) == 2
    message = capsys.readouterr().err
    assert fault[what] in message and "data_batch_3.bin" in message
    assert not (tmp_path / "out").exists()


class Trap:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_in_the_place_of_cifar_is_refused_and_not_run(tmp_path, capsys):
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    for flags in (["train", "--out", str(tmp_path / "out")], ["eval", "w.npz"], ["compress"]):
        assert cli.main([*flags, "--net", "resnet20", "--data", "cifar10",
                         "--data-dir", str(tmp_path)]) == 2
        assert "data_batch_1" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()


# ----- lcref eval --------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    out = tmp_path_factory.mktemp("weights")
    assert train(out, "--epochs", 2) == 0
    return out / "weights.npz"


def test_the_training_error_is_told_where_it_is_asked_for(weights, capsys):
    params = arrays(weights)
    for flags, parts in (([], ["test"]), (["--train"], ["test", "train"])):
        assert cli.main(["eval", str(weights), *flags, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {key: found[key] for key in found if key.endswith("_error")} == {
            f"{part}_error": error(params, part) for part in parts}
        assert found["weights"] == str(weights)
        assert (found["net"], found["data"]) == ("lenet300", "digits")


def test_the_activation_asked_for_is_the_one_evaluated(weights, capsys):
    assert cli.main(["eval", str(weights), "--activation", "tanh", "--json"]) == 0
    expected = error(arrays(weights), "test", np.tanh)
    assert json.loads(capsys.readouterr().out)["test_error"] == expected
    assert expected != error(arrays(weights), "test")


EVAL_BAD = {
    "another net": (["--net", "linear"], "not of this net: fc2.weight"),
    "a net of other images": (["--net", "resnet20"], "missing: conv1.weight (16, 1, 3, 3)"),
    "another data set": (["--data", "cifar11"], "did you mean 'cifar10'"),
}


@pytest.mark.parametrize("what", EVAL_BAD)
def test_weights_that_do_not_fit_are_refused_with_the_reason(what, weights, capsys):
    flags, message = EVAL_BAD[what]
    assert cli.main(["eval", str(weights), *flags, "--json"]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.out == "" and said.err.startswith("lcref eval: error: ")


@pytest.mark.parametrize("file, message", [("nowhere.npz", "no file nowhere.npz"),
                                           (__file__, "not an .npz file"),
                                           (os.path.dirname(__file__), "cannot be read")])
def test_a_file_that_holds_no_weights_is_refused(file, message, capsys):
    assert cli.main(["eval", file]) == 2
    assert message in capsys.readouterr().err


def published(name):
    folder = os.environ.get("LCREF_DATA")
    if not folder:
        pytest.skip("LCREF_DATA names no folder with MNIST and the reference weights")
    file = os.path.join(folder, "weights", name)
    return file if os.path.exists(file) else pytest.skip(f"needs {file}")


@pytest.mark.mnist
def test_the_published_lenet300_errs_on_213_of_10000(capsys):
    flags = ["--activation", "tanh", "--data", "mnist", "--train", "--json"]
    assert cli.main(["eval", published("lenet300_mnist.npz"), *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["test_error"] == 2.13 and 0 < found["train_error"] < 1


@pytest.mark.long
@pytest.mark.parametrize("net, expected", [("resnet20", 8.27), ("resnet32", 7.37)])
def test_the_published_resnets_have_their_errors_on_cifar_by_lcref_eval(net, expected, capsys):
    file = published(f"{net}_cifar10.npz")
    assert cli.main(["eval", file, "--net", net, "--data", "cifar10", "--threads", "2",
                     "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_error"] == expected

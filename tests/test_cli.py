"""lcref compress, run as a user runs it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from lcref import cli, data, nets
from lcref.data import cifar

QUICK = ["--reference-epochs", "5", "--steps", "2", "--epochs", "1"]


def lcref(*arguments):
    """A run in a process of its own: (exit status, standard output, standard error)."""
    done = subprocess.run([sys.executable, "-m", "lcref", *map(str, arguments)],
                          capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def forward(params, x, activation):
    """LeNet300 in four lines of NumPy: its logits."""
    for layer in ("fc1", "fc2"):
        x = activation(x @ params[f"{layer}.weight"].T + params[f"{layer}.bias"])
    return x @ params["fc3.weight"].T + params["fc3.bias"]


def error(params, x, labels, activation=lambda z: np.maximum(z, 0)):
    return 100 * float(np.mean(np.argmax(forward(params, x, activation), axis=1) != labels))


def arrays(file):
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """The default command with --json and --out: (summary, folder, standard error)."""
    out = tmp_path_factory.mktemp("run") / "out"
    status, stdout, stderr = lcref("compress", "--json", "--out", out)
    assert status == 0, stderr
    return json.loads(stdout), out, stderr


def test_the_reference_is_near_two_percent(default_run):
    assert 1 <= default_run[0]["reference"]["test_error"] <= 3


def test_direct_compression_is_at_least_three_points_worse_than_the_reference(default_run):
    summary = default_run[0]
    assert summary["direct"]["test_error"] >= summary["reference"]["test_error"] + 3


def test_lc_is_within_one_point_of_the_reference(default_run):
    summary = default_run[0]
    assert summary["lc"]["test_error"] <= summary["reference"]["test_error"] + 1


def test_lc_is_judged_by_the_compressed_net_and_not_by_w(tmp_path, capsys):
    coarse = ["--compress", "quantize(k=1)", "--out", str(tmp_path)]  # Δ(θ) far from w
    assert cli.main(["compress", *QUICK, *coarse, "--json", "--quiet"]) == 0
    digits, params = data.load("digits"), arrays(tmp_path / "compressed.npz")
    reported = json.loads(capsys.readouterr().out)["lc"]["test_error"]
    assert error(params, digits.x_test, digits.y_test) == reported


def corrected(params):
    """Positions, all layers end to end, of the weights that are not one of a layer's two values."""
    marks = []
    for name in ("fc1.weight", "fc2.weight", "fc3.weight"):
        values, counts = np.unique(params[name], return_counts=True)
        marks.append(~np.isin(params[name].ravel(), values[np.argsort(counts)[-2:]]))
    return np.flatnonzero(np.concatenate(marks))


def test_the_ratio_is_that_of_the_bits_counted_by_hand(default_run):
    summary, out, _ = default_run
    positions = corrected(arrays(out / "compressed.npz"))
    gaps = np.diff(positions, prepend=-1) - 1  # zeros before each correction
    # b bits a gap, and b more for every whole 2^b − 1 zeros in it
    coded = min(sum(b * (1 + gap // (2**b - 1)) for gap in gaps.tolist()) for b in range(1, 20))
    for convention, width in (("float32", 32), ("float16", 16)):
        # 50,200 weights at one bit, three codebooks of two entries, 410 biases, 502 corrections
        bits = 50200 + 3 * 2 * 32 + 410 * 32 + 502 * width + coded
        assert summary["ratio"][convention] == pytest.approx(50610 * 32 / bits, rel=1e-12)
    assert summary["ratio"]["float32"] > 15


def test_the_default_command_takes_under_a_minute(default_run):
    assert default_run[0]["seconds"]["total"] < 60


def test_the_phases_add_up_to_no_more_than_the_total(default_run):
    seconds = default_run[0]["seconds"]
    parts = [seconds[phase] for phase in ("reference", "l_step", "c_step", "evaluate")]
    assert 0 < min(parts) and sum(parts) <= seconds["total"]


@pytest.mark.parametrize("which, file", [("reference", "reference.npz"), ("lc", "compressed.npz")])
def test_the_weights_written_have_the_errors_reported(default_run, which, file):
    summary, out, _ = default_run
    digits, params = data.load("digits"), arrays(out / file)
    assert error(params, digits.x_test, digits.y_test) == summary[which]["test_error"]
    assert error(params, digits.x_train, digits.y_train) == summary[which]["train_error"]


def test_the_weights_written_are_two_values_a_layer_but_for_one_percent(default_run):
    assert len(corrected(arrays(default_run[1] / "compressed.npz"))) == 502


def test_the_history_holds_the_summary_and_every_step(default_run):
    summary, out, _ = default_run
    history = json.loads((out / "history.json").read_text())
    steps = history.pop("steps")
    assert history | {"seconds": None} == summary | {"seconds": None}
    assert [step["mu"] for step in steps] == pytest.approx([1e-3 * 1.2**k for k in range(30)])


def test_the_feasibility_reported_is_that_of_the_last_step(default_run):
    summary, out, _ = default_run
    steps = json.loads((out / "history.json").read_text())["steps"]
    assert summary["feasibility"] == steps[-1]["feasibility"] < 1e-2


@pytest.mark.parametrize("name", ["path.png", "parts.png", "layer.png"])
def test_the_pictures_are_png_files(default_run, name):
    assert (default_run[1] / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_with_json_the_table_goes_to_standard_error(default_run):
    assert "direct compression" in default_run[2]


def test_two_runs_with_one_seed_give_the_same_bits(tmp_path):
    for name in ("a", "b"):
        assert lcref("compress", *QUICK, "--seed", 3, "--out", tmp_path / name)[0] == 0
    first, second = (arrays(tmp_path / name / "compressed.npz") for name in ("a", "b"))
    assert all(first[key].tobytes() == second[key].tobytes() for key in first)


def test_another_seed_gives_another_net(tmp_path):
    for seed in (3, 4):
        assert lcref("compress", *QUICK, "--seed", seed, "--out", tmp_path / str(seed))[0] == 0
    first, second = (arrays(tmp_path / name / "compressed.npz") for name in ("3", "4"))
    assert not np.array_equal(first["fc1.weight"], second["fc1.weight"])


def test_a_run_goes_on_from_reference_weights(default_run, capsys):
    summary, out, _ = default_run
    reference = str(out / "reference.npz")
    assert cli.main(["compress", *QUICK, "--reference", reference, "--json", "--quiet"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["reference"] == summary["reference"] and again["direct"] == summary["direct"]


def test_quiet_prints_nothing(capfd):
    assert cli.main(["compress", *QUICK, "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_the_table_names_the_convention_that_was_asked_for(capsys):
    assert cli.main(["compress", *QUICK, "--storage", "float16"]) == 0
    assert "with float16 corrections" in capsys.readouterr().out


def test_several_tasks_and_sums_mix_and_draw_a_picture_each(tmp_path, capsys):
    tasks = ["--task", "fc1.weight: lowrank(rank=5) + prune(kappa=100)",
             "--task", "fc2.weight, fc3.weight: each(ternary(scale=True))"]
    assert cli.main(["compress", *QUICK, *tasks, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert {"parts-1.png", "layer-2.png"} <= set(os.listdir(tmp_path / "out"))
    params = arrays(tmp_path / "out" / "compressed.npz")
    assert len(np.unique(params["fc2.weight"])) <= 3
    assert len(json.loads(capsys.readouterr().out)["tasks"]) == 2


def test_the_quadratic_penalty_gives_another_path(tmp_path):
    for penalty in ("quadratic", "augmented"):
        assert cli.main(["compress", *QUICK, "--penalty", penalty, "--quiet",
                         "--out", str(tmp_path / penalty)]) == 0
    first, second = (arrays(tmp_path / p / "compressed.npz") for p in ("quadratic", "augmented"))
    assert not np.array_equal(first["fc1.weight"], second["fc1.weight"])


def test_the_linear_net_compresses(capsys):
    assert cli.main(["compress", *QUICK, "--net", "linear", "--compress", "quantize(k=4)"]) == 0
    assert "linear on digits" in capsys.readouterr().out


BAD = {
    "an unknown net": (["--net", "lenet30"], "did you mean 'lenet300'"),
    "an unknown data set": (["--data", "digit"], "did you mean 'digits'"),
    "an unknown activation": (["--activation", "gelu"], "known: relu, tanh"),
    "a typo in the text": (["--compress", "quantise(k=2)"], "  quantise(k=2)\n  ^"),
    "an empty text": (["--compress", ""], "not a compression"),
    "a typo in a task": (["--task", "fc1.weight: prune(kapa=5)"], "did you mean 'kappa'"),
    "kappa beyond the weights": (["--compress", "prune(kappa=50201)"], "more than the 50200"),
    "a rank beyond the matrix": (["--compress", "lowrank(rank=11)"], "smaller side of fc3.weight"),
    "overlapping tasks": (["--task", "fc1.weight: quantize(k=2)", "--task",
                           "fc1.weight: binary()"], "both hold 'fc1.weight'"),
    "a task and a text": (["--task", "fc1.weight: binary()", "--compress", "binary()"], "not both"),
    "an unknown tensor": (["--task", "fc9.weight: binary()"], "no tensor 'fc9.weight'"),
    "low rank of a bias": (["--task", "fc1.bias: lowrank(rank=0)"], "2 axes or 4; fc1.bias has 1"),
    "a growth that overflows": (["--growth", "1e300"], "overflows"),
    "a penalty too small to divide by": (["--mu0", "1e-320"], "at least 1e-300"),
    "an infinite radius": (["--compress", "prune(radius=1e400)"], "finite"),
    "a flag that is a text": (["--compress", "binary(scale='no')"], "True or False, not 'no'"),
    "a missing keyword": (["--compress", "quantize()"], "exactly one of k, codebook"),
    "two parts in each": (["--compress", "each(binary(), binary())"], "each needs one"),
    "stars": (["--compress", "prune(**{'kappa': 3})"], "does not take this"),
    "a shrinking penalty": (["--growth", "0.9"], "at least 1"),
    "images too small for the net": (["--net", "lenet5"], "16 × 16 pixels, got (1, 8, 8)"),
    "an activation of a net without a choice": (["--net", "resnet20", "--activation", "tanh"],
                                                "resnet20 has relu, and no other"),
    "a folder without CIFAR-10": (["--data", "cifar10", "--data-dir", os.path.dirname(__file__)],
                                  "data_batch_1"),
    "a folder without MNIST": (["--data", "mnist", "--data-dir", os.path.dirname(__file__)],
                               "train-images-idx3-ubyte"),
    "no reference file": (["--reference", "nowhere.npz"], "nowhere.npz"),
    "a reference of another kind": (["--reference", __file__], "not an .npz file"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_message_status_2_and_no_output(what, tmp_path, capsys):
    arguments, message = BAD[what]
    out = tmp_path / "out"
    assert cli.main(["compress", *arguments, "--out", str(out), "--quiet"]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.startswith("lcref compress: error: ")
    assert said.out == "" and "Traceback" not in said.err
    assert os.listdir(tmp_path) == []


ALL_AT_ONCE = ["--batch", "2000", "--momentum", "0", "--mu0", "1e-30"]      # one batch an epoch
TOO_LARGE = "the loss of lenet300 over the train set is nan: its weights are too large"


@pytest.mark.parametrize("where, ended, flags", [
    ("training the reference: the loss is nan in L step 0, in epoch 0", "training the reference",
     ["--lr", "1e6"]),
    # w ← w − (g + 1e20 w): beyond float32 in the second epoch
    ("L step 0, in epoch 1", "L step 0", ["--reference-epochs", "0", "--epochs", "2", *ALL_AT_ONCE,
                                          "--weight-decay", "1e20", "--lr", "1"]),
    # finite weights, which only their evaluation shows to be of no use
    (f"{TOO_LARGE} after L step 0", "L step 0", ["--reference-epochs", "0", "--epochs", "1",
                                                 *ALL_AT_ONCE, "--lr", "1e16"]),
    (f"training the reference: {TOO_LARGE}", "training the reference",
     ["--reference-epochs", "1", *ALL_AT_ONCE, "--lr", "1e16"])])
def test_divergence_leaves_the_last_good_weights_and_names_their_file(where, ended, flags, tmp_path,
                                                                      capsys):
    out = tmp_path / "out"
    assert cli.main(["compress", *QUICK, *flags, "--out", str(out), "--quiet"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("lcref compress: error: ")
    for part in (where, "smaller lr", f"{out / 'last-good.npz'} holds the last good weights"):
        assert part in said.err
    left = arrays(out / "last-good.npz")
    assert all(np.isfinite(p).all() for p in left.values())
    if "--reference-epochs" in flags:   # nothing was trained before, or all in the first epoch
        assert cli.main(["train", "--epochs", "0", "--out", str(tmp_path / "s"), "--quiet"]) == 0
        start = arrays(tmp_path / "s" / "weights.npz")
        assert "epoch 1" in where or all(np.array_equal(left[name], start[name]) for name in start)
    assert sorted(os.listdir(out)) == ["last-good.npz", "settings.json"]
    assert cli.main(["compress", "--resume", str(out)]) == 2
    assert f"has ended: it diverged in {ended}" in capsys.readouterr().err


def test_divergence_that_evaluation_shows_in_a_later_step_leaves_the_weights_of_the_one_before(
        tmp_path, capsys):
    # w ← w − (g + 1e8 w): three layers of 1e7 have a finite loss, of 1e15 they have none
    flags = ["--reference-epochs", "0", "--epochs", "1", *ALL_AT_ONCE, "--lr", "1",
             "--weight-decay", "1e8", "--task", "fc3.weight: binary()", "--quiet", "--out"]
    bad, good = tmp_path / "two", tmp_path / "one"
    assert cli.main(["compress", "--steps", "1", *flags, str(good)]) == 0
    assert cli.main(["compress", "--steps", "2", *flags, str(bad)]) == 2
    assert f"{TOO_LARGE} after L step 1; try a smaller lr; " in capsys.readouterr().err
    left, expected = arrays(bad / "last-good.npz"), arrays(good / "compressed.npz")
    assert all(np.array_equal(left[name], expected[name]) for name in left if "fc3.w" not in name)


@pytest.mark.parametrize("spoil, message", [
    (lambda p: p | {"fc2.weight": p["fc2.weight"][:-1]}, "fc2.weight"),
    (lambda p: p | {"fc2.weight": p["fc2.weight"] * np.nan}, "NaN"),
    (lambda p: {k: v for k, v in p.items() if k != "fc1.bias"}, "fc1.bias"),
    (lambda p: p | {"fc4.weight": p["fc1.weight"]}, "fc4.weight"),
])
def test_reference_weights_that_do_not_fit_are_named(default_run, spoil, message, tmp_path,
                                                     capsys):
    np.savez(tmp_path / "bad.npz", **spoil(arrays(default_run[1] / "reference.npz")))
    assert cli.main(["compress", "--reference", str(tmp_path / "bad.npz")]) == 2
    assert message in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert cli.main(["compress", "--out", str(tmp_path / "out")]) == 2
    assert "not a folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("inside", ["file", "link"])
def test_an_output_that_cannot_be_made_is_refused_before_any_training(inside, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert cli.main(["compress", "--out", str(tmp_path / inside / "out"), "--lr", "1e9"]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_the_numbers_are_printed_even_where_the_files_cannot_be_written(tmp_path, capsys):
    (tmp_path / "out" / "history.json").mkdir(parents=True)  # a file cannot take its place
    out = str(tmp_path / "out")
    assert cli.main(["compress", *QUICK, "--json", "--quiet", "--out", out]) == 2
    said = capsys.readouterr()
    assert "lc" in json.loads(said.out) and "history.json" in said.err


@pytest.mark.parametrize("flag", ["--out", "--reference", "--data-dir"])
def test_an_empty_path_is_status_2(flag):
    status, _, stderr = lcref("compress", flag, "")
    assert status == 2 and "an empty path" in stderr


def test_a_flag_must_be_written_out():
    assert lcref("compress", "--ste", "2")[0] == 2


def test_an_older_run_leaves_no_picture_in_the_folder(tmp_path):
    out, two = str(tmp_path), ["--task", "fc1.weight: binary()", "--task", "fc2.weight: binary()"]
    for tasks in (two, two[:2]):
        assert cli.main(["compress", *QUICK, *tasks, "--quiet", "--out", out]) == 0
    assert {p for p in os.listdir(out) if p.startswith("parts")} == {"parts.png"}


def test_a_terminal_without_greek_letters_gets_the_table_all_the_same():
    done = subprocess.run([sys.executable, "-m", "lcref", "compress", *QUICK], text=True,
                          capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "direct compression" in done.stdout


def test_an_unknown_flag_is_status_2():
    assert lcref("compress", "--step", "x")[0] == 2


def test_debug_shows_the_traceback():
    assert "Traceback" in lcref("compress", "--net", "nothing", "--debug")[2]


# ----- nets of images ----------------------------------------------------------------------------

@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """Flags for ResNet20 on a CIFAR-10 of 20 images and 4 for the test."""
    rng, folder = np.random.default_rng(0), tmp_path / "cifar"
    monkeypatch.setattr(cifar, "IMAGES", 4)
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        records = rng.integers(256, size=(4, 3073), dtype=np.uint8)
        records[:, 0] = range(4)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return ["compress", "--net", "resnet20", "--data", "cifar10", "--data-dir", str(folder),
            "--reference-epochs", "1", "--steps", "2", "--epochs", "1", "--lr", "0.01"]


def test_a_residual_net_compresses_and_its_ratio_is_that_of_the_bits(small_cifar, tmp_path,
                                                                     capsys):
    out = tmp_path / "out"
    assert cli.main([*small_cifar, "--compress", "quantize(k=2)", "--out", str(out), "--json",
                     "--quiet"]) == 0
    summary = json.loads(capsys.readouterr().out)
    # one bit a weight and two entries; 688 channels, each with a scale, a shift, a running mean
    # and variance, and ten biases
    rest = 688 * 4 + 10
    bits = 268_336 + 2 * 32 + rest * 32
    assert summary["ratio"]["float32"] == pytest.approx((268_336 + rest) * 32 / bits, rel=1e-12)
    params, reference = (arrays(out / f"{name}.npz") for name in ("compressed", "reference"))
    weights = [p.ravel() for name, p in params.items() if p.ndim > 1]
    assert len(weights) == 20 and len(np.unique(np.concatenate(weights))) == 2
    assert len(np.unique(params["layer3.0.bn1.running_var"])) > 32
    for name in ("bn1.weight", "bn1.running_mean", "linear.bias"):      # trained by the L steps
        assert not np.array_equal(params[name], reference[name])


def test_a_net_of_images_compresses_to_the_same_bits_with_any_number_of_threads(small_cifar,
                                                                                tmp_path):
    linear = ["--task", "linear.weight: binary()", "--steps", "1"]
    for name, flags in (("a", ["--threads", "1"]), ("b", ["--threads", "2"]),
                        ("c", ["--no-augment"])):
        out = ["--out", str(tmp_path / name), "--quiet"]
        assert cli.main([*small_cifar, *linear, *flags, *out]) == 0
    a, b, c = (arrays(tmp_path / name / "compressed.npz") for name in "abc")
    assert all(a[key].tobytes() == b[key].tobytes() for key in a)
    assert any(a[key].tobytes() != c[key].tobytes() for key in a)


def test_convolutions_are_pruned_by_filters_and_lowered_in_rank_by_name(small_cifar, tmp_path):
    tasks = ["--task", "layer3.0.conv1.weight: prune(groups=5, axis=0)",
             "--task", "layer2.0.conv2.weight: lowrank(rank=3, scheme=2)"]
    assert cli.main([*small_cifar, *tasks, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    params = arrays(tmp_path / "out" / "compressed.npz")
    filters = params["layer3.0.conv1.weight"].reshape(64, -1)
    assert np.count_nonzero(filters.any(axis=1)) == 5
    kernel = params["layer2.0.conv2.weight"]        # (out · h) × (in · w)
    matrix = kernel.transpose(0, 2, 1, 3).reshape(32 * 3, 32 * 3).astype(float)
    values = np.linalg.svd(matrix, compute_uv=False)
    assert values[2] > 1e-3 * values[0] and values[3] < 1e-5 * values[0]


def weights_file(name):
    folder = os.environ.get("LCREF_DATA")
    if not folder:
        pytest.skip("LCREF_DATA names no folder with the data and the reference weights")
    return os.path.join(folder, "weights", name)


@pytest.fixture
def mnist_weights():
    return weights_file("lenet300_mnist.npz")


@pytest.mark.mnist
@pytest.mark.long
def test_lenet5_learns_mnist_in_an_epoch_and_keeps_most_of_it_at_one_bit(capsys):
    weights_file("")
    assert cli.main(["compress", "--net", "lenet5", "--data", "mnist", "--reference-epochs", "1",
                     "--steps", "1", "--epochs", "1", "--lr", "0.02", "--threads", "2", "--json",
                     "--quiet"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["reference"]["test_error"] < 3
    assert summary["lc"]["test_error"] <= summary["direct"]["test_error"] < 90
    # one bit a weight, 4305 corrections of 430,500, and 580 biases at 32 bits: between the ratios
    # with positions that cost nothing and with positions of 19 bits
    few, many = (431_080 * 32 / (430_500 + 4 * 64 + (580 + 4305) * 32 + 4305 * b) for b in (0, 19))
    assert many < summary["ratio"]["float32"] < few


@pytest.mark.long
def test_the_published_resnet20_has_its_error_as_reference(capsys):
    file = weights_file("resnet20_cifar10.npz")
    assert cli.main(["compress", "--net", "resnet20", "--data", "cifar10", "--reference", file,
                     "--steps", "1", "--epochs", "0", "--threads", "2", "--json", "--quiet"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["reference"]["test_error"] == 8.27
    # without an epoch the LC algorithm ends where it began
    assert summary["lc"]["test_error"] == summary["direct"]["test_error"] > 8.27


PUBLISHED = ["--activation", "tanh", "--data", "mnist", "--batch", "256", "--mu0", "9e-5",
             "--growth", "1.1", "--lr", "0.09", "--compress", "quantize(k=2) + prune(kappa=2662)"]


@pytest.mark.mnist
def test_the_published_reference_errs_on_213_of_10000_and_a_step_helps(mnist_weights, capsys):
    short = ["--steps", "1", "--epochs", "1", "--json", "--quiet"]
    assert cli.main(["compress", *PUBLISHED, "--reference", mnist_weights, *short]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["reference"]["test_error"] == 2.13
    # two values over all layers destroy the net (19.11% with the authors' own library)
    assert summary["direct"]["test_error"] > 10
    assert summary["lc"]["test_error"] < summary["direct"]["test_error"]


@pytest.mark.mnist
@pytest.mark.long
def test_one_bit_and_one_percent_on_mnist_is_at_most_2_25_percent(mnist_weights, capsys):
    whole = ["--steps", "40", "--epochs", "20", "--first-epochs", "40", "--json", "--quiet"]
    assert cli.main(["compress", *PUBLISHED, "--reference", mnist_weights, *whole]) == 0
    assert json.loads(capsys.readouterr().out)["lc"]["test_error"] <= 2.25


# ---- what is held out


def test_the_error_of_what_is_held_out_is_of_images_that_no_training_saw(tmp_path, capfd):
    flags = ["--hold-out", "0.2", "--reference-epochs", "4", "--steps", "2", "--epochs", "1"]
    assert cli.main(["compress", *flags, "--json", "--out", str(tmp_path)]) == 0
    out, err = capfd.readouterr()
    summary = json.loads(out)
    digits, net = data.load("digits"), nets.build("lenet300", (1, 8, 8), 10, "relu")
    seen, unseen = (part.shaped(net.input_shape) for part in digits.split(0.2))
    assert len(unseen.x_test) == 287
    for key, file in (("reference", "reference.npz"), ("lc", "compressed.npz")):
        with np.load(tmp_path / file) as archive:
            params = {name: archive[name] for name in archive.files}
        for what, x, y in (("held_out", unseen.x_test, unseen.y_test),
                           ("train", seen.x_train, seen.y_train),
                           ("test", seen.x_test, seen.y_test)):
            wrong = np.mean(net.apply(params, x).argmax(axis=1) != y)
            assert abs(summary[key][f"{what}_error"] - 100 * wrong) < 1e-9
    assert "held-out error" in err and f"{summary['direct']['held_out_error']:.2f} %" in err


def test_steps_are_measured_on_a_sample_and_what_is_compared_on_all(tmp_path, capfd):
    flags = ["compress", "--reference-epochs", "2", "--steps", "2", "--epochs", "1", "--quiet"]
    for name, more in (("all", []), ("sample", ["--train-sample", "100"])):
        assert cli.main([*flags, *more, "--out", str(tmp_path / name)]) == 0
    whole, part = (json.loads((tmp_path / name / "history.json").read_text())
                   for name in ("all", "sample"))
    for key in ("reference", "direct", "lc"):
        assert whole[key] == part[key]
    digits, net = data.load("digits"), nets.build("lenet300", (1, 8, 8), 10, "relu")
    sample = digits.shaped(net.input_shape).sample(100)
    with np.load(tmp_path / "sample" / "compressed.npz") as archive:
        wrong = net.apply(dict(archive), sample.x_train).argmax(axis=1) != sample.y_train
    last = part["steps"][-1]
    assert last["compressed_train_error"] == np.sum(wrong) != whole["steps"][-1][
        "compressed_train_error"]
    assert last["compressed_test_error"] == whole["lc"]["test_error"]
    capfd.readouterr()


def test_training_reports_what_is_held_out_too(tmp_path, capfd):
    flags = ["--epochs", "1", "--out", str(tmp_path), "--json"]
    assert cli.main(["train", *flags]) == 0
    assert "held_out_error" not in json.loads(capfd.readouterr().out)
    assert cli.main(["train", *flags, "--hold-out", "0.1"]) == 0
    out, err = capfd.readouterr()
    assert f"held-out error {json.loads(out)['held_out_error']:.2f} %" in err

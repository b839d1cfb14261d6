"""A compressed model that is kept: model.npz of lcref compress, info, eval and export."""

import io
import json
import math
import os
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file

from lcref import cli, data, lc, nets, parse_task, storage
from lcref.nets.net import he_normal

QUICK = ["--reference-epochs", "5", "--steps", "2", "--epochs", "1", "--quiet"]
LAYERS = ("fc1.weight", "fc2.weight", "fc3.weight")
TASKS = {
    "1 bit": ["--compress", "each(quantize(k=2)) + prune(keep=0.03)"],
    "half": ["--compress", "each(quantize(k=2)) + prune(keep=0.03)", "--storage", "float16"],
    "shared": ["--compress", "quantize(k=5) + prune(keep=0.01)"],
    "mixed": ["--task", "fc1.weight, fc2.weight: lowrank(rank=3) + prune(keep=0.02)",
              "--task", "fc3.weight: ternary(scale=True)", "--storage", "float16"],
    "text": ["--compress", "prune(keep=0.1, storage='float16')"],
}


@pytest.fixture
def lcref(capsys):
    """Runs a command: (exit status, standard output, standard error)."""
    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())
    return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of a short run of each of TASKS."""
    made = {}
    for name, flags in TASKS.items():
        made[name] = tmp_path_factory.mktemp("runs") / "out"
        assert cli.main(["compress", *QUICK, *flags, "--out", str(made[name])]) == 0
    return made


@pytest.fixture(params=TASKS)
def folder(request, folders):
    return folders[request.param]


def arrays(file):
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def history(folder):
    return json.loads((folder / "history.json").read_text())


def info(lcref, file, *flags):
    status, stdout, _ = lcref("info", file, "--json", *flags)
    assert status == 0
    return json.loads(stdout)


# ---- the file


def test_the_packed_file_holds_the_compressed_net_to_the_last_bit(folder):
    dense, model = arrays(folder / "compressed.npz"), storage.load(folder / "model.npz")
    assert list(model.shapes) == list(dense)
    for name, array in model.decompress().items():
        assert array.tobytes() == dense[name].tobytes() and array.dtype == np.float32


def test_the_packed_file_says_what_net_and_data_it_is_for_and_how_they_are_prepared(folder):
    about = storage.load(folder / "model.npz").about
    assert about == {"net": {"name": "lenet300", "input_shape": [64], "classes": 10,
                             "activation": "relu"},
                     "data": {"name": "digits",
                              "preprocessing": "pixel / 16 minus the mean training image"}}


def test_the_size_reported_is_that_of_the_file_within_two_percent_and_2_kib_of_the_bits(folder):
    told, size = history(folder), (folder / "model.npz").stat().st_size
    bits = 32 * 50_610 / told["ratio"][told["storage"]]
    assert told["file_bytes"] == size
    assert bits / 8 < size <= 1.02 * bits / 8 + 2048


@pytest.mark.parametrize("run, width", [("1 bit", "float32"), ("half", "float16"),
                                        ("mixed", "float16"), ("text", "float16")])
def test_the_storage_is_what_the_flag_or_the_text_asks_for(run, width, folders):
    assert storage.load(folders[run] / "model.npz").storage == width
    assert history(folders[run])["storage"] == width


def test_with_half_precision_every_correction_and_factor_that_is_evaluated_is_half(folders):
    model = storage.load(folders["mixed"] / "model.npz")
    low_rank, corrections = model.thetas[0].parts
    numbers = [corrections.values]
    for part in low_rank.parts.values():
        numbers += [part.left, part.right]
    for array in numbers:
        assert array.size and np.array_equal(array, array.astype(np.float16).astype(np.float32))
    dense = arrays(folders["mixed"] / "compressed.npz")
    for name in LAYERS[:2]:     # the sum as it is evaluated is made of them
        total = low_rank.parts[name].decompress() + corrections.decompress()[name]
        assert np.array_equal(total, dense[name])


def test_half_precision_halves_what_corrections_cost_and_nothing_else(folders):
    one, half = (history(folders[name])["ratio"] for name in ("1 bit", "half"))
    saved = 32 * 50_610 * (1 / one["float32"] - 1 / half["float16"])
    corrections = math.floor(0.03 * 50_200)
    # the positions differ as the weights do; each of the two codes them in under 8 bits
    assert abs(saved - 16 * corrections) <= 1 * corrections


# ---- eval


@pytest.mark.parametrize("train", [[], ["--train"]])
def test_the_error_of_the_packed_net_is_that_which_the_run_reported(folder, train, lcref):
    told = history(folder)["lc"]
    status, stdout, _ = lcref("eval", folder / "model.npz", "--json", *train)
    found = json.loads(stdout)
    assert status == 0 and found["test_error"] == told["test_error"]
    assert found["net"] == "lenet300" and found["data"] == "digits"
    if train:
        assert found["train_error"] == told["train_error"]
        assert found["train_loss"] == pytest.approx(told["loss"], rel=1e-5)     # other batches


def test_the_net_from_its_parts_has_the_same_error_up_to_rounding(folder, lcref):
    told = history(folder)["lc"]["test_error"]
    status, stdout, _ = lcref("eval", folder / "model.npz", "--from-parts", "--json")
    # one image of 360 is 0.28%: a tie of two classes may go the other way
    assert status == 0 and abs(json.loads(stdout)["test_error"] - told) < 0.3


@pytest.mark.parametrize("flags, message", [
    (["--net", "resnet20"], "--net resnet20, but"), (["--data", "mnist"], "--data mnist, but"),
    (["--activation", "tanh"], "--activation tanh, but")])
def test_a_flag_that_contradicts_the_packed_file_is_refused(flags, message, folders, lcref):
    status, stdout, stderr = lcref("eval", folders["half"] / "model.npz", *flags)
    assert (status, stdout) == (2, "") and message in stderr and stderr.count("\n") == 1


def test_a_packed_file_that_was_prepared_otherwise_is_refused(folders, tmp_path, lcref):
    model = storage.load(folders["half"] / "model.npz")
    model.about["data"]["preprocessing"] = "pixel / 8"
    file = tmp_path / "other.npz"
    file.write_bytes(storage.pack(model.decompress(), model.tasks, model.thetas, model.about))
    status, _, stderr = lcref("eval", file)
    assert status == 2 and "as pixel / 8, not as pixel / 16 minus" in stderr


def test_dense_weights_have_no_parts(folders, lcref):
    status, _, stderr = lcref("eval", folders["half"] / "compressed.npz", "--from-parts")
    assert status == 2 and "not a packed file: it has no parts" in stderr


def test_a_packed_file_of_ones_own_net_needs_the_flags(folders, tmp_path, lcref):
    model = storage.load(folders["half"] / "model.npz")
    file = tmp_path / "own.npz"
    file.write_bytes(storage.pack(model.decompress(), model.tasks, model.thetas))
    told = history(folders["half"])["lc"]["test_error"]
    status, stdout, _ = lcref("eval", file, "--net", "lenet300", "--data", "digits", "--json")
    assert status == 0 and json.loads(stdout)["test_error"] == told
    status, _, stderr = lcref("info", file, "--flops")
    assert status == 2 and "does not say which of lcref's nets" in stderr


def test_a_packed_file_is_a_reference_to_start_from(folders, tmp_path, lcref):
    status, _, _ = lcref("compress", *QUICK, "--reference", folders["half"] / "model.npz",
                         "--out", tmp_path / "again")
    assert status == 0
    again, dense = (arrays(file) for file in (tmp_path / "again" / "reference.npz",
                                              folders["half"] / "compressed.npz"))
    assert all(np.array_equal(again[name], dense[name]) for name in dense)


# ---- info


def test_the_bits_of_the_layers_add_up_to_those_of_the_file(folder, lcref):
    told, model = info(lcref, folder / "model.npz"), storage.load(folder / "model.npz")
    for width in ("float16", "float32"):
        assert told["bits"][width] == model.bits(width)
        assert told["bits"][width] == told["shared_bits"][width] + sum(
            row["bits"][width] for row in told["layers"])
        for row in told["layers"]:
            assert row["bits"][width] == (sum(p["bits"][width] for p in row["parts"])
                                          or 32 * row["weights"])


def test_the_ratios_are_those_of_the_run_and_of_the_size_of_the_file(folder, lcref):
    told, size = info(lcref, folder / "model.npz"), (folder / "model.npz").stat().st_size
    assert told["file_bytes"] == size
    assert told["ratio"] == {**history(folder)["ratio"], "file": 50_610 * 4 / size}


def test_a_layer_has_the_bits_counted_by_hand(folders, lcref):
    rows = {row["name"]: row for row in info(lcref, folders["1 bit"] / "model.npz")["layers"]}
    dense = arrays(folders["1 bit"] / "compressed.npz")
    marks = [~np.isin(dense[name], sorted(set(dense[name].ravel().tolist()),
                      key=lambda v, n=name: -np.sum(dense[n] == v))[:2]).ravel()
             for name in LAYERS]
    gaps = np.diff(np.flatnonzero(np.concatenate(marks)), prepend=-1) - 1
    b = min(range(1, 20), key=lambda b: sum(b * (1 + g // (2**b - 1)) for g in gaps.tolist()))
    first = 0
    for name, mark in zip(LAYERS, marks):
        own = gaps[first:first + mark.sum()].tolist()
        first += mark.sum()
        coded = sum(b * (1 + g // (2**b - 1)) for g in own)
        assert rows[name]["bits"]["float32"] == mark.size + 64 + 32 * mark.sum() + coded
    assert rows["fc1.bias"]["bits"] == {"float16": 300 * 32, "float32": 300 * 32}
    assert rows["fc1.bias"]["parts"] == []


def test_a_codebook_that_layers_share_is_counted_once_and_apart(folders, lcref):
    assert info(lcref, folders["shared"] / "model.npz")["shared_bits"]["float32"] == 5 * 32
    assert info(lcref, folders["1 bit"] / "model.npz")["shared_bits"]["float32"] == 0


def test_the_claim_of_the_last_c_step_is_told(folders, lcref):
    task, = info(lcref, folders["half"] / "model.npz")["tasks"]
    theta = storage.load(folders["half"] / "model.npz").thetas[0]
    assert (task["status"], task["gap"]) == (theta.status, theta.gap)
    assert task["status"] == "certified" and task["gap"] > 0
    assert task["tensors"] == list(LAYERS)
    mixed = info(lcref, folders["mixed"] / "model.npz")["tasks"]
    assert mixed[0]["status"] in ("stationary", "unconverged") and mixed[0]["gap"] is None


def test_operations_of_one_bit_are_one_product_for_each_value_and_correction(folders, lcref):
    told = info(lcref, folders["1 bit"] / "model.npz", "--flops")
    rows = {row["name"]: row for row in told["layers"]}
    dense = rows["fc1.weight"]["dense_operations"]
    assert dense == {"multiplications": 300 * 64, "additions": 300 * 63}
    theta = storage.load(folders["1 bit"] / "model.npz").thetas[0]
    kept = int(np.sum(theta.parts[1].indices < 300 * 64))
    assert rows["fc1.weight"]["operations"]["multiplications"] == 2 * 300 + kept
    assert rows["fc1.weight"]["positions"] == 1 and "operations" not in rows["fc1.bias"]


def test_the_text_has_a_row_for_each_layer_and_both_ratios(folder, lcref):
    status, stdout, stderr = lcref("info", folder / "model.npz", "--flops")
    told = info(lcref, folder / "model.npz")
    assert (status, stderr) == (0, "")
    assert all(stdout.count(f"\n{name} ") == 2 for name in LAYERS)
    for ratio in told["ratio"].values():
        assert f"{ratio:.2f}" in stdout
    assert f"{told['file_bytes']:,} bytes" in stdout and "in all" in stdout


def test_with_json_the_text_goes_to_standard_error_and_quiet_leaves_it_out(folders, lcref):
    _, stdout, stderr = lcref("info", folders["half"] / "model.npz", "--json")
    assert json.loads(stdout) and "ratio" in stderr
    assert lcref("info", folders["half"] / "model.npz", "--quiet") == (0, "", "")


@pytest.mark.parametrize("name, image, layer, positions", [
    ("resnet20", (3, 32, 32), "layer2.0.conv1.weight", 256),
    ("vgg16", (3, 32, 32), "features.3.weight", 1024), ("nin", (3, 32, 32), "classifier.8.weight",
                                                        256)])
def test_operations_of_nets_of_images_count_every_position(name, image, layer, positions, lcref,
                                                           tmp_path):
    net = nets.build(name, image, 10)
    params = net.init(np.random.default_rng(0))
    tasks = [parse_task(f"{layer}: binary(scale=True)")]
    thetas, _ = lc.direct_compression(params, tasks)
    file = tmp_path / "model.npz"
    file.write_bytes(storage.pack(params, tasks, thetas, {"net": {
        "name": name, "input_shape": list(image), "classes": 10, "activation": "relu"}}))
    told = {row["name"]: row for row in info(lcref, file, "--flops")["layers"]}[layer]
    outputs, inputs = net.shapes[layer][0], math.prod(net.shapes[layer][1:])
    assert told["positions"] == positions
    assert told["operations"] == {"multiplications": outputs * positions,
                                  "additions": outputs * (inputs - 1) * positions}
    assert told["dense_operations"]["multiplications"] == outputs * inputs * positions


# ---- export


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_export_writes_the_dense_weights_under_their_names(kind, folder, tmp_path, lcref):
    file = tmp_path / f"weights.{kind}"
    status, stdout, _ = lcref("export", folder / "model.npz", "--to", kind, "--out", file, "--json")
    assert status == 0 and json.loads(stdout)["weights"] == str(file)
    found = arrays(file) if kind == "npz" else load_file(file)
    dense = arrays(folder / "compressed.npz")
    assert sorted(found) == sorted(dense)
    assert all(found[name].tobytes() == dense[name].tobytes() for name in dense)
    status, stdout, _ = lcref("eval", file, "--json")
    assert json.loads(stdout)["test_error"] == history(folder)["lc"]["test_error"]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_export_writes_beside_the_file_where_no_place_is_given(folders, tmp_path, lcref):
    file = tmp_path / "model.npz"
    file.write_bytes((folders["half"] / "model.npz").read_bytes())
    assert lcref("export", file, "--to", "npz", "--quiet") == (0, "", "")
    assert lcref("export", file, "--to", "safetensors", "--quiet") == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model-dense.npz", "model-dense.safetensors", "model.npz"]


def test_export_does_not_overwrite_the_packed_file(folders, tmp_path, lcref):
    file = tmp_path / "model.npz"
    file.write_bytes((folders["half"] / "model.npz").read_bytes())
    status, _, stderr = lcref("export", file, "--to", "npz", "--out", file)
    assert status == 2 and "is the file to be read" in stderr
    assert storage.is_packed(file)


@pytest.mark.parametrize("verb", [["info", "--flops"], ["eval"]])
@pytest.mark.parametrize("about", [{"net": 5}, {"data": "mnist"}, {"net": {"name": ["lenet300"]}},
                                   {"net": {"name": "resnet20", "input_shape": [3, 10**6, 10**6],
                                            "classes": 10, "activation": "relu"}}])
def test_what_a_hostile_file_says_of_itself_is_one_message(verb, about, tmp_path, lcref):
    net = nets.build("resnet20", (3, 32, 32), 10)
    params = net.init(np.random.default_rng(0))
    tasks = [parse_task("linear.weight: binary()")]
    thetas, _ = lc.direct_compression(params, tasks)
    about = {"data": {"name": "digits"}} | about
    payload = storage.pack(params, tasks, thetas, {"net": {"name": "x"}})
    header = arrays_of(payload)["header"].tobytes().replace(
        b'"about":{"net":{"name":"x"}}', b'"about":' + json.dumps(about).encode())
    file = tmp_path / "model.npz"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("header", header), ("payload", arrays_of(payload)["payload"])):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.frombuffer(content, np.uint8))
    status, stdout, stderr = lcref(verb[0], file, *verb[1:])
    assert (status, stdout) == (2, "") and stderr.count("\n") == 1


def arrays_of(data):
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("out, message", [("", "is a folder; name a file in it"),
                                          ("nowhere/weights.npz", "there is no folder")])
def test_export_needs_a_file_in_a_folder_that_is_there(out, message, folders, tmp_path, lcref):
    status, stdout, stderr = lcref("export", folders["half"] / "model.npz", "--to", "npz", "--out",
                                   tmp_path / out)
    assert (status, stdout) == (2, "") and message in stderr and stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [["info"], ["export", "--to", "npz"]])
@pytest.mark.parametrize("what, message", [
    ("missing", "no file"), ("dense", "does not hold a header and a payload"),
    ("truncated", "not a packed file, or a damaged one"), ("folder", "is not a file"),
    ("flipped", "not a packed file, or a damaged one"), ("format", "it has format 2")])
def test_a_file_that_is_not_packed_or_is_damaged_gets_one_message(verb, what, message, folders,
                                                                  tmp_path, lcref):
    good, file = (folders["half"] / "model.npz").read_bytes(), tmp_path / "bad.npz"
    if what == "folder":
        file.mkdir()
    elif what == "dense":
        file.write_bytes((folders["half"] / "compressed.npz").read_bytes())
    elif what == "truncated":
        file.write_bytes(good[:-1000])
    elif what == "flipped":
        file.write_bytes(good[:5000] + bytes([good[5000] ^ 4]) + good[5001:])
    elif what == "format":
        header = arrays(folders["half"] / "model.npz")["header"].tobytes()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in (("header", header.replace(b'"format":1', b'"format":2')),
                                  ("payload", b"")):
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.frombuffer(content, np.uint8))
    status, stdout, stderr = lcref(verb[0], file, *verb[1:])
    assert (status, stdout) == (2, "") and message in stderr and stderr.count("\n") == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder nobody can write to")
def test_an_output_that_cannot_be_written_is_one_message(folders, lcref):
    status, _, stderr = lcref("export", folders["half"] / "model.npz", "--to", "npz", "--out",
                              "/proc/self/weights.npz")
    assert status == 2 and stderr.count("\n") == 1


# ---- all nets


@pytest.mark.parametrize("name, image, activation", [
    ("linear", (1, 8, 8), None), ("lenet5", (1, 28, 28), "tanh"), ("resnet32", (3, 32, 32), None)])
def test_a_net_of_any_kind_comes_back_with_its_error(name, image, activation, tmp_path):
    net = nets.build(name, image, 10, activation)
    params = {key: np.float32(he_normal(key, p.shape, np.random.default_rng(i))) if p.ndim > 1
              else p for i, (key, p) in enumerate(net.init(np.random.default_rng(1)).items())}
    tasks = [parse_task(f"{', '.join(net.weights)}: each(binary(scale=True)) + prune(keep=0.05)")]
    thetas, direct = lc.direct_compression(params, tasks)
    file = tmp_path / "model.npz"
    file.write_bytes(storage.pack(direct, tasks, thetas))
    again = nets.read_params(file, net)
    x = np.random.default_rng(2).normal(size=(40, *net.input_shape)).astype(np.float32)
    labels = np.argmax(net.apply(params, x), axis=1)
    assert nets.evaluate(net, again, x, labels) == nets.evaluate(net, direct, x, labels)


def test_the_digits_are_still_the_digits():
    """The data set that the runs above name has the preprocessing that they name."""
    assert data.load("digits").preprocessing == "pixel / 16 minus the mean training image"

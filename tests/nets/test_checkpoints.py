"""Files of weights: what NumPy, safetensors and PyTorch write, damaged files, and whole writes."""
import io
import json
import math
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from lcref.nets import build
from lcref.nets.checkpoints import read_npz, read_params, read_tensors, write_npz
from lcref.nets.models import resnet

NET = build("linear", 8, 3)         # fc1.weight (3, 8), fc1.bias (3,)
ENDINGS = [".npz", ".safetensors"]


def drawn(net=NET, dtype=np.float32, seed=0):
    """Parameters in reverse order, none of which is a first value."""
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.5, 2, net.shapes[name]).astype(dtype)
            for name in reversed(net.shapes)}


def save(path, arrays):
    """Write arrays without lcref."""
    if path.suffix == ".safetensors":
        save_file(arrays, path)
    else:
        with path.open("wb") as stream:
            np.savez(stream, **arrays)
    return path


def same(one, other):
    return one.keys() == other.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (other[k].dtype, other[k].shape, other[k].tobytes())
        for k, a in one.items())


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(shape, content):
    """An .npy file whose header says `shape`, of float32."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def tensors_of(path, dtype, width):
    """A .safetensors file, byte by byte, of NET's tensors with all bits zero."""
    at, header = 0, {}
    for name, shape in NET.shapes.items():
        end = at + width * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    return path


# ----- reading what others write ---------------------------------------------------------------

@pytest.mark.parametrize("ending", ENDINGS)
def test_what_was_saved_is_read_bit_for_bit_in_the_nets_order(ending, tmp_path):
    net = resnet(8)
    params = drawn(net)
    found = read_params(save(tmp_path / f"w{ending}", params), net)
    assert list(found) == list(net.shapes) and same(found, params)
    assert same(read_tensors(tmp_path / f"w{ending}"), params)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("stored", [np.float16, np.float64])
def test_another_precision_is_rounded_to_the_one_asked_for(ending, stored, tmp_path):
    params = drawn(dtype=stored)
    path = save(tmp_path / f"w{ending}", params)
    for dtype in (np.float32, np.float64):
        assert same(read_params(path, NET, dtype),
                    {name: p.astype(dtype) for name, p in params.items()})


def test_the_other_order_of_bytes_becomes_this_machines(tmp_path):
    params = drawn()
    swapped = {name: p.astype(p.dtype.newbyteorder()) for name, p in params.items()}
    assert same(read_params(save(tmp_path / "w.npz", swapped), NET), params)


@pytest.mark.parametrize("ending", ENDINGS)
def test_names_of_a_net_in_parallel_and_counters_of_batches_are_no_fault(ending, tmp_path):
    net = resnet(8)
    params = drawn(net)
    stored = {f"module.{name}": p for name, p in params.items()}
    stored["module.bn1.num_batches_tracked"] = np.array(7)
    assert same(read_params(save(tmp_path / f"w{ending}", stored), net), params)


def test_a_prefix_that_only_some_names_have_is_a_fault(tmp_path):
    params = drawn()
    params["module.fc1.bias"] = params.pop("fc1.bias")
    with pytest.raises(ValueError, match="missing: fc1.bias.*not of this net: module.fc1.bias"):
        read_params(save(tmp_path / "w.npz", params), NET)


# ----- PyTorch -----------------------------------------------------------------------------------

def block_class(torch):
    """The block of a ResNet as PyTorch users write it, with a shortcut without parameters."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.stride, self.extra = n_out // n_in, n_out - n_in
            self.conv1 = nn.Conv2d(n_in, n_out, 3, self.stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(n_out)
            self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(n_out)

        def forward(self, x):
            h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            short = x[:, :, ::self.stride, ::self.stride]
            return F.relu(h + F.pad(short, (0, 0, 0, 0, self.extra // 2, self.extra // 2)))
    return Block


def residual_net(torch):
    """A ResNet of 8 layers in evaluation, after three batches of training."""
    nn, F, Block = torch.nn, torch.nn.functional, block_class(torch)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            self.layer1 = nn.Sequential(Block(16, 16))
            self.layer2 = nn.Sequential(Block(16, 32))
            self.layer3 = nn.Sequential(Block(32, 64))
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            h = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
            return self.linear(h.mean((2, 3)))

    torch.manual_seed(0)
    module = Net()
    for _ in range(3):                      # running statistics, and counters of three batches
        module(torch.randn(4, 3, 32, 32))
    return module.eval()


@pytest.fixture(scope="module")
def torch_module():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    return residual_net(torch)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("parallel", [False, True])
def test_the_state_dict_of_a_torch_module_gives_its_logits(torch_module, ending, parallel,
                                                           tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch
    state = (torch.nn.DataParallel(torch_module) if parallel else torch_module).state_dict()
    prefix = "module." * parallel
    assert state[f"{prefix}layer2.0.bn1.num_batches_tracked"] == 3
    path = tmp_path / f"w{ending}"
    if ending == ".npz":
        save(path, {name: tensor.numpy() for name, tensor in state.items()})
    else:
        save_torch(state, path)
    net = resnet(8)
    params = read_params(path, net)
    assert all(np.array_equal(p, state[prefix + name].numpy()) for name, p in params.items())
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        logits = torch_module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(net.apply(params, x), logits, rtol=0,
                               atol=1e-5 * np.abs(logits).max())


def test_half_precision_of_torch_that_numpy_lacks_is_refused_by_name(torch_module, tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch
    half = {name: t.to(torch.bfloat16) for name, t in torch_module.state_dict().items()}
    save_torch(half, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors.*bfloat16"):
        read_params(tmp_path / "w.safetensors", resnet(8))


# ----- files that are not of the net -----------------------------------------------------------

@pytest.mark.parametrize("ending", ENDINGS)
def test_one_message_lists_all_that_is_missing_extra_misshapen_and_not_finite(ending, tmp_path):
    net = build("lenet300", 8, 3)
    params = drawn(net)
    del params["fc2.weight"], params["fc1.bias"]
    params["fc9.weight"] = params["fc8.bias"] = np.ones(2, np.float32)
    params["fc1.weight"] = np.ascontiguousarray(params["fc1.weight"].T)
    params["fc2.bias"] = params["fc2.bias"].astype(np.int64)
    params["fc3.weight"][2, 99], params["fc3.bias"][0] = np.nan, -np.inf
    with pytest.raises(ValueError) as caught:
        read_params(save(tmp_path / f"w{ending}", params), net)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / f'w{ending}'}: ") and "lenet300" in message
    assert "missing: fc1.bias (300,), fc2.weight (100, 300);" in message
    extra = re.search("not of this net: ([^;]*)", message)[1]
    assert sorted(extra.split(", ")) == ["fc8.bias", "fc9.weight"]
    for fault in ("fc1.weight has shape (8, 300), not (300, 8)", "fc2.bias has dtype int64",
                  "fc3.weight has a NaN or an infinity", "fc3.bias has a NaN or an infinity"):
        assert fault in message


def test_of_many_names_the_first_twenty_are_listed_and_the_rest_counted(tmp_path):
    net = resnet(8)
    with pytest.raises(ValueError) as caught:
        read_params(save(tmp_path / "w.npz", drawn()), net)
    listed = re.search("missing: (.*); not", str(caught.value))[1]
    assert listed.count("(") == 20
    assert listed.endswith(f"and {len(net.shapes) - 20} more")


def test_a_number_that_overflows_in_the_precision_asked_for_is_not_finite(tmp_path):
    params = drawn(dtype=np.float64)
    params["fc1.bias"][1] = 1e300
    path = save(tmp_path / "w.npz", params)
    assert read_params(path, NET, np.float64)["fc1.bias"][1] == 1e300
    with pytest.raises(ValueError, match="fc1.bias"):
        read_params(path, NET)


@pytest.mark.parametrize("values", ["text", "complex", "integer", "date", "record"])
def test_tensors_of_other_kinds_are_refused_by_name(values, tmp_path):
    dtype = {"text": "U3", "complex": complex, "integer": int, "date": "M8[s]",
             "record": "f4,i4"}[values]
    path = save(tmp_path / "w.npz", {k: np.zeros(s, dtype) for k, s in NET.shapes.items()})
    with pytest.raises(ValueError, match="fc1.weight has dtype .*fc1.bias has dtype"):
        read_params(path, NET)


# ----- damaged files, and files of other kinds -------------------------------------------------

def assert_refused(path):
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_params(path, NET)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_was_cut_off_anywhere_is_refused(ending, tmp_path):
    path = save(tmp_path / f"w{ending}", drawn())
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        assert_refused(path)


@pytest.mark.parametrize("kind", ["stored", "compressed", "safetensors"])
def test_damage_gives_a_value_error_or_parameters_that_fit_and_nothing_else(kind, tmp_path):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.npz")
    save(path, drawn())
    if kind == "compressed":
        np.savez_compressed(path, **drawn())
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            NET.check(read_params(path, NET))
        except ValueError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("flag", [1, 64])
def test_an_encrypted_member_is_refused(flag, tmp_path):
    content = bytearray(save(tmp_path / "w.npz", drawn()).read_bytes())
    for at in re.finditer(b"PK\x03\x04|PK\x01\x02", bytes(content)):
        content[at.start() + (6 if content[at.start() + 2] == 3 else 8)] |= flag
    (tmp_path / "w.npz").write_bytes(content)
    assert_refused(tmp_path / "w.npz")


def test_members_that_are_no_arrays_are_refused(tmp_path):
    assert_refused(zipped(tmp_path / "w.npz", {"fc1.weight": b"0" * 96, "fc1.bias": b"0" * 12}))


@pytest.mark.parametrize("rows", [10 ** 13, 10 ** 30, -1])
def test_a_header_that_promises_more_than_there_is_is_refused(rows, tmp_path):
    assert_refused(zipped(tmp_path / "w.npz", {"fc1.weight.npy": npy((rows, 8), bytes(96)),
                                               "fc1.bias.npy": npy((3,), bytes(12))}))


def test_memory_is_not_taken_for_what_a_header_promises(tmp_path):
    path = zipped(tmp_path / "w.npz", {"fc1.weight.npy": npy((10**7, 8), bytes(96))})
    tracemalloc.start()
    assert_refused(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("again", ["fc1.bias.npy", "fc1.bias"])
def test_a_name_that_is_there_twice_is_refused(again, tmp_path):
    path = save(tmp_path / "w.npz", drawn())
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")     # of zipfile
        archive.writestr(again, npy((3,), bytes(12)))
    with pytest.raises(ValueError, match="holds 'fc1.bias' twice"):
        read_tensors(path)


@pytest.mark.parametrize("dtype, width", [("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1)])
def test_a_dtype_that_numpy_lacks_is_refused(dtype, width, tmp_path):
    assert_refused(tensors_of(tmp_path / "w.safetensors", dtype, width))


@pytest.mark.parametrize("dtype, width", [("F16", 2), ("F32", 4), ("F64", 8)])
def test_a_file_written_byte_by_byte_is_read(dtype, width, tmp_path):
    found = read_params(tensors_of(tmp_path / "w.safetensors", dtype, width), NET)
    assert same(found, {name: np.zeros(s, np.float32) for name, s in NET.shapes.items()})


def test_a_header_of_safetensors_that_is_longer_than_the_file_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 2 ** 62) + b"{}")
    assert_refused(tmp_path / "w.safetensors")


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_file_a_folder_and_the_other_kind_of_file_are_refused(ending, tmp_path):
    other, = set(ENDINGS) - {ending}
    (tmp_path / f"empty{ending}").touch()
    (tmp_path / f"folder{ending}").mkdir()
    save(tmp_path / f"w{other}", drawn()).rename(tmp_path / f"other{ending}")
    for name in ("empty", "folder", "other"):
        assert_refused(tmp_path / f"{name}{ending}")


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w", "no/w.npz"])
def test_a_file_that_is_not_there_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no file {tmp_path / name}")):
        read_params(tmp_path / name, NET)


@pytest.mark.parametrize("name", ["w.pt", "w.npy", "w.txt", "w"])
def test_a_file_of_another_kind_is_refused(name, tmp_path):
    path = tmp_path / name
    if name == "w.pt":      # as torch.save lays it out: a zip file with a pickle
        zipped(path, {"archive/data.pkl": pickle.dumps({}), "archive/data/0": bytes(96)})
    elif name == "w.npy":
        np.save(path, drawn()["fc1.weight"])
    else:
        path.write_text("fc1.weight 0 0 0\n")
    assert_refused(path)


class Trap:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    sprung, path = tmp_path / "sprung", tmp_path / "w.npz"
    trapped = np.array([Trap(sprung)], object)
    for content in ({"fc1.weight": trapped, "fc1.bias": np.zeros(3)}, None):
        path.write_bytes(pickle.dumps(Trap(sprung)))
        if content:
            with path.open("wb") as stream:
                np.savez(stream, **content)
        for read in (read_npz, read_tensors, lambda path: read_params(path, NET)):
            with pytest.raises(ValueError, match="plain arrays"):
                read(path)
        assert not sprung.exists()
    pickle.loads(path.read_bytes())
    assert sprung.exists()          # the trap works


# ----- writing -----------------------------------------------------------------------------------

def test_what_is_written_numpy_reads_bit_for_bit(tmp_path):
    params = drawn(dtype=np.float64) | {"file": np.float32([1, 2]), "allow_pickle": np.ones(1)}
    for name in ("w.npz", "name without an ending"):
        write_npz(tmp_path / name, params)
        with np.load(tmp_path / name, allow_pickle=False) as archive:
            assert same({key: archive[key] for key in archive.files}, params)
    assert sorted(os.listdir(tmp_path)) == ["name without an ending", "w.npz"]


def test_a_file_without_an_ending_is_read_as_npz(tmp_path):
    params = drawn()
    assert same(read_params(save(tmp_path / "weights", params), NET), params)


def test_a_new_file_takes_the_place_of_the_older_one_in_one_move(tmp_path):
    path = save(tmp_path / "w.npz", drawn())
    before = path.read_bytes()
    os.link(path, tmp_path / "reader")      # as a program that has the older file open sees it
    write_npz(path, drawn(seed=1))
    assert (tmp_path / "reader").read_bytes() == before != path.read_bytes()


def test_a_file_written_has_the_permissions_of_any_new_file(tmp_path):
    write_npz(tmp_path / "w.npz", drawn())
    (tmp_path / "plain").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("w.npz", "plain")]
    assert modes[0] == modes[1]


FULL_DISK = """
import resource, sys
import numpy as np
from lcref.nets.checkpoints import write_npz
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_npz(sys.argv[1], {"a": np.zeros(10_000, np.float32), "b": np.zeros(10**6, np.float32)})
except OSError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on the size of files is POSIX's")
def test_a_full_disk_leaves_the_older_file_whole_and_nothing_beside_it(tmp_path):
    path = tmp_path / "w.npz"
    write_npz(path, drawn())
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("refused: "), done.stderr
    assert os.listdir(tmp_path) == ["w.npz"] and path.read_bytes() == before


class Interrupting:
    def __array__(self, dtype=None, copy=None):
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_older_file_whole_and_nothing_beside_it(tmp_path):
    path = save(tmp_path / "w.npz", drawn())
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_npz(path, drawn(seed=1) | {"z": Interrupting()})
    assert os.listdir(tmp_path) == ["w.npz"] and path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_an_os_error_and_leaves_nothing(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    for path in (tmp_path / "nowhere" / "w.npz", tmp_path / "folder.npz"):
        with pytest.raises(OSError):
            write_npz(path, drawn())
    assert os.listdir(tmp_path) == ["folder.npz"] and not os.listdir(tmp_path / "folder.npz")

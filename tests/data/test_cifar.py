"""CIFAR-10: files written here instruction by instruction, and the published ones."""
import hashlib
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from lcref.data import cifar, load

N = 3       # images in the small files written here, instead of 10,000
TRAIN = [f"data_batch_{i}" for i in range(1, 6)]
FILES = [*TRAIN, "test_batch"]
CIFAR = Path(os.environ.get("LCREF_DATA", ""), "cifar-10-batches-py")
real = pytest.mark.skipif(not (CIFAR / "test_batch").is_file(), reason="needs the folder "
                          "cifar-10-batches-py in the folder that LCREF_DATA names")


# ----- the files as Python 2 wrote them, in pickle's protocol 2 -------------------------------

def short(text):
    return b"U" + bytes([len(text)]) + text                     # SHORT_BINSTRING


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()                 # GLOBAL


def whole(number):
    return b"J" + struct.pack("<i", number)                     # BININT


RECONSTRUCT, NDARRAY = name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray")
UINT8 = name("numpy", "dtype") + short(b"u1") + b"K\0K\1\x87R" + (
    b"(K\3" + short(b"|") + b"NNN" + whole(-1) + whole(-1) + b"K\0tb")


def array(content, rows, values, dtype=UINT8, order=b"\x89"):
    shape = whole(rows) + whole(values) + b"\x86"               # TUPLE2
    state = b"(K\1" + shape + dtype + order + b"T" + struct.pack("<i", len(content)) + content
    return RECONSTRUCT + NDARRAY + b"K\0\x85" + short(b"b") + b"\x87R" + state + b"tb"


def integers(numbers):
    return b"](" + b"".join(b"K" + bytes([number]) for number in numbers) + b"e"


def program(entries):
    pairs = b"".join(short(key) + value for key, value in entries.items())
    return b"\x80\2}(" + pairs + b"u."


def images(file, seed=0):
    """Pixels and labels of one of the small files."""
    rng = np.random.default_rng((seed, FILES.index(file)))
    return rng.integers(256, size=(N, 3072), dtype=np.uint8), rng.integers(10, size=N).tolist()


def entries(file, seed=0):
    pixels, labels = images(file, seed)
    label = "testing batch 1 of 1" if file == "test_batch" else f"training batch {file[-1]} of 5"
    return {b"batch_label": short(label.encode()), b"labels": integers(labels),
            b"data": array(pixels.tobytes(), N, 3072),
            b"filenames": b"](" + N * short(b"a.png") + b"e"}


def binary(pixels, labels):
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(pixels, labels))


def write_pickles(folder, **other):
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        (folder / file).write_bytes(other.get(file, program(entries(file))))


def write_binary(folder, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        (folder / f"{file}.bin").write_bytes(binary(*images(file, seed)))


@pytest.fixture
def small(monkeypatch):
    """Let the reader expect N images a file."""
    monkeypatch.setattr(cifar, "IMAGES", N)


def assert_holds(data, seed=0):
    for x, y, files in ((data.x_train, data.y_train, TRAIN),
                        (data.x_test, data.y_test, ["test_batch"])):
        pairs = [images(file, seed) for file in files]
        expected = np.concatenate([pixels for pixels, _ in pairs])
        assert (x.dtype, y.dtype) == (np.uint8, np.int64)
        assert x.tolist() == expected.reshape(-1, 3, 32, 32).tolist()
        assert y.tolist() == sum((labels for _, labels in pairs), [])


# ----- what is read ---------------------------------------------------------------------------

def test_python_itself_reads_the_small_files_as_they_are_meant():
    batch = pickle.loads(program(entries("data_batch_2")), encoding="bytes")
    pixels, labels = images("data_batch_2")
    assert batch[b"data"].tolist() == pixels.tolist() and batch[b"data"].dtype == np.uint8
    assert batch[b"labels"] == labels and batch[b"batch_label"] == b"training batch 2 of 5"


@pytest.mark.parametrize("below", ["cifar-10-batches-py", "."])
def test_the_batches_for_python_are_found_below_the_folder_or_in_it(tmp_path, small, below):
    write_pickles(tmp_path / below)
    data = load("cifar10", tmp_path)
    assert_holds(data)
    assert (data.name, data.classes, data.image) == ("cifar10", 10, (3, 32, 32))
    assert data.preprocessing == ("(pixel / 255 - mean) / std by channel, mean (0.485, 0.456, "
                                  "0.406), std (0.229, 0.224, 0.225)")


@pytest.mark.parametrize("below", ["cifar-10-batches-bin", "."])
def test_the_binary_version_is_found_below_the_folder_or_in_it(tmp_path, small, below,
                                                               monkeypatch):
    write_binary(tmp_path / below)
    monkeypatch.setenv("LCREF_DATA", str(tmp_path))
    assert_holds(load("cifar10"))


def test_the_batches_for_python_come_before_the_binary_version_where_they_are_complete(
        tmp_path, small):
    write_binary(tmp_path / "cifar-10-batches-bin", seed=1)
    write_pickles(tmp_path / "cifar-10-batches-py")
    assert_holds(load("cifar10", tmp_path), seed=0)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    assert_holds(load("cifar10", tmp_path), seed=1)


def test_a_folder_without_cifar10_is_an_error_that_says_what_to_do(tmp_path, small, monkeypatch):
    write_pickles(tmp_path)
    (tmp_path / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError) as error:
        load("cifar10", tmp_path)
    message = str(error.value)
    assert message.startswith(f"no data_batch_4 in {tmp_path} (")
    for word in ("cifar-10-batches-bin", "data_batch_1.bin", "--data-dir", "LCREF_DATA"):
        assert word in message
    says = "no data_batch_1, .*, test_batch in .*nowhere.cifar-10-batches-py "
    with pytest.raises(FileNotFoundError, match=says):
        load("cifar10", tmp_path / "nowhere")
    monkeypatch.delenv("LCREF_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="CIFAR-10 is not bundled: .*LCREF_DATA"):
        load("cifar10")


# ----- what is refused ------------------------------------------------------------------------

def refused(tmp_path, content, says):
    write_pickles(tmp_path, data_batch_3=content)
    with pytest.raises(ValueError, match=says) as error:
        load("cifar10", tmp_path)
    message = str(error.value)
    assert str(tmp_path / "data_batch_3") in message and "cifar-10-python.tar.gz" in message
    assert len(message) < 600


def changed(**other):
    return program(entries("data_batch_3") | {key.encode(): v for key, v in other.items()})


PIXELS = images("data_batch_3")[0].tobytes()


@pytest.mark.parametrize("content, says", [
    (b"", "truncated"),
    (b"<!DOCTYPE html><html>", "no batch of CIFAR-10"),
    (changed() + b"\0", "1 bytes follow its end"),
    (changed(labels=integers([1, 10, 2])), "label 1 is 10, not one of 0 to 9"),
    (changed(labels=b"](K\1K\2" + whole(-1) + b"e"), "label 2 is -1"),
    (changed(labels=b"](K\1K\2\x89e"), "label 2 is False"),
    (changed(labels=b"](K\1K\2" + short(b"7") + b"e"), "label 2 is b'7'"),
    (changed(labels=integers([1, 2])), "labels are no list of 3"),
    (changed(labels=short(b"\1\2\3")), "labels are no list of 3"),
    (changed(batch_label=short(b"training batch 4 of 5")), "training batch 4 of 5.*not b'training "
     "batch 3 of 5'"),
    (changed(fine_labels=integers([1, 2, 3])), "fine_labels.*, not a dict of"),
    (program({b"data": entries("data_batch_3")[b"data"]}), r"a dict of \[b'data'\]"),
    (b"\x80\2" + integers([1, 2]) + b".", "it holds a list, not a dict"),
    (changed(data=short(b"abc")), "no array of 3 × 3072 bytes"),
    (changed(data=array(PIXELS[:-3], 3, 3071)), r"shape \(3, 3071\), not \(3, 3072\)"),
    (changed(data=array(PIXELS[:-3072], 2, 3072)), r"shape \(2, 3072\)"),
    (changed(data=array(PIXELS[:-1], 3, 3072)), "cannot reshape array of size 9215"),
    (changed(data=array(PIXELS, 3, 3072, order=b"K\1")), "not that of pixels"),
    (changed(data=array(PIXELS, 3, 3072, dtype=UINT8.replace(b"u1", b"i1"))), "'i1'.*not uint8"),
    (changed(data=array(PIXELS, 3, 3072, dtype=UINT8.replace(b"u1", b"O8"))), "'O8'.*not uint8"),
    (changed(data=array(PIXELS, 3, 3072, dtype=UINT8.replace(b"|", b">"))), "its dtype has"),
    (changed(data=array(PIXELS, 3, 3072, dtype=short(b"u1"))), "not that of pixels"),
    (changed(data=RECONSTRUCT + NDARRAY + b"K\0\x85" + short(b"b") + b"\x87R"), "no array of 3"),
    (changed(data=RECONSTRUCT + NDARRAY + b"K\5\x85" + short(b"b") + b"\x87R"), "array of .*5,"),
    (changed(data=NDARRAY + b"K\5\x85R"), "not callable"),
    (changed(data=RECONSTRUCT + b"}b"), "__setstate__"),
    (changed(data=short(b"x") + b"r\xff\xff\xff\x7f"), "memo of 2147483647 entries"),
    (changed(data=b"K\0" + b"\x85" * 100_000), "TUPLE1, which these files do not have there"),
])
def test_a_damaged_or_other_pickle_is_an_error_that_names_it(tmp_path, small, content, says):
    refused(tmp_path, content, says)


def test_a_file_of_another_number_of_images_than_10000_is_refused(tmp_path):
    write_pickles(tmp_path)
    with pytest.raises(ValueError, match=r"data_batch_1 .*not \(10000, 3072\)"):
        load("cifar10", tmp_path)


class Touch:
    """Unpickled, it would make the file `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("whole_file", [True, False])
def test_no_function_that_a_pickle_names_is_called(tmp_path, small, protocol, whole_file):
    attack = pickle.dumps(Touch(tmp_path / "done"), protocol)
    pickle.loads(attack)                                # it works,
    (tmp_path / "done").rmdir()
    start = 2 if protocol >= 2 else 0                   # PROTO
    refused(tmp_path, attack if whole_file else changed(data=attack[start:-1]), "data_batch_3")
    assert not (tmp_path / "done").exists()             # but not here


@pytest.mark.parametrize("attack", [
    name("os", "system") + b"(" + short(b"exit 1") + b"tR",
    name("posix", "system") + b"(" + short(b"exit 1") + b"tR",
    name("builtins", "eval") + b"(" + short(b"1/0") + b"tR",
    name("__builtin__", "eval") + b"(" + short(b"1/0") + b"tR",
    name("numpy", "load"), name("numpy.core.multiarray", "scalar"),
    name("numpy", "ndarray.tofile"), name("numpy._core.multiarray", "_reconstruct"),
])
def test_a_name_that_the_published_files_do_not_hold_is_refused(tmp_path, small, attack):
    refused(tmp_path, changed(data=attack), "it asks for .*do not trust it")


@pytest.mark.parametrize("attack, instruction", [
    (b"(" + short(b"exit 1") + b"ios\nsystem\n", "INST"),
    (b"(" + name("os", "system") + short(b"exit 1") + b"o", "OBJ"),
    (short(b"os") + short(b"system") + b"\x93(" + short(b"exit 1") + b"tR", "STACK_GLOBAL"),
    (NDARRAY + b")\x81", "EMPTY_TUPLE"), (NDARRAY + b"(t\x81", "NEWOBJ"),
    (b"\x82\1", "EXT1"), (b"Pabc\n", "PERSID"), (short(b"a") + b"Q", "BINPERSID"),
    (b"\x97", "NEXT_BUFFER"), (b"V1\n", "UNICODE"), (b"G" + bytes(8), "BINFLOAT"),
])
def test_an_instruction_that_the_published_files_do_not_have_is_refused(
        tmp_path, small, attack, instruction):
    refused(tmp_path, changed(data=attack), f"the pickle instruction {instruction},")


@pytest.mark.parametrize("attack", [
    b"(" + short(b"exit 1") + b"ios\nsystem\n.",
    b"(" + name("os", "system") + short(b"exit 1") + b"o.",
    b"\x80\4\x8c\2os\x8c\6system\x93(" + short(b"exit 1") + b"tR.",
])
def test_the_unpickler_refuses_a_name_however_it_is_asked_for(attack):
    with pytest.raises(pickle.UnpicklingError, match="os.system"):
        cifar._Unpickler(io.BytesIO(attack), encoding="bytes").load()


def test_a_pickle_cut_anywhere_is_refused(tmp_path, small):
    content, path = changed(), tmp_path / "data_batch_3"
    cuts = {*range(0, len(content), 97), *range(200), *range(len(content) - 200, len(content))}
    for end in sorted(cuts & set(range(len(content)))):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="data_batch_3 is truncated"):
            cifar._read_pickle(path)


def test_a_pickle_with_changed_bytes_is_read_as_pixels_and_labels_or_refused(tmp_path, small):
    content, path = changed(), tmp_path / "data_batch_3"
    structure = [i for i in range(len(content)) if not 600 < i < len(content) - 200]
    rng, outcomes = np.random.default_rng(0), set()
    for _ in range(2000):
        other = bytearray(content)
        for i in rng.choice(structure, rng.integers(1, 4)):
            other[i] = rng.integers(256)
        path.write_bytes(other)
        try:
            pixels, labels = cifar._read_pickle(path)
        except ValueError as error:
            outcomes.add(str(path) in str(error))
        else:
            outcomes.add((pixels.shape, pixels.dtype, set(labels) <= set(range(10))))
    assert outcomes == {True, ((N, 3072), np.dtype(np.uint8), True)}


@pytest.mark.parametrize("change, says", [
    (lambda content: content[:-1], "truncated or damaged: it has 9218 bytes, 3 images have 9219"),
    (lambda content: content + b"\0", "it has 9220 bytes"),
    (lambda content: b"", "it has 0 bytes"),
    (lambda content: content[:3073] + b"\n" + content[3074:], "label 1 is 10, not one of 0 to 9"),
])
def test_a_damaged_binary_file_is_an_error_that_names_it(tmp_path, small, change, says):
    write_binary(tmp_path)
    path = tmp_path / "data_batch_5.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=says) as error:
        load("cifar10", tmp_path)
    assert str(path) in str(error.value) and "cifar-10-binary.tar.gz" in str(error.value)


# ----- the published files --------------------------------------------------------------------

def published(file):
    """What one of the files holds, by Python's own unpickler."""
    content = (CIFAR / file).read_bytes()
    return hashlib.md5(content).hexdigest(), pickle.loads(content, encoding="bytes")


@pytest.fixture(scope="module")
def cifar10():
    return load("cifar10")


@real
def test_cifar10_is_what_pickle_reads_from_the_published_files(cifar10):
    md5 = {"data_batch_1": "c99cafc152244af753f735de768cd75f",
           "test_batch": "40351d587109b95175f43aff81a1287e"}
    assert cifar10.x_train.shape == (50000, 3, 32, 32) and cifar10.x_train.dtype == np.uint8
    assert cifar10.x_test.shape == (10000, 3, 32, 32) and cifar10.x_test.dtype == np.uint8
    for i, file in enumerate(FILES):
        digest, batch = published(file)
        assert digest == md5.get(file, digest)
        x, y = ((cifar10.x_test, cifar10.y_test) if file == "test_batch" else
                (part[10000 * i:10000 * (i + 1)] for part in (cifar10.x_train, cifar10.y_train)))
        assert x.tobytes() == batch[b"data"].tobytes()
        assert y.dtype == np.int64 and y.tolist() == batch[b"labels"]


@real
def test_cifar10_has_5000_training_and_1000_test_images_of_each_class(cifar10):
    assert [np.sum(cifar10.y_train == label) for label in range(10)] == [5000] * 10
    assert [np.sum(cifar10.y_test == label) for label in range(10)] == [1000] * 10


@real
def test_cifar10_has_its_published_means_and_deviations_in_red_green_and_blue(cifar10):
    # 0.4914, 0.4822, 0.4465 and 0.2470, 0.2435, 0.2616 in the literature
    counts = [np.bincount(cifar10.x_train[:, c].ravel(), minlength=256) for c in range(3)]
    values = np.arange(256) / 255
    mean = np.array([count @ values / count.sum() for count in counts])
    var = np.array([count @ (values - m) ** 2 / count.sum() for count, m in zip(counts, mean)])
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], rtol=0, atol=6e-5)
    np.testing.assert_allclose(np.sqrt(var), [0.2470, 0.2435, 0.2616], rtol=0, atol=6e-5)
    assert cifar10.x_train[0, :, 0, 0].tolist() == [59, 62, 63]


@real
def test_the_binary_version_of_the_published_files_is_the_same(cifar10, tmp_path):
    try:
        for file in FILES:
            batch = published(file)[1]
            records = np.column_stack([np.array(batch[b"labels"], np.uint8), batch[b"data"]])
            (tmp_path / f"{file}.bin").write_bytes(records.tobytes())
        data = load("cifar10", tmp_path)
    finally:        # 180 MB
        for path in tmp_path.iterdir():
            path.unlink()
    for part in ("x_train", "y_train", "x_test", "y_test"):
        assert np.array_equal(getattr(data, part), getattr(cifar10, part))

"""CIFAR-10: the batches for Python, which are pickles, and the binary version.

A pickle is a program, and it can call any function there is. These are run by an unpickler that
knows the instructions and the three names that the published files hold, and puts stand-ins in
the place of NumPy's own: a stand-in takes the arguments that the files give it and no others.
"""
import io
import math
import pickle
import pickletools

import numpy as np
from array_api_compat import array_namespace

from .dataset import FIX, Dataset, data_folder
from .images import MEAN, STD, flipped_and_cropped, normalised

__all__ = ["load_cifar10"]

IMAGES, IMAGE = 10_000, (3, 32, 32)     # images in each of the six files, shape of one
VALUES = math.prod(IMAGE)

# The instructions of the published files: four come 30,000 times in each, the rest 71 times.
FREQUENT = frozenset("BININT1 SHORT_BINSTRING BINPUT LONG_BINPUT".split())
RARE = frozenset("PROTO GLOBAL MARK EMPTY_DICT EMPTY_LIST TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWFALSE "
                 "BININT BININT2 BINSTRING APPENDS SETITEMS REDUCE BUILD STOP".split())
MANY = 200          # rare instructions: so few cannot nest deep
MEMO = 1 << 16      # entries of the memo, of which the files use about 10,000
KEYS = {b"batch_label", b"labels", b"data", b"filenames"}


def load_cifar10(data_dir):
    """Return CIFAR-10 as bytes, from the first complete set of files there is."""
    paths, read = _find(data_folder("CIFAR-10", data_dir))
    n = len(paths) * IMAGES
    pixels, y = np.empty((n, VALUES), np.uint8), np.empty(n, np.int64)
    for i, path in enumerate(paths):
        rows = slice(i * IMAGES, (i + 1) * IMAGES)
        pixels[rows], y[rows] = read(path)
    x = pixels.reshape(n, *IMAGE)
    return Dataset("cifar10", x[:-IMAGES], y[:-IMAGES], x[-IMAGES:], y[-IMAGES:], classes=10,
                   preprocessing=f"(pixel / 255 - mean) / std by channel, mean {MEAN}, std {STD}",
                   image=IMAGE, prepare=prepare, augment=augment)


def prepare(x):
    """Return (x / 255 − mean) / std as float32, in x's shape: (n, 3, 32, 32), or flattened."""
    xp = array_namespace(x)
    return xp.reshape(normalised(xp.reshape(x, (-1, *IMAGE)), MEAN, STD), x.shape)


def augment(x, rng):
    """Return `prepare` of images mirrored or not and moved by up to 4 pixels, in x's shape."""
    xp = array_namespace(x)
    changed = flipped_and_cropped(xp.reshape(x, (-1, *IMAGE)), rng)
    return xp.reshape(prepare(changed), x.shape)


def _find(root):
    """Return the paths of the six files, and the function that reads one of them."""
    choices = [([folder / f"{name}{ending}" for name in LABELS], read)
               for below, ending, read in LAYOUTS for folder in (root / below, root)]
    missing = [[path for path in paths if not path.is_file()] for paths, _ in choices]
    best = min(range(len(choices)), key=lambda i: len(missing[i]))      # the first of equals
    if missing[best]:
        raise FileNotFoundError(
            f"no {', '.join(path.name for path in missing[best])} in {missing[best][0].parent} "
            f"(looked in {root} too, and there and in {root / LAYOUTS[1][0]} for the binary "
            f"version, data_batch_1.bin and so on): {FIX}")
    return choices[best]


# ----- the binary version --------------------------------------------------------------------

def _read_binary(path):
    """Return (pixels, labels) of a file of records: a byte for the label, 3072 for the image."""
    found, size = path.stat().st_size, IMAGES * (1 + VALUES)
    fix = "extract cifar-10-binary.tar.gz anew"
    if found != size:
        raise ValueError(f"{path} is truncated or damaged: it has {found} bytes, {IMAGES} images "
                         f"have {size}; {fix}")
    records = np.frombuffer(path.read_bytes(), np.uint8).reshape(IMAGES, 1 + VALUES)
    if records[:, 0].max() > 9:
        i = int(np.argmax(records[:, 0] > 9))
        raise ValueError(f"{path}: label {i} is {records[i, 0]}, not one of 0 to 9; {fix}")
    return records[:, 1:], records[:, 0]


# ----- the batches for Python ----------------------------------------------------------------

def _read_pickle(path):
    """Return (pixels, labels) of a pickled dict."""
    content = path.read_bytes()
    try:
        _check_opcodes(content)
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        return _contents(batch, LABELS[path.name])
    except Exception as error:      # damaged bytes make pickle raise almost anything
        raise ValueError(f"{path} is truncated or no batch of CIFAR-10: {error}; extract "
                         f"cifar-10-python.tar.gz anew") from error


def _check_opcodes(content):
    """Raise unless the program has only instructions that the published files have."""
    stream, rare = io.BytesIO(content), 0
    for opcode, argument, position in pickletools.genops(stream):
        rare += opcode.name in RARE
        if opcode.name not in RARE | FREQUENT or rare > MANY:
            raise ValueError(f"its byte {position} is the pickle instruction {opcode.name}, "
                             f"which these files do not have there")
        if opcode.name == "LONG_BINPUT" and (argument or 0) >= MEMO:
            raise ValueError(f"its byte {position} asks for a memo of {argument} entries")
    rest = len(content) - stream.tell()
    if rest:
        raise ValueError(f"{rest} bytes follow its end")


class _ByteType:
    """Stand-in for numpy.dtype, which the files call to make the dtype uint8."""

    __slots__ = ()

    def __init__(self, *arguments):
        if arguments != (b"u1", 0, 1):
            raise pickle.UnpicklingError(f"its array has the dtype {arguments!r:.60}, not uint8")

    def __setstate__(self, state):
        if state != (3, b"|", None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError(f"its dtype has the state {state!r:.60}")


class _Pixels:
    """Stand-in for the array that numpy.core.multiarray._reconstruct would make."""

    __slots__ = ("values",)

    def __init__(self, *arguments):
        if arguments != ("numpy.ndarray", (0,), b"b"):
            raise pickle.UnpicklingError(f"it makes an array of {arguments!r:.60}")
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state):
        version, shape, dtype, fortran_order, content = state
        if (version, type(dtype), fortran_order) != (1, _ByteType, False):
            raise pickle.UnpicklingError("its array has a state that is not that of pixels")
        if shape != (IMAGES, VALUES) or type(content) is not bytes:
            raise pickle.UnpicklingError(f"its array has the shape {shape!r:.60}, not "
                                         f"{(IMAGES, VALUES)}")
        self.values = np.frombuffer(content, np.uint8).reshape(shape)


class _Unpickler(pickle.Unpickler):
    """Unpickler for which no function exists but the stand-ins."""

    NAMES = {("numpy.core.multiarray", "_reconstruct"): _Pixels, ("numpy", "dtype"): _ByteType,
             ("numpy", "ndarray"): "numpy.ndarray"}     # an argument only: it is never called

    def find_class(self, module, name):
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which these files do not "
                                         f"have: do not trust it")
        return self.NAMES[module, name]


def _contents(batch, label):
    """Return (pixels, labels) of what was unpickled, or raise ValueError saying what it is."""
    if type(batch) is not dict or batch.keys() != KEYS:
        found = f"a dict of {list(batch)}" if type(batch) is dict else f"a {type(batch).__name__}"
        raise ValueError(f"it holds {found:.200}, not a dict of {sorted(KEYS)}")
    if batch[b"batch_label"] != label:
        raise ValueError(f"it calls itself {batch[b'batch_label']!r:.60}, not {label!r}")
    pixels, labels = batch[b"data"], batch[b"labels"]
    if type(pixels) is not _Pixels or len(pixels.values) != IMAGES:
        raise ValueError(f"its data are no array of {IMAGES} × {VALUES} bytes")
    if type(labels) is not list or len(labels) != IMAGES:
        raise ValueError(f"its labels are no list of {IMAGES}")
    for i, value in enumerate(labels):
        if type(value) is not int or not 0 <= value <= 9:
            raise ValueError(f"label {i} is {value!r:.60}, not one of 0 to 9")
    return pixels.values, labels


LABELS = {**{f"data_batch_{i}": b"training batch %d of 5" % i for i in range(1, 6)},
          "test_batch": b"testing batch 1 of 1"}
LAYOUTS = (("cifar-10-batches-py", "", _read_pickle),
           ("cifar-10-batches-bin", ".bin", _read_binary))

"""MNIST and Fashion-MNIST: files in the IDX format, gzipped or not."""
import gzip
import itertools
import math
import zlib

import numpy as np

from .dataset import FIX, Dataset, data_folder

__all__ = ["load_mnist", "load_fashion_mnist"]

CHUNK, LARGEST = 1 << 20, 1 << 28   # bytes read at a time, and at most: MNIST has 47 million
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049     # 0x803: bytes, 3 axes; 0x801: bytes, 1 axis
IDX_FILES = {
    "x_train": ("train-images", IMAGES_MAGIC), "y_train": ("train-labels", LABELS_MAGIC),
    "x_test": ("t10k-images", IMAGES_MAGIC), "y_test": ("t10k-labels", LABELS_MAGIC),
}


def load_mnist(data_dir):
    """Return MNIST, from the folder MNIST/raw below data_dir or from data_dir itself."""
    root = data_folder("MNIST", data_dir)
    return _load("mnist", [root / "MNIST" / "raw", root])


def load_fashion_mnist(data_dir):
    """Return Fashion-MNIST, from FashionMNIST/raw or fashion-mnist below data_dir.

    Its files are called what those of MNIST are called, so no other folder is looked at.
    """
    root = data_folder("Fashion-MNIST", data_dir)
    return _load("fashion-mnist", [root / "FashionMNIST" / "raw", root / "fashion-mnist"])


def centred(name, x_train, y_train, x_test, y_test, *, scale):
    """Return the Dataset with x = pixels / scale − mean, flattened, from grey images of bytes."""
    mean = (x_train.mean(axis=0, dtype=np.float64) / scale).astype(np.float32)

    def prepared(pixels):
        x = pixels.astype(np.float32)
        x /= scale
        x -= mean
        return x.reshape(len(x), -1)

    return Dataset(name, prepared(x_train), y_train.astype(np.int64),
                   prepared(x_test), y_test.astype(np.int64), classes=10,
                   preprocessing=f"pixel / {scale} minus the mean training image",
                   image=(1, *x_train.shape[1:]))


def _load(name, folders):
    paths = _find(folders)
    arrays = {key: _read_idx(paths[key], magic) for key, (_, magic) in IDX_FILES.items()}
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if len(x) != len(y):
            raise ValueError(f"{paths[f'x_{part}']} holds {len(x)} images, "
                             f"{paths[f'y_{part}']} {len(y)} labels")
        if y.max() > 9:
            raise ValueError(f"{paths[f'y_{part}']} holds the label {y.max()}, the largest is 9")
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        sizes = [" × ".join(map(str, arrays[key].shape[1:])) for key in ("x_train", "x_test")]
        raise ValueError(f"{paths['x_train']} holds images of {sizes[0]} pixels, "
                         f"{paths['x_test']} of {sizes[1]}")
    return centred(name, **arrays, scale=255)


def _find(folders):
    """Return the paths of the four files by their key in IDX_FILES, from the two folders."""
    paths, missing = {}, []
    for key, (stem, magic) in IDX_FILES.items():
        names = [f"{stem}{separator}idx{magic % 256}-ubyte{ending}"
                 for separator in "-." for ending in ("", ".gz")]
        found = [path for folder in folders for file in names if (path := folder / file).is_file()]
        if found:
            paths[key] = found[0]
        else:
            missing.append(names[0])
    if missing:
        raise FileNotFoundError(f"no {', '.join(missing)} in {folders[1]} or {folders[0]} (looked "
                                f"for .idx instead of -idx and a .gz ending too): {FIX}")
    return paths


def _read_idx(path, magic):
    """Return the array of bytes in an IDX file: magic, the length of each axis, the data."""
    content = _read_bytes(path)
    axes = magic % 256
    offset = 4 * (1 + axes)
    if len(content) < offset:
        raise ValueError(f"{path} is truncated: {len(content)} bytes, its header has {offset}")
    found, *shape = (int(field) for field in np.frombuffer(content, ">u4", 1 + axes))
    if found != magic:
        raise ValueError(f"{path} is not the IDX file it should be: it starts with the number "
                         f"{found}, not {magic}")
    size = math.prod(shape)
    if size == 0 or len(content) - offset != size:
        raise ValueError(f"{path} is truncated or damaged: its header says "
                         f"{' × '.join(map(str, shape))} bytes of data, "
                         f"{len(content) - offset} follow")
    return np.frombuffer(content, np.uint8, offset=offset).reshape(shape)


def _read_bytes(path):
    """The content of a file, or as much of it as is surely too much."""
    gzipped = path.suffix == ".gz"
    try:
        with (gzip.open if gzipped else open)(path, "rb") as f:
            chunks = iter(lambda: f.read(CHUNK), b"")
            return b"".join(itertools.islice(chunks, LARGEST // CHUNK))
    except (EOFError, OSError, zlib.error) as error:
        if not gzipped:
            raise
        raise ValueError(f"{path} is truncated or no gzip file: {error}") from error

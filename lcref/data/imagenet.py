"""ImageNet, or any other folder of images by class: read when their batch is needed.

1,281,167 images of 227 × 227 pixels are 198 GB, so a data set of them holds the names of their
files, and `prepare` makes images of those.
"""
import os
from functools import partial

import numpy as np

from ..blocks import in_blocks
from .dataset import FIX, Dataset, data_folder
from .images import MEAN, STD, normalised

__all__ = ["load_imagenet"]

SIDE, CROP = 256, 227       # of the shorter side of an image, and of what a net is fed
ENDINGS = (".jpeg", ".jpg", ".png")


def load_imagenet(data_dir):
    """Return the images in the folders of a training and a test set, by the names of their files.

    x holds, in each row, the path of a file below the folder as bytes, padded with 0.
    """
    given = data_folder("ImageNet", data_dir)
    root = next((folder for folder in (given / "imagenet", given)
                 if (folder / "train").is_dir() and (folder / "val").is_dir()), None)
    if root is None:
        raise FileNotFoundError(f"no folders train and val, with a folder of images a class, in "
                                f"{given / 'imagenet'} or {given}: {FIX}")
    classes = _classes(root)
    train, y_train = _listed(root, "train", classes)
    val, y_val = _listed(root, "val", classes)
    names = np.array(train + val)                                           # (n,), padded with 0
    x = names.view(np.uint8).reshape(len(names), names.itemsize)            # (n, bytes)
    return Dataset("imagenet", x[:len(train)], y_train, x[len(train):], y_val, len(classes),
                   preprocessing=f"shorter side {SIDE} pixels (bilinear), central {CROP} × {CROP}, "
                   f"(pixel / 255 - mean) / std by channel, mean {MEAN}, std {STD}",
                   image=(3, CROP, CROP), prepare=partial(_central, root),
                   augment=partial(_anywhere, root))


def _classes(root):
    """The names of the classes: those of the folders in train, which val must have too."""
    train, val = ({entry.name for entry in os.scandir(root / part) if entry.is_dir()}
                  for part in ("train", "val"))
    for part, missing in (("val", train - val), ("train", val - train)):
        if missing:
            raise ValueError(f"{root / part} has no folder {min(missing)}, which the other of "
                             f"train and val has ({len(missing)} such classes)")
    if not train:
        raise ValueError(f"{root / 'train'} holds no folder: each class has one, with its images")
    return sorted(train)


def _listed(root, part, classes):
    """The paths of the images of a set, by class, and their labels."""
    files = [_images(root / part / name) for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in files])
    return [os.fsencode(f"{part}/{name}/{file}") for name, found in zip(classes, files)
            for file in found], labels


def _images(folder):
    """The names of the images in the folder of a class."""
    files = sorted(entry.name for entry in os.scandir(folder)
                   if entry.name.lower().endswith(ENDINGS))
    if not files:
        raise ValueError(f"{folder} holds no image: no file ends in {', '.join(ENDINGS)}")
    return files


def _central(root, x):
    """Return the central part of each image, normalised, as float32 (n, 3, CROP, CROP)."""
    return normalised(_cut(root, x), MEAN, STD)


def _anywhere(root, x, rng):
    """Return a random part of each image, mirrored or not, normalised.

    rng draws random((n, 2)), the row and the column where the part begins, as shares of what there
    is, then random(n): under 1/2 the part is mirrored. As Krizhevsky, Sutskever and Hinton, NIPS
    2012, section 4.1, but that theirs have 224 pixels a side, and ours the 227 that the first layer
    of the net takes. Their change of the colours is left out.
    """
    pixels = _cut(root, x, rng.random((len(x), 2)))
    mirror = rng.random(len(x)) < 0.5
    pixels[mirror] = pixels[mirror, :, :, ::-1]
    return normalised(pixels, MEAN, STD)


def _cut(root, x, places=None):
    """The bytes (n, 3, CROP, CROP) of a part of each image that rows of x name."""
    pixels = np.empty((len(x), 3, CROP, CROP), np.uint8)

    def fill(block):
        for i in range(block.start, block.stop):
            image = _resized(os.path.join(root, os.fsdecode(x[i].tobytes().rstrip(b"\0"))))
            room = np.subtract(image.shape[:2], CROP)
            top, left = room // 2 if places is None else (places[i] * (room + 1)).astype(int)
            pixels[i] = np.moveaxis(image[top:top + CROP, left:left + CROP], 2, 0)

    in_blocks(fill, len(x), 3 * CROP * CROP)    # Pillow's decoders let other threads run
    return pixels


def _resized(file):
    """The pixels of an image in red, green and blue, (height, width, 3), its shorter side SIDE."""
    from PIL import Image       # here, so that `import lcref` does not wait for it

    try:
        with Image.open(file) as image:
            width, height = image.size
            size = (SIDE, SIDE * height // width) if width <= height else (
                SIDE * width // height, SIDE)
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    except Exception as error:      # a damaged file makes a decoder raise almost anything
        raise ValueError(f"{file} is damaged or no image: {error}") from error

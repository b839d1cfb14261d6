"""Published weights on the published test sets: the very images they misclassify, counted."""
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from lcref.nets import build, evaluate

pytestmark = [pytest.mark.skipif("LCREF_DATA" not in os.environ,
                                 reason="needs CIFAR-10 and weights: set LCREF_DATA")]
MEAN, STD = (np.array(v)[:, None, None] for v in ((.485, .456, .406), (.229, .224, .225)))


def file(*names):
    path = Path(os.environ["LCREF_DATA"], *names)
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


def prepare(pixels):
    return ((pixels / 255 - MEAN) / STD).astype(np.float32)


@pytest.mark.parametrize("depth, wrong", [
    (20, 827), pytest.param(32, 737, marks=pytest.mark.long)])
def test_the_reference_resnets_misclassify_827_and_737_of_10000_cifar_images(depth, wrong):
    weights = file("weights", f"resnet{depth}_cifar10.npz")
    with file("cifar-10-batches-py", "test_batch").open("rb") as stream:
        batch = pickle.load(stream, encoding="bytes")
    x, labels = batch[b"data"].reshape(-1, 3, 32, 32), np.array(batch[b"labels"])
    assert x.shape == (10_000, 3, 32, 32)
    net = build(f"resnet{depth}", (3, 32, 32), 10)
    with np.load(weights) as archive:
        params = {name: archive[name] for name in archive.files if name in net.shapes}
    net.check(params)
    assert evaluate(net, params, x, labels, 250, prepare)["error"] == wrong / 100

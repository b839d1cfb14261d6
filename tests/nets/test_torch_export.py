"""Exported weights in PyTorch: the same net has the same error there."""
import os
from pathlib import Path

import numpy as np
import pytest

from lcref import cli, data, lc, nets, parse_task, storage

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install lcref[peers]")
test_torch_nets = pytest.importorskip("test_torch_nets")


def exported(file, kind, tmp_path):
    """The state dict of what lcref export writes."""
    out = tmp_path / f"weights.{kind}"
    assert cli.main(["export", str(file), "--to", kind, "--out", str(out), "--quiet"]) == 0
    if kind == "safetensors":
        from safetensors.torch import load_file
        return load_file(out)
    with np.load(out, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def packed(net, params, text, tmp_path, about=None, names=None):
    """A packed file of a net that was compressed directly."""
    tasks = [parse_task(f"{', '.join(names or net.weights)}: {text}")]
    thetas, _ = lc.direct_compression(params, tasks)
    file = tmp_path / "model.npz"
    file.write_bytes(storage.pack(params, tasks, thetas, about))
    return file


def misclassified(module, state, x, labels):
    """How many inputs PyTorch's module with these weights gets wrong."""
    module.load_state_dict(state, strict=True)
    with torch.no_grad():
        logits = torch.cat([module.eval()(torch.from_numpy(x[i:i + 250]))
                            for i in range(0, len(x), 250)]).numpy()
    return int(np.sum(np.argmax(logits, axis=1) != labels))


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize("name", ["lenet5", "resnet20", "vgg16", "nin"])
def test_an_exported_net_classifies_as_it_does_in_lcref(name, kind, tmp_path):
    net, module, _ = test_torch_nets.NETS[name]
    rng = np.random.default_rng(0)
    params = net.init(rng)
    text = "each(binary(scale=True)) + prune(keep=0.03, storage='float16')"
    file = packed(net, params, text, tmp_path, names=net.weights[-4:])
    x = rng.normal(size=(20, *net.input_shape)).astype(np.float32)
    logits = net.apply(nets.read_params(file, net), x)
    best = np.sort(logits, axis=1)
    clear = best[:, -1] - best[:, -2] > 1e-3 * np.abs(logits).max()     # of a tie by rounding
    assert clear.sum() >= 10
    wrong = misclassified(module(), exported(file, kind, tmp_path), x[clear],
                          np.argmax(logits, axis=1)[clear])
    assert wrong == 0


@pytest.mark.skipif("LCREF_DATA" not in os.environ,
                    reason="needs CIFAR-10 and weights: set LCREF_DATA")
def test_the_published_resnet20_compressed_and_exported_has_its_error_in_pytorch(tmp_path):
    """The error of every fourth test image; at most one is on the edge of two classes."""
    weights = Path(os.environ["LCREF_DATA"], "weights", "resnet20_cifar10.npz")
    if not weights.exists():
        pytest.skip(f"needs {weights}")
    net, module, _ = test_torch_nets.NETS["resnet20"]
    images = data.load("cifar10")
    x, labels = images.prepare(images.x_test[::4]), images.y_test[::4]
    file = packed(net, nets.read_params(weights, net),
                  "each(quantize(k=8)) + prune(keep=0.05, storage='float16')", tmp_path)
    error = nets.evaluate(net, nets.read_params(file, net), x, labels, batch=250)["error"]
    assert 8 < error < 30
    wrong = misclassified(module(), exported(file, "safetensors", tmp_path), x, labels)
    assert abs(wrong - error / 100 * len(labels)) <= 1.01

"""The nets once more, forward only, from their papers: NumPy arrays, channels first, no blocks.

They share nothing with what is tested. A convolution is a product of all windows with the
weights; in training, batch normalisation takes the statistics of its batch and writes the running
ones down, and dropout draws its masks from a generator.
"""
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def windows(x, kernel, stride, padding, fill=0.0):
    """(n, channels, rows, columns, kernel height, kernel width)"""
    frame = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
    framed = np.pad(x, frame, constant_values=fill)
    return sliding_window_view(framed, kernel, axis=(2, 3))[:, :, ::stride, ::stride]


def convolution(x, w, b, stride=1, padding=0):
    y = np.einsum("ncijkl,ockl->noij", windows(x, w.shape[2:], stride, padding), w, optimize=True)
    return y if b is None else y + b[:, None, None]


def maximum(x, size, stride, padding=0):
    return windows(x, (size, size), stride, padding, -np.inf).max(axis=(4, 5))


def mean(x, size, stride, padding=0):
    return windows(x, (size, size), stride, padding).mean(axis=(4, 5))


def response_norm(x):
    """AlexNet's: five neighbouring channels, k = 2, α = 1e-4, β = 0.75."""
    framed = np.pad(x * x, [(0, 0), (2, 2), (0, 0), (0, 0)])
    return x / (2 + 1e-4 * sum(framed[:, i:i + x.shape[1]] for i in range(5))) ** 0.75


def positive(x):
    return np.where(x > 0, x, 0)


class Forward:
    """A net's parameters p, and its rng where it is in training, None in evaluation."""

    def __init__(self, params, training=False, rng=None):
        self.p, self.training, self.rng, self.statistics = params, training, rng, {}

    def conv(self, name, x, stride=1, padding=0):
        return convolution(x, self.p[f"{name}.weight"], self.p.get(f"{name}.bias"), stride,
                           padding)

    def fc(self, name, x):
        return np.einsum("ni,oi->no", x, self.p[f"{name}.weight"]) + self.p[f"{name}.bias"]

    def norm(self, name, x):
        gamma, beta, m, v = (self.p[f"{name}.{kind}"] for kind in
                             ("weight", "bias", "running_mean", "running_var"))
        if self.training:
            values = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1)
            self.statistics[f"{name}.running_mean"] = 0.9 * m + 0.1 * values.mean(axis=1)
            self.statistics[f"{name}.running_var"] = 0.9 * v + 0.1 * values.var(axis=1, ddof=1)
            m, v = values.mean(axis=1), values.var(axis=1)
        m, scale, beta = (a[:, None, None] for a in (m, gamma / np.sqrt(v + 1e-5), beta))
        return (x - m) * scale + beta

    def drop(self, x):
        """Half of x to zero, the rest doubled; draws are in the order of channels last."""
        if not self.training:
            return x
        order, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if x.ndim == 4 else ((0, 1), (0, 1))
        draws = self.rng.random(x.transpose(order).shape, np.float32)
        return np.where(draws.transpose(back) >= 0.5, 2 * x, 0)

    def lenet5(self, x, f=positive):
        for name in ("conv1", "conv2"):
            x = maximum(f(self.conv(name, x)), 2, 2)
        return self.fc("fc2", f(self.fc("fc1", x.reshape(len(x), -1))))

    def resnet(self, x, blocks):
        x = positive(self.norm("bn1", self.conv("conv1", x, padding=1)))
        for group in (1, 2, 3):
            for i in range(blocks):
                name, stride = f"layer{group}.{i}", 2 if group > 1 and i == 0 else 1
                h = self.conv(f"{name}.conv1", x, stride, 1)
                h = positive(self.norm(f"{name}.bn1", h))
                h = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", h, padding=1))
                if stride == 2:     # option A: half of the new channels before, half behind
                    c = x.shape[1] // 2
                    x = np.pad(x[:, :, ::2, ::2], [(0, 0), (c, c), (0, 0), (0, 0)])
                x = positive(x + h)
        return self.fc("linear", x.mean(axis=(2, 3)))

    def vgg16(self, x):
        at = 0
        for convolutions in (2, 2, 3, 3, 3):
            for _ in range(convolutions):
                h = self.conv(f"features.{at}", x, padding=1)
                x, at = positive(self.norm(f"features.{at + 1}", h)), at + 3
            x, at = maximum(x, 2, 2), at + 1
        x = x.reshape(len(x), -1)
        for name in ("classifier.1", "classifier.4"):
            x = positive(self.fc(name, self.drop(x)))
        return self.fc("classifier.6", x)

    def nin(self, x):
        for at, padding in ((0, 2), (8, 2), (16, 1)):
            x = positive(self.conv(f"classifier.{at}", x, padding=padding))
            for mix in (at + 2, at + 4):
                x = positive(self.conv(f"classifier.{mix}", x))
            if at < 16:
                x = self.drop((maximum if at == 0 else mean)(x, 3, 2, 1))
        return x.mean(axis=(2, 3))

    def alexnet(self, x):
        x = maximum(response_norm(positive(self.conv("conv1", x, 4))), 3, 2)
        x = maximum(response_norm(positive(self.conv("conv2", x, padding=2))), 3, 2)
        for name in ("conv3", "conv4", "conv5"):
            x = positive(self.conv(name, x, padding=1))
        x = maximum(x, 3, 2).reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            x = positive(self.fc(name, self.drop(x)))
        return self.fc("fc8", x)


def cross_entropy(logits, labels):
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return (total - logits[range(len(labels)), labels]).mean()

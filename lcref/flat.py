"""Dicts of tensors as flat vectors, and Nesterov's method on them."""
import math
import sys
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace, device, is_numpy_array

from .inputs import array_of, named_arrays

__all__ = ["Weights", "check_fit", "check_targets", "copies", "cut", "end_to_end"]

Array = Any

BLOCK = 32768   # elements that the update works on at a time: few enough to stay in the cache


@dataclass(frozen=True, eq=False)
class _Pack:
    """Flat vectors of tensors of one kind, end to end; target is None without a penalty.

    On a device g holds the gradients, and `grads` are views of it.
    """

    names: list[str]
    w: Array
    v: Array
    target: Array | None
    g: Array | None
    grads: dict[str, Array]

    def gradient(self, grads):
        """The gradients end to end; on a device always in the same memory."""
        if self.g is None:
            return end_to_end([grads[name] for name in self.names])
        for name, own in self.grads.items():
            own[...] = grads[name]
        return self.g


class Weights:
    """The weights and the velocity of an L step under way: copies, and dicts of views of them.

    Tensors of one dtype and device, penalised or not, are packed into vectors of at most BLOCK
    elements (larger ones stay alone), so that the update is a few long operations and not many
    on short biases. On a device there is one vector of each kind.
    """

    def __init__(self, params, velocity, targets):
        self.w, self.v, self.targets = copies(params), dict(velocity), targets
        self.packs: list[_Pack] = []
        self.names: tuple[set[str], set[str]] = set(), set()

    def move(self, grads, statistics=None, *, mu, eta, m, omega):
        """One step for the parameters in grads, and new values for those in statistics."""
        statistics = statistics or {}
        if (grads.keys(), statistics.keys()) != self.names:
            self._check(grads, statistics)
            self.names = set(grads), set(statistics)
            packs = _together(self.w, grads, self.targets)
            self.packs = [self._pack(names) for names in packs]
        for pack in self.packs:
            _update(pack, pack.gradient(grads), mu, eta, m, omega)
        for name, value in statistics.items():
            self.w[name][...] = value

    def _check(self, grads, statistics):
        check_fit(self.w, grads, "gradient")
        check_fit(self.w, statistics, "new value")
        for name in statistics.keys() & grads.keys():
            raise ValueError(f"{name} has a gradient, and a new value among the statistics")
        for name in self.targets.keys() - grads.keys():
            raise ValueError(f"{name} has a target but no gradient, so SGD would never move it")

    def _pack(self, names):
        """Lay the tensors end to end, and let w and v be views of that."""
        old = {name: self.w[name] for name in names}
        xp, dtype = array_namespace(*old.values()), old[names[0]].dtype
        w = end_to_end(old.values())
        v = end_to_end([_copy(self.v[name], dtype) if name in self.v else xp.zeros_like(p)
                        for name, p in old.items()])
        target = None
        if names[0] in self.targets:
            target = end_to_end([_copy(self.targets[name], dtype) for name in names])
        self.w.update(cut(w, old))
        self.v.update(cut(v, old))
        g = None if is_numpy_array(w) else xp.zeros_like(w)
        return _Pack(names, w, v, target, g, {} if g is None else cut(g, old))


def _together(w, names, targets):
    """Yield lists of the names whose tensors go into one pack."""
    kinds: dict[Any, list[str]] = {}
    for name in sorted(names, key=lambda name: math.prod(w[name].shape)):   # the small ones first
        kinds.setdefault((w[name].dtype, str(device(w[name])), name in targets), []).append(name)
    for alike in kinds.values():
        pack: list[str] = []
        n = 0
        for name in alike:
            size = math.prod(w[name].shape)
            if pack and n + size > _block(w[name]):
                yield pack
                pack, n = [], 0
            pack, n = [*pack, name], n + size
        yield pack


def _update(pack, grad, mu, eta, m, omega):
    """Move w and v of a pack by one step, a block after another."""
    n, block = grad.shape[0], _block(grad)
    for i in range(0, n, block):
        b = slice(i, min(i + block, n))
        g, w, v = grad[b], pack.w[b], pack.v[b]
        if omega:
            g = g + omega * w
        if pack.target is not None:
            d = w - pack.target[b]
            d *= mu
            d += g
            g = d                   # g = ∇L + ω w + μ (w − target)
        v *= m
        v += g                      # v ← m v + g
        d = m * v
        d += g
        d *= eta if isinstance(eta, float) else array_namespace(eta).astype(eta, d.dtype)
        w -= d                      # w ← w − η (g + m v)


def _block(a):
    """How many elements are updated at a time: on a device all, for there each call is dear."""
    return BLOCK if is_numpy_array(a) else sys.maxsize


def end_to_end(arrays):
    """Return one vector; of a single array, a view where that is possible."""
    xp = array_namespace(*arrays)
    flat = [xp.reshape(a, (-1,)) for a in arrays]
    return xp.concat(flat) if len(flat) > 1 else flat[0]


def cut(vector, like):
    """Return views of the vector by name, in the order and the shapes of the dict `like`."""
    xp, views, start = array_namespace(vector), {}, 0
    for name, p in like.items():
        end = start + math.prod(p.shape)
        views[name] = xp.reshape(vector[start:end], p.shape)
        start = end
    return views


def _copy(a, dtype):
    """Return a copy in the order of C, whatever the layout of `a` in memory."""
    xp = array_namespace(a)
    return xp.reshape(xp.reshape(xp.astype(a, dtype), (-1,)), a.shape)


def copies(arrays):
    """Return a dict of new arrays."""
    return {name: _copy(a, a.dtype) for name, a in arrays.items()}


def check_fit(params, arrays, what):
    """Raise ValueError unless every array is named like a parameter, and has its shape."""
    for name, a in arrays.items():
        if name not in params:
            raise ValueError(f"a {what} for {name!r}, but the parameters are {', '.join(params)}")
        if tuple(a.shape) != tuple(params[name].shape):
            raise ValueError(f"the {what} of {name} has shape {tuple(a.shape)}, "
                             f"the parameter {tuple(params[name].shape)}")


def check_targets(params, targets, mu):
    """Raise ValueError unless the targets fit the parameters, and mu is positive."""
    named_arrays(params, "params", array_of)    # one that is not finite diverges, see Diverged
    named_arrays(targets, "targets")
    if targets and not 0 < mu < math.inf:
        raise ValueError(f"mu must be positive and finite, got {mu}")
    check_fit(params, targets, "target")

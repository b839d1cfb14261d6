"""Autograd on arrays that are not NumPy's, through its public extension points.

To trace a function of an array type, autograd needs a box, which stands in for the array while
the function runs, and a vector space, which adds up the gradients that reach it on several ways.
"""
import math
from typing import Any

from array_api_compat import array_namespace, device
from autograd.extend import Box, VSpace

__all__ = ["register"]


class _DeviceBox(Box):
    """What a traced array shows of itself: the nets ask for no more."""

    __slots__ = ()
    shape = property(lambda self: self._value.shape)
    ndim = property(lambda self: self._value.ndim)
    dtype = property(lambda self: self._value.dtype)
    device = property(lambda self: device(self._value))


class _DeviceSpace(VSpace):
    """Arrays of one shape, dtype and device."""

    def __init__(self, value: Any):
        self.shape, self.dtype, self.device = value.shape, value.dtype, device(value)
        self.size, self.ndim = math.prod(value.shape), value.ndim
        self.namespace = array_namespace(value)

    def zeros(self):
        return self.namespace.zeros(self.shape, dtype=self.dtype, device=self.device)

    def ones(self):
        return self.namespace.ones(self.shape, dtype=self.dtype, device=self.device)

    def _add(self, x, y):
        return x + y

    _mut_add = _add

    def _scalar_mul(self, x, a):
        return x * a


def register(*types: type) -> None:
    """Tell autograd of array types that it does not know; once each."""
    for new in types:
        if new not in Box.type_mappings:
            _DeviceBox.register(new)
            _DeviceSpace.register(new)

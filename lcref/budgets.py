"""Budgets of a compression that exceed what the tensors of its task hold."""

from .compressions import Each, LowRank, Prune
from .parts import size
from .projections.lowrank import as_matrix

__all__ = ["check_budget"]


def check_budget(compression, tensors):
    """Raise ValueError where a budget exceeds what the tensors hold: likely a slip of the pen."""
    for term in getattr(compression, "terms", ()):
        check_budget(term, tensors)
    if isinstance(compression, Each):
        for name, tensor in tensors.items():
            check_budget(compression.inner, {name: tensor})
    if isinstance(compression, Prune):
        _check_prune(compression, tensors)
    if isinstance(compression, LowRank):
        for name, tensor in tensors.items():
            _check_rank(compression, name, tensor)


def _check_prune(prune, tensors):
    """The same for kappa, or groups along an axis."""
    n = sum(map(size, tensors.values()))
    if (prune.kappa or 0) > n:
        raise ValueError(f"kappa={prune.kappa} is more than the {n} weights of the task")
    if prune.axis is None:
        return
    for name, tensor in tensors.items():
        if not -tensor.ndim <= prune.axis < tensor.ndim:
            raise ValueError(f"axis={prune.axis}, but {name} has {tensor.ndim} axes")
    slices = sum(tensor.shape[prune.axis] for tensor in tensors.values())
    if (prune.groups or 0) > slices:
        raise ValueError(f"groups={prune.groups} is more than the {slices} slices of the task")


def _check_rank(lowrank, name, tensor):
    """The same for rank."""
    if tensor.ndim not in (2, 4):
        raise ValueError(f"low rank needs 2 axes or 4; {name} has {tensor.ndim}")
    sides = as_matrix(tensor, lowrank.scheme).shape
    if (lowrank.rank or 0) > min(sides):
        raise ValueError(f"rank={lowrank.rank} is more than the smaller side of {name}, "
                         f"{' × '.join(map(str, sides))}")

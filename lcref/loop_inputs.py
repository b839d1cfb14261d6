"""What the loop is given by its caller, its L step and its evaluation; and what overflowed."""

import numbers
from typing import Any

from array_api_compat import array_namespace

from .inputs import array_of, did_you_mean, named_arrays

__all__ = ["Diverged", "disjoint_tasks", "evaluation", "finite", "l_step_answer"]


class Diverged(FloatingPointError):
    """A run that was stopped because a loss or a weight became infinite or NaN.

    Attributes
    ----------
    params : dict of name to array
        The last good weights, running statistics included: those at the start of the L step, or
        of the epoch, or those of the call where it went on inside this epoch.
    state : dict or None
        The state of the L step at that point. Called with both, and perhaps a smaller lr, an
        L step goes on from there; epochs of the L step then count from 0 again.
    step : int
    epoch, batch : int or None
        Where it was seen; batch is None for a weight, which is looked at after each epoch.
    rate : float or None
        The learning rate there. None, like epoch and batch, where the L step has none.
    """

    params: dict[str, Any]
    state: Any
    step: int
    epoch: int | None = None
    batch: int | None = None
    rate: float | None = None

    def __init__(self, message: str, **found: Any):    # one argument, so that it can be pickled
        super().__init__(message)
        vars(self).update(found)


def disjoint_tasks(params, tasks):
    """Raise ValueError unless the tasks are of tensors of params, each in one task, all finite."""
    named_arrays(params, "params")
    if not tasks:
        raise ValueError("no tasks: name at least one tensor to compress")
    taken: dict[str, int] = {}
    for i, task in enumerate(tasks):
        if not (hasattr(task, "names") and hasattr(task, "compression")):
            raise ValueError(f"task {i} must be a Task, not {task!r}")
        for name in task.names:
            if name not in params:
                raise ValueError(f"task {i}: no tensor {name!r}{did_you_mean(name, params)}")
            if name in taken:
                raise ValueError(f"tasks {taken[name]} and {i} both hold {name!r}; two tasks may "
                                 "not share a tensor")
            taken[name] = i


def evaluation(report):
    """What `evaluate` returned, a dict of numbers; a NaN may be one of them."""
    if not isinstance(report, dict):
        raise ValueError(f"evaluate must return a dict, not {report!r:.100}")
    for name, value in report.items():
        if not isinstance(value, numbers.Real):
            raise ValueError(f"evaluate must return numbers, but {name!r} is {value!r:.100}")
    return report


def l_step_answer(answer, good):
    """The (params, state) of an L step, with the tensors it was given, all finite."""
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], dict)):
        raise ValueError("an L step must return (params, state), params a dict")
    params, state = answer
    for name, tensor in good["params"].items():
        if name not in params or tuple(getattr(params[name], "shape", ())) != tuple(tensor.shape):
            raise ValueError(f"the L step must return {name!r} with shape {tuple(tensor.shape)}")
        array_of(params[name], f"{name!r} as the L step returned it")
    return finite(params, "w, as the L step returned it,", good), state


def finite(arrays, what, good):
    """The arrays; where one is not finite, Diverged with the params, state and step in `good`."""
    for name, array in arrays.items():
        xp = array_namespace(array)
        if not bool(xp.all(xp.isfinite(array))):
            where = f"step {good['step']}" if good["step"] >= 0 else "direct compression"
            raise Diverged(f"{what} has a NaN or an infinity at {name!r} in {where}; if "
                           f"{array.dtype} overflowed, take smaller weights or mu, or float64",
                           **good)
    return arrays

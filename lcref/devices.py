"""Where a command computes: the host, a GPU through CuPy, or array_api_strict's stand-in for one.

Arrays are put there once and brought back by `host`; what is between takes its namespace from them.
"""
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cuda import Graph
from .inputs import on_the_host

__all__ = ["Device", "device", "host", "named"]

NAME = re.compile(r"cpu|strict|cuda(:(0|[1-9][0-9]{0,3}))?")


@dataclass(frozen=True)
class Device:
    """A place where arrays live; made by `device`.

    Attributes
    ----------
    name : str
        "cpu", "cuda:N" or "strict".
    facts : dict of str to str
        What else the last bit of a result depends on: the GPU's name, the version of the library.
    """

    name: str
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The name without the number of a GPU."""
        return self.name.partition(":")[0]

    @property
    def number(self) -> int:
        """That of a GPU."""
        return int(self.name.partition(":")[2] or 0)

    @property
    def capture(self) -> Callable | None:
        """What SGD is told to make of its step: on a GPU a graph that is replayed."""
        return Graph if self.kind == "cuda" else None

    def use(self) -> None:
        """Make a GPU the current one of this thread, on which new arrays are."""
        if self.kind == "cuda":
            import cupy
            cupy.cuda.Device(self.number).use()

    def put(self, a: Any) -> Any:
        """A NumPy array, or a dict of them by name, as arrays here; what is no NumPy array stays.

        On "cpu" nothing is copied.
        """
        if isinstance(a, dict):
            return {name: self.put(one) for name, one in a.items()}
        if self.kind == "cpu" or not isinstance(a, np.ndarray):
            return a
        if self.kind == "strict":
            import array_api_strict as xp
            return xp.asarray(a, device=xp.Device("device1"), copy=True)
        import cupy
        with cupy.cuda.Device(self.number):
            return cupy.asarray(a)


def host(a: Any) -> Any:
    """A NumPy array of an array of any namespace, or a dict of them; NumPy's own is not copied."""
    return {name: host(one) for name, one in a.items()} if isinstance(a, dict) else on_the_host(a)


def named(name: str) -> str:
    """The name of a device as settings have it: "cuda:0" of "cuda"; ValueError where it is none."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"takes cpu, cuda, cuda:N for the GPU of that number, from 0, or strict, "
                         f"not {name!r:.60}")
    return "cuda:0" if name == "cuda" else name


def device(name: str) -> Device:
    """The device of that name, which is there; a GPU becomes the current one of this thread.

    Parameters
    ----------
    name : "cpu", "cuda", "cuda:N" or "strict"
        cuda is cuda:0. strict is array_api_strict's second device, whose arrays NumPy cannot read:
        what runs there runs nowhere else unasked.

    Raises
    ------
    ValueError
        Another name; its package is not installed; there is no GPU, or none of that number.
    """
    try:
        name = named(name)
    except ValueError as error:
        raise ValueError(f"--device {error}") from None
    found = Device(name, _cuda(name) if name.startswith("cuda") else
                   _strict() if name == "strict" else {})
    found.use()
    return found


def _cuda(name):
    """The facts of a GPU."""
    try:
        import cupy
    except ImportError as error:
        raise ValueError("--device cuda needs CuPy: pip install 'lcref[cuda]' "
                         f"({' '.join(str(error).split()):.200})") from None
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise ValueError(f"--device {name}: CuPy found no GPU: {error}") from error
    number = int(name.partition(":")[2])
    if number >= count:
        raise ValueError(f"--device {name}: the number of GPUs is {count}, and the first is cuda:0")
    return {"gpu": runtime.getDeviceProperties(number)["name"].decode(),
            "cupy": cupy.__version__}


def _strict():
    try:
        import array_api_strict
    except ImportError:
        raise ValueError("--device strict needs array-api-strict: pip install "
                         "array-api-strict") from None
    return {"array-api-strict": array_api_strict.__version__}

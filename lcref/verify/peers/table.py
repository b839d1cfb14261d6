"""One row of the table of peers."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata


@dataclass(frozen=True)
class Peer:
    """A function of another library, what it promises, and what it was seen to do instead.

    A reason in `expected_failures` begins with "contract:" where the library promises something
    other than the kind does, with "rounding:" where floating point alone explains it and the
    library promises no bound, and with "defect:" where the library breaks its own promise.
    """

    name: str
    package: str  # the distribution, as on PyPI
    kind: str
    fn: Callable
    contract: str = ""  # what the library promises, and where it says so; "" when it is the kind's
    expected_failures: dict[str, str] = field(default_factory=dict)  # property → reason
    claims: tuple[str, ...] = ()  # optional properties to be judged by

    @property
    def version(self) -> str | None:
        """The version installed, or None."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None


def peer(peers: list[Peer], name: str, package: str, failures: Mapping[str, str] = {}, *,
         kind: str):
    """Decorate an adapter: its docstring is the contract, and the row is added to the list.

    `failures` goes from a reason to the names of the properties that fail for it.
    """
    expected = {name: reason for reason, names in failures.items() for name in names.split()}

    def add(fn):
        peers.append(Peer(name, package, kind, fn, inspect.getdoc(fn) or "", expected))
        return fn

    return add

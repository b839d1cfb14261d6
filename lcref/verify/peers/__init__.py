"""Functions of other libraries that do one of our projections, for `check` to judge.

A peer is called the way its kind is called: w first, then the parameters, by position; an array of
w's shape comes back. An adapter only translates: it reshapes, names the parameter as the library
does, and writes the problem in the library's form. Where the manual excludes a parameter, such as
rank 0, the adapter answers in the library's place, and says so; it repairs nothing else. The
docstring of an adapter is the library's contract, where that is not the kind's. No library is
imported before its adapter is called.
"""

from . import lowrank, prune, quantize
from .table import Peer

PEERS: list[Peer] = [*quantize.PEERS, *prune.PEERS, *lowrank.PEERS]

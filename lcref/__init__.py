"""lcref: the learning-compression algorithm for additive combinations of compressions.

    min over w, θ1..θm of  L(w)   subject to   w = Δ1(θ1) + ... + Δm(θm)

`__init__.pyi` says where each name comes from; a name is imported when it is first used.
"""

import lazy_loader as _lazy_loader

__version__ = "0.1.0"

__all__ = ["Binary", "Compression", "DescentError", "Each", "LowRank", "PowersOfTwo", "Prune",
           "Quantize", "Result", "Round", "Schedule", "Step", "Sum", "Task", "Ternary", "compress",
           "direct_compression", "iterate", "parse", "parse_task", "projections", "verify"]

__getattr__, _lazy_names, _ = _lazy_loader.attach_stub(__name__, __file__)


def __dir__():
    return sorted({*globals(), *_lazy_names()})

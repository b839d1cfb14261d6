"""lcref: the learning-compression algorithm for additive combinations of compressions.

    min over w, θ1..θm of  L(w)   subject to   w = Δ1(θ1) + ... + Δm(θm)
"""

from . import projections
from .composition import DescentError
from .compressions import (Binary, Compression, Each, LowRank, PowersOfTwo, Prune, Quantize, Round,
                           Sum, Task, Ternary)
from .lc import Result, Schedule, Step, compress, direct_compression, iterate
from .text import parse, parse_task

__version__ = "0.1.0"

__all__ = ["Binary", "Compression", "DescentError", "Each", "LowRank", "PowersOfTwo", "Prune",
           "Quantize", "Result", "Round", "Schedule", "Step", "Sum", "Task", "Ternary", "compress",
           "direct_compression", "iterate", "parse", "parse_task", "projections"]

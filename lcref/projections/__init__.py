"""The projections of the LC series: pure functions, an array in, a part out.

Each solves min over θ of ‖w − Δ(θ)‖² on one feasible set, returns a part whose `decompress()` has
w's shape, dtype and array namespace, never writes to w, and is deterministic.
"""

from .lowrank import rank_ball
from .prune import l0_ball, l1_ball
from .quantize import binary, kmeans, ternary

__all__ = ["binary", "kmeans", "l0_ball", "l1_ball", "rank_ball", "ternary"]

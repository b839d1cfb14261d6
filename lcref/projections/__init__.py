"""The projections of the LC series: pure functions, an array in, a part out.

Each solves min over θ of ‖w − Δ(θ)‖², on a feasible set or with a penalty, returns a part whose
`decompress()` has w's shape, dtype and array namespace, never writes to w, and is deterministic.
"""

from .joint import codebook_l0, kmeans_l0, scaled_binary_l0
from .lowrank import rank_ball, rank_selection
from .prune import group_l0_ball, l0_ball, l0_penalty, l1_ball, l1_penalty
from .quantize import (binary, kmeans, nearest, powers_of_two, round_to, scaled_codebook,
                       ternary)

__all__ = ["binary", "codebook_l0", "group_l0_ball", "kmeans", "kmeans_l0", "l0_ball", "l0_penalty",
           "l1_ball", "l1_penalty", "nearest", "powers_of_two", "rank_ball", "rank_selection",
           "round_to", "scaled_binary_l0", "scaled_codebook", "ternary"]

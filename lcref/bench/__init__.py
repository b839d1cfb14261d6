"""The speed tables, on the user's machine: projections, L steps, and the targets they are held to.

Whatever is compared runs in one process, with the same number of threads, in turns; medians of the
turns are compared, so that what else the machine does meanwhile is spread over all of them.
"""

from .lsteps import LStep, l_step
from .projections import PeerTiming, Timing, exponent, time_projection
from .targets import Target, measure_targets

__all__ = ["LStep", "PeerTiming", "Target", "Timing", "exponent", "l_step", "measure_targets",
           "time_projection"]

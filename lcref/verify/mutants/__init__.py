"""Wrong implementations of the projections and sums, one for each mistake that people make.

Each is a self-contained implementation, right but for the one mistake that its words name. They
serve twice: the kit must kill every one, and, when somebody's function fails, its answers are
compared with those of the mutants of its kind, so that the probable mistake can be said in words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

# class of mistake → what it is, in one line
MISTAKES = {
    # seen in public libraries
    "off by one": "An index, a count or a threshold is one too late or one too early.",
    "inside moved": "A point that is feasible already is moved.",
    "slice of minus zero": "A slice [-kappa:] with kappa = 0 takes everything instead of nothing.",
    "wrong shape": "The answer has another shape than w: an axis more, or flattened.",
    "nothing returned": "Nothing, or only some of the answer, is returned in some case.",
    "local optimum": "A local optimum, which depends on the start, is sold as the solution.",
    "cancellation": "Sums of uncentred squares cancel: at a large offset no digits are left.",
    "invented centroids": "With fewer distinct values than k, entries are made up.",
    "ties kept": "Equal values at the threshold are all kept, which breaks the budget.",
    "loose bisection": "A bisection stops while the constraint is still visibly violated.",
    "parameter ignored": "A parameter is accepted and has no effect.",
    "objective rises": "A step of an alternation raises the objective.",
    "input overwritten": "The caller's array is changed.",
    "NaN passed on": "A NaN in w is neither rejected nor reported.",
    "half precision": "Values or sums pass through half or single precision.",
    "wrong sign of a multiplier": "The multipliers are updated or applied with the wrong sign.",
    "depends on threads": "The answer changes with the number of threads.",
    # further ones
    "magnitude forgotten": "w is compared or averaged where its magnitude is meant.",
    "wrong sign": "A sign is lost, negated, or zero where the set has no zero.",
    "ties dropped": "Equal values at the threshold are all dropped, which wastes the budget.",
    "wrong statistic": "Another mean, median or norm stands where the optimum has its own.",
    "wrong threshold": "A threshold lacks a square, a root or a factor.",
    "wrong shrinkage": "Soft and hard thresholding are exchanged.",
    "parameter misread": "A parameter is understood as something else.",
    "heuristic": "A rule of thumb stands in for the minimisation.",
    "greedy": "Decisions are made one by one and never revised.",
    "never refitted": "What is learned is fixed before the last choice and not fitted to it.",
    "wrong rounding": "Rounding is downward, truncating, or in another scale than the distance.",
    "range not respected": "A value beyond the range overflows, wraps around or is left as it is.",
    "set too small": "A feasible value is never used.",
    "set too large": "An infeasible value is used.",
    "codes returned": "The codes are returned instead of the values they stand for.",
    "wrong choice": "Other positions than the best are kept or corrected.",
    "wrong axis": "The slices are taken along another axis.",
    "factor forgotten": "A factor of a product is left out, doubled or transposed.",
    "stopped early": "An iteration is stopped before it has converged.",
    "residual forgotten": "A part projects w instead of what the other parts leave of it.",
    "spoilt at the end": "A last rounding or averaging of a feasible point makes it infeasible.",
    "wrong dtype": "The answer has another dtype than w.",
    "random": "The answer depends on a random state.",
    "state between calls": "The answer depends on earlier calls.",
    "prints": "Something is written to standard output.",
    "raises on valid input": "A valid input is rejected.",
    "bad argument accepted": "An invalid argument gives an answer instead of an error.",
    "extreme magnitudes": "Squares overflow, or small weights are taken for zero.",
}


@dataclass(frozen=True)
class Mutant:
    """One wrong implementation, called as its kind's functions are."""

    kind: str
    name: str  # unique over the catalogue
    mistake: str  # a key of MISTAKES
    words: str  # to the user: what goes wrong, and what to do instead
    fn: Callable
    compression: str | None = None  # of the kind "sum": the text of the sum
    claims: tuple[str, ...] = ()  # optional properties that must be claimed for it to be killed


_registered: list[Mutant] = []


def mutant(kind: str, mistake: str, words: str, compression: str | None = None,
           claims: tuple[str, ...] = ()) -> Callable:
    """Enter the decorated function into the catalogue under its own name."""

    def enter(fn):
        assert mistake in MISTAKES and all(fn.__name__ != other.name for other in _registered)
        _registered.append(Mutant(kind, fn.__name__, mistake, words, fn, compression, claims))
        return fn

    return enter


def by_kind(kind: str) -> tuple[Mutant, ...]:
    """The mutants of one kind."""
    return tuple(each for each in MUTANTS if each.kind == kind)


for _module in ("quantize", "prune", "lowrank", "sums", "behaviour", "loop"):
    import_module(f"{__name__}.{_module}")

MUTANTS = tuple(_registered)

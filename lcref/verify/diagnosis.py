"""Say in words what is probably wrong: the known mistake that gives the answers that were seen."""

import contextlib
import io
import warnings

import numpy as np


def probable(kind, calls, wrong) -> str:
    """The words of the mistakes whose answers agree with all calls, wrong ones included.

    `calls` are pairs (arguments, θ), `wrong` the arguments with which a property failed. Where no
    mistake agrees with all calls, those count that agree on the wrong ones.
    """
    keys = {_key(arguments) for arguments in wrong}
    bad = [call for call in calls if _key(call[0]) in keys][-20:]
    if not bad:
        return ""
    from .mutants import by_kind

    candidates = [m for m in by_kind(kind.name) if m.compression in (None, kind.compression)]
    fits = [m for m in candidates if all(agrees(m.fn, *call) for call in bad)]
    sample = calls[:: max(len(calls) // 60, 1)]
    always = [m for m in fits if all(agrees(m.fn, *call) for call in sample)]
    chosen = (always or fits)[:2]
    return " Or: ".join(m.words for m in chosen)


def _key(arguments):
    return repr([x.tolist() if isinstance(x, np.ndarray) else x for x in arguments])


def agrees(fn, arguments, theta) -> bool:
    """Whether a wrong implementation gives the same answer, up to rounding."""
    given = [x.copy() if isinstance(x, np.ndarray) else x for x in arguments]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            answer = fn(*given)
    except Exception:
        return False
    if isinstance(answer, (tuple, list)):
        answer = sum(answer)
    return (isinstance(answer, np.ndarray) and answer.shape == theta.shape
            and np.allclose(answer, theta, rtol=1e-12, atol=0, equal_nan=True))

"""Hypothesis profiles, and the arrays that every numerical test can be run on."""

import os

import array_api_strict
import numpy as np
import pytest
from hypothesis import settings

# Chosen by --hypothesis-profile, else by HYPOTHESIS_PROFILE, else ci where CI is set, else dev.
settings.register_profile("dev", max_examples=60, deadline=None)
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True, database=None)
settings.register_profile("deep", max_examples=20_000, deadline=None)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev")
)


def namespaces():
    """Name the places where arrays live, each with a function that puts a NumPy array there."""
    second = array_api_strict.Device("device1")  # no NumPy call can read an array on this device
    return {
        "numpy": np.asarray,
        "array_api_strict": array_api_strict.asarray,
        "array_api_strict-device1": lambda w: array_api_strict.asarray(w, device=second),
    }


@pytest.fixture(scope="session", params=namespaces().values(), ids=namespaces().keys())
def place(request):
    """Put a NumPy array where the thing under test should work: `w = place(w)`."""
    return request.param

"""What workers run in the tests of sweeps instead of real cells; each call leaves a line."""
import os
import signal
import time
from pathlib import Path


def note(references, text):
    """Append a line to the file of calls."""
    with open(references.parent / "calls", "a") as calls:
        calls.write(f"{text}\n")


def calls(out):
    """What was called in a sweep, in the order of the beginnings."""
    file = Path(out, "calls")
    return file.read_text().splitlines() if file.exists() else []


def cell(cell, references, data_dir, threads, device):
    note(references, f"cell {cell['seed']}")
    return {"seed": cell["seed"]}


def slow(given, references, data_dir, threads, device):
    """A cell that takes a tenth of a second at least."""
    time.sleep(0.1)
    return cell(given, references, data_dir, threads, device)


def blas_threads(_=None):
    """How many threads each BLAS of this process has, that of SciPy too."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def reference(cell, references, data_dir, threads, device):
    """A reference net is an empty file: no real cell reads it."""
    from lcref.cells import reference_key
    note(references, f"reference {cell['seed']}")
    (references / f"{reference_key(cell)}.npz").touch()
    return {}


def failing_reference(cell, references, data_dir, threads, device):
    note(references, f"reference {cell['seed']}")
    return {"error": "ValueError: no such net", "traceback": "the traceback"}


def dies_once(given, references, data_dir, threads, device):
    """The cells of odd seeds kill their worker when they run for the first time."""
    seed = given["seed"]
    first = f"cell {seed}" not in calls(references.parent)
    found = cell(given, references, data_dir, threads, device)
    if seed % 2 and first:
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def seed_3_kills(given, references, data_dir, threads, device):
    """The cell of seed 3 kills its worker whenever it runs, the others take a while."""
    found = cell(given, references, data_dir, threads, device)
    if given["seed"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return found


def dying_reference(given, references, data_dir, threads, device):
    """The training of a reference that kills its worker the first time."""
    first = f"reference {given['seed']}" not in calls(references.parent)
    if first:
        note(references, f"reference {given['seed']}")
        os.kill(os.getpid(), signal.SIGKILL)
    return reference(given, references, data_dir, threads, device)


def until(holds, seconds=30):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.02)


def meeting_reference(given, references, data_dir, threads, device):
    """The training of a reference that ends only when those of seeds 0 and 1 both have begun."""
    found = reference(given, references, data_dir, threads, device)
    until(lambda: {"reference 0", "reference 1"} <= {*calls(references.parent)})
    return found


def long_reference(given, references, data_dir, threads, device):
    """The reference of seed 1 is in training until the cell of seed 0 has run."""
    if given["seed"] == 1:
        until(lambda: "cell 0" in calls(references.parent))
    return reference(given, references, data_dir, threads, device)

"""What CuPy needs beside the array API standard, held to what it must do, also without a GPU.

CUDA records the kernels of a step, not its Python, and runs them again on the same memory. `tape`
does that with the operations of array_api_strict on its second device: whatever Python alone does
in a step, such as putting a new array under an old name, is not done again, and shows.
"""
import sys
from types import FunctionType

import array_api_strict
import numpy as np
import places
import pytest
from array_api_strict._array_object import Array

from lcref import nets
from lcref.cuda import Graph, arguments, fused, product
from lcref.lsteps import SGD
from lcref.nets.models import resnet

DEVICE = places.SECOND
CROSSING = ("__float__", "__int__", "__bool__", "__complex__", "__index__", "to_device",
            "__dlpack__", "__array__")
FUNCTIONS = [name for name in array_api_strict.__all__
             if isinstance(getattr(array_api_strict, name), FunctionType)]
METHODS = [name for name in vars(Array) if callable(vars(Array)[name]) and (
    name in ("__getitem__", "__setitem__") or name.strip("_").lstrip("ir") in (
        "add", "sub", "mul", "truediv", "pow", "matmul", "eq", "ne", "lt", "le", "gt", "ge", "and",
        "or", "invert", "neg"))]
IN_PLACE = ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__",
            "__iand__", "__ior__")


def there(a):
    return array_api_strict.asarray(a, device=DEVICE)


def tape(step, inputs):
    """Record step(*inputs) as CUDA would: nothing is done yet, and nothing may cross."""
    calls, before, depth = [], [], [0]

    def logged(f, name):
        def call(*args, **kwargs):
            if depth[0]:
                return f(*args, **kwargs)
            if name in IN_PLACE:
                before.append((args[0], args[0]._array.copy()))
            depth[0] += 1
            try:
                out = f(*args, **kwargs)
            finally:
                depth[0] -= 1
            calls.append((f, args, kwargs, out))
            return out
        return call

    def refused(f, name):
        def call(*args, **kwargs):
            copies = name == "asarray" and isinstance(args[0], Array)      # there, from there
            assert depth[0] or copies, f"{name} while a graph is recorded"
            return f(*args, **kwargs)
        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, names, wrap in ((array_api_strict, FUNCTIONS, logged), (Array, METHODS, logged),
                                   (Array, CROSSING, refused),
                                   (array_api_strict, ["asarray", "from_dlpack"], refused)):
            for name in names:
                if hasattr(owner, name):
                    patch.setattr(owner, name, wrap(getattr(owner, name), name))
        output = step(*inputs)
    for array, old in reversed(before):
        array._array[...] = old

    def replay():
        for f, args, kwargs, out in calls:
            again = f(*args, **kwargs)
            if isinstance(out, Array) and not np.shares_memory(out._array, again._array):
                out._array[...] = again._array
    return replay, output


# ----- the graph -----------------------------------------------------------------------------

def test_a_function_runs_as_it_is_then_is_recorded_then_replayed():
    total, runs = there(np.zeros(3)), []

    def step(x):
        runs.append(1)
        total[...] = total + x
        return array_api_strict.sum(total)
    graph = Graph(step, tape)
    found = [float(graph(there(np.full(3, float(i))))) for i in range(1, 6)]
    assert found == [3, 9, 18, 30, 45] and len(runs) == 2
    assert places.on_host(total).tolist() == [15, 15, 15]


def test_inputs_of_another_shape_run_as_they_are_between_replays():
    total = there(np.zeros(()))

    def step(x):
        total[...] = total + array_api_strict.sum(x)
        return total
    graph = Graph(step, tape)
    sizes = [4, 4, 4, 3, 4, 3, 4]
    found = [float(graph(there(np.ones(n)))) for n in sizes]
    assert found == np.cumsum(sizes).tolist()


def test_the_stand_in_shows_what_only_python_does():
    """A step that puts a new array in the place of the old one is no step to replay."""
    kept = {"w": there(np.zeros(2))}

    def step(x):
        kept["w"] = kept["w"] + x
        return array_api_strict.sum(kept["w"])
    graph = Graph(step, tape)
    found = [float(graph(there(np.ones(2)))) for _ in range(4)]
    assert found != [2, 4, 6, 8]


@pytest.mark.parametrize("wait", [float, bool, lambda x: x.to_device(DEVICE),
                                  lambda x: array_api_strict.asarray(1.0, device=DEVICE)])
def test_the_stand_in_refuses_a_step_that_waits_or_copies(wait):
    def step(x):
        wait(array_api_strict.sum(x))
        return x
    graph = Graph(step, tape)
    graph(there(np.ones(2)))
    with pytest.raises(AssertionError, match="while a graph is recorded"):
        graph(there(np.ones(2)))


# ----- a step of training in it --------------------------------------------------------------

def again(step, inputs):
    """Where nothing is recorded: the step itself, once more at each replay."""
    output = np.zeros((), np.float32)

    def replay():
        output[...] = step(*inputs)
    return replay, output


def recorder(array):
    """What records a step on arrays like this one; None is CUDA's own."""
    if isinstance(array, np.ndarray):
        return again
    return tape if getattr(array, "device", None) == DEVICE else None


def not_of_lcref(device):
    """CuPy's devices cannot be hashed, so lcref must not ask; array_api_strict itself does."""
    assert not sys._getframe(1).f_globals["__name__"].startswith("lcref"), "a device was hashed"
    return 0


def trained(net, x, labels, put, targets, **options):
    """(params, state, losses) after two L steps of two epochs, whose last batch is a short one."""
    rng = np.random.default_rng(1)
    params = {name: put(p) for name, p in net.init(rng, np.float32).items()}
    losses = []
    step = SGD(nets.value_and_grad(net), put(x), put(labels), lr=0.05, epoch_decay=0.9, batch=4,
               epochs=2, weight_decay=1e-3,
               on_batch=lambda *_: losses.append(_[-1]), **options)
    state = None
    for k in range(2):
        goal = {name: put(t * (1 + k)) for name, t in targets.items()}
        params, state = step(params, goal, 0.3, k, state)
    return params, state, losses


@pytest.mark.parametrize("net, shape", [(nets.lenet300(9, 3), (9,)),
                                        (resnet(8, (2, 8, 8), 3), (2, 8, 8))])
def test_an_l_step_that_is_replayed_has_the_bits_of_one_that_is_not(net, shape, place, monkeypatch):
    if type(place(np.zeros(1))) is Array:   # of its two devices, the one that NumPy cannot read
        place = there
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(15, *shape)).astype(np.float32), rng.integers(0, 3, 15)
    targets = {name: rng.normal(size=net.shapes[name]).astype(np.float32) for name in net.weights}
    records = []
    monkeypatch.setattr(type(DEVICE), "__hash__", not_of_lcref)

    def capture(move):
        graph = Graph(move, recorder(place(np.zeros(1))))
        own = graph.record

        def record(step, inputs):
            records.append(1)
            return own(step, inputs)
        graph.record = record
        return graph
    plain, replayed = (trained(net, x, labels, place, targets, capture=one)
                       for one in (None, capture))
    assert len(records) == 2        # one for each L step
    assert plain[2] == replayed[2]
    for one, other in ((plain[0], replayed[0]), (plain[1]["velocity"], replayed[1]["velocity"])):
        for name in one:
            np.testing.assert_array_equal(places.on_host(one[name]), places.on_host(other[name]),
                                          strict=True)


def test_a_random_loss_cannot_be_captured():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="capture is None where draws is True"):
        SGD(nets.value_and_grad(nets.linear(3, 2)), x, np.zeros(2, np.int64), lr=0.1,
            draws=True, capture=Graph)


# ----- products and fused kernels ------------------------------------------------------------

def by_columns(x, op, rows, columns, leading):
    """op(X) of `rows` × `columns`, X read from the memory of x as a BLAS does."""
    shape = (columns, rows) if op else (rows, columns)
    end = (shape[1] - 1) * leading + shape[0]
    memory = np.lib.stride_tricks.as_strided(x, (end,), (x.itemsize,))
    found = np.array([[memory[i + j * leading] for j in range(shape[1])] for i in range(shape[0])])
    return found.T if op else found


LAYOUTS = {"C": lambda x: x, "turned": lambda x: np.asfortranarray(x),
           "rows of a wider one": lambda x: np.pad(x, ((0, 0), (1, 2)))[:, 1:-2],
           "every second row": lambda x: np.repeat(x, 2, axis=0)[::2]}


@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1)])
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_a_blas_that_counts_by_columns_is_asked_for_the_product(first, second, sizes):
    rng, (rows, inner, columns) = np.random.default_rng(0), sizes
    a = LAYOUTS[first](rng.integers(-9, 9, (rows, inner)).astype(float))
    b = LAYOUTS[second](rng.integers(-9, 9, (inner, columns)).astype(float))
    (x, y), ((op_x, op_y), (m, n, k), (ld_x, ld_y, ld_out)) = arguments(a, b)
    found = by_columns(x, op_x, m, k, ld_x) @ by_columns(y, op_y, k, n, ld_y)
    out = np.full(rows * columns, np.nan)
    for i in range(m):
        for j in range(n):
            out[i + j * ld_out] = found[i, j]
    np.testing.assert_array_equal(out.reshape(rows, columns), a @ b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)])
def test_a_product_is_that_of_numpy_where_the_arrays_live(place, turned, dtype):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-9, 9, shape).astype(dtype) for shape in ((3, 4), (4, 5)))
    operands = [place(np.ascontiguousarray(x.T)).T if turn else place(x)
                for x, turn in zip((a, b), turned)]
    np.testing.assert_array_equal(places.on_host(product(*operands)), a @ b, strict=True)


def test_a_fused_function_is_the_function_where_the_arrays_live(place):
    x, m = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0, 4.0])     # exact, however rounded
    found = fused(lambda x, m: (x - m) * (x + m))(place(x), place(m))
    np.testing.assert_array_equal(places.on_host(found), x * x - m * m, strict=True)

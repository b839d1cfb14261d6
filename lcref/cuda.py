"""What only CuPy arrays need: kernels that are fused, and a training step that is a CUDA graph.

A step of training a ResNet20 is some hundred kernels of a few microseconds each, and Python takes
longer to ask for a kernel than the GPU to run it. So the step is asked for once, while CUDA
records it as a graph, and each further batch is one launch of all of them. CuPy is imported when
it is used.
"""
import ctypes
import math
import os
from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any

from array_api_compat import array_namespace, is_cupy_array

__all__ = ["Graph", "fused", "product"]

Array = Any
WORKSPACE = 1 << 25     # bytes that cuBLAS may use on the side: what NVIDIA advises for the H100
TF32 = 3                # CUBLAS_TF32_TENSOR_OP_MATH
GEMM = {"f": ("cublasSgemm_v2", ctypes.c_float), "d": ("cublasDgemm_v2", ctypes.c_double)}


def fused(f: Callable) -> Callable:
    """Let f, elementwise in its arguments, be one kernel on CuPy arrays; else it runs as written.

    One pass over the memory instead of one for each operation. The compiler may contract a product
    and a sum to one rounding there, so the two agree to rounding and not to the last bit.
    """
    @cache
    def kernel():
        import cupy
        return cupy.fuse(f)

    @wraps(f)
    def call(*args):
        return kernel()(*args) if is_cupy_array(args[0]) else f(*args)
    return call


# ----- a function of arrays, recorded and replayed -------------------------------------------

class Graph:
    """A function of arrays that is recorded once, as a CUDA graph, and from then on replayed.

    The first call with inputs of some shapes and dtypes runs the function as it is, so that what
    is made once is made (kernels compiled, memory laid out); the second records it on inputs of
    its own; every further one copies its inputs there and replays. Inputs of any other shape, as
    the last batch of an epoch has, run as they are.

    Parameters
    ----------
    step : callable
        step(*arrays) -> array. It may write to arrays that it knows, in place. It must do the
        same operations on the same memory in every call, wait for no result of theirs (no float()
        or bool() of an array) and copy nothing from or to the host.
    record : callable, optional
        record(step, inputs) -> (replay, output), where replay() leaves step(*inputs) in output.
        None is CUDA's.

    Notes
    -----
    The array that is returned is the same one in every call, with new values.
    """

    def __init__(self, step: Callable, record: Callable | None = None):
        self.step, self.record = step, record or _cuda_graph
        self.known: set[tuple] = set()      # kinds of inputs that ran as they are
        self.inputs: list[Array] = []
        self.replay: Callable[[], Any] | None = None
        self.output: Array = None

    def __call__(self, *inputs: Array) -> Array:
        kind = tuple((tuple(x.shape), x.dtype) for x in inputs)
        if kind not in self.known:
            self.known.add(kind)
            return self.step(*inputs)
        if self.replay is None:
            self.kind = kind
            self.inputs = [array_namespace(x).asarray(x, copy=True) for x in inputs]
            self.replay, self.output = self.record(self.step, self.inputs)
        elif kind != self.kind:
            return self.step(*inputs)
        for own, x in zip(self.inputs, inputs):
            own[...] = x
        self.replay()
        return self.output


def _cuda_graph(step, inputs):
    """Record on a stream of its own, with memory that nobody else is ever given.

    What is freed while it is recorded is used again on each replay, so no other array may lie
    there: the memory comes from a pool of its own, which lives as long as the graph.
    """
    import cupy
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        try:
            output = step(*inputs)
        finally:
            graph = stream.end_capture()

    return partial(_launch, graph, pool), output


def _launch(graph, pool):
    """Run a graph on the current stream, in order with all else there. Its memory is the pool's."""
    graph.launch()


# ----- matrix products that a graph may hold -------------------------------------------------

def product(a: Array, b: Array) -> Array:
    """Return a @ b, of two matrices; of CuPy arrays by cuBLAS itself.

    CuPy refuses its own products while a graph is recorded ("calling cuBLAS API during stream
    capture is currently unsupported"), which cuBLAS does not where its workspace is given. As in
    CuPy, CUPY_TF32=1 in the environment allows products of float32 to be rounded to TF32.
    """
    if not is_cupy_array(a):
        return a @ b
    import cupy
    out = (cupy.empty if a.shape[1] else cupy.zeros)((a.shape[0], b.shape[1]), a.dtype)
    if out.size and a.shape[1]:
        name, number = GEMM[a.dtype.char]
        library, handle = _blas(a.device.id)
        (first, second), (ops, sizes, leading) = arguments(a, b)
        one, zero, (m, n, k), (ld_first, ld_second, ld_out) = number(1), number(0), sizes, leading
        _done(getattr(library, name)(
            handle, *ops, m, n, k, ctypes.byref(one), ctypes.c_void_p(first.data.ptr), ld_first,
            ctypes.c_void_p(second.data.ptr), ld_second, ctypes.byref(zero),
            ctypes.c_void_p(out.data.ptr), ld_out))
    return out


def arguments(a: Array, b: Array) -> tuple:
    """What a BLAS that counts by columns needs for a @ b in C's order.

    Returns (first, second) matrices, and of `gemm` the two operations (0: as it lies, 1: turned),
    (m, n, k), and the leading dimensions of both and of the product. By columns, a matrix in C's
    order is its transpose, so (a b)ᵀ = bᵀ aᵀ is asked for: b comes first.
    """
    (b, op_b, ld_b), (a, op_a, ld_a) = _lying(b), _lying(a)
    return (b, a), ((op_b, op_a), (b.shape[1], a.shape[0], a.shape[1]), (ld_b, ld_a, b.shape[1]))


def _lying(x):
    """(x, 0, its columns) in C's order, (x, 1, its rows) if turned; any other is copied."""
    if x.flags.f_contiguous and not x.flags.c_contiguous:
        return x, 1, x.shape[0]
    return (x if x.flags.c_contiguous else x.copy(order="C")), 0, x.shape[1]


def _blas(device):
    """The library, and its handle on a device, set to work on the current stream."""
    import cupy
    library, handle, workspace, streams = _handle(device)
    stream = cupy.cuda.get_current_stream().ptr
    if streams[-1] != stream:       # setting the stream gives the workspace up
        _done(library.cublasSetStream_v2(handle, ctypes.c_void_p(stream)))
        _done(library.cublasSetWorkspace_v2(handle, ctypes.c_void_p(workspace.ptr),
                                            ctypes.c_size_t(WORKSPACE)))
        streams[-1] = stream
    return library, handle


@cache
def _handle(device):
    """(library, handle, workspace, [its stream]) of a device, which must be the current one."""
    import cupy
    from cuda import pathfinder
    library = ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    handle = ctypes.c_void_p()
    _done(library.cublasCreate_v2(ctypes.byref(handle)))
    if os.environ.get("CUPY_TF32") == "1":
        _done(library.cublasSetMathMode(handle, TF32))
    return library, handle, cupy.cuda.MemoryPool().malloc(WORKSPACE), [math.nan]


def _done(status):
    if status:
        raise RuntimeError(f"cuBLAS failed with status {status}")

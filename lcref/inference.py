"""Inference of a net from its parts: multiply part by part, and add.

    y = W x = Δ1(θ1) x + ... + Δm(θm) x

and W is never built. With out × in the shape of W as a matrix, for one output o and inputs x_i:

    codebook     Σ_c entry_c s_c,  s_c = Σ of the x_i whose code is c: one product an entry
    sparse       Σ_j value_j x_{i(j)}: one product a value
    low rank     left (right x): two thin products
    dense        values x

`operations` counts these; `Weight` computes them; `from_parts` puts a Weight in the place of every
compressed tensor of a net. All of it is for NumPy arrays.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .blocks import in_blocks, on_host
from .compressions import Task
from .inputs import array_of, named_arrays, named_parts, together
from .nets.convolution import out_size, pad
from .nets.net import Net
from .parts import ByTensor, Codebook, Dense, LowRank, Part, Sparse, Sum

__all__ = ["Weight", "by_tensor", "dense_operations", "from_parts", "operations", "positions"]

FEW = 8         # columns that SciPy's sparse product takes faster one by one than together
CACHED = 1 << 17    # elements of the columns that a sparse product takes at a time
SHARING = 128   # outputs from which on it pays to share sums of neighbouring inputs, as measured
Counts = tuple[int, int]


# ----- a part for each tensor ----------------------------------------------------------------

def by_tensor(theta: Part, names: Sequence[str]) -> dict[str, Part]:
    """Divide a task's θ into one part for each tensor: Δ(θ)[name] = Δ(by_tensor(θ)[name]).

    Codes, positions and values are those of θ, cut where its layout says; a codebook over several
    tensors is repeated, and a sum is a sum for each tensor, with the status and gap of the whole.
    Exact but for the sign of a zero where a part of a sum is zero in one tensor and not in others.

    Parameters
    ----------
    theta : Part
        Of `Task.compression.project`, of NumPy arrays.
    names : sequence of str
        The task's tensors, in its order.

    Returns
    -------
    dict of name to Part

    Raises
    ------
    TypeError
        θ holds arrays of another kind than NumPy's, or a part of an unknown kind.
    """
    if isinstance(theta, Sum):
        terms = [by_tensor(part, names) for part in theta.parts]
        return {name: dataclasses.replace(theta, parts=tuple(term[name] for term in terms))
                for name in names}
    if isinstance(theta, ByTensor):
        return (dict(theta.parts) if isinstance(theta.parts, dict) else
                dict(zip(names, theta.parts)))
    _checked(theta)
    if (layout := getattr(theta, "layout", None)) is None:
        return dict(zip(names, [theta]))
    return dict(zip(layout.names or names, _cut(theta, layout)))


def _checked(part):
    if type(part) not in KINDS:
        raise TypeError(f"part, theta: inference knows {', '.join(k.__name__ for k in KINDS)} and "
                        f"their sums, not {type(part).__name__}")
    if not on_host(*(value for value in vars(part).values() if hasattr(value, "dtype"))):
        raise TypeError("inference from parts is for NumPy arrays: copy the parts to the host")


def _cut(theta, layout):
    """One part for each tensor of the layout."""
    pieces = list(zip(layout.offsets, layout.offsets[1:], layout.shapes))
    if isinstance(theta, Sparse):
        ends = np.searchsorted(theta.indices, layout.offsets)
        return [dataclasses.replace(theta, indices=theta.indices[a:b] - start,
                                    values=theta.values[a:b], shape=shape, layout=None)
                for a, b, (start, _, shape) in zip(ends, ends[1:], pieces)]
    kind = "codes" if isinstance(theta, Codebook) else "values"
    vector = getattr(theta, kind)
    return [dataclasses.replace(theta, layout=None, **{kind: vector[a:b].reshape(shape)})
            for a, b, shape in pieces]


def _terms(part):
    """The single parts of a sum, checked."""
    if isinstance(part, Sum):
        return [term for p in part.parts for term in _terms(p)]
    _checked(part)
    return [part]


# ----- what is multiplied --------------------------------------------------------------------

class Weight:
    """The weights of one layer as parts: W x = Σ of the parts' products.

    Parameters
    ----------
    part : Part
        Of one tensor, float32 or float64: (out, in), or (out, in, kernel_height, kernel_width).

    Attributes
    ----------
    part : Part
    shape, ndim, dtype
        Of the tensor.
    operations : (int, int)
        Multiplications and additions, see `operations`.

    Raises
    ------
    TypeError
        Arrays of another kind than NumPy's, a part of an unknown kind, or another dtype.
    ValueError
        A tensor with other than 2 or 4 axes.

    Notes
    -----
    Rounding. With u the unit roundoff, N = in · kernel_height · kernel_width, k entries or rank r,
    and m parts, the error is at most about (N + k + r + m) u Σ_p |Δ_p| |x|, where |left| |right|
    stands for the |Δ_p| of low rank. A codebook adds up all buckets but one, the fullest, whose
    sum is that of all inputs, s, less the others':

        Σ_c e_c s_c = e_0 s + Σ_{c ≠ 0} (e_c − e_0) s_c

    which saves at least 1/k of the additions, and half of them for one bit. There 3 max|e| Σ|x|
    stands for |Δ| |x|: as good where the entries are of one magnitude, as in ±a, and relative to
    ‖W‖ ‖x‖ always; but an output whose weights are all far smaller than the largest entry loses
    relative precision. Where an entry is 0, its bucket is the one left out, s is not needed, and
    the first bound holds. Inputs are to be finite: an infinite one may give a NaN.

    Memory beside the part, in float32: 4 bytes a value of a sparse part. Of a codebook with q of
    the weights in the buckets that are added up, 8 q bytes a weight, as much as the dense weight
    for one bit and twice that for many entries; with 128 outputs or more the sums of 8
    neighbouring inputs are shared, which for one bit takes 1 byte a weight, and 2 bytes where
    there are many inputs at a time (4 neighbours). These matrices are made when first needed.
    """

    def __init__(self, part: Part):
        terms = [term for term in _terms(part) if not term.is_zero]
        self.part = part
        self.shape, self.dtype = _shape_and_dtype(part)
        if self.dtype not in (np.float32, np.float64):
            raise TypeError(f"inference from parts takes float32 or float64, not {self.dtype}")
        if self.ndim not in (2, 4):
            raise ValueError(f"a layer's weights have 2 or 4 axes, not {self.ndim}")
        separable = [isinstance(term, LowRank) and term.scheme == 2 for term in terms]
        self._products = [KINDS[type(term)][0](term, self.shape[0])
                          for term, apart in zip(terms, separable) if not apart]
        self._separable = [_separable(term) for term, apart in zip(terms, separable) if apart]
        if not terms:
            self._products = [lambda x: np.zeros((self.shape[0], x.shape[1]), self.dtype)]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @functools.cached_property
    def operations(self) -> Counts:
        """(Multiplications, additions) for one output position, see `operations`."""
        return operations(self.part, self.shape)

    def affine(self, x: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
        """Return x Wᵀ + b.

        Parameters
        ----------
        x : NumPy array of shape (n, in), of the weights' dtype
        b : array of shape (out,), or None

        Returns
        -------
        array of shape (n, out)

        Raises
        ------
        TypeError, ValueError
            x is no NumPy array of the weights' dtype; it has another number of inputs.
        """
        self._check(x, b, 2, lambda: x.shape[1:] == self.shape[1:])
        out = np.empty((x.shape[0], self.shape[0]), self.dtype)

        def work(rows):
            y = self._sum(x[rows].T).T
            np.add(y, 0 if b is None else b, out=out[rows])
        in_blocks(work, x.shape[0], sum(self.shape))
        return out

    def conv2d(self, x: np.ndarray, b: np.ndarray | None = None, stride: int = 1,
               padding: int = 0) -> np.ndarray:
        """Return the convolution of a batch of images, as `lcref.nets.convolution.conv2d`.

        Parameters
        ----------
        x : NumPy array of shape (n, height, width, in), of the weights' dtype
        b : array of shape (out,), or None
        stride, padding : int, at least 1 and at least 0

        Returns
        -------
        array of shape (n, out_height, out_width, out)

        Raises
        ------
        TypeError, ValueError
            x is no NumPy array of the weights' dtype; the kernels do not fit it.
        """
        self._check(x, b, 4, lambda: x.shape[3] == self.shape[1] and min(out_size(
            x.shape[1:3], self.shape[2:], stride, padding)) >= 1)
        size = out_size(x.shape[1:3], self.shape[2:], stride, padding)
        out = np.empty((x.shape[0], *size, self.shape[0]), self.dtype)

        def work(block):    # channels first and images last: long runs of memory in every patch
            images = np.ascontiguousarray(pad(x[block], padding).transpose(3, 1, 2, 0))
            y = self._sum(images, stride).reshape(self.shape[0], *size, -1).transpose(3, 1, 2, 0)
            np.add(y, 0 if b is None else b, out=out[block])
        in_blocks(work, x.shape[0], size[0] * size[1] * int(np.prod(self.shape[1:])))
        return out

    def _check(self, x, b, axes, fits):
        array_of(x, "x")
        if not on_host(x) or x.dtype != self.dtype:
            raise TypeError(f"x: NumPy arrays of {self.dtype}, not {type(x).__name__} of {x.dtype}")
        if not (self.ndim == x.ndim == axes and fits()):
            raise ValueError(f"weights {self.shape} do not fit inputs of shape {x.shape} as x")
        together(b is None or array_of(b, "b") and b.shape == self.shape[:1], b=b, weights=self)

    def _sum(self, x, stride=1):
        """Σ of the products: x (in, m), or images (in, height, width, n), to (out, positions)."""
        y = [term(x, stride) for term in self._separable]
        if self._products:
            columns = x if self.ndim == 2 else _patches(x, self.shape[2:], (stride, stride))
            y += [term(columns) for term in self._products]
        return functools.reduce(lambda total, term: np.add(total, term, out=total), y)


def _shape_and_dtype(part):
    part = _terms(part)[0]
    if isinstance(part, Codebook):
        return part.codes.shape, part.entries.dtype
    if isinstance(part, Dense):
        return part.values.shape, part.values.dtype
    return part.shape, (part.left if isinstance(part, LowRank) else part.values).dtype


def _patches(images, kernel, stride):
    """The patches of (in, height, width, n) as columns, rows in the order of PyTorch's weights."""
    windows = sliding_window_view(images, kernel, (1, 2))[:, ::stride[0], ::stride[1]]
    return windows.transpose(0, 4, 5, 1, 2, 3).reshape(images.shape[0] * kernel[0] * kernel[1], -1)


def _in_columns(f, x, rows):
    """f of the columns of x, one by one where they are few, else as many as stay in the cache."""
    m = x.shape[1]
    pieces = m if m <= FEW else max(1, min(x.size // CACHED, m // (2 * FEW)))
    y, edges = np.empty((rows, m), x.dtype), np.linspace(0, m, pieces + 1).astype(int)
    for start, end in itertools.pairwise(edges):
        y[:, start:end] = f(np.ascontiguousarray(x[:, start:end]))
    return y


# ----- codebook ------------------------------------------------------------------------------

def _codebook(part, out):
    """The buckets' sums, times e_c − e_0, and e_0 times the sum of all inputs, see Weight."""
    codes, entries = part.codes.reshape(out, -1), part.entries
    counts = [np.count_nonzero(codes == c) for c in range(entries.size)]
    rest = int(np.argmax(np.where(entries == 0, codes.size + 1, counts)))
    buckets = [c for c in range(entries.size) if counts[c] and c != rest]
    factors = np.asarray([entries[c] - entries[rest] for c in buckets], entries.dtype)
    select = functools.cache(functools.partial(_selection, codes, buckets, entries.dtype))

    def product(x):
        y = np.zeros((out, x.shape[1]), x.dtype)
        if buckets:
            g = _neighbours(out, x.shape[1])
            sums = select(g) @ _subset_sums(x, g)
            y = (factors @ sums.reshape(len(buckets), -1)).reshape(y.shape)
        return y + entries[rest] * x.sum(axis=0) if entries[rest] else y
    return lambda x: _in_columns(product, x, out)


def _neighbours(out, columns):
    """How many neighbouring inputs g to add up beforehand, in all their subsets, for all outputs.

    A bucket's sum then takes (1 − 2⁻ᵍ) / g additions an input in place of ½, and the table of
    the subsets 2ᵍ / g, which is too much for the cache where there are many columns.
    """
    if out < SHARING:
        return 1
    return 8 if columns == 1 else 4


def _selection(codes, buckets, dtype, g):
    """The matrix of ones that adds up the buckets: (buckets · out, subsets) times `_subset_sums`.

    Row (c, o) selects, of every g neighbouring inputs, the subset whose code is c in output o;
    member j is bit j of the subset's number; the empty subset, number 0, is left out.
    """
    groups = -(-codes.shape[1] // g)
    first = np.arange(groups, dtype=np.int32) * (2**g - 1) - 1
    indices, ends = [], [0]
    for c in buckets:
        subset = np.zeros((codes.shape[0], groups), np.int32)
        for j in range(min(g, codes.shape[1])):
            members = codes[:, j::g] == c
            subset[:, :members.shape[1]] += members * np.int32(1 << j)
        indices.append((subset + first)[subset > 0])
        ends += (ends[-1] + np.cumsum(np.count_nonzero(subset, axis=1))).tolist()
    columns = np.concatenate(indices)
    return _csr(np.ones(columns.size, dtype), columns, ends, groups * (2**g - 1))


def _csr(values, columns, ends, width):
    """A sparse matrix, with indices of 32 bits where they suffice, which is faster."""
    from scipy.sparse import csr_array
    index = np.int32 if max(values.size, width) < 2**31 else np.int64
    return csr_array((values, columns.astype(index), np.asarray(ends, index)),
                     shape=(len(ends) - 1, width))


def _subset_sums(x, g):
    """The sum of every nonempty subset of each g rows of x: (⌈in / g⌉ · (2ᵍ − 1), m)."""
    if g == 1:
        return x
    groups, m = -(-x.shape[0] // g), x.shape[1]
    members = np.concatenate([x, np.zeros((groups * g - x.shape[0], m), x.dtype)])
    members = members.reshape(groups, g, m)
    sums = np.empty((groups, 2**g - 1, m), x.dtype)     # by number, less 1
    for j in range(g):      # those whose last member is j: alone, and with each subset before
        n = 2**j - 1
        sums[:, n] = members[:, j]
        np.add(sums[:, :n], members[:, j:j + 1], out=sums[:, n + 1:2 * n + 1])
    return sums.reshape(-1, m)


def _codebook_counts(part, out):
    codes = part.codes.reshape(out, -1)
    sizes, kind = np.unique(np.abs(part.entries), return_inverse=True)
    kinds = kind.astype(np.uint16)[codes]
    products = sum(int(np.any(kinds == i, axis=1).sum())
                   for i, size in enumerate(sizes) if size not in (0, 1))
    return products, 0, np.count_nonzero((part.entries != 0)[codes], axis=1)


# ----- sparse, low rank, dense ---------------------------------------------------------------

def _positions(part):
    """Where the values are in the flattened tensor, ascending, in the order of values.ravel()."""
    if part.axis is None:
        return part.indices
    along = [np.arange(n) for n in part.shape]
    along[part.axis] = part.indices
    return np.ravel_multi_index(np.ix_(*along), part.shape).ravel()


def _sparse(part, out):
    inputs, at = int(np.prod(part.shape[1:])), _positions(part)
    ends = np.searchsorted(at, np.arange(out + 1) * inputs)
    matrix = _csr(part.values.ravel(), at % inputs, ends, inputs)
    return lambda x: _in_columns(matrix.__matmul__, x, out)


def _sparse_counts(part, out):
    inputs = int(np.prod(part.shape[1:]))
    return part.values.size, 0, np.bincount(_positions(part) // inputs, minlength=out)


def _low_rank(part, out):
    return lambda x: part.left @ (part.right @ x)


def _separable(part: LowRank) -> Callable[[np.ndarray, int], np.ndarray]:
    """Scheme 2: horizontal convolutions to r channels, then vertical ones."""
    out, _, height, width = part.shape     # left (out · height, r), right (r, in · width)
    left = part.left.reshape(out, height, -1).transpose(0, 2, 1).reshape(out, -1)   # (out, r · h)

    def product(images, stride):
        rows = part.right @ _patches(images, (1, width), (1, stride))
        rows = rows.reshape(rows.shape[0], images.shape[1], -1, images.shape[3])
        return left @ _patches(rows, (height, 1), (stride, 1))
    return product


def _low_rank_counts(part, out):
    rank, inputs = part.right.shape
    terms = part.left.size // out               # r, by scheme 2 r · kernel_height
    return (part.left.size + part.right.size, rank * (inputs - 1), np.full(out, terms))


def _dense(part, out):
    matrix = part.values.reshape(out, -1)
    return lambda x: matrix @ x


def _dense_counts(part, out):
    return part.values.size, 0, np.full(out, part.values.size // out)


# kind: (its product with columns, its multiplications, additions and terms of each output)
KINDS: dict[type, tuple[Callable, Callable]] = {
    Codebook: (_codebook, _codebook_counts), Sparse: (_sparse, _sparse_counts),
    LowRank: (_low_rank, _low_rank_counts), Dense: (_dense, _dense_counts)}


# ----- operations ----------------------------------------------------------------------------

def operations(part: Part, shape: Sequence[int]) -> Counts:
    """Count the (multiplications, additions) of a part for one output position.

        multiplications = Σ_parts M_p
        additions = Σ_parts A_p + Σ_o max(Σ_parts T_po − 1, 0)

    An output o is a sum of T_po terms from every part p, which takes one addition less than there
    are terms; A_p are the additions beside that.

    - Codebook: s_c is a sum of n_c inputs, n_c − 1 additions, and Σ_c entry_c s_c adds the used
      buckets; together one addition less than inputs, so T = the inputs whose entry is not 0.
      Entries ±a are a(s₊ − s₋), one product, and ±1 need none: M = Σ_o the number of magnitudes
      other than 0 and 1 among the entries of output o.
    - Sparse: M = the number of values, T those of output o.
    - LowRank of r: M = r(in + out), A = r(in − 1), T = r. By scheme 2 of a convolution, a
      horizontal and a vertical one: M = r(in · kernel_width + out · kernel_height), A =
      r(in · kernel_width − 1), T = r · kernel_height. A horizontal sum is counted once an output
      position, as is the case with stride 1 away from the border.
    - Dense: M = out · in, T = in, as `dense_operations`.

    A rank of 0 and no values cost nothing. Additions of a bias are not counted; nor does it
    matter here that `Weight` shares sums of neighbouring inputs between the outputs.

    Parameters
    ----------
    part : Part
        Of one tensor of NumPy arrays.
    shape : (out, in) or (out, in, kernel_height, kernel_width)

    Returns
    -------
    (int, int)

    Notes
    -----
    O(k · size) for a codebook of k entries.
    """
    products, inner, terms = 0, 0, np.zeros(shape[0], np.int64)
    for term in _terms(part):
        m, a, t = KINDS[type(term)][1](term, shape[0])
        products, inner, terms = products + m, inner + a, terms + t
    return products, inner + int(np.maximum(terms - 1, 0).sum())


def dense_operations(shape: Sequence[int]) -> Counts:
    """Count the (multiplications, additions) of a dense W: out · in, and out · (in − 1).

    in is that of W as a matrix, for a convolution in · kernel_height · kernel_width.

    Parameters
    ----------
    shape : (out, in) or (out, in, kernel_height, kernel_width)

    Returns
    -------
    (int, int)
    """
    size = int(np.prod(shape))
    return size, size - shape[0]


# ----- nets ----------------------------------------------------------------------------------

def from_parts(params: Mapping[str, np.ndarray], tasks: Sequence[Task],
               thetas: Mapping[int, Part]) -> dict[str, Any]:
    """Return the parameters of a net with a Weight in the place of each compressed tensor.

    `net.apply(from_parts(params, tasks, thetas), x)` and `nets.evaluate` run the net from its
    parts, for the logits of the net with Δ(θ) up to rounding; gradients are not to be had.

    Parameters
    ----------
    params : dict of name to NumPy array
        Those of the tasks' tensors are not read.
    tasks : sequence of Task
    thetas : dict of int to Part
        The part of each task by its index.

    Returns
    -------
    dict of name to Weight or array
        In the order of params. Tensors with other than 2 or 4 axes (a bias) are decompressed.

    Raises
    ------
    TypeError
        Arrays of another kind than NumPy's, or of other dtypes than float32 and float64.
    """
    named_arrays(params, "params", lambda value, name: None)
    named_parts(thetas)
    weights = {}
    for i, task in enumerate(tasks):
        for name, part in by_tensor(thetas[i], task.names).items():
            axes = len(_shape_and_dtype(part)[0])
            weights[name] = Weight(part) if axes in (2, 4) else part.decompress()
    return {name: weights.get(name, value) for name, value in params.items()}


def positions(net: Net) -> dict[str, int]:
    """Count the output positions at which one input meets each weight tensor of a net.

    1 for a fully connected layer, out_height · out_width for a convolution: the operations of the
    net for one input are Σ positions · operations. No product is computed.

    Parameters
    ----------
    net : Net

    Returns
    -------
    dict of name to int, for `net.weights`
    """
    noted = {name: _Noted(net.shapes[name]) for name in net.weights}
    rest = {name: np.zeros(shape, np.float32) for name, shape in net.shapes.items()
            if name not in noted}
    net.function({**rest, **noted}, np.zeros((1, *net.input_shape), np.float32), None)
    return {name: weight.positions for name, weight in noted.items()}


class _Noted:
    """Weights that note the number of output positions, and give zeros."""

    def __init__(self, shape):
        self.shape, self.positions = shape, 0

    def affine(self, x, b):
        self.positions += x.shape[0]
        return np.zeros((x.shape[0], self.shape[0]), x.dtype)

    def conv2d(self, x, b, stride, padding):
        size = out_size(x.shape[1:3], self.shape[2:], stride, padding)
        self.positions += size[0] * size[1]
        return np.zeros((x.shape[0], *size, self.shape[0]), x.dtype)

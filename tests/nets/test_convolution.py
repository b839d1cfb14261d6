"""The convolution, in both its texts, against sums over all products of integers."""
import functools

import numpy as np
import pytest
from autograd.test_util import check_grads
from hypothesis import given
from hypothesis import strategies as st
from plain_layers import (cast, convolution, integers, with_vjps_there, output_shape,
                          with_vjps)

from lcref.nets.convolution import conv2d

KERNELS = [(1, 1), (2, 2), (3, 3), (5, 5), (1, 3), (3, 1), (3, 2), (2, 5)]
CASES = [(image, kernel, stride, padding)
         for image in [(5, 7), (6, 4)] for kernel in KERNELS for stride in (1, 2, 3, 4)
         for padding in range(max(kernel))
         if min(a + 2 * padding - k for a, k in zip(image, kernel)) >= 0]
SMALL = [((1, 1), (3, 3), 1, 1), ((1, 1), (1, 1), 2, 0), ((1, 4), (3, 3), 2, 1),
         ((2, 1), (5, 5), 3, 2), ((3, 3), (3, 3), 1, 0), ((6, 6), (8, 8), 3, 2),
         ((10, 2), (14, 6), 3, 2), ((9, 9), (3, 3), 4, 0)]      # images under, or at, the kernel
WIDE = [((4, 4), (1, 1), 1, 1), ((4, 1), (1, 1), 2, 1), ((3, 3), (2, 2), 1, 2),
        ((3, 3), (2, 2), 3, 4), ((2, 3), (3, 3), 2, 3)]         # padding of the kernel or more


def arrays(image, kernel, stride, padding, n=2, channels=2, out=3, seed=0, draw=integers):
    rng = np.random.default_rng([seed, *image, *kernel, stride, padding])
    x, w = draw(rng, n, *image, channels), draw(rng, out, channels, *kernel)
    return x, w, draw(rng, out), draw(rng, *output_shape(x.shape, w.shape, stride, padding))


@functools.cache
def expected(case):
    *args, g = (a.astype(int).astype(object) for a in arrays(*case))
    return [a.tolist() for a in convolution(*args, g, *case[2:])]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.everywhere
@pytest.mark.parametrize("case", CASES + SMALL + WIDE, ids=str)
def test_convolution_and_its_gradients_are_exact_on_integers(case, dtype):
    *args, g = cast(arrays(*case), dtype)
    args += case[2:]
    y, *gradients = with_vjps_there(conv2d, args, (0, 1, 2), g)
    for one, exact in zip([y, *gradients], expected(case), strict=True):
        assert one.dtype == dtype and one.tolist() == exact


@pytest.mark.everywhere
@pytest.mark.parametrize("case", CASES[::7] + SMALL + WIDE, ids=str)
def test_each_gradient_is_the_same_when_it_is_the_only_one_asked_for(case):
    *args, g = arrays(*case)
    args += case[2:]
    for argnum in (0, 1, 2):
        _, gradient = with_vjps_there(conv2d, args, (argnum,), g)
        assert gradient.tolist() == expected(case)[1 + argnum]


@pytest.mark.everywhere
def test_a_convolution_without_bias_adds_none():
    case = (5, 7), (3, 3), 2, 1
    x, w, b, g = arrays(*case)
    y, dx, dw = with_vjps_there(conv2d, (x, w), (0, 1), g, stride=2, padding=1)
    exact = expected(case)
    assert (y + b).tolist() == exact[0] and [dx.tolist(), dw.tolist()] == exact[1:3]


def normal(rng, *shape):
    return rng.normal(size=shape)


@pytest.mark.parametrize("case", [((4, 5), (3, 3), 1, 1), ((5, 4), (2, 3), 2, 1),
                                  ((5, 5), (3, 3), 3, 2), ((4, 4), (1, 1), 2, 0)], ids=str)
@pytest.mark.parametrize("argnum", [0, 1, 2])
def test_the_gradients_of_a_convolution_agree_with_numerical_ones(case, argnum):
    x, w, b, _ = arrays(*case, draw=normal)
    check_grads(conv2d, argnum, modes=["rev"], order=1)(x, w, b, *case[2:])


@st.composite
def geometries(draw):
    kernel = draw(st.tuples(*[st.integers(1, 6)] * 2))
    padding = draw(st.integers(0, max(kernel)))
    image = tuple(draw(st.integers(max(1, k - 2 * padding), 9)) for k in kernel)
    return image, kernel, draw(st.integers(1, 4)), padding, draw(st.integers(1, 3)), \
        draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 99))


@pytest.mark.everywhere
@pytest.mark.away
@given(geometries(), st.sampled_from([np.float32, np.float64]))
def test_the_two_texts_of_a_convolution_agree_within_rounding(geometry, dtype):
    # a sum of m products in any order is off by at most m u Σ |products|; there are two of them
    stride, padding = geometry[2:4]
    *args, g = cast(arrays(*geometry, draw=normal), dtype)
    sizes = convolution(*(np.abs(a).astype(object) for a in (*args, g)), stride, padding)
    counts = convolution(*(np.ones(a.shape, int).astype(object) for a in (*args, g)),
                         stride, padding)
    args += stride, padding
    here, there = with_vjps(conv2d, args, (0, 1, 2), g), with_vjps_there(
        conv2d, args, (0, 1, 2), g)
    for a, b, size, count in zip(here, there, sizes, counts, strict=True):
        bound = (count + 1) * size * float(np.finfo(dtype).eps)
        assert a.shape == b.shape and (np.abs(a.astype(float) - b) <= bound).all()


@pytest.mark.parametrize("stride, padding", [(1, 1), (2, 1), (3, 0), (1, 3)])
def test_a_convolution_takes_views_and_leaves_them_as_they_were(stride, padding):
    case = (5, 6), (3, 3), stride, padding
    x, w, b, g = arrays(*case)
    views = (x.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1), np.repeat(w, 2, axis=1)[:, ::2],
             b[::-1].copy()[::-1], g.T.copy().T)
    assert not any(v.flags.c_contiguous for v in views)
    copies = [v.copy() for v in views]
    for v in views:
        v.flags.writeable = False       # a write is an error
    results = with_vjps(conv2d, (*views[:3], stride, padding), (0, 1, 2), views[3])
    assert [r.tolist() for r in results] == expected(case)
    for v, copy in zip(views, copies):
        np.testing.assert_array_equal(v, copy)


@pytest.mark.parametrize("argnums", [(0, 1), (1,), (0,)])
def test_the_rows_of_a_batch_do_not_meet(argnums):
    """One image alone gives what it gives among others, and gradients of weights add up."""
    x, w, b, g = arrays((6, 5), (3, 3), 1, 1, n=5)
    whole = with_vjps(conv2d, (x, w, b, 1, 1), argnums, g)
    one = [with_vjps(conv2d, (x[i:i + 1], w, b, 1, 1), argnums, g[i:i + 1]) for i in range(5)]
    assert whole[0].tolist() == np.concatenate([r[0] for r in one]).tolist()
    for a, argnum in enumerate(argnums, 1):
        join = np.concatenate if argnum == 0 else sum
        assert whole[a].tolist() == join([r[a] for r in one]).tolist()


@pytest.mark.parametrize("image, channels", [((5, 7), 3), ((2, 7), 2), ((5, 2), 2)])
def test_images_that_do_not_fit_the_kernels_are_refused_with_both_shapes(image, channels):
    x, w = np.zeros((2, *image, channels)), np.zeros((4, 2, 3, 3))
    shape = rf"{image[0]}, {image[1]}, {channels}\)"
    with pytest.raises(ValueError, match=rf"\(4, 2, 3, 3\) .* {shape}"):
        conv2d(x, w)

"""The parts by hand-worked examples, and their bits against the published sizes and a real code."""

import math
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import moved, on_host, there


from lcref import parts as of_lcref
from lcref.parts import (ByTensor, Codebook, Dense, Layout, LowRank, Sparse, Sum, add, combine,
                         leaves, storage_bits)

pytestmark = pytest.mark.everywhere
position_code = there(of_lcref.position_code)

TWO = Layout(("a", "b"), ((2, 2), (3,)))  # a vector of 4 + 3
LIST = Layout(None, TWO.shapes)  # the same of a list


@there
def made(part):
    """The part, which decompresses and counts its bits where the test computes."""
    return part


def codebook(codes, entries, **options):
    return made(Codebook(np.asarray(codes, dtype=np.uint8), np.asarray(entries, dtype=np.float64),
                         **options))


def sparse(indices, values, shape, **options):
    return made(Sparse(np.asarray(indices, dtype=np.int64), np.asarray(values, dtype=np.float64),
                       shape, **options))


def slices(indices, values, shape, axis):
    return sparse(indices, values, shape, axis=axis)


def low_rank(left, right, shape):
    return made(LowRank(np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64),
                        shape))


def equal(found, expected):
    """The same arrays, in the same shapes, or the same lists or dicts of them in the same order."""
    if isinstance(expected, (dict, list)):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for one, other in zip(leaves(found), leaves(expected)):
            equal(one, other)
        assert not isinstance(found, dict) or list(found) == list(expected)
    else:
        np.testing.assert_array_equal(on_host(found), np.asarray(expected), strict=True)


# ---- Δ(θ)

DECOMPRESSED = {
    "a codebook looks its codes up": (
        codebook([[0, 1, 1], [2, 0, 1]], [-1.5, 0.25, 4]), [[-1.5, 0.25, 0.25], [4, -1.5, 0.25]]),
    "a codebook of several tensors is split": (
        codebook([0, 1, 1, 0, 1, 0, 0], [-2, 3], layout=TWO),
        {"a": np.array([[-2.0, 3], [3, -2]]), "b": np.array([3.0, -2, -2])}),
    "corrections are zero but at their positions": (
        sparse([0, 4, 5], [7, -1, 2], (2, 3)), [[7.0, 0, 0], [0, -1, 2]]),
    "no corrections are zero": (sparse([], [], (2, 2)), np.zeros((2, 2))),
    "corrections of several tensors are split": (
        sparse([1, 6], [5, -8], (7,), layout=TWO),
        {"a": np.array([[0.0, 5], [0, 0]]), "b": np.array([0, 0, -8.0])}),
    "slices are rows": (
        slices([0, 2], [[1, 2], [3, 4]], (4, 2), 0), [[1.0, 2], [0, 0], [3, 4], [0, 0]]),
    "slices are columns": (
        slices([1, 2], [[1, 2], [3, 4]], (2, 4), 1), [[0.0, 1, 2, 0], [0, 3, 4, 0]]),
    "slices of three axes": (
        slices([1], [[[5], [6]]], (1, 2, 3), 2), [[[0.0, 5, 0], [0, 6, 0]]]),
    "slices of a vector are its entries": (slices([3], [7], (4,), 0), [0.0, 0, 0, 7]),
    "all slices are the weights": (slices([0, 1], [[1, 2], [3, 4]], (2, 2), 0), [[1.0, 2], [3, 4]]),
    "no slices are zero": (slices([], np.zeros((2, 0)), (2, 3), 1), np.zeros((2, 3))),
    "low rank is the product of its factors": (
        low_rank([[1, 0], [2, 1]], [[1, 2, 3], [4, 5, 6]], (2, 3)), [[1.0, 2, 3], [6, 9, 12]]),
    "low rank has the shape of the weights": (
        low_rank([[1], [2]], [[1, 2, 3, 4]], (2, 2, 2)), [[[1.0, 2], [3, 4]], [[2, 4], [6, 8]]]),
    "rank 0 is zero": (low_rank(np.zeros((2, 0)), np.zeros((0, 3)), (2, 3)), np.zeros((2, 3))),
    "dense weights are themselves": (Dense(np.array([[1.0, 2]])), [[1.0, 2]]),
    "dense weights of several tensors are split": (
        Dense(np.arange(7.0), TWO), {"a": np.array([[0.0, 1], [2, 3]]), "b": np.array([4.0, 5, 6])}
    ),
    "a part a tensor is a dict of them": (
        ByTensor({"a": codebook([1, 0], [3, 4]), "b": sparse([1], [2], (2,))}),
        {"a": np.array([4.0, 3]), "b": np.array([0.0, 2])}),
    "a sum adds its parts": (
        Sum((codebook([0, 1, 1], [-1, 1]), sparse([2], [0.5], (3,)), sparse([0], [4.0], (3,))),
            "exact", 0.0), [3.0, 1, 1.5]),
    "a sum of several tensors adds name by name": (
        Sum((ByTensor({"a": codebook([[1, 0], [0, 0]], [3, 4]), "b": codebook([0, 0, 1], [0, 9])}),
             sparse([0, 6], [0.5, -9], (7,), layout=TWO)), "exact", 0.0),
        {"a": np.array([[4.5, 3], [3, 3]]), "b": np.array([0.0, 0, 0])}),
    "a codebook of a list of arrays is split": (
        codebook([0, 1, 1, 0, 1, 0, 0], [-2, 3], layout=LIST),
        [np.array([[-2.0, 3], [3, -2]]), np.array([3.0, -2, -2])]),
    "corrections of a list of arrays are split": (
        sparse([1, 6], [5, -8], (7,), layout=LIST),
        [np.array([[0.0, 5], [0, 0]]), np.array([0, 0, -8.0])]),
    "dense weights of a list of one array are a list": (
        Dense(np.arange(3.0), Layout(None, ((3,),))), [np.array([0.0, 1, 2])]),
    "a part an array is a list of them": (
        ByTensor([slices([1], [[5, 6]], (2, 2), 0), sparse([1], [2], (2,))]),
        [np.array([[0.0, 0], [5, 6]]), np.array([0.0, 2])]),
    "a sum of lists of arrays adds them one by one": (
        Sum((ByTensor([codebook([[1, 0], [0, 0]], [3, 4]), codebook([0, 0, 1], [0, 9])]),
             sparse([0, 6], [0.5, -9], (7,), layout=LIST)), "exact", 0.0),
        [np.array([[4.5, 3], [3, 3]]), np.array([0.0, 0, 0])]),
}


def placed(part, place):
    """The same part with its arrays moved to another place."""
    return moved(part, place)


@pytest.mark.parametrize("example", DECOMPRESSED)
def test_decompressing_is_the_hand_worked(example, place):
    part, expected = DECOMPRESSED[example]
    several = isinstance(expected, dict) or isinstance(expected[0], np.ndarray)
    equal(placed(part, place).decompress(), expected if several else np.asarray(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("example", DECOMPRESSED)
def test_decompressing_keeps_the_dtype(example, dtype, place):
    part, _ = DECOMPRESSED[example]
    delta = placed(part, lambda x: place(x.astype(dtype) if x.dtype.kind == "f" else x))
    delta = delta.decompress()
    for dense in leaves(delta):
        assert on_host(dense).dtype == dtype


def test_a_sum_with_one_part_that_is_not_zero_keeps_the_sign_of_its_zeros():
    live = sparse([0, 1], [-0.0, 3], (3,))
    zeros = [sparse([], [], (3,)), low_rank(np.zeros((3, 0)), np.zeros((0, 1)), (3,))]
    for parts in ((live, *zeros), (zeros[0], live, zeros[1]), (*zeros, live)):
        delta = Sum(parts, "exact", 0.0).decompress()
        assert delta.tobytes() == np.array([-0.0, 3, 0]).tobytes()


def test_a_sum_of_zeros_is_zero():
    parts = sparse([], [], (3,)), low_rank(np.zeros((3, 0)), np.zeros((0, 1)), (3,))
    equal(Sum(parts, "exact", 0.0).decompress(), np.zeros(3))


SHAPES = st.lists(st.lists(st.integers(0, 3), max_size=3).map(tuple), min_size=1, max_size=4)


@given(SHAPES)
def test_tensors_joined_and_split_are_themselves(shapes):
    sizes = [math.prod(shape) for shape in shapes]
    ends = list(accumulate(sizes))
    tensors = {f"t{i}": np.arange(end - n, end, dtype=np.float64).reshape(shape)
               for i, (n, end, shape) in enumerate(zip(sizes, ends, shapes))}
    layout = Layout.of(tensors)
    join, split = there(layout.join), there(layout.split)
    equal(join(tensors), np.arange(sum(sizes)) * 1.0)  # end to end, in the order of names
    equal(split(join(tensors)), tensors)
    assert layout.offsets == (0, *ends)
    listed = Layout.of(list(tensors.values()))
    join, split = there(listed.join), there(listed.split)
    equal(split(join(list(tensors.values()))), list(tensors.values()))


def test_tensors_of_several_dtypes_have_no_layout():
    arrays = [np.zeros(2, dtype=np.float32), np.zeros(2)]
    for tensors, names in ((arrays, "0 float32, 1 float64"),
                           (dict(zip("ab", arrays)), "a float32, b float64")):
        with pytest.raises(ValueError, match=f"one dtype, not {names}"):
            Layout.of(tensors)


@pytest.mark.parametrize("nothing", [{}, []])
def test_no_tensors_have_no_layout(nothing):
    with pytest.raises(ValueError, match="no tensors"):
        Layout.of(nothing)


@pytest.mark.parametrize("make, kind", [(lambda *arrays: arrays[0], None), (lambda *a: [*a], list),
                                        (lambda *a: dict(zip("ba", a)), dict)])
def test_arrays_are_combined_and_added_one_by_one_in_their_order(make, kind):
    x, y, z = (make(np.array([1.0, i]), np.array([[10.0 * i]])) for i in (1, 2, 4))
    count = 2 if kind else 1
    equal(combine(lambda a, b: a - b, z, y),
          make(np.array([0.0, 2]), np.array([[20.0]])))
    equal(add([x, y, z]), make(np.array([3.0, 7]), np.array([[70.0]])))
    equal(leaves(x), [np.array([1.0, 1]), np.array([[10.0]])][:count])


def test_the_status_of_a_part_a_tensor_is_the_weakest_of_them():
    order = "exact", "certified", "stationary", "unconverged"  # from the strongest claim down
    zero = sparse([], [], (1,))
    for i, strong in enumerate(order):
        for weak in order[i:]:
            for pair in ((strong, weak), (weak, strong)):
                parts = {status + str(j): Sum((zero, zero), status, 0.0)
                         for j, status in enumerate(pair)}
                assert ByTensor(parts).status == weak


def test_the_gap_of_a_part_a_tensor_is_the_sum_of_the_gaps():
    zero = sparse([], [], (1,))
    parts = {gap: Sum((zero, zero), "certified", gap) for gap in (0.5, 0.25)}
    assert ByTensor(parts).gap == ByTensor(list(parts.values())).gap == 0.75


def test_a_part_a_tensor_is_zero_where_all_of_them_are():
    zero, one = sparse([], [], (1,)), sparse([0], [1], (1,))
    for make in (list, lambda parts: dict(enumerate(parts))):
        assert ByTensor(make([zero, zero])).is_zero
        assert not ByTensor(make([zero, one])).is_zero


# ---- bits

LENET300 = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}, 410
LENET5 = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}, 580
RESNET20 = ({f"conv{i}": (out, inside, 3, 3) for i, (out, inside) in enumerate(
    [(16, 3)] + 6 * [(16, 16)] + [(32, 16)] + 5 * [(32, 32)] + [(64, 32)] + 5 * [(64, 64)])}
    | {"linear": (10, 64)}), 269_722 - 268_336


def quantized(net, k):
    """(params, a codebook of k entries, all used, for each weight tensor)."""
    shapes, others = net
    params = {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}
    parts = {name: codebook(np.arange(p.size).reshape(p.shape) % k, np.arange(k))
             for name, p in params.items()}
    return {**params, "others": np.zeros(others, dtype=np.float32)}, ByTensor(parts)


def ratio(params, names, parts, convention="float32"):
    full = 32 * sum(p.size for p in params.values())
    return full / storage_bits(params, names, parts, convention)


@pytest.mark.parametrize("net, k, published", [
    (LENET300, 2, 30.52), (LENET5, 2, 30.70), (LENET300, 4, 15.63), (LENET300, 8, 10.50),
    (LENET300, 16, 7.90), (LENET300, 32, 6.33), (LENET300, 64, 5.28)])
def test_a_codebook_a_layer_has_the_published_ratio(net, k, published):
    params, part = quantized(net, k)
    # to the two decimals that are published
    assert ratio(params, net[0], [part]) == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize("percent, half, full", [
    (1, 22.70, 20.40), (2, 19.59, 16.40), (3, 17.27, 13.74), (5, 14.09, 10.43)])
def test_one_bit_and_corrections_of_resnet20_have_the_published_ratios(percent, half, full):
    params, bit = quantized(RESNET20, 2)
    n = sum(math.prod(shape) for shape in RESNET20[0].values())
    assert (len(RESNET20[0]), n) == (20, 268_336)
    kappa = n * percent // 100
    positions = np.sort(np.random.default_rng(percent).permutation(n)[:kappa])
    corrections = sparse(positions, np.ones(kappa), (n,))
    both = [Sum((bit, corrections), "exact", 0.0)]
    # The published numbers are for random positions, of which these are one draw: the ratio moves
    # by less than 0.02 from draw to draw.
    assert ratio(params, RESNET20[0], both, "float16") == pytest.approx(half, abs=0.02)
    assert ratio(params, RESNET20[0], both, "float32") == pytest.approx(full, abs=0.02)


@pytest.mark.parametrize("codes, k, bits", [
    ([0, 0, 0], 1, 32), ([0, 1, 0], 2, 3 + 64), ([0, 1, 2], 3, 6 + 96),
    ([0, 1, 2, 3], 4, 8 + 128), ([0, 1, 2, 3, 4], 5, 15 + 160)])
def test_a_codebook_costs_log2_k_bits_a_code_and_its_entries(codes, k, bits):
    assert codebook(codes, range(k)).bits() == bits


def test_a_codebook_is_charged_for_the_entries_that_are_really_used():
    # of 8 entries 3 occur: 2 bits for each of 4 codes, and 3 entries
    assert codebook([0, 5, 5, 7], range(8)).bits() == 4 * 2 + 3 * 32


@pytest.mark.parametrize("stored, bits", [("free", 2 * 32), ("scaled", 32), ("fixed", 0)])
def test_a_fixed_codebook_costs_nothing_and_a_scaled_one_its_scale(stored, bits):
    assert codebook([0, 1, 1, 0, 1], [-1, 1], stored=stored).bits() == 5 + bits


def test_corrections_are_at_16_or_32_bits_and_their_positions_cost_the_same():
    # positions 2, 3, 9: gaps 2, 0, 5. Two bits a code: 2; 0; 3 further, no value, 2: 8 bits.
    # Three bits: 9. One bit, each 1 a zero further: 2 + 1, 0 + 1, 5 + 1: 10.
    corrections = sparse([2, 3, 9], [1, 1, 1], (20,))
    assert corrections.bits("float16") == 3 * 16 + 8
    assert corrections.bits("float32") == 3 * 32 + 8


def test_no_corrections_cost_nothing():
    assert sparse([], [], (1000,)).bits("float16") == 0


def test_low_rank_costs_both_of_its_factors():
    part = low_rank(np.ones((5, 2)), np.ones((2, 7)), (5, 7))
    assert part.bits("float16") == 16 * 2 * (5 + 7)
    assert part.bits("float32") == 32 * 2 * (5 + 7)


def test_dense_weights_cost_32_bits_each_in_every_convention():
    assert [Dense(np.ones((3, 2))).bits(c) for c in ("float16", "float32")] == [192, 192]


def test_slices_cost_their_values_and_the_positions_of_slices_not_of_weights():
    # slices 2, 3, 9 of 5 numbers: 8 bits of positions, as of single corrections above
    part = slices([2, 3, 9], np.ones((5, 3)), (5, 20), 1)
    assert part.bits("float16") == 15 * 16 + 8
    assert part.bits("float32") == 15 * 32 + 8
    assert slices([], np.ones((5, 0)), (5, 20), 1).bits() == 0


def test_slices_are_zero_by_construction_where_there_are_none():
    assert slices([], np.ones((5, 0)), (5, 20), 1).is_zero
    assert not slices([0], np.zeros((5, 1)), (5, 20), 1).is_zero


def test_rounded_weights_cost_their_width_in_every_convention():
    part = Dense(np.ones((3, 2)), width=16)
    assert [part.bits(c) for c in ("float16", "float32")] == [96, 96]


def test_a_sum_and_a_part_a_tensor_cost_all_their_parts():
    bit, corrections = codebook([0, 1, 1], [-1, 1]), sparse([0], [4.0], (3,))
    # 3 codes and 2 entries; one value at half precision and its position in 1 bit
    assert Sum((bit, corrections), "exact", 0.0).bits("float16") == (3 + 64) + (16 + 1)
    assert ByTensor({"a": bit, "b": corrections}).bits("float16") == (3 + 64) + (16 + 1)
    assert ByTensor([bit, corrections]).bits("float16") == (3 + 64) + (16 + 1)


def test_untouched_tensors_count_in_full_in_every_convention():
    params = {"w": np.zeros((2, 2)), "bias": np.zeros(5), "mean": np.zeros(3)}
    for convention in ("float16", "float32"):
        assert storage_bits(params, ["w"], [sparse([], [], (4,))], convention) == 8 * 32


@pytest.mark.parametrize("part", [
    codebook([0], [1]), sparse([], [], (1,)), slices([], [], (1,), 0), Dense(np.ones(1))])
def test_an_unknown_convention_is_an_error_that_names_the_known_ones(part):
    with pytest.raises(ValueError, match="float16.*float32.*'float8'"):
        part.bits("float8")


# ---- a real code for positions

def encode(positions, b):
    """A stream of codes of b bits: a gap below 2ᵇ − 1 is a value, 2ᵇ − 1 is that far, no value."""
    stream, at = "", -1
    for position in positions:
        zeros = position - at - 1
        while zeros >= 2**b - 1:
            stream += "1" * b
            zeros -= 2**b - 1
        stream += format(zeros, f"0{b}b")
        at = position
    return stream


def decode(stream, b):
    positions, at = [], -1
    for i in range(0, len(stream), b):
        code = int(stream[i:i + b], 2)
        at += code if code == 2**b - 1 else code + 1
        if code < 2**b - 1:
            positions.append(at)
    return positions


POSITIONS = st.one_of(
    st.sets(st.integers(0, 40)), st.sets(st.integers(0, 3000), max_size=8),
    st.integers(0, 9).map(lambda e: {2**e - 1, 2**e, 2**(e + 1)})).map(sorted)


@given(POSITIONS)
def test_the_bits_of_positions_are_the_length_of_the_shortest_stream(positions):
    shortest = min((encode(positions, b) for b in range(1, 14)), key=len)  # 2¹³ is over every gap
    assert math.prod(position_code(np.array(positions, dtype=np.int64))) == len(shortest)


@given(POSITIONS, st.integers(1, 13))
def test_every_stream_of_positions_decodes_to_them(positions, b):
    assert decode(encode(positions, b), b) == positions


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=3))
def test_positions_in_several_tensors_are_those_of_the_tensors_end_to_end(tensors):
    """A value that is last, or else first, in each tensor: gaps run on from tensor to tensor."""
    sizes = [n for n, _ in tensors]
    starts = [0, *accumulate(sizes)]
    positions = [start + (n - 1 if last else 0) for start, (n, last) in zip(starts, tensors)]
    layout = Layout(tuple(f"t{i}" for i in range(len(sizes))), tuple((n,) for n in sizes))
    part = sparse(positions, np.ones(len(positions)), (sum(sizes),), layout=layout)
    shortest = min(len(encode(positions, b)) for b in range(1, 14))
    assert part.bits("float16") == 16 * len(positions) + shortest

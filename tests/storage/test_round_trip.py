"""Packed and unpacked: the same net to the last bit, at the bits that a count by hand gives."""

import math
import os
from pathlib import Path

import array_api_strict
import numpy as np
import plain_reader
import pytest
from compared import on_host, same_bits
from hypothesis import given
from hypothesis import strategies as st

from lcref import (Each, LowRank, Prune, Quantize, Round, Sum, Task, direct_compression, nets,
                   parse, parts)
from lcref.nets.checkpoints import read_params
from lcref.storage import convention, load, pack, unpack, with_storage

MU = 2.5
WIDTHS = {"float32": 32, "float16": 16}

# ---- nets and tasks

ANY = ["quantize(k=1)", "quantize(k=2)", "quantize(k=3)", "quantize(k=5)", "quantize(k=300)",
       "quantize(codebook=[-1, 0.1, 2])", "quantize(codebook=[0.3])", "quantize(codebook=[0])",
       "quantize(codebook=[-1, 0.1, 2], scale=True)", "quantize(codebook=[-3, 1, 3], scale=True)",
       "quantize(codebook=[0], scale=True)", "quantize(codebook=[-2], scale=True)",
       "binary()", "binary(scale=True)", "ternary()", "ternary(scale=True)", "powersoftwo(c=0)",
       "powersoftwo(c=3)", "round(dtype='float16')", "round(dtype='bfloat16')",
       *(f"round(dtype='int{bits}')" for bits in range(2, 9)),
       "prune(kappa=0)", "prune(kappa=1)", "prune(kappa=3)", "prune(kappa=1000)",
       "prune(keep=0.0)", "prune(keep=0.3)", "prune(keep=1.0)", "prune(radius=0)",
       "prune(radius=1.5)", "prune(radius=1e9)", "prune(alpha=0)", "prune(alpha=0.6)",
       "prune(alpha=0.6, norm=1)"]
MATRIX = ["lowrank(rank=0)", "lowrank(rank=1)", "lowrank(rank=2)", "lowrank(rank=99)",
          "lowrank(rank=1, scheme=2)", "lowrank(rank=3, scheme=2)", "lowrank(alpha=0.1)",
          "lowrank(alpha=0.05, cost='flops', positions=3)"]
CORRECTIONS = ["prune(kappa=0)", "prune(kappa=2)", "prune(keep=0.3)", "prune(kappa=1000)"]
CORRECTABLE = ["quantize(k=2)", "quantize(k=3)", "binary()", "binary(scale=True)", "ternary()",
               "powersoftwo(c=1)", "quantize(codebook=[-1, 0.1, 2])"]
NAMES = ["a", "a.b", "a.b.c", "fc1.weight", "fc1.bias", "conv", ".", "x..y", "Ω.λ", "b", "fc1"]
VALUES = [0.0, -0.0, 1.0, -1.0, 0.5, 0.5, -0.5, 0.1, 2.0**-24, -2.0**-26, 3.0, 1e5, -70000.0, 1e-40]


@st.composite
def tensors(draw):
    """float32 of 1 to 4 axes: empty, one weight, all zero, ties of few values, or any values."""
    shape = draw(st.one_of(
        st.lists(st.integers(0, 4), min_size=1, max_size=4),
        st.lists(st.integers(1, 4), min_size=2, max_size=2),
        st.lists(st.integers(1, 3), min_size=4, max_size=4),
        st.just([1]), st.just([0]), st.just([70])))
    n = math.prod(shape)
    kind = draw(st.sampled_from(["pool", "pool", "zero", "normal", "float"]))
    if kind == "zero":
        values = np.zeros(n)
    elif kind == "normal":
        values = np.random.default_rng(draw(st.integers(0, 99))).standard_t(2, size=n)
    else:
        entry = st.sampled_from(VALUES) if kind == "pool" else st.floats(-999, 999, width=32)
        few = draw(st.lists(entry, min_size=1, max_size=8))
        values = np.resize(few, n)
    return np.asarray(values, np.float32).reshape(shape)


@st.composite
def slices(draw, shapes):
    axis = draw(st.integers(-min(map(len, shapes)), min(map(len, shapes)) - 1))
    if len({len(s) for s in shapes}) > 1 and axis < 0:
        axis = 0
    rule = draw(st.sampled_from(["groups=0", "groups=1", "groups=2", "groups=99", "keep=0.5"]))
    return f"prune({rule}, axis={axis})"


@st.composite
def singles(draw, shapes):
    """The text of one compression that these shapes allow."""
    choices = [st.sampled_from(ANY)]
    if all(len(s) in (2, 4) for s in shapes):
        choices += [st.sampled_from(MATRIX)] * 2
    if all(shapes):
        choices += [slices(shapes)]
    return draw(st.one_of(choices))


@st.composite
def compressions(draw, shapes):
    """The text of a compression: one, each of one, or a sum of them."""
    one = singles(shapes)

    def perhaps_each(text):
        return f"each({text})" if draw(st.booleans()) else text
    kind = draw(st.sampled_from(["one", "each", "exact", "alternated", "three", "each sum"]))
    if kind in ("one", "each"):
        text = draw(one)
        return f"each({text})" if kind == "each" else text
    if kind == "exact":
        pair = [perhaps_each(draw(st.sampled_from(CORRECTABLE))),
                draw(st.sampled_from(CORRECTIONS))]
        return " + ".join(draw(st.permutations(pair)))
    count = 3 if kind == "three" else 2
    terms = ", ".join(perhaps_each(draw(one)) for _ in range(count))
    text = f"sum({terms}, cycles={draw(st.integers(1, 3))}, solver='alternate')"
    return f"each({text})" if kind == "each sum" else text


@st.composite
def problems(draw):
    """(params, tasks): some tensors in tasks, the others in none."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    params = {name: draw(tensors()) for name in names}
    free, tasks = draw(st.permutations(names)), []
    storage = draw(st.sampled_from(["float32", "float16"]))
    while free and draw(st.booleans() if tasks else st.integers(0, 9)):
        mine, free = free[:(m := draw(st.integers(1, len(free))))], free[m:]
        text = draw(compressions([params[name].shape for name in mine]))
        tasks.append(Task(tuple(mine), with_storage(parse(text), storage)))
    return params, tasks


# ---- what is compared

def solved(params, tasks):
    return {i: t.compression.project({name: params[name] for name in t.names}, MU)
            for i, t in enumerate(tasks)}


def decompressed(params, tasks, thetas):
    """The net with every tensor of a task replaced by Δ(θ)."""
    found = dict(params)
    for i, task in enumerate(tasks):
        delta = thetas[i].decompress()
        found |= delta if isinstance(delta, dict) else {task.names[0]: delta}
    return found


def leaves_of(part):
    """The parts that are no sum and no dict of parts."""
    if isinstance(part, (parts.Sum, parts.ByTensor)):
        inner = part.parts.values() if isinstance(part.parts, dict) else part.parts
        return [leaf for one in inner for leaf in leaves_of(one)]
    return [part]


def accounted(part, width):
    """Bits of a part, counted from its arrays alone."""
    if isinstance(part, parts.Codebook):
        used = len(set(on_host(part.codes).ravel().tolist()))
        a_code = next(b for b in range(64) if 2**b >= used)
        numbers = {"free": used, "scaled": int(used > 0), "fixed": 0}[part.stored]
        return on_host(part.codes).size * a_code + 32 * numbers
    if isinstance(part, parts.Sparse):
        at = [-1, *on_host(part.indices).tolist()]
        zeros = [j - i - 1 for i, j in zip(at, at[1:])]
        a_code = min((b * sum(1 + z // (2**b - 1) for z in zeros) for b in range(1, 40)))
        return on_host(part.values).size * width + a_code
    if isinstance(part, parts.LowRank):
        return (on_host(part.left).size + on_host(part.right).size) * width
    return on_host(part.values).size * part.width


def same_claims(one, other):
    """The same status and gap, of a sum and of each part of an Each."""
    assert (one.status, one.gap) == (other.status, other.gap)
    if isinstance(one, parts.ByTensor):
        for name in one.parts:
            same_claims(one.parts[name], other.parts[name])


def same_as_plain(data, found, exact):
    """What the plain reader finds, to the last bit where no product of factors is summed."""
    plain = plain_reader.dense(data)
    assert list(plain) == list(found)
    for name, (expected, room) in plain.items():
        assert found[name].shape == expected.shape
        if exact:
            same_bits(found[name], expected)
        else:
            apart = np.abs(found[name].astype(np.float64) - expected)
            assert np.all(apart <= room), name


# ---- on any net

@given(problems())
def test_what_is_unpacked_is_the_compressed_net_to_the_last_bit(problem):
    params, tasks = problem
    thetas = solved(params, tasks)
    model = unpack(pack(params, tasks, thetas, {"net": {"name": "any"}}))
    same_bits(model.decompress(), decompressed(params, tasks, thetas))
    assert model.shapes == {name: p.shape for name, p in params.items()}
    assert list(model.shapes) == list(params)
    assert list(map(str, model.tasks)) == list(map(str, tasks))
    assert list(model.thetas) == list(thetas)
    assert model.storage == convention(tasks)
    assert model.about == {"net": {"name": "any"}}


@given(problems())
def test_what_is_unpacked_makes_the_same_claims(problem):
    params, tasks = problem
    thetas = solved(params, tasks)
    model = unpack(pack(params, tasks, thetas))
    for i, theta in thetas.items():
        same_claims(theta, model.thetas[i])
        one, other = leaves_of(theta), leaves_of(model.thetas[i])
        assert [type(leaf) for leaf in one] == [type(leaf) for leaf in other]


@given(problems())
def test_the_payload_is_the_accounted_bits_of_each_part_filled_up_to_bytes(problem):
    params, tasks = problem
    thetas = solved(params, tasks)
    data = pack(params, tasks, thetas)
    taken = {name for task in tasks for name in task.names}
    untouched = sum(p.size for name, p in params.items() if name not in taken)
    width = WIDTHS[convention(tasks)]
    counts = [accounted(leaf, width) for theta in thetas.values() for leaf in leaves_of(theta)]
    assert len(plain_reader.members(data)[1]) == sum(-(-c // 8) for c in counts) + 4 * untouched
    model = unpack(data)
    assert model.bits() == sum(counts) + 32 * untouched
    for name, width in WIDTHS.items():
        counts = [accounted(leaf, width) for theta in thetas.values() for leaf in leaves_of(theta)]
        assert model.bits(name) == sum(counts) + 32 * untouched
        for i, theta in thetas.items():
            assert model.thetas[i].bits(name) == theta.bits(name)


@given(problems())
def test_packing_is_repeatable_and_writes_to_nothing(problem):
    params, tasks = problem
    thetas = solved(params, tasks)
    for p in params.values():
        p.flags.writeable = False
    arrays = [a for theta in thetas.values() for leaf in leaves_of(theta)
              for a in vars(leaf).values() if isinstance(a, np.ndarray)]
    before = [a.copy() for a in arrays]
    data = pack(params, tasks, thetas)
    assert pack(params, tasks, thetas) == data
    for one, other in zip(before, arrays, strict=True):
        same_bits(one, other)
    model = unpack(data)
    assert pack(model.decompress(), model.tasks, model.thetas, model.about) == data


@given(problems())
def test_a_plain_reader_of_the_format_finds_the_same_numbers(problem):
    params, tasks = problem
    thetas = solved(params, tasks)
    data = pack(params, tasks, thetas)
    exact = not any(isinstance(leaf, parts.LowRank) and leaf.left.shape[1]
                    for theta in thetas.values() for leaf in leaves_of(theta))
    same_as_plain(data, decompressed(params, tasks, thetas), exact)


# ---- by hand, of what is rare above

@pytest.mark.parametrize("text", [t for t in ANY if "300" not in t])
def test_a_tensor_of_no_axes_comes_back_the_same(text):
    for value in (0.7, -0.0):
        params = {"w": np.array(value, np.float32), "v": np.array(2, np.float32)}
        for names in ("w", ("v", "w")):
            task = Task(names, parse(text))
            thetas = solved(params, [task])
            model = unpack(pack(params, [task], thetas))
            same_bits(model.decompress(), {name: np.asarray(t) for name, t in decompressed(
                params, [task], thetas).items()})


W = np.random.default_rng(1).standard_t(2, size=(60, 40)).astype(np.float32)
KERNEL = np.random.default_rng(2).standard_t(2, size=(5, 4, 3, 2)).astype(np.float32)
EVERY = [*(text for text in ANY if text != "quantize(k=300)"), *MATRIX[:4],
         "prune(groups=7, axis=1)", "prune(keep=0.4, axis=0)",
         "each(quantize(k=2)) + prune(keep=0.03)", "lowrank(rank=2) + prune(keep=0.02)",
         "sum(lowrank(rank=2), binary(scale=True), prune(kappa=9), cycles=3)"]
for_every_storage = pytest.mark.parametrize("storage", ["float32", "float16"])


def round_trip(params, tasks):
    thetas = solved(params, tasks)
    data = pack(params, tasks, thetas)
    same_bits(unpack(data).decompress(), decompressed(params, tasks, thetas))
    return data


@for_every_storage
@pytest.mark.parametrize("text", EVERY)
def test_a_matrix_laid_out_by_columns_comes_back_the_same(text, storage):
    task = Task("w", with_storage(parse(text), storage))
    for w in (W, np.asfortranarray(W), W.T, W[::2, ::-1]):
        data, theta = round_trip({"w": w}, [task]), solved({"w": w}, [task])[0]
        for name, width in WIDTHS.items():
            assert unpack(data).bits(name) == sum(accounted(leaf, width)
                                                  for leaf in leaves_of(theta))
        same_as_plain(data, decompressed({"w": w}, [task], solved({"w": w}, [task])),
                      "lowrank" not in text)


@for_every_storage
@pytest.mark.parametrize("text", ["lowrank(rank=2)", "lowrank(rank=2, scheme=2)",
                                  "lowrank(rank=99, scheme=2)"])
def test_both_schemes_of_a_convolution_are_read_by_the_plain_reader(text, storage):
    for kernel in (KERNEL, np.ascontiguousarray(KERNEL.transpose(2, 3, 0, 1)).transpose(
            2, 3, 0, 1)):
        task = Task("w", with_storage(parse(text), storage))
        data = round_trip({"w": kernel}, [task])
        same_as_plain(data, unpack(data).decompress(), exact=False)


@pytest.mark.parametrize("axis", range(4))
def test_slices_along_every_axis_are_read_by_the_plain_reader(axis):
    data = round_trip({"w": KERNEL}, [Task("w", Prune(groups=1, axis=axis))])
    same_as_plain(data, unpack(data).decompress(), exact=True)


@pytest.mark.parametrize("n", [65_535, 65_536, 65_537, 131_072, 200_001])
def test_more_codes_than_are_packed_at_a_time_come_back(n):
    w = np.random.default_rng(n).standard_t(2, size=n).astype(np.float32)
    round_trip({"w": w}, [Task("w", Quantize(codebook=[-2, -1, 0, 1, 2]))])
    round_trip({"w": w}, [Task("w", Prune(kappa=n - 1))])
    data = round_trip({"w": w}, [Task("w", Quantize(codebook=[-1, 1]) + Prune(kappa=9))])
    same_as_plain(data, unpack(data).decompress(), exact=True)


@pytest.mark.parametrize("at", [[0], [299_999], [0, 299_999], [5, 6, 7], [131_071, 262_142]])
def test_corrections_far_from_one_another_come_back(at):
    w = np.zeros(300_000, np.float32)
    w[at] = 1.5
    data = round_trip({"w": w}, [Task("w", Prune(kappa=len(at)))])
    same_as_plain(data, unpack(data).decompress(), exact=True)


@pytest.mark.parametrize("k", [255, 256, 257, 300])
def test_codebooks_around_one_byte_a_code_come_back(k):
    w = np.arange(1000, dtype=np.float32)
    data = round_trip({"w": w}, [Task("w", Quantize(k=k))])
    same_as_plain(data, unpack(data).decompress(), exact=True)


def test_codes_of_a_codebook_whose_entries_are_not_all_used_are_those_of_the_used():
    w = np.array([2, -1, 2, 2], np.float32)
    task = Task("w", Quantize(codebook=[-1, 0, 1, 2]))
    data = round_trip({"w": w}, [task])
    assert plain_reader.members(data)[1] == bytes([0b10110000])
    assert plain_reader.members(data)[0]["tasks"][0]["theta"]["levels"] == [-1, 2]


@for_every_storage
def test_corrections_of_several_tensors_cross_from_one_to_the_next(storage):
    params = {"a": np.array([[0, 0], [0, 5]], np.float32), "b": np.zeros((0, 3), np.float32),
              "c": np.array([0, 0, -7, 0], np.float32)}
    task = Task(("c", "b", "a"), with_storage(Prune(kappa=2), storage))
    data = round_trip(params, [task])
    same_as_plain(data, params, exact=True)
    assert plain_reader.members(data)[0]["tasks"][0]["tensors"] == [2, 1, 0]


# ---- the storage

def test_the_storage_is_half_where_every_correction_and_factor_is():
    half, full = Prune(kappa=1, storage="float16"), LowRank(rank=1)
    texts = {"float16": [half, Each(half), half + Quantize(k=2), Each(Quantize(k=2) + half)],
             "float32": [full, Quantize(k=2), half + full, Each(full), Each(half + full)]}
    for expected, kinds in texts.items():
        for compression in kinds:
            assert convention([Task("w", compression)]) == expected, str(compression)
    assert convention([Task("w", half), Task("v", full)]) == "float32"
    assert convention([Task("w", half), Task("v", Quantize(k=2))]) == "float16"
    assert convention([]) == "float32"


def test_with_storage_changes_the_storage_of_every_part_and_nothing_else():
    text = ("sum(each(lowrank(rank=2{0})), prune(kappa=3{0}) + quantize(k=2), "
            "each(sum(binary(), prune(radius=1.0{0}), cycles=7)), restarts=True, tol=0.5)")
    full, half = parse(text.format("")), parse(text.format(", storage='float16'"))
    assert with_storage(full, "float16") == half
    assert with_storage(half, "float32") == full
    assert with_storage(half, "float16") == half
    for kept in (full, half):
        assert parse(str(kept)) == kept


def test_a_file_written_to_disk_is_loaded(tmp_path):
    task = Task("w", parse("lowrank(rank=2) + prune(kappa=3)"))
    params, thetas = {"w": W}, solved({"w": W}, [task])
    file = tmp_path / "model.npz"
    file.write_bytes(pack(params, [task], thetas))
    for name in (file, str(file)):
        same_bits(load(name).decompress(), decompressed(params, [task], thetas))


# ---- what is refused, and where arrays live

@pytest.mark.parametrize("text", ["quantize(k=2)", "quantize(codebook=[-1, 1])", "prune(kappa=1)",
                                  "lowrank(rank=1)", "round(dtype='float16')",
                                  "round(dtype='bfloat16')", "binary(scale=True)"])
def test_float64_parts_are_refused(text):
    params = {"w": np.array([[1.0, 2], [3, 4]])}
    task = Task("w", parse(text))
    with pytest.raises(ValueError, match="float32"):
        pack(params, [task], solved(params, [task]))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_untouched_tensors_that_are_not_float32_are_refused(dtype):
    with pytest.raises(ValueError, match="float32"):
        pack({"w": np.ones(3, dtype)}, [], {})


@pytest.mark.parametrize("text", ["prune(kappa=2)", "lowrank(rank=1)", "prune(groups=1, axis=0)",
                                  "quantize(k=1) + prune(kappa=1)"])
def test_what_was_not_rounded_is_refused_as_half(text):
    params = {"w": np.array([[0.1, 0.2], [0.3, 1e6]], np.float32)}
    full, half = parse(text), with_storage(parse(text), "float16")
    thetas = solved(params, [Task("w", full)])
    with pytest.raises(ValueError, match="float16"):
        pack(params, [Task("w", half)], thetas)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dense_weights_that_are_in_no_half_dtype_are_refused(dtype):
    w = np.array([0.1, 3e38], np.float32)
    with pytest.raises(ValueError, match="float16"):
        pack({"w": w}, [Task("w", Round(dtype=dtype))], {0: parts.Dense(w, width=16)})


def test_a_claim_of_no_gap_that_is_not_exact_comes_back():
    task = Task("w", Sum(Quantize(k=1), Prune(kappa=0)))
    theta = solved({"w": W}, [task])[0]
    for status in parts.STATUSES:
        claimed = parts.Sum(theta.parts, status, 0.0)
        same_claims(unpack(pack({"w": W}, [task], {0: claimed})).thetas[0], claimed)


def test_about_must_be_json():
    with pytest.raises(ValueError):
        pack({"w": W}, [], {}, {"loss": math.nan})


@for_every_storage
@pytest.mark.parametrize("text", [*EVERY, "each(round(dtype='int4'))", "each(lowrank(rank=1))"])
def test_arrays_of_another_namespace_pack_to_the_same_bytes(text, storage):
    tasks = [Task(("v", "w"), with_storage(parse(text), storage))]
    host = {"w": KERNEL[:, :, 0, 0].copy(), "u": W[0], "v": W[:6, :3].copy()}
    if "lowrank" in text:  # another decomposition may differ in its last bits: the same θ for both
        tasks = [Task(("v", "w"), with_storage(parse("prune(kappa=4)"), storage))]
    there = {name: array_api_strict.asarray(p) for name, p in host.items()}
    if text.startswith(("prune(groups", "prune(keep=0.4")):
        tasks = [Task("w", tasks[0].compression)]
    expected = pack(host, tasks, solved(host, tasks))
    assert pack(there, tasks, solved(there, tasks)) == expected


def test_factors_of_another_namespace_pack_to_the_same_bytes():
    left, right = W[:, :2].copy(), W[:2].copy()
    task = Task("w", LowRank(rank=2))
    found = []
    for place in (np.asarray, array_api_strict.asarray):
        theta = parts.LowRank(place(left), place(right), W.shape)
        found.append(pack({"w": place(W)}, [task], {0: theta}))
    assert found[0] == found[1]


# ---- real nets

def reference(name, shape, classes, weights):
    if "LCREF_DATA" not in os.environ:
        pytest.skip("needs the reference weights: set LCREF_DATA")
    file = Path(os.environ["LCREF_DATA"], "weights", weights)
    if not file.exists():
        pytest.skip(f"needs the reference weights, {file}")
    net = nets.build(name, shape, classes, "tanh" if name == "lenet300" else None)
    return net, read_params(file, net)


def about(net):
    """The header's words for a net and its data, about as long as a run writes them."""
    return {"net": {"name": net.name, "input_shape": list(net.input_shape), "classes": 10,
                    "activation": net.activation},
            "data": {"name": "cifar10", "preprocessing": "(pixel / 255 - mean) / std by channel, "
                     "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"}}


def close_to_its_bits(net, params, compression, storage):
    """The packed file is at most 2% and 2 KiB above the accounted bits, and comes back."""
    task = Task(tuple(net.weights), with_storage(compression, storage))
    thetas, dense = direct_compression(params, [task], MU)
    data = pack(params, [task], thetas, about(net))
    untouched = sum(p.size for name, p in params.items() if name not in task.names)
    bits = 32 * untouched + sum(accounted(leaf, WIDTHS[storage]) for leaf in leaves_of(thetas[0]))
    assert bits / 8 <= len(data) <= 1.02 * bits / 8 + 2048
    model = unpack(data)
    same_bits(model.decompress(), dense)
    assert model.bits() == bits


@for_every_storage
@pytest.mark.parametrize("text", ["each(quantize(k=2)) + prune(keep=0.03)",
                                  "sum(lowrank(rank=2), prune(keep=0.02), cycles=2)"])
@pytest.mark.parametrize("name, shape, weights", [
    ("lenet300", 784, "lenet300_mnist.npz"), ("resnet20", (3, 32, 32), "resnet20_cifar10.npz")])
def test_the_file_of_a_reference_net_is_within_2_percent_of_its_bits(
        name, shape, weights, text, storage):
    net, params = reference(name, shape, 10, weights)
    close_to_its_bits(net, params, parse(text), storage)


@pytest.mark.long
@for_every_storage
@pytest.mark.parametrize("text", ["each(quantize(k=2)) + prune(keep=0.03)",
                                  "sum(lowrank(rank=2), prune(keep=0.02), cycles=2)"])
def test_the_file_of_vgg16_is_within_2_percent_of_its_bits(text, storage):
    net = nets.build("vgg16", (3, 32, 32), 10)
    close_to_its_bits(net, net.init(np.random.default_rng(0)), parse(text), storage)


@for_every_storage
def test_a_tensor_cut_in_many_tasks_of_one_weight_comes_back(storage):
    params = {str(i): W[i, :1] for i in range(20)}
    tasks = [Task(name, with_storage(Sum(Quantize(k=1), Prune(kappa=i % 2)), storage))
             for i, name in enumerate(params)]
    data = round_trip(params, tasks)
    same_as_plain(data, decompressed(params, tasks, solved(params, tasks)), exact=True)

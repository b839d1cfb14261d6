"""The bytes of the packed file, worked out by hand, and every damage that its reader refuses."""

import io
import json
import math
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from compared import same_bits
from hypothesis import given
from hypothesis import strategies as st

from lcref import Binary, Each, LowRank, Prune, Quantize, Round, Sum, Task
from lcref.parts import STATUSES
from lcref.storage import is_packed, load, pack, unpack

# ---- a file written by hand


def npy(content, descr="|u1", shape=None, version=b"\x01\x00"):
    """An .npy file of one row of bytes: 10 bytes, then a text up to byte 128, then the bytes."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape or (len(content),)}, }}"
    header = text.ljust(117).encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + content


def archive(members, method=0):
    """A zip file of (name, content, CRC or None), stored, of 1 January 1980, written on POSIX."""
    body, directory = b"", b""
    for name, content, crc in members:
        data = content
        if method == zipfile.ZIP_DEFLATED:
            data = zlib.compress(content)[2:-4]
        crc = zlib.crc32(content) if crc is None else crc
        # version 2.0, no flags, the method, time 0, 1980-01-01, CRC-32, the sizes, the name
        common = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 1 << 5 | 1, crc, len(data),
                             len(content), len(name), 0)
        directory += (b"PK\x01\x02\x14\x03" + common
                      + struct.pack("<HHHII", 0, 0, 0, 0o600 << 16, len(body)) + name.encode())
        body += b"PK\x03\x04" + common + name.encode() + data
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, len(members), len(members),
                                      len(directory), len(body), 0)
    return body + directory + end


def by_hand(header, payload=b""):
    """The packed file of a header, a dict or its text, and a payload."""
    text = header if isinstance(header, bytes) else json.dumps(
        header, separators=(",", ":")).encode()
    return archive([("header.npy", npy(text), None), ("payload.npy", npy(payload), None)])


def header_of(theta, compress="quantize(k=2)", shape=8, storage="float32", **changed):
    """The header of a net with one tensor, in one task."""
    return {"format": 1, "about": {}, "storage": storage, "tensors": {"w": shape},
            "tasks": [{"tensors": [0], "compress": compress, "theta": theta}], **changed}


def array(values):
    return np.array(values, dtype=np.float32)


# ---- golden files: (params, tasks, the text of the header, the payload)

GOLDEN = {
    "no task: float32 in the order of the net": (
        {"b": array([1.0, -2.0]), "a.w": array([[0.5]]), "a.b": array([])}, [],
        b'{"format":1,"about":{},"storage":"float32",'
        b'"tensors":{"b":2,"a":{"w":[1,1],"b":0}},"tasks":[]}',
        # 1 = 0x3f800000, −2 = 0xc0000000, ½ = 0x3f000000, each with its lowest byte first
        bytes.fromhex("0000803f 000000c0 0000003f")),
    "two learned values: two float32, then a bit a weight": (
        {"w": array([1, -2, 1, 1, -2, -2, 1, 1, 1, -2, 1])}, [Task("w", Quantize(k=2))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":11},"tasks":[{"tensors":[0],'
        b'"compress":"quantize(k=2)","theta":{"codebook":"free","k":2}}]}',
        # entries −2 and 1; codes 1 0 1 1 0 0 1 1 | 1 0 1 and five zeros
        bytes.fromhex("000000c0 0000803f") + bytes([0b10110011, 0b10100000])),
    "three learned values: two bits a weight, the highest first": (
        {"w": array([[3, -1], [0, 3], [3, 0]])}, [Task("w", Quantize(k=3))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":[3,2]},"tasks":[{"tensors":[0],'
        b'"compress":"quantize(k=3)","theta":{"codebook":"free","k":3}}]}',
        # −1 = 0xbf800000, 0, 3 = 0x40400000; codes 2 0 1 2 | 2 1 = 10 00 01 10 | 10 01 00 00
        bytes.fromhex("000080bf 00000000 00004040") + bytes([0b10000110, 0b10010000])),
    "one learned value: no codes at all": (
        {"w": array([3, 3, 3])}, [Task("w", Quantize(k=2))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":3},"tasks":[{"tensors":[0],'
        b'"compress":"quantize(k=2)","theta":{"codebook":"free","k":1}}]}',
        bytes.fromhex("00004040")),
    "a scaled codebook: the first of its largest entries": (
        {"w": array([2, -2, 2])}, [Task("w", Binary(scale=True))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":3},"tasks":[{"tensors":[0],'
        b'"compress":"binary(scale=True)","theta":{"codebook":"scaled","levels":[-1.0,1.0]}}]}',
        bytes.fromhex("000000c0") + bytes([0b10100000])),  # −2, then codes 1 0 1
    "a fixed codebook: codes of the entries in use, the levels in the header": (
        {"w": array([0.5, 1, 0.4])}, [Task("w", Quantize(codebook=[0.5, 1, 4]))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":3},"tasks":[{"tensors":[0],'
        b'"compress":"quantize(codebook=(0.5, 1.0, 4.0))",'
        b'"theta":{"codebook":"fixed","levels":[0.5,1.0]}}]}',
        bytes([0b01000000])),
    "corrections: values, then gaps": (
        {"w": array([0, 1, 0, 0, 0, 0, 0, 0, -2, 3])}, [Task("w", Prune(kappa=3))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":10},"tasks":[{"tensors":[0],'
        b'"compress":"prune(kappa=3)","theta":{"sparse":3,"bits":2,"codes":5}}]}',
        # zeros before the values: 1, 6, 0. Of 1 bit 10 codes; of 2 bits 3 + 2 codes, as 6 = 3 + 3
        # + 0: 01 | 11 11 00 | 00 = 10 bits; of 3 bits 9 bits: 1 + 6 + 0 = 001 110 000
        None),
    "corrections far apart, with the reserved code": (
        {"w": array([1, 2, 3, 4, 5, 6, 0, 0, 7])}, [Task("w", Prune(kappa=7, storage="float16"))],
        b'{"format":1,"about":{},"storage":"float16","tensors":{"w":9},"tasks":[{"tensors":[0],'
        b'"compress":"prune(kappa=7, storage=\'float16\')",'
        b'"theta":{"sparse":7,"bits":1,"codes":9}}]}',
        # halves 1 = 0x3c00, 2 = 0x4000, 3 = 0x4200, 4 = 0x4400, 5 = 0x4500, 6 = 0x4600, 7 = 0x4700
        # six times no zero before, then two reserved codes of one zero: 000000 11 | 0
        bytes.fromhex("003c 0040 0042 0044 0045 0046 0047") + bytes([0b00000011, 0])),
    "no corrections": (
        {"w": array([1, 2])}, [Task("w", Prune(kappa=0))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":2},"tasks":[{"tensors":[0],'
        b'"compress":"prune(kappa=0)","theta":{"sparse":0,"bits":0,"codes":0}}]}',
        b""),
    "slices: the values of all, then gaps between slices": (
        {"w": array([[0, 1, 0], [0, 2, 0]])}, [Task("w", Prune(groups=1, axis=-1))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":[2,3]},"tasks":[{"tensors":[0],'
        b'"compress":"prune(groups=1, axis=-1)",'
        b'"theta":{"sparse":1,"bits":2,"codes":1,"axis":1}}]}',
        # one bit: 1, reserved, then 0; two bits: 01. Both take two bits, see below
        None),
    "low rank: the left factor, then the right one, by rows": (
        {"w": array([[1, 2], [3, 4], [5, 6]])}, [Task("w", LowRank(rank=2, storage="float16"))],
        b'{"format":1,"about":{},"storage":"float16","tensors":{"w":[3,2]},"tasks":[{"tensors":[0],'
        b'"compress":"lowrank(rank=2, storage=\'float16\')",'
        b'"theta":{"low rank":2,"scheme":1}}]}',
        # full rank: the matrix and the identity
        bytes.fromhex("003c 0040 0042 0044 0045 0046") + bytes.fromhex("003c 0000 0000 003c")),
    "dense in half precision": (
        {"w": array([1, -0.0, 1e9])}, [Task("w", Round(dtype="float16"))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":3},"tasks":[{"tensors":[0],'
        b'"compress":"round(dtype=\'float16\')","theta":{"dense":"float16"}}]}',
        bytes.fromhex("003c 0080 ff7b")),  # 65504 = 0x7bff
    "dense in bfloat16": (
        {"w": array([1, 3.0e38])}, [Task("w", Round(dtype="bfloat16"))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":2},"tasks":[{"tensors":[0],'
        b'"compress":"round(dtype=\'bfloat16\')","theta":{"dense":"bfloat16"}}]}',
        # 3e38 / 2^127 = 1.7632..: 225.7 / 128 gives 226 of 128ths, so 0 11111110 1100010
        bytes.fromhex("803f 627f")),
    "several tensors in one codebook, which crosses from one to the next": (
        {"a": array([1, -1, 1]), "c": array([9]), "b": array([[-1, 1]])},
        [Task(("b", "a"), Binary())],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"a":3,"c":1,"b":[1,2]},'
        b'"tasks":[{"tensors":[2,0],"compress":"binary()",'
        b'"theta":{"codebook":"fixed","levels":[-1.0,1.0]}}]}',
        # b: 0 1, a: 1 0 1; then c, 9 = 0x41100000
        bytes([0b01101000]) + bytes.fromhex("00001041")),
    "a codebook for each tensor, alike, each filled to a byte": (
        {"a": array([1, -2]), "b": array([5, 5, 4])}, [Task(("a", "b"), Each(Quantize(k=2)))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"a":2,"b":3},'
        b'"tasks":[{"tensors":[0,1],"compress":"each(quantize(k=2))",'
        b'"theta":{"each":[{"codebook":"free","k":2}]}}]}',
        bytes.fromhex("000000c0 0000803f") + bytes([0b10000000])
        + bytes.fromhex("00008040 0000a040") + bytes([0b11000000])),
    "a codebook for each tensor, not alike": (
        {"a": array([1, -2]), "b": array([5, 5])}, [Task(("a", "b"), Each(Quantize(k=2)))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"a,b":2},'
        b'"tasks":[{"tensors":[0,1],"compress":"each(quantize(k=2))",'
        b'"theta":{"each":[{"codebook":"free","k":2},{"codebook":"free","k":1}]}}]}',
        bytes.fromhex("000000c0 0000803f") + bytes([0b10000000]) + bytes.fromhex("0000a040")),
    "a sum that is exact: part by part": (
        {"w": array([1, -1, 5])}, [Task("w", Sum(Binary(), Prune(kappa=1)))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":3},"tasks":[{"tensors":[0],'
        b'"compress":"binary() + prune(kappa=1)","theta":{"sum":['
        b'{"codebook":"fixed","levels":[-1.0,1.0]},{"sparse":1,"bits":2,"codes":1}]}}]}',
        # codes 1 0 1; the value 4, with two zeros before: 1 bit takes 3 (1 1 0), 2 bits one code
        bytes([0b10100000]) + bytes.fromhex("00008040") + bytes([0b10000000])),
    "a sum without a bound has a status and a gap of null": (
        {"w": array([1, -1, 1])},
        [Task("w", Sum(Binary(), Quantize(codebook=[0]), solver="alternate", restarts=False))],
        b'{"format":1,"about":{},"storage":"float32","tensors":{"w":3},"tasks":[{"tensors":[0],'
        b'"compress":"sum(binary(), quantize(codebook=(0.0,)), solver=\'alternate\', '
        b'restarts=False)","theta":{"sum":[{"codebook":"fixed","levels":[-1.0,1.0]},'
        b'{"codebook":"fixed","levels":[0.0]}],"status":"stationary","gap":null}}]}',
        bytes([0b10100000])),
}
# where two numbers of bits tie or the count above asks for it: bits, codes and the stream
GAPS = {
    "corrections: values, then gaps": (
        b'"bits":2,"codes":5', b'"bits":3,"codes":3',
        bytes.fromhex("0000803f 000000c0 00004040") + bytes([0b00111000, 0])),
    "slices: the values of all, then gaps between slices": (
        b'"bits":2,"codes":1', b'"bits":1,"codes":2',
        bytes.fromhex("0000803f 00000040") + bytes([0b10000000])),
}
for_every_golden = pytest.mark.parametrize("name", GOLDEN)


def golden(name):
    params, tasks, header, payload = GOLDEN[name]
    if name in GAPS:
        before, after, payload = GAPS[name]
        assert before in header
        header = header.replace(before, after)
    return params, tasks, header, payload


@for_every_golden
def test_the_bytes_of_a_file_are_those_written_by_hand(name):
    params, tasks, header, payload = golden(name)
    thetas = {i: t.compression.project({n: params[n] for n in t.names}, 1.0)
              for i, t in enumerate(tasks)}
    data = pack(params, tasks, thetas)
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        assert bytes(found["header"]).decode() == header.decode()
        assert bytes(found["payload"]).hex(" ") == payload.hex(" ")
    if zipfile.ZipInfo("any").create_system == 3:  # another system writes its number
        assert data == by_hand(header, payload)


@for_every_golden
def test_a_file_written_by_hand_is_read(name):
    params, tasks, header, payload = golden(name)
    expected = dict(params)
    for task in tasks:
        theta = task.compression.project({n: params[n] for n in task.names}, 1.0)
        delta = theta.decompress()
        expected |= delta if isinstance(delta, dict) else {task.names[0]: delta}
    model = unpack(by_hand(header, payload))
    same_bits(model.decompress(), expected)
    assert list(map(str, model.tasks)) == list(map(str, tasks))


def test_the_smallest_file_is_these_bytes():
    # each of the two members: 30 bytes and a name, 128 bytes, the content; 46 bytes and a name in
    # the directory, then 22 bytes
    data = pack({}, [], {})
    assert len(data) == 2 * (30 + 128 + 46) + 2 * len("header.npypayload.npy") + 22 + len(
        '{"format":1,"about":{},"storage":"float32","tensors":{},"tasks":[]}')
    assert data.startswith(b"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00\x21\x00")
    assert unpack(data).decompress() == {}


def test_what_the_writer_adds_about_the_net_is_in_the_header_and_comes_back():
    about = {"net": {"name": "linear", "é": [1, None, True]}}
    data = pack({}, [], {}, about)
    text = json.dumps(about, separators=(",", ":")).encode()
    assert b'{"format":1,"about":' + text + b',"storage"' in data
    assert unpack(data).about == about


def test_names_are_nested_and_neighbours_that_are_alike_share_a_key():
    for names, tree in ((["a", "a.b"], b'{"a,a.b":1}'), (["a.b", "a"], b'{"a.b,a":1}'),
                        (["a.b", "c", "a.d"], b'{"a.b,c,a.d":1}'),
                        (["a.b", "a.d", "c"], b'{"a":{"b,d":1},"c":1}'),
                        (["a.b", "a.d", "c.b", "c.d"], b'{"a,c":{"b,d":1}}'),
                        (["a.b", "a.d", "c.d", "c.b"], b'{"a":{"b,d":1},"c":{"d,b":1}}'),
                        (["..", "x."], b'{"":{"":{"":1}},"x":{"":1}}')):
        data = pack({name: array([2]) for name in names}, [], {})
        assert b'"tensors":' + tree in data, tree
        assert list(unpack(data).shapes) == names


def test_only_tensors_of_one_shape_share_a_key():
    shapes = {"a": (2, 1), "b": (2, 1), "c": (2,), "d": (1, 2), "e": (1, 2), "f": (2, 1)}
    data = pack({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, [], {})
    assert b'"tensors":{"a,b":[2,1],"c":2,"d,e":[1,2],"f":[2,1]}' in data
    assert unpack(data).shapes == shapes


def test_layers_whose_tensors_are_in_another_order_do_not_share_a_key():
    shapes = {"a.b": (1,), "a.d": (2,), "c.d": (2,), "c.b": (1,)}
    data = pack({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, [], {})
    assert b'"tensors":{"a":{"b":1,"d":2},"c":{"d":2,"b":1}}' in data
    assert list(unpack(data).shapes.items()) == list(shapes.items())


def test_a_name_with_a_comma_is_refused():
    with pytest.raises(ValueError, match="comma"):
        pack({"a,b": array([2])}, [], {})


# ---- what is refused: each with its own message

def float32(*values):
    return struct.pack(f"<{len(values)}f", *values)


HALVES = {"codebook": "free", "k": 2}
OK = by_hand(header_of(HALVES), float32(-1, 1) + b"\x55")


def test_the_file_that_the_damages_below_are_done_to_is_read():
    same_bits(unpack(OK).decompress(), {"w": array([-1, 1] * 4)})


def member(name, content):
    return name, content, None


TEXT = json.dumps(header_of(HALVES)).encode()
BYTES = float32(-1, 1) + b"\x55"
HEADER, PAYLOAD = member("header.npy", npy(TEXT)), member("payload.npy", npy(BYTES))
NOT_PACKED = {
    "nothing": (b"", "zip"),
    "text": (b"hello, this is no archive" * 9, "zip"),
    "a bare array": (npy(BYTES), "zip"),
    "no payload": (archive([HEADER]), "header and a payload"),
    "a third member": (archive([HEADER, PAYLOAD, member("x.npy", npy(b""))]), "payload"),
    "a member twice": (archive([HEADER, PAYLOAD, PAYLOAD]), "header and a payload"),
    "another name": (archive([HEADER, member("Payload.npy", npy(BYTES))]), "header and a payload"),
    "deflated": (archive([HEADER, PAYLOAD], zipfile.ZIP_DEFLATED), "compressed"),
    "a wrong checksum": (archive([HEADER, ("payload.npy", npy(BYTES), 7)]), "CRC"),
    "another dtype": (archive([HEADER, member("payload.npy", npy(BYTES, "|i1"))]), "row of bytes"),
    "objects": (archive([HEADER, member("payload.npy", npy(BYTES, "|O"))]), "row of bytes"),
    "two axes": (archive([HEADER, member("payload.npy", npy(BYTES, shape=(1, 9)))]), "row"),
    "too long a shape": (archive([HEADER, member("payload.npy", npy(BYTES, shape=(10,)))]), "row"),
    "a huge shape": (archive([HEADER, member("payload.npy", npy(BYTES, shape=(10**15,)))]), "row"),
    "another version of npy": (
        archive([HEADER, member("payload.npy", npy(BYTES, version=b"\x02\x00"))]), "version"),
    "no npy": (archive([HEADER, member("payload.npy", BYTES)]), ""),
    "an empty member": (archive([HEADER, member("payload.npy", b"")]), ""),
}


@pytest.mark.parametrize("name", NOT_PACKED)
def test_a_file_that_is_not_packed_is_refused(name):
    data, message = NOT_PACKED[name]
    with pytest.raises(ValueError, match=f"not a packed file.*{message}"):
        unpack(data)


def test_another_npz_is_refused():
    for write in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        write(file, w=np.ones(3))
        with pytest.raises(ValueError, match="not a packed file.*header and a payload"):
            unpack(file.getvalue())


def record(**changed):
    return {**HALVES, **changed}


def free(k):
    return header_of({"codebook": "free", "k": k})


def gaps(m, b, c, shape=8, **more):
    return header_of({"sparse": m, "bits": b, "codes": c, **more}, "prune(kappa=1)", shape)


def without(name):
    return {key: value for key, value in header_of(HALVES).items() if key != name}


def factors(rank, scheme=1, shape=(3, 2)):
    return header_of({"low rank": rank, "scheme": scheme}, "lowrank(rank=1)", list(shape))


def fixed(levels, stored="fixed", shape=8):
    return header_of({"codebook": stored, "levels": levels}, "binary()", shape)


def claims(**more):
    return header_of({"sum": [HALVES] * 2, **more}, PAIR_OF)


def apart(*records):
    """The header of two tensors with a codebook each."""
    header = header_of({"each": list(records)}, "each(quantize(k=2))", tensors=TWO_TENSORS)
    header["tasks"][0]["tensors"] = [0, 1]
    return header


def task(**changed):
    header = header_of(HALVES)
    header["tasks"][0] |= changed
    return header


TWO_TENSORS = {"v": 4, "w": 4}
PAIR_OF = "quantize(k=2) + quantize(k=2)"
NAN, INF = float32(math.nan), float32(math.inf)
PAIR = float32(-1, 1)
DAMAGED = {
    "format 2": (header_of(HALVES, format=2), BYTES, "format 2"),
    "format true": (header_of(HALVES, format="1"), BYTES, "format '1'"),
    "no JSON": (b"{", BYTES, ""),
    "no text": (b"\xff\xfe", BYTES, ""),
    "an empty header": (b"", b"", ""),
    "a list": (b"[]", BYTES, ""),
    "a number": (b"1", BYTES, ""),
    "null": (b"null", BYTES, ""),
    "a header that ends": (TEXT[:-1], BYTES, ""),
    "a header that goes on": (TEXT + b"}", BYTES, ""),
    "deep lists": (b"[" * 100_000, BYTES, ""),
    "deep objects": (b'{"a":' * 100_000, BYTES, ""),
    "deep names": (TEXT.replace(b'{"w": 8}', b'{"a":' * 900 + b"1" + b"}" * 900), BYTES, ""),
    **{f"no {key}": (without(key), BYTES, f"lacks '{key}'") for key in header_of(HALVES)},
    **{f"{key} of another type": (header_of(HALVES, **{key: value}), BYTES, "") for key, value in (
        ("about", []), ("about", "x"), ("about", None), ("storage", "float64"), ("storage", 16),
        ("storage", None), ("storage", ["float32"]), ("tensors", []), ("tensors", 3),
        ("tensors", None), ("tasks", None), ("tasks", 7), ("tasks", "a"), ("tasks", [1]),
        ("tasks", {"a": 1}), ("storage", {}))},
    **{f"a side of {shape!r}": (header_of(HALVES, shape=shape), BYTES, "a side")
       for shape in (-8, [-2, -4], True, 8.0, "8", None, [8.0], [None], [[8]], 2**32 + 1, 10**30)},
    "33 axes": (header_of(HALVES, shape=[1] * 33), BYTES, "32 axes"),
    "a net of over 4 GiB": (header_of(HALVES, shape=[2**16, 2**15]), BYTES, "bytes"),
    **{f"tensor {j!r}": (task(tensors=[j]), BYTES, "number of a tensor")
       for j in (1, -1, 0.0, True, "w", None)},
    "no tensors": (task(tensors=[]), BYTES, ""),
    "a tensor twice": (task(tensors=[0, 0]), BYTES, ""),
    "two tasks of a tensor": (header_of(HALVES, tasks=header_of(HALVES)["tasks"] * 2),
                              BYTES * 2, "share a tensor"),
    **{f"the compression {text!r:.20}": (task(compress=text), BYTES, message) for text, message in (
        ("nonsense(k=2)", "nonsense"), ("", "compression"), ("import os", "compression"),
        ("quantize(k=0)", "k must be"), ("quantize(k=2) - binary()", "combines"),
        (["quantize(k=2)"], "text of a compression"), (None, "text of a compression"),
        ("quantize(k=2" + " " * 10_000 + ")", "text of a compression"),
        ("binary() + " * 2000 + "binary()", "text of a compression"),
        ("each(" * 500 + "binary()" + ")" * 500, ""), ("\x00", "compression"))},
    "no theta": (header_of(HALVES, tasks=[{"tensors": [0], "compress": "binary()"}]), BYTES,
                 "lacks 'theta'"),
    **{f"the record {theta!r:.20}": (header_of(theta), BYTES, "") for theta in (
        None, [], "codebook", 3, {"kind": 1}, {})},
    # codebooks
    "no k": (header_of({"codebook": "free"}), BYTES, "lacks 'k'"),
    **{f"k = {k!r}": (free(k), BYTES, "k must be an integer") for k in (
        -1, 9, 2.0, "2", True, None, 10**12)},
    "no entry for weights": (free(0), b"", "0 entries for 8 weights"),
    "an unknown codebook": (fixed([-1, 1], "learned"), BYTES, "unknown codebook"),
    "a codebook of a list": (fixed([-1, 1], ["free"]), BYTES, "unknown codebook"),
    "no levels": (header_of({"codebook": "fixed"}), b"\x55", "lacks 'levels'"),
    "no fixed entry": (fixed([]), b"", "0 entries"),
    "no scaled entry": (fixed([], "scaled"), b"", "0 entries"),
    "too many fixed entries": (fixed([1, 2], shape=1), b"\x80", "2 entries for 1 weights"),
    **{f"levels {levels!r}": (fixed(levels), b"\x55", "") for levels in (
        None, 3, "ab", [None, 1], [[1], 2], {"a": 1})},
    **{f"{stored} levels that are not finite, {level}": (
        fixed([-1, level], stored), PAIR[4:] * (stored == "scaled") + b"\x55", "")
        for stored in ("fixed", "scaled") for level in (math.nan, math.inf, 1e39)
        if (stored, level) != ("scaled", 1e39)},
    "levels too large for a float": (TEXT.replace(b'"free", "k": 2', b'"fixed", "levels": [-1, 1' +
                                                  b"0" * 400 + b"]"), b"\x55", ""),
    "a scaled entry that overflows": (fixed([-1, 1e-300], "scaled"), INF + b"\x55", "not finite"),
    "an entry of nan": (free(2), float32(-1) + NAN + b"\x55", "not finite"),
    "an entry of infinity": (free(2), float32(-1) + INF + b"\x55", "not finite"),
    "a scale of nan": (fixed([-1, 1], "scaled"), NAN + b"\x55", "not finite"),
    "a code beyond k": (free(3), float32(1, 2, 3) + b"\x1b\x00", "beyond the 3 entries"),
    "an entry that is not used": (free(3), float32(1, 2, 3) + b"\x11\x11", "not used"),
    "one entry of two not used": (free(2), PAIR + b"\x00", "not used"),
    "bits after the codes": (header_of(HALVES, shape=5), PAIR + b"\x55", "after the last code"),
    "codes beyond the payload": (header_of(HALVES, shape=9), PAIR + b"\x55", "shorter"),
    "entries beyond the payload": (free(8), PAIR, "shorter"),
    "a payload that goes on": (header_of(HALVES), BYTES + b"\x00", "longer"),
    # corrections
    **{f"corrections without {key}": (
        header_of({k: v for k, v in {"sparse": 1, "bits": 1, "codes": 1}.items()
                   if k == "sparse" or k != key}), PAIR, f"lacks '{key}'")
       for key in ("bits", "codes")},
    **{f"{m!r} values": (gaps(m, 1, 1), PAIR, "number of values") for m in (
        -1, 9, 1.0, None, True, 10**12)},
    **{f"{b!r} bits": (gaps(1, b, 1), PAIR, "bits of a code") for b in (
        -1, 0, 35, 1.0, None, True, 10**9)},
    **{f"{c!r} codes": (gaps(2, 1, c), PAIR * 2, "number of codes") for c in (
        -1, 0, 1, 11, 2.0, None, True, 10**15)},
    "codes of no value": (gaps(0, 1, 1), b"\x00", "number of codes"),
    "values beyond the payload": (gaps(2, 1, 2), float32(1), "shorter"),
    "gaps beyond the payload": (gaps(2, 7, 2), PAIR + b"\x00", "shorter"),
    "a position beyond the tensor": (gaps(1, 4, 1), float32(1) + b"\x80", "beyond the tensors"),
    "a second position beyond": (gaps(2, 3, 2), PAIR + b"\x78", "beyond the tensors"),
    "fillers beyond the tensor": (gaps(1, 2, 4), float32(1) + b"\xfc", "beyond the tensors"),
    "too many positions": (gaps(1, 1, 2), float32(1) + b"\x00", "too many"),
    "too few positions": (gaps(2, 1, 3), PAIR + b"\x60", "end with the last value"),
    "a filler at the end": (gaps(2, 1, 3), PAIR + b"\x20", "end with the last value"),
    "only fillers": (gaps(1, 1, 1), float32(1) + b"\x80", "end with the last value"),
    "bits after the gaps": (gaps(1, 1, 1), float32(1) + b"\x01", "after the last code"),
    "a correction of nan": (gaps(1, 1, 1), NAN + b"\x00", "not finite"),
    **{f"axis {axis!r}": (gaps(1, 1, 1, [2, 4], axis=axis), float32(*range(4)) + b"\x00", "axis")
       for axis in (2, -1, 0.0, "0", True)},
    "more slices than there are": (gaps(3, 1, 3, [2, 4], axis=0), float32(*range(12)) + b"\x00",
                                   "number of values"),
    # factors
    **{f"rank {rank!r}": (factors(rank), PAIR * 9, "a rank") for rank in (
        -1, 3, 1.0, None, True, 10**12)},
    **{f"scheme {s!r}": (factors(1, s), PAIR * 9, "scheme") for s in (0, 3, 1.0, None, True)},
    "no scheme": (header_of({"low rank": 1}, shape=[3, 2]), PAIR * 9, "lacks 'scheme'"),
    "factors of a vector": (factors(1, shape=(6,)), PAIR * 9, "not one matrix"),
    "scheme 2 of a matrix": (factors(1, 2), PAIR * 9, "not one matrix"),
    "factors beyond the payload": (factors(2), PAIR, "shorter"),
    "a factor of infinity": (factors(1), PAIR * 2 + INF, "not finite"),
    # the rest
    "an unknown dtype": (header_of({"dense": "float64"}), PAIR * 9, "unknown dtype"),
    "a dtype of a list": (header_of({"dense": ["float32"]}), PAIR * 9, ""),
    "too few numbers": (header_of({"dense": "float32"}), PAIR * 3, "shorter"),
    "an infinite half": (header_of({"dense": "float16"}, shape=1), b"\x00\x7c", "not finite"),
    "an infinite bfloat16": (header_of({"dense": "bfloat16"}, shape=1), b"\x80\x7f", "not finite"),
    "untouched nan": (header_of(HALVES, tasks=[]), PAIR * 3 + float32(1) + NAN, "not finite"),
    "too few untouched": (header_of(HALVES, tasks=[]), PAIR * 3, "shorter"),
    "a record that is no sum": (header_of(HALVES, PAIR_OF), BYTES, "lacks 'sum'"),
    "a sum of none": (header_of({"sum": []}, PAIR_OF), b"", "0 records for 2"),
    **{f"a sum of {terms!r:.20}": (header_of({"sum": terms}, PAIR_OF), BYTES, "") for terms in (
        None, 3, [None] * 2, {"a": HALVES, "b": HALVES}, "ab", [HALVES] * 3)},
    **{f"each of {some!r:.20}": (header_of({"each": some}), BYTES, "") for some in (
        None, 3, [], [HALVES] * 2, [None], {"a": HALVES}, "a")},
    **{f"{len(some)} records for two tensors": (apart(*some), (PAIR + b"\x50") * 2, message)
       for some, message in (([], "0 records for 2"), ([HALVES] * 3, "3 records for 2"))},
    "no records for two tensors": ({**apart(), "tasks": [
        {**apart()["tasks"][0], "theta": HALVES}]}, BYTES * 2, "lacks 'each'"),
    "a key twice": (TEXT.replace(b'"k": 2', b'"k": 3, "k": 2'), BYTES, "twice"),
    **{f"deep {kind}s": (header_of(json.loads(f'{{"{kind}":[' * 150 + json.dumps(HALVES)
                                              + "]}" * 150)), BYTES + b"\x00", "")
       for kind in ("sum", "each")},
    **{f"the status {s!r}": (claims(status=s, gap=0.0), BYTES * 2, "status") for s in (
        "proven", 1, None, ["exact"])},
    "no gap": (claims(status="certified"), BYTES * 2, "lacks 'gap'"),
    **{f"the gap {gap!r:.9}": (claims(status="certified", gap=gap), BYTES * 2, "") for gap in (
        -1.0, math.nan, [1], "x", 10**400)},
    "slices of several tensors": (
        {**gaps(1, 1, 1, axis=0), "tensors": TWO_TENSORS,
         "tasks": [{**gaps(1, 1, 1, axis=0)["tasks"][0], "tensors": [0, 1]}]},
        float32(1) + b"\x00", "slices of several"),
    "factors of several tensors": (
        {**factors(1), "tensors": {"v": [2, 2], "w": [2, 2]}, "tasks": [
            {**factors(1)["tasks"][0], "tensors": [0, 1], "compress": "binary()"}]},
        PAIR * 9, "not one matrix"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(name):
    header, payload, message = DAMAGED[name]
    with pytest.raises(ValueError, match=f"(?s)damaged packed file.*{message}"):
        unpack(by_hand(header, payload))


@pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity"])
def test_a_header_with_what_json_does_not_know_is_refused_or_never_a_number(word):
    for place in (b'{"w": %s}', b'{"w": [%s]}'):
        data = by_hand(TEXT.replace(b'{"w": 8}', place % word), BYTES)
        with pytest.raises(ValueError, match="damaged packed file.*finite"):
            unpack(data)
    for old in (b'"k": 2', b'"format": 1'):
        data = by_hand(TEXT.replace(old, old[:-1] + word), BYTES)
        with pytest.raises(ValueError, match="damaged packed file"):
            unpack(data)


def test_nan_in_what_a_file_says_of_its_net_is_refused():
    with pytest.raises(ValueError, match="damaged packed file"):
        unpack(by_hand(header_of(HALVES, about={"loss": math.nan}), BYTES))


def test_the_entries_of_a_scaled_codebook_are_computed_in_double_precision():
    # 3e38 / 1e-10 overflows a float32, and 3e38 / 1e-10 · 1e-48 = 3 comes back
    header = fixed([1e-48, 1e-10], "scaled")
    same_bits(unpack(by_hand(header, float32(3e38) + b"\x55")).decompress(),
              {"w": array([float(array(3e38)) / 1e-10 * 1e-48, 3e38] * 4)})


def test_status_and_gap_come_back():
    for status in STATUSES:
        for gap, expected in ((None, math.inf), (0.25, 0.25), (0, 0.0)):
            theta = {"sum": [HALVES] * 2, "status": status, "gap": gap}
            found = unpack(by_hand(header_of(theta, PAIR_OF), BYTES * 2)).thetas[0]
            assert (found.status, found.gap) == (status, expected)


# ---- sizes that are declared and not there

HUGE = {
    "one entry for 10**12 weights": header_of({"codebook": "free", "k": 1}, shape=10**12),
    "one entry for 2**40 weights by sides": header_of({"codebook": "free", "k": 1},
                                                      shape=[2**20, 2**20]),
    "no entry but an empty side": header_of({"codebook": "free", "k": 0}, shape=[2**32, 2**32, 0]),
    "rank 0 of a huge matrix": factors(0, shape=(2**31, 2**31)),
    "no corrections of 10**12 weights": gaps(0, 0, 0, 10**12),
    "a rank of huge factors": factors(2**13, shape=(2**14, 2**14)),
    "a rank of an empty matrix": factors(0, shape=(2**32, 0)),
    "many corrections": gaps(2**28, 1, 2**28, 2**29),
    "many untouched": header_of({}, shape=2**29, tasks=[]),
    "many codes": header_of(HALVES, shape=2**29),
    "many tensors": header_of(HALVES, tensors={str(i): 2**29 for i in range(100)}),
    "many codes of two entries": header_of({"codebook": "fixed", "levels": [0, 1]}, shape=2**29),
    "many slices of nothing": gaps(2**28, 1, 2**28, [2**29, 0], axis=0),
    "entries of 2**28": free(2**28) | {"tensors": {"w": 2**29}},
}


@pytest.mark.parametrize("name", HUGE)
def test_a_declared_size_that_is_not_there_is_refused_before_it_is_allocated(name):
    data = by_hand(HUGE[name], float32(1))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="damaged packed file"):
            unpack(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_parts_of_a_sum_that_cost_nothing_in_the_file_do_not_multiply_the_memory():
    text = " + ".join(["quantize(codebook=(0.0,))"] * 80)
    parts = [{"codebook": "fixed", "levels": [0]}] * 80
    data = by_hand(header_of({"sum": parts}, text, shape=2**18))  # 1 MiB when it is decompressed
    tracemalloc.start()
    try:
        answer(data)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


# ---- any damage

def answer(data):
    """Whether the bytes are read; any error but a ValueError with its words is raised on."""
    try:
        unpack(data).decompress()
    except ValueError as error:
        assert str(error).startswith(("damaged packed file", "not a packed file"))
        return False
    return True


def sample():
    """A file with a part of every kind."""
    params = {"fc1.weight": array(np.random.default_rng(0).normal(size=(4, 6))),
              "fc1.bias": array([1, 2]), "fc2.weight": array([[1, 2], [3, 4]]), "b": array([1] * 9)}
    tasks = [Task(("fc1.weight", "b"), Each(Quantize(k=3)) + Prune(kappa=3)),
             Task("fc2.weight", Sum(LowRank(rank=1), Binary(scale=True), Round("int4"), cycles=2))]
    thetas = {i: t.compression.project({n: params[n] for n in t.names}, 1.0)
              for i, t in enumerate(tasks)}
    return pack(params, tasks, thetas)


SAMPLE = sample()
with np.load(io.BytesIO(SAMPLE)) as _members:
    SAMPLE_TEXT, SAMPLE_BYTES = bytes(_members["header"]), bytes(_members["payload"])


def test_every_truncated_file_is_refused():
    assert answer(SAMPLE)
    for end in range(len(SAMPLE)):
        assert not answer(SAMPLE[:end]), end


def test_every_truncated_header_or_payload_is_refused():
    for end in range(len(SAMPLE_TEXT)):
        assert not answer(by_hand(SAMPLE_TEXT[:end], SAMPLE_BYTES)), end
    for end in range(len(SAMPLE_BYTES)):
        assert not answer(by_hand(SAMPLE_TEXT, SAMPLE_BYTES[:end])), end


def test_every_flipped_bit_is_refused_or_read_and_never_another_error():
    for i in range(len(SAMPLE)):
        one = bytearray(SAMPLE)
        one[i] ^= 1 << i % 8
        answer(bytes(one))


@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80])
def test_every_flipped_bit_of_the_members_is_refused_or_read_and_never_another_error(mask):
    for content, build in ((SAMPLE_TEXT, lambda part: by_hand(part, SAMPLE_BYTES)),
                           (SAMPLE_BYTES, lambda part: by_hand(SAMPLE_TEXT, part))):
        for i in range(len(content)):
            one = bytearray(content)
            one[i] ^= mask
            answer(build(bytes(one)))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["sum", "each", "codebook", "k", "sparse"]),
                                      inner, max_size=3), max_leaves=5)


def places(tree, path=()):
    """The paths to everything in a header."""
    found = [path] if path else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(
        tree, list) else ()
    return found + [p for key, value in items for p in places(value, (*path, key))]


@given(st.data())
def test_anything_anywhere_in_the_header_is_refused_or_read_and_never_another_error(data):
    header = json.loads(SAMPLE_TEXT)
    *path, last = data.draw(st.sampled_from(places(header)))
    at = header
    for key in path:
        at = at[key]
    if data.draw(st.booleans()):
        at[last] = data.draw(JSON)
    else:
        del at[last]
    answer(by_hand(header, SAMPLE_BYTES))


# ---- files

def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*gone.npz"):
        load(tmp_path / "gone.npz")


def test_a_damaged_file_is_named_in_the_error(tmp_path):
    file = tmp_path / "model.npz"
    for data, message in ((OK[:-9], "not a packed file"), (by_hand(b"{"), "damaged packed file")):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=f"model.npz: {message}"):
            load(file)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a file"):
        load(tmp_path)


def test_a_packed_file_is_told_from_others(tmp_path):
    np.savez(tmp_path / "other.npz", w=np.ones(3))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "model.npz").write_bytes(OK)
    found = {name: is_packed(tmp_path / f"{name}.npz") for name in ("other", "text", "model", "no")}
    assert found == {"other": False, "text": False, "model": True, "no": False}

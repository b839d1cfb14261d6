"""Packed files to damage, one of every kind, and the nastiest that anyone has thought of so far."""

import functools
import io
import json
import struct
import zipfile

import numpy as np

import lcref
from lcref import (Binary, Each, LowRank, PowersOfTwo, Prune, Quantize, Round, Sum, Task, Ternary)

NONE = {"sparse": 0, "bits": 0, "codes": 0}  # the record of no corrections
ONE = {"codebook": "fixed", "levels": [0]}  # of a codebook of one entry: no codes
PRUNE, FIXED = "prune(kappa=1)", "quantize(codebook=[0])"
EMPTY = '{"format":1,"about":{},"storage":"float32","tensors":{},"tasks":[]}'


def npy(content, head=None, version=b"\x01\x00"):
    """An .npy file of one row of bytes, or of what another head says."""
    if head is None:
        head = (f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(content)},), }}"
                ).ljust(117) + "\n"
    head = head.encode("latin-1", "replace")
    return b"\x93NUMPY" + version + struct.pack("<H", len(head) & 0xFFFF) + head + content


def archive(members, method=0, comment=b"", extra=b""):
    """A zip file of (name, content), with the CRCs right."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as z:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.comment, info.extra = method, comment, extra
            z.writestr(info, content)
        z.comment = comment
    return file.getvalue()


def build(header, payload=b"", heads=(None, None), **options):
    """The packed file of a header, a tree or its text, and a payload."""
    text = header if isinstance(header, (str, bytes)) else json.dumps(header)
    text = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return archive([("header.npy", npy(text, heads[0])), ("payload.npy", npy(payload, heads[1]))],
                   **options)


def net(tensors, *tasks, payload=b"", **changed):
    """The packed file of (numbers of tensors, record of θ, text of the compression) each."""
    fields = [{"tensors": list(numbers), "compress": text, "theta": theta}
              for numbers, theta, text in tasks]
    return build({"format": 1, "about": {}, "storage": "float32", "tensors": tensors,
                  "tasks": fields, **changed}, payload)


def opened(data):
    """(header, payload) of a file that is whole, else None."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as z:
            members = [z.read(name)[128:] for name in ("header.npy", "payload.npy")]
        return json.loads(members[0]), members[1]
    except Exception:   # whatever zipfile and json raise
        return None


def declared(tree, depth=0):
    """The bytes in float32 of the tensors that a header names; 0 where it names none."""
    if isinstance(tree, dict):
        return 0 if depth > 99 else sum(len(names.split(",")) * declared(inner, depth + 1)
                                        for names, inner in tree.items())
    sides = tree if isinstance(tree, list) else [tree]
    if not all(type(side) is int and 0 <= side <= 2**32 for side in sides) or len(sides) > 64:
        return 0
    return 4 * functools.reduce(lambda a, b: a * b, sides, 1)


# ---- sound files

HALF = {"storage": "float16"}
KINDS = {
    "no task": {},
    "learned": {"a": Quantize(k=3)},
    "learned, two": {"a": Quantize(k=2), "b": Quantize(k=2)},
    "many learned": {"long": Quantize(k=260)},
    "fixed": {"a": Quantize(codebook=[-1, 0.5, 2])},
    "scaled": {"a": Binary(scale=True), "b": Ternary(scale=True)},
    "powers of two": {"a": PowersOfTwo(3)},
    "corrections": {"a": Prune(kappa=2), "b": Prune(kappa=0)},
    "halves": {"a": Prune(kappa=3, **HALF), "m": LowRank(rank=1, **HALF)},
    "slices": {"m": Prune(groups=2, axis=-1)},
    "low rank": {"m": LowRank(rank=2)},
    "scheme 2": {"conv": LowRank(rank=1, scheme=2)},
    "float16": {"a": Round(dtype="float16")},
    "bfloat16": {"a,b": Round(dtype="bfloat16")},
    "each": {"a,b": Each(Quantize(k=2))},
    "each alike": {"m,conv": LowRank(rank=1)},
    "joint": {"b,m,a": Quantize(k=4)},
    "sum": {"a": Sum(Binary(scale=True), Prune(kappa=1))},
    "joint sum": {"a,m": Sum(Quantize(k=2), Prune(kappa=2), solver="alternate")},
    "sum of each": {"a,m": Sum(Each(Binary(scale=True)), Prune(kappa=2, **HALF))},
    "sum of low rank": {"m": Sum(LowRank(rank=1), Prune(kappa=2))},
    "fixed sum": {"a": Sum(Binary(), Quantize(codebook=[0]), solver="alternate", restarts=False)},
    "many positions": {"wide": Prune(kappa=5), "a": Quantize(k=2)},
    "more codes than a chunk": {"wide": Binary()},
}
SHAPES = {"a": (11,), "m": (4, 5), "conv": (3, 2, 2, 2), "b": (3,), "none": (0, 2)}
LONG = {"long": (300,), "wide": (70_000,)}


def _sound(tasks):
    rng = np.random.default_rng(0)
    shapes = SHAPES | {name: shape for name, shape in LONG.items() if name in tasks}
    params = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    tasks = [Task(tuple(names.split(",")), kind) for names, kind in tasks.items()]
    thetas = {i: task.compression.project({name: params[name] for name in task.names}, 1.0)
              for i, task in enumerate(tasks)}
    return lcref.storage.pack(params, tasks, thetas, {"net": "none", "seed": 3, "lr": [0.1]})


@functools.cache
def sound():
    """{name: bytes} of a packed file of every kind of part and of structure."""
    return {name: _sound(tasks) for name, tasks in KINDS.items()}


# ---- the nastiest

TEXTS = {
    "a call that is not closed": "nonsense(", "an escape": "'\\d'", "one is": "1is 2",
    "one if": "prune(kappa=1if 1else 2)", "hexadecimal or": "prune(kappa=0x1for x in y)",
    "a huge integer": "quantize(k=0x" + "f" * 9000 + ")", "long digits": "prune(kappa=" + "1" * 5000
    + ")", "many levels": "quantize(codebook=[" + ",".join(f"{i}e9" for i in range(1, 1400)) + "])",
    "many parts": "+".join(["binary()"] * 900), "parentheses": "(" * 5000,
    "brackets": "[" * 199 + "]" * 199, "unary": "-" * 9990 + "1", "not": "not " * 2490 + "1",
    "lambda": "lambda:" * 1400 + "1", "subscript": "a[" * 199 + "]" * 199,
    "conditions": "1 if 1 else " * 830 + "1", "braces": "{1:" * 199, "null": "a\0b",
    "calls": "a(" * 190 + ")" * 190 + "(", "format strings": "f'{" * 60, "sum": "1" + "+1" * 4990,
    "unary keyword": "prune(kappa=" + "-" * 4000 + "1)", "attributes": "a" + ".a" * 4990,
    "each in each": "each(" * 60 + "binary()" + ")" * 60, "stars": "*" * 9000,
    "walrus": "(a:=" * 60 + "1" + ")" * 60, "a bad call": "f(" * 60 + "a b" + ")" * 60,
    "a bad dict": "{a:" * 40 + "*b" + "}" * 40, "lists": "prune(kappa=[" + "[" * 180 + "]" * 183
    + ")", "surrogates": "\ud800" * 300, "terminal codes": "\x1b[2J\x07(", "empty": "",
    "lines": "prune(\n\r\u2028kappa=\f1", "bell": "prune(kappa='\x07')", "nan": "prune(keep=1e999)",
    "joker": "prune(**{'kappa': 1})", "twice": "prune(kappa=1, kappa=2)",
    "names": "_" * 9990 + "()",
    "unknown word": "prune(" + "k" * 9000 + "=1)", "imaginary": "prune(kappa=1j)",
    "right-to-left": "\u202eprune(kappa=", "bytes": "prune(kappa=b'1')",
    "string": "prune(keep='1')", "blanks": "prune(kappa=" + " " * 80_000 + "1)",
    "parentheses around": "prune(kappa=" + "(" * 90 + "1" + ")" * 91,
}
HEADS = {
    "parenthesis": "(", "indent": "1\n  2\n 3", "long": "{'descr':10L}", "nothing": "",
    "python 2": "{'descr':'|u1','fortran_order':False,'shape':(10L,)}", "descr is a tuple":
    "{'descr':(),'fortran_order':False,'shape':(10,)}", "objects":
    "{'descr':'|O','fortran_order':False,'shape':(10,)}", "descr repeats":
    "{'descr':'1u1','fortran_order':False,'shape':(10,)}", "blanks": " " * 20_000,
    "a huge shape": "{'descr':'|u1','fortran_order':False,'shape':(10**12,)}",
    "as long": "{'descr': '|u1', 'fortran_order': True, 'shape': (9,), }".ljust(117) + "\n",
}
SIDES = [[10**12], [2**31, 2**31], [0, 10**18], [0, 2**32, 2**32], [1] * 33, [2**32] + [1] * 31,
         -1, 2**63, 10**400, True, None, 1.0, "2", [[2]], {"": 2}, {}, [], [0] * 32, [2, True]]


def _each_and_sums():
    """Many tensors and many parts in few bytes."""
    zeros = {str(i): 0 for i in range(3000)}
    every = range(3000)
    return {
        "3000 in one task": net(zeros, (every, NONE, PRUNE)),
        "3000 of each": net(zeros, (every, {"each": [NONE]}, f"each({PRUNE})")),
        "62 parts of 3000": net(zeros, (every, {"sum": [NONE] * 62}, "+".join([PRUNE] * 62))),
        "62 parts of 10000": net({",".join(map(str, range(5000))): {"a,b": 0}}, (
            range(10_000), {"sum": [NONE] * 62}, "+".join([PRUNE] * 62))),
        "sums of each": net(zeros, (every, {"sum": [{"each": [NONE]}] * 31},
                                    "+".join([f"each({PRUNE})"] * 31))),
        "each of sums": net(zeros, (every, {"each": [{"sum": [NONE] * 30}]},
                                    f"each({'+'.join([PRUNE] * 30)})")),
        "records for each": net(zeros, (every, {"each": [NONE] * 9}, f"each({PRUNE})")),
        "each in each": net({"a": 2}, ([0], {"each": [{"each": [NONE]}]}, f"each({PRUNE})")),
        "each where there is none": net({"a": 2}, ([0], {"sum": [{"each": [NONE]}, NONE]},
                                                   f"{PRUNE}+{PRUNE}")),
        "700 tasks": net({str(i): 0 for i in range(1000)},
                         *[([i], NONE, PRUNE) for i in range(700)]),
        "tasks of many levels": net({str(i): 0 for i in range(60)}, *[
            ([i], NONE, f"quantize(codebook={list(range(300))})") for i in range(60)]),
        "62 parts of one entry": net({"a": 2**24}, (
            [0], {"sum": [{"codebook": "free", "k": 1}] * 62}, "+".join(["quantize(k=1)"] * 62)),
            payload=bytes(248)),
        "one entry for 2^28": net({"a": 2**28}, ([0], ONE, FIXED)),
        "one entry fifty times": net({"a": 10**7}, *[([0], ONE, FIXED)] * 50),
        "two entries for 2^29": net({"a": 2**29}, ([0], {"codebook": "fixed", "levels": [0, 1]},
                                                   "quantize(codebook=[0, 1])")),
        "257 entries for 2^30": net({"a": 2**30}, ([0], {"codebook": "free", "k": 257},
                                                   "quantize(k=257)"), payload=bytes(1028)),
        "slices of nothing, 2^30": net({"a": [0, 2**30]}, ([0], {
            "sparse": 2**30, "bits": 1, "codes": 2**30, "axis": 1}, "prune(groups=1, axis=1)")),
        "many values of 2^29": net({"a": 2**29}, ([0], {
            "sparse": 2**29, "bits": 1, "codes": 2**29}, "prune(keep=1.0)")),
        "rank 2^15": net({"a": [2**15, 2**15]}, ([0], {"low rank": 2**15, "scheme": 1},
                                                 "lowrank(rank=32768)")),
        "2^30 in full": net({"a": 2**30}), "2^30 halves": net({"a": 2**30}, (
            [0], {"dense": "float16"}, "round(dtype='float16')")),
        "a level too many": net({"a": 2}, ([0], {"codebook": "fixed", "levels": [0] * 30_000},
                                           FIXED)),
        "slices of nothing": net({"a": [0, 790_000]}, ([0], {
            "sparse": 790_000, "bits": 1, "codes": 790_000, "axis": 1}, "prune(groups=1, axis=1)"),
            payload=bytes(98_750)),
        "convolutions of nothing": net({str(i): [0] * 4 for i in range(3000)}, (
            range(3000), {"each": [{"low rank": 0, "scheme": 2}]}, "lowrank(rank=1, scheme=2)")),
        "no tensor": net({}, ([], NONE, PRUNE)),
    }


def _names():
    few = {str(i): 0 for i in range(9000)}
    wide = ",".join(map(str, range(200)))
    return {
        "a new line in a name": net({"a\nb": -1}), "a long name": net({"x" * 5_000: few}),
        "a name of dots": net({"a." * 1500 + "a": 0}), "400 dots": net({"a." * 400 + "a": 0}),
        "deep names": build('{"format":1,"about":{},"storage":"float32","tasks":[],"tensors":'
                            + '{"a":' * 120 + json.dumps(few) + "}" * 121),
        "deeper names": build('{"format":1,"about":{},"storage":"float32","tasks":[],"tensors":'
                              + '{"":' * 900 + "{}" + "}" * 901),
        "names times names": net({wide: {wide: {wide: {wide: {wide: 0}}}}}),
        "names twice": net({"a,a": 0}), "names from two": net({"a.b": 0, "a": {"b": 0}}),
        "commas": net({"," * 90_000: 0}), "9000 tensors": net(few),
        "surrogates": net({"\ud800": 1}),
        "terminal codes": net({"\x1b[2J": -1}), "nothing": net({"": 0}),
    }


def _numbers():
    single = np.float32(1).tobytes()
    return {
        "level 1e300": net({"a": 2}, ([0], {"codebook": "fixed", "levels": [1e300]}, FIXED)),
        "scaled 1e300": net({"a": 2}, ([0], {"codebook": "scaled", "levels": [1e300]},
                                       "binary(scale=True)"), payload=single),
        "scaled underflow": net({"a": 2}, ([0], {"codebook": "scaled", "levels": [1e307, 3e306]},
                                           "binary(scale=True)"),
                                payload=np.float32(3e-17).tobytes() + b"\x40"),
        "a huge level": net({"a": 2}, ([0], {"codebook": "fixed", "levels": [10**400]}, FIXED)),
        "levels as text": net({"a": 2}, ([0], {"codebook": "fixed", "levels": "01"}, FIXED),
                              payload=b"\x40"),
        "storage of others": net({"a": 2}, ([0], {"sparse": 1, "bits": 1, "codes": 1},
                                            "prune(kappa=1, storage='float16')"),
                                 payload=single + b"\0"),
        "a part too few": net({"a": 2}, ([0], {"sum": [NONE]}, f"{PRUNE}+{PRUNE}")),
        "a part too many": net({"a": 2}, ([0], {"sum": [NONE] * 3}, f"{PRUNE}+{PRUNE}")),
        "a gap below 0": net({"a": 2}, ([0], NONE | {"status": "certified", "gap": -1}, PRUNE)),
        "a wrong status": net({"a": 2}, ([0], NONE | {"status": "best", "gap": 1}, PRUNE)),
        "an entry not used": net({"a": 2}, (
            [0], {"codebook": "fixed", "levels": [0, 1]}, "quantize(k=2)"), payload=b"\0"),
        "a code too high": net({"a": 4}, (
            [0], {"codebook": "fixed", "levels": [0, 1, 2]}, "quantize(k=3)"), payload=b"\x1b"),
        "a payload too long": net({"a": 1}, payload=bytes(5)),
        "a payload too short": net({"a": 2}, payload=bytes(7)),
        "a rank too high": net({"a": [2, 2]}, (
            [0], {"low rank": 3, "scheme": 1}, "lowrank(rank=3)"), payload=bytes(48)),
        "bits after the last": net({"a": 2}, ([0], {"codebook": "fixed", "levels": [0, 1]},
                                              "quantize(codebook=[0, 1])"), payload=b"\x41"),
        "slices of two tensors": net({"a": 2, "b": 2}, ([0, 1], {
            "sparse": 1, "bits": 1, "codes": 1, "axis": 0}, PRUNE), payload=single + b"\0"),
    } | {
        what: net({"a": 4}, ([0], {"sparse": count, "bits": 1, "codes": codes}, "prune(kappa=2)"),
                  payload=single * count + stream) for what, count, codes, stream in (
            ("a position beyond the end", 1, 5, b"\xf0"), ("too few positions", 2, 2, b"\x80"),
            ("too many positions", 1, 2, b"\0"), ("zeros after the last value", 1, 2, b"\x40"))
    } | {
        f"codes of {bits} bits": net({"a": 2**16}, (
            [0], {"sparse": 2, "bits": bits, "codes": 2}, "prune(kappa=2)"),
            payload=single * 2 + bytes(bits // 4)) for bits in (36, 64)
    } | {
        "scheme 2 of five axes": net({"a": [2, 2, 1, 1, 2]}, (
            [0], {"low rank": 1, "scheme": 2}, "lowrank(rank=1)"), payload=single * 4),
        "not a number": net({}, about={"a": float("nan")}), "format": net({}, format=True),
        "1e999": build('{"format":1,"about":{"a":1e999},"storage":"float32","tensors":{},'
                       '"tasks":[]}'),
        "the largest sum": net({"a": 2}, ([0], {"sum": [{"dense": "float32"}] * 2},
                                          "round(dtype='float16')+round(dtype='float16')"),
                               payload=np.full(4, 3e38, np.float32).tobytes()),
        "an infinity in the payload": net({"a": 1}, payload=np.float32(np.inf).tobytes()),
        "a key twice": build('{"format":1,"format":1,"about":{},"storage":"float32",'
                             '"tensors":{},"tasks":[]}'),
        "lists": net({}, about={"a": [[]] * 24_000}), "not UTF-8": build(b"\xff\xfe{}"),
        "deep": build("[" * 90_000), "a number": build("1" * 90_000), "text": build('"1"'),
        "empty": build(""), "a list": build("[]"), "shape of text": net("ab"),
    } | {f"about, {n} deep": build(f'{{"format":1,"about":{{"a":{"[" * n}{"]" * n}}},'
                                   '"storage":"float32","tensors":{},"tasks":[]}')
         for n in (90, 900, *range(930, 1000, 2), 5000)}


def _zips():
    data, member, none = net({"a": 2}, payload=bytes(8)), npy(EMPTY.encode()), npy(b"")
    at, found = data.rfind(b"PK\1\2"), {"nothing": b"", "PK": b"PK", "end only": data[-22:]}
    for i, value in ((8, 1), (8, 0x20), (8, 0x800), (10, 8), (10, 14), (10, 99), (20, 2**32 - 1),
                     (20, 130), (24, 2**32 - 1), (24, 146), (28, 0xFFFF), (30, 4), (42, 2**32 - 1)):
        width = "<I" if i in (20, 24, 42) else "<H"
        changed = bytearray(data)
        struct.pack_into(width, changed, at + i, value)
        found[f"directory field {i} is {value}"] = bytes(changed)
    bad = bytearray(archive([("header.npy", member), ("payload.npy", b"\t\4\5\0" + b"\xff" * 99)]))
    struct.pack_into("<H", bad, bad.rfind(b"PK\1\2") + 10, zipfile.ZIP_LZMA)  # in sizes that agree
    zip64 = struct.pack("<HHQQ", 1, 16, 2**63, 2**63)
    return found | {
        "deflated bomb": archive([("header.npy", npy(b" " * 10**7)), ("payload.npy", none)], 8),
        "bad lzma": bytes(bad), "bzip2": build(EMPTY, method=zipfile.ZIP_BZIP2),
        "lzma": build(EMPTY, method=zipfile.ZIP_LZMA),
        "a name twice": archive([("header.npy", member), ("payload.npy", none),
                                 ("headex.npy", member)]).replace(b"headex", b"header"),
        "zip64": build(EMPTY, extra=zip64), "half of an extra": build(EMPTY, extra=b"\1\0\x10\0"),
        "comment": build(EMPTY, comment=b"PK\5\6" * 5000), "before": b"x" * 1000 + data,
        "one member": archive([("header.npy", member)]), "a file after": data + data,
        "another member": archive([("header.npy", member), ("payload.npy", none), ("x.npy", none)]),
        "a path": archive([("../header.npy", member), ("payload.npy", none)]),
        "pickled": archive([("header.npy", b"\x80\x04K\1."), ("payload.npy", none)]),
        "version 3": archive([("header.npy", npy(EMPTY.encode(), version=b"\3\0")),
                              ("payload.npy", none)]),
    }


@functools.cache
def nasty():
    """{name: bytes}, none of more than 100 KB."""
    sides = {f"{side!s:.24}": net({"a": side}) for side in SIDES}
    taken = {f"{side!s:.24} of {text}": net({"a": side}, ([0], record, text)) for side in SIDES
             for record, text in ((NONE, PRUNE), (ONE, FIXED))}
    groups = {"text": {name: net({"a": 2}, ([0], NONE, text)) for name, text in TEXTS.items()},
              "npy": {name: build(EMPTY, b"", (head, None)) for name, head in HEADS.items()},
              "parts": _each_and_sums(), "names": _names(), "numbers": _numbers(), "zip": _zips(),
              "shape": sides | taken}
    return {f"{group}: {name}": data for group, files in groups.items()
            for name, data in files.items()}

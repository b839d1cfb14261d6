"""Fuzz the reader of the packed file: hand it mutated files and check what it does with them.

    python tests/storage/fuzz.py --runs 500000 --seed 1 --engine random --out failing
    python tests/storage/fuzz.py --runs 500000 --seed 1 --engine atheris --out failing

where the package is installed. The engine `random` needs only the package: input i of a seed is
always the same. The engine `atheris` follows the coverage of lcref.storage, lcref.text and zipfile;
it is no dependency of the package (`pip install atheris`; its wheels are for Linux and for the
versions of Python that it names). Seeds are `hostile.sound()`, and all of `hostile.nasty()` is
checked first. Half of the mutations change the bytes of a file, most of which its CRC or its zip
fields give away; the other half change what is below them, the header as JSON, the payload and the
heads of the npy files, and build the zip file around it anew.

What is checked of every input, of which `unpack` must make a Model or a ValueError:

- the message is one printable line of at most LONGEST characters; no other exception, no warning,
  nothing printed;
- processor time is at most SECONDS + PER_WEIGHT × (weights it declares) where the file has at most
  100 KB (measured again where it was more, as others may use the machine);
- on one input in SAMPLE, as tracing is slow, on all that declare more than MANY weights and on all
  fixed ones: the peak of memory is at most
  PER_BYTE × (bytes of the file) + BASE, whatever net the header declares, and `load` of the same
  bytes as a file says the same, after the name of the file. What takes most is a position in 8
  bytes for a code of one bit, hence 64 and what is beside it; a chunk of codes of 34 bits; and 62
  parts that each hold the layout of 10,000 tensors;
- a Model of at most 4 MB decompresses to its shapes, counts its bits under both conventions and is
  packed again into a file that holds the same.

Failing inputs are written to --out, the first and each smaller one of a kind. The last that is
printed is a summary; the exit status is 1 where something failed.
"""

import argparse
import collections
import contextlib
import copy
import hashlib
import importlib
import io
import json
import os
import platform
import random
import re
import shlex
import struct
import sys
import tempfile
import time
import tracemalloc
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hostile
import numpy as np

import lcref.storage

LONGEST = 400                       # characters of a message
SECONDS, PER_WEIGHT = 1.0, 20e-9    # of processor time
PER_BYTE, BASE = 80, 16 << 20       # of memory, see the docstring
SAMPLE, MANY = 50, 1 << 23          # inputs; weights
LARGEST = 1 << 32                   # bytes of a net that is legal
SMALL = 1 << 22                     # bytes of a net that is decompressed here

# ---- mutations of the bytes

WORDS = (0, 1, 2, 8, 14, 99, 127, 128, 255, 256, 0xFFFF, 1 << 31, (1 << 32) - 1)
# of zip's records: (signature, {offset: width}), the fields in the order of the format
FIELDS = (
    (b"PK\3\4", {4: 2, 6: 2, 8: 2, 14: 4, 18: 4, 22: 4, 26: 2, 28: 2}),
    (b"PK\1\2", {4: 2, 6: 2, 8: 2, 10: 2, 16: 4, 20: 4, 24: 4, 28: 2, 30: 2, 32: 2, 34: 2, 38: 4,
                 42: 4}),
    (b"PK\5\6", {4: 2, 6: 2, 8: 2, 10: 2, 12: 4, 16: 4, 20: 2}))


def _flip(rng, data):
    for _ in range(rng.choice((1, 1, 2, 8))):
        i = rng.randrange(len(data))
        data[i] = rng.choice((0, 255, data[i] ^ 1 << rng.randrange(8), rng.randrange(256)))


def _cut(rng, data):
    i = rng.randrange(len(data))
    del data[i:rng.choice((len(data), i + 1, i + rng.randrange(1, 99)))]


def _insert(rng, data):
    i, j = rng.randrange(len(data) + 1), rng.randrange(len(data))
    piece = data[j:j + rng.randrange(1, 200)]
    data[i:i] = rng.choice((bytes(rng.randrange(1, 64)), rng.randbytes(8), piece, data[:]))


def _splice(rng, data):
    other = rng.choice(list(hostile.sound().values()))
    data[rng.randrange(len(data)):] = other[rng.randrange(len(other)):]


def _zip_field(rng, data):
    signature, fields = rng.choice(FIELDS)
    starts = [found.start() for found in re.finditer(re.escape(signature), data)]
    at, width = rng.choice(list(fields.items()))
    if not starts or (at := at + rng.choice(starts)) + width > len(data):
        return _flip(rng, data)
    code = "<H" if width == 2 else "<I"
    (value,) = struct.unpack_from(code, data, at)
    value = rng.choice((*WORDS, value + 1, value - 1, value ^ 1 << rng.randrange(8 * width)))
    struct.pack_into(code, data, at, value % (1 << 8 * width))


def mutate_bytes(rng, data):
    """The bytes of a file, changed in a few places."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if data:
            rng.choice((_flip, _flip, _cut, _insert, _splice, _zip_field, _zip_field))(rng, data)
    return bytes(data)


# ---- mutations below the CRC

NUMBERS = (0, 1, -1, 2, 3, 7, 8, 33, 255, 256, 2**16, 2**29, 2**31, 2**32, 2**63, -2**63, 10**12,
           10**18, 10**400, 0.0, 0.5, 1.5, -1e-300, 1e308, float("nan"), float("inf"))
OTHERS = (True, False, None, "", "a", "1", "exact", "stationary", "free", "float16", [], {}, [0],
          [[]], [1, 1], {"a": 1}, {"": {}}, {"a,b": 2}, "@deep@", "\ud800", "\x1b", "x" * 3000)
SHAPES = ([10**12], [2**31, 2**31], [0, 10**18], [1] * 32, [1] * 33, [2**30], 2**29, [0, 2**30],
          [2, 2], [2, 1, 1, 2], 11, 0, [], -1, 2**20, [4, 5, 1, 1])
RECORDS = (hostile.NONE, hostile.ONE, {"codebook": "free", "k": 2}, {"codebook": "free", "k": 1},
           {"codebook": "scaled", "levels": [-1, 1]}, {"sparse": 1, "bits": 34, "codes": 1},
           {"sparse": 1, "bits": 1, "codes": 1, "axis": 0}, {"low rank": 1, "scheme": 1},
           {"low rank": 0, "scheme": 2}, {"dense": "float32"}, {"dense": "bfloat16"}, {"each": []},
           {"each": [hostile.NONE]}, {"sum": [hostile.NONE] * 2}, {"sum": []},
           {"status": "certified", "gap": None})
CALLS = ("quantize(k=2)", "quantize(k=1)", "binary()", "binary(scale=True)", "prune(kappa=1)",
         "prune(groups=1, axis=0)", "lowrank(rank=1)", "lowrank(rank=1, scheme=2)", "each(",
         "round(dtype='float16')", "prune(kappa=1, storage='float16')", "sum(", "ternary()",
         "quantize(codebook=[0, 1])", ")", "solver='joint'")
TOKENS = ("NaN", "-Infinity", "1e999", "-0", "1E400", "0x1", "01", "1.", "{}", "[]", "null", '"',
          '"\\ud800"', '{"format":1,"format":1}', ",", "\0", "é", "1" * 5000, "/**/", '"\\u0000"')


def _paths(tree, path=()):
    yield path
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(
        tree, list) else ()
    for key, inner in pairs:
        yield from _paths(inner, (*path, key))


def _at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def _field(rng, file):
    """Set, drop, copy, double, wrap or rename one value of the header."""
    paths = list(_paths(file["header"]))[1:]
    if not paths:
        file["header"] = rng.choice(RECORDS)
        return
    path, other = rng.choice(paths), rng.choice(paths)
    owner, value = _at(file["header"], path[:-1]), _at(file["header"], path)
    if rng.random() < 0.15:
        owner.pop(path[-1])
    elif rng.random() < 0.15 and isinstance(owner, list):
        owner[path[-1]:path[-1]] = [copy.deepcopy(value)] * rng.choice((1, 2, 70))
    elif rng.random() < 0.1 and isinstance(owner, dict):
        owner[rng.choice(("", "a", "a,b", "sum", "each", "x" * 300, "k.w"))] = owner.pop(path[-1])
    else:
        near = (value + rng.choice((-1, 1)),) * 9 if type(value) is int else ()
        owner[path[-1]] = copy.deepcopy(rng.choice(
            (*near, *NUMBERS, *OTHERS, *RECORDS, *SHAPES, [value], {"a": value},
             *(_at(file["header"], other),) * 9)))


def _tasks(file):
    tasks = file["header"].get("tasks") if isinstance(file["header"], dict) else None
    return [task for task in tasks if isinstance(task, dict)] if isinstance(tasks, list) else []


def _text(rng, file):
    """Another text for a compression, hostile or almost right."""
    for task in rng.sample(_tasks(file), min(1, len(_tasks(file)))):
        old = str(task.get("compress"))
        i, call = rng.randrange(len(old) + 1), rng.choice(CALLS)
        task["compress"] = rng.choice((
            rng.choice(list(hostile.TEXTS.values())), call, f"each({call})", f"{old}+{call}",
            old[:i] + call + old[i:], old[:i] + chr(rng.randrange(300)) + old[i + 1:],
            old[:i] + rng.choice("()[]{}'\",=+-0159.\\ eJ") + old[i + rng.randrange(2):]))


def _record(rng, file):
    """Another record for a θ."""
    for task in rng.sample(_tasks(file), min(1, len(_tasks(file)))):
        record = copy.deepcopy(rng.choice(RECORDS))
        task["theta"] = record | task["theta"] if isinstance(
            task.get("theta"), dict) and rng.random() < 0.3 else record


def _shape(rng, file):
    """Another shape for a tensor, or many tensors."""
    header = file["header"]
    if isinstance(header, dict) and isinstance(header.get("tensors"), dict):
        name = rng.choice(list(header["tensors"]) or ["a"])
        header["tensors"][name] = copy.deepcopy(rng.choice(SHAPES))
        if rng.random() < 0.1:
            header["tensors"] |= {str(i): rng.choice((0, 1)) for i in range(rng.choice((9, 999)))}


def _payload(rng, file):
    """Bytes of the payload changed, cut or added."""
    data = bytearray(file["payload"])
    if data and rng.random() < 0.7:
        _flip(rng, data)
    elif data and rng.random() < 0.5:
        _cut(rng, data)
    else:
        data += bytes(rng.choice((1, 2, 4, 8, 1000)))
    file["payload"] = bytes(data)


def _token(rng, file):
    """Something in the text of the header that no tree of it gives."""
    file["edits"].append((rng.random(), rng.choice(TOKENS), rng.randrange(2)))


def _head(rng, file):
    """The head of one of the npy files."""
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(file['payload'])},), }}"
    i = rng.randrange(len(head))
    head = head[:i] + rng.choice("()[]{}'\",:-0 1\n\\LbuO") + head[i + rng.randrange(2):]
    file["heads"] = rng.sample([rng.choice((head, *hostile.HEADS.values())), None], 2)


BELOW = (_field,) * 8 + (_text,) * 3 + (_record,) * 2 + (_shape, _payload, _payload, _token, _head)


def _written(rng, header, edits):
    """The text of a header, with what json does not write."""
    depth = rng.choice((90, 900, 960, 990, 9000))
    text = json.dumps(header).replace('"@deep@"', "[" * depth + "]" * depth)
    for where, token, instead in edits:
        ends = [found.span() for found in re.finditer(r'[^][{}:, "]+|"[^"]*"', text)] or [(0, 0)]
        start, end = ends[int(where * len(ends))]
        text = text[:start] + token + text[end if instead else start:]
    return text


def mutate_below(rng, data):
    """The header, the payload or an npy head changed, in a zip file that is whole."""
    header, payload = hostile.opened(data) or hostile.opened(
        rng.choice(list(hostile.sound().values())))
    file = {"header": header, "payload": payload, "heads": (None, None), "edits": []}
    try:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            rng.choice(BELOW)(rng, file)
        text = _written(rng, file["header"], file["edits"])
    except RecursionError:  # the header is deep already
        return mutate_bytes(rng, data)
    return hostile.build(text, file["payload"], file["heads"])


def mutated(seed, i, below=None):
    """Input i of a seed; the bytes of a file for the even, below the CRC for the odd."""
    rng = random.Random(f"{seed} {i}")
    data = rng.choice(list(hostile.sound().values()))
    return (mutate_below if (i % 2 if below is None else below) else mutate_bytes)(rng, data)


# ---- what must hold


def message_faults(text):
    if len(text) > LONGEST:
        yield "a message that is too long"
    if "\n" in text or not text.isprintable():
        yield "a message that is not one printable line"


def unpacked(data, storage=lcref.storage):
    """(Model or message, faults, seconds of processor time) of what `unpack` makes of the data."""
    faults, printed, answer = [], io.StringIO(), None
    with (warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed),
          contextlib.redirect_stderr(printed)):
        warnings.simplefilter("always")
        start = time.process_time()
        try:
            answer = storage.unpack(data)
            faults += ["neither a Model nor a ValueError"] * (not hasattr(answer, "shapes"))
        except ValueError as error:
            answer = str(error)
            faults += message_faults(answer)
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error!s:.60}")
        seconds = time.process_time() - start
    faults += [f"{one.category.__name__}: {one.message!s:.60}" for one in caught]
    return answer, faults + ["it prints"] * bool(printed.getvalue()), seconds


def weights(data, answer):
    """How many weights a net declares that is legal, else 0."""
    if hasattr(answer, "shapes"):
        return sum(map(int, (np.prod([float(side) for side in shape])
                             for shape in answer.shapes.values())))
    header = (hostile.opened(data) or ({}, b""))[0]
    count = hostile.declared(header.get("tensors", 0) if isinstance(header, dict) else 0)
    return count // 4 if count <= LARGEST else 0


def peak(data, storage=lcref.storage):
    """The peak of memory of one `unpack`, in bytes."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        unpacked(data, storage)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def bound(data):
    """The most memory that `unpack` may take."""
    return PER_BYTE * len(data) + BASE


def model_faults(model, storage=lcref.storage):
    """What is wrong with a Model; sums of its parts may overflow."""
    try:
        with np.errstate(all="ignore"):
            dense = model.decompress()
            counts = [model.bits(by) for by in ("float16", "float32")]
            again = storage.unpack(storage.pack(dense, model.tasks, model.thetas, model.about))
            same = again.decompress()
        about = [json.dumps(one.about) for one in (model, again)]
    except Exception as error:
        yield f"a Model that fails with {type(error).__name__}: {error!s:.80}"
        return
    for name, shape in model.shapes.items():
        if dense[name].shape != shape or dense[name].dtype != np.float32:
            yield "a tensor that is not of its shape or not float32"
        elif dense[name].tobytes() != same[name].tobytes():
            yield "a tensor that differs after it is packed again"
    if (list(model.shapes.items()), model.tasks, model.storage, about[0], counts) != (
            list(again.shapes.items()), again.tasks, again.storage, about[1],
            [again.bits(by) for by in ("float16", "float32")]) or min(counts) < 0:
        yield "a Model that differs after it is packed again"


def load_faults(data, answer, storage=lcref.storage):
    """What is wrong with `load` of the data as a file, where `unpack` gave the answer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.npz")
        path.write_bytes(data)
        try:
            with warnings.catch_warnings(action="ignore"):
                found = storage.load(path)
                if isinstance(answer, str) or not storage.is_packed(path):
                    yield "load takes what unpack or is_packed does not"
                del found
        except ValueError as error:
            said = str(error).removeprefix(f"{path}: ")     # its stack is one call deeper
            if said != answer and "recursion" not in said or said == str(error):
                yield f"load says {said:.60}"


class Tally:
    """What was seen, and what failed."""

    def __init__(self, out=None, storage=lcref.storage):
        self.out, self.storage, self.runs, self.accepted = out, storage, 0, 0
        self.slowest, self.largest, self.messages = (0.0, ""), (0.0, ""), set()
        self.faults, self.smallest = collections.Counter(), {}

    def check(self, data, measured=False):
        """Whether all holds for an input; memory and load only where asked."""
        answer, faults, seconds = unpacked(data, self.storage)
        count = weights(data, answer)
        limit = SECONDS + PER_WEIGHT * count
        if seconds > limit and len(data) <= 100_000:
            seconds = min(seconds, unpacked(data, self.storage)[2])
            faults += ["slower than its limit"] * (seconds > limit)
        if isinstance(answer, str):
            self.messages.add(re.sub(r"\d+|['\"\n].*", "", answer)[:80])
        elif answer is not None and count * 4 <= SMALL:
            faults += model_faults(answer, self.storage)
        name = hashlib.sha256(data).hexdigest()[:16]
        if measured or count > MANY:
            faults += load_faults(data, answer, self.storage)
            share = peak(data, self.storage) / bound(data)
            faults += ["more memory than its bound"] * (share > 1)
            self.largest = max(self.largest, (share, name))
        self.slowest = max(self.slowest, (seconds, name))
        self.runs, self.accepted = self.runs + 1, self.accepted + (not isinstance(answer, str))
        for fault in faults:
            self._keep(re.sub(r"\d+", "0", fault), name, data)
        return not faults

    def _keep(self, fault, name, data):
        self.faults[fault] += 1
        if len(data) < len(self.smallest.get(fault, data + b" ")):
            self.smallest[fault] = data
            if self.out:
                (self.out / f"failing-{name}.npz").write_bytes(data)
                print(f"{fault}: failing-{name}.npz, {len(data)} bytes", flush=True)

    def summary(self, engine):
        """What was seen, as a dict for JSON."""
        return {
            "engine": engine, "runs": self.runs, "accepted": self.accepted,
            "refused": self.runs - self.accepted,
            "slowest ms": round(1000 * self.slowest[0], 1), "slowest input": self.slowest[1],
            "largest peak over its bound": round(self.largest[0], 3),
            "input of that peak": self.largest[1], "kinds of messages": len(self.messages),
            "faults": dict(self.faults.most_common()), "command": shlex.join(sys.argv),
            "versions": {"python": platform.python_version(), "numpy": np.__version__,
                         "lcref": lcref.__version__, **_version("atheris")}}


def _version(package):
    try:
        return {package: version(package)}
    except PackageNotFoundError:
        return {}


# ---- engines


def fixed(tally):
    """Check the seeds and the nastiest, memory and all."""
    for data in (*hostile.sound().values(), *hostile.nasty().values()):
        tally.check(data, measured=True)


def by_random(args, tally):
    """Inputs --first to --first + --runs of the seed."""
    for i in range(args.first, args.first + args.runs):
        tally.check(mutated(args.seed, i), measured=i % SAMPLE == 0)
        if i % 20_000 == 0:
            print(f"{i}: {dict(tally.faults)}", flush=True)
    return report(args, tally)


def by_atheris(args, tally):
    """Follow the coverage of the reader, imported anew with counters in it."""
    import atheris
    hostile.sound()
    for name in [name for name in sys.modules if name.split(".")[0] in ("lcref", "zipfile")]:
        del sys.modules[name]
    with atheris.instrument_imports(include=["lcref.storage", "lcref.text", "zipfile"]):
        tally.storage = importlib.import_module("lcref.storage")

    def one(data):
        tally.check(data, measured=tally.runs % SAMPLE == 0)
        if tally.runs >= args.runs:     # libFuzzer would end the process without a summary
            sys.stdout.flush()
            os._exit(report(args, tally))

    def mutate(data, largest, seed):
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return mutate_below(rng, data)[:largest]
        return atheris.Mutate(data, largest) if rng.random() < 0.5 else mutate_bytes(
            rng, data)[:largest]

    with tempfile.TemporaryDirectory() as corpus:
        for i, data in enumerate(hostile.sound().values()):
            Path(corpus, str(i)).write_bytes(data)
        atheris.Setup([sys.argv[0], f"-seed={args.seed}", "-runs=-1", "-max_len=20000",
                       "-timeout=60", "-rss_limit_mb=8000", "-verbosity=0", "-use_value_profile=1",
                       f"-artifact_prefix={args.out or '.'}/", corpus], one, custom_mutator=mutate)
        atheris.Fuzz()


def report(args, tally):
    """Print the summary; the exit status."""
    print(json.dumps(tally.summary(args.engine), indent=1), flush=True)
    return int(bool(tally.faults))


def main():
    parser = argparse.ArgumentParser(description="Fuzz the reader of the packed file.")
    parser.add_argument("--runs", type=int, default=10_000, help="mutated inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="of random: the input to go on from")
    parser.add_argument("--engine", choices=("atheris", "random"), default="random")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep failing inputs here")
    args = parser.parse_args()
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    tally = Tally(args.out)
    fixed(tally)
    print(f"fixed inputs: {tally.runs}, faults {dict(tally.faults)}", flush=True)
    tally.runs = tally.accepted = 0
    return {"random": by_random, "atheris": by_atheris}[args.engine](args, tally)


if __name__ == "__main__":
    sys.exit(main())

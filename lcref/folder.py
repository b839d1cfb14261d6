"""The folder of a run: one process at a time, its settings, and its last two checkpoints.

    settings.json           what the run is, written before it begins: its command and settings,
                            versions, net and data; and "ended", null while it goes on
    checkpoint-000001.npz   where it was: plain arrays, and the rest as the bytes of a JSON text

Every file is written beside its place, brought to the disk and then renamed, so that it is there
whole or not at all. A checkpoint has a hash of its content; one that is damaged is passed over for
the one before.
"""
import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from .tree import put_together, take_apart

try:
    import fcntl
except ImportError:     # not POSIX: two processes on one folder are not kept apart
    fcntl = None        # type: ignore[assignment]

__all__ = ["Folder", "naming", "path_of", "read_settings", "same", "sha256", "to_disk",
           "write_whole"]

KEPT = 2
SETTINGS, LOCK = "settings.json", ".lock"
NAME = re.compile(r"checkpoint-(\d{6,})\.npz")
LEFT = (".settings.json", ".checkpoint.npz", ".history.json", ".*.npz-*", ".lcref-*", ".writing")
DAMAGED = (ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError,
           RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)


def path_of(value: Any, name: str) -> Path:
    """A path that was given as the argument of that name."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, not {value!r:.60}")
    return Path(value)


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what settings.json of a folder holds.

    Raises
    ------
    FileNotFoundError, ValueError
        There is none, or it is damaged.
    """
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"nothing to resume in {folder}: no {SETTINGS}") from None
    except ValueError as error:
        raise ValueError(f"{folder / SETTINGS} is damaged: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{folder / SETTINGS} is damaged: it holds no settings")
    return settings


def same(there: Any, here: Any, what: str, name: str = "") -> None:
    """Raise ValueError, with `what` and the first difference named, unless two JSON trees agree."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*here, *(key for key in there if key not in here)]:
            same(there.get(key), here.get(key), what, f"{name} {key}".lstrip())
    elif there != here:
        raise ValueError(f"{what} is of another run: {name or 'it'} is {there!r} there, and here "
                         f"{here!r}")


def sha256(*trees: Any) -> str:
    """Return the hash of trees that hold arrays: of their names, dtypes, shapes and values."""
    text, arrays = take_apart(trees)
    digest = hashlib.sha256(text.encode())
    for path, array in arrays.items():
        digest.update(f"{path} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class Folder:
    """The folder of a run, held by one process until it is closed.

    Parameters
    ----------
    path : Path
        Made where it does not exist.
    also : dict
        What settings.json says besides, and a resumed run need not share.

    Raises
    ------
    ValueError
        Another process holds it.
    OSError
        It cannot be made or written to.
    """

    def __init__(self, path: Path, also: dict[str, Any] | None = None):
        self.path, self.also, self.kept = path, also or {}, list[Path]()
        path.mkdir(parents=True, exist_ok=True)
        self.lock = _locked(path / LOCK)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Let another process have the folder."""
        if self.lock is not None:
            with suppress(OSError):     # it is of no account, and the folder may be read-only
                (self.path / LOCK).unlink()
            os.close(self.lock)
            self.lock = None

    def checkpoints(self) -> list[Path]:
        """The files of all checkpoints, the oldest first."""
        found = {int(match[1]): file for file in self.path.iterdir()
                 if (match := NAME.fullmatch(file.name))}
        return [found[number] for number in sorted(found)]

    def begin(self, run: dict[str, Any]) -> None:
        """Write what the run is, where no other has checkpoints here.

        Raises
        ------
        ValueError
            The folder has the checkpoints of a run that has not ended.
        """
        if old := self.checkpoints():
            if not _ended(self.path):
                raise ValueError(f"{self.path} has checkpoints of a run that has not ended; go on "
                                 f"with --resume {self.path}, or delete {old[-1].name} there")
            self.clear()
        self.clear_scratch()
        self.settle(run, None)

    def settle(self, run: dict[str, Any], ended: str | None) -> None:
        """Write settings.json, with how the run ended; then its checkpoints go."""
        text = json.dumps({**run, **self.also, "ended": ended}, indent=1) + "\n"
        write_whole(self.path / SETTINGS, lambda stream: stream.write(text.encode()))
        if ended:
            self.clear()

    def goes_on(self, run: dict[str, Any]) -> Any:
        """What the last checkpoint holds, see `latest`; ValueError where the run has ended."""
        settings = read_settings(self.path)
        if settings.get("ended"):
            raise ValueError(f"the run in {self.path} has ended: {settings['ended']}")
        same({name: settings.get(name) for name in run}, run, str(self.path / SETTINGS))
        self.clear_scratch()
        return self.latest(run)

    def clear(self) -> None:
        """Remove all checkpoints."""
        for file in self.checkpoints():
            file.unlink()
        self.kept = []

    def clear_scratch(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        for pattern in LEFT:
            for left in self.path.glob(pattern):
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()

    def write(self, tree: Any, run: dict[str, Any]) -> Path:
        """Write a checkpoint, then remove all but the last two that are whole.

        Raises
        ------
        OSError
            The disk is full, or the folder cannot be written to; nothing is left of the attempt.
        """
        old = self.checkpoints()
        number = int(old[-1].stem.rpartition("-")[2]) + 1 if old else 1
        file = self.path / f"checkpoint-{number:06}.npz"
        text, members = take_apart(tree)
        members |= {"tree": _bytes(text), "run": _bytes(json.dumps(run))}
        members["sha256"] = _bytes(sha256(members))
        write_whole(file, lambda stream: np.savez(stream, **members))  # type: ignore[arg-type]
        self.kept = [*self.kept, file][-KEPT:]
        for other in old:
            if other not in self.kept:
                other.unlink()
        return file

    def latest(self, run: dict[str, Any]) -> Any:
        """Return what the last whole checkpoint holds, None where there is no checkpoint.

        One that is damaged is passed over, which is said on standard error.

        Raises
        ------
        ValueError
            All are damaged; or the last whole one is of another run, the difference is named.
        """
        files = self.checkpoints()
        for file in reversed(files):
            try:
                members = _read(file)
                there = json.loads(members.pop("run").tobytes())
                tree = put_together(members.pop("tree").tobytes().decode(), members)
                if not isinstance(tree, dict):
                    raise ValueError("it holds no names")
            except DAMAGED as error:
                print(f"lcref: {file} is damaged, and passed over: {' '.join(str(error).split())}",
                      file=sys.stderr)
                continue
            same(there, run, str(file))
            self.kept = [file]
            return tree
        if files:
            raise ValueError(f"all checkpoints in {self.path} are damaged; delete them to start "
                             "over")
        return None


def _ended(path):
    """How a run ended, where settings.json says so."""
    try:
        return read_settings(path).get("ended")
    except (OSError, ValueError):
        return None


def _locked(file):
    """A descriptor of a file that this process has locked; None where there are no locks."""
    if fcntl is None:
        return None
    while True:
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.exists() and os.path.samestat(os.fstat(lock), file.stat()):
                return lock
        except BlockingIOError:
            os.close(lock)
            raise ValueError(f"another process is at work in {file.parent}") from None
        except FileNotFoundError:   # the process that had it has just ended
            pass
        os.close(lock)


def write_whole(file: Path, write: Any) -> None:
    """Let write(stream) fill a file, which is then there whole, or as before.

    Raises
    ------
    OSError
        The disk is full, or the folder cannot be written to; nothing is left of the attempt.
    """
    part = file.parent / (".checkpoint.npz" if NAME.fullmatch(file.name) else f".{file.name}")
    try:
        with naming(file), open(part, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, file)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    to_disk(file.parent)


def to_disk(*paths: Path) -> None:
    """Bring files to the disk, and the names in folders where a system can do that."""
    for path in paths:
        if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
            continue
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system that names no file, as that of a full disk, name this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _bytes(text):
    return np.frombuffer(text.encode(), np.uint8)


def _read(file):
    """The members of a checkpoint but for their hash; one of many exceptions if it is damaged."""
    with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
        members = {name: archive[name] for name in archive.files}
    if _bytes(sha256({name: members[name] for name in members if name != "sha256"})).tobytes() != (
            members.pop("sha256").tobytes()):
        raise ValueError("its content is not that of its hash")
    return members

"""Any bytes as a file of MNIST: an array of what the bytes say, or an error that names the file."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcref.data import idx

IMAGES, LABELS = 2051, 2049
SIZES = st.sampled_from([0, 1, 2, 3, 2**16, 2**31, 2**32 - 1])
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_named(path, content, magic):
    """The array, or None where the file was refused by name."""
    path.write_bytes(content)
    try:
        return idx._read_idx(path, magic)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)


@same_folder
@given(st.binary(max_size=40), st.sampled_from([IMAGES, LABELS]))
def test_random_bytes_are_refused_by_name(tmp_path, content, magic):
    assert read_or_named(tmp_path / "a", content[:3] + b"\xff" + content[4:], magic) is None
    read_or_named(tmp_path / "a.gz", content, magic)


@same_folder
@given(st.sampled_from([IMAGES, LABELS, 2050, 0]), st.lists(SIZES, max_size=4),
       st.binary(max_size=12), st.sampled_from([IMAGES, LABELS]), st.booleans())
def test_a_header_is_believed_only_where_as_many_bytes_follow(tmp_path, found, sides, data, magic,
                                                              gzipped):
    content = struct.pack(f">{1 + len(sides)}I", found, *sides) + data
    packed = gzip.compress(content) if gzipped else content
    array = read_or_named(tmp_path / ("a.gz" if gzipped else "a"), packed, magic)
    fields = struct.unpack(f">{len(content) // 4}I", content[:len(content) // 4 * 4])
    axes = magic % 256
    count, shape = 1, fields[1:1 + axes]
    for side in shape:
        count *= side       # of Python, which does not overflow
    right = (len(fields) > axes and fields[0] == magic and 0 < count
             and count == len(content) - 4 * (1 + axes))
    assert (array is not None) == right
    if right:
        assert array.shape == shape and array.tobytes() == content[4 * (1 + axes):]


@same_folder
@given(st.data())
def test_a_gzip_file_that_was_changed_or_cut_is_read_as_it_was_or_refused(tmp_path, data):
    content = struct.pack(">4I", IMAGES, 5, 6, 7) + bytes(range(210))
    packed = bytearray(gzip.compress(content, mtime=0))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    packed = packed[:data.draw(st.integers(0, len(packed)) | st.just(len(packed)))]
    array = read_or_named(tmp_path / "a.gz", bytes(packed), IMAGES)
    assert array is None or array.tobytes() == content[16:]     # flags, a date or a name of gzip's


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_a_declared_size_far_above_the_file_s_is_refused_before_it_is_allocated(name, tmp_path):
    content = struct.pack(">4I", IMAGES, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(100)
    (tmp_path / name).write_bytes(gzip.compress(content) if name == "a.gz" else content)
    tracemalloc.start()     # a megabyte is read at a time
    with pytest.raises(ValueError, match="truncated or damaged"):
        idx._read_idx(tmp_path / name, IMAGES)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_of_a_file_larger_than_any_of_mnist_no_more_is_read_than_shows_that(name, tmp_path,
                                                                            monkeypatch):
    monkeypatch.setattr(idx, "LARGEST", 2**21)
    content = struct.pack(">2I", LABELS, 2**22) + bytes(2**22)
    (tmp_path / name).write_bytes(gzip.compress(content) if name == "a.gz" else content)
    with pytest.raises(ValueError, match="says 4194304 bytes of data, 2097144 follow"):
        idx._read_idx(tmp_path / name, LABELS)


def test_the_limit_is_above_the_largest_file_of_mnist():
    assert idx.LARGEST > 16 + 60_000 * 28 * 28 and np.iinfo(np.int32).max > idx.LARGEST

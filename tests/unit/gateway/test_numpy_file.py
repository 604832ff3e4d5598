from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.gateway.intake.numpy_file import HEADER_MAX_BYTES, BadArray, check_npy


def saved(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=False)
    return target.getvalue()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i8", "?", ">f4"])
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (5,), ()])
def test_arrays_of_numbers_pass(dtype: str, shape: tuple[int, ...]):
    content = saved(np.zeros(shape, dtype))
    check_npy(content[:HEADER_MAX_BYTES], len(content))


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.array([object()]), "holds"),
        (np.array(["text"]), "holds"),
        (np.zeros(2, [("a", "f4"), ("b", "f4")]), "holds"),
        (np.zeros(2, "c8"), "holds"),
        (np.zeros((0, 3), "f4"), "shape"),
        (np.zeros((1,) * 9, "f4"), "shape"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], why: str):
    content = saved(np.zeros(1, "f8")).replace(b"'<f8'", b"'|O' ") if array.dtype.hasobject else saved(array)
    with pytest.raises(BadArray, match=why):
        check_npy(content[:HEADER_MAX_BYTES], len(content))


def test_another_size_than_announced_is_refused():
    content = saved(np.zeros((2, 2), "f4"))
    for size in (len(content) - 1, len(content) + 1):
        with pytest.raises(BadArray, match="announces"):
            check_npy(content, size)


@pytest.mark.parametrize(
    "header",
    [
        b"{" * 3000,
        b"__import__('os').getpid()",
        b"{'descr': '<f4'}",
        b"[]",
        b"{'descr': '<f4', 'fortran_order': 1, 'shape': (-1,)}",
        b"\xff\xfe",
        b"{'descr': '<f4', 'fortran_order': False, ['shape']: (1,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (0x" + b"f" * 4000 + b",)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-0x" + b"f" * 4000 + b",)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 2000 + b",)}",
    ],
)
def test_a_bad_header_is_refused(header: bytes):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(BadArray) as refused:
        check_npy(content, len(content))
    assert len(str(refused.value)) < 200


@given(st.binary(max_size=200))
def test_no_bytes_break_it(content: bytes):
    for head in (content, b"\x93NUMPY\x01\x00" + content):
        with pytest.raises(BadArray):
            check_npy(head, len(head))

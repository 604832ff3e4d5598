from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converter.common.conversion import ConversionRefused
from converter.contracts.job import Preprocess
from converter.toolchain import samples
from converter.toolchain.images import Unreadable
from converter.toolchain.models import TensorSpec
from converter.toolchain.preprocessing import resolve
from converter.toolchain.samples import Member, ReferenceSet, Skipped, sample_of, synthetic

IMAGE = TensorSpec(name="image", dtype="float32", shape=(1, 3, 4, 4))
PAIR = (
    TensorSpec(name="left", dtype="float32", shape=(1, 2)),
    TensorSpec(name="right", dtype="int64", shape=(1, 3)),
)
PREPROCESSING = resolve(Preprocess(preset="kneron"), IMAGE)


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (128, 0, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as written:
        for name, content in members.items():
            written.writestr(name, content)
    return path


def test_members_come_in_the_order_in_which_they_were_sent(tmp_path: Path):
    path = archive(tmp_path / "set.zip", zebra=b"1", **{"folder/": b""}, apple=b"2")
    with ReferenceSet(path) as files:
        members = [member for member in files.members() if isinstance(member, Member)]
        assert [member.name for member in members] == ["zebra", "apple"]
        assert files.read(members[1].index) == b"2"


def test_a_member_that_is_too_big_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(samples, "MOST_MEMBER_BYTES", 10)
    with ReferenceSet(archive(tmp_path / "set.zip", big=b"x" * 11, small=b"x")) as files:
        found = list(files.members())
    assert found[0] == Skipped(index=0, name="big", reason="more than 10 bytes")
    assert isinstance(found[1], Member)


def test_a_damaged_member_does_not_spoil_the_others(tmp_path: Path):
    path = archive(tmp_path / "set.zip", first=b"aaaa", second=b"bbbb")
    path.write_bytes(path.read_bytes().replace(b"aaaa", b"axaa"))
    with ReferenceSet(path) as files:
        damaged, whole = files.members()
    assert isinstance(damaged, Skipped)
    assert isinstance(whole, Member)


def test_a_set_that_is_no_archive_is_refused(tmp_path: Path):
    (tmp_path / "set.zip").write_bytes(b"no archive")
    with pytest.raises(ConversionRefused, match="not a ZIP") as refused:
        ReferenceSet(tmp_path / "set.zip")
    assert refused.value.code == "calibration_unreadable"


def test_an_image_becomes_the_models_only_input():
    sample = sample_of(png(), (IMAGE,), PREPROCESSING)
    assert sample.raw["image"].dtype == np.uint8
    assert sample.feeds["image"][0, :, 0, 0].tolist() == [0.0, -0.5, 0.49609375]


def test_arrays_feed_inputs_by_name_and_may_lack_the_batch():
    sample = sample_of(npz(left=np.ones((1, 2)), right=np.array([1, 2, 3])), PAIR, None)
    assert {name: (array.dtype, array.shape) for name, array in sample.feeds.items()} == {
        "left": (np.float32, (1, 2)),
        "right": (np.int64, (1, 3)),
    }


def test_one_array_feeds_the_only_input_as_it_is():
    values = np.random.default_rng(0).random((1, 3, 4, 4), np.float32)
    np.testing.assert_array_equal(sample_of(npy(values), (IMAGE,), PREPROCESSING).feeds["image"], values)


@pytest.mark.parametrize(
    "content",
    [
        npz(left=np.ones((1, 2))),
        npz(left=np.ones((1, 2)), right=np.ones((1, 3)), other=np.ones(1)),
        npz(left=np.ones((2, 2)), right=np.ones((1, 3))),
        npz(left=np.array([["a", "b"]]), right=np.ones((1, 3))),
        png(),
    ],
    ids=["missing", "unknown", "shape", "type", "image"],
)
def test_data_that_does_not_fit_is_refused(content: bytes):
    with pytest.raises(ConversionRefused) as refused:
        sample_of(content, PAIR, None)
    assert refused.value.code == "calibration_mismatch"


def test_a_pickle_is_never_opened():
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(Unreadable):
        sample_of(buffer.getvalue(), (IMAGE,), PREPROCESSING)


def test_arrays_are_bounded_before_they_are_unpacked(monkeypatch: pytest.MonkeyPatch):
    bomb = npz(left=np.zeros((1, 2)), right=np.zeros((1, 100_000)))
    monkeypatch.setattr(samples, "MOST_MEMBER_BYTES", 10_000)
    with pytest.raises(Unreadable, match="more than 10000 bytes"):
        sample_of(bomb, PAIR, None)


def test_made_up_data_repeats_for_a_seed():
    first, again, other = (synthetic((IMAGE,), PREPROCESSING, seed).feeds["image"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    pair = synthetic(PAIR, None, 0).feeds
    assert set(np.unique(pair["right"])) <= {0, 1}

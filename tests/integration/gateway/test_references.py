"""Reference sets beyond loose images: one ZIP, and arrays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from .conftest import Form, GatewayProcess, StartGateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(autouse=True)
def nothing_is_left(stored: Callable[[], list[str]]) -> Iterator[None]:
    yield
    assert [name for name in stored() if ".uploads" in name] == []


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return content.getvalue()


def npy() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros((1, 3, 32, 32), np.float32))
    return content.getvalue()


def npz(**arrays: object) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **(arrays or {"image": np.ones((3, 32, 32), np.float32)}))  # type: ignore[arg-type]
    return content.getvalue()


async def post(
    gateway: GatewayProcess, form: Form, model: bytes, references: list[tuple[str, bytes]]
) -> httpx.Response:
    files = [("model", ("m.onnx", model)), *(("ref_images", reference) for reference in references)]
    async with gateway.client() as client:
        return await client.post("/api/v1/jobs", data=form.fields(), files=files)


def message(answer: httpx.Response) -> str:
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_multipart"), answer.text
    return str(answer.json()["error"]["message"])


@pytest.mark.parametrize("filename", ["set.zip", "blob"])
async def test_a_zip_of_images_and_arrays_is_the_reference_set_whatever_its_name(
    gateway: GatewayProcess, form: Form, model: bytes, image: bytes, storage_dir: Path, filename: str
):
    sent = zipped({"a.png": image, "b/c.png": image, "d.npy": npy(), "e.npz": npz(), "__MACOSX/._a.png": b"x"})
    answer = await post(gateway, form, model, [(filename, sent)])
    assert answer.status_code == 201, answer.text
    assert answer.json()["ref_images_count"] == 4
    job_id = answer.json()["job_id"]
    assert (storage_dir / f"jobs/{job_id}/input/ref_images.zip").read_bytes() == sent


async def test_arrays_are_reference_data_beside_images(
    gateway: GatewayProcess, form: Form, model: bytes, image: bytes, storage_dir: Path
):
    answer = await post(gateway, form, model, [("a.npy", npy()), ("b.npz", npz()), ("c.png", image)])
    assert answer.status_code == 201, answer.text
    assert answer.json()["ref_images_count"] == 3
    with zipfile.ZipFile(storage_dir / f"jobs/{answer.json()['job_id']}/input/ref_images.zip") as made:
        assert made.namelist() == ["000_a.npy", "001_b.npz", "002_c.png"]
        assert made.read("000_a.npy") == npy()


PICKLED = (
    b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(80) + b"cos\nsystem\n."
)


@pytest.mark.parametrize(
    ("references", "why"),
    [
        ([("s.zip", zipped({"a.txt": b"words"}))], "plain text"),
        ([("s.zip", zipped({"a.zip": zipped({"b.png": b""})}))], "a ZIP archive"),
        ([("s.zip", zipped({"../a.png": b"x"}))], "leads elsewhere"),
        ([("s.zip", zipped({"a.npy": PICKLED}))], "an array that holds"),
        ([("s.zip", zipped({}))], "the archive has no files"),
        ([("s.npz", zipped({}))], "the archive has no files"),
        ([("s.zip", zipped({"a.npy": npy()})[:-30])], "damaged"),
        ([("s.zip", zipped({"a.npy": bytes(9 << 20)}))], "grows more than"),
        ([("s.zip", zipped({"a.npy": npy()})), ("b.npy", npy())], "after a ZIP"),
        ([("b.npy", npy()), ("s.zip", zipped({"a.npy": npy()}))], "among other files"),
        ([("b.npy", npy()), ("c.png", zipped({"a.npy": npy()}))], "among other files"),
        ([("a.npy", PICKLED)], "the array holds"),
        ([("a.npy", npy()[:-1])], "announces"),
        ([("a.npz", zipped({"a.txt": b"x"}))], "allowed in an .npz"),
        ([("a.npz", zipped({"a.npy": PICKLED}))], "an array that holds"),
        ([("model.pt", zipped({"archive/data.pkl": b"\x80\x02"}))], "a Python pickle"),
    ],
)
async def test_what_cannot_be_used_is_refused_with_the_reason(
    gateway: GatewayProcess,
    form: Form,
    model: bytes,
    references: list[tuple[str, bytes]],
    why: str,
    stored: Callable[[], list[str]],
):
    before = stored()
    assert why in message(await post(gateway, form, model, references))
    assert stored() == before


async def test_limits_hold_for_what_is_unpacked(start_gateway: StartGateway, form: Form, model: bytes, image: bytes):
    gateway = await start_gateway(MULTIPART_REF_IMAGE_MAX_BYTES="1000", MULTIPART_REF_IMAGES_MAX_COUNT="3")
    answer = await post(gateway, form, model, [("s.zip", zipped({"a.png": image + bytes(2000)}))])
    assert (answer.status_code, answer.json()["error"]["details"]["limit_bytes"]) == (413, 1000)
    answer = await post(gateway, form, model, [("s.zip", zipped({f"{n}.png": image for n in range(4)}))])
    assert "more than 3 files" in message(answer)
    loose = await post(gateway, form, model, [(f"{n}.png", image) for n in range(4)])
    assert answer.json()["error"]["details"] == loose.json()["error"]["details"]
    assert answer.json()["error"]["details"]["limit"] == 3
    answer = await post(gateway, form, model, [("s.zip", zipped({"a.png": image}) + bytes(4000))])
    assert answer.status_code in {400, 413}
    answer = await post(gateway, form, model, [("s.zip", zipped({f"{n}.png": image for n in range(3)}))])
    assert answer.json()["ref_images_count"] == 3

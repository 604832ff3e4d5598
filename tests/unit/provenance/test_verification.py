"""An artifact is verified by its statement and the public key, and by nothing less."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jobs import AT, completed, request
from keys import KeyPair, key_pair
from msgspec.structs import replace

from converter.common.provenance import (
    SUFFIX,
    AnotherArtifact,
    KeyUnreadable,
    PublicKey,
    SignatureInvalid,
    SigningKey,
    StatementUnreadable,
    Verified,
    verify_artifact,
)
from converter.common.provenance.dsse import sealed
from converter.common.provenance.statement import PAYLOAD_TYPE, bundle, statement
from converter.contracts.job import Stage, StoredObject, Toolchain

CONTENT = b"what the stage made"


class Files:
    """An artifact, its statement and the key, ready to be tampered with."""

    def __init__(self, directory: Path) -> None:
        self.keys: KeyPair = key_pair(directory)
        self.artifact, self.statement = directory / "model.nef", directory / f"model.nef{SUFFIX}"
        self.artifact.write_bytes(CONTENT)
        self.sha256 = hashlib.sha256(CONTENT).hexdigest()
        self.state()
        self.write()

    def state(self, *, reused_from: str | None = None) -> None:
        fact = completed(Stage.NEF, attempt=2)
        fact = replace(
            fact,
            artifact=replace(fact.artifact, filename="model.nef", sha256=self.sha256),
            toolchain=Toolchain(name="kneron", version="0.30.1+x", image_digest="5" * 64),
        )
        self.stated = statement(
            "0199-job",
            request(),
            fact,
            parameters={"quantization": {"compiler_tiling": "deep_search"}},
            inputs={"bie": StoredObject(object_key="jobs/1/bie/1/artifact", size_bytes=3, sha256="b" * 64)},
            started_at=AT,
            reused_from=reused_from,
        )

    def write(self) -> None:
        self.statement.write_bytes(bundle(self.stated, SigningKey.read(self.keys.private)))

    def verify(self) -> Verified:
        return verify_artifact(self.artifact, self.statement, self.keys.public)

    def tamper(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the payload of the envelope, and keep its signature."""
        envelope = json.loads(self.statement.read_text())
        payload = json.loads(base64.b64decode(envelope["payload"]))
        change(payload)
        envelope["payload"] = base64.b64encode(json.dumps(payload, separators=(",", ":")).encode()).decode()
        self.statement.write_text(json.dumps(envelope))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_an_artifact_is_verified_and_says_how_it_was_made(files: Files):
    verified = files.verify()
    assert (verified.name, verified.sha256, verified.size_bytes) == ("model.nef", files.sha256, len(CONTENT))
    assert verified.keyid == PublicKey.read(files.keys.public).keyid
    assert verified.parameters == {
        "stage": "nef",
        "platform": "720",
        "model_id": 40000,
        "version": "0001",
        "options": {"quantization": {"compiler_tiling": "deep_search"}},
    }
    assert verified.dependencies == [
        {"name": "bie", "digest": {"sha256": "b" * 64}},
        {"name": "toolchain", "uri": "pkg:generic/kneron@0.30.1%2Bx", "digest": {"sha256": "5" * 64}},
    ]
    assert (verified.invocation_id, verified.reused_from) == ("0199-job/nef/2", None)
    assert (verified.started_on, verified.finished_on) == (AT, AT)


def test_reused_bytes_name_the_invocation_that_made_them(files: Files):
    files.state(reused_from="0198-first/nef/1")
    files.write()
    assert files.verify().reused_from == "0198-first/nef/1"


def test_a_promoted_file_may_have_another_name(files: Files, tmp_path: Path):
    files.artifact = files.artifact.rename(tmp_path / "yolo-production.bin")
    assert files.verify().name == "model.nef"


def test_other_bytes_are_told_with_both_digests(files: Files):
    files.artifact.write_bytes(CONTENT + b"!")
    with pytest.raises(AnotherArtifact, match=f"about 'model.nef', whose sha256 is {files.sha256}"):
        files.verify()


@pytest.mark.parametrize(
    "change",
    [
        lambda stated: stated["subject"][0].update(name="other.nef"),
        lambda stated: stated["subject"][0]["digest"].update(sha256="0" * 64),
        lambda stated: stated["predicate"]["buildDefinition"]["externalParameters"].update(platform="520"),
        lambda stated: stated["predicate"]["buildDefinition"]["resolvedDependencies"].pop(),
        lambda stated: stated["predicate"]["runDetails"]["metadata"].update(invocationId="x"),
        lambda stated: stated.update(predicateType="https://slsa.dev/provenance/v0.2"),
    ],
    ids=["name", "digest", "parameter", "dependency", "invocation", "predicate type"],
)
def test_a_statement_that_was_changed_is_not_signed(files: Files, change: Callable[[dict[str, Any]], None]):
    files.tamper(change)
    with pytest.raises(SignatureInvalid):
        files.verify()


def test_every_flipped_byte_of_the_statement_is_noticed(files: Files):
    content = files.statement.read_bytes()
    start, end = content.index(b'"payload":"') + 11, content.index(b'","payloadType"')
    for position in (start, (start + end) // 2, end - 3, content.index(b"vnd.in-toto"), content.index(b'"sig":"') + 20):
        changed = bytearray(content)
        changed[position] ^= 1
        files.statement.write_bytes(changed)
        with pytest.raises((SignatureInvalid, StatementUnreadable)):
            files.verify()


def test_another_key_did_not_sign_it(files: Files, tmp_path: Path):
    other = key_pair(tmp_path, "other")
    with pytest.raises(SignatureInvalid, match=PublicKey.read(other.public).keyid):
        verify_artifact(files.artifact, files.statement, other.public)


def test_a_rightly_signed_payload_of_another_media_type_is_refused(files: Files):
    payload = base64.b64decode(json.loads(files.statement.read_text())["payload"])
    envelope = sealed("application/json", payload, SigningKey.read(files.keys.private))
    files.statement.write_text(
        json.dumps(
            {
                "payload": envelope.payload,
                "payloadType": envelope.payload_type,
                "signatures": [{"sig": envelope.signatures[0].sig}],
            }
        )
    )
    with pytest.raises(StatementUnreadable, match="media type is 'application/json'"):
        files.verify()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "its type is"),
        ({"predicateType": "https://spdx.dev/Document"}, "predicate 'https://spdx.dev/Document'"),
        ({"subject": []}, "0 subjects"),
        ({"subject": [{"name": "a", "digest": {"sha256": "0" * 64}}] * 2}, "2 subjects"),
        ({"subject": [{"name": "a", "digest": {"sha512": "0" * 128}}]}, "sha256"),
        ({"predicate": {}}, "buildDefinition"),
    ],
)
def test_a_rightly_signed_statement_of_another_kind_is_refused(files: Files, changed: dict[str, Any], why: str):
    files.stated |= changed
    files.write()
    with pytest.raises(StatementUnreadable, match=why):
        files.verify()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"no JSON",
        b"{}",
        b"[" * 100_000,
        b'{"payload": "!", "payloadType": "' + PAYLOAD_TYPE.encode() + b'", "signatures": []}',
        b" " * (2 << 20),
    ],
    ids=["nothing", "empty lines", "text", "empty object", "depth", "no base64", "size"],
)
def test_what_is_no_statement_is_refused_in_a_sentence(files: Files, content: bytes):
    files.statement.write_bytes(content)
    with pytest.raises(StatementUnreadable, match="the statement cannot be read"):
        files.verify()


def test_lines_of_others_in_the_bundle_do_not_matter(files: Files):
    files.statement.write_bytes(b'{"their": "line"}\n' + files.statement.read_bytes() + b"no JSON\n")
    assert files.verify().name == "model.nef"


@pytest.mark.parametrize("kind", ["private", "missing", "text", "curve", "binary"])
def test_a_file_that_is_no_public_key_is_told(files: Files, tmp_path: Path, kind: str):
    path = tmp_path / "k.pem"
    if kind == "curve":
        public = generate_private_key(SECP256R1()).public_key()
        path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    elif kind != "missing":
        path.write_bytes({"private": files.keys.private.read_bytes(), "text": b"key", "binary": b"\0\xff"}[kind])
    with pytest.raises(KeyUnreadable, match=str(path)):
        verify_artifact(files.artifact, files.statement, path)


def test_a_file_that_is_no_signing_key_is_told(files: Files, tmp_path: Path):
    path = tmp_path / "k.pem"
    path.write_bytes(files.keys.public.read_bytes())
    with pytest.raises(KeyUnreadable):
        SigningKey.read(path)
    key = load_pem_private_key(files.keys.private.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(KeyUnreadable, match="unencrypted"):
        SigningKey.read(path)


def test_verifying_needs_neither_servers_nor_the_runtime():
    program = (
        "import sys, converter.common.provenance; print([m for m in ('nats', 'onnxruntime', 'onnx', 'numpy', "
        "'miniopy_async', 'aiohttp', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"

"""Files that hold secrets."""

from __future__ import annotations

import uuid
from pathlib import Path


def write_private(file: Path, content: bytes) -> None:
    """Put `content` into `file` in one step; nobody but the owner can ever read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    draft.touch(mode=0o600)
    draft.write_bytes(content)
    draft.replace(file)

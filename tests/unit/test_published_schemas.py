from __future__ import annotations

import pytest
import schemas
from jsonschema_rs import ValidationError
from published import validator


def test_the_committed_copies_are_up_to_date():
    assert {path: path.read_text() for path in schemas.DIRECTORY.iterdir()} == schemas.files(), "run: make generate"


def test_a_document_with_a_field_of_another_type_or_name_is_told():
    report = validator("report")
    report.validate({"job_id": "1", "stages": {}})
    for wrong in ({"job_id": 1, "stages": {}}, {"job_id": "1", "stages": {"zip": {}}}, {"job_id": "1"}):
        with pytest.raises(ValidationError):
            report.validate(wrong)

"""The schema of report.json."""

import json
import math
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from edgemed.report.data import ActivationRange, OutputError, Report
from report.sample import sample_report


def test_round_trip() -> None:
    report = sample_report()
    text = report.model_dump_json(by_alias=True)
    assert json.loads(text)["schema"] == "edgemed/report/1"
    assert Report.model_validate_json(text) == report


def test_documents_match_the_json_schema() -> None:
    schema = Report.model_json_schema(by_alias=True, mode="serialization")
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(sample_report().model_dump_json(by_alias=True))
    jsonschema.Draft202012Validator(schema).validate(document)
    document["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(document)


@pytest.mark.parametrize(
    "changes",
    [
        {"relative_error": math.inf},
        {"relative_error": math.nan},
        {"relative_error": -0.1},
        {"relative_error": 0.1, "sqnr_db": math.inf},
        {"relative_error": 0.1, "surprise": 1},
    ],
)
def test_what_json_cannot_say_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OutputError(output="y", **changes)


def test_counts_need_a_bin_width() -> None:
    with pytest.raises(ValidationError, match="bin_width"):
        ActivationRange(name="t", amax=1, seen=1, counts=(1, 2))


@pytest.mark.parametrize(
    ("error", "limit", "expected"), [(0.1, None, None), (0.1, 0.1, True), (0.11, 0.1, False), (None, 0.1, False)]
)
def test_within_limit(error: float | None, limit: float | None, expected: bool | None) -> None:
    assert OutputError(output="y", relative_error=error, limit=limit).within_limit is expected

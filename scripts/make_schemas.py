"""Write the JSON Schemas that edgemed ships, from the models that edgemed itself validates with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from edgemed.bundle.manifest import Manifest
from edgemed.bundle.sign import Envelope, Statement
from edgemed.calibrate.dataset import CalibrationManifest
from edgemed.calibrate.image_set import ImageSet, SetReport
from edgemed.device.doctor.diagnosis import Diagnosis
from edgemed.device.profile import DeviceProfile
from edgemed.engine.record import EngineRecord
from edgemed.evaluate.record import Evaluation
from edgemed.graph.scales import ScaleTable
from edgemed.imaging.results.document import Result as BedsideResult
from edgemed.profile.compare import Comparison
from edgemed.profile.estimate import Estimate
from edgemed.profile.layers import Engine
from edgemed.profile.modes.record import Sweep
from edgemed.profile.result import Result
from edgemed.profile.slo import Slo
from edgemed.profile.way import Way
from edgemed.recipe.schema import Recipe
from edgemed.report.data import Report
from edgemed.serve.models.trial import TrialReport

FOLDER = Path(__file__).resolve().parent.parent / "edgemed" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
VERSION = 1

MODELS: dict[str, type[BaseModel]] = {
    "calibration-set": CalibrationManifest,
    "comparison": Comparison,
    "sweep": Sweep,
    "deid-set-report": SetReport,
    "device-profile": DeviceProfile,
    "doctor": Diagnosis,
    "engine": EngineRecord,
    "estimate": Estimate,
    "evaluation": Evaluation,
    "image-set": ImageSet,
    "layers": Engine,
    "manifest": Manifest,
    "profile": Result,
    "recipe": Recipe,
    "report": Report,
    "result": BedsideResult,
    "scales": ScaleTable,
    "signature": Envelope,
    "signature-statement": Statement,
    "slo": Slo,
    "trial": TrialReport,
    "way": Way,
}


class ClosedDicts(GenerateJsonSchema):
    """Pydantic refuses a dict's key that breaks its pattern; the schema that it generates by itself lets it pass."""

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """The schema of a dict, closed to keys outside its pattern."""
        generated = super().dict_schema(schema)
        return {**generated, "additionalProperties": False} if "patternProperties" in generated else generated


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one kind of document."""
    body = MODELS[name].model_json_schema(by_alias=True, schema_generator=ClosedDicts)
    return {"$schema": DIALECT, "$id": f"urn:edgemed:schema:{name}:{VERSION}", **body}


def files() -> Iterator[tuple[Path, str]]:
    """Each schema's path and its text."""
    for name in MODELS:
        yield FOLDER / f"{name}.schema.json", json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in files():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(FOLDER.parent.parent))


if __name__ == "__main__":
    main()

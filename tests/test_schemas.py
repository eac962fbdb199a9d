"""The shipped JSON Schemas: they are what the models say, and they judge documents as the models do."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from edgemed.base.resources import shipped
from edgemed.base.toml import read_toml
from scripts import make_schemas

HASH = "0" * 64
TENSOR = {"name": "x", "dtype": "float32", "shape": [None, 3]}

FINGERPRINT: dict[str, Any] = {
    **dict.fromkeys(("board", "l4t", "jetpack", "gpu", "tensorrt", "power_mode", "clocks", "engine_sha256")),
    "backend": "onnxruntime",
    "backend_version": "1.22",
    "device": "cpu",
    "precision": "int8",
    "bundle_digest": HASH,
    "edgemed": "0.1.0",
    "python": "3.11.7",
    "host": {"machine": "x86_64", "cpu": "c", "cores": 2, "kernel": "6", "os": "Linux", "governor": None},
}

DOCUMENTS: dict[str, dict[str, Any]] = {
    "calibration-set": {
        "schema": "edgemed/calibration-set/1",
        "samples": [{"file": "a/b.png", "sha256": HASH, "role": "ranges"}],
        "found": 1,
        "digest": HASH,
    },
    "deid-set-report": {
        "schema": "edgemed/deid-set-report/1",
        "profile": "PS3.15",
        "tags": [
            {
                "path": "PatientName",
                "tag": "0010,0010",
                "vr": "PN",
                "action": "replaced",
                "why": "profile Z",
                "count": 2,
            }
        ],
        "files": [{"file": "a.dcm", "pixels": "unchanged", "codes": ["113100"]}],
    },
    "estimate": {
        "schema": "edgemed/estimate/1",
        "kind": "lower bound of latency, not a measurement",
        "bundle": "chest",
        "precision": "fp16",
        "macs": 2,
        "int8_share": None,
        "assumptions": ["dense"],
        "bounds": [
            {
                "device": "board",
                "name": "Board",
                "point": {
                    "condition": "MAXN",
                    "int8_tops": None,
                    "fp16_tflops": 10.0,
                    "bandwidth_gbs": 100.0,
                    "derived": [],
                    "unverified": ["memory_bandwidth_gbs"],
                },
                "floor_ms": 0.1,
                "roofline_ms": 0.2,
                "compute_ms": None,
                "memory_ms": 0.1,
                "memory_share": 1.0,
                "layers": [
                    {
                        "node": "conv",
                        "op": "Conv",
                        "precision": "fp16",
                        "macs": 2,
                        "bytes": 3,
                        "compute_us": None,
                        "memory_us": 0.5,
                        "bound_by": "memory",
                    }
                ],
            }
        ],
    },
    "layers": {
        "schema": "edgemed/layers/1",
        "layers": [
            {
                "name": "conv",
                "kind": None,
                "types": "INT8 → FP16",
                "reformat": False,
                "ms": 0.1,
                "share": 1.0,
                "nodes": [],
            }
        ],
        "tensors": ["image"],
        "iterations": 10,
        "sum_ms": 0.1,
        "compute_ms": None,
        "gap_ms": None,
        "queries": None,
        "reformats": 0,
        "reformat_ms": 0.0,
        "types_ms": {"INT8": 0.1},
    },
    "device-profile": {
        "schema": "edgemed/device-profile/1",
        "name": "Board",
        "kind": "jetson",
        "soc": "soc",
        "compute_capability": "8.7",
        "int8": True,
        "figures": [{"quantity": "int8_tops", "value": 40.0, "verified": False}],
        "software": [
            {"jetpack": ["6.1"], "python": "3.10", "cuda": "12.6", "tensorrt": "10.3", "opset": 20, "dla": False}
        ],
    },
    "doctor": {
        "schema": "edgemed/doctor/1",
        "edgemed": "0.1.0",
        "machine": "orin-nano-8gb",
        "lines": [{"check": "cuda", "status": "wrong", "found": "x", "remedy": "y", "facts": {"driver_cuda": None}}],
    },
    "engine": {
        "schema": "edgemed/engine/1",
        "key": {
            "bundle": HASH,
            "flavour": "tensorrt",
            "version": "10.3",
            "compute_capability": "8.7",
            "board": "orin-nano-8gb",
            "precision": "int8",
        },
        "plan_sha256": HASH,
        "plan_bytes": 1,
        "graph": "graphs/int8.onnx",
        "graph_sha256": HASH,
        "strongly_typed": False,
        "inputs": [TENSOR],
        "outputs": [TENSOR],
        "layer_count": 1,
        "build_seconds": 0.5,
        "created": "2025-01-01T00:00:00Z",
        "edgemed": "0.1.0",
    },
    "evaluation": {
        "schema": "edgemed/evaluation/1",
        "bundle": "m.edgemed",
        "bundle_digest": HASH,
        "output": "y",
        "threshold": 0.5,
        "data": {
            "folder": "test",
            "digest": HASH,
            "samples": 2,
            "classes": [{"name": "a", "samples": 2}],
            "class_order": "recipe",
            "duplicates": 0,
        },
        "results": [
            {
                "precision": "fp32",
                "backend": "onnxruntime",
                "device": "cpu",
                "metrics": {"accuracy": {"value": 0.5, "n": 2, "low": 0.1, "high": 0.9}},
            }
        ],
        "differences": {},
        "disagreement": None,
    },
    "image-set": {
        "schema": "edgemed/image-set/1",
        "images": [
            {"file": "a.dcm", "sha256": HASH, "patient": "P-0123456789abcdef-0123456789abcdef", "labels": ["benign"]}
        ],
        "seed": 0,
        "offered": 3,
        "refused": {"contract": 2},
        "recipe_sha256": None,
        "key": "random",
    },
    "manifest": {
        "schema": "edgemed/bundle/1",
        "name": "m",
        "created": "2025-01-01T00:00:00Z",
        "edgemed": "0.1.0",
        "source": {"file": "m.h5", "sha256": HASH, "format": "keras-h5", "versions": {}},
        "inputs": [{**TENSOR, "layout": "NCHW"}],
        "outputs": [{**TENSOR, "layout": "NC"}],
        "batch": {"min": 1, "opt": 2, "max": 8},
        "precision": "int8",
        "recipe": {"path": "recipe.toml", "sha256": HASH, "assumed": False},
        "graphs": {
            name: {"path": f"graphs/{name}.onnx", "sha256": HASH, "opset": 17, "ir_version": 8}
            for name in ("float", "int8")
        },
        "fidelity": {"samples": 8, "float_vs_keras": []},
        "golden": {"path": "golden.npz", "samples": 8, "tolerance": {"fp32": {"y": 1e-4}}},
        "files": {"golden.npz": {"sha256": HASH, "size": 1}},
    },
    "profile": {
        "schema": "edgemed/profile/1",
        "created": "2025-01-01T00:00:00Z",
        "name": "m",
        "fingerprint": FINGERPRINT,
        "load": {"text": "rate:30", "kind": "rate", "rate_hz": 30.0},
        "settings": {
            "warmup_frames": 1,
            "warmup_rule": "1 frame",
            "spin_ns": 0,
            "collector": "off",
            "ring": None,
            "sync": "host",
            "cuda_graph": None,
            "copies_counted": None,
            "inputs": "golden",
            "inputs_count": 8,
        },
        "duration_ns": 1,
        "counts": {"arrived": 1, "answered": 1},
        "latency": {
            "n": 1,
            "min_ns": 1,
            "median_ns": 1,
            "mad_ns": 0,
            "max_ns": 1,
            "percentiles": [
                {
                    "p": "50",
                    "n": 1,
                    "rank": None,
                    "value_ns": None,
                    "upper_ns": None,
                    "upper_rank": None,
                    "confidence": 0.95,
                    "more": 4,
                }
            ],
        },
        "stages": {},
        "first_frames": {"first_ns": 1, "gap_ns": 1, "after_gap": None},
        "jitter": {"arrival": None, "tail_ns": None},
        "process": {
            **dict.fromkeys(("wall_ns", "user_ns", "system_ns", "voluntary_switches", "involuntary_switches"), 0),
            **dict.fromkeys(("minor_faults", "major_faults", "max_rss_bytes"), 0),
        },
    },
    "result": {
        "schema": "edgemed/result/1",
        "uid": "2.25.1",
        "revision": 1,
        "analysed": "2026-01-01T00:00:00.000Z",
        "station": "bedside",
        "software": "edgemed 0.1.0",
        "research_only": True,
        "model": {
            "name": "chest",
            "version": "chest.edgemed",
            "digest": HASH,
            "precision": "int8",
            "backend": "tensorrt",
            "device": "board",
            "intended_use": "",
        },
        "patient": {
            **dict.fromkeys(("issuer", "birth_date", "sex", "accession", "placer_order", "filler_order"), ""),
            **dict.fromkeys(("study_id", "study_description", "referring"), ""),
            "id": "4711",
            "name": "Doe^Jane",
        },
        "inputs": [
            {
                "file": None,
                "sop_class": "1.2.840.10008.5.1.4.1.1.1",
                "sop_instance": "1.2",
                "series": "1.3",
                "study": "1.4",
                "frames": 1,
            }
        ],
        "refusal": None,
        "notes": ["late"],
        "ood": None,
        "readings": [
            {
                "output": "y",
                "task": "segmentation",
                "input": 0,
                "frame": None,
                "scores": [{"name": "lesion", "code": None, "value": 0.9, "found": True}],
                "threshold": 0.5,
                "value": None,
                "unit": "1",
                "masks": [
                    {
                        "name": "lesion",
                        "code": {"value": "1", "scheme": "SCT", "meaning": "Lesion"},
                        "pixels": 4,
                        "area_mm2": 1.0,
                        "volume_mm3": None,
                        "rows": [0, 2],
                        "columns": [0, 2],
                        "planes": None,
                    }
                ],
            }
        ],
    },
    "comparison": {
        "schema": "edgemed/comparison/1",
        "name_a": "a",
        "name_b": "b",
        "runs_a": 5,
        "runs_b": 5,
        "confidence": 0.95,
        "differing": [],
        "changes": [
            {
                "metric": "p99",
                **dict.fromkeys(("a", "b", "change", "low", "high", "margin")),
                "runs_a": 5,
                "runs_b": 5,
                "outcome": "unjudged",
                "why": "no margin was given",
            }
        ],
        "outcome": "unjudged",
    },
    "sweep": {
        "schema": "edgemed/sweep/1",
        "created": "2026-01-01T00:00:00Z",
        "name": "m.edgemed",
        "board": "orin-nano-8gb",
        "seed": 0,
        "cool_to_mc": None,
        "found_mode": 1,
        "found_clocks": "free",
        "runs": 1,
        "rows": [{"mode": 0, "name": "15W", "clocks": "locked", "outcome": "needs-reboot", "why": "a restart"}],
    },
    "signature": {
        "payloadType": "application/vnd.in-toto+json",
        "payload": "e30=",
        "signatures": [{"keyid": HASH, "sig": "A" * 86 + "=="}],
    },
    "signature-statement": {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "manifest.json", "digest": {"sha256": HASH}}],
        "predicateType": "urn:edgemed:signature:1",
        "predicate": {"name": "chest", "sequence": 1, "created": "2026-01-01T00:00:00Z"},
    },
    "trial": {
        "schema": "edgemed/trial/1",
        "created": "2026-01-01T00:00:00Z",
        "model": "chest",
        "active": {"version": "1", "digest": HASH, "backend": "tensorrt", "precision": "int8", "median_ns": 1},
        "candidate": {"version": "2", "digest": HASH, "backend": "tensorrt", "precision": "int8", "median_ns": None},
        "inputs": 50,
        "failed": 0,
        "disagreed": 1,
        "upper_95": 0.1,
        "allowed": 0.1,
        "error_median": 0.01,
        "error_max": None,
        "passed": True,
        "reasons": [],
    },
    "way": {
        "schema": "edgemed/way/1",
        "created": "2026-01-01T00:00:00Z",
        "name": "bedside",
        "study": {"series": 1, "images": 4, "bytes": 100, "left_out": 0},
        "sent": {"repeat": 2, "begun": 2, "pace_ns": 1, "accepted": 8, "refused": {}, "behind": 0, "arrival": None},
        "state": "ext4",
        "duration_ns": 1,
        "models": [
            {
                "name": "chest",
                "level": "series",
                "fingerprint": FINGERPRINT,
                "ends": "sent",
                "counts": {"arrived": 2, "answered": 2},
                "latency": None,
                "stages": {},
                "first_ns": 1,
                "misses": None,
                "daemon_deadline_ns": 1,
                "daemon_late": 0,
                "itself": None,
            }
        ],
    },
    "slo": {"schema": "edgemed/slo/1", "deadline_ms": 33.3, "misses": {"rate": 0.001}, "latency": {"p99_ms": 20.0}},
    "report": {
        "schema": "edgemed/report/1",
        "created": "2025-01-01T00:00:00Z",
        "edgemed": "0.1.0",
        "precision": "int8",
        "model": {"name": "m", "file": "m.h5", "sha256": HASH, "format": "keras-h5"},
        "recipe": {"name": "assumed", "assumed": True},
        "fidelity": {"samples": 8, "int8_vs_float": [{"output": "y", "relative_error": 0.01, "sqnr_db": None}]},
        "int8": {"mac_share": 0.9, "weight_bytes_float": 4, "weight_bytes_int8": 1},
        "machine": {"python": "3.11.7"},
    },
    "recipe": {
        "input": {"color": "rgb", "size": [32, 64], "scaling": {"divisor": 255.0}},
        "output": {"task": "binary", "classes": ["a", "b"], "threshold": 0.5},
    },
    "scales": {
        "schema": "edgemed/scales/1",
        "method": "entropy",
        "images": 8,
        "data_digest": HASH,
        "recipe_digest": HASH,
        "graph_digest": HASH,
        "tensors": {"conv": {"amax": 127.0, "scale": 1.0, "seen": 130.0}},
    },
}

# (document, path to a value in it, what it is broken to)
BROKEN: list[tuple[str, list[str | int], Any]] = [
    ("calibration-set", ["schema"], "edgemed/calibration-set/2"),
    ("calibration-set", ["samples"], []),
    ("calibration-set", ["samples", 0, "sha256"], "00"),
    ("deid-set-report", ["tags", 0, "action"], "hidden"),
    ("deid-set-report", ["tags", 0, "tag"], "Patient"),
    ("device-profile", ["kind"], "toaster"),
    ("device-profile", ["compute_capability"], "sm_87"),
    ("device-profile", ["figures", 0, "value"], 0),
    ("device-profile", ["software", 0, "jetpack"], []),
    ("doctor", ["lines"], []),
    ("doctor", ["lines", 0, "status"], "broken"),
    ("engine", ["key", "precision"], "int4"),
    ("engine", ["plan_bytes"], 0),
    ("evaluation", ["results", 0, "metrics", "accuracy", "n"], 0),
    ("evaluation", ["data", "digest"], HASH.upper() + "A"),
    ("image-set", ["images"], []),
    ("image-set", ["images", 0, "sha256"], "00"),
    ("image-set", ["key"], "secret"),
    ("manifest", ["files", "../escape"], {"sha256": HASH, "size": 1}),
    ("manifest", ["files", ".hidden"], {"sha256": HASH, "size": 1}),
    ("manifest", ["files", "golden.npz", "size"], -1),
    ("manifest", ["graphs", "int4"], {"path": "g.onnx", "sha256": HASH, "opset": 17, "ir_version": 8}),
    ("manifest", ["recipe", "path"], "/etc/passwd"),
    ("manifest", ["fidelity", "samples"], 0),
    ("comparison", ["outcome"], "better"),
    ("comparison", ["runs_a"], 0),
    ("profile", ["counts", "answered"], -1),
    ("profile", ["load", "kind"], "sometimes"),
    ("profile", ["latency", "percentiles", 0, "confidence"], 1.0),
    ("profile", ["settings", "clock"], "CLOCK_REALTIME"),
    ("recipe", ["input", "size"], [32]),
    ("recipe", ["input", "size"], [0, 64]),
    ("recipe", ["input", "color"], "cmyk"),
    ("recipe", ["output", "threshold"], 1.5),
    ("report", ["int8", "mac_share"], 1.5),
    ("report", ["fidelity", "int8_vs_float", 0, "relative_error"], -1),
    ("signature", ["payload"], "no base64"),
    ("signature", ["signatures"], []),
    ("signature", ["signatures", 0, "sig"], "AAAA"),
    ("signature-statement", ["subject", 0, "name"], "other.json"),
    ("signature-statement", ["predicate", "sequence"], 0),
    ("signature-statement", ["predicateType"], "urn:other:1"),
    ("trial", ["disagreed"], -1),
    ("trial", ["candidate", "digest"], "00"),
    ("way", ["models", 0, "ends"], "lost"),
    ("way", ["sent", "begun"], -1),
    ("way", ["study", "images"], 0),
    ("slo", ["misses", "rate"], 0),
    ("slo", ["latency", "p99_ms"], -1),
    ("slo", ["confidence"], 0.5),
    ("scales", ["method"], "guess"),
    ("scales", ["images"], 0),
    ("scales", ["tensors", "conv", "scale"], 0),
    ("scales", ["tensors", "conv", "amax"], -1),
]


def validator(name: str) -> jsonschema.Draft202012Validator:
    path = make_schemas.FOLDER / f"{name}.schema.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


def assert_refused(name: str, document: dict[str, Any]) -> None:
    assert not validator(name).is_valid(document)
    with pytest.raises(ValidationError):
        make_schemas.MODELS[name].model_validate_json(json.dumps(document))


def test_there_is_a_file_for_each_model_and_no_other() -> None:
    assert {path.name for path in make_schemas.FOLDER.iterdir()} == {path.name for path, _ in make_schemas.files()}


@pytest.mark.parametrize(("path", "text"), list(make_schemas.files()), ids=lambda value: getattr(value, "name", ""))
def test_files_are_as_generated(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, "run `make schemas`"


@pytest.mark.parametrize("name", make_schemas.MODELS)
def test_schemas_are_valid_and_named(name: str) -> None:
    schema = validator(name).schema
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    assert schema["$id"] == f"urn:edgemed:schema:{name}:1"
    assert schema["description"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_pass_and_survive_the_model(name: str) -> None:
    validator(name).validate(DOCUMENTS[name])
    model = make_schemas.MODELS[name].model_validate_json(json.dumps(DOCUMENTS[name]))
    written = json.loads(model.model_dump_json(by_alias=True))
    validator(name).validate(written)
    assert make_schemas.MODELS[name].model_validate_json(json.dumps(written)) == model


def test_every_model_has_a_document() -> None:
    assert set(DOCUMENTS) == set(make_schemas.MODELS)


@pytest.mark.parametrize(("name", "path", "value"), BROKEN)
def test_broken_values_are_refused(name: str, path: list[str | int], value: Any) -> None:
    document: Any = copy.deepcopy(DOCUMENTS[name])
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    assert_refused(name, document)


@pytest.mark.parametrize("name", [name for name, document in DOCUMENTS.items() if "schema" in document])
def test_a_document_must_name_its_schema(name: str) -> None:
    assert_refused(name, {key: value for key, value in DOCUMENTS[name].items() if key != "schema"})
    assert_refused(name, {**DOCUMENTS[name], "schema": "edgemed/other/1"})


@pytest.mark.parametrize("name", DOCUMENTS)
def test_unknown_keys_are_refused(name: str) -> None:
    assert_refused(name, {**DOCUMENTS[name], "surprise": 1})


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in DOCUMENTS for key in validator(name).schema.get("required", [])]
)
def test_missing_keys_are_refused(name: str, key: str) -> None:
    assert_refused(name, {k: v for k, v in DOCUMENTS[name].items() if k != key})


SHIPPED = [("device-profile", path) for path in shipped("profiles").values()] + [
    ("recipe", path) for path in shipped("calibration").values()
]


@pytest.mark.parametrize(("name", "path"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_shipped_files_pass(name: str, path: Path) -> None:
    validator(name).validate(read_toml(path))


def test_device_profiles_are_shipped() -> None:
    assert any(name == "device-profile" for name, _ in SHIPPED)

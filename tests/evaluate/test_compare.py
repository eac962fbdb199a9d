"""Float against INT8 on real files through real Runners, and the commands on top."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgemed.base.errors import GateError, InconclusiveError, InputError, IntegrityError, UsageError
from edgemed.bundle.read import open_bundle
from edgemed.cli.app import app
from edgemed.evaluate.compare import evaluate_bundle
from edgemed.evaluate.gate import parse_gate
from edgemed.evaluate.record import Evaluation
from evaluate.bundles import first_hash, write_bundle, write_images
from tests.imaging.make_dicom import write

BENIGN, MALIGNANT = [20, 60, 90, 100, 138], [115, 140, 180, 220, 250]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", {"benign": BENIGN, "malignant": MALIGNANT})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Float decides at a mean of 0.5, INT8 at 0.6: it loses the malignant 140 and gains the benign 138."""
    return write_bundle(tmp_path / "little.edgemed", boundaries={"float": 0.5, "int8": 0.6})


def test_evaluation_by_hand(bundle: Path, data: Path) -> None:
    """Means run a little below the levels, for the corner pixel: of 10 images float errs on 138 and 115.

    INT8 errs on 115 and 140: both have 8 of 10 right, and disagree twice.
    """
    evaluation = evaluate_bundle(open_bundle(bundle), data).evaluation
    float_, int8 = evaluation.results
    assert (float_.precision, int8.precision) == ("fp32", "int8")
    assert {name: (m.value, m.n) for name, m in float_.metrics.items()} == {
        "accuracy": (0.8, 10),
        "sensitivity": (0.8, 5),
        "specificity": (0.8, 5),
        "auc": (pytest.approx(24 / 25), 10),  # only the pair (115, 138) is out of order
    }
    assert int8.metrics["sensitivity"].value == 0.6
    assert int8.metrics["specificity"].value == 1.0
    assert evaluation.differences["accuracy"].value == 0.0
    assert evaluation.differences["auc"].value == 0.0  # a shift keeps the order
    assert evaluation.differences["auc"].low < -0.3  # and five of a class prove little
    assert evaluation.disagreement is not None
    assert evaluation.disagreement.value == 0.2
    assert [c.name for c in evaluation.data.classes] == ["benign", "malignant"]
    assert Evaluation.model_validate_json(evaluation.model_dump_json(by_alias=True)) == evaluation


def test_gates_are_decided(bundle: Path, data: Path) -> None:
    gates = [parse_gate("auc >= float - 0.005"), parse_gate("accuracy >= 0.3"), parse_gate("accuracy <= 0.2")]
    decisions = evaluate_bundle(open_bundle(bundle), data, gates).decisions
    assert [decision.verdict for decision in decisions] == ["inconclusive", "pass", "fail"]
    assert decisions[0].more is not None
    assert decisions[0].more > 500


def test_a_float_bundle_has_one_column(tmp_path: Path, data: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "float.edgemed", boundaries={"float": 0.5}))
    evaluation = evaluate_bundle(bundle, data).evaluation
    assert [result.precision for result in evaluation.results] == ["fp32"]
    assert evaluation.differences == {}
    assert evaluation.disagreement is None
    with pytest.raises(UsageError, match="no INT8 model"):
        evaluate_bundle(bundle, data, [parse_gate("auc >= float")])


def test_calibration_images_are_refused(tmp_path: Path, data: Path) -> None:
    bundle = write_bundle(
        tmp_path / "seen.edgemed", boundaries={"float": 0.5, "int8": 0.5}, calibrated_on=(first_hash(data),)
    )
    with pytest.raises(InputError, match="used for calibration"):
        evaluate_bundle(open_bundle(bundle), data)


def test_a_damaged_image_is_named(bundle: Path, data: Path) -> None:
    (data / "benign" / "9999.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    with pytest.raises(InputError, match=r"9999\.png"):
        evaluate_bundle(open_bundle(bundle), data)


def test_an_assumed_recipe_is_told(tmp_path: Path, data: Path) -> None:
    bundle = write_bundle(tmp_path / "assumed.edgemed", boundaries={"float": 0.5}, assumed=True)
    assert any("assumed" in text for text in evaluate_bundle(open_bundle(bundle), data).evaluation.warnings)


def test_command_prints_a_table(bundle: Path, data: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(bundle), str(data)])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[2] == ["accuracy", "10", "0.8000", "0.8000", "+0.0000"]
    assert lines[3][:3] == ["0.4902", "to", "0.9433"]  # Wilson for 8 of 10
    assert [line[0] for line in lines[4:9:2]] == ["sensitivity", "specificity", "auc"]
    assert "decide differently on 2 of 10" in result.stdout


def test_command_prints_one_json_document_even_when_a_gate_fails(bundle: Path, data: Path) -> None:
    arguments = ["evaluate", str(bundle), str(data), "--json", "--gate", "accuracy <= 0.2"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, GateError)
    document = json.loads(result.stdout)
    assert document["schema"] == "edgemed/evaluation/1"
    assert document["gates"][0]["verdict"] == "fail"


def test_command_is_inconclusive_by_code_3(bundle: Path, data: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(bundle), str(data), "--gate", "auc >= float - 0.005"])
    assert isinstance(result.exception, InconclusiveError)
    assert "more samples" in result.exception.hint


def test_inspect_shows_the_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "little.edgemed",
        boundaries={"float": 0.5, "int8": 0.6},
        classes=("[red]benign", "malignant"),
        assumed=True,
    )
    result = CliRunner().invoke(app, ["inspect", str(bundle)])
    assert result.exit_code == 0, result.output
    for expected in (
        "model.h5 (keras-h5; keras 3.15.0)",
        "image float32 1×4×4×1 NHWC",
        "[red]benign/malignant",
        "ASSUMED",
        "int8: graphs/int8.onnx, opset 13",
        "50.0 % of multiply-accumulates",
        "exact",
    ):
        assert expected in result.stdout
    document = json.loads(CliRunner().invoke(app, ["inspect", str(bundle), "--json"]).stdout)
    assert document["manifest"]["name"] == "little"
    assert document["digest"] == open_bundle(bundle).digest


def test_inspect_refuses_a_flipped_byte(bundle: Path) -> None:
    file = bundle / "graphs" / "int8.onnx"
    raw = bytearray(file.read_bytes())
    raw[10] ^= 1
    file.write_bytes(raw)
    assert isinstance(CliRunner().invoke(app, ["inspect", str(bundle)]).exception, IntegrityError)


def test_files_of_several_frames_are_judged_by_the_middle_one_and_it_is_said(bundle: Path, data: Path) -> None:
    before = evaluate_bundle(open_bundle(bundle), data).evaluation
    assert not any("middle" in warning for warning in before.warnings)
    frames = np.array([10, 240, 10], np.uint8)[:, None, None] * np.ones((4, 4), np.uint8)
    write(data / "malignant" / "cine.dcm", frames)
    evaluation = evaluate_bundle(open_bundle(bundle), data).evaluation
    assert "1 file makes several inputs (frames, clips, tiles): only the middle one of each was judged." in (
        evaluation.warnings
    )
    assert evaluation.results[0].metrics["sensitivity"].value == 5 / 6  # 4 of 5 before; the middle frame is bright

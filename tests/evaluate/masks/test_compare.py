"""Float's masks against INT8's on real files through real Runners, and the command on top."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgemed.base.errors import GateError, InconclusiveError, InputError, UsageError
from edgemed.base.hashing import sha256_file
from edgemed.bundle.read import open_bundle
from edgemed.cli.app import app
from edgemed.evaluate.compare import evaluate_bundle
from edgemed.evaluate.gate import parse_gate
from edgemed.evaluate.record import Evaluation
from evaluate.masks.bundles import write_mask_bundle, write_pair


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Float marks above 127, INT8 above 153.

    a: 8 bright pixels and 4 of 140, all 12 drawn. Float 12, INT8 8 of them.
    b: 8 bright pixels, of which 4 were drawn. Both mark 8.
    c: nothing drawn; 2 pixels of 140, so float alone raises a false alarm.
    """
    folder = tmp_path / "data"
    images = np.zeros((3, 8, 8), np.uint8)
    images[0, 0], images[0, 1, :4] = 250, 140
    images[1, 0] = 250
    images[2, 0, :2] = 140
    masks = np.zeros((3, 8, 8), np.uint8)
    masks[0, 0], masks[0, 1, :4] = 255, 255
    masks[1, 0, :4] = 255
    for name, image, mask in zip("abc", images, masks, strict=True):
        write_pair(folder, name, image, mask)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_mask_bundle(tmp_path / "little.edgemed")


def test_evaluation_by_hand(bundle: Path, data: Path) -> None:
    evaluation = evaluate_bundle(open_bundle(bundle), data).evaluation
    float_, int8 = ({name: (m.value, m.n) for name, m in r.metrics.items()} for r in evaluation.results)
    # a: 2*12/(12+12) = 1 and 2*8/(12+8) = 0.8; b: 2*4/(4+8) = 2/3 for both
    assert float_ == {
        "dice": (pytest.approx((1 + 2 / 3) / 2), 2),
        "iou": (pytest.approx((1 + 1 / 2) / 2), 2),
        "false_alarms": (1.0, 1),
    }
    assert int8 == {
        "dice": (pytest.approx((0.8 + 2 / 3) / 2), 2),
        "iou": (pytest.approx((8 / 12 + 1 / 2) / 2), 2),
        "false_alarms": (0.0, 1),
    }
    assert evaluation.differences["dice"].value == pytest.approx(-0.1)
    assert evaluation.differences["false_alarms"].value == -1
    assert evaluation.disagreement is not None
    assert evaluation.disagreement.value == pytest.approx((4 / 64 + 0 + 2 / 64) / 3)
    assert evaluation.masks is not None
    assert (evaluation.masks.rule, evaluation.masks.units) == ("threshold", 3)
    assert evaluation.masks.not_drawn == {"foreground": 1}
    assert evaluation.masks.agreement is not None
    assert evaluation.masks.agreement.value == pytest.approx((2 * 8 / 20 + 1 + 0) / 3)
    assert [(c.name, c.samples) for c in evaluation.data.classes] == [("foreground", 2)]
    assert evaluation.data.samples == 3
    assert Evaluation.model_validate_json(evaluation.model_dump_json(by_alias=True)) == evaluation


def test_classes_of_a_softmax(tmp_path: Path) -> None:
    """The background wins below a third, the first class up to two thirds, then the second; the mask says 0, 1, 2."""
    # 100 (x - 0), 200 (x - 1/6), 300 (x - 1/3): lines that cross at 1/3 and 2/3
    bundle = write_mask_bundle(
        tmp_path / "two.edgemed",
        float_=(0.0, 1 / 6, 1 / 3),
        int8=None,
        softmax=True,
        classes=("background", "liver", "[red]spleen"),
    )
    image = np.tile(np.array([0, 50, 120, 130, 150, 160, 200, 250], np.uint8), (8, 1))
    mask = np.tile(np.array([0, 0, 1, 1, 1, 2, 2, 2], np.uint8), (8, 1))  # 160 is liver to the model
    write_pair(tmp_path / "data", "a", image, mask)
    (result,) = evaluate_bundle(open_bundle(bundle), tmp_path / "data").evaluation.results
    assert result.metrics["dice:liver"].value == pytest.approx(2 * 3 / (3 + 4))
    assert result.metrics["dice:[red]spleen"].value == pytest.approx(2 * 2 / (3 + 2))
    assert result.metrics["dice"].value == pytest.approx((6 / 7 + 4 / 5) / 2)
    printed = CliRunner().invoke(app, ["evaluate", str(bundle), str(tmp_path / "data"), "--gate", "dice:liver >= 0.05"])
    assert "dice:[red]spleen" in printed.stdout
    assert "gate 'dice:liver >= 0.05'" in printed.stdout


def test_judged_on_the_source(tmp_path: Path) -> None:
    """The model sees 8x8 of a larger image that was padded to a square; what it marks is drawn on the image."""
    recipe = '[[input.steps]]\nop = "resize"\nsize = [8, 8]\nfilter = "area"\nfit = "pad"\n'
    bundle = write_mask_bundle(tmp_path / "b.edgemed", recipe=recipe + "[input.scaling]\ndivisor = 255.0\n")
    image = np.zeros((32, 64), np.uint8)
    image[:, 32:] = 255
    write_pair(tmp_path / "data", "a", image, image)
    evaluation = evaluate_bundle(open_bundle(bundle), tmp_path / "data").evaluation
    # At the two inner corners rows and columns fall from 15/16 to 9/16 by eighths towards the edge; the product
    # of both is below 0.5 for six pixels of each corner.
    assert evaluation.results[0].metrics["dice"].value == pytest.approx(2 * 1012 / (1012 + 1024))
    write_pair(tmp_path / "other", "a", image, image[:16])
    with pytest.raises(InputError, match="16x64, and its image 32x64"):
        evaluate_bundle(open_bundle(bundle), tmp_path / "other")


def test_tiles_are_put_together(tmp_path: Path) -> None:
    recipe = "[input.tiles]\nsize = [8, 8]\noverlap = 4\n[input.scaling]\ndivisor = 255.0\n"
    bundle = write_mask_bundle(tmp_path / "b.edgemed", recipe=recipe)
    image = np.where(np.random.default_rng(0).random((21, 30)) > 0.7, 250, 10)
    write_pair(tmp_path / "data", "a", image, image > 128)
    evaluation = evaluate_bundle(open_bundle(bundle), tmp_path / "data").evaluation
    assert evaluation.results[1].metrics["dice"].value == 1.0


def test_gates(bundle: Path, data: Path) -> None:
    texts = ["dice >= float - 0.01", "iou >= 0.4", "dice <= float + 0.9"]
    decisions = evaluate_bundle(open_bundle(bundle), data, [parse_gate(text) for text in texts]).decisions
    assert [decision.verdict for decision in decisions] == ["inconclusive", "inconclusive", "pass"]
    run = [*("evaluate", str(bundle), str(data)), "--gate"]
    assert isinstance(CliRunner().invoke(app, [*run, texts[0]]).exception, InconclusiveError)
    for index in range(12):  # INT8 finds half of what float finds, on every image
        image = np.full((8, 8), 140, np.uint8)
        image[:4] = 250
        image[7, 7] = index  # bytes of its own
        write_pair(data, f"half{index}", image, np.ones((8, 8)))
    failed = CliRunner().invoke(app, [*run, texts[0]])
    assert isinstance(failed.exception, GateError)
    with pytest.raises(UsageError, match="no metric 'auc'"):
        evaluate_bundle(open_bundle(bundle), data, [parse_gate("auc >= 0.9")])
    for file in data.rglob("c.png"):
        file.unlink()
    with pytest.raises(UsageError, match="cannot be judged"):
        evaluate_bundle(open_bundle(bundle), data, [parse_gate("false_alarms <= 0.9")])


def test_the_table(bundle: Path, data: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(bundle), str(data)])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[2] == ["dice", "2", "0.8333", "0.7333", "-0.1000"]
    assert "3 images (foreground 2;" in result.stdout
    assert "not drawn, judged by false_alarms alone: foreground 1" in result.stdout
    assert "differently on 3.12% of pixels" in result.stdout
    assert "3 files name no patient" in result.stdout
    document = json.loads(CliRunner().invoke(app, ["evaluate", str(bundle), str(data), "--json"]).stdout)
    assert document["masks"]["rule"] == "threshold"


def test_calibration_images_are_refused(tmp_path: Path, data: Path) -> None:
    seen = sha256_file(data / "images" / "b.png")
    bundle = write_mask_bundle(tmp_path / "seen.edgemed", calibrated_on=(seen,))
    with pytest.raises(InputError, match=r"1 of 3 images were used for calibration, images/b\.png"):
        evaluate_bundle(open_bundle(bundle), data)


def test_one_image_with_two_masks_is_refused(bundle: Path, data: Path) -> None:
    (data / "images" / "d.png").write_bytes((data / "images" / "a.png").read_bytes())
    (data / "masks" / "d.png").write_bytes((data / "masks" / "b.png").read_bytes())
    with pytest.raises(InputError, match="same image with different masks"):
        evaluate_bundle(open_bundle(bundle), data)


def test_copies_count_once(bundle: Path, data: Path) -> None:
    before = evaluate_bundle(open_bundle(bundle), data).evaluation
    for kind in ("images", "masks"):
        for name in "abc":
            (data / kind / f"{name}2.png").write_bytes((data / kind / f"{name}.png").read_bytes())
    after = evaluate_bundle(open_bundle(bundle), data).evaluation
    assert after.data.duplicates == 3
    assert after.results[0].metrics["dice"].n == 4
    for one, other in zip(before.results, after.results, strict=True):
        assert one.metrics["dice"].low == pytest.approx(other.metrics["dice"].low)


def test_nothing_drawn_is_refused(bundle: Path, tmp_path: Path) -> None:
    write_pair(tmp_path / "data", "a", np.zeros((8, 8)), np.zeros((8, 8)))
    with pytest.raises(InputError, match=r"No mask in .* marks anything"):
        evaluate_bundle(open_bundle(bundle), tmp_path / "data")


@pytest.mark.parametrize("classes", [("a", "b", "c"), ("a", "a")])
def test_names_that_do_not_fit_are_refused(tmp_path: Path, data: Path, classes: tuple[str, ...]) -> None:
    bundle = write_mask_bundle(tmp_path / "b.edgemed", classes=classes)
    with pytest.raises(InputError, match="The recipe names"):
        evaluate_bundle(open_bundle(bundle), data)

"""The out-of-distribution score means what it says, and drift is told with the false alarms that it claims."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluate.hostile import reseal

from edgemed.base.errors import InputError, IntegrityError
from edgemed.bundle.read import open_bundle
from edgemed.evaluate.likeness import FILE, Reference, document, features
from edgemed.serve.analysis.drift import LEVEL, REFERENCE, WINDOW, Drift, differ, distance
from tests.serve import kit

NHWC = {"x": "NHWC"}


def picture(rng: np.random.Generator, *, level: float = 0.2, noise: float = 0.1, channels: int = 1) -> np.ndarray:
    """A smooth gray blob at about `level`."""
    rows, columns = np.mgrid[-1:1:32j, -1:1:32j]
    blob = np.exp(-(rows**2 + columns**2) * rng.uniform(2, 4)) * 0.3
    image = level + rng.normal(0, 0.03) + blob + rng.normal(0, noise * 0.2, (32, 32))
    return np.repeat(image[None, ..., None], channels, axis=-1).astype(np.float32)


def reference(images: int, seed: int = 0) -> Reference:
    rng = np.random.default_rng(seed)
    return Reference.made([features({"x": picture(rng)}, NHWC) for _ in range(images)], NHWC)


def score(made: Reference, image: np.ndarray) -> float:
    return made.score(features({"x": image}, NHWC))


@pytest.mark.parametrize("images", [8, 32])
def test_of_inputs_like_the_reference_about_one_in_n_plus_one_is_above_1(images: int) -> None:
    rng = np.random.default_rng(7)
    rows = [features({"x": picture(rng)}, NHWC) for _ in range(400)]
    above = []
    for _ in range(300):
        one, *others = (rows[i] for i in rng.choice(len(rows), images + 1, replace=False))
        above.append(Reference.made(others, NHWC).score(one) > 1)
    # 300 draws of a chance of 1 / (n + 1): four standard deviations, and leaving one out makes references look farther
    chance = 1 / (images + 1)
    assert np.mean(above) <= chance + 4 * np.sqrt(chance * (1 - chance) / 300)


def test_gross_errors_are_far_above() -> None:
    made, rng = reference(16), np.random.default_rng(3)
    alike = [score(made, picture(rng)) for _ in range(50)]
    wrong = {
        "inverted": 1 - picture(rng),
        "empty": np.zeros((1, 32, 32, 1), np.float32),
        "another window": picture(rng) * 3,
        "noise": rng.random((1, 32, 32, 1), np.float32),
        "not scaled": picture(rng) * 255,
    }
    worst = max(alike)
    assert worst < 3
    assert {name: score(made, image) > 2 * worst for name, image in wrong.items()} == dict.fromkeys(wrong, True)


def test_what_has_the_right_gray_values_passes() -> None:
    """The weakness that the documentation states: an upside-down or mirrored image is not seen."""
    made, rng = reference(16), np.random.default_rng(3)
    image = picture(rng)
    assert score(made, image[:, ::-1]) == pytest.approx(score(made, image), rel=0.05)


def test_channels_lie_where_the_layout_says() -> None:
    image = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    last = features({"x": image}, {"x": "NHWC"})
    first = features({"x": np.moveaxis(image, -1, 1)}, {"x": "NCHW"})
    assert last == pytest.approx(first)
    assert len(last) == 18


def test_a_bundles_golden_inputs_are_the_reference(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without images"):
        Reference.of(open_bundle(kit.write_classifier(tmp_path / "chest.edgemed")))
    made = Reference.of(open_bundle(kit.write_classifier(tmp_path / "int8.edgemed", int8=0.5)))
    assert made.images == 8
    assert score_of(made, np.random.default_rng(5).random((1, 4, 4, 1), np.float32)) < 3
    assert score_of(made, np.full((1, 4, 4, 1), 40, np.float32)) > 50


def test_what_the_build_has_kept_of_its_images_comes_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    dark = [{"image": (rng.random((1, 4, 4, 1)) * 0.1).astype(np.float32)} for _ in range(12)]
    data = json.dumps(document(dark, {"image": "NHWC"})).encode()
    path = reseal(kit.write_classifier(tmp_path / "chest.edgemed"), files={FILE: data})
    made = Reference.of(open_bundle(path))
    assert made.images == 12
    assert score_of(made, dark[0]["image"]) <= 1
    assert score_of(made, rng.random((1, 4, 4, 1), np.float32)) > 3
    with pytest.raises(IntegrityError, match="another model"):
        made.score(np.zeros(12))
    for damaged in (b"", b"[]", b'{"schema": "x"}', data.replace(b"0.0", b"NaN", 1), data.replace(b"spread", b"other")):
        reseal(path, files={FILE: damaged})
        with pytest.raises(IntegrityError):
            Reference.of(open_bundle(path))


def score_of(made: Reference, image: np.ndarray) -> float:
    return made.score(features({"image": image}, made.layouts))


# -- drift -------------------------------------------------------------------------------------------------------------


def test_the_distance_is_that_of_the_two_distributions() -> None:
    assert distance([1, 2, 3, 4], [1, 2, 3, 4]) == 0
    assert distance([0, 0, 1, 1], [2, 2]) == 1
    assert distance([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5


def test_false_alarms_are_as_rare_as_they_are_said_to_be() -> None:
    rng, level, runs = np.random.default_rng(11), 0.02, 3000
    wrong = sum(differ(rng.random(REFERENCE), rng.random(WINDOW), level) for _ in range(runs))
    # binomial: four standard deviations above the level; and it is no test that never speaks
    assert level * runs / 4 < wrong < level * runs + 4 * np.sqrt(runs * level * (1 - level))
    ties = sum(differ(rng.integers(0, 2, REFERENCE), rng.integers(0, 2, WINDOW), level) for _ in range(500))
    assert ties <= wrong


def test_a_shift_is_told_after_one_window_and_its_end_after_the_next(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    drift = Drift("d" * 64)

    def window(shift: float, count: int = WINDOW) -> tuple[str, ...]:
        whole = [drift.add({"mean": rng.normal(shift), "score": rng.random()}) for _ in range(count)]
        assert whole[-1] == (count == WINDOW)
        return drift.shifted

    window(0, REFERENCE)
    assert window(0) == ()
    assert window(1.0) == ("mean",)
    drift.keep(tmp_path / "drift" / "m.json")
    kept = Drift.load(tmp_path / "drift" / "m.json", "d" * 64)
    assert vars(kept) == vars(drift)
    assert window(0) == ()
    assert LEVEL == 0.001


def test_what_is_kept_of_another_bundle_or_damaged_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    drift = Drift("a" * 64)
    drift.add({"mean": 1.0, "bad": float("nan")})
    drift.keep(path)
    assert json.loads(path.read_text())["reference"] == {"mean": [1.0]}
    assert Drift.load(path, "b" * 64).reference == {}
    for text in ("", "[]", '{"schema": "edgemed/drift/1"}', '{"schema": "edgemed/drift/1", "digest": 3, "x": 1}'):
        path.write_text(text)
        assert Drift.load(path, "a" * 64) == Drift("a" * 64)


def test_a_limit_that_cannot_be_held_is_no_start(tmp_path: Path) -> None:
    bundle = kit.write_classifier(tmp_path / "chest.edgemed")
    models = [{"name": "chest", "bundle": bundle, "runner": "onnxruntime", "max_ood": 5}]
    with pytest.raises(InputError, match="max_ood"), kit.running(kit.bedside(tmp_path, models=models)):
        pass

"""What cannot work is refused with the Keras layer's name and the way out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgemed.base.errors import InputError
from edgemed.build.options import BuildOptions
from edgemed.build.pipeline import build
from edgemed.cli.console import ConsoleProgress
from tests.matrix.conftest import write_models
from tests.matrix.rows import REFUSALS, ROWS

pytestmark = pytest.mark.usefixtures("shared_child")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refusals")
    write_models(folder, *REFUSALS, "lstm_alone")
    return folder


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(models: Path, tmp_path: Path, name: str) -> None:
    row = REFUSALS[name]
    samples = models / "lstm_alone" / "calibration" if row.precision == "int8" else None
    assert ROWS["lstm_alone"].build is REFUSALS["all_float"].build  # whose samples these are
    options = BuildOptions(precision=row.precision, calibration=samples, output=tmp_path / "m.edgemed")
    with pytest.raises(InputError) as caught:
        build(models / name / "model.keras", options, ConsoleProgress())
    assert re.search(row.what, caught.value.what), caught.value.what
    assert re.search(row.hint, caught.value.hint), caught.value.hint
    assert list(tmp_path.iterdir()) == []

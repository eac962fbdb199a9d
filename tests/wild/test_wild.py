"""Files that TensorFlow 2.4 and 2.15 wrote themselves: the answers must be those of the TensorFlow that wrote them.

`make wild` installs both, lets them write the files, and runs this; elsewhere it is skipped, and says so.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgemed.base.errors import InputError
from edgemed.convert import KerasModel
from tests.shared_child import one_child, shared_child  # noqa: F401 - fixtures

# what the writer computed with its own kernels, against ONNX Runtime: FP32 sums in another order, as elsewhere
PARITY = 1e-4
_FOLDER = os.environ.get("EDGEMED_WILD", "")
FILES = sorted(Path(_FOLDER).glob("*/*.h5")) + sorted(Path(_FOLDER).glob("*/*.keras")) if _FOLDER else []
FILES += sorted(Path(_FOLDER).glob("*/*.saved")) if _FOLDER else []

REFUSED = {
    ("2.4.4", "attention.h5"): "query_shape",  # TensorFlow 2.4 does not write what its own loader needs later
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILES, reason="EDGEMED_WILD names no folder with files of old TensorFlow: run `make wild`"),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.usefixtures("shared_child")
def test_answers_are_the_writers(path: Path, tmp_path: Path) -> None:
    refused = REFUSED.get((path.parent.name, path.name))
    with KerasModel(path, tmp_path) as model:
        if refused is not None:
            with pytest.raises(InputError, match=refused) as caught:
                model.convert()
            assert "tf.saved_model.save" in caught.value.hint
            return
        converted = model.convert()
    arrays = dict(np.load(path.with_suffix(".npz")))
    session = onnxruntime.InferenceSession(str(converted.path), providers=["CPUExecutionProvider"])
    feeds = {spec.name: arrays[f"input/{spec.name}"] for spec in converted.inputs}
    answers = [answer for key, answer in arrays.items() if key.startswith("output/")]
    found = session.run(None, feeds)
    if path.suffix == ".saved":  # a signature's outputs are sorted by name
        found = sorted(found, key=lambda array: array.shape)
        answers.sort(key=lambda array: array.shape)
    for wanted, got in zip(answers, found, strict=True):
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= PARITY * np.abs(wanted).max()

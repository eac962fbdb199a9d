"""Files of trtexec of all generations, reader against writer; the gap between layers and engine; engines compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.base.errors import InputError, UsageError
from edgemed.profile.layers import differences, load_engine
from edgemed.profile.trtexec import EngineLayers, LayerTimes, QueryTimes, parse_export, read_export
from tests.profile.exports import export_layer, export_layers, export_profile, export_times

CHW32 = "Thirty-two wide channel vectorized row major Int8 format"
REFORMAT = "Reformatting CopyNode for Input Tensor 0 to conv1.weight + conv1 + relu1"


def write(folder: Path, **files: str) -> dict[str, Path]:
    paths = {name: folder / f"{name}.json" for name in files}
    for name, text in files.items():
        paths[name].write_text(text)
    return paths


def engine_a(*, new: bool = False) -> str:
    int8 = "INT8" if new else CHW32
    fp32 = "FP32" if new else "Row major linear FP32"
    layers = (
        export_layer(REFORMAT, "Reformat", fp32, int8, new=new),
        export_layer("conv1.weight + conv1 + relu1", "CaskConvolution", int8, int8, weights="Int8", new=new),
        export_layer("conv2.weight + conv2 + add + relu2", "CaskConvolution", int8, int8, weights="Int8", new=new),
        export_layer("PWN(PWN(sigmoid), mul)", "PointWiseV2", int8, "Half", new=new),
    )
    return export_layers(layers, new=new)


TIMES_A = [(REFORMAT, 0.01), ("conv1.weight + conv1 + relu1", 0.2), ("conv2.weight + conv2 + add + relu2", 0.3)]
TIMES_A.append(("PWN(PWN(sigmoid), mul)", 0.05))
QUERIES = [(10.0 + i, 10.1 + i, 10.1 + i, 10.6 + i, 10.6 + i, 10.65 + i) for i in range(50)]

stamps = st.lists(st.tuples(*[st.floats(0, 5)] * 6), min_size=1, max_size=30)


@given(gaps=stamps, old=st.booleans())
def test_times_of_both_generations_are_read_as_they_were_written(gaps, old):
    queries = [tuple(np.cumsum(gap).tolist()) for gap in gaps]
    found = parse_export(export_times(queries, old=old))
    assert isinstance(found, QueryTimes)
    assert found.generation == ("in" if old else "h2d")
    assert (found.enqueue is None) == old
    written = np.array(queries)
    for column, stage in enumerate(("copy-in", "compute", "copy-out")):
        wanted = written[:, 2 * column + 1] - written[:, 2 * column]
        # six digits of a stamp below 30 ms
        assert found.stages[stage] == pytest.approx(wanted, abs=2e-4)
    assert found.latency == pytest.approx(sum(found.stages.values()))


@pytest.mark.parametrize("new", [False, True])
def test_layers_of_both_generations_are_read_as_they_were_written(new):
    found = parse_export(engine_a(new=new))
    assert isinstance(found, EngineLayers)
    assert found.tensors == ("image", "answer")
    assert [layer.reformat for layer in found.layers] == [True, False, False, False]
    assert found.layers[0].reads == ("FP32",)
    assert found.layers[0].writes == ("INT8",)
    assert found.layers[1].weights == "INT8"
    assert found.layers[3].writes == ("FP16",)
    assert found.layers[1].tactic == "sm80_xmma_fprop"


def test_bare_names_separators_and_what_is_no_number_are_understood():
    names = export_layers(['"conv1 + relu1"', '"{ForeignNode[a...b]}"'])
    found = parse_export(names)
    assert [layer.name for layer in found.layers] == ["conv1 + relu1", "{ForeignNode[a...b]}"]
    assert found.layers[0].kind is None
    nodes = export_layers([export_layer("conv\x1erelu", "kgen", "Half", "Half", nodes=("conv", "relu"))])
    layer = parse_export(nodes).layers[0]
    assert layer.name == "conv + relu"
    assert layer.nodes == ("conv", "relu")
    nothing = parse_export(export_profile([("constant", 0.0)], 5))
    assert isinstance(nothing, LayerTimes)
    assert nothing.layers[0].mean_ms == 0


@pytest.mark.parametrize("medians", [True, False])
def test_an_engine_is_put_together_from_files_in_any_order(tmp_path, medians):
    files = write(
        tmp_path,
        times=export_times(QUERIES),
        layers=engine_a(),
        profile=export_profile(TIMES_A, 100, medians=medians),
    )
    engine = load_engine([files["times"], files["profile"], files["layers"]])
    factor = 0.99 if medians else 1.0
    assert engine.sum_ms == pytest.approx(0.56 * factor)
    assert engine.compute_ms == pytest.approx(0.5, abs=1e-3)
    assert engine.gap_ms == pytest.approx(engine.sum_ms - engine.compute_ms)
    assert engine.reformats == 1
    assert engine.reformat_ms == pytest.approx(0.01 * factor)
    assert sum(row.share for row in engine.layers) == pytest.approx(1)
    assert list(engine.types_ms) == ["INT8", "FP32"]
    assert engine.layers[0].types == "FP32 → INT8"
    assert any("not in it" in note for note in engine.notes)


def test_layers_without_times_and_times_without_layers_are_shown(tmp_path):
    files = write(tmp_path, layers=engine_a(), profile=export_profile(TIMES_A, 100))
    assert load_engine([files["layers"]]).sum_ms is None
    assert [row.name for row in load_engine([files["profile"]]).layers] == [name for name, _ in TIMES_A]


def test_layers_of_one_name_keep_their_own_times(tmp_path):
    layers = export_layers([export_layer("twin", "kgen", "Half", "Half")] * 2)
    files = write(tmp_path, layers=layers, profile=export_profile([("twin", 1.0), ("twin", 3.0)], 1, medians=False))
    assert [row.ms for row in load_engine(list(files.values())).layers] == [1.0, 3.0]


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    files = write(tmp_path, layers=engine_a(), other=export_profile([("else", 1.0)], 1), times=export_times(QUERIES))
    with pytest.raises(InputError, match="different engines"):
        load_engine([files["layers"], files["other"]])
    with pytest.raises(UsageError, match="no layers"):
        load_engine([files["times"]])
    with pytest.raises(UsageError, match="same"):
        load_engine([files["layers"], files["layers"]])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "[1]",
        '"Layers"',
        '{"Layers": 3}',
        '{"Layers": [3]}',
        '[{"count": 1}, {"name": "a"}]',
        '[{"count": 1}, {"name": "a", "averageMs": -1}]',
        '[{"count": 1}, {"name": "a", "averageMs": null}]',
        '[{"startMs": 1}]',
        "[" * 100_000,
        export_times([(5.0, 4.0, 6.0, 7.0, 7.0, 8.0)]),
    ],
)
def test_other_files_are_refused_with_a_reason(tmp_path, text):
    path = write(tmp_path, it=text)["it"]
    with pytest.raises(InputError, match="no export of trtexec"):
        read_export(path)


def test_engines_are_compared_by_what_they_share(tmp_path):
    layers_b = export_layers(
        [
            export_layer("conv1.weight + conv1 + relu1", "CaskConvolution", "Half", "Half", weights="Half"),
            export_layer("conv2.weight + conv2", "CaskConvolution", CHW32, CHW32, weights="Int8"),
            export_layer("add + relu2", "PointWiseV2", CHW32, CHW32),
            export_layer("extra", "kgen", "Half", "Half"),
        ]
    )
    times_b = [("conv1.weight + conv1 + relu1", 0.5), ("conv2.weight + conv2", 0.28), ("add + relu2", 0.06)]
    files = write(
        tmp_path,
        a=engine_a(),
        ta=export_profile(TIMES_A, 10, medians=False),
        b=layers_b,
        tb=export_profile([*times_b, ("extra", 0.02)], 10, medians=False),
    )
    a, b = load_engine([files["a"], files["ta"]]), load_engine([files["b"], files["tb"]])
    found = {each.name: each for each in differences(a, b)}
    first = found["conv1.weight + conv1 + relu1"]
    assert first.change_ms == pytest.approx(0.5 - 0.21)
    assert first.remark == "INT8 became FP16; 1 reformat less"
    second = found["conv2.weight + conv2 + add + relu2"]
    assert second.change_ms == pytest.approx(0.04)
    assert "1 → 2 layers" in second.remark
    assert found["PWN(PWN(sigmoid), mul)"].remark == "only in A"
    assert found["extra"].remark == "only in B"
    assert sum(each.change_ms for each in found.values()) == pytest.approx(b.sum_ms - a.sum_ms)
    assert all(each.change_ms == 0 and not each.remark for each in differences(a, a))


def test_the_command_prints_tables_and_json(tmp_path):
    files = write(tmp_path, layers=engine_a(), times=export_times(QUERIES), profile=export_profile(TIMES_A, 9))
    command = [sys.executable, "-m", "edgemed", "layers", *map(str, files.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "what timing layers adds" in done.stdout
    assert "conv2.weight + conv2 + add + relu2" in done.stdout
    against = [*command, "--against", str(files["layers"]), "--json"]
    data = json.loads(subprocess.run(against, capture_output=True, text=True, timeout=60).stdout)
    assert data["a"]["reformats"] == data["b"]["reformats"] == 1
    bad = subprocess.run([*command[:4], str(tmp_path / "none.json")], capture_output=True, text=True, timeout=60)
    assert bad.returncode not in (0, 1)
    assert "none.json" in bad.stderr

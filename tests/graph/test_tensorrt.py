"""The operator table against facts read elsewhere, and how a version finds its row."""

from __future__ import annotations

import pytest

from edgemed.base.errors import InputError
from edgemed.graph.rules.limits import LIMITS
from edgemed.graph.tensorrt import first_with, parser_of, releases, version_of


@pytest.mark.parametrize(
    ("tensorrt", "release", "opset"),
    [
        ("8.0.1", "8.0", 13),
        ("8.2.1", "8.2", 13),
        ("8.4.1", "8.2", 13),  # no row of its own: the earlier neighbour, which promises less
        ("8.5.2.2", "8.5", 17),
        ("8.6.2.3", "8.6", 17),
        ("10.3.0.30", "10.3", 20),
        ("10.12", "10.3", 20),
        ("10.13.3.9", "10.13", 20),
        ("10.16.2.10", "10.16", 24),
        ("11.4.1", "11.1", 24),
    ],
)
def test_a_version_finds_its_row_or_the_one_before(tensorrt, release, opset):
    parser = parser_of(tensorrt)
    assert (parser.release, parser.opset) == (release, opset)


@pytest.mark.parametrize(
    ("tensorrt", "own"),
    [("8.5.2.2", True), ("10.16.2", True), ("8.4.1", False), ("10.3.0", False), ("10.13.3", False), ("11.4.1", False)],
)
def test_a_neighbours_list_is_told_from_its_own(tensorrt, own):
    assert parser_of(tensorrt).own_list == own


@pytest.mark.parametrize(
    ("operator", "first"),
    [  # NVIDIA/TensorRT CHANGELOG.md and docs/Changelog.md of onnx-tensorrt, which are other files than the lists
        ("Einsum", "8.2"),
        ("GatherND", "8.2"),
        ("Mod", "8.5"),
        ("NonZero", "8.5"),
        ("LayerNormalization", "8.6"),
        ("GroupNormalization", "8.6"),
        ("IsInf", "8.6"),
        ("Hardmax", "10.1"),
        ("DeformConv", "10.1"),
        ("BlackmanWindow", "10.13"),
        ("STFT", "10.13"),
        ("Attention", "10.14"),
        ("RMSNormalization", "10.16"),
        ("Swish", "11.1"),
        ("Conv", "8.0"),
        ("Reciprocal", "8.0"),  # the lists of 8.0 and 8.2 say no, their importers say yes; LayerNormalization needs it
        ("QuantizeLinear", "8.0"),
        ("QLinearConv", None),
        ("DynamicQuantizeLinear", None),
        ("NoSuchOperator", None),
    ],
)
def test_operators_came_when_the_change_logs_say(operator, first):
    assert first_with(operator) == first


@pytest.mark.parametrize("release", releases())
def test_no_tensorrt_quantizes_recurrent_layers_or_takes_other_types_than_int8_in_8(release):
    operators = parser_of(release).operators
    for name in ("LSTM", "GRU", "RNN"):
        assert "INT8" not in operators[name].types
    assert "INT8" in operators["DequantizeLinear"].types
    assert "INT32" not in operators["DequantizeLinear"].types  # quantized biases are refused
    assert ("FP8" in operators["DequantizeLinear"].types) == (version_of(release) >= (10,))


def test_every_restriction_has_its_check():
    used = {
        limit.partition(":")[0] for r in releases() for o in parser_of(r).operators.values() if o for limit in o.limits
    }
    assert used == set(LIMITS)


def test_operators_do_not_get_lost_between_releases():
    for earlier, later in zip(releases(), releases()[1:], strict=False):
        before = {name for name, row in parser_of(earlier).operators.items() if row}
        assert before <= {name for name, row in parser_of(later).operators.items() if row}


def test_a_profile_may_state_another_opset():
    parser = parser_of("10.13.3", opset=22)
    assert (parser.opset, parser.opset_possible) == (22, 24)


@pytest.mark.parametrize("text", ["7.1.3", "8", "", "ten", "8.x", "8.²"])
def test_other_versions_are_refused(text):
    with pytest.raises(InputError):
        parser_of(text)

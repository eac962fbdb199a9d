"""Write `edgemed/graph/tensorrt_operators.json` from the operator lists that onnx-tensorrt publishes.

Usage: make_operator_table.py FOLDER, where FOLDER holds `<version>.md` for each row of `SOURCES`: the text of
`docs/operators.md` in github.com/onnx/onnx-tensorrt at the row's commit, which is the one that NVIDIA/TensorRT pins in
`parsers/onnx` at the tag of that release.

What the lists say in sentences becomes keywords that `edgemed.graph.rules.target` checks. A sentence that is not known
here ends the script, so that no restriction is lost in silence.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "edgemed" / "graph" / "tensorrt_operators.json"

SOURCES = {
    "8.0": "8fea430fc1ad452085add61b04045a9efbf2b981",
    "8.2": "e9456d57605c883cdf985e634ab483e2c1500bb1",
    "8.5": "7583da4c62475e84b7be31f4b8fb0c101873d434",
    "8.6": "6ba67d3428e05f690145373ca87fb8d32f98df45",
    "10.1": "96e781103cfc4adf4a6bb557e94bac8e693f6f4c",
    "10.14": "c72727708d4ed8a379c04c4ea235c157ce9c3870",
    "10.16": "6bde6596eca84abf9afe9b4d21c18c32800fd3ad",
    "11.1": "7c51a63a719180eb5160c874c111746f3fb46a6b",
}
"""Releases whose list was read."""

Row = list[str] | None  # [types, keywords], None where the operator is not supported
Table = dict[str, Row]

_CHANGED_IN_10_3: Table = {"Slice": ["FP32 FP16 BF16 INT32 INT64 BOOL", ""]}
_CHANGED_IN_10_14: Table = {"Attention": None}
DERIVED: dict[str, tuple[str, Table, str]] = {
    # the list still said 20 in February 2025, when 10.8 was out (NVIDIA/TensorRT issue 4336)
    "10.3": ("10.1", _CHANGED_IN_10_3, "with what docs/Changelog.md names for 10.2 and 10.3"),
    "10.13": ("10.14", _CHANGED_IN_10_14, "without what docs/Changelog.md names for 10.14"),
}
"""Releases whose list could not be had: (neighbour, rows that differ, how it was made)."""

CORRECTED: dict[str, Table] = {"8.0": {"Reciprocal": ["FP32 FP16", ""]}, "8.2": {"Reciprocal": ["FP32 FP16", ""]}}
"""Where a list and the importers that the same commit registers disagree; compared for 8.0, 8.2, 8.5, 8.6 and 10.1.

`DEFINE_BUILTIN_OP_IMPORTER(Reciprocal)` stands in builtin_op_importers.cpp of 8.0 and 8.2, whose lists say no.
"""

OPSET_KNOWN = {"10.13": 20}
"""Where the neighbour's maximum opset may be too high: the highest that is sure. It rose between 10.8 and 10.14."""

_CONSTANT = "must be (?:an initializer|a constant tensor|a build-time constant|resolvable to a constant)"
_RULES: list[tuple[str, str, str | None]] = [
    # (operators, sentence, keyword); None: nothing to check in a graph, or checked by a rule of its own
    (r"AveragePool|MaxPool", r"2D or 3D pooling only", "spatial"),
    (r"Conv(Transpose)?", r"2D or 3D (de)?convolutions only", "spatial"),
    (r"Conv(Transpose)?", r"Weights W must be an init(ia|ai)lizer", "constant:1"),
    (r".*", r"dilations must be empty or all ones", "dilations"),
    (r"MaxPool", r"Indices output tensor unsupported", "outputs:1"),
    (r"LayerNormalization", r"Only the first output Y is supported", "outputs:1"),
    (r"Clip", r"min and max clip values must be initializers", "constant:1 constant:2"),
    (r"CumSum|OneHot", rf"(axis|depth) {_CONSTANT}", "constant:1"),
    (r"Squeeze|Unsqueeze|Reduce.*", rf"axes {_CONSTANT}", "constant:1"),
    (r"Slice|Pad", rf"axes {_CONSTANT}", "constant:3"),
    (r"Split", rf"split {_CONSTANT}", "constant:1"),
    (r"TopK", rf"K input {_CONSTANT}", "constant:1"),
    (r"TopK", r"sorted must be 1", "sorted"),
    (r"TopK", r"K input must be less than 3840", "k:3839"),
    (r"STFT", r"frame_step and window must be an initializer", "constant:1 constant:2"),
    (r"InstanceNormalization", r"Scales scale and biases B must be initializers", "constant:1 constant:2"),
    (r"InstanceNormalization", r"Input rank must be >=3 & <=5", "rank:3-5"),
    (r"GridSample", r"Input must be 4D input", "rank:4-4"),
    (
        r"NonMaxSuppression",
        r"Inputs max_output_boxes_per_class,.*must be initializers",
        "constant:2 constant:3 constant:4",
    ),
    (r"Range", r"Floating point inputs are only supported if .* are initializers", "constant-float"),
    (r"Dropout", r"is_trai?ning must be an initializer and evaluate to False", "training"),
    (r"Einsum", r"Ellipsis and diagonal operations are not supported", "einsum"),
    (r"ScatterND", r"reduction (other than none )?is not supported", "reduction"),
    (r"GRU|LSTM|RNN", r"For bidirectional .*, activation functions must be the same", "activations"),
    (r"LSTM", r"input_forget attribute must be 0", "attribute:input_forget"),
    (r"LSTM", r"layout attribute must be 0", "attribute:layout"),
    (r"Pad", r"Zero-constant padding on two dimensions only", "pad"),
    (r"Gather.*", r"Only positive indices", "indices"),
    (r"EyeLike", r"input must have static dimensions", "static"),
    (r"ReverseSequence", r"Dynamic input shapes are unsupported", "static"),
    (r"Constant", r"sparse_value, value_string, and value_strings attributes are unsupported", "constant-kind"),
    (r"Attention", r"Q, K, V and attn_mask must be 4D", "attention"),
    (r"Resize", r"Supported resize transformation modes", "resize"),
    (r"Resize", r"Supported aspect ratio policy: stretch", "resize-18"),
    (r"Resize", r"Supported (resize|nearest) modes|When scales is a tensor|Antialiasing", None),
    (r"Attention", r"(inputs|outputs|attributes) are (un)?supported", None),  # all in `attention`
    (r"Gather.*", r"Compile with", None),
    (r"(De)?[Qq]uantizeLinear", r"zero_point must be (zero|0)", None),  # rule zero-point
    (r"Einsum", r"Broadcasting between inputs is not supported", None),  # cannot be told from the equation alone
    (r"Random.*", r"seed value is ignored", None),
    (r"NonMaxSuppression", r"Output has fixed shape", None),
    (r"If", r"Output tensors of the two conditional branches", None),  # shapes in bodies are rarely known
    (r"Loop", r"Scan output length cannot be dynamic|shape of Loop carried", None),
    (r"STFT", r"Input must be real-valued", None),
    (r"Hardmax", r"axis dimension of input must be a build-time constant", None),
    (r"DeformConv|RotaryEmbedding|TensorScatter", r".*", None),  # no Keras layer becomes one
    (r"DynamicQuantizeLinear", r"Not supported|can be composed", None),
]
_RESIZE_WITHOUT_CUBIC = ("8.0", "8.2")
"""The lists name `nearest` and `linear` only; the importers refuse `cubic` in 8.0 and 8.2 and take it in 8.5."""


def main() -> None:
    """Read the lists, write the table."""
    folder = Path(sys.argv[1])
    tables: dict[str, Table] = {}
    parsers: dict[str, dict[str, object]] = {}
    for version, commit in SOURCES.items():
        text = (folder / f"{version}.md").read_text(encoding="utf-8")
        tables[version] = _read(version, text) | CORRECTED.get(version, {})
        parsers[version] = {"opset": _opset(text), "commit": commit, "list": version}
    for version, (neighbour, changes, how) in DERIVED.items():
        tables[version] = tables[neighbour] | changes
        base = parsers[neighbour]
        known = OPSET_KNOWN.get(version)
        opsets = {"opset": base["opset"]} if known is None else {"opset": known, "opset_possible": base["opset"]}
        parsers[version] = {**opsets, "commit": base["commit"], "list": neighbour, "how": how}
    TARGET.write_text(_json(parsers, tables), encoding="utf-8")


def _opset(text: str) -> int:
    found = re.search(r"(?:up to|to) opset (\d+)", text, re.IGNORECASE)
    if found is None:
        raise SystemExit("no maximum opset")
    return int(found[1])


def _read(version: str, text: str) -> Table:
    table: Table = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or len(cells) < 2 or cells[0] in ("Operator", "") or cells[0].startswith("-"):
            continue
        types = " ".join(re.findall(r"[A-Z]+\d*", cells[2])) if len(cells) > 2 else ""
        limits = _keywords(version, cells[0], cells[3] if len(cells) > 3 else "")
        table[cells[0]] = [types.replace("INF64", "INT64"), limits] if cells[1].startswith("Y") else None
    return table


def _keywords(version: str, operator: str, text: str) -> str:
    found: list[str] = []
    for part in re.split(r"(?<=[a-z0-9\])])\\?\.\s+|<br />", text.replace("`", "")):
        sentence = re.sub(r"\s+", " ", part).strip(" .")
        if not sentence:
            continue
        hits = [r for r in _RULES if re.fullmatch(r[0], operator) and re.search(r[1], sentence, re.IGNORECASE)]
        if not hits:
            raise SystemExit(f"{version} {operator}: unknown restriction: {sentence}")
        found += [keyword for _, _, keyword in hits if keyword]
    if operator == "Resize" and version in _RESIZE_WITHOUT_CUBIC:
        found.append("resize-cubic")
    return " ".join(dict.fromkeys(" ".join(found).split()))


def _json(parsers: dict[str, dict[str, object]], tables: dict[str, Table]) -> str:
    """One line for each parser and each operator; of an operator, only the releases where its row changes."""
    versions = sorted(tables, key=lambda version: tuple(map(int, version.split("."))))
    lines = []
    for name in sorted({name for table in tables.values() for name in table}):
        rows: dict[str, Row] = {}
        last: Row = None
        for version in versions:
            row = tables[version].get(name)
            if row != last:
                rows[version] = last = row
        if rows:
            lines.append(f"  {json.dumps(name)}: {json.dumps(rows)}")
    heads = [f"  {json.dumps(version)}: {json.dumps(parsers[version])}" for version in versions]
    return '{\n "parsers": {\n' + ",\n".join(heads) + '\n },\n "operators": {\n' + ",\n".join(lines) + "\n }\n}\n"


if __name__ == "__main__":
    main()

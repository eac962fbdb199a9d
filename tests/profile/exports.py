"""Writers of trtexec's files, made after its source: its spacing, no escapes of names, `nan` where it divides by 0.

`samples/common/sampleReporting.cpp` of TensorRT 8.2 and 10 for times and profiles; the reader beside it, `tracer.py`,
for the keys that came before them; the inspector's JSON as engines of 8.4, 8.6 and 10 show it.
"""

from __future__ import annotations

from collections.abc import Sequence

Stages = tuple[float, float, float, float, float, float]  # start and end of copy in, computation, copy out; ms
_NEW = ("startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs", "startD2hMs", "endD2hMs")
_OLD = ("startInMs", "endInMs", "startComputeMs", "endComputeMs", "startOutMs", "endOutMs")


def _g(value: float) -> str:
    """As a C++ stream prints a float."""
    return f"{value:g}"


def export_times(queries: Sequence[Stages], *, old: bool = False) -> str:
    """`--exportTimes`."""
    lines, separator = ["["], "  "
    for query in queries:
        a, b, c, d, e, f = query
        cells = [] if old else [("startEnqMs", a - 0.02), ("endEnqMs", a + 0.01)]
        cells += list(zip(_OLD if old else _NEW, query, strict=True))
        copy_in, copy_out = ("inMs", "outMs") if old else ("h2dMs", "d2hMs")
        cells += [(copy_in, b - a), ("computeMs", d - c), (copy_out, f - e), ("latencyMs", b - a + d - c + f - e)]
        if old:
            cells.append(("endToEndMs", f - a))
        lines.append(separator + "{ " + ", ".join(f'"{key}" : {_g(value)}' for key, value in cells) + " }")
        separator = ", "
    return "\n".join([*lines, "]"]) + "\n"


def export_profile(layers: Sequence[tuple[str, float]], iterations: int, *, medians: bool = True) -> str:
    """`--exportProfile`, of layers and their mean times."""
    total = sum(time for _, time in layers)
    lines = ["[", f'  {{ "count" : {iterations} }}']
    for name, time in layers:
        share = _g(100 * time / total) if total else "-nan"
        median = f', "medianMs" : {_g(time * 0.99)}' if medians else ""
        lines.append(
            f', {{ "name" : "{name}", "timeMs" : {_g(time * iterations)}, "averageMs" : {_g(time)}{median}, '
            f'"percentage" : {share} }}'
        )
    return "\n".join([*lines, "]"]) + "\n"


def export_layer(
    name: str, kind: str, reads: str, writes: str, *, weights: str | None = None, nodes: Sequence[str] = (), new=False
) -> str:
    """One layer as the inspector writes it; `new`: type and format apart, no space behind colons."""

    def tensor(label: str, type_: str) -> str:
        if new:
            return f'{{"Name": "{label}", "Dimensions": [1,8,8,8], "Format": "kLINEAR", "Datatype": "{type_}"}}'
        return f'{{\n    "Name": "{label}",\n    "Dimensions": [1,8,8,8],\n    "Format/Datatype": "{type_}"\n  }}'

    constant = "" if weights is None else f',\n  "Weights": {{"Type": "{weights}", "Count": 512}}'
    metadata = "\x1e".join(f"[ONNX Layer: {node}]" for node in nodes)
    return (
        f'{{\n  "Name": "{name}",\n  "LayerType": "{kind}",\n  "Inputs": [{tensor("x", reads)}],\n'
        f'  "Outputs": [{tensor("y", writes)}]{constant},\n  "TacticName": "sm80_xmma_fprop",\n'
        f'  "Metadata": "{metadata}"\n}}'
    )


def export_layers(layers: Sequence[str], *, new: bool = False) -> str:
    """`--exportLayerInfo`, or the inspector's whole engine; entries are objects or quoted names."""
    if new:
        tensors = '"I/O Tensors": [{"Name": "image", "Mode": "Input"}, {"Name": "answer", "Mode": "Output"}]'
    else:
        tensors = '"Bindings": ["image"\n,"answer"\n]'
    return '{"Layers": [' + "\n,".join(layers) + "\n],\n" + tensors + "}\n"

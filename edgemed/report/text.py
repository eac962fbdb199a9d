"""The summary of a report as rows of text, for a terminal."""

from __future__ import annotations

from collections import Counter

from edgemed.report.data import OutputError, Report
from edgemed.report.units import decibel, percent, relative_error, seconds, size, smaller

Row = tuple[str, str]


def summary(report: Report) -> list[Row]:
    """What a build found, most important first: (label, text) per line."""
    rows = [("model", _model(report))]
    for before, after, errors in report.fidelity.steps:
        rows += [(f"{after} vs {before}", _error(error, report.fidelity.samples)) for error in errors]
    if report.int8 is not None:
        rows.append(("INT8 share", f"{percent(report.int8.mac_share)} of multiply-accumulates"))
        rows.append(("weights", _weights(report.int8.weight_bytes_float, report.int8.weight_bytes_int8)))
        rows += [("stays float", line) for line in kept_float(report)]
    rows += [("stays FP32", line) for line in kept_fp32(report)]
    if report.calibration is not None:
        rows.append(("calibration", f"{report.calibration.images} samples, {report.calibration.method}"))
    rows.append(("recipe", _recipe(report)))
    rows += [("engine", f"{e.flavour} {e.version} {e.precision}: {e.status}") for e in report.engines]
    rows.append(("time", seconds(sum(stage.seconds for stage in report.stages))))
    rows += [("warning", text) for text in all_warnings(report)]
    return rows


def verdict(report: Report) -> str:
    """One sentence on how good the result is."""
    errors = report.fidelity.int8_vs_keras or report.fidelity.int8_vs_float
    if report.fidelity.fp16_vs_keras:
        worst = relative_error(_worst(report.fidelity.fp16_vs_keras))
        return f"FP16 differs from the Keras original by at most {worst} of the largest output."
    if report.int8 is None or not errors:
        return _verdict_float(report)
    against = "the Keras original" if report.fidelity.int8_vs_keras else "the float model"
    before, after = report.int8.weight_bytes_float, report.int8.weight_bytes_int8
    weights = f" and weights {smaller(before, after)}" if after else ""
    return (
        f"INT8 differs from {against} by at most {relative_error(_worst(errors))} of the largest output, with "
        f"{percent(report.int8.mac_share)} of the multiply-accumulates in INT8{weights}."
    )


def all_warnings(report: Report) -> list[str]:
    """Every warning, the assumed recipe first."""
    found = []
    if report.recipe.assumed:
        found.append(
            f"The recipe was assumed ({report.recipe.description or 'no description'}). If training prepared its "
            "images otherwise, every figure here is void: write a recipe and build again."
        )
    found += report.calibration.warnings if report.calibration is not None else ()
    found += report.warnings
    return list(dict.fromkeys(found))


def kept_float(report: Report) -> list[str]:
    """Why layers with multiply-accumulates stayed in float: one line per reason, heaviest first."""
    return [f"{reason} ({count} layers, {percent(share)} of MACs)" for reason, count, share in exclusions(report)]


def kept_fp32(report: Report) -> list[str]:
    """Why nodes of the strongly typed graph stay in FP32: one line per reason, tensors that samples showed first."""
    kept = report.fp16.kept if report.fp16 is not None else ()
    counts = Counter(item.reason for item in sorted(kept, key=lambda item: item.tensor is None))
    return [f"{reason} ({count} {'nodes' if count > 1 else 'node'})" for reason, count in counts.items()]


def exclusions(report: Report) -> list[tuple[str, int, float]]:
    """(reason, layers, share of MACs) of what stayed in float and computes, heaviest first."""
    groups: dict[str, tuple[int, float]] = {}
    for layer in report.int8.layers if report.int8 is not None else ():
        if not layer.quantized and layer.macs:
            reason = layer.reason.partition(" (")[0]  # what stands in brackets differs from layer to layer
            count, share = groups.get(reason, (0, 0.0))
            groups[reason] = (count + 1, share + layer.mac_share)
    return sorted(((r, n, min(s, 1.0)) for r, (n, s) in groups.items()), key=lambda item: -item[2])


def _verdict_float(report: Report) -> str:
    errors = report.fidelity.float_vs_keras
    if not errors:
        return "Nothing was measured against the Keras original."
    return f"The float graph differs from the Keras original by at most {relative_error(_worst(errors))}."


def _worst(errors: tuple[OutputError, ...]) -> float | None:
    values = [error.relative_error for error in errors]
    return None if None in values else max(value for value in values if value is not None)


def _model(report: Report) -> str:
    parameters = "" if report.model.parameters is None else f", {report.model.parameters:,} parameters"
    return f"{report.model.file} ({report.model.format}{parameters})"


def _error(error: OutputError, samples: int) -> str:
    limit = "" if error.limit is None else f", limit {relative_error(error.limit)}"
    state = " EXCEEDED" if error.within_limit is False else ""
    return (
        f"{error.output}: error {relative_error(error.relative_error)}, "
        f"SQNR {decibel(error.sqnr_db)}{limit}{state} (n = {samples})"
    )


def _weights(before: int, after: int) -> str:
    return f"{size(before)} → {size(after)}" + (f" ({smaller(before, after)})" if after else "")


def _recipe(report: Report) -> str:
    note = f" ({report.recipe.description})" if report.recipe.description else ""
    return f"{report.recipe.name}{note}{', ASSUMED' if report.recipe.assumed else ''}"

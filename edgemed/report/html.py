"""The report as one HTML file that loads nothing: readable on a phone, printable, light and dark."""

from __future__ import annotations

from collections.abc import Sequence

from edgemed.report import units
from edgemed.report.data import ActivationRange, Layer, OutputError, Report, Tensor
from edgemed.report.markup import Column, Html, bar, breakable, clip, facts, fill, join, table
from edgemed.report.page import card, page, section
from edgemed.report.plots import histogram
from edgemed.report.text import all_warnings, exclusions, verdict

_MOST_PLOTS = 8
_MOST_WARNINGS = 40
_FEW_LAYERS = 40  # more are folded away: the exclusions above them are what people look for
_LAYER_BUDGET = 700_000
_TYPED_BUDGET = 150_000
_LONGEST_TOML = 20_000

_METHODS = (("minmax", "minmax", "2 2"), ("percentile", "percentile", "6 3"), ("entropy", "entropy", "6 2 1 2"))


def render(report: Report) -> str:
    """The report as one self-contained HTML document of less than 2 MB.

    Raises:
        MissingSoftwareError: matplotlib is not installed, and there are histograms to draw.
    """
    sections = (
        _fidelity(report),
        _sizes(report),
        _placement(report),
        _ranges(report),
        _typed(report),
        _calibration(report),
        _engines(report),
        _passes(report),
        _stages(report),
        _provenance(report),
    )
    foot = fill(
        "Written by edgemed {version} on {created}. All figures were measured in this build; the same data stand in "
        "report.json.",
        version=report.edgemed,
        created=report.created,
    )
    return page(f"{clip(report.model.name)}: edgemed report", _head(report), sections, foot)


def _head(report: Report) -> Html:
    return fill(
        '<p class="from">{file} → {precision} bundle</p><h1>{name}</h1>'
        '<p class="verdict">{verdict}</p>{failed}{warnings}<dl class="cards">{cards}</dl>',
        file=clip(report.model.file),
        precision=report.precision.upper(),
        name=clip(report.model.name),
        verdict=verdict(report),
        failed=_failed(report),
        warnings=_warnings(report),
        cards=join(_cards(report)),
    )


def _failed(report: Report) -> Html:
    fidelity = report.fidelity
    beyond = [error for _, _, errors in fidelity.steps for error in errors if error.within_limit is False]
    if not beyond:
        return Html("")
    names = ", ".join(clip(name) for name in list(dict.fromkeys(error.output for error in beyond))[:8])
    return fill(
        '<div class="box failed" role="alert"><strong>The error is above its limit</strong>Outputs: {names}.</div>',
        names=names,
    )


def _warnings(report: Report) -> Html:
    found = all_warnings(report)
    if not found:
        return Html("")
    items = join(fill("<li>{text}</li>", text=clip(text, 600)) for text in found[:_MOST_WARNINGS])
    title = "The recipe was assumed" if report.recipe.assumed else "Please note"
    more = fill("<p>{n} more in report.json</p>", n=len(found) - _MOST_WARNINGS) if found[_MOST_WARNINGS:] else Html("")
    return fill(
        '<div class="box" role="note"><strong>{title}</strong><ul>{items}</ul>{more}</div>',
        title=title,
        items=items,
        more=more,
    )


def _cards(report: Report) -> list[Html]:
    fidelity, cards = report.fidelity, []
    shown = (
        ("INT8 vs Keras", fidelity.int8_vs_keras),
        ("FP16 vs Keras", fidelity.fp16_vs_keras),
        ("Float vs Keras", fidelity.float_vs_keras),
    )
    for title, errors in shown:
        if errors:
            worst = max(errors, key=lambda e: float("inf") if e.relative_error is None else e.relative_error)
            note = "worst output" if len(errors) > 1 else f"SQNR {units.decibel(worst.sqnr_db)}"
            cards.append(card(title, units.relative_error(worst.relative_error), note))
    if report.int8 is not None:
        before, after = report.int8.weight_bytes_float, report.int8.weight_bytes_int8
        cards.append(card("MACs in INT8", units.percent(report.int8.mac_share), "share of multiply-accumulates"))
        if after:
            sizes = f"{units.size(before)} → {units.size(after)}"
            cards.append(card("Weights", units.smaller(before, after), sizes))
    return cards


def _fidelity(report: Report) -> Html:
    fidelity = report.fidelity
    rows = [
        (
            _named(error.output, f"{before} → {after}"),
            units.relative_error(error.relative_error),
            units.decibel(error.sqnr_db),
            "none" if error.limit is None else units.relative_error(error.limit),
            _state(error),
        )
        for before, after, errors in fidelity.steps
        for error in errors
    ]
    columns = (
        Column("Output"),
        Column("Error", "number"),
        Column("SQNR", "number"),
        Column("Limit", "number"),
        Column("Verdict"),
    )
    lead = (
        f"Measured on {fidelity.samples} samples. Error is the largest difference divided by the largest magnitude of "
        "the reference; INT8 is computed with fake quantization on ONNX Runtime, FP16 by rounding every tensor to FP16."
    )
    return section("Does it still answer the same?", lead, table("Error per output", columns, rows))


def _state(error: OutputError) -> Html:
    if error.within_limit is None:
        return Html('<span class="num">measured</span>')
    good = error.within_limit
    kind, text = ("good", "within") if good else ("bad", "above limit")
    return fill('<span class="tag {kind}">{text}</span>', kind=kind, text=text)


def _named(name: str, note: str) -> Html:
    return fill("{name}<small>{note}</small>", name=breakable(name), note=clip(note))


def _sizes(report: Report) -> Html:
    if not report.sizes:
        return Html("")
    largest = max(report.sizes.values()) or 1
    rows = [(name, bar(count / largest, units.size(count), "wide")) for name, count in report.sizes.items()]
    lead = (
        "Files on disk. Graphs with Q/DQ pairs keep FP32 weights; they become INT8 when an engine is built from them."
    )
    return section("Sizes", lead, table("Bytes per file", (Column("File"), Column("Size")), rows))


def _placement(report: Report) -> Html:
    if report.int8 is None:
        return Html("")
    int8 = report.int8
    lead = (
        f"{units.percent(int8.mac_share)} of the multiply-accumulates (MACs) run in INT8. "
        f"{sum(layer.quantized for layer in int8.layers)} of {len(int8.layers)} layers are quantized."
    )
    kept = [
        (clip(reason), count, bar(share, units.percent(share), "float")) for reason, count, share in exclusions(report)
    ]
    excluded = (
        table("Kept in float", (Column("Kept in float because"), Column("Layers", "number"), Column("MACs")), kept)
        if kept
        else Html("<p>Nothing that computes was kept in float.</p>")
    )
    return section("What runs in INT8, and why the rest does not", lead, excluded, _layers(int8.layers))


def _layers(layers: Sequence[Layer]) -> Html:
    columns = (
        Column("Layer"),
        Column("Runs in"),
        Column("MACs"),
        Column("Weight SQNR", "number"),
        Column("Why", "sentence"),
    )
    rows = [_layer(layer) for layer in layers]
    return fill(
        "<details{state}><summary>All {n} layers, in the order of the graph</summary>{table}</details>",
        state=Html(" open" if len(layers) <= _FEW_LAYERS else ""),
        n=len(layers),
        table=table("Placement of every layer", columns, rows, budget=_LAYER_BUDGET),
    )


def _layer(layer: Layer) -> tuple[object, ...]:
    kind, where = ("", "INT8") if layer.quantized else ("float" if layer.macs else "idle", "float")
    keras = f"{layer.op} · {layer.keras_layer}" if layer.keras_layer else layer.op
    return (
        _named(layer.node, keras),
        fill('<span class="tag {kind}">{where}</span>', kind=kind, where=where),
        bar(layer.mac_share, units.prefixed(layer.macs), kind) if layer.macs else "none",
        "" if layer.weight_sqnr_db is None else units.decibel(layer.weight_sqnr_db),
        layer.reason,
    )


def _ranges(report: Report) -> Html:
    if report.int8 is None or not report.int8.tensors:
        return Html("")
    tensors = report.int8.tensors
    drawn = [tensor for tensor in tensors if any(tensor.counts)][:_MOST_PLOTS]
    figures = join(_figure(tensor, f"plot{i}") for i, tensor in enumerate(drawn))
    columns = (
        Column("Tensor"),
        Column("amax", "number"),
        Column("Largest seen", "number"),
        Column("Clipped", "number"),
        Column("SQNR", "number"),
    )
    rows = [
        (t.name, units.digits(t.amax), units.digits(t.seen), units.relative_error(t.clipped), units.decibel(t.sqnr_db))
        for t in tensors
    ]
    lead = (
        "The activation tensors that suffer most from INT8, worst first. Magnitudes beyond the solid line (amax) are "
        "clipped; below it they are rounded to steps of amax / 127. The other lines are what each method would choose."
    )
    plots = fill('{legend}<div class="plots">{figures}</div>', legend=_legend(), figures=figures) if drawn else Html("")
    return section("Where INT8 hurts most", lead, plots, table("Ranges of the worst tensors", columns, rows))


def _figure(tensor: ActivationRange, identity: str) -> Html:
    caption = (
        f"SQNR {units.decibel(tensor.sqnr_db)}, amax {units.digits(tensor.amax)}, largest seen "
        f"{units.digits(tensor.seen)}, clipped {units.relative_error(tensor.clipped)}"
    )
    return fill(
        "<figure><figcaption><b>{name}</b>{caption}</figcaption>{svg}</figure>",
        name=clip(tensor.name),
        caption=caption,
        svg=histogram(tensor, identity),
    )


def _legend() -> Html:
    line = (
        '<li><svg viewBox="0 0 36 10" aria-hidden="true"><path d="M0 5H36" stroke="var(--{color})" '
        'stroke-width="3" stroke-dasharray="{dash}"/></svg>{name}</li>'
    )
    methods = join(fill(line, color=color, dash=dash, name=name) for name, color, dash in _METHODS)
    chosen = fill(line, color="ink", dash="none", name="amax in use")
    clipped = Html(
        '<li><svg viewBox="0 0 36 10" aria-hidden="true"><path d="M0 0H36V10H0Z" fill="var(--clip)" '
        'fill-opacity=".25"/></svg>clipped</li>'
    )
    return fill('<ul class="legend">{items}</ul>', items=join((chosen, methods, clipped)))


def _typed(report: Report) -> Html:
    if report.fp16 is None:
        return Html("")
    kept = sorted(report.fp16.kept, key=lambda item: item.tensor is None)
    lead = (
        f"{report.fp16.graph}.onnx is for TensorRT 10.12 and later, 11 and RTX, which take every type from the graph. "
        f"{len(kept)} nodes stay in FP32; those that samples or weights forced come first, with the tensor's name."
    )
    columns = (Column("Node"), Column("Stays in FP32 because", "sentence"))
    rows = [(_named(k.node, f"{k.op} · {k.keras_layer}" if k.keras_layer else k.op), clip(k.reason)) for k in kept]
    body = table("Nodes that stay in FP32", columns, rows, budget=_TYPED_BUDGET) if kept else Html("")
    return section("What runs in FP16, and what does not", lead, body)


def _calibration(report: Report) -> Html:
    recipe = report.recipe
    pairs: list[tuple[str, object]] = [
        ("Recipe", f"{recipe.name}{' (assumed)' if recipe.assumed else ''}"),
        ("Meaning", recipe.description or "no description"),
    ]
    if report.calibration is not None:
        calibration = report.calibration
        percentile = "" if calibration.percentile is None else f" {calibration.percentile:g} %"
        pairs += [
            ("Method", f"{calibration.method}{percentile}"),
            ("Samples", str(calibration.images)),
            ("Digest", _hash(calibration.digest)),
            ("First files", clip(", ".join(calibration.files[:12]), 600)),
        ]
    toml = recipe.toml if len(recipe.toml) <= _LONGEST_TOML else f"{recipe.toml[:_LONGEST_TOML]}…"
    text = fill("<details><summary>The recipe as TOML</summary><pre>{toml}</pre></details>", toml=toml)
    lead = "How pixels become the model's input, and what the activation ranges were taken from."
    return section("Recipe and calibration", lead, facts(pairs), text if toml else Html(""))


def _engines(report: Report) -> Html:
    if not report.engines:
        return Html("")
    columns = (
        Column("Engine"),
        Column("Precision"),
        Column("Compute capability"),
        Column("Size", "number"),
        Column("Time", "number"),
        Column("Status", "sentence"),
    )
    rows = [
        (
            _named(engine.flavour, engine.version),
            engine.precision.upper(),
            ", ".join(engine.compute_capabilities),
            "" if engine.bytes is None else units.size(engine.bytes),
            "" if engine.seconds is None else units.seconds(engine.seconds),
            engine.status,
        )
        for engine in report.engines
    ]
    lead = "A compiled plan proves that the graph parses and compiles; speed and answers are measured on the device."
    return section("Engines", lead, table("Engines", columns, rows))


def _passes(report: Report) -> Html:
    changed = [item for item in report.passes if item.changed]
    if not report.passes:
        return Html("")
    columns = (Column("Pass"), Column("Nodes before", "number"), Column("Nodes after", "number"))
    rows = [(item.name, item.nodes_before, item.nodes_after) for item in changed]
    lead = f"{len(changed)} of {len(report.passes)} passes changed the graph."
    return section("Graph passes", lead, table("Graph passes that changed something", columns, rows))


def _stages(report: Report) -> Html:
    if not report.stages:
        return Html("")
    whole = sum(stage.seconds for stage in report.stages)
    rows = [
        (stage.name, bar(stage.seconds / whole if whole else 0, units.seconds(stage.seconds)), stage.note)
        for stage in report.stages
    ]
    columns = (Column("Stage"), Column("Time"), Column("Result", "sentence"))
    return section("Stages of the build", f"{units.seconds(whole)} in all.", table("Stages", columns, rows))


def _provenance(report: Report) -> Html:
    model, machine = report.model, report.machine
    parameters = "" if model.parameters is None else f"{model.parameters:,}"
    pairs: list[tuple[str, object]] = [
        ("Source", f"{model.file} ({model.format})"),
        ("SHA-256", _hash(model.sha256)),
        ("Written with", _versions(model.versions)),
        ("Parameters", parameters or "not counted"),
        *(("Input", _tensor(tensor)) for tensor in model.inputs[:20]),
        *(("Output", _tensor(tensor)) for tensor in model.outputs[:20]),
        ("Built with", fill("edgemed {v}, Python {p}", v=report.edgemed, p=machine.python)),
        ("Packages", _versions(machine.packages)),
        ("Machine", f"{machine.cpu or 'unknown CPU'}, {machine.cores or '?'} cores"),
        ("Built on", report.created),
    ]
    lead = "What went in, by hash, and what it was built with."
    return section("Provenance", lead, facts(pairs))


def _tensor(tensor: Tensor) -> str:
    extras = [text for text in (tensor.task, tensor.activation) if text]
    return f"{clip(tensor.name)}: {tensor.dtype} {units.shape(tensor.shape)}{''.join(f', {text}' for text in extras)}"


def _versions(versions: dict[str, str]) -> Html:
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return fill("{text}", text=clip(text, 1200) or "not recorded")


def _hash(digest: str) -> Html:
    return fill('<span class="hash">{digest}</span>', digest=clip(digest))

"""The page: whole, self-contained, honest about what it leaves out, safe against names."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from edgemed.report.data import (
    ActivationRange,
    Calibration,
    Fidelity,
    Fp16,
    Int8,
    KeptFloat,
    Layer,
    OutputError,
    Report,
)
from edgemed.report.html import render
from edgemed.report.text import all_warnings, exclusions, summary, verdict
from report.sample import sample_report

HOSTILE = "<script>alert('x')</script>\"&{name}\u202e"
TWO_MB = 2_000_000


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that what must be closed is."""

    OPTIONAL = frozenset({"html", "body", "tr", "td", "th", "li"})
    VOID = frozenset({"meta", "wbr", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.OPTIONAL | self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.OPTIONAL:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def int8_of(report: Report) -> Int8:
    assert report.int8 is not None
    return report.int8


def without_plots(**changes: Any) -> Report:
    """Drawing takes most of the time of a page; few tests are about it."""
    return sample_report(**{"int8": int8_of(sample_report()).model_copy(update={"tensors": ()}), **changes})


def with_layers(layers: tuple[Layer, ...], **changes: Any) -> Report:
    return sample_report(int8=int8_of(sample_report()).model_copy(update={"layers": layers, "tensors": (), **changes}))


def test_page_is_whole_and_self_contained() -> None:
    text = render(sample_report())
    page = Page(text)
    assert len(text.encode()) < TWO_MB
    assert "script" not in page.tags
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    for name, value in page.attributes:
        assert name not in ("src", "srcset", "action", "onload", "onclick")
        assert name != "href" or value.startswith("#")
    assert "://" not in text
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)


def test_page_says_what_matters() -> None:
    report = sample_report()
    text = Page(render(report)).text
    assert verdict(report) in text
    for expected in ("model.h5", "9f" * 32, "5b" * 32, "1.8 %", "3.1·10⁻⁷", "4.0× smaller", "15.4 MB", "tensorrt_rtx"):
        assert expected in text
    for layer in int8_of(report).layers:
        assert layer.node in text
        assert layer.reason in text
    for tensor in int8_of(report).tensors:
        assert tensor.name in text


def test_page_is_accessible() -> None:
    page = Page(render(sample_report()))
    assert ("lang", "en") in page.attributes
    assert page.tags.count("caption") == page.tags.count("table") > 5
    assert page.tags.count("h1") == 1
    assert page.attributes.count(("role", "img")) == len(int8_of(sample_report()).tensors)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_an_assumed_recipe_stands_on_top() -> None:
    report = without_plots()
    assumed = report.model_copy(update={"recipe": report.recipe.model_copy(update={"assumed": True})})
    text = Page(render(assumed)).text
    assert text.index("The recipe was assumed") < text.index("Does it still answer the same?")
    assert "The recipe was assumed" not in Page(render(report)).text
    assert all_warnings(assumed)[0].startswith("The recipe was assumed")


def test_an_error_above_its_limit_is_an_alert() -> None:
    failed = Fidelity(samples=8, float_vs_keras=(OutputError(output="mask", relative_error=0.2, limit=1e-4),))
    text = render(without_plots(fidelity=failed))
    assert 'role="alert"' in text
    assert "above limit" in Page(text).text
    assert 'role="alert"' not in render(without_plots())
    assert ("float vs Keras", "mask: error 20 %, SQNR exact, limit 0.010 % EXCEEDED (n = 8)") in summary(
        without_plots(fidelity=failed)
    )


def hostile(value: Any) -> Any:
    """The same document with every free text replaced by a hostile one."""
    if isinstance(value, dict):
        return {k: v if k in ("schema", "precision") else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_names_cannot_write_markup() -> None:
    document = hostile(sample_report().model_dump(mode="json", by_alias=True))
    document["sizes"] = {HOSTILE: 5}
    document["machine"]["packages"] = {HOSTILE: HOSTILE}
    text = render(Report.model_validate(document))
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text.lower()
    assert "\u202e" not in text
    assert "<script>alert('x')</script>\"&{name}\\u202e" in page.text  # shown as what it is


def test_five_thousand_layers_stay_small_and_are_counted() -> None:
    reason = "a depthwise convolution has too few channels per group to pay off in INT8 on this hardware"
    layers = tuple(
        Layer(
            node=f"functional/block_{i}/expanded_convolution/depthwise/Conv2D/{i}",
            op="Conv",
            keras_layer=f"block_{i}",
            quantized=i % 2 == 0,
            reason=f"{reason} ({i % 7})",
            macs=1000 + i,
            mac_share=1 / 5000,
            weight_sqnr_db=40.0,
        )
        for i in range(5000)
    )
    text = render(with_layers(layers))
    assert len(text.encode()) < TWO_MB
    page = Page(text).text
    shown = len(re.findall(r"Conv2D/<wbr>\d+<small>", text))
    assert f"{5000 - shown} more in report.json" in page
    assert shown > 1000
    for i in range(7):  # every reason of an exclusion is told, whatever is left out below
        assert f"{reason} ({i})" in page


def test_a_hostile_amount_of_text_stays_small() -> None:
    long = '"<' * 5000
    layers = tuple(
        Layer(node=long, op=long, keras_layer=long, quantized=False, reason=f"{i}{long}", macs=1) for i in range(3000)
    )
    tensors = tuple(
        ActivationRange(name=long, amax=1, seen=2, counts=(10**15,) * 2048, bin_width=0.001) for _ in range(50)
    )
    report = with_layers(layers, tensors=tensors)
    many = {
        "recipe": report.recipe.model_copy(update={"toml": long * 20, "description": long}),
        "warnings": (long,) * 500,
        "passes": report.passes * 1000,
        "stages": report.stages * 1000,
        "engines": report.engines * 1000,
        "sizes": {f"{long}{i}": i for i in range(2000)},
        "calibration": Calibration(method=long, images=1, digest=long, files=(long,) * 1000, warnings=(long,) * 100),
        "machine": report.machine.model_copy(update={"packages": {f"{i}{long}": long for i in range(500)}}),
    }
    assert len(render(report.model_copy(update=many)).encode()) < TWO_MB


def test_nothing_measured_is_said_and_not_drawn() -> None:
    empty = sample_report(
        precision="fp32",
        int8=None,
        calibration=None,
        passes=(),
        fidelity=Fidelity(samples=1),
        sizes={},
        engines=(),
        stages=(),
        warnings=(),
    )
    text = render(empty)
    page = Page(text)
    assert "svg" not in page.tags
    assert "Nothing was measured against the Keras original." in page.text
    assert "nan" not in page.text.lower().split()
    assert dict(summary(empty))["time"] == "0.0 s"


def test_extreme_values_are_words() -> None:
    fidelity = Fidelity(
        samples=1,
        float_vs_keras=(OutputError(output="a", relative_error=0.0, sqnr_db=None),),
        int8_vs_keras=(OutputError(output="a", relative_error=None), OutputError(output="b", relative_error=1e30)),
    )
    report = sample_report(
        fidelity=fidelity,
        int8=Int8(
            mac_share=0,
            weight_bytes_float=0,
            weight_bytes_int8=0,
            tensors=(ActivationRange(name="empty", amax=0, seen=0),),
        ),
        sizes={"nothing": 0},
    )
    text = Page(render(report)).text
    assert "undefined" in text
    assert "exact" in text
    assert "smaller" not in text
    assert "inf" not in text.split()


def test_exclusions_are_grouped_by_reason_heaviest_first() -> None:
    def layer(node: str, reason: str, share: float, quantized: bool = False) -> Layer:
        return Layer(node=node, op="Conv", quantized=quantized, reason=reason, macs=int(share * 100), mac_share=share)

    report = with_layers(
        (
            layer("a", "small", 0.1),
            layer("b", "head", 0.3),
            layer("c", "small", 0.1),
            layer("d", "good", 0.5, True),
            layer("e", "no arithmetic", 0.0),
        )
    )
    assert exclusions(report) == [("head", 1, 0.3), ("small", 2, pytest.approx(0.2))]


def test_summary_starts_with_the_model_and_ends_with_warnings() -> None:
    rows = summary(sample_report())
    assert rows[0] == ("model", "model.h5 (keras-h5, 15,043,521 parameters)")
    assert ("INT8 share", "99.9 % of multiply-accumulates") in rows
    assert ("weights", "60.2 MB → 15.1 MB (4.0× smaller)") in rows
    assert rows[-1] == ("warning", "96 calibration images; at least 100 give steadier ranges.")


def test_what_stays_fp32_is_shown_with_what_forced_it_first() -> None:
    head = KeptFloat(node="sigmoid", op="Sigmoid", reason="gives the answer")
    hot = [KeptFloat(node=n, op="Conv", reason="t reaches 1e+05 on real samples", tensor="t") for n in ("c1", "c2")]
    fidelity = Fidelity(samples=8, fp16_vs_keras=(OutputError(output="y", relative_error=2e-4, sqnr_db=70.0),))
    report = sample_report(
        precision="fp16", int8=None, fidelity=fidelity, fp16=Fp16(graph="fp16", kept=(head, hot[0], hot[1]))
    )
    page = render(report)
    assert "Keras → FP16" in page
    assert page.index("t reaches 1e+05") < page.index("gives the answer")
    assert "3 nodes stay in FP32" in page
    assert verdict(report) == "FP16 differs from the Keras original by at most 0.020 % of the largest output."
    kept = [text for label, text in summary(report) if label == "stays FP32"]
    assert kept == ["t reaches 1e+05 on real samples (2 nodes)", "gives the answer (1 node)"]

"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemed.report import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1.00"),
        (13.72, "13.7"),
        (999.6, "1000"),
        (0.00123, "0.00123"),
        (3.1e-7, "3.10·10⁻⁷"),
        (2e9, "2.00·10⁹"),
    ],
)
def test_digits(value: float, text: str) -> None:
    assert units.digits(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (60_174_000, "60.2 MB"), (999_700_000, "1 GB"), (10**19, "10000 PB")],
)
def test_size(value: int, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.9995, "> 99.9 %"), (0.999, "99.9 %"), (1e-9, "< 0.1 %"), (0.4567, "45.7 %")],
)
def test_percent_is_never_rounded_to_all_or_nothing(share: float, text: str) -> None:
    assert units.percent(share) == text


@given(share=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_part_is_never_printed_as_all_or_nothing(share: float) -> None:
    assert units.percent(share) not in ("0 %", "0.0 %", "100 %", "100.0 %")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "undefined"), (0.0, "0"), (0.0182, "1.8 %"), (3.1e-7, "3.1·10⁻⁷"), (1.5, "150 %")]
)
def test_relative_error(value: float | None, text: str) -> None:
    assert units.relative_error(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s")]
)
def test_seconds(value: float, text: str) -> None:
    assert units.seconds(value) == text


def test_decibel_and_shape() -> None:
    assert units.decibel(None) == "exact"
    assert units.decibel(38.94) == "38.9 dB"
    assert units.shape((1, None, 3)) == "1×?×3"
    assert units.shape(()) == "scalar"

"""Numbers as people read them: three digits and a unit."""

from __future__ import annotations

_SMALLEST_PERCENT = 1e-4  # below 0.01 % a power of ten is easier to read
_WORTH_SAYING = 1.05
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PREFIXES = ("", "k", "M", "G", "T", "P")


def digits(value: float, count: int = 3) -> str:
    """`value` with `count` significant digits, as a power of ten where it is tiny or huge."""
    if value == 0:
        return "0"
    text = f"{value:.{count - 1}e}"
    mantissa, exponent = text.split("e")
    power = int(exponent)
    if -4 <= power < 6:
        return f"{float(text):.{max(count - 1 - power, 0)}f}"
    return f"{mantissa}·10{str(power).translate(_SUPERSCRIPT)}"


def prefixed(value: float, unit: str = "") -> str:
    """A count with a decimal prefix: `1.25 G`, `12.4 MB`."""
    scaled, prefix = float(value), ""
    for prefix in _PREFIXES:
        if abs(scaled) < 999.5 or prefix == _PREFIXES[-1]:
            break
        scaled /= 1000
    number = f"{scaled:.0f}" if not prefix or scaled >= 99.95 else f"{scaled:.3g}"
    return f"{number} {prefix}{unit}".rstrip()


def size(count: int) -> str:
    """Bytes with a decimal prefix."""
    return prefixed(count, "B")


def percent(share: float) -> str:
    """A share of a whole; never `100 %` or `0 %` unless it is exactly that."""
    if share in (0, 1):
        return f"{share * 100:.0f} %"
    if share > 0.999:
        return "> 99.9 %"
    return f"{share * 100:.1f} %" if share >= 0.001 else "< 0.1 %"


def relative_error(value: float | None) -> str:
    """A relative error: `1.2 %`, or a power of ten when it is below 0.01 %."""
    if value is None:
        return "undefined"
    if value == 0:
        return "0"
    if value < _SMALLEST_PERCENT:
        return digits(value, 2)
    return f"{digits(value * 100, 2)} %"


def smaller(before: float, after: float) -> str:
    """How many times smaller, e.g. `3.9× smaller`; `after` is above 0."""
    return f"{before / after:.1f}× smaller" if before / after >= _WORTH_SAYING else "hardly smaller"


def decibel(value: float | None) -> str:
    """SQNR in dB; `None` is exact."""
    return "exact" if value is None else f"{value:.1f} dB"


def seconds(value: float) -> str:
    """A duration: `0.4 s`, `41 s`, `3 min 20 s`."""
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def shape(dims: tuple[int | None, ...]) -> str:
    """A tensor's shape; `?` marks a dimension that may vary."""
    return "×".join("?" if d is None else str(d) for d in dims) or "scalar"

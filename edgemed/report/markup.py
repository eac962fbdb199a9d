"""HTML that is escaped by construction: text becomes markup only through `fill`."""

from __future__ import annotations

import html
import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
LONGEST = 160  # characters of a name; the whole of it stands in report.json


class Html(str):
    """Markup that needs no more escaping."""

    __slots__ = ()

    def __html__(self) -> str:
        """As templates ask for it."""
        return self


_KINDS = {"name": Html(""), "number": Html(' class="n"'), "sentence": Html(' class="t"')}


_BREAKS = re.compile(r"[/_]|(?<=[^\W\d])\.(?=[^\W\d])")


def breakable(text: str) -> Html:
    """A clipped name that may be broken after a slash, underscore or dot between letters; `p99.9` stays whole."""
    return Html(_BREAKS.sub(r"\g<0><wbr>", escape(clip(text))))


def escape(text: str) -> Html:
    """Text as markup; characters that are invisible or turn the reading direction are spelled out."""
    return Html(html.escape("".join(c if _harmless(c) else f"\\u{ord(c):04x}" for c in text)))


def clip(text: str, longest: int = LONGEST) -> str:
    """Text with its middle left out when it is too long."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def fill(template: str, /, **values: object) -> Html:
    """Put values into the `{names}` of a template; all but `Html` ones are escaped.

    Args:
        template: markup of ours, never of others.
        values: by name.
    """
    return Html(_FORMATTER.vformat(template, (), values))


def join(parts: Iterable[Html], separator: str = "") -> Html:
    """Concatenate markup."""
    return Html(separator.join(parts))


@dataclass(frozen=True)
class Column:
    """A table column: its heading, and what it holds: names, numbers or sentences."""

    name: str
    kind: Literal["name", "number", "sentence"] = "name"


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[object]], *, budget: int = 60_000) -> Html:
    """A table that scrolls sideways on a narrow screen.

    Args:
        caption: what it shows; read by screen readers, and stands above it.
        columns: the first one heads its rows.
        rows: one cell per column; strings are clipped and escaped, `Html` is taken as it is.
        budget: characters of markup after which rows are left out, and counted in the last one.
    """
    body: list[Html] = []
    used = 0
    for row in rows:
        markup = _row(columns, row)
        used += len(markup)
        if used > budget:
            more = fill("{n} more in report.json", n=len(rows) - len(body))
            body.append(fill('<tr><td colspan="{n}" class="more">{more}', n=len(columns), more=more))
            break
        body.append(markup)
    heads = join(fill('<th scope="col"{kind}>{name}', kind=_kind(c), name=c.name) for c in columns)
    return fill(
        '<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption>'
        "<thead><tr>{heads}</thead><tbody>{body}</tbody></table></div>",
        caption=caption,
        heads=heads,
        body=join(body, "\n"),
    )


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """A list of terms and their values."""
    return fill(
        "<dl>{rows}</dl>",
        rows=join(fill("<div><dt>{k}</dt><dd>{v}</dd></div>", k=clip(k), v=_cell(v)) for k, v in pairs),
    )


def bar(share: float, text: str, kind: str = "") -> Html:
    """A horizontal bar with its value as text; `share` is its length from 0 to 1."""
    return fill(
        '<span class="bar {kind}"><i style="width:{width}%"></i></span><span class="num">{text}</span>',
        kind=kind,
        width=f"{min(max(share, 0.0), 1.0) * 100:.3g}",
        text=text,
    )


def _row(columns: Sequence[Column], row: Sequence[object]) -> Html:
    first, *others = row
    head = first if isinstance(first, Html) else breakable(str(first))
    cells = [fill('<th scope="row">{head}', head=head)]
    cells += [
        fill("<td{kind}>{value}", kind=_kind(column), value=_cell(value))
        for column, value in zip(columns[1:], others, strict=True)
    ]
    return fill("<tr>{cells}", cells=join(cells))


def _kind(column: Column) -> Html:
    return _KINDS[column.kind]


def _cell(value: object) -> Html:
    return value if isinstance(value, Html) else escape(clip(str(value)))


def _harmless(char: str) -> bool:
    return char in "\n\t" or (unicodedata.category(char) not in ("Cc", "Cs") and char not in _BIDI)


class _Formatter(string.Formatter):
    def format_field(self, value: object, format_spec: str) -> str:  # noqa: ARG002 - templates use no format specs
        return value if isinstance(value, Html) else escape(str(value))


_FORMATTER = _Formatter()

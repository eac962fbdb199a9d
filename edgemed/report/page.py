"""The frame of a page: one HTML file that loads nothing, with the house's style."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgemed.report.markup import Html, clip, fill, join


def page(title: str, head: Html, sections: Sequence[Html], foot: Html) -> str:
    """A whole document: readable on a phone, printable, light and dark, without scripts.

    Args:
        title: of the window.
        head: what stands above all sections.
        sections: in order; empty ones leave no trace.
        foot: last line.
    """
    return fill(
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        "<title>{title}</title>\n<style>\n{style}</style>\n<body>\n<header>{head}</header>\n"
        "<main>\n{sections}\n</main>\n<footer>{foot}</footer>\n</body>\n</html>\n",
        title=title,
        style=Html(Path(__file__).with_name("style.css").read_text(encoding="utf-8")),
        head=head,
        sections=join(sections, "\n"),
        foot=foot,
    )


def section(title: str, lead: str, *body: Html) -> Html:
    """A section with its heading, and a sentence on what it shows."""
    return fill(
        '<section><h2>{title}</h2><p class="lead">{lead}</p>{body}</section>', title=title, lead=lead, body=join(body)
    )


def card(title: str, value: str, note: str) -> Html:
    """One figure that stands out."""
    return fill("<div><dt>{title}</dt><dd>{value}<small>{note}</small></dd></div>", title=title, value=value, note=note)


def box(kind: str, title: str, items: Sequence[str]) -> Html:
    """A framed list: `kind` is `note` or `failed`; empty without items."""
    if not items:
        return Html("")
    return fill(
        '<div class="box {kind}" role="note"><strong>{title}</strong><ul>{items}</ul></div>',
        kind=kind,
        title=title,
        items=join(fill("<li>{text}</li>", text=text) for text in items),
    )


def figure(title: str, caption: str, svg: Html) -> Html:
    """A picture with its caption."""
    return fill(
        "<figure><figcaption><b>{title}</b>{caption}</figcaption>{svg}</figure>", title=title, caption=caption, svg=svg
    )


def legend(entries: Sequence[tuple[str, str]], filled: Sequence[str] = ()) -> Html:
    """Names beside their colours; those of `filled` are areas, not lines."""
    item = (
        '<li><svg viewBox="0 0 36 10" aria-hidden="true">'
        '<path d="M0 5H36" stroke="var(--{color})" stroke-width="{width}"/></svg>{name}</li>'
    )
    return fill(
        '<ul class="legend">{items}</ul>',
        items=join(
            fill(item, color=color, width=10 if name in filled else 3, name=clip(name, 60)) for name, color in entries
        ),
    )

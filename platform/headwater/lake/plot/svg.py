"""A picture as text: SVG for a page without scripts, with a legend and a table for those who read rather than look.

Inline styles only and nothing fetched; all that came from data is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Final

from headwater.lake.plot.palette import COLOURS, DASHES
from headwater.lake.plot.picture import Picture
from headwater.lake.plot.shapes import Element

_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML cannot hold, not even escaped."""
_REPLACEMENT: Final = "\ufffd"


def svg(picture: Picture, label: str) -> str:
    """One ``svg`` element in the page's own text colour; ``label`` says what it shows."""
    inside = "".join(_text(element) for element in picture.elements)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" width="{picture.width}"'
        f' height="{picture.height}" viewBox="0 0 {picture.width} {picture.height}" font-size="11" fill="currentColor"'
        ' style="display: block; max-width: 100%; height: auto; color: inherit; font-family: system-ui, sans-serif">'
        f"{inside}</svg>"
    )


def legend(names: Sequence[str], *, dashed: bool = False) -> str:
    """Names with their colours, and with their dashes where the plot has lines; nothing for none."""
    if not names:
        return ""
    dashes = DASHES if dashed else [""] * len(names)
    parts = (
        f'<span style="white-space: nowrap"><svg width="18" height="10" aria-hidden="true"><path d="M0 5H18"'
        f' stroke="{COLOURS[n]}" stroke-width="3" stroke-dasharray="{dashes[n]}"/></svg> {escape(name)}</span>'
        for n, name in enumerate(names)
    )
    return f'<div style="display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12px">{"".join(parts)}</div>'


def _text(element: Element) -> str:
    tag, attributes, inside = element
    written = "".join(f' {name}="{escape(str(value))}"' for name, value in attributes.items())
    content = escape(inside) if isinstance(inside, str) else "".join(_text(child) for child in inside)
    return f"<{tag}{_NOT_XML.sub(_REPLACEMENT, written)}>{_NOT_XML.sub(_REPLACEMENT, content)}</{tag}>"

"""Ten colours that read on white and on dark pages alike, and stay apart for those who see fewer.

Each has a contrast of at least 3 to white and to the dark of the hosts; neighbours differ in lightness and not in hue
alone. Lines past the fifth are dashed, so that colour is never the only difference.
"""

from __future__ import annotations

from typing import Final

COLOURS: Final = (
    "#0072b2", "#d55e00", "#009e73", "#b65cad", "#9a7500",
    "#5a66d6", "#d1495b", "#2f93b8", "#7d7d7d", "#8f5a33",
)  # fmt: skip
DASHES: Final = ("", "", "", "", "", "6 3", "2 3", "8 3 2 3", "6 3", "2 3")
MOST: Final = len(COLOURS)
"""Series that a plot shows; more are told apart by nobody."""

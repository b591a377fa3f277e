"""Ten colours that read on white and on dark pages alike, and stay apart for those who see fewer.

Each has a contrast of at least 3 to white and to the dark of the hosts. Any two differ by 14 or more (CIE 1976) to
normal eyes and to those that lack one of the three cones. Lines past the fifth are dashed, too.
"""

from __future__ import annotations

from typing import Final

COLOURS: Final = (
    "#0072b2", "#d55e00", "#50a090", "#8030f0", "#98505c",
    "#a09070", "#d00030", "#f040e0", "#9090b0", "#407030",
)  # fmt: skip
DASHES: Final = ("", "", "", "", "", "6 3", "2 3", "8 3 2 3", "6 3", "2 3")
MOST: Final = len(COLOURS)
"""Series that a plot shows; more are told apart by nobody."""

"""``lake.dlq``: the dead letters of a lake, shown where somebody looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from headwater.client.letters import Cause, DeadLetters, decoded
from headwater.lake.html import render
from headwater.lake.plain import plain_table
from headwater.lake.shown import panel_of

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

ROWS_SHOWN: Final = 5
"""Letters of the form without JavaScript."""
CAUSES_SHOWN: Final = 50
_COLUMNS: Final = ("topic", "cause", "open", "redriven", "discarded", "first", "last")
_TYPES: Final = ("VARCHAR", "VARCHAR", "BIGINT", "BIGINT", "BIGINT", "TIMESTAMPTZ", "TIMESTAMPTZ")
_LETTER: Final = ("id", "topic", "failed", "reason", "original")
_LETTER_TYPES: Final = ("BIGINT", "VARCHAR", "TIMESTAMPTZ", "VARCHAR", "VARCHAR")


class Letters(DeadLetters):
    """The dead letters; as text the causes, in a notebook a panel that redrives, mends and discards."""

    panel: ClassVar[str] = "dlq"

    def __init__(self, lake: Lake) -> None:
        super().__init__(lake.log)
        self.lake = lake
        self._panel: Any = None

    def __str__(self) -> str:
        causes = self.causes()
        rows = [_row(each) for each in causes[:CAUSES_SHOWN]]
        return plain_table(_COLUMNS, _TYPES, rows, len(causes), self.log.newest_commit())

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """The panel where the notebook package is present, else static tables."""
        if (panel := panel_of(self, "dlq")) is not None:
            return panel._repr_mimebundle_(include=include, exclude=exclude)
        return {"text/plain": str(self), "text/html": self.static_html()}

    def static_html(self) -> str:
        """The causes and some open letters as HTML, readable without JavaScript."""
        causes, position = self.causes(), self.log.newest_commit()
        shown = [_row(each) for each in causes[:CAUSES_SHOWN]]
        counts = render(_COLUMNS, _TYPES, shown, len(causes), len(shown), position)
        waiting = sum(each.open for each in causes)
        letters = [_letter(each) for each in self._first(causes)]
        if not letters:
            return counts
        return counts + render(_LETTER, _LETTER_TYPES, letters, waiting, len(letters), position)

    def _first(self, causes: Sequence[Cause]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for topic in dict.fromkeys(each.topic for each in causes if each.open):
            found += self.letters(topic, limit=ROWS_SHOWN - len(found)).to_pylist()
            if len(found) == ROWS_SHOWN:
                break
        return found


def _row(cause: Cause) -> tuple[str, ...]:
    counts = (f"{each:,}" for each in (cause.open, cause.redriven, cause.discarded))
    times = (each.astimezone().isoformat(sep=" ", timespec="seconds") for each in (cause.first, cause.last))
    return (cause.topic, cause.cause, *counts, *times)


def _letter(letter: dict[str, Any]) -> tuple[str, ...]:
    failed = letter["last_failure_at"].astimezone().isoformat(sep=" ", timespec="seconds")
    return (str(letter["id"]), letter["topic"], failed, letter["error_message"] or "", str(decoded(letter)))

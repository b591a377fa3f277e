"""Progress of what a person waits for: a bar in a notebook or a terminal, and nothing where nobody looks.

    with bar("copying orders") as shown:
        while ...:
            shown.to(0.25, "250,000 rows")

A terminal gets tqdm's bar where tqdm is installed, else rich's. A notebook gets a line of plain HTML that goes when
the wait ends: the widget that tqdm would show stays in the saved notebook, where nobody can draw it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Protocol

SHOWN_AFTER_S = 0.7
"""What is quicker than this shows no bar: it would only flicker."""
_EVERY_S = 0.2


class Shown(Protocol):
    """One drawn bar."""

    def draw(self, share: float, said: str) -> None: ...

    def close(self) -> None: ...


class Bar:
    """How far something is, drawn from a while after its beginning."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._began = self._drawn = time.monotonic()
        self._shown: Shown | None = None
        self._nobody = threading.current_thread() is not threading.main_thread()

    def to(self, share: float, said: str = "") -> None:
        """It is ``share`` (0..1) of the way; ``said`` stands beside it. Free when nobody looks."""
        now = time.monotonic()
        if self._nobody or now - self._began < SHOWN_AFTER_S or now - self._drawn < _EVERY_S:
            return
        if self._shown is None:
            self._shown = _shown(self._text)
            self._nobody = self._shown is None
        if self._shown is not None:
            self._shown.draw(min(1.0, max(0.0, share)), said)
            self._drawn = now

    def close(self) -> None:
        """Take it away."""
        if self._shown is not None:
            self._shown.close()


@contextmanager
def bar(text: str) -> Iterator[Bar]:
    """A bar that goes when the block ends."""
    made = Bar(text)
    try:
        yield made
    finally:
        made.close()


def _shown(text: str) -> Shown | None:
    if in_notebook():
        return _InNotebook(text)
    if not sys.stderr.isatty():
        return None
    try:
        return _Tqdm(text)
    except ImportError:
        return _Rich(text)


def in_notebook() -> bool:
    """Whether a kernel runs this: what is displayed reaches a front end."""
    core = sys.modules.get("IPython.core.getipython")
    shell = core.get_ipython() if core is not None else None
    return getattr(shell, "kernel", None) is not None


class _InNotebook:
    def __init__(self, text: str) -> None:
        self._text = text
        self._handle: Any = None

    def draw(self, share: float, said: str) -> None:
        from IPython.display import display

        line = f"{self._text} {share:.0%} {said}".rstrip()
        html = (
            f'<div style="font-size: 13px; padding: 4px 0"><progress value="{share:.3f}" max="1"'
            f' aria-label="{escape(self._text)}" style="width: 16em; vertical-align: middle"></progress>'
            f" {escape(line)}</div>"
        )
        bundle = {"text/plain": line, "text/html": html}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)


class _Tqdm:
    def __init__(self, text: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=100, desc=text, leave=False, bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed} {postfix}"
        )

    def draw(self, share: float, said: str) -> None:
        self._bar.set_postfix_str(said, refresh=False)
        self._bar.update(round(share * 100, 1) - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


class _Rich:
    def __init__(self, text: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(text, total=1.0)
        self._progress.start()

    def draw(self, share: float, said: str) -> None:
        self._progress.update(self._task, completed=share)
        if said:
            self._progress.update(self._task, description=said)

    def close(self) -> None:
        self._progress.stop()

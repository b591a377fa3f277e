"""``%load_ext headwater``: magics, completion and short errors, given to one IPython shell and taken back again.

General layout: ``session`` (which lake), ``magics`` (what is typed), ``cell`` (reading it), ``completion``,
``failure`` (errors); ``panel`` and ``pages`` are the live table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.errors import HeadwaterError
from headwater_notebooks import failure
from headwater_notebooks.completion import Completion
from headwater_notebooks.magics import HeadwaterMagics
from headwater_notebooks.session import Session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_NAME = "headwater"
_SHORT = "sql"


def load(shell: InteractiveShell) -> None:
    """Register everything; doing it twice changes nothing.

    ``%%sql`` is taken only when no other extension has it; ``%%hw`` is the same and always there.
    """
    if _NAME in shell.magics_manager.registry:
        return
    session = Session()
    magics = HeadwaterMagics(shell, session)
    shell.register_magics(magics)
    shell.magics_manager.registry[_NAME] = magics
    for kind in ("line", "cell"):
        if _SHORT not in shell.magics_manager.magics[kind]:
            shell.magics_manager.magics[kind][_SHORT] = shell.magics_manager.magics[kind]["hw"]
    magics.completion = Completion(session)
    shell.Completer.custom_matchers.append(magics.completion.matcher)
    HeadwaterError._render_traceback_ = failure.render  # type: ignore[attr-defined]  # IPython's hook


def unload(shell: InteractiveShell) -> None:
    """Take everything back and close the lake."""
    magics = shell.magics_manager.registry.pop(_NAME, None)
    if not isinstance(magics, HeadwaterMagics):
        return
    shell.magics_manager.registry.pop(HeadwaterMagics.__name__, None)
    for registered in shell.magics_manager.magics.values():
        for name in [name for name, function in registered.items() if getattr(function, "__self__", None) is magics]:
            del registered[name]
    shell.Completer.custom_matchers.remove(magics.completion.matcher)
    del HeadwaterError._render_traceback_  # type: ignore[attr-defined]
    magics.session.close()

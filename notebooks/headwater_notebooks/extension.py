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
_SHORT = {"sql": "hw", "view": "hwview"}


def load(shell: InteractiveShell) -> None:
    """Register everything; doing it twice changes nothing.

    ``%%sql`` and ``%%view`` are taken only when no other extension has them; ``%%hw`` and ``%%hwview`` are the same and
    always there.
    """
    if _NAME in shell.magics_manager.registry:
        return
    session = Session()
    magics = HeadwaterMagics(shell, session)
    shell.register_magics(magics)
    shell.magics_manager.registry[_NAME] = magics
    for registered in shell.magics_manager.magics.values():
        for short, name in _SHORT.items():
            if name in registered:
                registered.setdefault(short, registered[name])
    magics.completion = Completion(session, lambda name: _is_ours(shell, name))
    shell.Completer.custom_matchers.append(magics.completion.matcher)
    HeadwaterError._render_traceback_ = failure.render  # type: ignore[attr-defined]  # IPython's hook


def _is_ours(shell: InteractiveShell, name: str) -> bool:
    """Whether a cell magic of this name is one of these, and not another extension's."""
    return isinstance(getattr(shell.magics_manager.magics["cell"].get(name), "__self__", None), HeadwaterMagics)


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

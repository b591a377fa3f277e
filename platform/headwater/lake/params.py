"""Parameters of a question that is asked again and again: values, or controls that a person turns meanwhile.

A control is whatever has a ``value`` and lets itself be observed, as every ipywidgets control does: it stands for
what it is set to when the question is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_control(value: Any) -> bool:
    """Whether this stands for its ``value``, which may be another one later."""
    return callable(getattr(value, "observe", None)) and hasattr(value, "value")


def now(params: Mapping[str, Any]) -> dict[str, Any]:
    """The values to bind now. A NumPy scalar is the Python value it stands for."""
    return {name: _plain(value.value if is_control(value) else value) for name, value in params.items()}


def _plain(value: Any) -> Any:
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value

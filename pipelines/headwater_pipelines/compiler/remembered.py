"""Texts that follow from a plan are made once: a step asks for the same ones as the step before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")

KEPT_MAX = 1_000
"""Texts of a function; a program has a hundred or two."""


def remembered(function: Callable[P, str]) -> Callable[P, str]:
    """The function with its results kept; its arguments are plan nodes, texts, and mappings of these."""
    kept: dict[Any, str] = {}

    @wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> str:
        key = (*map(_fixed, arguments), *named.items())
        if key not in kept:
            if len(kept) >= KEPT_MAX:
                kept.clear()
            kept[key] = function(*arguments, **named)
        return kept[key]

    return call


def _fixed(argument: Any) -> Any:
    if isinstance(argument, Mapping):
        return tuple((key, _fixed(value)) for key, value in argument.items())
    return tuple(argument) if isinstance(argument, list) else argument

"""What a lease says into its run's log: one line, short while all views stand alike."""

from __future__ import annotations

from typing import Any

from headwater_dagster.lease import progress


def view(name: str, state: str = "live", commit: int | None = 7, behind: int | None = 2) -> dict[str, Any]:
    return {"name": name, "state": state, "input_commit": commit, "lag_commits": behind}


def test_views_that_stand_alike_are_named_together() -> None:
    views = [view("a"), view("b"), view("c", "creating", None, None), view("d", "live", 5, 4)]
    said = progress({"position": 9, "views": views})
    assert said == "commit 9; live at 7, 2 commits behind: a, b; creating: c; live at 5, 4 commits behind: d"
    assert progress({"position": 9, "views": []}) == "commit 9; no view yet"

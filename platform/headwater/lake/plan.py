"""How a query is answered: as the view that it could be, and as the engine runs it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from headwater.errors import SqlError
from headwater.lake import views

if TYPE_CHECKING:
    from headwater.lake.result import Result


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``view``: how the query would be maintained (None where it would be refused, and ``refused`` says why);
    ``engine``: DuckDB's plan for this one answer, as text."""

    view: Any
    refused: str
    engine: str

    def __repr__(self) -> str:
        return f"As a view: {self.refused or self.view}\n\nAs one answer:\n{self.engine}"

    def _repr_html_(self) -> str:
        view = f"<div>As a view: {escape(self.refused)}</div>" if self.view is None else self.view._repr_html_()
        return (
            f"{view}<details><summary>the engine's plan of this one answer</summary>"
            f'<pre style="line-height: 1.2; overflow-x: auto">{escape(self.engine)}</pre></details>'
        )


def explain(result: Result) -> Plan:
    """The plans of an answer's query, at the answer's position. Creates nothing."""
    lake, question = result.lake, result.question
    query = result._query
    view, refused = None, ""
    if question.params:
        refused = "not with parameters: a view has none, write the values."
    else:
        try:
            view = views.api().explain(lake, query, name="query")
        except SqlError as error:
            refused = str(error)
    with lake.reading(query, at=result.position) as (cursor, sql):
        engine = cursor.execute(f"EXPLAIN {sql}", question.params).fetchall()
    return Plan(view=view, refused=refused, engine="\n".join(text for _, text in engine))

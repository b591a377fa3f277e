"""SQL definitions to plans that can be maintained."""

from headwater_pipelines.compiler.definition import Definition, parse, read_file
from headwater_pipelines.compiler.relations import Relations, Table, ViewPlan
from headwater_pipelines.compiler.view import CompiledView, compile_view

__all__ = [
    "CompiledView",
    "Definition",
    "Relations",
    "Table",
    "ViewPlan",
    "compile_view",
    "parse",
    "read_file",
]

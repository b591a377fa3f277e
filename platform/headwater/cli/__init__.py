"""The command ``headwater``: one module per command, loaded when that command is used.

General layout: ``main`` (the group, errors, exit codes), ``options`` (what several commands share),
``output`` (exact CSV, JSON and tables), then a module per command. A command's module imports nothing
heavy at its top: ``headwater --help`` imports all of them for their first sentences.
"""

"""Running a project: components as supervised processes, health, metrics, status.

General layout, in reading order: ``component`` (what is run), ``child`` (one supervised process),
``supervisor`` (all of them), ``maintenance`` (sealing, in this process), ``status`` (the one document that
/healthz, /metrics, ``headwater status`` and the live display read), ``http``, ``watcher``, ``up``.
Import the modules directly; nothing is imported here, because ``headwater --help`` passes by.
"""

"""The project file: ``headwater.toml`` and the environment, read once into frozen values.

Nothing below the command line reads the environment or the file again; a ``Project`` is passed on.
A key nobody knows is refused with the nearest known one: a misspelt limit must not become the default.
Secrets never show in ``repr``, in messages or in logs; they come from the environment or libpq's own files.

    [project]                             name, lake (the log's folder, default: lake)
    [source.NAME]                         every field of ``SourceConfig``
    [source.NAME.table."public.orders"]   partitions, columns, where
    [source.NAME.messages]                topics of logical messages, by their prefix
    [source.NAME.outbox."public.outbox"]  topic, by, key, type, payload, id
    [settings]                            every field of ``Settings``
    [slo]                                 every field of ``Slo``
    [slo."shop.public.orders"]            the same, of one source, topic, view (views.NAME) or job (jobs.NAME)

Environment: ``HEADWATER_SOURCE_<NAME>_DSN`` replaces a source's dsn, ``..._STANDBY_DSN`` its standby_dsn,
``HEADWATER_<SETTING>`` a setting.
These modules import the standard library only: they are on the path of ``headwater --help``.
"""

from headwater.config.project import FILE, Project, find, load
from headwater.config.settings import MIB, Settings
from headwater.config.slo import Slo
from headwater.config.source import (
    PARTITIONS_MAX,
    PREFIX_BYTES_MAX,
    REFUSED_SOURCE_NAMES,
    OutboxConfig,
    SourceConfig,
    TableConfig,
    check_source_name,
    mask,
)

__all__ = [
    "FILE",
    "MIB",
    "PARTITIONS_MAX",
    "PREFIX_BYTES_MAX",
    "REFUSED_SOURCE_NAMES",
    "OutboxConfig",
    "Project",
    "Settings",
    "Slo",
    "SourceConfig",
    "TableConfig",
    "check_source_name",
    "find",
    "load",
    "mask",
]

"""The event trigger of ``ddl_capture = "trigger"``: DDL says in the WAL, at its place, what became of the table.

    DDL ─▶ headwater_<source>.changed() ─▶ headwater_<source>.tell() ─▶ message headwater.ddl, in the same transaction
              catches every error              reads the catalog

``tell`` says of each table that a command touched what a survey reads of it (``announcement`` understands it), and
takes a table that lost its replica identity out of the publication that would make its UPDATE fail. It runs with the
rights of the role that made it, so the role that runs the DDL needs none. Nothing of it may fail or delay the DDL:
``changed`` is as simple as can be, catches whatever comes, and what was not told is found by the next survey.
"""

from __future__ import annotations

import hashlib

import psycopg

from headwater import logs
from headwater.config import SourceConfig
from headwater.errors import SourceNotReady
from headwater_connectors.postgres import publication
from headwater_connectors.postgres.catalog import state_sql
from headwater_connectors.postgres.session import Connection

LOCK_MS_MAX = 100
"""How long a DDL waits at most for a lock that only we want."""
RELATIONS_MAX = 100
"""Of a command that touches more tables and partitions, nothing is told but that it did: some ms each are too many."""
LAYOUT = hashlib.sha256(state_sql("asked").encode()).hexdigest()[:8]
"""What of the catalog is told, and in which order: a trigger of another release may tell something else."""
_TAGS = (
    "ALTER TABLE", "CREATE TABLE", "CREATE TABLE AS", "SELECT INTO", "CREATE SCHEMA", "ALTER SCHEMA", "COMMENT",
    "ALTER PUBLICATION", "ALTER TYPE",
)  # fmt: skip
"""Commands after which a table may be another. What DROP commands do is told by another event, whatever the command."""
_log = logs.logger("capture")

# Our own sessions move tables between the publications; and the move below is DDL, too.
_CHANGED = """
BEGIN
    IF current_setting('headwater.telling', true) = 'on' OR current_setting('application_name') LIKE 'headwater:%' THEN
        RETURN;
    END IF;
    PERFORM {name}.tell(tg_event, tg_tag);
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'headwater: % is not announced: %', tg_tag, sqlerrm;
END
"""

# A message is decoded where its record ends, a row where its own begins: of different subtransactions, the row after a
# message could come before it, were there not another message between them.
#
# A snapshot that is older than the statement does not see what others did to the table meanwhile, nor does the catalog
# read under it. A dropped index was perhaps the identity of a table, which nobody can tell any more.
_TELL = """
#variable_conflict use_column
DECLARE
    publications name[] := ARRAY['{main}', '{inserts}'];
    named oid[];
    gone int8[];
    touched oid[];
    look boolean := false;
    asked int8;
    state json;
    place text;
    told jsonb[];
    each jsonb;
BEGIN
    IF event = 'sql_drop' AND tag = 'ALTER TABLE' THEN
        RETURN;
    ELSIF event = 'sql_drop' THEN
        SELECT array_agg(objid) FILTER (WHERE object_type = 'table' AND objsubid = 0),
            array_agg(objid) FILTER (WHERE object_type = 'table column')
            || array_agg(to_regclass(format('%I.%I', address_names[1], address_names[2]))::oid)
                FILTER (WHERE object_type = 'publication relation' AND address_args[1] = ANY (publications))
            || (SELECT array_agg(c.oid) FROM pg_class c JOIN pg_publication_rel r ON r.prrelid = c.oid
                JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = ANY (publications)
                WHERE bool_or(object_type = 'index') AND c.relreplident = 'i'
                    AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident))
        INTO gone, named
        FROM pg_event_trigger_dropped_objects() WHERE NOT is_temporary;
    ELSE
        look := tag IN ('ALTER SCHEMA', 'ALTER TYPE');
        SELECT array_agg(coalesce(r.prrelid, d.objid)) INTO named
        FROM pg_event_trigger_ddl_commands() d
        LEFT JOIN (pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = ANY (publications))
            ON d.classid = 'pg_publication_rel'::regclass AND d.objid = r.oid
        WHERE d.classid = 'pg_class'::regclass OR r.oid IS NOT NULL;
    END IF;
    SELECT array_agg(oid) INTO touched FROM (
        WITH RECURSIVE up(oid) AS (
            SELECT unnest(named) UNION SELECT i.inhparent FROM up JOIN pg_class c ON c.oid = up.oid AND c.relispartition
                JOIN pg_inherits i ON i.inhrelid = c.oid
        ), down(oid) AS (
            SELECT oid FROM up UNION SELECT i.inhrelid FROM down JOIN pg_inherits i ON i.inhparent = down.oid
        )
        SELECT oid FROM down LIMIT {most} + 1
    ) AS few;
    IF cardinality(touched) > {most}
        OR cardinality(touched) > 0 AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
    THEN
        look := true;
        touched := NULL;
    END IF;
    FOR asked, place IN
        SELECT c.oid::int8, format(CASE c.relkind WHEN 'p' THEN '%I.%I' ELSE 'ONLY %I.%I' END, n.nspname, c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY (touched) AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
    LOOP
        state := {state};
        CONTINUE WHEN state #>> '{{0,0}}' IS NULL;
        IF NOT (state #>> '{{0,0,8}}')::boolean AND EXISTS (SELECT FROM pg_publication_rel r
            JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = '{main}' WHERE r.prrelid = asked::oid)
        THEN
            BEGIN
                EXECUTE format('ALTER PUBLICATION %I DROP TABLE %s', '{main}', place);
            EXCEPTION WHEN OTHERS THEN
                RAISE LOG 'headwater: % stays in a publication that needs its identity: %', place, sqlerrm;
            END;
        END IF;
        told := told || jsonb_build_object('xid', pg_current_xact_id()::text::int8, 'state', state,
            'published', EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                AND p.pubname = ANY (publications) WHERE r.prrelid = asked::oid));
    END LOOP;
    IF gone IS NOT NULL THEN
        told := told || jsonb_build_object('gone', gone);
    END IF;
    IF look THEN
        told := told || jsonb_build_object('look', true);
    END IF;
    IF told IS NOT NULL THEN
        FOREACH each IN ARRAY told LOOP
            PERFORM pg_logical_emit_message(true, 'headwater.ddl',
                (each || jsonb_build_object('source', '{source}', 'layout', '{layout}'))::text);
        END LOOP;
        PERFORM pg_logical_emit_message(true, 'headwater.end', '');
    END IF;
END
"""

_MADE = """
SELECT p.proname, p.prosrc, e.evtenabled = 'A' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
LEFT JOIN pg_event_trigger e ON e.evtfoid = p.oid AND e.evtname = ANY (%s) WHERE n.nspname = %s
"""


def statements(source: str) -> list[str]:
    """What makes the event trigger of a source, or makes one of another release anew."""
    name, (end, drop) = _schema(source), _triggers(source)
    tags = ", ".join(f"'{tag}'" for tag in _TAGS)
    changed, tell = _bodies(source)
    as_maker = "SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
    settings = f"lock_timeout = {LOCK_MS_MAX} SET jit = off SET plan_cache_mode = force_generic_plan"
    tells = f"{name}.tell(event text, tag text) RETURNS void LANGUAGE plpgsql {as_maker} SET {settings}"
    fires = f"{name}.changed() RETURNS event_trigger LANGUAGE plpgsql {as_maker}"
    triggers = {end: f"ddl_command_end WHEN TAG IN ({tags})", drop: "sql_drop"}
    return [
        f"CREATE SCHEMA IF NOT EXISTS {name}",
        f"CREATE OR REPLACE FUNCTION {tells} SET headwater.telling = 'on' AS $headwater${tell}$headwater$",
        f"REVOKE ALL ON FUNCTION {name}.tell(text, text) FROM PUBLIC",
        f"CREATE OR REPLACE FUNCTION {fires} AS $headwater${changed}$headwater$",
        *(f"DROP EVENT TRIGGER IF EXISTS {trigger}" for trigger in triggers),
        *(
            f"CREATE EVENT TRIGGER {each} ON {when} EXECUTE FUNCTION {name}.changed()"
            for each, when in triggers.items()
        ),
        *(f"ALTER EVENT TRIGGER {trigger} ENABLE ALWAYS" for trigger in triggers),
    ]


def drop_statements(source: str) -> list[str]:
    """What removes it. The schema stays where somebody else has put something into it."""
    name = _schema(source)
    triggers = [f"DROP EVENT TRIGGER IF EXISTS {each}" for each in _triggers(source)]
    functions = [f"DROP FUNCTION IF EXISTS {name}.changed(), {name}.tell(text, text)", f"DROP SCHEMA IF EXISTS {name}"]
    return [*triggers, *functions]


def is_made(connection: Connection, source: str) -> bool:
    """Whether it is there, as this release makes it, and enabled."""
    rows = connection.execute(_MADE, [list(_triggers(source)), _schema(source)]).fetchall()
    changed, tell = _bodies(source)
    return sorted(rows) == [("changed", changed, True), ("changed", changed, True), ("tell", tell, None)]


def exists(connection: Connection, source: str) -> bool:
    """Whether anything of it is there."""
    query = (
        "SELECT FROM pg_event_trigger WHERE evtname = ANY (%s) UNION ALL SELECT FROM pg_namespace WHERE nspname = %s"
    )
    return connection.execute(query, [list(_triggers(source)), _schema(source)]).fetchone() is not None


def put_right(config: SourceConfig, connection: Connection) -> None:
    """Make it, or remove it, as the project says; ``auto`` leaves what is there. Raises SourceNotReady."""
    if config.ddl_capture == "trigger" and not is_made(connection, config.name):
        _run(connection, config.name, statements(config.name), "made")
        _log.info("made the event trigger %s", _schema(config.name))
    elif config.ddl_capture == "off":
        try:
            drop(connection, config.name)
        except SourceNotReady as error:  # what it says is not listened to
            _log.warning("%s", error)


def drop(connection: Connection, source: str) -> None:
    """Remove it, if anything of it is there. Raises SourceNotReady."""
    if exists(connection, source):
        _run(connection, source, drop_statements(source), "removed")


def _run(connection: Connection, source: str, wanted: list[str], done: str) -> None:
    try:
        with connection.transaction():
            for statement in wanted:
                connection.execute(statement.encode())
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.DependentObjectsStillExist) as error:
        raise SourceNotReady(
            f"the event trigger {_schema(source)} cannot be {done}: {str(error).strip()}",
            where=f"source {source}",
            todo=f"A superuser has to: `headwater source check {source}` says the SQL. Or set ddl_capture = 'auto'.",
        ) from error


def _schema(source: str) -> str:
    return f"headwater_{source}"


def _triggers(source: str) -> tuple[str, str]:
    return f"headwater_{source}", f"headwater_{source}_drop"


def _bodies(source: str) -> tuple[str, str]:
    main, inserts = publication.names(source)
    names = {"source": source, "main": main, "inserts": inserts}
    tell = _TELL.format(**names, layout=LAYOUT, most=RELATIONS_MAX, state=state_sql("asked"))
    return _CHANGED.format(name=_schema(source)), tell

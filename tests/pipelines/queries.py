"""Random SELECTs over known relations, out of the whole of what a view may be.

Every query has one answer: what depends on an order has a total one, and sums are of values that add up the same in
any order. Kinds of values: ``int``, ``dec``, ``dbl`` (quarters, whose sums are exact), ``frac`` (a DOUBLE that is
compared and shown, never summed), ``str``, ``date``, ``ts``, ``bool``, ``list`` (of integers).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

KINDS = ("int", "int", "int", "dec", "dbl", "frac", "str", "str", "date", "ts", "bool", "list")
ORDERED = ("int", "dec", "dbl", "str", "date", "ts")
SUMMED = ("int", "dec", "dbl")
CONSTANTS = {
    "dec": ["1.50", "-20.25", "0.00", "42.42"],
    "dbl": ["0.25::DOUBLE", "3.5::DOUBLE", "(-1.75)::DOUBLE"],
    "frac": ["0.1::DOUBLE"],
    "str": ["'x'", "'y'", "'z'", "''", "'ada'"],
    "date": ["DATE '2026-01-05'", "DATE '2026-02-01'"],
    "ts": ["TIMESTAMP '2026-01-05 12:00:00'", "TIMESTAMP '2026-01-20 00:30:00'"],
    "bool": ["true", "false"],
    "list": ["[1, 2]", "[NULL, 3]", "[]::INTEGER[]"],
}
ROWS_MAX = 2500
"""Estimated rows of a join beyond which only an equality is taken."""


@dataclass(frozen=True)
class Column:
    name: str
    kind: str


@dataclass(frozen=True)
class Relation:
    """What stands in FROM, its columns, and about how many rows it has."""

    sql: str
    columns: tuple[Column, ...]
    rows: int = 40


@dataclass
class Scope:
    """What expressions may name: columns by alias; ``merged`` without one."""

    items: list[tuple[str, tuple[Column, ...]]] = field(default_factory=list)
    merged: list[Column] = field(default_factory=list)
    rows: int = 1

    def all(self) -> list[Column]:
        """Every column under the name that an expression uses."""
        return [*self.merged, *(Column(f"{a}.{c.name}", c.kind) for a, columns in self.items for c in columns)]

    def of(self, *kinds: str) -> list[str]:
        return [column.name for column in self.all() if column.kind in kinds]


Aggregate = tuple[str, str]


class Generator:
    """Draws queries from ``rng`` over ``relations``: tables, and views as they are added."""

    def __init__(self, rng: random.Random, relations: Mapping[str, Sequence[Column]]) -> None:
        self.rng = rng
        self.relations = {name: tuple(columns) for name, columns in relations.items()}
        self.ctes: dict[str, Relation] = {}
        self.aliases = 0

    def add(self, name: str, columns: Sequence[Column]) -> None:
        self.relations[name] = tuple(columns)

    def statement(self, depth: int = 2) -> tuple[str, tuple[Column, ...]]:
        """A query and its columns."""
        self.ctes, self.aliases, withs = {}, 0, []
        for number in range(self.rng.choice([0, 0, 0, 0, 1, 2])):
            made = self.query(1)
            hint = self.rng.choice(["", "", "", "MATERIALIZED ", "NOT MATERIALIZED "])
            withs.append(f"w{number} AS {hint}({made.sql})")
            self.ctes[f"w{number}"] = Relation(f"w{number}", made.columns, made.rows)
        word = "WITH"
        if self.rng.random() < 0.03:
            word = "WITH RECURSIVE"
            start = self.test(Scope([("items", self.relations["items"])]), 0)
            withs.append(
                f"w9(c0, c1) AS (SELECT id, 1 FROM items WHERE {start} UNION{self.rng.choice(['', ' ALL'])}"
                " SELECT i.id, w9.c1 + 1 FROM w9 JOIN items i ON i.id = w9.c0 + 1 WHERE w9.c1 < 4)"
            )
            self.ctes["w9"] = Relation("w9", (Column("c0", "int"), Column("c1", "int")))
        made = self.query(depth)
        return (f"{word} {', '.join(withs)} " if withs else "") + made.sql, made.columns

    # ---- queries

    def query(self, depth: int, kinds: Sequence[str] | None = None) -> Relation:
        """A query whose columns have these kinds, if given."""
        forms: list[tuple[int, Callable[[], Relation]]] = [
            (5, lambda: self.rows_of(depth, kinds)),
            (6, lambda: self.grouped(depth, kinds)),
            (2, lambda: self.windowed(depth, kinds)),
            (2, lambda: self.combined(depth, kinds)),
            (1, lambda: self.first_of_key(depth, kinds)),
        ]
        if kinds is None:
            forms += [(1, lambda: self.sets_of_groups(depth)), (1, lambda: self.unnested(depth))]
        made = self.rng.choices([form for _, form in forms], [weight for weight, _ in forms])[0]()
        return self.top(made) if self.rng.random() < 0.08 else made

    def top(self, made: Relation) -> Relation:
        """The first rows in a total order."""
        names = [str(place) for place in range(1, len(made.columns) + 1)]
        self.rng.shuffle(names)
        order = ", ".join(name + self.direction() for name in names)
        offset = f" OFFSET {self.rng.randrange(3)}" if self.rng.random() < 0.3 else ""
        limit = self.rng.randrange(1, 8)
        if self.rng.random() < 0.5:
            sql = f"SELECT * FROM ({made.sql}) ORDER BY {order} LIMIT {limit}{offset}"
        elif " UNION " in made.sql or " EXCEPT " in made.sql or " INTERSECT " in made.sql or "DISTINCT ON" in made.sql:
            sql = f"({made.sql}) ORDER BY {order} LIMIT {limit}{offset}"
        else:
            sql = f"{made.sql} ORDER BY {order} LIMIT {limit}{offset}"
        return Relation(sql, made.columns, limit)

    def direction(self) -> str:
        return self.rng.choice(["", " DESC"]) + self.rng.choice([" NULLS FIRST", " NULLS LAST"])

    def shown(self, values: Sequence[tuple[str, str]]) -> tuple[str, tuple[Column, ...]]:
        """A select list under names of its own."""
        listed = [f"{sql} AS c{place}" for place, (sql, _) in enumerate(values)]
        return ", ".join(listed), tuple(Column(f"c{place}", kind) for place, (_, kind) in enumerate(values))

    def some_kinds(self, kinds: Sequence[str] | None) -> list[str]:
        return list(kinds) if kinds is not None else self.rng.choices(KINDS, k=self.rng.randint(1, 4))

    def rows_of(self, depth: int, kinds: Sequence[str] | None) -> Relation:
        source, scope = self.from_clause(depth)
        if kinds is None and self.rng.random() < 0.1 and len(scope.items) == 1 and not scope.merged:
            where = self.where(scope, depth)
            return Relation(f"SELECT * FROM {source}{where}", scope.items[0][1], scope.rows)
        values = [(self.value(kind, scope, depth), kind) for kind in self.some_kinds(kinds)]
        listed, columns = self.shown(values)
        distinct = "DISTINCT " if self.rng.random() < 0.15 else ""
        return Relation(f"SELECT {distinct}{listed} FROM {source}{self.where(scope, depth)}", columns, scope.rows)

    def grouped(self, depth: int, kinds: Sequence[str] | None) -> Relation:
        source, scope = self.from_clause(depth)
        keys = [self.key(scope) for _ in range(self.rng.choice([0, 1, 1, 1, 2, 2]))]
        if kinds is None:
            values = [*keys, *(self.aggregate(scope) for _ in range(self.rng.randint(1, 3)))]
            if self.rng.random() < 0.2:
                values.append(self.over_aggregates(scope))
        else:
            values = [self.aggregate_of(kind, scope, keys) for kind in kinds]
        self.rng.shuffle(values) if kinds is None else None
        listed, columns = self.shown(values)
        group = self.group_by(keys, values)
        having = ""
        if (keys or self.rng.random() < 0.3) and self.rng.random() < 0.25:
            having = f" HAVING {self.aggregate_test(scope)}"
        where = self.where(scope, depth)
        return Relation(f"SELECT {listed} FROM {source}{where}{group}{having}", columns, 8 if keys else 1)

    def group_by(self, keys: list[tuple[str, str]], values: list[tuple[str, str]]) -> str:
        if not keys:
            return ""
        form = self.rng.random()
        there = all(key in values for key in keys)
        if form < 0.15 and there and len({*keys}) == len(keys):
            return " GROUP BY " + ", ".join(str(values.index(key) + 1) for key in keys)
        if form < 0.3 and there:
            return " GROUP BY ALL"
        return " GROUP BY " + ", ".join(sql for sql, _ in keys)

    def key(self, scope: Scope) -> tuple[str, str]:
        """What a group, or a partition, is by: mostly a column."""
        plain = [column for column in scope.all() if column.kind in ("int", "str", "date", "bool", "dec")]
        if plain and self.rng.random() < 0.75:
            column = self.rng.choice(plain)
            return column.name, column.kind
        column = self.rng.choice(plain or scope.all())
        kind = self.rng.choice(["int", "str", "date", "bool"])
        found = self.value(kind, scope, 0)
        # A constant would be a place in the select list.
        return (found, kind) if any(each.name in found for each in scope.all()) else (column.name, column.kind)

    def sets_of_groups(self, depth: int) -> Relation:
        source, scope = self.from_clause(depth)
        plain = [column for column in scope.all() if column.kind in ("int", "str", "date", "bool")]
        keys = [(c.name, c.kind) for c in self.rng.sample(plain, min(len(plain), self.rng.randint(1, 3)))]
        if not keys:
            return self.grouped(depth, None)
        names = [sql for sql, _ in keys]
        sets = ["(" + ", ".join(self.rng.sample(names, self.rng.randint(0, len(names)))) + ")" for _ in range(3)]
        group = self.rng.choice(
            [f"ROLLUP ({', '.join(names)})", f"CUBE ({', '.join(names)})", f"GROUPING SETS ({', '.join(sets)})"]
        )
        values = [*keys, *(self.aggregate(scope) for _ in range(2))]
        if self.rng.random() < 0.4 and not group.startswith("GROUPING"):
            values.append((f"grouping({names[0]})", "int"))
        listed, columns = self.shown(values)
        having = f" HAVING {self.aggregate_test(scope)}" if self.rng.random() < 0.2 else ""
        sql = f"SELECT {listed} FROM {source}{self.where(scope, depth)} GROUP BY {group}{having}"
        return Relation(sql, columns, 16)

    def windowed(self, depth: int, kinds: Sequence[str] | None) -> Relation:
        source, scope = self.from_clause(depth)
        by = [self.key(scope)[0] for _ in range(self.rng.choice([0, 1, 1, 1, 2]))]
        where = self.where(scope, depth)
        qualify = ""
        if self.rng.random() < 0.3:
            over = self.over(scope, by, total=True)
            function = self.rng.choice(["row_number", "rank", "dense_rank"])
            qualify = f" QUALIFY {function}() OVER ({over}) <= {self.rng.randint(1, 3)}"
        if kinds is None:
            other = by if self.rng.random() < 0.7 else []
            values = [self.window(scope, self.rng.choice([by, other])) for _ in range(self.rng.randint(1, 2))]
            values += [(self.value(kind, scope, 0), kind) for kind in self.some_kinds(None)[:2]]
        else:
            values = [(self.value(kind, scope, 0), kind) for kind in kinds]
            if "int" in kinds:
                values[list(kinds).index("int")] = (f"row_number() OVER ({self.over(scope, by, total=True)})", "int")
        listed, columns = self.shown(values)
        return Relation(f"SELECT {listed} FROM {source}{where}{qualify}", columns, scope.rows)

    def over(self, scope: Scope, by: list[str], *, total: bool) -> str:
        """A window's inside: partitions, and an order that leaves nothing open where it matters."""
        parts = f"PARTITION BY {', '.join(by)} " if by else ""
        names = [column.name for column in scope.all() if total or column.kind in ORDERED]
        self.rng.shuffle(names)
        names = names if total else names[:1]
        return parts + (f"ORDER BY {', '.join(name + self.direction() for name in names)}" if names else "")

    def window(self, scope: Scope, by: list[str]) -> tuple[str, str]:
        rng = self.rng
        kind = rng.choice(["int", "int", "dec", "str", "date", "dbl"])
        value, form = self.value(kind, scope, 0), rng.random()
        if form < 0.35:
            function, made = rng.choice([
                ("row_number()", "int"), ("rank()", "int"), ("dense_rank()", "int"), ("ntile(3)", "int"),
                ("percent_rank()", "frac"), ("cume_dist()", "frac"), (f"lag({value})", kind),
                (f"lead({value}, 2)", kind), (f"lag({value}, 1, {value})", kind),
            ])  # fmt: skip
            return f"{function} OVER ({self.over(scope, by, total=True)})", made
        ends = ["2 PRECEDING", "1 PRECEDING", "CURRENT ROW", "1 FOLLOWING"]
        low = rng.randrange(4)
        first = rng.choice(["UNBOUNDED PRECEDING", ends[low]])
        last = rng.choice([*ends[low:], "UNBOUNDED FOLLOWING"])
        exclude = rng.choice(["", "", "", " EXCLUDE CURRENT ROW", " EXCLUDE TIES", " EXCLUDE GROUP"])
        mode = rng.choice(["ROWS", "RANGE", "GROUPS"])
        frame, over = f" {mode} BETWEEN {first} AND {last}{exclude}", self.over(scope, by, total=True)
        numbers = scope.of("int")
        if mode == "RANGE" and numbers:
            parts = f"PARTITION BY {', '.join(by)} " if by else ""
            over = f"{parts}ORDER BY {rng.choice(numbers)}{self.direction()}"
        elif mode == "RANGE":
            frame = ""
        if form < 0.5 and mode != "RANGE":
            function = rng.choice(["first_value", "last_value"])
            return f"{function}({value}) OVER ({over}{frame})", kind
        function, made = rng.choice([("count", "int"), ("min", kind), ("max", kind), ("sum", kind), ("avg", "frac")])
        if function in ("sum", "avg") and kind not in SUMMED:
            function, made = "max", kind
        if form < 0.65:  # nothing but partitions
            over, frame = (f"PARTITION BY {', '.join(by)}" if by else ""), ""
        kept = f" FILTER (WHERE {self.test(scope, 0)})" if rng.random() < 0.15 else ""
        return f"{function}({value}){kept} OVER ({over}{frame})", made

    def combined(self, depth: int, kinds: Sequence[str] | None) -> Relation:
        kinds = self.some_kinds(kinds)
        word = self.rng.choice(
            ["UNION ALL", "UNION ALL", "UNION", "EXCEPT", "EXCEPT ALL", "INTERSECT", "INTERSECT ALL"]
        )
        parts = [self.query(depth - 1, kinds) for _ in range(2 if "UNION" not in word else self.rng.choice([2, 2, 3]))]
        sql = f" {word} ".join(f"({part.sql})" for part in parts)
        return Relation(sql, parts[0].columns, sum(part.rows for part in parts))

    def first_of_key(self, depth: int, kinds: Sequence[str] | None) -> Relation:
        source, scope = self.from_clause(depth)
        key, kind = self.key(scope)
        values = [(self.value(each, scope, 0), each) for each in self.some_kinds(kinds)]
        if kinds is None:
            values.insert(0, (key, kind))
        listed, columns = self.shown(values)
        order = ", ".join(column.name + self.direction() for column in scope.all())
        where = self.where(scope, depth)
        sql = f"SELECT DISTINCT ON ({key}) {listed} FROM {source}{where} ORDER BY {key}, {order}"
        return Relation(sql, columns, 8)

    def unnested(self, depth: int) -> Relation:
        source, scope = self.from_clause(depth)
        values = [(self.value(kind, scope, 0), kind) for kind in self.some_kinds(None)[:2]]
        values.append((f"unnest({self.value('list', scope, 0)})", "int"))
        listed, columns = self.shown(values)
        return Relation(f"SELECT {listed} FROM {source}{self.where(scope, depth)}", columns, scope.rows * 2)

    # ---- FROM

    def alias(self) -> str:
        self.aliases += 1
        return f"t{self.aliases}"

    def relation(self, depth: int) -> Relation:
        rng, form = self.rng, self.rng.random()
        if depth > 0 and form < 0.2:
            kept, self.aliases = self.aliases, rng.choice([self.aliases, 0])  # inner names may hide outer ones
            made = self.query(depth - 1)
            self.aliases = max(kept, self.aliases)
            return Relation(f"({made.sql})", made.columns, made.rows)
        if form < 0.24:
            rows = ", ".join(
                f"({rng.randrange(-1, 5)}, {rng.choice(['NULL', repr('x'), repr('y')])})" for _ in range(3)
            )
            return Relation(f"(SELECT * FROM (VALUES {rows}) v(n, k))", (Column("n", "int"), Column("k", "str")), 3)
        if form < 0.4 and self.ctes:
            return rng.choice(list(self.ctes.values()))
        tables = [name for name in self.relations if not name.startswith("view_")]
        views = [name for name in self.relations if name.startswith("view_")]
        name = rng.choice(views if views and rng.random() < 0.15 else tables)
        return Relation(name, self.relations[name])

    def from_clause(self, depth: int) -> tuple[str, Scope]:
        first = self.relation(depth)
        alias = self.alias()
        sql, scope = f"{first.sql} {alias}", Scope([(alias, first.columns)], [], first.rows)
        for _ in range(self.rng.choice([0, 0, 0, 0, 1, 1, 1, 2])):
            sql, scope = self.joined(sql, scope, depth)
        return sql, scope

    def joined(self, sql: str, left: Scope, depth: int) -> tuple[str, Scope]:
        """One more FROM item."""
        forms: list[tuple[float, Callable[[], tuple[str, Scope] | None]]] = [
            (0.1, lambda: self.elements(sql, left)),
            (0.1 if depth else 0, lambda: self.lateral(sql, left)),
            (0.05, lambda: self.asof(sql, left)),
            (0.15, lambda: self.using(sql, left, depth)),
            (0.1, lambda: self.product(sql, left, depth)),
        ]
        for share, form in forms:
            made = form() if self.rng.random() < share else None
            if made is not None:
                return made
        return self.conditional(sql, left, depth)

    def beside(self, left: Scope, depth: int) -> tuple[Relation, str, Scope, Scope]:
        """A relation and its alias, the scope of its columns, and that of both sides."""
        right, alias = self.relation(depth), self.alias()
        item = (alias, right.columns)
        rows = min(left.rows * right.rows, ROWS_MAX)
        return right, alias, Scope([item], [], right.rows), Scope([*left.items, item], left.merged, rows)

    def elements(self, sql: str, left: Scope) -> tuple[str, Scope] | None:
        lists, alias = left.of("list"), self.alias()
        if not lists:
            return None
        items = [*left.items, (alias, (Column("u", "int"),))]
        word = self.rng.choice([",", " CROSS JOIN"])
        return f"{sql}{word} unnest({self.rng.choice(lists)}) {alias}(u)", Scope(items, left.merged, left.rows * 2)

    def asof(self, sql: str, left: Scope) -> tuple[str, Scope] | None:
        """With rows of which there is one at each time."""
        keys, times, alias = left.of("str"), left.of("date"), self.alias()
        if not keys or not times:
            return None
        right = "(SELECT k, d, max(id) AS n FROM items GROUP BY k, d)"
        on = (
            f"{self.rng.choice(keys)} = {alias}.k AND {self.rng.choice(times)} {self.rng.choice(['>=', '>'])} {alias}.d"
        )
        items = [*left.items, (alias, (Column("k", "str"), Column("d", "date"), Column("n", "int")))]
        word = self.rng.choice(["ASOF JOIN", "ASOF LEFT JOIN"])
        return f"{sql} {word} {right} {alias} ON {on}", Scope(items, left.merged, left.rows)

    def using(self, sql: str, left: Scope, depth: int) -> tuple[str, Scope] | None:
        right, alias, _, both = self.beside(left, depth)
        known = left.items[0][1]
        common = [column for column in right.columns if column in known and column.kind in ORDERED]
        if not common or left.merged or len(left.items) > 1:
            return None
        column = self.rng.choice(common)
        both.merged, both.rows = [column], max(1, both.rows // 4)
        kind = self.rng.choice(["JOIN", "LEFT JOIN", "FULL JOIN", "RIGHT JOIN"])
        return f"{sql} {kind} {right.sql} {alias} USING ({column.name})", both

    def product(self, sql: str, left: Scope, depth: int) -> tuple[str, Scope] | None:
        right, alias, _, both = self.beside(left, depth)
        if left.rows * right.rows > ROWS_MAX:
            return None
        return f"{sql}{self.rng.choice([' CROSS JOIN', ','])} {right.sql} {alias}", both

    def conditional(self, sql: str, left: Scope, depth: int) -> tuple[str, Scope]:
        rng = self.rng
        right, alias, other, both = self.beside(left, depth)
        small = left.rows * right.rows <= ROWS_MAX
        on = self.equality(left, other)
        if on is None and not small:
            return sql, left
        if on is None or (small and rng.random() < 0.12):
            on = self.inequality(left, other)
        else:
            both.rows = max(1, both.rows // 4)
            if rng.random() < 0.25:
                on += f" AND {rng.choice([self.inequality(left, other), self.test(both, 0), self.test(other, 0)])}"
        kind = rng.choice(["JOIN", "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN",
                           "ANTI JOIN"])  # fmt: skip
        return f"{sql} {kind} {right.sql} {alias} ON {on}", left if kind in ("SEMI JOIN", "ANTI JOIN") else both

    def lateral(self, sql: str, left: Scope) -> tuple[str, Scope]:
        right, inner, alias = self.relation(0), self.alias(), self.alias()
        other = Scope([(inner, right.columns)], [], right.rows)
        on = self.equality(left, other)
        if on is None:
            return sql, left
        if self.rng.random() < 0.5:
            values = [self.aggregate(other) for _ in range(self.rng.randint(1, 2))]
            listed, columns = self.shown(values)
            query = f"SELECT {listed} FROM {right.sql} {inner} WHERE {on}"
        else:
            kinds = self.some_kinds(None)[:2]
            listed, columns = self.shown([(self.value(kind, other, 0), kind) for kind in kinds])
            order = ", ".join(column.name + self.direction() for column in other.all())
            query = f"SELECT {listed} FROM {right.sql} {inner} WHERE {on} ORDER BY {order} LIMIT 2"
        word = self.rng.choice(
            [", LATERAL ({}) {}", " LEFT JOIN LATERAL ({}) {} ON true", " CROSS JOIN LATERAL ({}) {}"]
        )
        return sql + word.format(query, alias), Scope([*left.items, (alias, columns)], left.merged, left.rows)

    def equality(self, left: Scope, right: Scope) -> str | None:
        """Something of both sides compared equal."""
        pairs = [
            (one.name, other.name)
            for one in left.all()
            for other in right.all()
            if one.kind == other.kind and one.kind in ("int", "str", "date", "dec")
        ]
        if not pairs:
            return None
        one, other = self.rng.choice(pairs)
        form = self.rng.random()
        if form < 0.1:
            return f"{one} IS NOT DISTINCT FROM {other}"
        if form < 0.2 and one in left.of("int"):
            return f"{one} % 3 = {other}"
        if form < 0.3:
            return f"{other} = {one}"
        if form < 0.4 and len(pairs) > 1:
            more = self.rng.choice(pairs)
            return f"{one} = {other} AND {more[0]} = {more[1]}"
        return f"{one} = {other}"

    def inequality(self, left: Scope, right: Scope) -> str:
        pairs = [(a, b) for kind in ORDERED for a in left.of(kind) for b in right.of(kind)]
        if not pairs:
            return "true"
        one, other = self.rng.choice(pairs)
        return f"{one} {self.rng.choice(['<', '<=', '>', '>=', '<>'])} {other}"

    # ---- WHERE

    def where(self, scope: Scope, depth: int) -> str:
        parts = []
        if self.rng.random() < 0.4:
            parts.append(self.test(scope, 1))
        if depth > 0 and self.rng.random() < 0.25:
            parts.append(self.subquery_test(scope))
        if parts and self.rng.random() < 0.1:
            parts.append(f"({self.test(scope, 0)} OR {self.subquery_test(scope)})")
        return f" WHERE {' AND '.join(parts)}" if parts else ""

    def test(self, scope: Scope, depth: int) -> str:
        """A condition on the columns of a scope."""
        rng = self.rng
        form = rng.random()
        if depth > 0 and form < 0.25:
            word = rng.choice([" AND ", " OR "])
            return f"({self.test(scope, depth - 1)}{word}{self.test(scope, depth - 1)})"
        if depth > 0 and form < 0.32:
            return f"NOT ({self.test(scope, depth - 1)})"
        columns = [column for column in scope.all() if column.kind != "frac"]
        return self.comparison(rng.choice(columns), scope) if columns else "true"

    def comparison(self, column: Column, scope: Scope) -> str:
        rng = self.rng
        name, kind = column.name, column.kind
        if rng.random() < 0.15:
            return f"{name} IS {rng.choice(['', 'NOT '])}NULL"
        if kind == "bool":
            return rng.choice([name, f"{name} IS NOT TRUE", f"NOT {name}"])
        if kind == "list":
            return rng.choice([f"len({name}) > 1", f"list_contains({name}, 1)"])
        one, other = self.constant(kind), self.value(kind, scope, 0)
        return rng.choice([
            f"{name} {rng.choice(['<', '<=', '>', '>=', '=', '<>'])} {other}",
            f"{name} {rng.choice(['<', '>'])} {one}",
            f"{name} IS DISTINCT FROM {other}",
            f"{name} IN ({one}, {self.constant(kind)})",
            f"{name} NOT IN ({one}, {self.constant(kind)})",
            f"{name} BETWEEN {one} AND {self.constant(kind)}",
            f"coalesce({name}, {one}) <> {other}",
        ])  # fmt: skip

    def subquery_test(self, scope: Scope) -> str:
        rng = self.rng
        form = rng.random()
        right, alias = self.relation(0), self.alias()
        inner = Scope([(alias, right.columns)], [], right.rows)
        on = self.equality(scope, inner)
        if form < 0.3 and on is not None:
            more = (
                f" AND {rng.choice([self.test(inner, 0), self.inequality(scope, inner)])}" if rng.random() < 0.4 else ""
            )
            return f"{rng.choice(['', 'NOT '])}EXISTS (SELECT 1 FROM {right.sql} {alias} WHERE {on}{more})"
        kind = rng.choice(["int", "str", "date", "dec"])
        value = self.value(kind, scope, 0)
        if form < 0.7:
            where = f" WHERE {self.test(inner, 0)}" if rng.random() < 0.5 else ""
            if on is not None and rng.random() < 0.2:
                where = f" WHERE {on}"
            sql = f"SELECT {self.value(kind, inner, 0)} FROM {right.sql} {alias}{where}"
            if rng.random() < 0.15:
                sql = self.query(0, [kind]).sql
            return f"{value} {rng.choice(['IN', 'IN', 'NOT IN', '= ANY', '> ALL'])} ({sql})"
        return f"{value} {rng.choice(['<', '>', '=', '<>'])} {self.scalar(kind, scope)}"

    def scalar(self, kind: str, scope: Scope) -> str:
        """A subquery of one value, correlated or not."""
        right, alias = self.relation(0), self.alias()
        inner = Scope([(alias, right.columns)], [], right.rows)
        on = self.equality(scope, inner) if self.rng.random() < 0.6 else None
        parts = [on] if on else []
        if self.rng.random() < 0.3:
            parts.append(self.rng.choice([self.test(inner, 0), *([self.inequality(scope, inner)] if on else [])]))
        where = f" WHERE {' AND '.join(parts)}" if parts else ""
        if self.rng.random() < 0.2:
            order = ", ".join(column.name + self.direction() for column in inner.all())
            return f"(SELECT {self.value(kind, inner, 0)} FROM {right.sql} {alias}{where} ORDER BY {order} LIMIT 1)"
        value = self.value(kind, inner, 0)
        found = [f"min({value})", f"max({value})"]
        if kind in SUMMED:
            found.append(f"sum({value})")
        if kind == "int":
            found += ["count(*)", f"count({value})", f"count(DISTINCT {value})", f"coalesce(sum({value}), 0) + 1"]
        return f"(SELECT {self.rng.choice(found)} FROM {right.sql} {alias}{where})"

    # ---- values

    def constant(self, kind: str) -> str:
        if kind == "int":
            return str(self.rng.randrange(-2, 7))
        return self.rng.choice(CONSTANTS[kind])

    def value(self, kind: str, scope: Scope, depth: int) -> str:
        """An expression of a kind."""
        rng = self.rng
        own = scope.of(kind)
        if depth > 1 and rng.random() < 0.06 and kind in ORDERED:
            return self.scalar(kind, scope)
        if depth > 1 and rng.random() < 0.03 and kind == "bool":
            return f"({self.subquery_test(scope)})"
        if own and rng.random() < 0.65:
            return rng.choice(own)
        base = rng.choice(own) if own else self.made(kind, scope)
        if base is None:
            return self.constant(kind)
        two = rng.choice(own) if own else self.constant(kind)
        case = f"CASE WHEN {self.test(scope, 0)} THEN {base} ELSE {self.constant(kind)} END"
        number = rng.choice(scope.of("int") or ["1"])
        forms = {
            "int": [f"{base} + {rng.randrange(1, 4)}", f"abs({base})", f"{base} % 3", f"{base} - {two}",
                    f"nullif({base}, 1)", f"greatest({base}, {two})"],
            "dec": [f"{base} + {two}", f"abs({base})", f"-{base}", f"round({base}, 1)"],
            "dbl": [f"{base} + 1", f"{base} * 2", f"abs({base})", f"least({base}, {two})"],
            "frac": [f"{base} + 1"],
            "str": [f"upper({base})", f"{base} || {two}", f"left({base}, 1)", f"concat({base}, '-', {number})",
                    f"replace({base}, 'x', 'y')"],
            "date": [f"{base} + 1", f"date_trunc('month', {base})::DATE", f"greatest({base}, {two})"],
            "ts": [f"{base} + INTERVAL 1 HOUR", f"date_trunc('day', {base})", f"time_bucket(INTERVAL 2 DAYS, {base})"],
            "bool": [f"{base} IS NULL", f"{base} AND {two}", f"NOT {base}"],
            "list": [f"list_transform({base}, lambda e: e + 1)", f"list_sort({base})", f"{base}[1:1]",
                     f"list_filter({base}, lambda e: e > {number})", f"[e * 2 for e in {base} if e < 4]",
                     f"list_concat({base}, [1])"],
        }[kind]  # fmt: skip
        return rng.choice([*forms, f"coalesce({base}, {self.constant(kind)})", case])

    def made(self, kind: str, scope: Scope) -> str | None:
        """A value of a kind out of columns of others; None where there are none."""
        number, text = self.rng.choice(scope.of("int") or [""]), self.rng.choice(scope.of("str") or [""])
        exact, day = self.rng.choice(scope.of("dec") or [""]), self.rng.choice(scope.of("date") or [""])
        found = {
            "int": f"length({text})" if text else f"month({day})" if day else None,
            "dec": f"({number} % 100)::DECIMAL(9,2)" if number else None,
            "dbl": f"{number}::DOUBLE" if number else None,
            "frac": f"{number} / 3" if number else f"{exact} / 7" if exact else None,
            "str": f"{number}::VARCHAR" if number else f"{day}::VARCHAR" if day else None,
            "date": f"DATE '2026-01-01' + ({number} % 50)::INTEGER" if number else None,
            "ts": f"{day}::TIMESTAMP" if day else None,
            "bool": self.test(scope, 0),
            "list": f"[{number} % 7, 1]" if number else None,
        }[kind]
        return f"({found})" if found is not None and kind != "list" else found

    # ---- aggregates

    def aggregate(self, scope: Scope) -> Aggregate:
        rng = self.rng
        kind = rng.choice(["int", "int", "int", "dec", "dbl", "str", "str", "date", "bool"])
        x = self.value(kind, scope, 0)
        found: list[Aggregate] = [("count(*)", "int"), (f"count({x})", "int"), (f"count(DISTINCT {x})", "int"),
                                  (f"min({x})", kind), (f"max({x})", kind), (f"arg_max({x}, {x})", kind)]  # fmt: skip
        if kind in SUMMED:
            found += [(f"sum({x})", kind)] * 3 + [(f"avg({x})", "frac")] * 2 + [(f"sum(DISTINCT {x})", kind)]
            found += [(f"quantile_disc({x}, 0.25)", kind), (f"mode({x} ORDER BY {x})", kind)]
        if kind == "int":
            found += [(f"list({x} ORDER BY {x} NULLS FIRST)", "list"), (f"list(DISTINCT {x} ORDER BY {x})", "list"),
                      (f"median({x})", "frac"), (f"quantile_cont({x}, 0.3)", "frac"),
                      (f"first({x} ORDER BY {x} DESC NULLS LAST)", "int"), (f"avg(DISTINCT {x})", "frac"),
                      (f"bit_xor({x} % 8)", "int"), (f"max({x}, 2)", "list")]  # fmt: skip
        if kind == "str":
            found += [
                (f"string_agg({x}, ',' ORDER BY {x})", "str"),
                (f"string_agg(DISTINCT {x}, '' ORDER BY {x})", "str"),
            ]
        if kind == "bool":
            found += [(f"bool_or({x})", "bool"), (f"bool_and({x})", "bool"), (f"count_if({x})", "int")]
        sql, made = rng.choice(found)
        if rng.random() < 0.15:
            sql += f" FILTER (WHERE {self.test(scope, 0)})"
        return sql, made

    def aggregate_of(self, kind: str, scope: Scope, keys: Sequence[tuple[str, str]]) -> Aggregate:
        """A value of a kind over groups."""
        own = [key for key in keys if key[1] == kind]
        if own and self.rng.random() < 0.7:
            return self.rng.choice(own)
        for _ in range(12):
            found = self.aggregate(scope)
            if found[1] == kind:
                return found
        return f"max({self.value(kind, scope, 0)})", kind

    def over_aggregates(self, scope: Scope) -> Aggregate:
        x = self.value("int", scope, 0)
        return self.rng.choice([
            (f"count(*) + coalesce(sum({x}), 0)", "int"), (f"CASE WHEN count(*) > 2 THEN max({x}) END", "int"),
            (f"sum({x}) / count(*)", "frac"), (f"max({x}) - min({x})", "int"), (f"count(*) > count({x})", "bool"),
        ])  # fmt: skip

    def aggregate_test(self, scope: Scope) -> str:
        x = self.value("int", scope, 0)
        return self.rng.choice([f"count(*) > {self.rng.randrange(4)}", f"sum({x}) > 3", f"max({x}) IS NOT NULL",
                                f"count(DISTINCT {x}) < 3", f"avg({x}) >= 1"])  # fmt: skip

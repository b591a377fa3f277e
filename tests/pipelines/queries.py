"""Random SELECTs over known relations, out of the whole of what a view may be. Every query has one answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.pipelines.expressions import KINDS, ORDERED, SUMMED, Column, Expressions, Scope

ROWS_MAX = 2500
"""Estimated rows of a join beyond which only an equality is taken."""


@dataclass(frozen=True)
class Relation:
    """What stands in FROM, its columns, and about how many rows it has."""

    sql: str
    columns: tuple[Column, ...]
    rows: int = 40


class Generator(Expressions):
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
        return self.top(made) if self.rng.random() < 0.12 else made

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
            made = self.aggregate if keys or self.rng.random() < 0.4 else self.extreme
            values = [*keys, *(made(scope) for _ in range(self.rng.randint(1, 3)))]
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

"""Random expressions over the columns of a FROM clause: values, conditions, aggregates and windows.

Every one has one value: what depends on an order has a total one, and sums are of values that add up the same in any
order. Kinds of values: ``int``, ``dec``, ``dbl`` (quarters, whose sums are exact), ``frac`` (a DOUBLE that is compared
and shown, never summed), ``str``, ``date``, ``ts``, ``bool``, ``list`` (of integers).
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
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


@dataclass(frozen=True)
class Column:
    name: str
    kind: str


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


class Expressions(ABC):
    """Draws from ``rng``. Subqueries are the business of whoever draws queries."""

    rng: random.Random

    @abstractmethod
    def scalar(self, kind: str, scope: Scope) -> str:
        """A subquery of one value, correlated or not."""

    @abstractmethod
    def subquery_test(self, scope: Scope) -> str:
        """A condition with a subquery."""

    def direction(self) -> str:
        return self.rng.choice(["", " DESC"]) + self.rng.choice([" NULLS FIRST", " NULLS LAST"])

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

    def extreme(self, scope: Scope) -> Aggregate:
        """A value of one row, or one that is kept beside it by addition."""
        rng = self.rng
        kind = rng.choice(["int", "dec", "dbl", "str", "date", "bool"])
        x, y = self.value(kind, scope, 0), self.value(rng.choice(["int", "dec", "str", "date"]), scope, 0)
        order = f"ORDER BY {y}{self.direction()}, {x}{self.direction()}"
        sql, made = rng.choice([
            (f"min({x})", kind), (f"max({x})", kind), (f"arg_max({x}, {y})", kind), (f"min_by({x}, {y})", kind),
            (f"first({x} {order})", kind), (f"last({x} {order})", kind), (f"any_value({x} {order})", kind),
            ("count(*)", "int"), (f"count(DISTINCT {x})", "int"),
        ])  # fmt: skip
        return (f"{sql} FILTER (WHERE {self.test(scope, 0)})" if rng.random() < 0.25 else sql), made

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

"""Types of PostgreSQL with values at their edges, for tests that carry all of them."""

from __future__ import annotations

Case = tuple[str, list[str], str]
"""PostgreSQL type, values at its edges as text, a SQL expression for a random value."""


def _random_inet() -> str:
    octets = "(random() * 255)::int || '.' || (random() * 255)::int || '.0.' || (random() * 9)::int"
    six = "to_hex((random() * 65535)::int) || '::' || to_hex((random() * 9)::int) || ':0:0:' || (random() * 2)::int"
    return f"CASE WHEN random() < 0.5 THEN {octets} ELSE {six} || '/' || (random() * 128)::int END::inet"


def _random_float(function: str) -> str:
    value = "random() * 10 ^ (random() * 60 - 30)"
    return f"{function}({value}, -round(({value})::numeric, 2)::float8)"


def row(*fields: str | None) -> str:
    """A row literal."""
    marked = (None if each is None else each.replace("\\", "\\\\").replace('"', '""') for each in fields)
    return "(" + ",".join("" if each is None else f'"{each}"' for each in marked) + ")"


def line(*elements: str | None) -> str:
    """An array literal."""
    marked = (None if each is None else each.replace("\\", "\\\\").replace('"', '\\"') for each in elements)
    return "{" + ",".join("NULL" if each is None else f'"{each}"' for each in marked) + "}"


EVERYTHING = (
    '(t,"\\\\x00ff",1.50,"{1,NULL}","(2,b)",1.5,"{""a b"",c}",2024-01-01,24:00:00,00:00:00-15:59:59,P1Y2DT-0.5S,'
    '6fa459ea-ee8a-3ca4-894e-db77e160355e,"{""a"": 1}",ok,7,"2024-01-01 00:00:00.000001+00","[1,3)",-0.001,p)'
)
RANDOM_EVERYTHING = (
    "row(true, NULL, random()::numeric, array[3], row(1, '()')::pair, random(), array['\"'], 'infinity', '00:00',"
    " NULL, interval '-1 month', NULL, '[]', 'sad', 8, now(), 'empty', random()::float4, 'p ')::everything"
)

DEEP = [
    row(
        line(row("1.50", "0044-03-15 12:00:00 BC"), None, row(None, None)),
        row("1", 'x,y"\\'),
        "1",
        'a "\\ (",',
        "{24:00-08,NULL}",
        "{(3,4),(1,2);(1,1),(0,0)}",
        "{1,2}",
    ),
    row(*[None] * 7),
    row("{}", "(,)", None, "", "{}", "{}", "{}"),
]
RANDOM_DEEP = (
    "row(array[row(random(), now())::cents, NULL], row(1, 'z')::pair, (random() * 9)::int, md5(random()::text),"
    " array[localtime::timetz], array[box(point(random(), 1), point(2, 3))], array[1])::deep"
)

CASES: list[Case] = [
    ("boolean", ["t", "f"], "random() < 0.5"),
    ("smallint", ["-32768", "32767", "0"], "(random() * 65535 - 32768)::int"),
    ("integer", ["-2147483648", "2147483647"], "(random() * 4e9 - 2e9)::int"),
    ("bigint", ["-9223372036854775808", "9223372036854775807"], "(random() * 1e18)::int8"),
    ("oid", ["0", "4294967295"], "(random() * 4e9)::int8::oid"),
    ("real", ["NaN", "Infinity", "-Infinity", "-0", "1.1", "3.4e38", "1e-45"], "(random() * 1e6)::float4"),
    ("double precision", ["NaN", "Infinity", "-Infinity", "-0", "0.1", "1e308", "5e-324"], "random() * 1e9"),
    ("numeric(12,2)", ["0", "-1.5", "9999999999.99", "-0.01", "0.99", "10000"], "random() * 1e9 - 5e8"),
    ("numeric(18,18)", ["0.999999999999999999", "-0.000000000000000001"], "random() * 0.9"),
    ("numeric(18,0)", ["999999999999999999", "-100000000", "10000"], "random() * 1e17"),
    ("numeric(5,3)", ["1", "-99.999", "0.001"], "random() * 99"),
    ("numeric(18,2)", ["9999999999999999.99", "-9999999999999999.99", "0.01", "100000000"], "random() * 1e15"),
    ("numeric(16,2)", ["99999999999999.99", "-0.01", "10000.1"], "random() * 1e13 - 5e12"),
    ("numeric(18,15)", ["999.999999999999999", "-0.000000000000001", "1"], "random() * 900"),
    ("numeric(17,5)", ["999999999999.99999", "-0.00001"], "random() * 1e11"),
    ("numeric(38,10)", ["1234567890123456789012345678.0123456789", "-0.0000000001"], "random() * 1e20"),
    (
        "numeric",
        [
            "0",
            "-0.00",
            "1e100",
            "123456.789000",
            "NaN",
            "Infinity",
            "-Infinity",
            "0.00001",
            "10000",
            "-0.0000000000001",
        ],
        "(random() * 1e8)::numeric * (random() * 1e8)::numeric",
    ),
    ("numeric(5,-2)", ["12345", "-99900"], "random() * 1e6"),
    ("text", ["", "a", "é😀", "tab\tnew\nline\\", "x" * 5000], "repeat(md5(random()::text), (random() * 4)::int)"),
    ("varchar(20)", ["abc", ""], "left(md5(random()::text), 20)"),
    ("char(5)", ["ab", ""], "left(md5(random()::text), 3)"),
    ("name", ["n"], "md5(random()::text)::name"),
    ('"char"', ["a", ""], 'chr(33 + (random() * 90)::int)::"char"'),
    ("uuid", ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"], "gen_random_uuid()"),
    (
        "date",
        [
            "4713-01-01 BC",
            "5874897-12-31",
            "infinity",
            "-infinity",
            "0001-12-31 BC",
            "0001-01-01",
            "1582-10-10",
            "10000-02-29",
        ],
        "date '2000-01-01' + (random() * 20000 - 10000)::int",
    ),
    ("time", ["00:00", "24:00", "23:59:59.999999", "01:02:03.5"], "time '00:00' + random() * interval '1 day'"),
    (
        "timetz",
        ["00:00+15:59:59", "24:00-08", "12:34:56.789+05:30", "00:00:00.000001-15:59"],
        "(time '00:00' + random() * interval '1 day')::timetz",
    ),
    (
        "timestamp",
        [
            "infinity",
            "-infinity",
            "4713-01-01 00:00:00 BC",
            "294246-12-31 23:59:59.999999",
            "0001-01-01",
            "10000-01-01 00:00:01",
        ],
        "timestamp '2000-01-01' + (random() - 0.5) * interval '200 years'",
    ),
    (
        "timestamptz",
        [
            "infinity",
            "-infinity",
            "4713-01-02 00:00:00+00 BC",
            "294246-12-31 23:59:59.999999+00",
            "2024-01-01 01:02:03.004+05:30",
        ],
        "timestamptz '2000-01-01' + (random() - 0.5) * interval '200 years'",
    ),
    (
        "interval",
        [
            "1 year 2 mons 3 days 04:05:06.789",
            "-1 mon +3 days -00:00:00.000001",
            "0",
            "178000000 years",
            "-3 hours 7.5 seconds",
        ],
        "make_interval((random() * 99)::int, (random() * 11)::int, 0, (random() * 40)::int, 0, 0, random() * 1e5)",
    ),
    ("json", ['{"a": 1}', "null", '  [1,  2.50, "é"] '], "json_build_object('k', random())"),
    ("jsonb", ['{"a": [1, 2.50], "b": "x"}', "null"], "jsonb_build_object('k', random())"),
    ("bytea", ["\\x", "\\x00ff10"], "sha256(random()::text::bytea)"),
    ("mood", ["sad", "ok"], "(array['sad', 'ok'])[1 + (random() * 1.9)::int]::mood"),
    ("positive", ["1", "2147483647"], "1 + (random() * 1e9)::int"),
    ("integer[]", ["{}", "{1,NULL,-3}", "{2147483647}"], "array[(random() * 9)::int, NULL, (random() * 1e9)::int]"),
    (
        "text[]",
        ['{"a,b","c\\"d","e\\\\f",NULL,"NULL",""," x ",é,"{","}"}', "{}", '{"\\\\"}'],
        "array[md5(random()::text), ',', '\"']",
    ),
    ("numeric(10,2)[]", ["{1.25,-3}"], "array[random() * 1e6, NULL]::numeric[]"),
    ("uuid[]", ["{}"], "array[gen_random_uuid()]"),
    ("timestamptz[]", ['{"2024-01-01 00:00:00+00",infinity}'], "array[now()]"),
    ("boolean[]", ["{t,f,NULL}"], "array[random() < 0.5]"),
    ("mood[]", ["{sad,NULL}"], "array['ok']::mood[]"),
    ("pair[]", ['{"(1,x)",NULL,"(,\\"a \\"\\"b\\")"}', "{}"], "array[row(1, random()::text)::pair]"),
    ("inet", ["1.2.3.4", "10.0.0.0/8", "::", "::1", "::ffff:1.2.3.4", "::1.2.3.4/96"], _random_inet()),
    ("inet", ["1::", "1:0:0:2::/64", "0:0:1::", "1:2:3:4:5:6:7:8", "1:0:3:0:5:0:7:0", "::2:0:0:0"], _random_inet()),
    ("cidr", ["10.0.0.0/8", "1.2.3.4/32", "::/0", "2001:db8::/32", "0.0.0.0/0", "::1"], "'10.0.0.0/8'::cidr"),
    ("macaddr", ["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"], "left(md5(random()::text), 12)::macaddr"),
    ("macaddr8", ["08:00:2b:01:02:03:04:05"], "left(md5(random()::text), 16)::macaddr8"),
    ("bit(4)", ["1010", "0000"], "(random() * 15)::int::bit(4)"),
    ("varbit", ["", "1", "10101010101", "11111111"], "(random() * 1e9)::int::bit(29)::varbit"),
    ("point", ["(1,2)", "(NaN,-Infinity)", "(-0,1e-05)", "(1e14,1e15)", "(1e23,5e-324)"], _random_float("point")),
    ("lseg", ["[(1,2),(3,4)]"], "lseg(point(random(), random()), point(random(), 1e20 * random()))"),
    ("box", ["(3,4),(1,2)"], "box(point(random(), random()), point(-random(), random() * 1e-10))"),
    ("box[]", ["{(3,4),(1,2);NULL;(1,1),(0,0)}", "{}"], "array[box(point(random(), 1), point(2, random()))]"),
    ("path", ["[(1,2),(3,4)]", "((1,2))"], "('((1,' || random() || '),(2,3))')::path"),
    ("polygon", ["((1,2),(3,4),(5,6))"], "polygon(circle(point(random(), 0), random()))"),
    ("line", ["{1,-1,0.1}"], "line(point(random(), 1), point(2, random()))"),
    ("circle", ["<(1,2),0.3>"], "circle(point(random(), random()), random() * 1e17)"),
    ("double precision[]", ["{9007199254740993,NaN}"], "array[random(), random() * 1e300]"),
    ("pg_lsn", ["0/0", "FFFFFFFF/FFFFFFFF", "1/A0"], "'0/0'::pg_lsn + (random() * 1e18)::numeric(30,0)"),
    ("xid", ["0", "4294967295"], "(random() * 1e9)::int8::text::xid"),
    ("xid8", ["0", "18446744073709551615"], "(random() * 1e18)::int8::text::xid8"),
    ("cid", ["7"], "(random() * 1e9)::int8::text::cid"),
    ("tid", ["(0,1)", "(4294967295,65535)"], "('(' || (random() * 1e9)::int || ',7)')::tid"),
    ("oidvector", ["", "1 4294967295"], "'5 6'::oidvector"),
    ("int2vector", ["", "-1 32767"], "'5'::int2vector"),
    ("pg_snapshot", ["10:20:10,14,15", "1:1:"], "pg_current_snapshot()"),
    ("jsonpath", ["$.a", "lax $[*] ? (@ > 1)"], "'$.b'::jsonpath"),
    ("refcursor", ["a b"], "md5(random()::text)::refcursor"),
    ("tsvector", ["'a':1A,2 'it''s':3B 'b\\\\c'", "", "é:9C,10", "x y"], "to_tsvector('simple', md5(random()::text))"),
    ("int4range", ["[1,5)", "empty", "(,)", "[1,)", "(,0)"], "int4range(1, 2 + (random() * 9)::int)"),
    ("numrange", ["(1.50,2.0]", "[NaN,NaN]"], "numrange(random()::numeric, 2 + random()::numeric, '[]')"),
    ("daterange", ["[infinity,)", "[4000-01-01 BC,2024-02-29)"], "daterange(current_date, NULL)"),
    (
        "tsrange",
        ["[2024-01-01,infinity)", "(0044-03-15 12:00:00.5 BC,]", "[294276-12-31 23:59:59.999999,)"],
        "tsrange(localtimestamp - random() * interval '9999 days', localtimestamp)",
    ),
    ("tstzrange", ["[2024-01-01 01:02:03.004+05:30,)"], "tstzrange(now() - random() * interval '9 days', now())"),
    ("int8multirange", ["{}", "{[1,3),[5,)}"], "int8multirange(int8range(1, 3), int8range(5, (9 + random())::int8))"),
    ("nummultirange", ["{[1.5,2)}"], "nummultirange(numrange(0, random()::numeric))"),
    ("texts", ["[a,b)", '["","a b"]', '(,"""\\\\")'], "texts(md5(random()::text), NULL)"),
    ("int4range[]", ['{"[1,5)",NULL,empty}'], "array[int4range(1, 5)]"),
    ("pair", ["(1,x)", "(,)", '(,"")', '(1," ""\\\\")'], "row((random() * 9)::int, 'y z')::pair"),
    ("everything", [EVERYTHING, "(" + "," * 18 + ")"], RANDOM_EVERYTHING),
    ("deep", DEEP, RANDOM_DEEP),
    ("deep[]", [line(*DEEP, None), "{}"], f"array[{RANDOM_DEEP}, NULL]"),
    ("alone", ["()", '("")', "(x)"], "row(md5(random()::text))::alone"),
    ("twins", ['(1,"")'], "row(1, 'z')::twins"),
    ("lists", ["{1,2}", "{}"], "array[(random() * 9)::int]"),
    ("positive[]", ["{1,NULL}"], "array[1]::positive[]"),
]
# No binary decoder: these are always read as text.
TEXT_CASES: list[Case] = [
    ("money", ["12.5", "-3"], "(random() * 1000)::numeric::money"),
    ("money[]", ["{12.5,NULL}"], "array[(random() * 1000)::numeric::money]"),
    ("tsquery", ["'a' & !'b'"], "to_tsquery('simple', md5(random()::text))"),
    ("regclass", ["pg_class", "pg_attribute"], "'pg_type'::regclass"),
    ("priced", ["(a,12.5)", "(,)"], "row('x', 3::money)::priced"),
    ("priced[]", ['{"(a,12.5)",NULL}'], "array[row('x', 3::money)::priced]"),
    ("aclitem", ["=r/postgres"], "'=w/postgres'::aclitem"),
    ("aclitem[]", ["{=r/postgres}"], "array['=w/postgres'::aclitem]"),
]
ODD = [
    ("numeric(12,2)", "NaN"),
    ("timestamp", "294276-12-31 23:59:59.999999"),
    ("timestamp", "294247-01-01 00:00:00"),
    ("timestamptz", "294276-12-31 20:59:59.5+00"),
    ("interval", "infinity"),
    ("interval", "-infinity"),
    ("integer[]", "{{1,2},{3,4}}"),
    ("integer[]", "[2:3]={7,8}"),
    ("text[]", '{{a},{"}"}}'),
    ("numeric(10,2)[]", "{1.50,NaN}"),
    ("text[]", '[0:1][5:6]={{NULL,"NULL"},{"","a\\\\\\"b"}}'),
    ("double precision[]", "{{{0.1,1e+15}},{{-0,NaN}}}"),
    ("box[]", "{{(1,1),(0,0)};{(2,2),(1,1)}}"),
    ("interval[]", "{P1Y,infinity}"),
    ("cents", "(NaN,)"),
    ("cents", '(1.50,"294276-12-31 23:59:59.999999")'),
    ("cents[]", '{"(1.00,)",NULL,"(NaN,)"}'),
    ("deep", '("{""(NaN,)""}",,,,,,)'),
    ("deep", '(,,,,,,"{{1,2},{3,4}}")'),
    ("timestamptz[]", '{"2024-01-01 00:00:00+00","294276-12-31 23:59:59.999999+00"}'),
]
TYPES_SQL = """
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE TYPE pair AS (a int, b text); CREATE TYPE texts AS RANGE (subtype = text); CREATE DOMAIN lists AS int[];
CREATE TYPE cents AS (n numeric(5,2), at timestamp); CREATE TYPE alone AS (a text); CREATE DOMAIN twins AS pair;
CREATE TYPE deep AS ("say ""x"" (," cents[], "A" pair, a int, "a.b" text, t timetz[], b box[], l lists);
CREATE TYPE priced AS (what text, price money);
CREATE TYPE everything AS (a bool, b bytea, c numeric, d int[], e pair, f float8, g text[], h date, i time, j timetz,
    k interval, l uuid, m jsonb, n mood, o positive, p timestamptz, q int4range, r float4, s "char");
"""

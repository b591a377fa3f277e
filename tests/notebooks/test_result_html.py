"""The static table of a result: exact, escaped, honest about what it leaves out, and without a script."""

from __future__ import annotations

from html.parser import HTMLParser

from headwater import Lake
from headwater.lake.html import CELL_CHARACTERS_MAX, render


class Cells(HTMLParser):
    """Texts of the body's cells, and every tag met."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag == "td":
            self.inside = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data


def test_a_result_shows_exact_values_and_its_extent(lake: Lake) -> None:
    html = lake.sql("SELECT * FROM orders ORDER BY id")._repr_html_()
    shown = Cells(html)
    assert shown.cells == [
        *("1", "Ada", "12.50"),
        *("2", "NULL", "NULL"),
        *("9007199254740993", "<img src=x onerror=window.hacked=1>", "99999999999999999.99"),
    ]
    assert shown.tags <= {"div", "table", "thead", "tbody", "tr", "th", "td", "span", "br", "i"}
    assert "3 rows · position 1" in html
    assert "decimal(20,2)" in html


def test_hard_values_keep_their_text(lake: Lake) -> None:
    huge = "(-170141183460469231731687303715884105727)::HUGEINT"
    query = f"SELECT {huge}, 0.1::DOUBLE, 'a & b' || chr(10) || '\"c\"', [1, NULL]"
    assert Cells(lake.sql(query)._repr_html_()).cells == [
        "-170141183460469231731687303715884105727",
        "0.1",
        'a & b\n"c"',
        "[1, NULL]",
    ]


def test_what_is_left_out_is_said() -> None:
    html = render(["<b>"], ["VARCHAR"], [("x" * 1000,)], total=12_345, shown=1, position=6789)
    assert "showing 1 of 12,345 rows · position 6,789" in html
    assert Cells(html).cells == ["x" * CELL_CHARACTERS_MAX + "…"]
    assert "&lt;b&gt;" in html
    assert "0 rows" in render(["a"], ["BIGINT"], [], total=0, shown=0, position=0)

"""The dead letters panel: what it answers, and what a person does with it in a real browser, on a real lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from playwright.sync_api import Page, expect

from headwater import Lake
from headwater.log import dead_letters
from headwater.log.system import transaction
from headwater_notebooks.dead_letters_panel import EDITED_MAX, DeadLettersPanel

Show = Callable[..., Page]
CLICKS = "app.clicks"
AT_USER, AT_REF = "InvalidRecords at user", "InvalidRecords at ref"
BAD = "<img src=x onerror=window.hacked=1>"


@pytest.fixture
def clicks(lake: Lake) -> Lake:
    """Two records whose user is no number (letters 1 and 2), one with a column that the topic lacks (letter 3)."""
    lake.create_topic(CLICKS, {"user": "BIGINT", "page": "VARCHAR"})
    with lake.producer(on_error="dead_letter") as producer:
        producer.send("clicks", [{"user": "ann", "page": "/"}, {"user": 1, "page": "/"}, {"user": BAD, "page": "/buy"}])
        producer.send("clicks", [{"user": 9_007_199_254_740_993, "page": "/", "ref": "ad"}])
    return lake


@pytest.fixture
def panel(clicks: Lake) -> Iterator[DeadLettersPanel]:
    made = DeadLettersPanel(clicks.dlq)
    yield made
    made.close()


def rows(lake: Lake) -> list[Any]:
    found: list[Any] = lake.sql("SELECT user, page FROM clicks ORDER BY user").arrow().to_pylist()
    return found


def ask(panel: DeadLettersPanel, op: str, *letters: tuple[int, int], **more: Any) -> dict[str, Any]:
    named = [{"id": str(letter), "tries": tries} for letter, tries in letters]
    return panel.handle({"id": "1", "op": op, "topic": CLICKS, "letters": named, **more})


def what(reply: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["id"], each["what"]) for each in reply["results"]]


# ---- the protocol


def test_causes_and_letters_of_the_most_frequent(panel: DeadLettersPanel) -> None:
    reply = panel.handle({"id": "7", "op": "list"})
    assert [(each["cause"], each["open"]) for each in reply["causes"]] == [(AT_USER, "2"), (AT_REF, "1")]
    assert reply["chosen"] == [CLICKS, AT_USER]
    assert [each["id"] for each in reply["letters"]] == ["1", "2"]
    assert reply["letters"][1]["text"] == f'{{"user": "{BAD}", "page": "/buy"}}'
    again = panel.handle({"id": "8", "op": "list", "since_version": reply["version"]})
    assert again["unchanged"]
    other = panel.handle({"id": "9", "op": "list", "topic": CLICKS, "cause": AT_REF})
    assert [each["field"] for each in other["letters"]] == ["ref"]


def test_a_letter_that_failed_again_is_told(clicks: Lake, panel: DeadLettersPanel) -> None:
    before = panel.handle({"id": "1", "op": "list"})
    clicks.dlq.redrive("clicks", [1])
    after = panel.handle({"id": "2", "op": "list", "since_version": before["version"]})
    assert [each["tries"] for each in after["letters"]] == [2, 1]


def test_pages_follow_the_ids(panel: DeadLettersPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater_notebooks.dead_letters_panel.LETTERS_MAX", 1)
    first = panel.handle({"id": "1", "op": "list"})
    assert ([each["id"] for each in first["letters"]], first["next"]) == (["1"], "1")
    second = panel.handle({"id": "1", "op": "list", "after": first["next"]})
    assert [each["id"] for each in second["letters"]] == ["2"]


def test_a_redrive_says_what_became_of_each(clicks: Lake, panel: DeadLettersPanel) -> None:
    clicks.alter_topic("clicks", description="still without ref")
    reply = ask(panel, "redrive", (3, 1))
    assert what(reply) == [("3", "bad")]
    assert "ref" in reply["results"][0]["said"]
    assert clicks.dlq.show(3)["delivery_count"] == 2


def test_a_request_that_comes_twice_does_nothing_twice(clicks: Lake, panel: DeadLettersPanel) -> None:
    first = ask(panel, "mend", (1, 1), row='{"user": 5, "page": "/"}')
    assert (what(first), first["results"][0]["said"]) == ([("1", "done")], "redriven")
    again = ask(panel, "mend", (1, 1), row='{"user": 5, "page": "/"}')
    assert (what(again), again["results"][0]["said"]) == ([("1", "done")], "redriven already")
    assert [row["user"] for row in rows(clicks)] == [1, 5]
    ask(panel, "redrive", (2, 1))
    again = ask(panel, "redrive", (2, 1))
    assert again["results"][0]["said"].startswith("tried meanwhile")
    assert clicks.dlq.show(2)["delivery_count"] == 2, "it was tried once"
    assert ask(panel, "discard", (2, 2), reason="a test")["results"][0]["said"] == "discarded"
    late = ask(panel, "redrive", (2, 2))
    assert (what(late), late["results"][0]["said"]) == ([("2", "left")], "discarded meanwhile")


def test_a_mended_row_keeps_what_had_come(clicks: Lake, panel: DeadLettersPanel) -> None:
    bad = ask(panel, "mend", (1, 1), row='{"user": "still ann"}')
    assert what(bad) == [("1", "bad")]
    assert "still ann" in bad["results"][0]["said"]
    assert clicks.dlq.show(1)["delivery_count"] == 1, "nothing was changed"
    assert what(ask(panel, "mend", (1, 1), row="[1]")) == [("1", "bad")]
    done = ask(panel, "mend", (1, 1), row='{"user": 9007199254740993, "page": "/mended"}')
    assert what(done) == [("1", "done")]
    assert rows(clicks)[-1] == {"user": 9_007_199_254_740_993, "page": "/mended"}
    kept = clicks.dlq.show(1)
    assert (kept["state"], kept["reason"], kept["original"]) == (
        "redriven",
        "mended by hand",
        b'{"user": "ann", "page": "/"}',
    )


def test_a_row_is_edited_with_every_digit(panel: DeadLettersPanel) -> None:
    reply = panel.handle({"id": "1", "op": "original", "letter": "3"})
    assert reply["original"] == {"id": "3", "tries": 1, "row": '{"user": 9007199254740993, "page": "/", "ref": "ad"}'}


def test_a_wrong_request_is_refused_and_changes_nothing(panel: DeadLettersPanel, clicks: Lake) -> None:
    one = {"topic": CLICKS, "letters": [{"id": "1", "tries": 1}]}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"op": "drop"}, "no operation 'drop'"),
        ({"op": "redrive", "topic": CLICKS, "letters": []}, "list of 1 to 100"),
        ({"op": "redrive", "topic": CLICKS, "letters": [{"id": "1"}]}, "id and tries"),
        ({"op": "redrive", "topic": CLICKS, "letters": [{"id": "1 OR 1=1", "tries": 1}]}, "text of digits"),
        ({"op": "discard", **one}, "needs a reason"),
        ({"op": "mend", **one, "row": "x" * (EDITED_MAX + 1)}, "at most"),
        ({"op": "list", "state": "gone"}, "not 'gone'"),
        ({"op": "original", "letter": "99"}, "no dead letter 99"),
        ({"op": "redrive", **one, "topic": "nothing"}, "nothing"),
    ]
    for request, said in refused:
        assert said in panel.handle({"id": "1", **request})["error"]["what"]
    assert {each.open for each in clicks.dlq.causes()} == {2, 1}


def test_letters_of_a_captured_table_say_why_they_cannot_be_redriven(lake: Lake) -> None:
    with transaction(lake.log, "test") as tx:
        row = {"original": b"\xff\xfe", "format": "text", "error_class": "Odd", "error_message": BAD}
        dead_letters.append(tx, "shop.public.orders", pa.Table.from_pylist([row]))
        tx.commit()
    reply = DeadLettersPanel(lake.dlq).handle({"id": "1", "op": "list"})
    assert "written by source shop" in reply["refused"]
    assert (reply["letters"][0]["text"], reply["letters"][0]["editable"]) == ("fffe", False)


def test_without_a_kernel_there_are_counts_and_five_rows(clicks: Lake) -> None:
    with clicks.producer(on_error="dead_letter") as producer:
        producer.send("clicks", [{"user": f"u{i}"} for i in range(9)])
    bundle, _ = DeadLettersPanel(clicks.dlq)._repr_mimebundle_()
    assert bundle["text/html"].count("<tr") == 2 + 2 + 5
    assert "5 of 12 rows" in bundle["text/html"]
    assert "<img" not in bundle["text/html"]
    assert AT_USER in bundle["text/plain"] == str(clicks.dlq)


# ---- the page


@pytest.fixture
def page(show: Show, panel: DeadLettersPanel) -> Page:
    found = show(panel)
    expect(found.locator(".hw-panel[data-ready='1']")).to_be_visible()
    return found


def letter(page: Page, number: int) -> Any:
    return page.locator(f"[data-letter='{number}']")


def test_shows_causes_and_letters_as_text(page: Page) -> None:
    expect(page.locator(".hw-total")).to_have_text("3 open")
    expect(page.locator(".hw-causes tbody tr")).to_have_count(2)
    expect(page.locator(".hw-causes tr.hw-chosen td").nth(1)).to_have_text(AT_USER)
    expect(letter(page, 2).locator("code")).to_have_text(f'{{"user": "{BAD}", "page": "/buy"}}')
    assert page.evaluate("window.hacked") is None
    page.locator(".hw-causes tbody tr").nth(1).click()
    expect(letter(page, 3).locator(".hw-field")).to_have_text("ref")


def test_nothing_is_redriven_before_somebody_says_yes(page: Page, clicks: Lake) -> None:
    expect(page.get_by_role("button", name="redrive", exact=True)).to_be_disabled()
    letter(page, 1).locator("input").check()
    page.get_by_role("button", name="redrive 1").click()
    page.get_by_role("button", name="cancel").click()
    page.get_by_role("button", name="redrive 1").click()
    page.keyboard.press("Escape")
    assert clicks.dlq.show(1)["delivery_count"] == 1
    page.get_by_role("button", name="redrive 1").click()
    page.locator(".hw-yes").click()
    expect(page.locator(".hw-told strong")).to_have_text("1 still bad")
    expect(page.locator(".hw-told")).to_contain_text("letter 1: still open")
    assert clicks.dlq.show(1)["delivery_count"] == 2
    assert clicks.dlq.show(2)["delivery_count"] == 1, "only what was ticked"


def test_discards_with_a_reason(page: Page, clicks: Lake) -> None:
    page.get_by_label("all letters of this page").check()
    page.get_by_role("button", name="discard 2").click()
    expect(page.locator(".hw-yes")).to_be_disabled()
    page.get_by_label("reason").fill("sent by a test")
    page.get_by_label("reason").press("Enter")
    expect(page.locator(".hw-told strong")).to_have_text("2 done")
    expect(page.locator(".hw-total")).to_have_text("1 open")
    assert {clicks.dlq.show(each)["reason"] for each in (1, 2)} == {"sent by a test"}
    page.get_by_label("which letters").select_option("discarded")
    expect(letter(page, 2).locator(".hw-reason .hw-dim")).to_have_text("sent by a test")


def test_a_row_is_put_right_and_what_was_typed_is_kept(page: Page, clicks: Lake) -> None:
    letter(page, 2).get_by_role("button", name="edit").click()
    field = page.get_by_label("row of letter 2")
    expect(field).to_have_value(f'{{"user": "{BAD}", "page": "/buy"}}')
    field.fill('{"user": "7a", "page": "/buy"}')
    page.locator(".hw-yes").click()
    expect(page.locator(".hw-told")).to_contain_text("7a")
    expect(field).to_have_value('{"user": "7a", "page": "/buy"}')
    field.fill('{"user": 7, "page": "/buy"}')
    page.locator(".hw-yes").click()
    expect(page.locator(".hw-told strong")).to_have_text("1 done")
    assert {"user": 7, "page": "/buy"} in rows(clicks)


def test_a_lost_answer_is_asked_for_again_and_done_once(show: Show, panel: DeadLettersPanel, clicks: Lake) -> None:
    page = show(panel)
    expect(page.locator(".hw-panel[data-ready='1']")).to_be_visible()
    letter(page, 1).get_by_role("button", name="edit").click()
    page.get_by_label("row of letter 1").fill('{"user": 4, "page": "/"}')
    page.evaluate("window.deliver = () => {}; window.hold = true")
    page.locator(".hw-yes").click()
    page.wait_for_function("window.sent.some((request) => request.op === 'mend')")
    page.wait_for_function("window.answers === window.sent.length")
    page.clock.run_for(16_000)
    page.get_by_role("button", name="ask again").click()
    page.wait_for_function("window.sent.filter((request) => request.op === 'mend').length === 2")
    page.wait_for_function("window.answers === window.sent.length")
    page.evaluate("window.release()")
    expect(page.locator(".hw-told")).to_contain_text("letter 1: redriven already")
    assert [row["user"] for row in rows(clicks)] == [1, 4]


def test_ticks_are_the_trait_selection_and_go_when_somebody_else_was_quicker(page: Page, clicks: Lake) -> None:
    letter(page, 1).locator("input").check()
    assert page.evaluate("window.changed.filter(([name]) => name === 'selection')") == [["selection", ["1"]]]
    page.evaluate("window.put('selection', ['2'])")
    expect(letter(page, 2).locator("input")).to_be_checked()
    expect(letter(page, 1).locator("input")).not_to_be_checked()
    clicks.dlq.discard("clicks", [2], reason="by somebody else")
    page.clock.run_for(3_000)
    expect(letter(page, 2)).to_have_count(0)
    expect(page.get_by_role("button", name="redrive", exact=True)).to_be_disabled()


def test_a_lake_without_letters_says_so(show: Show, lake: Lake) -> None:
    page = show(DeadLettersPanel(lake.dlq))
    expect(page.locator(".hw-none")).to_be_visible()
    expect(page.locator(".hw-letters")).to_be_hidden()

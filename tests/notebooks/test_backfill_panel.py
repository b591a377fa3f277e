"""A replay from a notebook: the handle, the panel's answers, and the panel in a real browser with real processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb
import psutil
import pytest
from playwright.sync_api import Page, expect
from tests.waiting import until

from headwater import Lake
from headwater.config import Settings
from headwater.errors import NameNotFound, PipelineError, UsageError
from headwater.lake import open_lake
from headwater.lake.backfill import Backfill
from headwater.lake.backfill_run import Journal, Phase, Run, process_of
from headwater_notebooks.backfill_panel import BackfillPanel
from headwater_pipelines import api
from headwater_pipelines.runtime import worker
from headwater_pipelines.runtime.state import FILE

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

Show = Callable[..., Page]
WRONG = "<img src=x onerror=window.hacked=1>"
PROCESSES_S = 60_000
"""Milliseconds that a page waits for what a process does, on a busy machine."""


def run_views(shop: Shop) -> None:
    worker.run(shop.log, Settings(), threading.Event(), until_caught_up=True)


@pytest.fixture
def viewed(shop: Shop, lake: Lake) -> Lake:
    """A view of what each customer has bought, as it should be."""
    api.create_view(shop.log, "SELECT customer, sum(total) AS total FROM orders GROUP BY customer", name="totals")
    run_views(shop)
    return lake


@pytest.fixture
def wrong(shop: Shop, viewed: Lake) -> Lake:
    """The same, with what is stored for its groups wrong for a step: readers see it."""
    with duckdb.connect(str(shop.folder / "lake" / "state" / FILE)) as state:
        (table,) = next(
            iter(state.execute("SELECT table_name FROM duckdb_tables() WHERE table_name LIKE '%_open'").fetchall())
        )
        state.execute(f'UPDATE "{table}" SET s_x0 = s_x0 + 1000')
    shop.commit("c", (4, "Ada", "1.00"))
    run_views(shop)
    return viewed


def told(lake: Lake, phase: Phase, **more: Any) -> Run:
    """A run as its process, which is this one, would tell of it."""
    me = psutil.Process()
    known = {"id": "a1", "view": "totals", "after": 0, "upto": 1, "rows": 1_000_000, "asked": ("", "")}
    now = {"began": time.time() - 2, "pid": os.getpid(), "process": me.create_time()}
    return Journal.of(lake.log, "totals").tell(Run(**{**known, **now, "phase": phase, **more}))


SAME = {"rows": 3, "distinct": 3, "checksum": "00000000000000aa"}
OTHER = {"rows": 2, "distinct": 2, "checksum": "00000000000000bb"}


def compared(missing: int, extra: int, *sample: dict[str, Any]) -> dict[str, Any]:
    live = OTHER if missing or extra else SAME
    return {"replayed": SAME, "live": live, "missing": missing, "extra": extra, "sample": list(sample)}


@contextmanager
def shown(show: Show, lake: Lake, **options: Any) -> Iterator[Page]:
    page = show(BackfillPanel(lake.replay("totals", **options)))
    expect(page.locator(".hw-panel[data-ready='1']")).to_be_visible()
    yield page


def press(page: Page, name: str) -> None:
    page.locator(".hw-doing").get_by_role("button", name=name).click()


# ---- the handle and the answers


def test_a_plan_says_what_would_be_read(viewed: Lake, shop: Shop) -> None:
    plan = viewed.replay("totals").plan()
    assert (plan.after, plan.upto, plan.rows, plan.files) == (1, 1, 3, 1)
    assert plan.bytes > 0
    shop.commit("u", (1, "Ada", "13.00"))
    run_views(shop)
    assert viewed.replay("totals", start=0).plan().rows == 4
    assert viewed.replay("totals", stop=2).plan().upto == 1, "published by commit 2"
    with pytest.raises(NameNotFound, match="totls"):
        viewed.replay("totls")
    with pytest.raises(UsageError, match="behind its end"):
        viewed.replay("totals", start=2, stop=2)


def test_what_a_run_has_told_is_seen_by_every_handle(viewed: Lake, shop: Shop) -> None:
    assert viewed.replay("totals").progress is None
    told(viewed, "making", done=250_000)
    with open_lake(shop.folder) as later:
        progress = later.replay("totals").progress
    assert progress is not None
    assert (progress.phase, progress.fraction, progress.done) == ("making", 0.25, 250_000)
    # It was told as begun two seconds ago; a busy machine takes some more to ask.
    assert progress.rows_per_s is not None
    assert progress.left_s is not None
    assert 12_500 < progress.rows_per_s <= 125_000
    assert progress.rows_per_s * progress.left_s == pytest.approx(750_000)
    done = told(viewed, "done", found=compared(0, 0))
    assert "3 replayed, 3 live" in str(viewed.replay("totals"))
    assert repr(done).startswith("replay of view totals\n  run        done, commits 0 to 1")


def test_a_run_whose_process_is_gone_has_failed(viewed: Lake) -> None:
    told(viewed, "making", pid=2**22 + 1)
    state = viewed.replay("totals").state
    assert state is not None
    assert (state.phase, state.error) == ("failed", "its process ended without a word")
    with pytest.raises(PipelineError, match="failed: its process ended"):
        viewed.replay("totals").follow()


def test_a_second_one_waits_its_turn(viewed: Lake) -> None:
    told(viewed, "making")
    with pytest.raises(UsageError, match="is running since"):
        viewed.replay("totals").begin()
    reply = BackfillPanel(viewed.replay("totals")).handle({"id": "1", "op": "start", "seen": "a1"})
    assert "is running since" in reply["error"]["what"]


def test_a_start_that_comes_twice_starts_once(viewed: Lake) -> None:
    run = told(viewed, "done", found=compared(0, 0))
    panel = BackfillPanel(viewed.replay("totals"))
    reply = panel.handle({"id": "1", "op": "start", "seen": "", "promote": True})
    assert reply["run"]["id"] == run.id, "another has begun one since this page saw none"
    late = panel.handle({"id": "2", "op": "cancel", "run": "of-before"})
    assert late["run"]["phase"] == "done"


def test_wrong_requests_are_refused(viewed: Lake) -> None:
    panel = BackfillPanel(viewed.replay("totals"))
    for request, said in (
        ({"op": "drop"}, "no operation"),
        ({"op": "start"}, "id of the run that was seen"),
        ({"op": "start", "seen": "", "promote": "yes"}, "promote is true or false"),
        ({"op": "cancel"}, "id of the run that it means"),
    ):
        assert said in panel.handle({"id": "1", **request})["error"]["what"]
    assert viewed.replay("totals").state is None


def test_nothing_new_is_unchanged(viewed: Lake) -> None:
    panel = BackfillPanel(viewed.replay("totals"))
    first = panel.handle({"id": "1", "op": "state"})
    assert first["plan"]["rows"] == "3"
    assert panel.handle({"id": "2", "op": "state", "since_version": first["version"]})["unchanged"]


def test_without_a_kernel_it_is_a_table(viewed: Lake) -> None:
    told(viewed, "failed", error=f"no memory {WRONG}")
    bundle, _ = BackfillPanel(viewed.replay("totals"))._repr_mimebundle_()
    assert "about 3 records" in bundle["text/html"]
    assert "no memory &lt;img" in bundle["text/html"]
    assert "replay of view totals" in bundle["text/plain"]


# ---- the page, over what runs have told


def test_shows_a_plan_and_then_how_far_it_is(show: Show, viewed: Lake) -> None:
    with shown(show, viewed) as page:
        expect(page.locator(".hw-plan")).to_contain_text("about 3 records in 1 file")
        expect(page.locator("[aria-current='step']")).to_have_text("plan")
        told(viewed, "making", done=250_000)
        page.clock.run_for(3_000)
        expect(page.locator("[aria-current='step']")).to_have_text("make the rows")
        expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "25")
        expect(page.locator(".hw-figures")).to_contain_text("250,000 of about 1,000,000 records")
        expect(page.locator(".hw-figures")).to_contain_text("left")
        expect(page.locator(".hw-doing").get_by_role("button", name="start")).to_be_hidden()
        assert ["phase", "making"] in page.evaluate("window.changed")


def test_shows_what_differs_as_text(show: Show, viewed: Lake) -> None:
    row = {"customer": WRONG, "total": None, "_replayed": 1, "_live": 0}
    told(viewed, "done", found=compared(1, 0, row))
    with shown(show, viewed) as page:
        expect(page.locator(".hw-result")).to_contain_text("other rows")
        expect(page.locator(".hw-checks tr[data-same='false']")).to_have_count(4)
        expect(page.locator(".hw-sample tbody td")).to_have_text([WRONG, "NULL", "1", "0"])
        expect(page.locator(".hw-sample th")).to_have_text(["customer", "total", "times replayed", "times live"])
        expect(page.locator(".hw-doing").get_by_role("button", name="promote")).to_be_visible()
        assert page.evaluate("window.hacked") is None
        told(viewed, "failed", error="it needs more memory than there is")
        page.clock.run_for(3_000)
        expect(page.locator(".hw-result")).to_contain_text("Failed after 2.0 s. it needs more memory")
        expect(page.locator(".hw-doing").get_by_role("button", name="promote")).to_be_hidden()


def test_nothing_is_promoted_before_somebody_says_yes(show: Show, viewed: Lake) -> None:
    told(viewed, "done", found=compared(1, 1))
    with shown(show, viewed) as page:
        expect(page.locator(".hw-total")).to_have_text("view totals")
        press(page, "promote")
        expect(page.locator(".hw-question")).to_contain_text("Make view totals once more")
        page.get_by_role("button", name="cancel", exact=True).click()
        assert page.evaluate("window.sent.every((request) => request.op === 'state')")
    with shown(show, viewed, promote=True) as page:
        press(page, "start anew")
        expect(page.locator(".hw-question")).to_contain_text("put it in the live view's place")
        page.keyboard.press("Escape")
        assert page.evaluate("window.sent.every((request) => request.op === 'state')")


# ---- with real processes


@pytest.mark.long
def test_a_view_that_is_wrong_is_found_out_and_promoted_from_the_panel(show: Show, wrong: Lake, shop: Shop) -> None:
    def total() -> Any:
        return wrong.sql("SELECT total FROM totals WHERE customer = 'Ada'").arrow().to_pylist()[0]["total"]

    assert total() != 13.5
    with shown(show, wrong) as page:
        page.get_by_label("keep the rows").check()
        press(page, "start")
        follow(page, "done")
        expect(page.locator(".hw-result")).to_contain_text("The live view has other rows")
        expect(page.locator(".hw-sample tbody tr")).not_to_have_count(0)
        assert total() != 13.5, "nothing of the live view has changed"
        assert (shop.folder / "replays" / "totals.parquet").exists()
        page.get_by_label("keep the rows").uncheck()
        press(page, "promote")
        page.locator(".hw-yes").click()
        page.wait_for_function("document.querySelector('.hw-panel').dataset.phase !== 'done'")
        follow(page, "done")
        expect(page.locator(".hw-result")).to_contain_text("Promoted at commit")
    assert float(total()) == 13.5
    state = wrong.replay("totals").state
    assert state is not None
    assert state.commit == wrong.position()


def follow(page: Page, phase: str) -> None:
    """Let the page ask until a run is in this phase; the page's clock is the test's."""

    def reached() -> bool:
        page.clock.run_for(1_000)
        return bool(page.evaluate(f"document.querySelector('.hw-panel').dataset.phase === '{phase}'"))

    until(reached, seconds=PROCESSES_S / 1e3)


@pytest.mark.long
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_detaches_and_another_kernel_sees_the_end(viewed: Lake, shop: Shop) -> None:
    handle = viewed.replay("totals")
    handle.begin()
    interrupting = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    interrupting.start()
    run = handle.follow()
    interrupting.join()
    assert not run.ended, "it was left alone"
    with open_lake(shop.folder) as other:
        done = other.replay("totals").follow()
    assert (done.phase, done.is_same, done.id) == ("done", True, run.id)


@pytest.mark.long
def test_a_cancelled_replay_leaves_the_live_view_as_it_is(viewed: Lake, shop: Shop) -> None:
    handle = viewed.replay("totals")
    api.pause_pipeline(shop.log, "a test")  # so that a switch would have to wait
    before = viewed.position()
    begun = handle.begin(promote=False)
    until(lambda: is_working(handle))
    handle.cancel(begun.id)
    until(lambda: not is_working(handle))
    ended = handle.state
    assert ended is not None
    assert ended.phase in ("cancelled", "done")  # it may have been quicker
    assert viewed.position() == before
    assert not shop.log.replacements()


def is_working(handle: Backfill) -> bool:
    run = handle.state
    return run is not None and process_of(run) is not None


@pytest.mark.long
def test_what_fails_says_why(viewed: Lake, shop: Shop) -> None:
    handle: Backfill = viewed.replay("totals")
    api.pause_pipeline(shop.log, "a test")
    with pytest.raises(PipelineError, match="paused by a test"):
        handle.promote()
    state = handle.state
    assert state is not None
    assert (state.phase, state.commit) == ("failed", 0)

"""Dead letters as a panel: why records were set aside, the records themselves, and what a person decides about them.

A request that changes something names each letter with how often it had failed when the person saw it. One that
has moved on since is left alone and answered with what became of it: so a request that comes twice does nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import traitlets
import xxhash

from headwater.client.letters import Cause, State, decoded, row_text
from headwater.errors import HeadwaterError, UsageError
from headwater.lake.letters import Letters
from headwater.log import dead_letters, read
from headwater_notebooks.panel import Panel

CAUSES_MAX: Final = 200
LETTERS_MAX: Final = 100
"""Letters of one page, and of one request that changes some."""
TEXT_MAX: Final = 400
"""Characters of an original in the list; of a reason as well."""
EDITED_MAX: Final = 65_536
"""Characters of a row that can be edited in the page."""
_REASON_MAX: Final = 1_000

_Act = Literal["redrive", "discard", "mend"]
_DONE: Final = {"redrive": "redriven", "discard": "discarded", "mend": "redriven"}


class DeadLettersPanel(Panel):
    """Follows a lake's dead letters. ``selection``: the ids of the letters that are ticked, as texts; both ways."""

    module = "dead_letters_panel"

    selection = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _interval_ms = traitlets.Int(1000).tag(sync=True)

    def __init__(self, letters: Letters, *, interval: float = 1.0) -> None:
        self.letters = letters
        super().__init__(_interval_ms=max(100, round(interval * 1000)))

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """``list``; ``original`` of one letter; ``redrive``, ``discard`` and ``mend``, answered with ``results``."""
        if op == "original":
            return self._original(_id(request.get("letter"))) | self._listing(request, None)
        if op in get_args(_Act):
            return {"results": self._act(op, request)} | self._listing(request, None)  # type: ignore[arg-type]
        if op != "list":
            return super().answer(op, request)
        return self._listing(request, request.get("since_version"))

    def static_html(self) -> str:
        return self.letters.static_html()

    def __repr__(self) -> str:
        return str(self.letters)

    # ---- reading

    def _listing(self, request: Mapping[str, Any], since: object) -> dict[str, Any]:
        """Causes, and a page of letters of the one that is asked for; the first one without."""
        causes = self.letters.causes()
        topic, cause = _text(request, "topic"), _text(request, "cause")
        state = _text(request, "state") or "open"
        if state not in get_args(State):
            raise UsageError(f"letters are {', '.join(get_args(State))}, not {state!r}")
        chosen = next((each for each in causes if (each.topic, each.cause) == (topic, cause)), None)
        if chosen is None and causes:
            chosen = max(causes, key=lambda each: each.open)
        after = _id(request.get("after") or "0")
        position = self.letters.log.newest_commit()
        # A letter that moves leaves its cause's counts, or gets a new record: without either its bytes are not read.
        moved = None if chosen is None else self._moved(chosen.topic, position)
        known = [list(vars(each).values()) for each in causes]
        version = xxhash.xxh3_64_hexdigest(repr((known, chosen, state, after, moved)).encode())
        head = {"version": version, "position": str(position)}
        if version == since:
            return {**head, "unchanged": True}
        found: list[dict[str, Any]] = []
        if chosen is not None:
            page = self.letters.letters(chosen.topic, state, cause=chosen.cause, after=after, limit=LETTERS_MAX)  # type: ignore[arg-type]
            found = [_document(each) for each in page.to_pylist()]
        shown = {
            "causes": [_counts(each) for each in causes[:CAUSES_MAX]],
            "more_causes": max(0, len(causes) - CAUSES_MAX),
            "open": str(sum(each.open for each in causes)),
            "chosen": None if chosen is None else [chosen.topic, chosen.cause],
            "state": state,
            "letters": found,
            "next": found[-1]["id"] if len(found) == LETTERS_MAX else None,
            "refused": None if chosen is None else self._refused(chosen.topic),
        }
        return {**head, **shown}

    def _moved(self, topic: str, upto: int) -> tuple[int, ...]:
        """The newest commit with letters of a topic."""
        log = self.letters.log
        return read.newest(log, [(log.topic(dead_letters.name_of(topic)), upto)])

    def _refused(self, topic: str) -> str | None:
        """Why letters of a topic cannot be redriven."""
        try:
            self.letters.require_redrivable(topic)
        except UsageError as error:
            return str(error)
        return None

    def _original(self, letter: int) -> dict[str, Any]:
        """The row to be edited, whole; an error where it is none, or too long for a page."""
        found = self.letters.show(letter)
        row = row_text(found)
        if row is None:
            raise UsageError(f"letter {letter} is no row that could be edited", todo="Discard it with a reason.")
        if len(row) > EDITED_MAX:
            todo = f"Use lake.dlq.mend({letter}, row) in a cell."
            raise UsageError(f"letter {letter} has {len(row):,} characters, too many to edit here", todo=todo)
        return {"original": {"id": str(letter), "tries": found["delivery_count"], "row": row}}

    # ---- changing

    def _act(self, op: _Act, request: Mapping[str, Any]) -> list[dict[str, str]]:
        """What became of each letter, in the order in which they were named."""
        topic, named = _text(request, "topic"), _named(request)
        now = {each["id"]: each for each in self.letters.several(topic, list(named)).to_pylist()}
        due = [i for i, tries in named.items() if i in now and _is_as_seen(now[i], tries)]
        said: dict[int, str] = {}
        if due:
            said = self._do(op, topic, due, request)
        after = {each["id"]: each for each in self.letters.several(topic, list(named)).to_pylist()}
        return [_result(op, i, after.get(i), i in due, said.get(i)) for i in named]

    def _do(self, op: _Act, topic: str, ids: Sequence[int], request: Mapping[str, Any]) -> dict[int, str]:
        """Do it; of a letter that nothing could be done about, why."""
        if op == "discard":
            self.letters.discard(topic, ids, reason=_text(request, "reason")[:_REASON_MAX])
        elif op == "redrive":
            self.letters.redrive(topic, ids)
        else:
            row = _text(request, "row")
            if len(ids) != 1 or len(row) > EDITED_MAX:
                raise UsageError(f"one letter at a time is mended, by at most {EDITED_MAX:,} characters")
            try:
                self.letters.mend(ids[0], row)
            except HeadwaterError as error:
                return {ids[0]: str(error)}
        return {}


def _is_as_seen(letter: Mapping[str, Any], tries: int) -> bool:
    return bool(letter["state"] == "open" and letter["delivery_count"] == tries)


def _result(op: _Act, letter: int, now: Mapping[str, Any] | None, tried: bool, said: str | None) -> dict[str, str]:
    """``what``: done, still bad, or left alone."""
    if now is None:
        return {"id": str(letter), "what": "left", "said": "is not there any more"}
    state, told = now["state"], said or now["error_message"] or now["error_class"]
    if state == _DONE[op]:
        return {"id": str(letter), "what": "done", "said": state if tried else f"{state} already"}
    if state != "open":
        return {"id": str(letter), "what": "left", "said": f"{state} meanwhile"}
    if tried:
        return {"id": str(letter), "what": "bad", "said": f"still open: {told}"[:TEXT_MAX]}
    return {"id": str(letter), "what": "bad", "said": f"tried meanwhile, still open: {told}"[:TEXT_MAX]}


def _counts(cause: Cause) -> dict[str, str]:
    counts = {name: str(getattr(cause, name)) for name in ("open", "redriven", "discarded")}
    times = {name: getattr(cause, name).isoformat() for name in ("first", "last")}
    return {"topic": cause.topic, "cause": cause.cause[:TEXT_MAX], **counts, **times}


def _document(letter: Mapping[str, Any]) -> dict[str, Any]:
    original = decoded(dict(letter))
    text = original if isinstance(original, str) else row_text(dict(letter)) or json.dumps(original, default=str)
    place = "" if letter["offset"] is None else f"partition {letter['partition']}, offset {letter['offset']}"
    return {
        "id": str(letter["id"]),
        "tries": letter["delivery_count"],
        "failed": letter["last_failure_at"].isoformat(),
        "reason": (letter["error_message"] or letter["error_class"])[:TEXT_MAX],
        "field": letter["error_field"],
        "group": letter["group"],
        "place": place,
        "said": letter["reason"] or "",
        "text": text[:TEXT_MAX],
        "cut": len(text) > TEXT_MAX,
        "bytes": len(letter["original"]),
        "editable": isinstance(original, dict) and len(text) <= EDITED_MAX,
    }


def _named(request: Mapping[str, Any]) -> dict[int, int]:
    """Ids of the letters of a request, each with how often it had failed when it was seen."""
    value = request.get("letters")
    if not isinstance(value, list) or not 1 <= len(value) <= LETTERS_MAX:
        raise UsageError(f"letters is a list of 1 to {LETTERS_MAX} objects with id and tries")
    found = {}
    for each in value:
        tries = each.get("tries") if isinstance(each, Mapping) else None
        if isinstance(tries, bool) or not isinstance(tries, int):
            raise UsageError("each of letters is an object with id and tries")
        found[_id(each.get("id"))] = tries
    return found


def _id(value: object) -> int:
    """A letter's id, which travels as text."""
    if not isinstance(value, str) or not value.isdigit() or len(value) > 19:
        raise UsageError(f"a letter's id is a text of digits, not {json.dumps(value, default=str)[:40]}")
    return int(value)


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{name} is a text, not {json.dumps(value, default=str)[:80]}")
    return value or ""

"""What a producer gives back for rows it accepted: a promise, then the place where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from headwater.errors import HeadwaterError, NotDelivered


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of a batch.

    ``commit`` published it (None: a relaxed producer does not wait for that, or nothing was left to write).
    ``offsets`` are the new records' by partition. ``rows`` entered the topic, ``duplicates`` were dropped because
    their event id had come before, ``dead_letters`` went to the dead letter topic in the same commit. ``repeated``:
    this batch was in the log already, and was not written again.
    """

    commit: int | None
    rows: int
    offsets: Mapping[int, range] = field(default_factory=dict)
    duplicates: int = 0
    dead_letters: int = 0
    repeated: bool = False


class Delivery:
    """The promise for one ``send``. Thread-safe."""

    def __init__(self, hurry: Callable[[], None], acknowledged: Receipt | None = None) -> None:
        self._future: Future[Receipt] = Future()
        self._hurry = hurry
        self._acknowledged = acknowledged
        self.seen = False
        """Whether anyone has asked how it went: a failure that nobody saw is raised by ``flush``."""

    def done(self) -> bool:
        return self._acknowledged is not None or self._future.done()

    @property
    def settled(self) -> bool:
        """Whether it was committed or has failed, however early it was acknowledged."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Receipt:
        """Wait for the commit; whoever waits makes the producer commit without lingering.

        Raises what the commit failed with, in which case none of the batch is in the log, unless the error says
        that the outcome is unknown; NotDelivered after ``timeout`` seconds, the batch being on its way still.
        """
        if self._acknowledged is not None:
            return self._acknowledged
        if not self._future.done():
            self._hurry()
        try:
            receipt = self._future.result(timeout)
        except TimeoutError as error:
            raise NotDelivered(f"not committed within {timeout:g} s", todo="It is on its way; wait again.") from error
        finally:
            self.seen = self.seen or self._future.done()
        return receipt

    def wait(self) -> HeadwaterError | None:
        """Wait until it is settled; what it failed with, which counts as seen, or None."""
        self._hurry()
        failure = self._future.exception()
        self.seen = True
        return failure if isinstance(failure, HeadwaterError) else None

    def error(self) -> HeadwaterError | None:
        """What a finished delivery failed with; None for success, and as long as it is under way."""
        failure = self._future.exception() if self._future.done() else None
        return failure if isinstance(failure, HeadwaterError) else None

    def add_done_callback(self, call: Callable[[Delivery], None]) -> None:
        """Have ``call(delivery)`` run by the sending thread once the commit is there or has failed."""

        def tell(_: Future[Receipt]) -> None:
            self.seen = True
            call(self)

        self._future.add_done_callback(tell)

    def succeed(self, receipt: Receipt) -> None:
        self._future.set_result(receipt)

    def fail(self, error: BaseException) -> None:
        self._future.set_exception(error)

"""The events of Nexmark: people, auctions and bids of an auction house, in any number, the same ones for a seed.

Written from the specification: of every fifty events the first is a person, three are auctions, 46 bids. What an event
holds follows from (seed, its number) alone, whatever the batches are. Where implementations differ: bidders' ids begin
at 1000 like those of all people, and every second bid comes through one of four channels with a name.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headwater.schema import Schema

Numbers = npt.NDArray[np.int64]

TABLES = {
    "person": Schema.of(
        id="BIGINT", name="VARCHAR", email_address="VARCHAR", credit_card="VARCHAR", city="VARCHAR", state="VARCHAR",
        date_time="TIMESTAMP", extra="VARCHAR",
    ),
    "auction": Schema.of(
        id="BIGINT", item_name="VARCHAR", description="VARCHAR", initial_bid="BIGINT", reserve="BIGINT",
        date_time="TIMESTAMP", expires="TIMESTAMP", seller="BIGINT", category="BIGINT", extra="VARCHAR",
    ),
    "bid": Schema.of(
        auction="BIGINT", bidder="BIGINT", price="BIGINT", channel="VARCHAR", url="VARCHAR", date_time="TIMESTAMP",
        extra="VARCHAR",
    ),
}  # fmt: skip
SIDE_INPUT = Schema.of({"key": "BIGINT", "value": "VARCHAR"}, key=["key"])
SIDE_ROWS = 10_000

PEOPLE, AUCTIONS, ALL = 1, 3, 50
"""Of every fifty events."""
FIRST_ID, FIRST_CATEGORY, CATEGORIES = 1000, 10, 5
ACTIVE_PEOPLE, IN_FLIGHT, AHEAD = 1000, 100, 10
"""People who still bid or sell, auctions that are open, and ids that are used before their event."""
HOT_AUCTION, HOT_SELLER, HOT_BIDDER, HOT_CHANNEL = 2, 4, 4, 2
"""One in so many is not a hot one."""
CHANNELS = 10_000
SIZES = {"person": 200, "auction": 500, "bid": 100}
"""Mean bytes of an event; ``extra`` pads it."""

_FIRST = pa.array(["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"])
_LAST = pa.array(["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"])
_STATES = pa.array(["AZ", "CA", "ID", "OR", "WA", "WY"])
_CITIES = pa.array(
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"]
)
_HOT_CHANNELS = ["Google", "Facebook", "Baidu", "Apple"]


@dataclass(frozen=True)
class Generator:
    """``rate`` events a second of event time, from ``start_us`` on; in groups of ``disorder`` they change places."""

    seed: int = 1
    rate: int = 100_000
    start_us: int = 1_767_225_600_000_000
    disorder: int = 1

    def events(self, first: int, count: int) -> dict[str, pa.Table]:
        """The events numbered from ``first`` on, by table, in their order."""
        given = np.arange(first, first + count, dtype=np.int64)
        number = given // self.disorder * self.disorder + given * 953 % self.disorder
        place = number % ALL
        return {
            "person": self._people(number[place < PEOPLE]),
            "auction": self._auctions(number[(place >= PEOPLE) & (place < PEOPLE + AUCTIONS)]),
            "bid": self._bids(number[place >= PEOPLE + AUCTIONS]),
        }

    # ---- tables

    def _people(self, e: Numbers) -> pa.Table:
        draw = _Draws(self.seed, e)
        name = _joined(draw.choice("first", _FIRST), draw.choice("last", _LAST), separator=" ")
        email = _joined(draw.text("mail", 7), "@", draw.text("host", 5), ".com")
        digits = [_digits(draw.below(f"card{group}", 10_000)) for group in range(4)]
        card = _joined(*digits, separator=" ")
        city, state = draw.choice("city", _CITIES), draw.choice("state", _STATES)
        used = 8 + _lengths(_joined(name, email, card, city, state))
        extra = draw.extra(used, SIZES["person"])
        return _table("person", _last_person(e) + FIRST_ID, name, email, card, city, state, self._time(e), extra)

    def _auctions(self, e: Numbers) -> pa.Table:
        draw = _Draws(self.seed, e)
        name, description = draw.text("item", 20), draw.text("description", 100)
        first_bid = draw.price("first")
        time = self._time_us(e)
        horizon = (self._time_us(e + IN_FLIGHT * ALL // AUCTIONS) - time) // 1_000
        expires = time + 1_000 * (1 + draw.below("expires", np.maximum(horizon * 2, 1)))
        hot = _last_person(e) // 100 * 100
        seller = np.where(draw.below("hot", HOT_SELLER) > 0, hot, draw.person("seller")) + FIRST_ID
        extra = draw.extra(48 + _lengths(name) + _lengths(description), SIZES["auction"])
        return _table(
            "auction", _last_auction(e) + FIRST_ID, name, description, first_bid, first_bid + draw.price("reserve"),
            self._time(e), _timestamps(expires), seller, FIRST_CATEGORY + draw.below("category", CATEGORIES), extra,
        )  # fmt: skip

    def _bids(self, e: Numbers) -> pa.Table:
        draw = _Draws(self.seed, e)
        last = _last_auction(e)
        lowest = np.maximum(last - IN_FLIGHT, 0)
        cold = lowest + draw.below("auction", last - lowest + 1 + AHEAD)
        auction = np.where(draw.below("hot_auction", HOT_AUCTION) > 0, last // 100 * 100, cold) + FIRST_ID
        hot = _last_person(e) // 100 * 100 + 1
        bidder = np.where(draw.below("hot_bidder", HOT_BIDDER) > 0, hot, draw.person("bidder")) + FIRST_ID
        named = draw.below("hot_channel", HOT_CHANNEL) > 0
        place = np.where(named, draw.below("named", len(_HOT_CHANNELS)), 4 + draw.below("channel", CHANNELS))
        channels, urls = self._channels
        return _table(
            "bid", auction, bidder, draw.price("price"), channels.take(pa.array(place)), urls.take(pa.array(place)),
            self._time(e), draw.extra(np.full(len(e), 32), SIZES["bid"]),
        )  # fmt: skip

    @cached_property
    def _channels(self) -> tuple[pa.Array, pa.Array]:
        """Names and addresses of the four with a name, then of the others; nine of ten of these tell their number."""
        number = np.arange(len(_HOT_CHANNELS) + CHANNELS, dtype=np.int64)
        draw = _Draws(self.seed + 1, number)
        parts = _joined(*(draw.text(f"url{part}", 5, "_") for part in range(3)), separator="/")
        plain = _joined("https://www.nexmark.com/", parts, "/item.htm?query=1")
        other = number - len(_HOT_CHANNELS)
        told = _joined(plain, "&channel_id=", pa.array(_reversed_bits(other)).cast(pa.string()))
        tells = (other >= 0) & (draw.below("tells", 10) > 0)
        names = _joined("channel-", pa.array(other).cast(pa.string()))
        names = pa.concat_arrays([pa.array(_HOT_CHANNELS), names[len(_HOT_CHANNELS) :]])
        return names, pc.if_else(pa.array(tells), told, plain)

    # ---- time

    def _time_us(self, e: Numbers) -> Numbers:
        """Whole milliseconds."""
        return self.start_us + e * 1_000_000 // self.rate // 1_000 * 1_000

    def _time(self, e: Numbers) -> pa.Array:
        return _timestamps(self._time_us(e))


def side_input() -> pa.Table:
    """The rows that q13 looks bids up in."""
    key = np.arange(SIDE_ROWS, dtype=np.int64)
    return pa.table({"key": pa.array(key), "value": pa.array(key).cast(pa.string())})


def _last_person(e: Numbers) -> Numbers:
    return e // ALL


def _last_auction(e: Numbers) -> Numbers:
    """The newest auction at an event: before an epoch's person its own are not there yet."""
    epoch, place = e // ALL, e % ALL
    offset = np.where(place < PEOPLE, -1, np.where(place >= PEOPLE + AUCTIONS, AUCTIONS - 1, place - PEOPLE))
    return epoch * AUCTIONS + offset


class _Draws:
    """Random values of events, each named one independent of the others: a hash of seed, name and number."""

    def __init__(self, seed: int, events: Numbers) -> None:
        self.seed = seed
        self.events = events

    def bits(self, name: str) -> npt.NDArray[np.uint64]:
        salt = np.array([zlib.crc32(name.encode()) + self.seed * 1_000_003], np.uint64)
        return _mixed(_mixed(salt) + self.events.astype(np.uint64))

    def share(self, name: str) -> npt.NDArray[np.float64]:
        """Uniform in [0, 1)."""
        return (self.bits(name) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, name: str, limit: int | Numbers) -> Numbers:
        return (self.share(name) * limit).astype(np.int64)

    def choice(self, name: str, values: pa.Array) -> pa.Array:
        return values.take(pa.array(self.below(name, len(values))))

    def price(self, name: str) -> Numbers:
        found: Numbers = np.round(100 * 10 ** (6 * self.share(name))).astype(np.int64)
        return found

    def person(self, name: str) -> Numbers:
        """One of the newest thousand people, or one that is yet to come."""
        known = _last_person(self.events) + 1
        active = np.minimum(known, ACTIVE_PEOPLE)
        return known - active + self.below(name, active + AHEAD)

    def text(self, name: str, longest: int, special: str = " ") -> pa.Array:
        """3 to ``longest`` - 1 letters, one in thirteen of them ``special``."""
        found = self._letters(name, 3 + self.below(name, longest - 3), special)
        return pc.utf8_trim(found, " ")

    def extra(self, used: Numbers, mean: int) -> pa.Array:
        """Letters that make an event of ``used`` bytes one of ``mean`` bytes, a fifth more or less of what lacks."""
        wanted = np.maximum(mean - used, 0)
        spread = np.round(wanted * 0.2).astype(np.int64)
        return self._letters("extra", wanted - spread + self.below("extra", np.maximum(2 * spread, 1)), "")

    def _letters(self, name: str, lengths: Numbers, special: str) -> pa.Array:
        offsets = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        # Eight letters of each hash of (event, place / 8), of which the last ones of an event are cut off.
        words = (lengths + 7) // 8
        ends = np.cumsum(words)
        word = np.arange(words.sum(), dtype=np.int64) - np.repeat(ends - words, words)
        bits = _mixed(np.repeat(self.bits(name + "_"), words) + word.astype(np.uint64))
        kept = np.arange(8) < np.minimum(np.repeat(lengths, words) - 8 * word, 8)[:, None]
        letters = _alphabet(special)[bits.view(np.uint8)[kept.ravel()]]
        return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(letters))


@cache
def _alphabet(special: str) -> npt.NDArray[np.uint8]:
    """The letter of each byte."""
    byte = np.arange(256)
    letters = (ord("a") + byte * 26 // 256).astype(np.uint8)
    return np.where(byte % 13 == 0, np.uint8(ord(special)), letters) if special else letters


def _mixed(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64."""
    found = value + np.uint64(0x9E3779B97F4A7C15)
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return found ^ (found >> np.uint64(31))


def _reversed_bits(values: Numbers) -> Numbers:
    """The absolute value of 32 bits read backwards, as a signed number."""
    bits = values.astype(np.uint32)
    found = np.zeros_like(bits)
    for _ in range(32):
        found, bits = found << np.uint32(1) | bits & np.uint32(1), bits >> np.uint32(1)
    return np.abs(found.view(np.int32).astype(np.int64))


def _digits(values: Numbers) -> pa.Array:
    return pc.utf8_lpad(pa.array(values).cast(pa.string()), 4, "0")


def _joined(*parts: pa.Array | str, separator: str = "") -> pa.Array:
    return pc.binary_join_element_wise(*parts, separator)


def _lengths(texts: pa.Array) -> Numbers:
    found: Numbers = pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def _timestamps(micros: Numbers) -> pa.Array:
    return pa.array(micros).cast(pa.timestamp("us"))


def _table(name: str, *columns: Numbers | pa.Array) -> pa.Table:
    arrays = [each if isinstance(each, pa.Array) else pa.array(each) for each in columns]
    return pa.table(arrays, names=TABLES[name].names)

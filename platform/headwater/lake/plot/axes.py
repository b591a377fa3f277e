"""The axes of a plot: scales, lines, labels, what each axis is, and the stretch that is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.lake.plot import scale
from headwater.lake.plot.picture import RIGHT, TICKS_EACH, Frame, Look
from headwater.lake.plot.scale import Scale, Tick
from headwater.lake.plot.shapes import LINE, Element, plain, px, shorten, text_width, words


def value_scale(
    look: Look, values: Sequence[float], start: float, end: float, *, zero: bool, each: float = TICKS_EACH[0]
) -> Scale:
    if look.log:
        return scale.orders(min(values), max(values), start, end)
    count = max(2, round(abs(start - end) / each))
    return scale.numbers(min(values), max(values), start, end, count=count, zero=zero)


def left_axis(y: Scale, frame: Frame, look: Look) -> list[Element]:
    left, top, right, _ = frame
    lines = [["path", {"d": f"M{left} {px(y.place(each.at))}H{right}", **LINE}, ""] for each in y.ticks]
    labels = [words(left - 7, y.place(each.at) + 4, each.label, "end") for each in y.ticks]
    unit = f" ({look.unit})" if look.unit else ""
    title = [words(2, top - 13, f"↑ {shorten(look.y_label, 60)}{unit}", "start", strong=True)] if look.y_label else []
    return [plain(lines), plain([*labels, *title]), zero_line(y, frame, upright=True)]


def zero_line(y: Scale, frame: Frame, *, upright: bool) -> Element:
    """A firm line where values begin, if that is within."""
    left, top, right, bottom = frame
    within = not y.log and y.low <= 0 <= y.high
    at = px(y.place(0.0)) if within else bottom
    shape = f"M{left} {at}H{right}" if upright else f"M{at if within else left} {top}V{bottom}"
    return ["path", {**LINE, "d": shape, "stroke-opacity": 0.55, "fill": "none"}, ""]


def bottom_axis(x: Scale, frame: Frame, look: Look) -> list[Element]:
    _, _, right, bottom = frame
    found: list[Element] = []
    free, context_free = float("-inf"), float("-inf")
    for tick in x.ticks:
        at, half = x.place(tick.at), text_width(tick.label) / 2
        found.append(["path", {"d": f"M{px(at)} {bottom}v5", **LINE, "stroke-opacity": 0.55}, ""])
        if look.bare:
            continue
        if at - half >= free and at + half <= right + RIGHT:
            found.append(words(at, bottom + 17, tick.label, "middle"))
            free = at + half + 6
        start = max(at - half, 0)
        if tick.context and start >= context_free and start + text_width(tick.context) <= right + RIGHT:
            found.append(words(start, bottom + 31, tick.context, "start", dim=True))
            context_free = start + text_width(tick.context) + 10
    return [plain(found if look.bare else [*found, x_label(look, frame, context_free)])]


def x_label(look: Look, frame: Frame, free: float = 0.0) -> Element:
    """What x is, and of a time its zone, at the right below."""
    zone = f" ({look.zone.key})" if look.time and look.zone else ""
    text = f"{shorten(look.x_label, 40)}{zone} →" if look.x_label else ""
    if frame[2] - text_width(text) < free:
        text = ""
    return words(frame[2] + 4, frame[3] + 31, text, "end", strong=True)


def name_below(tick: Tick, frame: Frame) -> Element:
    return words(tick.at, frame[3] + 17, shorten(tick.label), "middle", title=tick.label)


def sideways_axes(value: Scale, names: Sequence[Tick], frame: Frame, look: Look) -> list[Element]:
    left, top, _, bottom = frame
    lines = [["path", {"d": f"M{px(value.place(each.at))} {top}V{bottom}", **LINE}, ""] for each in value.ticks]
    labels = [words(value.place(each.at), bottom + 15, each.label, "middle") for each in value.ticks]
    beside = [words(left - 7, each.at + 4, shorten(each.label), "end", title=each.label) for each in names]
    unit = f" ({look.unit})" if look.unit else ""
    titles = [
        words(2, 11, f"↓ {shorten(look.x_label, 40)}", "start", strong=True),
        words(frame[2] + 4, bottom + 31, f"{shorten(look.y_label, 60)}{unit} →", "end", strong=True),
    ]
    return [plain(lines), plain([*labels, *beside, *titles])]


def band(ends: tuple[float, float] | None, frame: Frame) -> list[Element]:
    """What is chosen; always there, so that the page finds it."""
    _, top, _, bottom = frame
    left, right = ends or (0.0, 0.0)
    shape = {"x": px(left), "y": top, "width": px(max(0.0, right - left)), "height": bottom - top}
    return [["rect", {"class": "hw-chosen", "fill": "#808080", "fill-opacity": 0.22, **shape}, ""]]

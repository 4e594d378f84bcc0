"""Draws charts as inline SVG: scales, ticks, lines and bands. ElementTree escapes all text."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log, log10
from xml.etree.ElementTree import Element, tostring

# The size of a chart and the edges of its plotting area, in units of the drawing.
WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 430, 20, 200
_STEPS = (1, 2, 5, 10)

type Point = tuple[float, float | None]
"""x and y; a y of None is a gap in the line"""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to coordinates of the drawing.

    Attributes:
        low: The lowest value shown; a lower one is drawn at `start`.
        high: The highest value shown; a higher one is drawn at `end`.
        start: The coordinate of `low`.
        end: The coordinate of `high`.
        log: Whether the scale is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the coordinate of a value, in units of the drawing, to one tenth."""
        bounded = min(max(value, self.low), self.high)
        part = self._part(bounded)
        return round(self.start + part * (self.end - self.start), 1)

    def _part(self, value: float) -> float:
        if self.log:
            return log(value / self.low) / log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def horizontal_scale(low: float, high: float, *, log: bool = False) -> Scale:
    """Return a scale from the left edge to the right edge."""
    return Scale(low, high if high > low else low + 1, LEFT, RIGHT, log)


def vertical_scale(low: float, high: float) -> Scale:
    """Return a linear scale from the bottom edge to the top edge."""
    return Scale(low, high if high > low else low + 1, BOTTOM, TOP)


def shape(tag: str, kind: str = "", text: str = "", **attributes: object) -> Element:
    """Return an SVG element.

    Args:
        tag: The name of the element.
        kind: Its CSS classes.
        text: Its text.
        attributes: Its other attributes; `stroke_width` becomes `stroke-width`.
    """
    named = {name.replace("_", "-"): str(value) for name, value in attributes.items()}
    element = Element(tag, ({"class": kind} if kind else {}) | named)
    element.text = text or None
    return element


def chart(title: str, layers: Iterable[Element]) -> str:
    """Return a chart as SVG text; a screen reader reads its title."""
    root = shape("svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img")
    root.set("aria-label", title)
    root.append(shape("title", text=title))
    root.extend(layers)
    return tostring(root, encoding="unicode")


def line(x: Scale, y: Scale, points: Iterable[Point], kind: str) -> Iterator[Element]:
    """Yield lines through neighbouring points with a value; a point without neighbours is a dot."""
    for part in _parts(points):
        places = [(x.at(a), y.at(b)) for a, b in part]
        if len(places) == 1:
            yield shape("circle", kind, cx=places[0][0], cy=places[0][1], r=2)
        else:
            yield shape("polyline", kind, points=_joined(places))


def band(
    x: Scale, y: Scale, points: Sequence[tuple[float, float, float]], kind: str
) -> Iterator[Element]:
    """Yield the area between two lines; of a single point, a vertical line.

    Args:
        x: The horizontal scale.
        y: The vertical scale.
        points: The x, the lower and the upper value of each point.
        kind: The CSS classes.
    """
    if len(points) == 1:
        a, low, high = points[0]
        yield shape("line", kind, x1=x.at(a), x2=x.at(a), y1=y.at(low), y2=y.at(high))
    if len(points) > 1:
        upper = [(x.at(a), y.at(high)) for a, _, high in points]
        lower = [(x.at(a), y.at(low)) for a, low, _ in reversed(points)]
        yield shape("polygon", kind, points=_joined([*upper, *lower]))


def horizontal_line(y: Scale, value: float, kind: str, text: str = "") -> Iterator[Element]:
    """Yield a line across the chart at a value, with a text above its right end."""
    at = y.at(value)
    yield shape("line", kind, x1=LEFT, x2=RIGHT, y1=at, y2=at)
    if text:
        yield shape("text", f"{kind} end", text, x=RIGHT - 3, y=round(at - 4, 1))


def axes(
    x: Scale,
    y: Scale,
    x_ticks: Iterable[float],
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
) -> Iterator[Element]:
    """Yield grid lines and the numbers beside them.

    Args:
        x: The horizontal scale.
        y: The vertical scale.
        x_ticks: The values to mark on the horizontal axis.
        x_text: Returns the text for a value of the horizontal axis.
        y_text: Returns the text for a value of the vertical axis.
    """
    for value in ticks(y.low, y.high):
        at = y.at(value)
        yield shape("line", "grid", x1=LEFT, x2=RIGHT, y1=at, y2=at)
        yield shape("text", "tick end", y_text(value), x=LEFT - 6, y=round(at + 4, 1))
    for value in x_ticks:
        at = x.at(value)
        yield shape("line", "grid", x1=at, x2=at, y1=BOTTOM, y2=BOTTOM + 4)
        yield shape("text", "tick middle", x_text(value), x=at, y=BOTTOM + 18)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from low to high, about `most` of them."""
    raw = (high - low) / most
    if not (isfinite(raw) and raw > 0):
        return [low]
    power = 10.0 ** floor(log10(raw))
    step = next(s * power for s in _STEPS if s * power >= raw * (1 - 1e-9))
    return [round(i * step, 12) for i in range(ceil(low / step - 1e-9), floor(high / step) + 1)]


def _parts(points: Iterable[Point]) -> Iterator[list[tuple[float, float]]]:
    """Yield each run of neighbouring points that have a value."""
    part: list[tuple[float, float]] = []
    for a, b in points:
        if b is not None:
            part.append((a, b))
        elif part:
            yield part
            part = []
    if part:
        yield part


def _joined(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{a:g},{b:g}" for a, b in places)

"""Pictures as SVG text, by few shapes: scaled axes, dots, bars, cells, lines.

Colours are classes (``c0`` to ``c5``), which the page's style sheet gives a value in light and in dark. No picture says
by colour alone what it says: series have names at their marks, and a table lies behind each picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = 6
#: Width of a glyph of 12 px text, on average; for room beside labels.
GLYPH = 6.6


def picture(width: float, height: float, title: str, description: str, *shapes: str) -> str:
    """A picture of its own coordinates, which scales with the page; read aloud by its title and description."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" style="max-width:{width:g}px" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title><desc>{escape(description)}</desc>'
        f"{''.join(shapes)}</svg>"
    )


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    """Words at a point; ``anchor`` is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def dot(x: float, y: float, radius: float, style: str, tip: str = "") -> str:
    """A circle, with a tip for the pointer."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="{style}">{_tip(tip)}</circle>'


def bar(x: float, y: float, width: float, height: float, style: str, tip: str = "", opacity: float = 1.0) -> str:
    """A rectangle, with a tip for the pointer."""
    faded = "" if opacity >= 1 else f' fill-opacity="{opacity:.2f}"'
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.0):.1f}" height="{max(height, 0.0):.1f}" '
        f'class="{style}"{faded}>{_tip(tip)}</rect>'
    )


def path(points: Sequence[tuple[float, float]], style: str, *, closed: bool = False) -> str:
    """A line through points."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{steps}{"Z" if closed else ""}" class="{style}"/>'


def colour(index: int) -> str:
    """The class of a series' colour."""
    return f"c{index % COLOURS}"


def _tip(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""


@dataclass(frozen=True)
class Scale:
    """From values to coordinates.

    Attributes:
        low, high: values at the two ends.
        start, end: their coordinates.
        logarithmic: whether equal ratios are equal lengths.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of a value; of one outside, the end's."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside, at most about so many."""
        return _log_ticks(self.low, self.high, most) if self.logarithmic else _ticks(self.low, self.high, most)


def _ticks(low: float, high: float, most: int) -> list[float]:
    raw = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [step * 10.0**power for power in powers for step in steps]
        inside = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if len(inside) <= most:
            break
    return inside if len(inside) >= 3 else _ticks(low, high, most)


@dataclass(frozen=True)
class Frame:
    """A field with an axis below and one at the left.

    Attributes:
        x, y: scales; y runs upwards.
        x_name, y_name: written at the axes.
        x_format, y_format: how a tick is written.
    """

    x: Scale
    y: Scale
    x_name: str
    y_name: str
    x_format: Callable[[float], str]
    y_format: Callable[[float], str]

    def draw(self) -> str:
        """Grid, ticks and names."""
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        shapes = []
        for value in self.y.ticks():
            at = self.y(value)
            shapes += [line(left, at, right, at, "grid"), text(left - 8, at + 4, self.y_format(value), "tick", "end")]
        for value in self.x.ticks(int((right - left) / 70) + 1):
            at = self.x(value)
            shapes += [
                line(at, bottom, at, bottom + 4, "axis"),
                text(at, bottom + 17, self.x_format(value), "tick", "middle"),
            ]
        shapes.append(line(left, bottom, right, bottom, "axis"))
        shapes.append(text((left + right) / 2, bottom + 36, self.x_name, "name", "middle"))
        if self.y_name:
            shapes.append(text(left - 8, top - 12, self.y_name, "name", "end" if left > 90 else "start"))
        return "".join(shapes)


def width_of(words: str) -> float:
    """Room that a text of 12 px takes, about."""
    return len(words) * GLYPH


def shortened(words: str, most: int) -> str:
    """A text of at most so many characters, without its middle where it is longer."""
    if len(words) <= most:
        return words
    half = (most - 1) // 2
    return f"{words[: most - 1 - half]}…{words[-half:]}"

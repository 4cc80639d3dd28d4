"""Plots as SVG that takes its colours from the page it stands in, so that one picture serves light and dark.

Classes, not colours, are written: ``one`` to ``four`` for series, ``muted``, ``grid``, ``label``; ``edgesod/bench/page.css`` says
what they look like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 68, 18, 16, 44


@dataclass(frozen=True)
class Axis:
    """One axis of a plot.

    Attributes:
        low, high: Its ends; above 0 where it is logarithmic.
        label: What it shows, with the unit.
        is_log: Whether it is logarithmic.
        is_whole: Whether it counts, so that there is nothing between two whole numbers.
    """

    low: float
    high: float
    label: str
    is_log: bool = False
    is_whole: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies: 0 at the low end, 1 at the high one, held within."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def ticks(self) -> list[float]:
        """Return round values, about six, within the axis."""
        if self.is_log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            inside = [10.0**power for power in powers if self.low <= 10.0**power <= self.high]
            if len(inside) > 2:
                return inside
            return [m * 10.0**power for power in powers for m in (1, 2, 5) if self.low <= m * 10.0**power <= self.high]
        step = round_step((self.high - self.low) / 6)
        first = math.ceil(self.low / step - 1e-9)
        ticks = [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [tick for tick in ticks if tick == round(tick)] if self.is_whole else ticks


def round_step(step: float) -> float:
    """Return the smallest of 1, 2, 2.5 and 5 times a power of ten that is no less than ``step``; 1 for 0."""
    if step <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * (1 - 1e-9))


def span(values: Sequence[float], margin: float = 0.08) -> tuple[float, float]:
    """Return ends for an axis that shows all values with some room around them.

    It never shows less than two per cent of the values: what moves by less is steady, and has to look so.
    """
    low, high = min(values), max(values)
    room = max((high - low) * margin, max(abs(low), abs(high)) * 0.01) or 1.0
    return low - room, high + room


@dataclass
class Plot:
    """A plot that grows by calls and is read by :meth:`svg`.

    Args:
        title: What it shows, for those who cannot see it.
        x, y: Its axes.
    """

    title: str
    x: Axis
    y: Axis
    _parts: list[str] = field(default_factory=list)

    def bar(self, left: float, right: float, value: float, kind: str, tip: str = "") -> None:
        """Add a bar from 0, or the low end, up to ``value`` between two places on the x axis."""
        x0, x1, y = self._x(left), self._x(right), self._y(value)
        base = self._y(max(0.0, self.y.low))
        width = max(x1 - x0 - 1, 0.6)
        self._parts.append(
            f'<rect class="fill {kind}" x="{x0:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(base - y, 0):.1f}" rx="1.5">'
            f"{_tip(tip)}</rect>"
        )

    def line(self, points: Sequence[tuple[float, float]], kind: str, *, is_thin: bool = False) -> None:
        """Add a line through points."""
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        self._parts.append(f'<polyline class="line {kind}{" thin" if is_thin else ""}" points="{path}"/>')

    def dot(self, x: float, y: float, kind: str, label: str = "", tip: str = "", *, below: bool = False) -> None:
        """Add a point, with a few words beside it."""
        px, py = self._x(x), self._y(y)
        self._parts.append(f'<circle class="dot {kind}" cx="{px:.1f}" cy="{py:.1f}" r="5">{_tip(tip)}</circle>')
        if label:
            is_right = px > WIDTH * 0.68
            anchor, shift = ("end", -9) if is_right else ("start", 9)
            self.text(px + shift, py + (16 if below else -8), label, anchor=anchor, kind=f"strong {kind}")

    def vertical(self, x: float, label: str, kind: str, row: int = 0) -> None:
        """Add a dashed line at a place on the x axis; labels in different rows do not run into each other."""
        px, top = self._x(x), TOP + 12 + 17 * row
        self._parts.append(f'<line class="mark {kind}" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        is_right = px > WIDTH * 0.86
        self.text(px + (-5 if is_right else 5), top, label, anchor="end" if is_right else "start", kind=f"strong {kind}")

    def text(self, px: float, py: float, text: str, *, anchor: str = "start", kind: str = "") -> None:
        """Add words at a place in the picture's own pixels."""
        self._parts.append(f'<text class="label {kind}" x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def label(self, x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> None:
        """Add words just above a place on the axes."""
        self.text(self._x(x), self._y(y) - 6, text, anchor=anchor, kind=f"strong {kind}")

    def svg(self) -> str:
        """Return the plot: grid, what was added, axes."""
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        grid: list[str] = []
        for value in self.x.ticks():
            grid.append(
                f'<text class="label" x="{self._x(value):.1f}" y="{bottom + 17}" text-anchor="middle">{number(value)}</text>'
            )
        for value in self.y.ticks():
            py = self._y(value)
            grid.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{py:.1f}" y2="{py:.1f}"/>')
            grid.append(f'<text class="label" x="{LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{number(value)}</text>')
        grid.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        middle = (LEFT + right) / 2
        grid.append(f'<text class="label" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(self.x.label)}</text>')
        across = (TOP + bottom) / 2
        turned = f'text-anchor="middle" transform="rotate(-90 14 {across})"'
        grid.append(f'<text class="label" x="14" y="{across}" {turned}>{escape(self.y.label)}</text>')
        title = escape(self.title, quote=True)
        body = "\n".join(grid + self._parts)
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">\n{body}\n</svg>'

    def _x(self, value: float) -> float:
        return LEFT + self.x.at(value) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.y.at(value) * (HEIGHT - TOP - BOTTOM)


def number(value: float) -> str:
    """Return a number as a person writes it: no more digits than it needs, thousands set apart."""
    if abs(value) >= 10_000:
        return f"{value:,.0f}".replace(",", "\u2009")
    return f"{value:.4g}"


def counted(n: int, noun: str) -> str:
    """Return ``1 core``, ``2 cores``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""

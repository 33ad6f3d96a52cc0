"""A Pareto picture in SVG: time against a quality, panels for each size, legible on light and on dark."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fam_ext.quality.columns import Column
from fam_ext.quality.protocol import Size, size_words
from fam_ext.quality.results import Table
from fam_ext.quality.statistics import Estimate

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 72, 130, 40, 52
LINE = 15
MOST_LETTERS = 17
"""Of a name, as many as stand in RIGHT; the whole is its tooltip."""
_STYLE = """
  text { font: 13px sans-serif; fill: #222 } .ground { fill: #fff } .axis { stroke: #888 } .grid { stroke: #ddd }
  .dot { fill: #1f5fbf } .spread { stroke: #1f5fbf } .front { stroke: #b3541e; fill: none; stroke-dasharray: 5 4 }
  .pointer { stroke: #999 } .title { font-weight: bold }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .ground { fill: #181a1f } .grid { stroke: #33363d } .dot { fill: #7fb0ff }
    .spread { stroke: #7fb0ff } .front { stroke: #f0a35e }
  }
"""


@dataclass(frozen=True)
class Point:
    """One method: seconds a picture and a quality."""

    name: str
    seconds: float
    quality: Estimate


def pareto(tables: Sequence[Table]) -> str:
    """Return the picture. The qualities are PSNR to the native picture, and the kernel distance of crops to true or
    reference pictures where there are any. The line joins the methods that no other beats in both."""
    panels = [panel for size in dict.fromkeys(table.size for table in tables) for panel in _panels_of(tables, size)]
    heights = [_height(points) for *_, points in panels]
    height = sum(heights) or HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Time against quality, by method</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate(0 {sum(heights[:number])})">', *_panel(*panel), "</g>"]
    if not panels:
        parts.append(f'<text class="title" x="{LEFT}" y="22">no times of one machine: table.md says more</text>')
    return "\n".join([*parts, "</svg>", ""])


def front(points: Sequence[Point], better: str) -> list[Point]:
    """Return the points that no other beats in time and in quality, fastest first."""
    sign = -1 if better == "less" else 1
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.seconds, -sign * one.quality.value)):
        if not found or sign * point.quality.value > sign * found[-1].quality.value:
            found.append(point)
    return found


def _panels_of(tables: Sequence[Table], size: Size) -> list[tuple[str, Column, list[Point]]]:
    own = [table for table in tables if table.size == size]
    times = {method: cells[0].value for table in own if table.columns[0].key == "seconds"
             for method, cells in table.rows.items()}  # fmt: skip
    panels: dict[str, tuple[str, Column, list[Point]]] = {}
    for table in own:
        for index, column in enumerate(table.columns):
            if column.key != "psnr" and not column.key.endswith("crops kernel"):
                continue
            points = [
                Point(method, seconds.value, value)
                for method, cells in table.rows.items()
                if (seconds := times.get(method)) is not None and (value := cells[index].value) is not None
            ]
            if points:
                panels[column.key] = f"{size_words(size)} (n = {table.n})", column, points
    return list(panels.values())


def _height(points: Sequence[Point]) -> int:
    """Return the height of a panel in which each point's name has its line."""
    return max(HEIGHT, TOP + LINE * len(points) + BOTTOM)


def _panel(title: str, column: Column, points: Sequence[Point]) -> list[str]:
    bottom = _height(points) - BOTTOM
    seconds = [point.seconds for point in points]
    ends = [end for point in points for end in (point.quality.low, point.quality.high) if end is not None]
    qualities = [*(point.quality.value for point in points), *ends]
    across, up = _axis([0.0, *seconds]), _axis(qualities)

    def x(value: float) -> float:
        return LEFT + (value - across[0]) / (across[-1] - across[0]) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return bottom - (value - up[0]) / (up[-1] - up[0]) * (bottom - TOP)

    better = {"more": ", higher is better", "less": ", lower is better", "": ""}[column.better]
    parts = [f'<text class="title" x="{LEFT}" y="22">{html.escape(title)}: {html.escape(column.title)}{better}</text>']
    for value in across:
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    for value in up:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{bottom + BOTTOM - 12}" text-anchor="middle">time of the pass, median, s</text>'
    )
    parts.append(f'<path class="axis" fill="none" d="M{LEFT} {TOP} V{bottom} H{WIDTH - RIGHT}"/>')
    line = " L".join(f"{x(point.seconds):.1f} {y(point.quality.value):.1f}" for point in front(points, column.better))
    parts.append(f'<path class="front" d="M{line}"/>')
    labels = _apart({point.name: y(point.quality.value) for point in points}, bottom)
    for point in points:
        at, height, label = x(point.seconds), y(point.quality.value), labels[point.name]
        if point.quality.low is not None and point.quality.high is not None:
            low, high = y(point.quality.low), y(point.quality.high)
            parts.append(f'<line class="spread" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(f'<circle class="dot" cx="{at:.1f}" cy="{height:.1f}" r="4"/>')
        # names stand in one column at the right, a line leads to each
        ends_at = WIDTH - RIGHT + 6
        parts.append(f'<path class="pointer" fill="none" d="M{at + 6:.1f} {height:.1f} L{ends_at} {label:.1f}"/>')
        whole = html.escape(point.name)
        short = whole if len(point.name) <= MOST_LETTERS else html.escape(f"{point.name[: MOST_LETTERS - 1].rstrip()}…")
        parts.append(f'<text x="{ends_at + 4}" y="{label + 4:.1f}">{short}<title>{whole}</title></text>')
    return parts


def _axis(values: Sequence[float]) -> list[float]:
    """Return four to eight round numbers that hold all values."""
    low, high = min(values), max(values)
    if high == low:
        low, high = low - 1, high + 1
    step = 10.0 ** math.floor(math.log10(high - low))
    for factor in (2.0, 1.0, 0.5, 0.2):
        if (high - low) / (step * factor) >= 3:
            step *= factor
            break
    first, last = int(low // step), -int(-high // step)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _apart(places: dict[str, float], lowest: float) -> dict[str, float]:
    """Return heights in the same order that lie LINE px apart or more, from TOP to `lowest`."""
    found: dict[str, float] = {}
    last = TOP - LINE
    for name, place in sorted(places.items(), key=lambda entry: entry[1]):
        last = found[name] = max(place, last + LINE)
    if last > lowest:
        bottom = lowest + LINE
        for name in reversed(list(found)):
            bottom = found[name] = min(found[name], bottom - LINE)
    return found

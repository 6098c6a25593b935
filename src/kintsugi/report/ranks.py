"""The critical-difference diagram as SVG: an axis of ranks, the methods, bars that join those that cannot be told apart.

Source: Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets (2006), figure 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, SIDE = 860, 230  # pixels: of the drawing, and of the names on each side
TOP, ROW, BAR = 62, 24, 9  # of the axis, of a name, of a bar
MOST_LETTERS = 26
MOST_TICKS = 12


@dataclass(frozen=True)
class Axis:
    """Ranks 1 to ``last`` from left to right."""

    last: int

    def at(self, rank: float) -> float:
        """Pixels from the left."""
        return SIDE + (rank - 1) / (self.last - 1) * (WIDTH - 2 * SIDE)


def diagram(ranks: Mapping[str, float], groups: Sequence[Sequence[str]], critical: float) -> str:
    """SVG text; names are escaped, colours are those of the page.

    Args:
        ranks: method -> average rank, 1 the best.
        groups: methods that cannot be told apart; groups of one are not drawn.
        critical: difference of average ranks that tells two methods apart.
    """
    order = sorted(ranks, key=lambda name: (ranks[name], name))
    axis = Axis(max(2, math.ceil(max(ranks.values()))))
    ends = sorted((min(ranks[n] for n in g), max(ranks[n] for n in g)) for g in groups if len(g) > 1)
    below, half = TOP + 16 + BAR * len(ends), (len(order) + 1) // 2
    parts = [_scale(axis), _ruler(axis, critical)]
    for place, (low, high) in enumerate(ends):
        parts.append(
            _line("cd-bar", axis.at(low) - 5, TOP + 14 + BAR * place, axis.at(high) + 5, TOP + 14 + BAR * place)
        )
    for place, name in enumerate(order):
        left = place < half  # better ones on the left, from the top; the others on the right, the worst on top
        y = below + ROW * (place if left else len(order) - 1 - place) + ROW / 2
        parts.append(_method(name, ranks[name], axis, y, left))
    height = below + ROW * half + 10
    label = "Average ranks, best first: " + ", ".join(f"{name} {ranks[name]:.2f}" for name in order)
    return (
        f'<svg class="cd" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _line(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(said: str, x: float, y: float, anchor: str, css: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{f" class={css!r}" if css else ""}>{escape(said)}</text>'
    )


def _scale(axis: Axis) -> str:
    step = math.ceil(axis.last / MOST_TICKS)
    parts = [_line("cd-axis", axis.at(1), TOP, axis.at(axis.last), TOP)]
    for rank in range(1, axis.last + 1, step):
        parts.append(_line("cd-axis", axis.at(rank), TOP - 6, axis.at(rank), TOP))
        parts.append(_text(str(rank), axis.at(rank), TOP - 11, "middle", "cd-soft"))
    return "".join(parts)


def _ruler(axis: Axis, critical: float) -> str:
    """How far apart two methods must be, above the axis; cut where it is longer than the axis."""
    start, end, y = axis.at(1), axis.at(min(1 + critical, axis.last)), 22
    ticks = "".join(_line("cd-axis", x, y - 5, x, y + 5) for x in (start, end))
    return (
        _line("cd-axis", start, y, end, y) + ticks + _text(f"critical difference {critical:.2f}", start, y - 9, "start")
    )


def _method(name: str, rank: float, axis: Axis, y: float, left: bool) -> str:
    x, edge, away = axis.at(rank), SIDE - 14 if left else WIDTH - SIDE + 14, -6 if left else 6
    shown = name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"
    title = f"<title>{escape(name)}: average rank {rank:.2f}</title>"
    path = f'<path class="cd-lead" d="M{x:.1f} {TOP} V{y:.1f} H{edge}"/><circle class="cd-dot" cx="{x:.1f}" cy="{TOP}" r="3.5"/>'
    said = f"{rank:.2f}  {shown}" if not left else f"{shown}  {rank:.2f}"
    return f"<g>{title}{path}{_text(said, edge + away, y + 4, 'end' if left else 'start')}</g>"

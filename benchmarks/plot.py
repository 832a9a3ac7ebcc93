"""A bar chart as SVG, written by hand so that the same numbers give the same file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_WIDTH, _LABEL, _BAR, _GAP = 760, 220, 12, 12
_COLOURS = ("#2563a8", "#8a8f98", "#c9a227", "#5f9e6e", "#a05a78")


def write(ratios: Mapping[str, Mapping[str, float]], path: Path, *, yardstick: str, ours: str) -> None:
    """Write one group of bars for each of ``ratios``: every proxy relative to ``yardstick``."""
    if not ratios:
        return
    names = list(dict.fromkeys([ours, *(name for group in ratios.values() for name in group)]))
    most = max(value for group in ratios.values() for value in group.values())
    scale = (_WIDTH - _LABEL - 60) / most
    y = 64
    parts = []
    for label, group in ratios.items():
        height = len(names) * _BAR
        parts.append(_text(_LABEL - 8, y + height / 2 + 4, label, anchor="end"))
        for index, name in enumerate(names):
            value = group.get(name)
            if value is None:
                continue
            top = y + index * _BAR
            parts.append(
                f'<rect x="{_LABEL}" y="{top}" width="{max(1.0, value * scale):.1f}" height="{_BAR - 2}" '
                f'fill="{_COLOURS[index % len(_COLOURS)]}"/>'
            )
            parts.append(_text(_LABEL + value * scale + 5, top + _BAR - 3, f"{value:.2f}", size=10))
        y += height + _GAP
    at_one = _LABEL + scale
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 8}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{y + 8}" fill="#ffffff"/>',
        _text(12, 20, f"Egress relative to {yardstick} (1.00 = the line; more is better)", size=13),
    ]
    x = 12.0
    for index, name in enumerate(names):
        lines.append(
            f'<rect x="{x:.0f}" y="34" width="10" height="10" fill="{_COLOURS[index % len(_COLOURS)]}"/>'
        )
        lines.append(_text(x + 14, 43, name))
        x += 30 + 7 * len(name)
    lines.append(
        f'<line x1="{at_one:.1f}" y1="56" x2="{at_one:.1f}" y2="{y}" stroke="#333333" stroke-dasharray="3"/>'
    )
    path.write_text("\n".join([*lines, *parts, "</svg>"]) + "\n")


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222222">'
        f"{escape(text)}</text>"
    )

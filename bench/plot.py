"""A plot of latency by length of history, as SVG."""

from collections.abc import Mapping
from html import escape
from math import log10
from pathlib import Path

_WIDTH, _HEIGHT = 860, 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 240, 50, 60
_COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8e5572", "#b8860b", "#4a4e69", "#0a9396", "#9b2226")
_MAX_LABELLED_LINES = 12
_LABEL_HEIGHT = 15


def write_svg(path: Path, p50: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Write a plot with one line per tool.

    Args:
        path: the SVG file.
        p50: milliseconds by tool and by number of events in the project (as text).
        title: the heading of the plot.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_svg(p50, title), encoding="utf-8")


def render_svg(p50: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Render the plot; the arguments are those of `write_svg`."""
    sizes = sorted({int(size) for by_size in p50.values() for size in by_size})
    top = max(value for by_size in p50.values() for value in by_size.values()) * 1.05
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    span = max(log10(sizes[-1]) - log10(sizes[0]), 0.001)

    def x(size: int) -> float:
        return _LEFT + (log10(size) - log10(sizes[0])) / span * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - value / top * (bottom - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
        ' font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="28" font-size="15" font-weight="bold">{escape(title)}</text>',
        f'<text x="{(_LEFT + right) / 2:.0f}" y="{_HEIGHT - 18}" text-anchor="middle">events in the project</text>',
        f'<text transform="translate(20 {(_TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">p50, ms</text>',
    ]
    for number in range(6):
        value = top * number / 5
        parts.append(f'<path d="M{_LEFT} {y(value):.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for size in sizes:
        parts.append(f'<path d="M{x(size):.1f} {_TOP}V{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(size):.1f}" y="{bottom + 20}" text-anchor="middle">{size:,}</text>')
    # Only the slowest tools have a label and a colour; the table lists all of them.
    ordered = sorted(p50, key=lambda tool: -p50[tool][str(sizes[-1])])
    label_y = 0.0
    for number, tool in enumerate(ordered):
        points = " ".join(f"{x(size):.1f},{y(p50[tool][str(size)]):.1f}" for size in sizes)
        has_label = number < _MAX_LABELLED_LINES
        colour = _COLOURS[number % len(_COLOURS)] if has_label else "#bbb"
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{2 if has_label else 1}"/>'
        )
        if has_label:
            # Labels keep their order and do not overlap.
            label_y = max(y(p50[tool][str(sizes[-1])]) + 4, label_y + _LABEL_HEIGHT)
            parts.append(f'<text x="{right + 8}" y="{label_y:.1f}" fill="{colour}">{escape(tool)}</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)

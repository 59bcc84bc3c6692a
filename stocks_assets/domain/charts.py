"""Small pictures of prices, for where Dagster's UI shows a ticker.

The UI shows Markdown at once that has fewer than `SHOWN_AT_ONCE` characters, and a link to it else.
"""

import base64
import math
from collections.abc import Sequence
from typing import Final

SHOWN_AT_ONCE: Final = 1000
WIDTH, HEIGHT = 320, 72
# More points than this show no more in a picture of that width.
POINTS = 76
_RISEN, _FALLEN = "#16a34a", "#dc2626"


def picture(values: Sequence[float]) -> str | None:
    """Return a line through `values`, oldest first, as SVG; None for fewer than two.

    It has no background, and colours that do on light and on dark.
    """
    points = thin([value for value in values if math.isfinite(value)])
    if len(points) < 2:
        return None
    low, high = min(points), max(points)
    top, span = 4, HEIGHT - 8
    xs = [round(place * WIDTH / (len(points) - 1)) for place in range(len(points))]
    ys = [round(top + span * (high - value) / (high - low or 1)) for value in points]
    # Steps are shorter than places.
    steps = "".join(
        f"l{x - x0} {y - y0}" for x0, x, y0, y in zip(xs, xs[1:], ys, ys[1:], strict=False)
    )
    colour = _RISEN if points[-1] >= points[0] else _FALLEN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">'
        f'<path d="M0 {ys[0]}{steps}" fill="none" stroke="{colour}" stroke-width="2"/></svg>'
    )


def thin(values: Sequence[float]) -> list[float]:
    """Return at most POINTS of `values`, evenly spaced, the first and the last among them."""
    if len(values) <= POINTS:
        return list(values)
    step = (len(values) - 1) / (POINTS - 1)
    return [values[round(place * step)] for place in range(POINTS)]


def as_markdown(svg: str, words: str) -> str:
    """Return a picture as Markdown that carries it; `words` stand for it where it is not shown."""
    return f"![{words}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"

"""Charts and tables for Dagster's UI: small, right, and nothing in them read as markup."""

import base64
import xml.etree.ElementTree as ET
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain import charts, headlines
from stocks_assets.domain.charts import HEIGHT, POINTS, WIDTH, picture, thin
from stocks_assets.domain.headlines import Headline, cell


def ends_of(svg: str) -> tuple[list[int], list[int]]:
    """Return the xs and ys that the line goes through."""
    *_, line = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    start, *steps = line.get("d").removeprefix("M").split("l")
    x, y = map(int, start.split())
    xs, ys = [x], [y]
    for step in steps:
        dx, dy = map(int, step.split())
        xs.append(xs[-1] + dx)
        ys.append(ys[-1] + dy)
    return xs, ys


@given(st.lists(st.floats(1e-6, 1e9), min_size=2, max_size=400))
def test_a_picture_spans_its_frame_and_stays_in_it(values):
    xs, ys = ends_of(picture(values))
    assert (xs[0], xs[-1]) == (0, WIDTH)
    assert xs == sorted(xs)
    assert 0 <= min(ys) <= max(ys) <= HEIGHT
    assert len(xs) == min(len(values), POINTS)


def test_the_highest_is_at_the_top_and_a_fall_is_red():
    _, ys = ends_of(picture([3.0, 1.0, 2.0]))
    assert ys == [4, HEIGHT - 4, HEIGHT // 2]
    assert charts._FALLEN in picture([3.0, 1.0])
    assert charts._RISEN in picture([1.0, 3.0])


def test_a_picture_takes_two_points():
    assert picture([]) is picture([1.0]) is picture([1.0, float("nan")]) is None
    assert picture([1.0, 1.0]) is not None


def test_a_picture_is_small():
    values = [100.0 * (1 + 0.4 * (n % 7) / 7 + 0.3 * (n % 31) / 31) for n in range(252)]
    words = "Adjusted closes of the last 252 sessions"
    caption = f"\n\n{words}: **12,345.67** (+100.0%)"
    assert len(charts.as_markdown(picture(values), words) + caption) < charts.SHOWN_AT_ONCE


def test_thinning_keeps_the_ends():
    values = [float(n) for n in range(1000)]
    found = thin(values)
    assert len(found) == POINTS
    assert (found[0], found[-1]) == (0.0, 999.0)
    assert found == sorted(set(found))


def test_markdown_carries_the_picture():
    text = charts.as_markdown("<svg/>", "closes")
    assert text == f"![closes](data:image/svg+xml;base64,{base64.b64encode(b'<svg/>').decode()})"


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("simple_return_1d", 0.0123, "+1.23%"),
        ("maximum_drawdown", -0.5, "-50.00%"),
        ("volatility_252d", 0.25, "25.0%"),
        ("share_above_sma_50", 1.0, "100.0%"),
        ("close", 1234.5, "1,234.50"),
        ("close", 0.01234, "0.01234"),
        ("split_adjusted_volume", 1234567.8, "1,234,568"),
        ("tickers", 12000, "12,000"),
        ("session_date", date(2026, 11, 24), "2026-11-24"),
        ("close", None, ""),
        ("close", float("nan"), ""),
        ("company_name", "A | B\n<b>c</b> [x](javascript:1)", None),
    ],
)
def test_values_are_for_people(column, value, shown):
    found = cell(column, value)
    if shown is not None:
        assert found == shown
    else:
        assert found == r"A \| B \<b\>c\</b\> \[x\]\(javascript:1\)"


def test_a_table_has_a_row_a_line():
    headline = Headline("Moves", ("ticker", "close"), "ticker")
    text = headlines.as_markdown(headline, [("A|B", 1.5), ("C", None)])
    assert text.splitlines() == [
        "**Moves**",
        "",
        "ticker|close",
        ":-|-:",
        r"A\|B|1.50",
        "|C||",
    ]
    assert headlines.as_markdown(headline, []) == "**Moves**: none"


def test_a_table_has_no_more_rows_than_are_shown_at_once():
    headline = Headline("Moves", ("ticker", "close"), "ticker")
    text = headlines.as_markdown(headline, [(f"TICKER{n}", 1.5) for n in range(500)])
    assert len(text) < charts.SHOWN_AT_ONCE
    assert text.count("1.50") > 50


def test_no_table_takes_the_change_of_a_price_for_a_return():
    for headline in (*headlines.MARKET.values(), *headlines.PER_TICKER.values()):
        assert "change" not in " ".join((*headline.columns, headline.order_by)), headline.title

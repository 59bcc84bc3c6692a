"""Pages of the market report: one file each, with all that it shows and nothing from outside.

Data come as text that no browser runs, and the page puts them in place as text. A policy in the
page allows the two scripts that it brings, by their hashes, and no request at all.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from stocks_assets.adapters.report.reading import Market
from stocks_assets.domain.report import INDEX, Health, market_row, pack

_PAGE = files("stocks_assets.adapters.report") / "page"
CHARTS = "lightweight-charts.standalone.production.js"


@dataclass(frozen=True, slots=True)
class Cover:
    """What all pages of one report say of it: the session it is of, when it was made, of whom.

    `directory` has ticker, company and the file of its page for each ticker.
    """

    session: date | None
    made_at: datetime
    directory: Sequence[tuple[str, str, str]]
    source: str = "stocks_assets"


def rows_of(market: Market, health: Mapping[str, Health]) -> dict[str, list[Any]]:
    """Return the line in the overview of each ticker that `health` has, in the market's order."""
    return {
        line["ticker"]: market_row(line, health[line["ticker"]])
        for line in market.lines
        if line["ticker"] in health
    }


def overview_of(market: Market) -> dict[str, Any]:
    """Return what the overview shows of the market as a whole."""
    sessions = {one.day: one for one in market.sessions}
    newest = sessions.get(market.session) if market.session else None
    summary = [row for row in market.summary if row["session_date"] in sessions]
    last = summary[-1] if summary else None
    return {
        "expected": market.expected.isoformat(),
        # Tickers that have the market's session, of so many.
        "session": newest and [newest.day.isoformat(), newest.tickers, newest.expected],
        "breadth": [
            [
                row["session_date"].isoformat(),
                *(row[name] for name in ("tickers", "advancers", "decliners", "unchanged")),
                *(row[name] for name in ("new_highs", "new_lows", "with_52w_range")),
                *(_rounded(row[f"share_above_sma_{days}"]) for days in (50, 200)),
            ]
            for row in market.breadth
            if row["session_date"] in sessions
        ],
        "benchmark": [
            [row["session_date"].isoformat(), _rounded(row["benchmark_simple_return_1d"], 6)]
            for row in summary
        ],
        "summary": last
        and {
            "mean": last["mean_simple_return_1d"],
            "median": last["median_simple_return_1d"],
            "benchmark": last["benchmark_ticker"],
            "benchmark_return": last["benchmark_simple_return_1d"],
        },
        "traded": market.traded
        and [market.traded["value"], market.traded["currency"], market.traded["tickers"]],
        "sectors": [
            [
                row["sector"],
                row["tickers"],
                *(_rounded(row[f"mean_simple_return_{days}d"]) for days in (1, 5, 21, 63, 252)),
            ]
            for row in market.sectors
        ],
    }


def render(
    cover: Cover,
    file: str,
    rows: Mapping[str, Sequence[Any]],
    bundles: Mapping[str, str],
    overview: Mapping[str, Any] | None,
) -> bytes:
    """Return the page `file`; `bundles` are those of its tickers, packed.

    `rows` are the lines of the tickers that it shows anything of; the file of the overview brings
    `overview`, and the lines of all.
    """
    page = {
        "file": file,
        "home": INDEX,
        "session": cover.session.isoformat() if cover.session else None,
        "made_at": cover.made_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        # A file is named once: a directory of thousands has a number for each.
        "files": (names := list(dict.fromkeys(name for *_, name in cover.directory))),
        "directory": [
            [ticker, company, names.index(name)] for ticker, company, name in cover.directory
        ],
        "rows": list(rows.values()),
        "overview": overview,
    }
    scripts = [_read(f"vendor/{CHARTS}"), _read("report.js")]
    return (
        _template()
        .render(
            cover=cover,
            hashes=[_hash(script) for script in scripts],
            scripts=scripts,
            style=_read("report.css"),
            page=pack(page),
            bundles=bundles,
        )
        .encode()
    )


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_read("report.html.jinja"))

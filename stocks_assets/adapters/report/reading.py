"""What the market report shows, read from gold, silver and the books."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier, Literal

from stocks_assets.adapters.gaps import find_gaps
from stocks_assets.adapters.warehouse import Reader, Warehouse
from stocks_assets.domain.calendar import last_closed_session
from stocks_assets.domain.gaps import SETTLES_AFTER, Gap, Holding, Place
from stocks_assets.domain.market_session import MarketSession, market_sessions
from stocks_assets.domain.report import DAILY_COLUMNS, DAILY_DAYS, SHOWN, Health, bundle

NEEDS = (
    *("gold.mart_latest_prices", "gold.mart_ticker_summary", "gold.mart_market_breadth"),
    *("gold.mart_daily_market_summary", "gold.mart_sector_performance"),
    *("gold.mart_adjusted_prices", "gold.mart_technical_indicators", "gold.mart_returns_risk"),
    *("gold.agg_weekly_prices", "gold.fct_corporate_actions", "gold.recon_adjusted_close"),
    *("gold.fct_daily_prices", "gold.dim_company"),
)
# How many sessions of the whole market are shown.
_MARKET_SESSIONS = 504

# A ticker that was used again has series of several companies: shown is the one that has it now.
_LINES = """
    select latest.*, summary.first_session, summary.last_session, summary.sessions,
        summary.simple_return_total, summary.simple_return_yearly, summary.volatility,
        summary.sharpe_ratio_252d, summary.maximum_drawdown, summary.dividends, summary.splits
    from gold.mart_latest_prices latest
    left join gold.mart_ticker_summary summary using (ticker, security_key)
    order by ticker
"""
# Amounts of different currencies make no sum: this is of the one that most tickers are known to
# trade in.
_TRADED = """
    select latest.currency, count(*) as tickers,
        sum(prices.close * prices.volume order by latest.ticker) as value
    from gold.mart_latest_prices latest
    cross join lateral (
        select close, volume from gold.fct_daily_prices bars
        where bars.ticker = latest.ticker and bars.session_date = %s offset 0
    ) prices
    where latest.currency is not null
    group by 1 order by 2 desc, 1 limit 1
"""
_DAILY = {
    "mart_adjusted_prices": [
        f"split_adjusted_{name}" for name in ("open", "high", "low", "close", "volume")
    ],
    "mart_technical_indicators": [
        *("sma_20", "sma_50", "sma_200", "ema_12", "ema_26", "bollinger_upper"),
        *("bollinger_lower", "macd", "macd_signal", "rsi_14"),
    ],
    "mart_returns_risk": ["drawdown"],
}
_WEEKLY = SQL(
    "select ticker, session_date, adjusted_close from gold.agg_weekly_prices "
    "where ticker = any({}) and security_key = any({}) order by ticker, session_date"
)
_PROFILES = """
    select ticker, has_profile, description, asset_type, exchange, country, industry,
        official_site, market_capitalization, pe_ratio, eps, dividend_yield, latest_quarter
    from gold.dim_company where ticker = any(%s)
"""
_ACTIONS = """
    select ticker, ex_date, action_type, dividend_amount, split_ratio, payment_date, bronze_key
    from gold.fct_corporate_actions where ticker = any(%s) and security_key = any(%s)
    order by ticker, ex_date desc
"""
_RESTATEMENTS = """
    select * from (
        select ticker, restated_at, table_name, class, columns, rows_changed, first_key, last_key,
            factor, new_bronze_key, count(*) over (partition by ticker) as rows,
            row_number() over (partition by ticker order by restated_at desc, table_name) as place
        from silver.restatements where ticker = any(%s)
    ) ranked where place <= %s order by ticker, place
"""
# Of the objects that the tables are loaded from now.
_REJECTED = """
    select * from (
        select ticker, table_name, rejected_at, rules, row_values, bronze_key,
            count(*) over (partition by ticker) as rows,
            row_number() over (partition by ticker order by rejected_at desc, bronze_key) as place
        from silver.rejected_rows rejected where ticker = any(%s) and exists (
            select from ops.silver_loads loads where loads.table_name = rejected.table_name
            and loads.ticker = rejected.ticker and rejected.bronze_key = any(loads.bronze_keys))
    ) ranked where place <= %s order by ticker, place
"""
_DIFFERENCES = """
    select ticker, session_date, finding, simple_return, vendor_simple_return, difference,
        tolerance, implied_dividend, implied_split
    from gold.recon_adjusted_close where ticker = any(%s) and security_key = any(%s)
    order by ticker, session_date desc
"""
_LOADS = """
    select ticker, table_name, coalesce(stored_count, row_count) as row_count,
        first_date, last_date, loaded_at, bronze_keys
    from ops.silver_loads where ticker = any(%s) order by ticker, table_name
"""
_FETCHES = """
    select ticker, dataset, max(checked_at) as checked_at, max(had_at) as had_at,
        (array_agg(outcome order by checked_at desc))[1] as outcome,
        (array_agg(reason order by checked_at desc))[1] as reason
    from ops.fetches where ticker = any(%s) group by 1, 2 order by 1, 2
"""


@dataclass(frozen=True, slots=True)
class Market:
    """The market as a whole: a row of `mart_latest_prices` and `mart_ticker_summary` a ticker."""

    lines: Sequence[Mapping[str, Any]]
    breadth: Sequence[Mapping[str, Any]]
    summary: Sequence[Mapping[str, Any]]
    sectors: Sequence[Mapping[str, Any]]
    expected: date
    gaps: Mapping[str, Sequence[tuple[Gap, bool]]] = field(repr=False)
    traded: Mapping[str, Any] | None = None

    @property
    def tickers(self) -> list[str]:
        """The tickers that gold has prices of, in order."""
        return [line["ticker"] for line in self.lines]

    @property
    def sessions(self) -> list[MarketSession]:
        """The sessions of the market, oldest first."""
        return _sessions(self.lines, self.summary)

    @property
    def session(self) -> date | None:
        """The market's last session."""
        return next((one.day for one in reversed(self.sessions)), None)


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown of one ticker, and how good its data are."""

    ticker: str
    bundle: Mapping[str, Any]
    health: Health


def state_of(warehouse: Warehouse, now: datetime) -> str:
    """Return what changes when a report would say something else."""
    with warehouse.connect() as connection:
        row = connection.execute(
            "select (select max(loaded_at) from ops.silver_loads), "
            "(select max(built_at) from ops.gold_builds), "
            "(select max(checked_at) from ops.fetches), (select max(failed_at) from ops.failures), "
            "(select max(refused_at) from ops.refused_objects)"
        ).fetchone()
    return f"{last_closed_session(now - SETTLES_AFTER)} {row}"


def _sessions(
    lines: Sequence[Mapping[str, Any]], summary: Sequence[Mapping[str, Any]]
) -> list[MarketSession]:
    """Return the market's sessions by daily bars or, where there are none, by the last weeks."""
    if summary:
        return market_sessions({row["session_date"]: row["tickers"] for row in summary})
    return market_sessions(Counter(line["session_date"] for line in lines))


def read_market(warehouse: Warehouse, now: datetime) -> Market:
    """Return the market as gold has it; `now` is an aware time."""
    with warehouse.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        lines = cursor.execute(_LINES).fetchall()
        per_session = [
            cursor.execute(
                SQL("select * from {} order by session_date desc limit {}").format(
                    Identifier("gold", table), _MARKET_SESSIONS
                )
            ).fetchall()[::-1]
            for table in ("mart_market_breadth", "mart_daily_market_summary")
        ]
        last = next((one.day for one in reversed(_sessions(lines, per_session[1]))), None)
        sectors = cursor.execute(
            "select * from gold.mart_sector_performance where session_date = %s order by sector",
            (last,),
        ).fetchall()
        traded = cursor.execute(_TRADED, (last,)).fetchone()
    holdings = [
        Holding(line["ticker"], line["first_session"], line["last_session"], line["sessions"])
        for line in lines
        if line["sessions"]
    ]
    gaps: dict[str, list[tuple[Gap, bool]]] = defaultdict(list)
    for gap, may_be_had in find_gaps(warehouse, [h.ticker for h in holdings], now, holdings):
        gaps[gap.ticker].append((gap, may_be_had))
    return Market(
        lines,
        per_session[0],
        per_session[1],
        sectors,
        last_closed_session(now - SETTLES_AFTER),
        gaps,
        traded,
    )


@contextmanager
def page_reader(warehouse: Warehouse, market: Market) -> Iterator["PageReader"]:
    """Yield what reads pages of tickers, on connections of its own."""
    with warehouse.reader() as read, warehouse.connect() as connection:
        yield PageReader(read, connection, market, warehouse)


class PageReader:
    """Reads what is shown of tickers, many at a time."""

    def __init__(
        self, read: Reader, connection: psycopg.Connection, market: Market, warehouse: Warehouse
    ) -> None:
        self._read = read
        self._connection = connection
        self._market = market
        self._warehouse = warehouse
        self._lines = {line["ticker"]: line for line in market.lines}

    def pages(self, tickers: Sequence[str]) -> Iterator[Page]:
        """Yield the pages of `tickers`, in their order."""
        daily, weekly = self._daily(tickers), self._weekly(tickers)
        securities = self._securities(tickers)
        profiles, actions = (
            self._rows(_PROFILES, tickers),
            self._rows(_ACTIONS, tickers, securities),
        )
        restated = self._rows(_RESTATEMENTS, tickers, SHOWN)
        rejected, refused = self._rows(_REJECTED, tickers, SHOWN), self._refused(tickers)
        differences = self._rows(_DIFFERENCES, tickers, securities)
        loads, fetches = self._rows(_LOADS, tickers), self._rows(_FETCHES, tickers)
        for ticker in tickers:
            gaps = self._market.gaps.get(ticker, ())
            failed = [f for f in fetches[ticker] if f["outcome"] not in ("Data", "Unavailable")]
            health = Health(
                rejected=next((row["rows"] for row in rejected[ticker]), 0),
                refused=len(refused[ticker]),
                missing=sum(gap.sessions for gap, may_be_had in gaps if may_be_had),
                unavailable=sum(gap.sessions for gap, may_be_had in gaps if not may_be_had),
                differences=len(differences[ticker]),
                restatements=next((row["rows"] for row in restated[ticker]), 0),
                failure="; ".join(f"{f['dataset']}: {f['reason'] or f['outcome']}" for f in failed)
                or None,
                behind=_behind(gaps),
            )
            more = {
                "summary": {
                    name: self._lines[ticker][name]
                    for name in (
                        *("price_source", "first_session", "last_session", "sessions"),
                        *("simple_return_total", "simple_return_yearly", "volatility"),
                        *("dividends", "splits", "open", "high", "low", "range_source"),
                    )
                },
                "profile": next(iter(profiles[ticker]), {}),
                "actions": actions[ticker],
                "restatements": restated[ticker],
                "rejected": [
                    {**row, "row_values": _cut(str(row["row_values"]))} for row in rejected[ticker]
                ],
                "refused": refused[ticker],
                "differences": differences[ticker][:SHOWN],
                "gaps": [
                    {"text": gap.describe(), "may_be_had": may_be_had} for gap, may_be_had in gaps
                ][:SHOWN],
                "loads": loads[ticker],
                "fetches": fetches[ticker],
            }
            frames = (daily.get(ticker), weekly.get(ticker))
            yield Page(ticker, bundle(_or_empty(frames[0]), _or_empty(frames[1]), more), health)

    def _rows(
        self, statement: str, tickers: Sequence[str], *more: object
    ) -> Mapping[str, list[dict[str, Any]]]:
        """Return the rows of each ticker, which they no longer name."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        with self._connection.cursor(row_factory=dict_row) as cursor:
            for row in cursor.execute(statement, (list(tickers), *more)):
                row.pop("place", None)
                found[row.pop("ticker")].append(row)
        return found

    def _refused(self, tickers: Sequence[str]) -> Mapping[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for refusal in self._warehouse.refusals(tickers=tickers):
            row = refusal._asdict()
            found[row.pop("ticker")].append(row)
        return found

    def _daily(self, tickers: Sequence[str]) -> Mapping[str, pl.DataFrame]:
        """Return the newest daily rows of each ticker, oldest first."""
        since: dict[date, list[str]] = defaultdict(list)
        for ticker in tickers:
            if last := self._lines[ticker]["last_session"]:
                since[last - timedelta(days=DAILY_DAYS)].append(ticker)
        frames = []
        for start, those in since.items():
            tables = [
                self._read(
                    SQL(
                        "select ticker, session_date, {columns} from {table} "
                        "where ticker = any({tickers}) and security_key = any({securities}) "
                        "and session_date > {start} order by ticker, session_date"
                    ).format(
                        columns=SQL(", ").join(map(Identifier, columns)),
                        table=Identifier("gold", table),
                        tickers=Literal(those),
                        securities=Literal(self._securities(those)),
                        start=Literal(start),
                    )
                )
                for table, columns in _DAILY.items()
            ]
            frame = tables[0]
            for table in tables[1:]:
                frame = frame.join(table, on=["ticker", "session_date"], how="left")
            frames.append(frame)
        return _by_ticker(pl.concat(frames)) if frames else {}

    def _weekly(self, tickers: Sequence[str]) -> Mapping[str, pl.DataFrame]:
        return _by_ticker(
            self._read(_WEEKLY.format(Literal(list(tickers)), Literal(self._securities(tickers))))
        )

    def _securities(self, tickers: Sequence[str]) -> list[int]:
        """Return the securities that `tickers` stand for now; no two tickers share one."""
        return [self._lines[ticker]["security_key"] for ticker in tickers]


def _by_ticker(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    parts = frame.partition_by("ticker", maintain_order=True, as_dict=True)
    return {str(ticker): part for (ticker,), part in parts.items()}


def _or_empty(frame: pl.DataFrame | None) -> pl.DataFrame:
    if frame is not None:
        return frame
    dates = {"session_date": pl.Date(), "adjusted_close": pl.Float64()}
    return pl.DataFrame(schema={**dict.fromkeys(DAILY_COLUMNS, pl.Float64()), **dates})


def _behind(gaps: Iterable[tuple[Gap, bool]]) -> int:
    """Return how many of the newest sessions are missing that a call may bring."""
    return sum(gap.sessions for gap, may_be_had in gaps if may_be_had and gap.place is Place.AFTER)


def _cut(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]} ..."

"""Vendor payloads into typed frames.

Each `shape_*` function takes the bytes as the vendor sent them and returns the rows that follow the
table's schema apart from those that do not. The vendor's field names are known here and nowhere
else.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

import dataframely as dy
import msgspec
import polars as pl

from stocks_assets.domain import datasets, schemas
from stocks_assets.errors import PayloadError

_PRICE_FIELDS = {"open": "1. open", "high": "2. high", "low": "3. low", "close": "4. close"}
_NULLS = ("None", "-", "null", "")
_REJECTED_SCHEMA: Mapping[str, pl.DataType] = {
    "dataset": pl.String(),
    "row_values": pl.String(),
    "rules": pl.List(pl.String()),
}


@dataclass(frozen=True, slots=True)
class Shaped:
    """The rows of one payload.

    `rows` has the columns of the table's schema; `rejected` has `row_values` (the raw row as JSON)
    and `rules` (names of the rules that it breaks). Both have `dataset`, the input of each row.
    `is_whole` tells whether the payload has the whole history: then what it has not is not.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    is_whole: bool = True


def shape_weekly_bars(ticker: str, payloads: Mapping[str, bytes]) -> Shaped:
    """Shape TIME_SERIES_WEEKLY_ADJUSTED into `schemas.WeeklyBars`.

    The week is the one that holds the label, so that a running week keeps its key when the label
    moves to the next session. Where a payload labels one week twice, the later label counts.
    """
    raw = _bars(datasets.WEEKLY_BARS, payloads)
    frame = raw.frame.select(
        pl.col("row_number"),
        pl.lit(ticker).alias("ticker"),
        _date("label").dt.truncate("1w").alias("week_start"),
        _date("label").alias("session_date"),
        *(_number(field).alias(name) for name, field in _PRICE_FIELDS.items()),
        _number("5. adjusted close").alias("adjusted_close"),
        _whole_number("6. volume").alias("volume"),
        _number("7. dividend amount").alias("dividend_amount"),
    )
    newest_first = frame.sort("session_date", descending=True, nulls_last=True)
    keyed = newest_first.filter(pl.col("week_start").is_not_null())
    one_a_week = keyed.unique("week_start", keep="first", maintain_order=True)
    unkeyed = newest_first.filter(pl.col("week_start").is_null())
    return _split(schemas.WeeklyBars, pl.concat([one_a_week, unkeyed]), raw)


def shape_daily_bars(ticker: str, payloads: Mapping[str, bytes]) -> Shaped:
    """Shape TIME_SERIES_DAILY or TIME_SERIES_DAILY_ADJUSTED into `schemas.DailyBars`."""
    raw = _bars(datasets.DAILY_BARS, payloads)
    frame = raw.frame.select(
        pl.col("row_number"),
        pl.lit(ticker).alias("ticker"),
        _date("label").alias("session_date"),
        *(_number(field).alias(name) for name, field in _PRICE_FIELDS.items()),
        _number("5. adjusted close").alias("adjusted_close"),
        _whole_number(pl.coalesce("6. volume", "5. volume")).alias("volume"),
        _number("7. dividend amount").alias("dividend_amount"),
        _number("8. split coefficient").alias("split_coefficient"),
    )
    shaped = _split(schemas.DailyBars, frame, raw)
    # Only the adjusted endpoint is asked for whole histories; the other gives the newest sessions.
    is_whole = raw.frame["5. adjusted close"].is_not_null().all()
    return replace(shaped, is_whole=bool(is_whole))


def shape_corporate_actions(ticker: str, payloads: Mapping[str, bytes]) -> Shaped:
    """Shape SPLITS, DIVIDENDS and the events inside daily bars into `schemas.CorporateActions`.

    Where an action stands in its own dataset and in the daily bars, its own dataset counts.
    """
    shaped: list[Shaped] = []
    if body := payloads.get(datasets.SPLITS.name):
        raw = _events(datasets.SPLITS, body, (_SPLITS.date_field, _SPLITS.amount_field))
        shaped += _actions(raw, raw.frame, ticker, _SPLITS)
    if body := payloads.get(datasets.DIVIDENDS.name):
        fields = (_DIVIDENDS.date_field, _DIVIDENDS.amount_field, *_FURTHER_DATES)
        raw = _events(datasets.DIVIDENDS, body, fields)
        shaped += _actions(raw, raw.frame, ticker, _DIVIDENDS)
    if datasets.DAILY_BARS.name in payloads:
        daily = _bars(datasets.DAILY_BARS, payloads)
        dividends = daily.frame.filter(_number(_DAILY_DIVIDENDS.amount_field) > 0)
        splits = daily.frame.filter(_number(_DAILY_SPLITS.amount_field) != 1)
        shaped += _actions(daily, dividends, ticker, _DAILY_DIVIDENDS)
        shaped += _actions(daily, splits, ticker, _DAILY_SPLITS)
    if not shaped:
        raise PayloadError(f"no payload with corporate actions of {ticker}")
    rows = pl.concat([part.rows for part in shaped])
    return Shaped(
        rows.unique(["ex_date", "action_type"], keep="first", maintain_order=True),
        pl.concat([part.rejected for part in shaped]),
    )


_COMPANY_TEXTS = {
    "company_name": "Name",
    "description": "Description",
    "asset_type": "AssetType",
    "exchange": "Exchange",
    "currency": "Currency",
    "country": "Country",
    "sector": "Sector",
    "industry": "Industry",
    "cik": "CIK",
    "official_site": "OfficialSite",
    "fiscal_year_end": "FiscalYearEnd",
}
_COMPANY_DATES = {
    "latest_quarter": "LatestQuarter",
    "dividend_date": "DividendDate",
    "ex_dividend_date": "ExDividendDate",
}
_COMPANY_AMOUNTS = {
    "market_capitalization": "MarketCapitalization",
    "shares_outstanding": "SharesOutstanding",
    "revenue_ttm": "RevenueTTM",
    "ebitda": "EBITDA",
}
_COMPANY_RATIOS = {
    "eps": "EPS",
    "pe_ratio": "PERatio",
    "book_value": "BookValue",
    "dividend_per_share": "DividendPerShare",
    "dividend_yield": "DividendYield",
    "profit_margin": "ProfitMargin",
    "beta": "Beta",
}


def shape_companies(ticker: str, payloads: Mapping[str, bytes]) -> Shaped:
    """Shape OVERVIEW into `schemas.Companies`: one row."""
    body = payloads[datasets.COMPANIES.name]
    document = _decode(body, dict[str, Any], datasets.COMPANIES)
    fields = _COMPANY_TEXTS | _COMPANY_DATES | _COMPANY_AMOUNTS | _COMPANY_RATIOS
    raw = _Raw.of(datasets.COMPANIES, [document], tuple(fields.values()))
    frame = raw.frame.select(
        pl.col("row_number"),
        pl.lit(ticker).alias("ticker"),
        *(_text(field).alias(name) for name, field in _COMPANY_TEXTS.items()),
        *(_date(field).alias(name) for name, field in _COMPANY_DATES.items()),
        *(_whole_number(field).alias(name) for name, field in _COMPANY_AMOUNTS.items()),
        *(_number(field).alias(name) for name, field in _COMPANY_RATIOS.items()),
    )
    return _split(schemas.Companies, frame, raw)


@dataclass(frozen=True, slots=True)
class SilverTable:
    """A silver table: the bronze datasets it is shaped from, and how.

    A ticker is shaped from whatever is stored of `inputs`; `date_column` dates its rows.
    """

    name: str
    inputs: tuple[datasets.Dataset, ...]
    schema: type[dy.Schema]
    shape: Callable[[str, Mapping[str, bytes]], Shaped]
    date_column: str | None

    @property
    def columns(self) -> list[str]:
        """Names of the business columns, in order."""
        return [name for name in self.schema.column_names() if name != "row_number"]

    @property
    def primary_key(self) -> list[str]:
        """Names of the key columns."""
        return list(self.schema.primary_key())


SILVER_TABLES: Mapping[str, SilverTable] = {
    table.name: table
    for table in (
        SilverTable(
            "weekly_bars",
            (datasets.WEEKLY_BARS,),
            schemas.WeeklyBars,
            shape_weekly_bars,
            "session_date",
        ),
        SilverTable(
            "daily_bars",
            (datasets.DAILY_BARS,),
            schemas.DailyBars,
            shape_daily_bars,
            "session_date",
        ),
        SilverTable(
            "corporate_actions",
            (datasets.SPLITS, datasets.DIVIDENDS, datasets.DAILY_BARS),
            schemas.CorporateActions,
            shape_corporate_actions,
            "ex_date",
        ),
        SilverTable("companies", (datasets.COMPANIES,), schemas.Companies, shape_companies, None),
    )
}


@dataclass(frozen=True, slots=True)
class _Raw:
    """A payload's rows as the vendor wrote them: a frame of strings and the rows themselves."""

    dataset: datasets.Dataset
    frame: pl.DataFrame
    rows: Sequence[Mapping[str, Any]]

    @classmethod
    def of(
        cls, dataset: datasets.Dataset, rows: Sequence[Mapping[str, Any]], fields: Sequence[str]
    ) -> Self:
        """Number the rows and put their `fields` into columns; what a row has not is null."""
        columns = {field: [row.get(field) for row in rows] for field in fields}
        frame = pl.DataFrame(
            {
                "row_number": pl.int_range(len(rows), dtype=pl.UInt32, eager=True),
                **{
                    field: pl.Series(
                        [None if value is None else str(value) for value in values],
                        dtype=pl.String,
                    )
                    for field, values in columns.items()
                },
            }
        )
        return cls(dataset, frame, rows)


_BAR_FIELDS = (
    *_PRICE_FIELDS.values(),
    "5. adjusted close",
    "5. volume",
    "6. volume",
    "7. dividend amount",
    "8. split coefficient",
)


def _bars(dataset: datasets.Dataset, payloads: Mapping[str, bytes]) -> _Raw:
    data_key = dataset.endpoints[0].data_key
    document = _decode(payloads[dataset.name], _series_type(data_key), dataset)
    rows = [{"label": label, **fields} for label, fields in document.series.items()]
    return _Raw.of(dataset, rows, ("label", *_BAR_FIELDS))


def _events(dataset: datasets.Dataset, body: bytes, fields: Sequence[str]) -> _Raw:
    rows = _decode(body, _events_type(), dataset).data
    return _Raw.of(dataset, rows, fields)


@cache
def _series_type(data_key: str) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        "Series", [("series", dict[str, dict[str, str]])], rename={"series": data_key}
    )


@cache
def _events_type() -> type[msgspec.Struct]:
    return msgspec.defstruct("Events", [("data", list[dict[str, Any]])])


def _decode(body: bytes, of: Any, dataset: datasets.Dataset) -> Any:  # noqa: ANN401 # msgspec's own
    try:
        return msgspec.json.decode(body, type=of)
    except msgspec.DecodeError as error:
        raise PayloadError(f"a payload of {dataset.name} cannot be read: {error}") from error


_FURTHER_DATES = ("declaration_date", "record_date", "payment_date")


@dataclass(frozen=True, slots=True)
class _ActionFields:
    """Which fields of a payload hold the actions of one kind."""

    action_type: str
    date_field: str
    amount_field: str


_SPLITS = _ActionFields("split", "effective_date", "split_factor")
_DIVIDENDS = _ActionFields("dividend", "ex_dividend_date", "amount")
_DAILY_SPLITS = _ActionFields("split", "label", "8. split coefficient")
_DAILY_DIVIDENDS = _ActionFields("dividend", "label", "7. dividend amount")


def _actions(raw: _Raw, frame: pl.DataFrame, ticker: str, fields: _ActionFields) -> list[Shaped]:
    """Return the actions in `frame`, those of one ex-date as one, and what is no action.

    A regular and a special dividend can share an ex-date: they add up, as splits multiply. The same
    line twice counts once.
    """
    dates = [
        (_date(name) if name in frame.columns else pl.lit(None, dtype=pl.Date)).alias(name)
        for name in _FURTHER_DATES
    ]
    lines = frame.select(
        pl.col("row_number"),
        _date(fields.date_field).alias("ex_date"),
        _number(fields.amount_field).alias("amount"),
        *dates,
    ).unique(["ex_date", "amount", *_FURTHER_DATES], keep="first", maintain_order=True)
    is_good = (pl.col("ex_date").is_not_null() & (pl.col("amount") > 0)).fill_null(value=False)
    is_dividend = fields.action_type == "dividend"
    amount = pl.col("amount").sum() if is_dividend else pl.col("amount").product()
    together = (
        lines.filter(is_good)
        .group_by("ex_date", maintain_order=True)
        .agg(pl.col("row_number").first(), amount, pl.col(_FURTHER_DATES).first())
    )
    nothing = pl.lit(None, dtype=pl.Float64)
    # Apart, so that a bad line does not take a good one of its ex-date along as a duplicate.
    return [
        _split(
            schemas.CorporateActions,
            actions.select(
                pl.col("row_number"),
                pl.lit(ticker).alias("ticker"),
                pl.col("ex_date"),
                pl.lit(fields.action_type).alias("action_type"),
                (pl.col("amount") if is_dividend else nothing).alias("dividend_amount"),
                (nothing if is_dividend else pl.col("amount")).alias("split_ratio"),
                pl.col(_FURTHER_DATES),
            ),
            raw,
        )
        for actions in (together, lines.filter(~is_good))
    ]


def _text(field: str) -> pl.Expr:
    text = pl.col(field).str.strip_chars()
    return pl.when(~text.is_in(_NULLS)).then(text)


def _date(field: str) -> pl.Expr:
    return pl.col(field).str.to_date("%Y-%m-%d", strict=False)


def _number(field: str) -> pl.Expr:
    number = pl.col(field).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _whole_number(field: str | pl.Expr) -> pl.Expr:
    """Volumes come as `123`, rarely as `123.0`; anything else is no whole number."""
    text = pl.col(field) if isinstance(field, str) else field
    number = text.cast(pl.Float64, strict=False)
    whole = pl.when(number.is_finite() & (number == number.round())).then(number)
    return pl.coalesce(text.cast(pl.Int64, strict=False), whole.cast(pl.Int64, strict=False))


def _split(schema: type[dy.Schema], frame: pl.DataFrame, raw: _Raw) -> Shaped:
    good, failure = schema.filter(frame.select(schema.column_names()))
    rejected = pl.DataFrame(schema=_REJECTED_SCHEMA)
    if len(failure):
        details = failure.details()
        rules = [name for name in details.columns if name not in frame.columns]
        broken = [
            [rule for rule, verdict in zip(rules, verdicts, strict=True) if verdict == "invalid"]
            for verdicts in details.select(rules).rows()
        ]
        rejected = pl.DataFrame(
            {
                "dataset": [raw.dataset.name] * len(broken),
                "row_values": [
                    # PostgreSQL's jsonb takes any character but this one.
                    json.dumps(raw.rows[number], ensure_ascii=False).replace("\\u0000", "")
                    for number in details["row_number"]
                ],
                "rules": broken,
            },
            schema=_REJECTED_SCHEMA,
        )
    rows = good.drop("row_number").with_columns(pl.lit(raw.dataset.name).alias("dataset"))
    return Shaped(rows.sort(schema.primary_key()), rejected)

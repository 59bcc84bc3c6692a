"""Vendor payloads into typed frames.

A table's `shape` takes the bytes as the vendor sent them and returns the rows that follow its
schema apart from those that do not. The vendor's field names are known here and nowhere else:
`bars`, `actions`, `companies` and `listings` read them, `checking` holds what was read against the
rules.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

import dataframely as dy

from stocks_assets.domain import calendar, datasets, schemas
from stocks_assets.domain.payloads.actions import read_corporate_actions
from stocks_assets.domain.payloads.bars import (
    read_daily_bars,
    read_intraday_bars,
    read_monthly_bars,
    read_weekly_bars,
    standing_of_reply,
)
from stocks_assets.domain.payloads.checking import Shaped, check
from stocks_assets.domain.payloads.companies import read_companies
from stocks_assets.domain.payloads.listings import read_listings
from stocks_assets.domain.payloads.reading import Day, Payloads, Reading
from stocks_assets.errors import PayloadError

__all__ = ["SILVER_TABLES", "Payloads", "Shaped", "SilverTable", "standing_of_reply"]


@dataclass(frozen=True, slots=True)
class SilverTable:
    """A silver table: the bronze datasets it is shaped from, and how.

    A ticker is shaped from whatever is stored of `inputs`, the market under `datasets.MARKET`;
    `date_column` dates its rows.
    """

    name: str
    inputs: tuple[datasets.Dataset, ...]
    schema: type[dy.Schema]
    read: Callable[[str, Payloads, Day], Reading]
    date_column: str | None

    @property
    def columns(self) -> list[str]:
        """Names of the business columns, in order."""
        return [name for name in self.schema.column_names() if name not in schemas.NOT_STORED]

    @property
    def primary_key(self) -> list[str]:
        """Names of the key columns."""
        return list(self.schema.primary_key())

    @property
    def is_in_parts(self) -> bool:
        """Whether each payload stands for rows of its own, as those of a month do."""
        return all(dataset.is_monthly for dataset in self.inputs)

    @property
    def is_of_several(self) -> bool:
        """Whether several datasets of the vendor have rows of it."""
        return sum(dataset.name not in datasets.DROPPED for dataset in self.inputs) > 1

    @property
    def is_of_market(self) -> bool:
        """Whether it is shaped once for the market and not for each ticker."""
        return all(dataset.is_of_market for dataset in self.inputs)

    def shape(self, ticker: str, payloads: Payloads, at: datetime | None = None) -> Shaped:
        """Shape the payloads of one ticker; see `shape_many`.

        Raises:
            PayloadError: a payload cannot be read.
        """
        shaped = self.shape_many({ticker: payloads}, at)[ticker]
        if isinstance(shaped, PayloadError):
            raise shaped
        return shaped

    def shape_many(
        self,
        batch: Mapping[str, Payloads],
        at: datetime | Mapping[str, Mapping[str, datetime]] | None = None,
    ) -> dict[str, Shaped | PayloadError]:
        """Shape the payloads of each ticker, or say why they cannot be read.

        `at` is when they came: all of them, or each payload of each ticker; now, unless it is
        given. Bars that are dated after the day, in UTC, of a ticker's newest payload break a rule.
        A daily bar of the vendor's whose session was not over then is not taken, and a period whose
        last session was not is not complete.
        """
        now = at or datetime.now(UTC)
        readings: dict[str, Reading] = {}
        days: list[Day] = []
        errors: dict[str, PayloadError] = {}
        for ticker, payloads in batch.items():
            day = _day(now[ticker] if isinstance(now, Mapping) else dict.fromkeys(payloads, now))
            try:
                readings[ticker] = self.read(ticker, payloads, day)
            except PayloadError as error:
                errors[ticker] = error
            else:
                days.append(day)
        shaped = check(self.schema, list(readings.values()), days)
        return errors | dict(zip(readings, shaped, strict=True))


def _day(came: Mapping[str, datetime]) -> Day:
    """Return the day of the payloads that came so; files say of themselves what is over."""
    vendors = [at for name, at in came.items() if name.partition("/")[0] not in datasets.DROPPED]
    return Day(
        max(came.values()).astimezone(UTC).date(),
        calendar.last_day_over(max(vendors)) if vendors else date.max,
    )


SILVER_TABLES: Mapping[str, SilverTable] = {
    table.name: table
    for table in (
        SilverTable("listings", (datasets.LISTINGS,), schemas.Listings, read_listings, "listed_on"),
        SilverTable(
            "weekly_bars",
            (datasets.WEEKLY_BARS,),
            schemas.WeeklyBars,
            read_weekly_bars,
            "session_date",
        ),
        SilverTable(
            "daily_bars",
            (datasets.DAILY_BARS, datasets.DROPPED_DAILY_BARS),
            schemas.DailyBars,
            read_daily_bars,
            "session_date",
        ),
        SilverTable(
            "monthly_bars",
            (datasets.MONTHLY_BARS,),
            schemas.MonthlyBars,
            read_monthly_bars,
            "session_date",
        ),
        SilverTable(
            "intraday_bars",
            (datasets.INTRADAY_BARS,),
            schemas.IntradayBars,
            read_intraday_bars,
            "session_date",
        ),
        SilverTable(
            "corporate_actions",
            (
                datasets.SPLITS,
                datasets.DIVIDENDS,
                datasets.DAILY_BARS,
                datasets.DROPPED_DAILY_BARS,
                datasets.DROPPED_ACTIONS,
            ),
            schemas.CorporateActions,
            read_corporate_actions,
            "ex_date",
        ),
        SilverTable("companies", (datasets.COMPANIES,), schemas.Companies, read_companies, None),
    )
}

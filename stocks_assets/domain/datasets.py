"""The datasets a vendor has, and which of its functions each comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

# Bytes of an object of bronze at most, unpacked, whoever brings it; replies of the vendor, and a
# file's rows of one ticker, have a few million.
LARGEST_REPLY = 64 * 1024**2

MARKET = ""
"""Stands where a ticker would, in what is asked of a dataset that is of the whole market."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One function of the vendor's API.

    `data_key` is what a reply with data has and a refusal has not: a key of the JSON object, or
    what the CSV's header begins with. Where the dataset is asked for in parts, `part_parameter`
    names the parameter that takes one. `recent` are the parameters that ask for the newest rows
    alone, where the whole history is asked for otherwise.
    """

    function: str
    data_key: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    premium: bool = False
    part_parameter: str | None = None
    recent: Mapping[str, str] | None = None
    form: Literal["json", "csv"] = "json"


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is fetched for a ticker, or once for the market, in one call a part.

    `endpoints` are ordered, the fullest first. Where calls are scarce, the dataset is asked for
    again after `refresh_after`, and only once a further session has closed if it follows sessions.

    Most have one part, with an empty name. `parts` names those of a dataset that has a fixed set of
    them; one with `is_monthly` has a part a calendar month, such as 2024-03, of which a window is
    kept (`parts_of`), and a month that is over is never asked for twice.
    """

    name: str
    description: str
    endpoints: tuple[Endpoint, ...]
    refresh_after: timedelta
    follows_sessions: bool = False
    is_of_market: bool = False
    is_monthly: bool = False
    parts: tuple[str, ...] = ("",)

    @property
    def form(self) -> Literal["json", "csv"]:
        """How the vendor writes it."""
        return self.endpoints[0].form

    @property
    def is_premium(self) -> bool:
        """Whether no endpoint of it takes a free key."""
        return all(endpoint.premium for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """One thing to ask a source for: a dataset, or a part of it, for a ticker or for the market."""

    dataset: str
    ticker: str
    part: str = ""

    def __str__(self) -> str:
        return " ".join(word for word in (self.dataset, self.ticker, self.part) if word)


def parts_of(dataset: Dataset, today: date, months: int) -> tuple[str, ...]:
    """Return the parts of `dataset` to keep up to date; of a monthly one the newest `months`."""
    if not dataset.is_monthly:
        return dataset.parts
    newest = today.year * 12 + today.month - 1
    return tuple(f"{m // 12}-{m % 12 + 1:02}" for m in range(newest, newest - months, -1))


WEEKLY_BARS = Dataset(
    "weekly_bars",
    "Weekly prices, adjusted closes, volumes and dividends: the whole history in each reply.",
    (Endpoint("TIME_SERIES_WEEKLY_ADJUSTED", "Weekly Adjusted Time Series"),),
    refresh_after=timedelta(days=5),
    follows_sessions=True,
)
DAILY_BARS = Dataset(
    "daily_bars",
    "Daily bars: the whole history with adjusted closes, dividends and splits for premium keys, "
    "the newest 100 sessions of raw prices for free ones.",
    (
        Endpoint(
            "TIME_SERIES_DAILY_ADJUSTED",
            "Time Series (Daily)",
            {"outputsize": "full"},
            premium=True,
            recent={"outputsize": "compact"},
        ),
        Endpoint("TIME_SERIES_DAILY", "Time Series (Daily)", {"outputsize": "compact"}),
    ),
    refresh_after=timedelta(0),
    follows_sessions=True,
)
MONTHLY_BARS = Dataset(
    "monthly_bars",
    "Monthly prices, adjusted closes, volumes and dividends: the whole history in each reply.",
    (Endpoint("TIME_SERIES_MONTHLY_ADJUSTED", "Monthly Adjusted Time Series"),),
    refresh_after=timedelta(days=20),
    follows_sessions=True,
)
INTRADAY_BARS = Dataset(
    "intraday_bars",
    "Raw bars of five minutes of the regular session, an object a month. For premium keys.",
    (
        Endpoint(
            "TIME_SERIES_INTRADAY",
            "Time Series (5min)",
            {
                "interval": "5min",
                "adjusted": "false",
                "extended_hours": "false",
                "outputsize": "full",
            },
            premium=True,
            part_parameter="month",
        ),
    ),
    refresh_after=timedelta(0),
    follows_sessions=True,
    is_monthly=True,
)
SPLITS = Dataset(
    "splits",
    "All splits with their effective dates.",
    (Endpoint("SPLITS", "data"),),
    refresh_after=timedelta(days=7),
)
DIVIDENDS = Dataset(
    "dividends",
    "All cash dividends with their ex-dates.",
    (Endpoint("DIVIDENDS", "data"),),
    refresh_after=timedelta(days=7),
)
COMPANIES = Dataset(
    "companies",
    "The company: name, sector, shares, ratios.",
    (Endpoint("OVERVIEW", "Symbol"),),
    refresh_after=timedelta(days=30),
)

LISTINGS = Dataset(
    "listings",
    "The securities of the American exchanges, listed and delisted: one list each, for the market.",
    (
        Endpoint(
            "LISTING_STATUS",
            "symbol,name,exchange,assetType,ipoDate,delistingDate,status",
            part_parameter="state",
            form="csv",
        ),
    ),
    refresh_after=timedelta(days=7),
    is_of_market=True,
    parts=("active", "delisted"),
)

# In the order in which they are asked for where calls are scarce.
DATASETS: Mapping[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        LISTINGS,
        WEEKLY_BARS,
        DAILY_BARS,
        SPLITS,
        DIVIDENDS,
        COMPANIES,
        MONTHLY_BARS,
        INTRADAY_BARS,
    )
}

DROPPED_DAILY_BARS = Dataset(
    "dropped_daily_bars",
    "Daily bars from files that people put into the inbox, a part a file.",
    (Endpoint("INBOX", "rows"),),
    refresh_after=timedelta(0),
    parts=(),
)
DROPPED_ACTIONS = Dataset(
    "dropped_actions",
    "Dividends and splits from files that people put into the inbox, a part a file.",
    (Endpoint("INBOX", "rows"),),
    refresh_after=timedelta(0),
    parts=(),
)

# In bronze, and asked of no source.
DROPPED: Mapping[str, Dataset] = {
    dataset.name: dataset for dataset in (DROPPED_DAILY_BARS, DROPPED_ACTIONS)
}

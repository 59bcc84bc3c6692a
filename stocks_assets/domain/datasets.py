"""The datasets a vendor has, and which of its functions each comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One function of the vendor's API.

    `data_key` is the key of the JSON object that a reply with data has, and a refusal has not.
    """

    function: str
    data_key: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    premium: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is fetched for a ticker in one call.

    `endpoints` are ordered, the fullest first. Where calls are scarce, the dataset is asked for
    again after `refresh_after`, and only once a further session has closed if it follows sessions.
    """

    name: str
    description: str
    endpoints: tuple[Endpoint, ...]
    refresh_after: timedelta
    follows_sessions: bool = False


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
        ),
        Endpoint("TIME_SERIES_DAILY", "Time Series (Daily)", {"outputsize": "compact"}),
    ),
    refresh_after=timedelta(hours=12),
    follows_sessions=True,
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

DATASETS: Mapping[str, Dataset] = {
    dataset.name: dataset for dataset in (WEEKLY_BARS, DAILY_BARS, SPLITS, DIVIDENDS, COMPANIES)
}

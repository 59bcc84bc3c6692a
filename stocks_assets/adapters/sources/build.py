"""From settings to a source."""

from datetime import UTC, datetime

from stocks_assets.adapters.budget import CallBudget, Rates
from stocks_assets.adapters.sources.alpha_vantage import AlphaVantageSource
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.sources.replay import ReplaySource
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.calendar import last_closed_session
from stocks_assets.domain.datasets import Dataset
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.errors import SettingsError
from stocks_assets.settings import Settings

# What the plans are sold with; the settings can say otherwise.
_PLANS = {"free": Rates(1, 5, 25), "premium": Rates(None, 75, None)}


def call_rates(settings: Settings) -> Rates:
    """Return the limits of calls: the plan's, unless a setting says otherwise; 0 is no limit."""
    plan = _PLANS[settings.alpha_vantage_plan]

    def choose(own: int | None, usual: int | None) -> int | None:
        return (usual if own is None else own) or None

    return Rates(
        choose(settings.calls_per_second, plan.per_second),
        choose(settings.calls_per_minute, plan.per_minute),
        choose(settings.calls_per_day, plan.per_day),
    )


def offers(settings: Settings, dataset: Dataset) -> bool:
    """Tell whether the source that STOCKS_SOURCE names offers `dataset`, without opening it."""
    is_premium = settings.source != "alpha_vantage" or settings.alpha_vantage_plan == "premium"
    return is_premium or not dataset.is_premium


def build_source(settings: Settings, warehouse: Warehouse | None = None) -> Source:
    """Return the source that STOCKS_SOURCE names; calls are counted in `warehouse`, if given.

    Raises:
        SettingsError: what the source needs is missing.
    """
    match settings.source:
        case "alpha_vantage":
            if settings.alpha_vantage_api_key is None:
                raise SettingsError(
                    "STOCKS_SOURCE=alpha_vantage needs ALPHA_VANTAGE_API_KEY; get a free key at "
                    "https://www.alphavantage.co/support/#api-key"
                )
            key = settings.alpha_vantage_api_key.get_secret_value()
            rates = call_rates(settings)
            return AlphaVantageSource(
                key,
                premium=settings.alpha_vantage_plan == "premium",
                url=settings.alpha_vantage_url,
                budget=CallBudget(warehouse, key, rates)
                if warehouse is not None and rates.as_list()
                else None,
            )
        case "replay":
            if settings.replay_dir is None or not settings.replay_dir.is_dir():
                raise SettingsError(
                    f"STOCKS_REPLAY_DIR={settings.replay_dir or ''} is not a folder; "
                    "STOCKS_SOURCE=replay needs one with <FUNCTION>/<vintage>/<TICKER>.json"
                )
            return ReplaySource(settings.replay_dir, settings.replay_vintage)
        case "sample":
            first, last = settings.sample_first_session, settings.sample_last_session
            market = SampleMarket(first_session=first) if first else SampleMarket()
            return SampleSource(market, lambda: last or last_closed_session(datetime.now(UTC)))

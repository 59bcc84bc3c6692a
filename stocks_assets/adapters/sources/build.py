"""From settings to a source."""

from datetime import UTC, datetime

from stocks_assets.adapters.sources.alpha_vantage import AlphaVantageSource
from stocks_assets.adapters.sources.port import Source
from stocks_assets.adapters.sources.replay import ReplaySource
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.domain.calendar import last_closed_session
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.errors import SettingsError
from stocks_assets.settings import Settings


def build_source(settings: Settings) -> Source:
    """Return the source that STOCKS_SOURCE names.

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
            return AlphaVantageSource(
                settings.alpha_vantage_api_key.get_secret_value(),
                premium=settings.alpha_vantage_plan == "premium",
                url=settings.alpha_vantage_url,
            )
        case "replay":
            if settings.replay_dir is None or not settings.replay_dir.is_dir():
                raise SettingsError(
                    f"STOCKS_REPLAY_DIR={settings.replay_dir or ''} is not a folder; "
                    "STOCKS_SOURCE=replay needs one with <FUNCTION>/<vintage>/<TICKER>.json"
                )
            return ReplaySource(settings.replay_dir, settings.replay_vintage)
        case "sample":
            return SampleSource(SampleMarket(), lambda: last_closed_session(datetime.now(UTC)))

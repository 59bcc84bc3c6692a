"""The fictional market, for a first look and for tests, up to the last closed session."""

from collections.abc import Callable, Sequence
from datetime import date

from stocks_assets.domain.datasets import Dataset
from stocks_assets.domain.outcomes import Outcome, classify
from stocks_assets.domain.sample_market import SampleMarket

_DEFAULT_COUNT = 12


class SampleSource:
    """Serves the replies that the fictional market's vendor would give on the day."""

    def __init__(self, market: SampleMarket, last_session: Callable[[], date]) -> None:
        self._market = market
        self._last_session = last_session

    def fetch(
        self, dataset: Dataset, ticker: str, part: str = "", *, recent: bool = False
    ) -> Outcome:
        """Return the reply of the fullest endpoint: this vendor sells everything for nothing."""
        endpoint = dataset.endpoints[0]
        asked = {endpoint.part_parameter: part} if endpoint.part_parameter else {}
        if recent and endpoint.recent:
            asked |= endpoint.recent
        if "interval" in endpoint.parameters:
            asked["interval"] = endpoint.parameters["interval"]
        body = self._market.reply(endpoint.function, ticker, self._last_session(), **asked)
        return classify(endpoint, body)

    def offers(self, dataset: Dataset) -> bool:  # noqa: ARG002 # the port's name
        """Offer everything."""
        return True

    def allowance(self) -> None:
        """Plan nothing: calls cost nothing here."""

    def listed_tickers(self, count: int | None) -> Sequence[str]:
        """Return the first `count` companies of the market."""
        return self._market.tickers(_DEFAULT_COUNT if count is None else count)

    def close(self) -> None:
        """Hold nothing, so let go of nothing."""

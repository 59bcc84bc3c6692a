"""The live vendor: one symbol a call, refusals with HTTP 200, the key in the query string."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

import httpx
import tenacity

from stocks_assets.adapters.budget import CallBudget
from stocks_assets.domain.datasets import Dataset, Endpoint
from stocks_assets.domain.outcomes import (
    BurstLimited,
    DayQuotaSpent,
    Malformed,
    Outcome,
    Refused,
    TransportFailed,
    classify,
)
from stocks_assets.domain.planner import Allowance
from stocks_assets.domain.tickers import parse_ticker

_LIMIT_BYTES = 64 * 1024 * 1024
_ATTEMPTS = 4

# Whoever turns these logs on would find the key there: in the URL, and where a redirect repeats it.
for _name in ("httpx", "httpcore.http11"):
    logging.getLogger(_name).addFilter(lambda record: "apikey=" not in record.getMessage())


class AlphaVantageSource:
    """Calls the vendor, tries again what may pass, and stops for good when the day is spent.

    Each call, one that is tried again included, is taken from `budget` first, if there is one.
    No exception of the HTTP library leaves this class: their texts carry the URL and so the key.
    """

    def __init__(
        self,
        api_key: str,
        *,
        premium: bool,
        url: str,
        budget: CallBudget | None = None,
        retry_wait: float = 1.5,
    ) -> None:
        self._api_key = api_key
        self._premium = premium
        self._url = url
        self._budget = budget
        self._client = httpx.Client(
            timeout=httpx.Timeout(30, connect=10),
            headers={"User-Agent": "stocks-assets", "Accept-Encoding": "gzip"},
            follow_redirects=False,
        )
        self._day_quota_spent = False
        # A free key takes one call at a time and one a second; concurrent ones would be refused.
        self._one_at_a_time = threading.Lock()
        self._retry = tenacity.Retrying(
            retry=tenacity.retry_if_result(
                lambda outcome: isinstance(outcome, BurstLimited | TransportFailed)
            ),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_exponential_jitter(multiplier=retry_wait, max=20, jitter=retry_wait),
            retry_error_callback=_last_outcome,
        )

    def fetch(self, dataset: Dataset, ticker: str) -> Outcome:
        """Return the vendor's reply from the fullest endpoint that the key may use."""
        endpoint = next(e for e in dataset.endpoints if self._premium or not e.premium)
        with self._one_at_a_time:
            if self._day_quota_spent:
                return DayQuotaSpent("not called: the calls of the day are spent")
            outcome: Outcome = self._retry(self._call, endpoint, parse_ticker(ticker))
            self._day_quota_spent = isinstance(outcome, DayQuotaSpent)
            return outcome

    def allowance(self) -> Allowance:
        """Return the calls left; without a budget nothing is known of them."""
        return self._budget.allowance() if self._budget else Allowance()

    def listed_tickers(self, count: int | None) -> Sequence[str]:  # noqa: ARG002 # the port's name
        """Name none: the universe is the user's own."""
        return ()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        if self._budget is not None:
            self._budget.close()

    def _call(self, endpoint: Endpoint, ticker: str) -> Outcome:
        if self._budget is not None and (frees_at := self._budget.take()) is not None:
            return DayQuotaSpent(f"no call is left before {frees_at:%Y-%m-%d %H:%M} UTC")
        outcome = self._ask(endpoint, ticker)
        if isinstance(outcome, DayQuotaSpent) and self._budget is not None:
            self._budget.pause()
        if isinstance(outcome, Refused):
            # The vendor echoes the key, and what it says is kept.
            return replace(outcome, body=outcome.body.replace(self._api_key.encode(), b"<KEY>"))
        return outcome

    def _ask(self, endpoint: Endpoint, ticker: str) -> Outcome:
        query = {
            "function": endpoint.function,
            "symbol": ticker,
            **endpoint.parameters,
            "apikey": self._api_key,
        }
        body = bytearray()
        try:
            with self._client.stream("GET", self._url, params=query) as response:
                if response.status_code != httpx.codes.OK:
                    return _bad_status(endpoint, response.status_code)
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > _LIMIT_BYTES:
                        return Malformed(f"the reply of {endpoint.function} is over 64 MiB")
        except httpx.HTTPError as error:
            return TransportFailed(f"{endpoint.function}: {type(error).__name__}")
        return classify(endpoint, bytes(body))


def _bad_status(endpoint: Endpoint, status: int) -> Outcome:
    reason = f"{endpoint.function} answered with HTTP status {status}"
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return BurstLimited(reason)
    return TransportFailed(reason) if status >= 500 else Malformed(reason)


def _last_outcome(state: tenacity.RetryCallState) -> Outcome:
    assert state.outcome is not None
    outcome: Outcome = state.outcome.result()
    return outcome

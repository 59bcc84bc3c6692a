"""The live vendor: one symbol a call, refusals with HTTP 200, the key in the query string."""

import asyncio
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote, quote_plus

import httpx
import tenacity

from stocks_assets.adapters.budget import CallBudget
from stocks_assets.domain.datasets import LARGEST_REPLY, MARKET, Dataset, Endpoint
from stocks_assets.domain.outcomes import (
    BurstLimited,
    DayQuotaSpent,
    Malformed,
    Outcome,
    PremiumOnly,
    Refused,
    TransportFailed,
    Unreachable,
    classify,
)
from stocks_assets.domain.planner import Allowance
from stocks_assets.domain.tickers import parse_ticker

_ATTEMPTS = 4
# Who asks for a longer wait is not waited for.
_LONGEST_WAIT = timedelta(minutes=2)
_LONGEST_ASKED = timedelta(days=7)
_MONTH = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])", re.ASCII)
# A shorter key, such as "demo", is no secret but part of ordinary words.
_SHORTEST_SECRET = 6

_THREAD = "alpha-vantage"
# The HTTP library would log the key: in the URL, and wherever the server repeats it in a header.
for _name in ("httpx", "httpcore.http11"):
    logging.getLogger(_name).addFilter(lambda record: record.threadName != _THREAD)


class _TooLargeError(Exception):
    """A reply is over the limit."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one call came to, and how long the vendor asks to be left alone after it."""

    outcome: Outcome
    wait: timedelta = timedelta(0)
    is_call: bool = True


class AlphaVantageSource:
    """Calls the vendor, tries again what may pass, and stops for good when the day is spent.

    Each call, one that is tried again included, is taken from `budget` first, if there is one.
    No exception of the HTTP library leaves this class, and neither does the key: both what the
    library says and what the vendor says may carry it.

    Times are in seconds. `timeout` is for the connection and for each piece of a reply, `deadline`
    for a whole call: a server that drips would hold one that has time-outs only for ever. A call
    can be broken off at any point because it runs in an event loop, which has a thread of its own.
    """

    def __init__(
        self,
        api_key: str,
        *,
        premium: bool,
        url: str,
        budget: CallBudget | None = None,
        retry_wait: float = 1.5,
        timeout: float = 30,
        deadline: float = 120,
    ) -> None:
        self._api_key = api_key
        self._written_key = _written(api_key)
        self._premium = premium
        self._url = url
        self._budget = budget
        self._deadline = deadline
        # What every further call would come to as well.
        self._stopped: Refused | None = None
        # A free key takes one call at a time and one a second; concurrent ones would be refused.
        self._turn: AbstractContextManager[object] = nullcontext() if premium else threading.Lock()
        backoff = tenacity.wait_exponential_jitter(multiplier=retry_wait, max=20, jitter=retry_wait)
        self._retry = tenacity.Retrying(
            retry=tenacity.retry_if_result(_may_pass),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=lambda state: backoff(state) + _result(state).wait.total_seconds(),
            retry_error_callback=_result,
        )
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10)),
            headers={"User-Agent": "stocks-assets", "Accept-Encoding": "gzip"},
            follow_redirects=False,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=_THREAD, daemon=True)
        self._thread.start()

    def fetch(
        self, dataset: Dataset, ticker: str, part: str = "", *, recent: bool = False
    ) -> Outcome:
        """Return the vendor's reply from the fullest endpoint that the key may use.

        With `recent` the newest rows alone are asked for, where the endpoint has the choice.

        Raises:
            InvalidTickerError: `ticker` is none.
            ValueError: `dataset` has no such part, or is of the market and `ticker` is not.
        """
        asked = _asked(dataset, ticker, part)
        endpoint = next((e for e in dataset.endpoints if self._premium or not e.premium), None)
        if endpoint is None:
            return PremiumOnly(f"{dataset.endpoints[0].function} needs a premium key")
        query = {"function": endpoint.function, **asked, **endpoint.parameters}
        if recent and endpoint.recent:
            query |= endpoint.recent
        if endpoint.part_parameter is not None:
            query[endpoint.part_parameter] = part
        with self._turn:
            attempt: _Attempt = self._retry(self._attempt, endpoint, query)
        if isinstance(attempt.outcome, Unreachable):
            # Without a network each ticker would cost as many calls as it has attempts.
            self._stop(attempt.outcome)
        return attempt.outcome

    def offers(self, dataset: Dataset) -> bool:
        """Tell whether the key's plan has an endpoint of `dataset`."""
        return self._premium or not dataset.is_premium

    def allowance(self) -> Allowance:
        """Return the calls left; without a budget nothing is known of them."""
        return self._budget.allowance() if self._budget else Allowance()

    def listed_tickers(self, count: int | None) -> Sequence[str]:  # noqa: ARG002 # the port's name
        """Name none: the universe is the user's own."""
        return ()

    def close(self) -> None:
        """Close the connections; no call may be under way."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        if self._budget is not None:
            self._budget.close()

    def _attempt(self, endpoint: Endpoint, query: Mapping[str, str]) -> _Attempt:
        if self._stopped is not None:
            return _Attempt(self._stopped, is_call=False)
        if self._budget is not None and (frees_at := self._budget.take()) is not None:
            attempt = _Attempt(DayQuotaSpent(f"no call is left before {_minute(frees_at)}"))
        else:
            attempt = self._call(endpoint, query)
        if isinstance(attempt.outcome, DayQuotaSpent):
            self._stop(attempt.outcome)
        return attempt

    def _stop(self, outcome: Refused) -> None:
        """Make no further call: each would come to the same."""
        if self._stopped is None:
            self._stopped = type(outcome)(f"not called: {outcome.reason}")

    def _call(self, endpoint: Endpoint, query: Mapping[str, str]) -> _Attempt:
        """Make one call and tell what it came to."""
        exchange = asyncio.run_coroutine_threadsafe(self._exchange(query), self._loop)
        function = endpoint.function
        failure: Refused
        try:
            response, body = exchange.result()
        except TimeoutError:
            failure = TransportFailed(f"{function}: no whole reply within {self._deadline:g} s")
        except _TooLargeError:
            failure = Malformed(f"the reply of {function} is over 64 MiB")
        except httpx.ConnectError as error:
            # The URL has not been sent yet: the text can only speak of host and certificate.
            failure = Unreachable(f"{function}: ConnectError, {error}")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            failure = TransportFailed(f"{function}: {type(error).__name__}")
        else:
            # The vendor repeats the key, and what it says is kept and shown.
            return self._judge(endpoint, response, self._written_key.sub(b"<KEY>", body))
        return _Attempt(failure)

    async def _exchange(self, query: Mapping[str, str]) -> tuple[httpx.Response, bytes]:
        """Return the response and its body, unpacked."""
        parameters = {**query, "apikey": self._api_key}
        async with (
            asyncio.timeout(self._deadline),
            self._client.stream("GET", self._url, params=parameters) as response,
        ):
            return response, await _read(response)

    def _judge(self, endpoint: Endpoint, response: httpx.Response, body: bytes) -> _Attempt:
        """Tell what a reply is, by its words and its status."""
        status, outcome = response.status_code, classify(endpoint, body)
        if isinstance(outcome, DayQuotaSpent):
            return _Attempt(self._paused(outcome))
        if status == httpx.codes.OK:
            return _Attempt(outcome)
        reason = f"{endpoint.function} answered with HTTP status {status}"
        if status == httpx.codes.TOO_MANY_REQUESTS:
            passes: type[Refused] = BurstLimited
        elif status >= 500:
            passes = TransportFailed
        else:
            return _Attempt(Malformed(reason, body))
        wait = _retry_after(response)
        if wait > _LONGEST_WAIT:
            until = datetime.now(UTC) + wait
            if self._budget is not None:
                self._budget.pause(until)
            spent = DayQuotaSpent(f"{reason}; come back after {_minute(until)}", body)
            return _Attempt(spent)
        return _Attempt(passes(reason, body), wait)

    def _paused(self, outcome: DayQuotaSpent) -> DayQuotaSpent:
        """Tell all who share the budget that the vendor says the day is spent."""
        if self._budget is None:
            return outcome
        again = _minute(self._budget.pause())
        return replace(outcome, reason=f"{outcome.reason}; the next call is made after {again}")


def _written(api_key: str) -> re.Pattern[bytes]:
    """Return what finds the key in a reply, as it is and as it is written in a URL."""
    forms = {api_key, quote(api_key, safe=""), quote_plus(api_key)}
    secret = len(api_key) >= _SHORTEST_SECRET
    return re.compile("|".join(map(re.escape, forms)).encode() if secret else b"(?!)")


def _asked(dataset: Dataset, ticker: str, part: str) -> dict[str, str]:
    """Return the parameter that says whose data is meant, once all that is asked makes sense."""
    if dataset.is_monthly:
        is_part, expected = bool(_MONTH.fullmatch(part)), "a month such as 2024-03"
    else:
        is_part, expected = part in dataset.parts, " or ".join(map(repr, dataset.parts))
    if not is_part:
        raise ValueError(f"{part!r} is no part of {dataset.name}; expected {expected}")
    if not dataset.is_of_market:
        return {"symbol": parse_ticker(ticker)}
    if ticker != MARKET:
        raise ValueError(f"{dataset.name} is of the whole market, and not of {ticker!r}")
    return {}


async def _read(response: httpx.Response) -> bytes:
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > LARGEST_REPLY:
        raise _TooLargeError
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > LARGEST_REPLY:
            raise _TooLargeError
    return bytes(body)


def _retry_after(response: httpx.Response) -> timedelta:
    """Return how long the server asks to be left alone: a number of seconds, or until a date."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return timedelta(seconds=min(float(text), _LONGEST_ASKED.total_seconds()))
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return timedelta(0)
    # A date with the zone -0000 comes without one, and means UTC.
    wait: timedelta = until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)
    return min(max(wait, timedelta(0)), _LONGEST_ASKED)


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _may_pass(attempt: _Attempt) -> bool:
    return attempt.is_call and isinstance(attempt.outcome, BurstLimited | TransportFailed)


def _result(state: tenacity.RetryCallState) -> _Attempt:
    assert state.outcome is not None
    attempt: _Attempt = state.outcome.result()
    return attempt

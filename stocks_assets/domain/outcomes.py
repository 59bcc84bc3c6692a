"""What a call to the vendor can come to, and how a reply is told apart from a refusal.

Outcome
├── Data             a reply with the data asked for
├── Unavailable      the source has nothing of this for the ticker; no failure
└── Refused          the call failed; `reason` says why
    ├── UnknownSymbol
    ├── DayQuotaSpent    no further call until the quota frees, or until a moment that is named
    ├── BurstLimited     wait a little, then try again
    ├── PremiumOnly      this key may not use the endpoint or parameter
    ├── BadKey
    ├── Malformed        neither the data asked for nor a refusal that is known
    └── TransportFailed  no whole reply, or a server error
        └── Unreachable      no connection at all

The vendor refuses with HTTP 200; the words are in `_REFUSALS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from stocks_assets.domain.datasets import Endpoint


@dataclass(frozen=True, slots=True)
class Data:
    """A reply with the data asked for: the vendor's bytes and the function that gave them."""

    body: bytes
    function: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The source has nothing of this for the ticker."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The call failed; `body` is what the vendor said, if anything, without the key."""

    reason: str
    body: bytes = field(default=b"", repr=False)


class UnknownSymbol(Refused):
    """The vendor does not know the ticker."""


class DayQuotaSpent(Refused):
    """The calls of the day are spent, or the vendor wants to be left alone for long."""


class BurstLimited(Refused):
    """Too many calls in too short a time."""


class PremiumOnly(Refused):
    """The key may not use the endpoint, or one of the parameters."""


class BadKey(Refused):
    """The vendor does not take the key."""


class Malformed(Refused):
    """Neither the data asked for nor a refusal that is known."""


class TransportFailed(Refused):
    """No whole reply, or a server error."""


class Unreachable(TransportFailed):
    """No connection: nothing was sent."""


Outcome = Data | Unavailable | Refused

# In this order: almost every body says "premium", and the quota's body may echo the key.
_REFUSALS: tuple[tuple[tuple[str, ...], type[Refused], str], ...] = (
    (
        ("rate limit is", "requests per day"),
        DayQuotaSpent,
        "the calls of the day are spent; the quota frees within 24 hours",
    ),
    (("spreading out",), BurstLimited, "calls came faster than the key allows"),
    (("call frequency",), BurstLimited, "calls came faster than the key allows"),
    (("is a premium endpoint",), PremiumOnly, "{function} needs a premium key"),
    (
        ("is a premium feature",),
        PremiumOnly,
        "a parameter of {function} needs a premium key; set STOCKS_ALPHA_VANTAGE_PLAN=free",
    ),
    (("demo",), BadKey, "the demo key serves demonstrations only; set ALPHA_VANTAGE_API_KEY"),
    (("apikey is invalid",), BadKey, "the key is invalid or missing; set ALPHA_VANTAGE_API_KEY"),
    (("Invalid API call",), UnknownSymbol, "the vendor does not know this ticker"),
)
_REFUSAL_FIELDS = ("Information", "Note", "Error Message")
# A series is an object, all else of ours that is no object is named here.
_OPENS_WITH = {"data": b"[", "Symbol": b'"'}
# From any other function an empty object is a fault that passes, and no word on the ticker.
_EMPTY_WHERE_THERE_IS_NOTHING = ("OVERVIEW",)


def classify(endpoint: Endpoint, body: bytes) -> Outcome:
    """Tell what `body`, a reply that came with a good HTTP status, is."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        reason = f"the reply of {endpoint.function} is not in UTF-8 ({len(body)} bytes)"
        return Malformed(reason, body)
    # Refusals are JSON, whatever was asked for.
    if endpoint.form == "csv" and not text.lstrip().startswith("{"):
        return _classify_csv(endpoint, text, body)
    try:
        document = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        reason = f"the reply of {endpoint.function} is no JSON object ({len(body)} bytes)"
        return Malformed(reason, body)
    is_refusal = any(name in document for name in _REFUSAL_FIELDS)
    if not is_refusal and endpoint.form == "json" and endpoint.data_key in document:
        return _classify_json(endpoint, bytes(document[endpoint.data_key]), body)
    if not document and endpoint.function in _EMPTY_WHERE_THERE_IS_NOTHING:
        return Unavailable(f"{endpoint.function} answered with an empty object")
    return _refusal(endpoint, document, body)


def _classify_json(endpoint: Endpoint, value: bytes, body: bytes) -> Outcome:
    if value[:1] != _OPENS_WITH.get(endpoint.data_key, b"{"):
        reason = f"{endpoint.data_key!r} of {endpoint.function} is {value[:20].decode()}"
        return Malformed(reason, body)
    # Taken for a whole history it would wipe the one that is stored. An empty list of events is
    # another matter: most companies never split.
    if value[:1] == b"{" and not value[1:-1].strip():
        return Unavailable(f"{endpoint.function} answered with an empty {endpoint.data_key!r}")
    return Data(body, endpoint.function)


def _classify_csv(endpoint: Endpoint, text: str, body: bytes) -> Outcome:
    if not text.startswith(endpoint.data_key):
        reason = f"the reply of {endpoint.function} does not begin with {endpoint.data_key!r}"
        return Malformed(reason, body)
    header, _, rows = text.partition("\n")
    if not rows.strip():
        return Unavailable(f"{endpoint.function} answered with a header and no row")
    last_row = rows.rstrip().rpartition("\n")[2]
    if last_row.count(",") < header.count(","):
        return Malformed(f"the reply of {endpoint.function} ends in the middle of a row", body)
    return Data(body, endpoint.function)


def _refusal(endpoint: Endpoint, document: Mapping[str, msgspec.Raw], body: bytes) -> Outcome:
    words = " ".join(bytes(document[name]).decode() for name in _REFUSAL_FIELDS if name in document)
    for needles, outcome, reason in _REFUSALS:
        if all(needle in words for needle in needles):
            if outcome is UnknownSymbol and endpoint.part_parameter is not None:
                return _refused_part(endpoint, body)
            return outcome(reason.format(function=endpoint.function), body)
    names = [name[:40] for name in sorted(document)[:5]]
    return Malformed(
        f"the reply of {endpoint.function} has no {endpoint.data_key!r}, only {names}", body
    )


def _refused_part(endpoint: Endpoint, body: bytes) -> Outcome:
    """Tell what "Invalid API call" means where more than the ticker was asked for.

    A month before the first one is refused in these words too, so they say nothing of the ticker.
    """
    if endpoint.form == "csv":
        return Malformed(f"the vendor takes the call of {endpoint.function} for invalid", body)
    return Unavailable(f"{endpoint.function} has nothing of this {endpoint.part_parameter}")

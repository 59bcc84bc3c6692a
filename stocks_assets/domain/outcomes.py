"""What a call to the vendor can come to, and how a reply is told apart from a refusal.

Outcome
├── Data             a reply with the data asked for
├── Unavailable      the source has nothing of this for the ticker; no failure
└── Refused          the call failed; `reason` says why
    ├── UnknownSymbol
    ├── DayQuotaSpent    no further call until the quota frees
    ├── BurstLimited     wait a little, then try again
    ├── PremiumOnly      this key may not use the endpoint or parameter
    ├── BadKey
    ├── Malformed        neither the data asked for nor a refusal that is known
    └── TransportFailed  no reply at all, or a server error

The vendor refuses with HTTP 200; the words are in `_REFUSALS`.
"""

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
    """The calls of the day are spent."""


class BurstLimited(Refused):
    """Too many calls in too short a time."""


class PremiumOnly(Refused):
    """The key may not use the endpoint, or one of the parameters."""


class BadKey(Refused):
    """The vendor does not take the key."""


class Malformed(Refused):
    """Neither the data asked for nor a refusal that is known."""


class TransportFailed(Refused):
    """No reply, or a server error."""


Outcome = Data | Unavailable | Refused

# In this order: almost every body says "premium", and the quota's body echoes the key.
_REFUSALS: tuple[tuple[tuple[str, ...], type[Refused], str], ...] = (
    (
        ("detected your API key", "requests per day"),
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


def classify(endpoint: Endpoint, body: bytes) -> Outcome:
    """Tell what `body`, a reply that came with a good HTTP status, is."""
    try:
        document = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        reason = f"the reply of {endpoint.function} is no JSON object ({len(body)} bytes)"
        return Malformed(reason, body)
    if endpoint.data_key in document:
        return Data(body, endpoint.function)
    if not document:
        return Unavailable(f"{endpoint.function} answered with an empty object")
    words = " ".join(
        bytes(document[name]).decode(errors="replace")
        for name in _REFUSAL_FIELDS
        if name in document
    )
    for needles, outcome, reason in _REFUSALS:
        if all(needle in words for needle in needles):
            return outcome(reason.format(function=endpoint.function), body)
    return Malformed(
        f"the reply of {endpoint.function} has no {endpoint.data_key!r}, "
        f"only {sorted(document)[:5]}",
        body,
    )

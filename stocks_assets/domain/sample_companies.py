"""The companies of the sample market and what they are like: two dozen by hand, the rest by rule.

A company's rank is its place in the listing. Tickers by rule are five letters spelling a number,
so that ticker and rank follow from each other without a table.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import polars as pl

MAX_COMPANIES = 20_000


@dataclass(frozen=True, slots=True)
class Company:
    """A fictional company; `drift` is what its log price gains a year beside market and sector."""

    ticker: str
    name: str
    sector: str
    industry: str
    description: str
    asset_type: str = "Common Stock"
    drift: float = 0.0


SECTORS = {
    "TECHNOLOGY": ("SEMICONDUCTORS", "SOFTWARE - APPLICATION", "COMPUTER HARDWARE"),
    "HEALTHCARE": ("BIOTECHNOLOGY", "MEDICAL DEVICES", "DRUG MANUFACTURERS"),
    "FINANCIAL SERVICES": ("BANKS - REGIONAL", "INSURANCE - LIFE", "ASSET MANAGEMENT"),
    "CONSUMER CYCLICAL": ("AUTO MANUFACTURERS", "SPECIALTY RETAIL", "LEISURE"),
    "CONSUMER DEFENSIVE": ("PACKAGED FOODS", "BEVERAGES", "HOUSEHOLD PRODUCTS"),
    "INDUSTRIALS": ("AEROSPACE & DEFENSE", "RAILROADS", "SPECIALTY INDUSTRIAL MACHINERY"),
    "ENERGY": ("OIL & GAS MIDSTREAM", "OIL & GAS EQUIPMENT & SERVICES", "SOLAR"),
    "UTILITIES": ("UTILITIES - REGULATED ELECTRIC", "UTILITIES - REGULATED WATER", "RENEWABLES"),
    "REAL ESTATE": ("REIT - RESIDENTIAL", "REIT - INDUSTRIAL", "REAL ESTATE SERVICES"),
    "BASIC MATERIALS": ("STEEL", "SPECIALTY CHEMICALS", "COPPER"),
    "COMMUNICATION SERVICES": ("TELECOM SERVICES", "ELECTRONIC GAMING", "ENTERTAINMENT"),
}

_BY_HAND = (
    Company(
        "ALLM",
        "Allmarket Broad Index Fund",
        "FINANCIAL SERVICES",
        "ASSET MANAGEMENT",
        "Holds every listed company in proportion to its size; the usual benchmark.",
        asset_type="ETF",
    ),
    Company(
        "KLVN",
        "Kelvane Semiconductors Inc",
        "TECHNOLOGY",
        "SEMICONDUCTORS",
        "Designs low-power chips for sensors, trains and very small computers.",
        drift=0.16,
    ),
    Company(
        "QNL.B",
        "Quennel Holdings Inc Class B",
        "FINANCIAL SERVICES",
        "INSURANCE - DIVERSIFIED",
        "Owns insurers, a toy maker and a ferry line, and seldom sells anything.",
        drift=0.03,
    ),
    Company(
        "OAKM",
        "Oakmere Foods Corp",
        "CONSUMER DEFENSIVE",
        "PACKAGED FOODS",
        "Bakes crackers and biscuits in nine old mills.",
    ),
    Company(
        "TYDE",
        "Tydefell Power Co",
        "UTILITIES",
        "UTILITIES - REGULATED ELECTRIC",
        "Turns tides and rivers into electricity for four coastal states.",
    ),
    Company(
        "BRZN",
        "Brazenby Motors Inc",
        "CONSUMER CYCLICAL",
        "AUTO MANUFACTURERS",
        "Builds handsome cars that cost more to make than to buy.",
        drift=-0.50,
    ),
    Company(
        "LUMQ",
        "Lumiq Health Inc",
        "HEALTHCARE",
        "MEDICAL DEVICES",
        "Makes quiet scanners for small hospitals.",
        drift=0.06,
    ),
    Company(
        "ORBL",
        "Orbelle Software Inc",
        "TECHNOLOGY",
        "SOFTWARE - APPLICATION",
        "Sells planning software to theatres, orchestras and circuses.",
        drift=0.05,
    ),
    Company(
        "STVK",
        "Stavik Steel Corp",
        "BASIC MATERIALS",
        "STEEL",
        "Melts scrap into rails and bridge girders.",
    ),
    Company(
        "HRBY",
        "Hearthby Homes Trust",
        "REAL ESTATE",
        "REIT - RESIDENTIAL",
        "Lets brick houses in towns with good libraries.",
    ),
    Company(
        "GLSW",
        "Glasswell Stores Inc",
        "CONSUMER CYCLICAL",
        "SPECIALTY RETAIL",
        "Sold lamps and mirrors until its founders bought it back.",
        drift=-0.08,
    ),
    Company(
        "WNDL",
        "Windlark Energy Corp",
        "ENERGY",
        "OIL & GAS MIDSTREAM",
        "Runs pipelines, and the windmills that power their pumps.",
    ),
    Company(
        "CRVO",
        "Corvo Aerospace Inc",
        "INDUSTRIALS",
        "AEROSPACE & DEFENSE",
        "Makes wings, hinges and cockpit glass.",
        drift=0.04,
    ),
    Company(
        "PNDL",
        "Pendle Bank Corp",
        "FINANCIAL SERVICES",
        "BANKS - REGIONAL",
        "Lends to farms and workshops in the hill counties.",
    ),
    Company(
        "MRLW",
        "Marlow Telephone Co",
        "COMMUNICATION SERVICES",
        "TELECOM SERVICES",
        "Keeps the last rural lines humming, and lays fibre beside them.",
        drift=-0.02,
    ),
    Company(
        "FYRN",
        "Fyrn Biotech Inc",
        "HEALTHCARE",
        "BIOTECHNOLOGY",
        "Looks for medicines in ferns, with mixed results.",
        drift=0.02,
    ),
    Company(
        "TNSL",
        "Tinsel Games Inc",
        "COMMUNICATION SERVICES",
        "ELECTRONIC GAMING",
        "Publishes puzzle games that families play together.",
        drift=0.07,
    ),
    Company(
        "DVNP",
        "Davenpont Rail Corp",
        "INDUSTRIALS",
        "RAILROADS",
        "Hauls grain and gravel along one very long river.",
    ),
    Company(
        "EBRK",
        "Elderbrook Insurance Group",
        "FINANCIAL SERVICES",
        "INSURANCE - LIFE",
        "Insures lives, mostly long ones.",
    ),
    Company(
        "SLPH",
        "Silphia Chemicals Corp",
        "BASIC MATERIALS",
        "SPECIALTY CHEMICALS",
        "Makes dyes, glues and scents.",
    ),
    Company(
        "AUBR",
        "Aubrette Apparel Inc",
        "CONSUMER CYCLICAL",
        "APPAREL MANUFACTURING",
        "Knits raincoats.",
        drift=-0.04,
    ),
    Company(
        "KSTL",
        "Kestel Networks Inc",
        "TECHNOLOGY",
        "COMMUNICATION EQUIPMENT",
        "Builds antennas for islands and mountain huts.",
        drift=0.08,
    ),
    Company(
        "GRNO",
        "Granoa Copper Corp",
        "BASIC MATERIALS",
        "COPPER",
        "Mines copper in three deserts.",
    ),
    Company(
        "YRRW",
        "Yarroway Logistics Inc",
        "INDUSTRIALS",
        "INTEGRATED FREIGHT & LOGISTICS",
        "Delivers parcels by bicycle, barge and night train.",
    ),
)
_RANK_BY_HAND = {company.ticker: rank for rank, company in enumerate(_BY_HAND)}

# One letter of each in turn; few enough that no unfortunate word can be spelt.
_LETTERS = ("BCDFGHKLMNPRSTVWYZ", "AEIOU", "LRVSTDBW", "AEIOU", "DNRSTLK")
_WORDS = 18 * 5 * 8 * 5 * 7
_STRIDE = 11_003  # shares no factor with _WORDS, so that neighbours by rank are not by name
_FORMS = ("Corp", "Inc", "Group", "Holdings", "Partners", "Industries", "Company")


def company(rank: int) -> Company:
    """The company at `rank`, from 0."""
    if not 0 <= rank < MAX_COMPANIES:
        raise ValueError(f"there is no company of rank {rank}; ranks end at {MAX_COMPANIES - 1}")
    if rank < len(_BY_HAND):
        return _BY_HAND[rank]
    ticker = _spell((rank - len(_BY_HAND)) * _STRIDE % _WORDS)
    sector = list(SECTORS)[rank % len(SECTORS)]
    industry = SECTORS[sector][rank // len(SECTORS) % 3]
    name = f"{ticker.title()} {_FORMS[rank % len(_FORMS)]}"
    return Company(
        ticker, name, sector, industry, f"{name} works in {industry.lower()}, in its own quiet way."
    )


def rank_of(ticker: str) -> int | None:
    """The rank of the company called `ticker`; null if there is none."""
    if ticker in _RANK_BY_HAND:
        return _RANK_BY_HAND[ticker]
    if len(ticker) != len(_LETTERS):
        return None
    word = 0
    for letter, letters in zip(ticker, _LETTERS, strict=True):
        if letter not in letters:
            return None
        word = word * len(letters) + letters.index(letter)
    rank = len(_BY_HAND) + word * pow(_STRIDE, -1, _WORDS) % _WORDS
    return rank if rank < MAX_COMPANIES else None


def _spell(word: int) -> str:
    spelt = ""
    for letters in reversed(_LETTERS):
        word, place = divmod(word, len(letters))
        spelt = letters[place] + spelt
    return spelt


_MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
_Word = TypeVar("_Word", int, pl.Expr)


def mix(word: _Word) -> _Word:
    """Splitmix64's scrambling, the same for an integer and for a column of UInt64."""
    word = (word ^ word // 2**30) * 0xBF58476D1CE4E5B9 & _MASK
    word = (word ^ word // 2**27) * 0x94D049BB133111EB & _MASK
    return word ^ word // 2**31


def sixteen_bits(draws: pl.Expr, place: int) -> pl.Expr:
    """Whole numbers below 65,536: the bits of `draws` at `place`, from 0 to 3."""
    return (draws // (1 << 16 * place) % 2**16).cast(pl.Int64)


def key_of(*parts: int) -> int:
    """Sixty-four bits that stand for `parts`, as good as random."""
    key = 0
    for part in parts:
        key = mix((key ^ part) + GOLDEN & _MASK)
    return key


@dataclass(frozen=True, slots=True)
class Traits:
    """What a company is like; `listed` and `delisted` count sessions of the market.

    Beside that: the first price in dollars and the first number of shares, yearly dividend over
    price, the ratio the board splits by once the price has run high, the part of the shares that
    changes hands in a session, and the ratios of its books.
    """

    key: int
    listed: int
    delisted: int | None
    price: float
    shares: int
    beta: float
    volatility: float
    dividend_yield: float
    split_ratio: int
    turnover: float
    earnings_multiple: float
    margin: float
    return_on_equity: float

    @property
    def exchange(self) -> str:
        """Where the company is listed."""
        return "NASDAQ" if self.key % 3 == 0 else "NYSE"


_USUAL_DIVIDEND_ODDS = 0.6
_DIVIDEND_ODDS = {
    "UTILITIES": 1.0,
    "REAL ESTATE": 1.0,
    "CONSUMER DEFENSIVE": 0.9,
    "TECHNOLOGY": 0.5,
    "HEALTHCARE": 0.4,
}


@lru_cache(maxsize=1024)
def traits_of(seed: int, rank: int) -> Traits:
    """The traits that the market of `seed` gives the company at `rank`."""
    key = key_of(seed, 1 + rank)
    luck = (key_of(key, stream) / 2**64 for stream in range(1000, 2000))
    about = company(rank)
    fund = about.asset_type == "ETF"
    late, delisted = 750 + int(500 * next(luck)), 1250 + int(500 * next(luck))
    pays = next(luck) < _DIVIDEND_ODDS.get(about.sector, _USUAL_DIVIDEND_ODDS)
    return Traits(
        key=key,
        listed=late if rank % 20 == 7 else 0,
        delisted=delisted if rank % 20 == 10 else None,
        price=round(20 + 120 * next(luck) ** 2, 2),
        shares=900_000_000 if fund else 5_000_000 * round(4 + 400 * next(luck) ** 3),
        beta=1.0 if fund else round(0.6 + 0.8 * next(luck), 2),
        volatility=0.0004 if fund else 0.007 + 0.009 * next(luck),
        dividend_yield=0.016 if fund else (0.010 + 0.030 * next(luck)) * pays,
        split_ratio=2 + int(3 * next(luck)),
        turnover=0.002 + 0.006 * next(luck),
        earnings_multiple=9 + 28 * next(luck),
        margin=0.04 + 0.22 * next(luck),
        return_on_equity=0.06 + 0.22 * next(luck),
    )

"""The universe's file: the tickers it names, by name or by a rule, and what applying it changes.

The file is YAML, or CSV where its name ends so. A ticker may stand there more than once: its
highest priority counts, and an entry without one then counts as normal. Where no entry of a ticker
states a priority, the one it has stays.
"""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from stocks_assets.domain.planner import Priority
from stocks_assets.domain.tickers import parse_ticker
from stocks_assets.errors import InvalidTickerError, SettingsError

_CSV_COLUMNS = ("ticker", "priority", "watchlist")
_HIGHEST_FIRST = tuple(Priority)
# No more than so many problems are told at once.
_SHOWN = 10


class Listed(NamedTuple):
    """A security that is listed now, in the vendor's words."""

    ticker: str
    exchange: str | None
    asset_type: str | None


def _is_ticker(text: str) -> str:
    try:
        return parse_ticker(text)
    except InvalidTickerError as error:
        raise ValueError(str(error)) from None


def _or_empty(value: object) -> object:
    """Take `tickers:` with nothing after it for an empty list."""
    return [] if value == "" else value


class _Part(BaseModel):
    """A mapping of the file, with no other fields than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            expected = ", ".join(cls.model_fields)
            raise ValueError(f"{value!r} stands where fields should be: {expected}")  # noqa: TRY004 # pydantic collects these
        return value


class Entry(_Part):
    """A ticker by its name; in YAML the name alone will do."""

    ticker: Annotated[str, AfterValidator(_is_ticker)]
    priority: Priority | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"ticker": value} if isinstance(value, str) else value


class Watchlist(_Part):
    """Tickers that belong together; one without a priority of its own has the list's."""

    priority: Priority | None = None
    tickers: Annotated[list[Entry], BeforeValidator(_or_empty)]


class ListingRule(_Part):
    """Listed securities of some exchanges and kinds, the first `at_most` by ticker.

    Exchanges and kinds are the vendor's words (NYSE, Stock), in any case; no kinds: all of them.
    """

    exchanges: list[str] = Field(min_length=1)
    asset_types: list[str] = []
    priority: Priority | None = None
    at_most: int | None = Field(None, ge=1)

    def takes(self, listed: Listed) -> bool:
        """Tell whether `listed` is of the exchanges and kinds, whatever `at_most` says."""
        return _is_among(listed.exchange, self.exchanges) and (
            not self.asset_types or _is_among(listed.asset_type, self.asset_types)
        )


class _File(_Part):
    tickers: Annotated[list[Entry], BeforeValidator(_or_empty)] = []
    watchlists: dict[str, Watchlist] = {}
    listings: Annotated[list[ListingRule], BeforeValidator(_or_empty)] = []

    @model_validator(mode="before")
    @classmethod
    def _from_nothing(cls, value: object) -> object:
        if isinstance(value, Mapping) and value.get("watchlists") == "":
            return {**value, "watchlists": {}}
        return {} if value is None or value == "" else value


@dataclass(frozen=True, slots=True)
class Universe:
    """What a file asks for: tickers by name, each with the priority stated, and rules."""

    named: Mapping[str, Priority | None]
    rules: tuple[ListingRule, ...] = ()

    def wanted(
        self, listings: Iterable[Listed], kept: Collection[str] = ()
    ) -> dict[str, Priority | None]:
        """Return all tickers asked for, with the priorities stated: the named, then the rules'.

        A rule that takes only so many takes those of `kept` first: a new listing that comes before
        them in the alphabet drives none out. A listing whose ticker is none that we can keep is
        passed over.
        """
        found = dict(self.named)
        if self.rules:
            in_order = sorted(listings, key=lambda it: (it.ticker not in kept, it.ticker))
            valid = [listed for listed in in_order if _can_be_kept(listed.ticker)]
            for rule in self.rules:
                for listed in islice(filter(rule.takes, valid), rule.at_most):
                    _merge(found, listed.ticker, rule.priority)
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """What makes the universe say what the file says."""

    add: list[str]
    remove: list[str]
    priorities: dict[str, Priority] = field(default_factory=dict)


def find_change(
    wanted: Mapping[str, Priority | None],
    *,
    universe: Sequence[str],
    named_before: Collection[str],
    priorities: Mapping[str, Priority],
) -> Change:
    """Return what to change in `universe` so that it has what is `wanted`.

    Only what the file named when it was last applied (`named_before`) is removed; what else is
    there was added otherwise and stays. `priorities` are those set so far; the others are normal.
    """
    known = set(universe)
    return Change(
        add=[ticker for ticker in wanted if ticker not in known],
        remove=[t for t in universe if t in named_before and t not in wanted],
        priorities={
            ticker: priority
            for ticker, priority in wanted.items()
            if priority is not None and priority != priorities.get(ticker, Priority.NORMAL)
        },
    )


def parse_universe(text: str, name: str) -> Universe:
    """Return what the file `name` with the content `text` asks for.

    Raises:
        SettingsError: it cannot be read; the message names each entry that is wrong, and the mend.
    """
    if name.lower().endswith(".csv"):
        return Universe(_merged(_parse_csv(text, name)))
    file = _parse_yaml(text, name)
    in_lists = (
        Entry.model_construct(ticker=entry.ticker, priority=entry.priority or watchlist.priority)
        for watchlist in file.watchlists.values()
        for entry in watchlist.tickers
    )
    return Universe(_merged([*file.tickers, *in_lists]), tuple(file.listings))


class _Loader(yaml.BaseLoader):
    """Leaves scalars as text, as ON, NO and 600104 are tickers, and has no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: ANN401
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                mark = node.value[position][0].start_mark
                raise yaml.constructor.ConstructorError(
                    problem=f"{key!r} stands there twice; make one of both", problem_mark=mark
                )
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str, name: str) -> _File:
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 # it makes nothing but text
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        words = [getattr(error, part, None) for part in ("context", "problem")]
        problem = ", ".join(word for word in words if word) or " ".join(str(error).split())
        where = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{name}{where}: no YAML that can be read: {problem}") from None
    try:
        return _File.model_validate(document)
    except ValidationError as error:
        raise _refusal(name, _problems(error)) from None


def _parse_csv(text: str, name: str) -> list[Entry]:
    rows = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    entries: list[Entry] = []
    problems: list[str] = []
    try:
        rows.fieldnames = _csv_columns(rows.fieldnames or (), name)
        for row in rows:
            where = f"line {rows.line_num}"
            if "" in row:
                problems.append(f"{where} has more values than the header has names")
                continue
            given = {column: (value or "").strip() for column, value in row.items()}
            given.pop("watchlist", None)
            try:
                entries.append(Entry.model_validate({k: v for k, v in given.items() if v}))
            except ValidationError as error:
                problems += _problems(error, where)
    except csv.Error as error:
        problems.append(f"line {rows.reader.line_num}: no CSV that can be read: {error}")
    if problems:
        raise _refusal(name, problems)
    return entries


def _csv_columns(header: Iterable[str], name: str) -> list[str]:
    columns = [column.strip().lower() for column in header]
    is_known = set(columns) <= set(_CSV_COLUMNS) and len(set(columns)) == len(columns)
    if "ticker" not in columns or not is_known:
        expected = ",".join(_CSV_COLUMNS)
        raise _refusal(
            name,
            [f"line 1: {','.join(columns)!r} is no header; expected {expected}, or ticker alone"],
        )
    return columns


def _problems(error: ValidationError, where: str = "") -> Iterator[str]:
    for problem in error.errors(include_url=False):
        steps, message = problem["loc"], problem["msg"].removeprefix("Value error, ")
        kind = problem["type"]
        if kind == "value_error" and steps[-1:] == ("ticker",):
            steps = steps[:-1]  # the entry is named: most have nothing but a ticker
        path = " ".join(part for part in (where, _path(steps)) if part) or "the document"
        if kind == "missing":
            yield f"{path} is missing"
        elif kind == "extra_forbidden":
            yield f"{path} is not known here; universe.example.yaml shows all there is"
        elif kind == "value_error":
            yield f"{path}: {message}"
        else:
            yield f"{path}={problem['input']!r} cannot be used: {message}"


def _path(steps: Sequence[str | int]) -> str:
    """Return such as watchlists.semiconductors.tickers[2]."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return path.removeprefix(".")


def _refusal(name: str, problems: Iterable[str]) -> SettingsError:
    told = list(problems)
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return SettingsError(f"{name}: {'; '.join(told[:_SHOWN])}{more}")


def _merged(entries: Iterable[Entry]) -> dict[str, Priority | None]:
    found: dict[str, Priority | None] = {}
    for entry in entries:
        _merge(found, entry.ticker, entry.priority)
    return found


def _merge(found: dict[str, Priority | None], ticker: str, priority: Priority | None) -> None:
    if ticker not in found or found[ticker] is priority is None:
        found[ticker] = priority
        return
    both = (found[ticker] or Priority.NORMAL, priority or Priority.NORMAL)
    found[ticker] = min(both, key=_HIGHEST_FIRST.index)


def _is_among(word: str | None, words: Iterable[str]) -> bool:
    return word is not None and word.casefold() in {other.casefold() for other in words}


def _can_be_kept(ticker: str) -> bool:
    try:
        return parse_ticker(ticker) == ticker
    except InvalidTickerError:
        return False

"""The universe in Dagster: partitions come and go by the file, the command line and the UI."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import dagster as dg

from stocks_assets.adapters.universe_file import UniverseFile
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.connections import find_connections
from stocks_assets.defs.partitions import TICKERS, tickers_needed_by, tickers_of_backfills
from stocks_assets.domain.planner import Priority
from stocks_assets.domain.tickers import parse_ticker
from stocks_assets.domain.universe import Listed, Universe, find_change
from stocks_assets.errors import InvalidTickerError, SettingsError
from stocks_assets.settings import read_settings

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# No more than so many tickers are shown in one place.
_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Applied:
    """What a change of the universe came to.

    `held` are tickers that stay for now, as an unfinished run or backfill needs them. `prioritized`
    are those whose priority was set. `notes` are for people: what the change could not do, and the
    mend.
    """

    total: int
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    prioritized: dict[str, Priority] = field(default_factory=dict)
    lacks_listings: bool = False
    notes: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Return the change in one line; empty where nothing has changed."""
        counted = (("added", self.added), ("removed", self.removed))
        parts = [f"{word} {len(some)} ({_some(some)})" for word, some in counted if some]
        if self.prioritized:
            parts.append(f"set the priority of {len(self.prioritized)}")
        return f"{', '.join(parts)}; {self.total} tickers in all" if parts else ""

    def lines(self) -> list[str]:
        """Return all there is to say, a line each."""
        return [line for line in (self.describe(), *self.notes) if line]


class Roster:
    """Keeps the universe: the partitions of an instance, their priorities, and the file's part.

    What the file named when it was last applied is noted in the warehouse: of these alone the file
    may remove. One change is made at a time.
    """

    def __init__(self, warehouse: Warehouse, file: UniverseFile) -> None:
        self._warehouse = warehouse
        self._file = file

    def by_priority(self, instance: dg.DagsterInstance) -> list[str]:
        """Return the universe, those of high priority first, else in the order of their coming."""
        priorities = self._warehouse.priorities()
        order = list(Priority)
        return sorted(
            universe(instance),
            key=lambda ticker: order.index(priorities.get(ticker, Priority.NORMAL)),
        )

    def add(
        self, instance: dg.DagsterInstance, tickers: Iterable[str], priority: Priority | None
    ) -> list[str]:
        """Add `tickers` and return those that are new; a priority counts for all of them."""
        tickers = list(dict.fromkeys(tickers))
        with self._warehouse.lock("universe"):
            known = set(universe(instance))
            new = [ticker for ticker in tickers if ticker not in known]
            instance.add_dynamic_partitions(str(TICKERS.name), new)
            if priority is not None:
                self._warehouse.set_priority(tickers, priority)
        return new

    def remove(
        self, instance: dg.DagsterInstance, tickers: Iterable[str]
    ) -> tuple[list[str], list[str]]:
        """Remove `tickers`, keep their data, and return those removed and those held.

        Held is what a run or a backfill that is not finished would fail without.
        """
        with self._warehouse.lock("universe"):
            return self._remove(instance, tickers)

    def apply_file(self, instance: dg.DagsterInstance) -> Applied:
        """Make the universe say what the file says; without one, nothing is removed.

        Raises:
            SettingsError: the file cannot be read.
        """
        asked = self._file.read()
        with self._warehouse.lock("universe"):
            if asked is None:
                return Applied(len(universe(instance)), notes=self._notes_on_absence())
            return self._apply(instance, asked)

    def let_go(self) -> int:
        """Forget what an absent file named, so that it stays as if added by hand; return how many.

        Raises:
            SettingsError: there is a file, and it cannot be read.
        """
        if self._file.read() is not None:
            return 0
        with self._warehouse.lock("universe"):
            named = self._warehouse.named_by_file()
            self._warehouse.note_named_by_file(())
        return len(named)

    def notes_on(self, tickers: Sequence[str], *, removed: bool) -> list[str]:
        """Say where the file will undo what was just done to `tickers` by hand."""
        try:
            asked = self._file.read()
        except SettingsError as error:
            return [str(error)]
        if asked is None:
            return []
        wanted = asked.wanted(self._listed(asked), self._warehouse.named_by_file())
        if removed:
            found = [ticker for ticker in tickers if ticker in wanted]
            what = "will be back: take it out there"
        else:
            found = [ticker for ticker in tickers if wanted.get(ticker) is not None]
            what = "has its priority from there: change it there"
        return [f"{self._file} names {ticker}, which {what}" for ticker in found]

    def _apply(self, instance: dg.DagsterInstance, asked: Universe) -> Applied:
        named_before = self._warehouse.named_by_file()
        listed = self._listed(asked)
        lacks_listings = bool(asked.rules) and not listed
        wanted = asked.wanted(listed, named_before)
        change = find_change(
            wanted,
            universe=universe(instance),
            # Without the list nobody knows what a rule would take: what it took before stays.
            named_before=set() if lacks_listings else named_before,
            priorities=self._warehouse.priorities(),
        )
        removed, held = self._remove(instance, change.remove)
        # In this order: who is killed in between has no ticker that nobody would ever remove.
        named = {*wanted, *held, *(named_before if lacks_listings else ())}
        self._warehouse.note_named_by_file(named)
        instance.add_dynamic_partitions(str(TICKERS.name), change.add)
        for priority in Priority:
            some = [ticker for ticker, own in change.priorities.items() if own is priority]
            self._warehouse.set_priority(some, priority)
        notes = []
        if lacks_listings:
            notes.append(
                f"{self._file} takes tickers from the list of securities, which is not loaded yet: "
                "a refresh loads it, and the next one has them"
            )
        notes += _unmatched(asked, listed)
        if held:
            notes.append(f"{_some(held)}: kept until the run or backfill that needs them has ended")
        return Applied(
            total=len(universe(instance)),
            added=change.add,
            removed=removed,
            held=held,
            prioritized=change.priorities,
            lacks_listings=lacks_listings,
            notes=notes,
        )

    def _remove(
        self, instance: dg.DagsterInstance, tickers: Iterable[str]
    ) -> tuple[list[str], list[str]]:
        known = set(universe(instance))
        here = [ticker for ticker in dict.fromkeys(tickers) if ticker in known]
        if not here:
            return [], []
        runs = instance.get_runs(filters=dg.RunsFilter(statuses=_UNFINISHED))
        needed = {ticker for run in runs for ticker in tickers_needed_by(run.tags)}
        needed |= tickers_of_backfills(instance)
        removed = [ticker for ticker in here if ticker not in needed]
        for ticker in removed:
            instance.delete_dynamic_partition(str(TICKERS.name), ticker)
        self._warehouse.forget_priorities(removed)
        return removed, [ticker for ticker in here if ticker in needed]

    def _listed(self, asked: Universe) -> list[Listed]:
        if not asked.rules:
            return []
        listings = self._warehouse.listings()
        active = listings.filter(listings["status"] == "active")
        return [Listed(*row) for row in active.select(Listed._fields).iter_rows()]

    def _notes_on_absence(self) -> list[str]:
        named = self._warehouse.named_by_file()
        if not named:
            return []
        return [
            f"there is no {self._file}; the {len(named)} tickers that the universe's file named "
            "stay: put it back, or keep them without it: stocks tickers sync"
        ]


def universe(instance: dg.DagsterInstance) -> list[str]:
    """Return the universe, in the order in which the tickers came."""
    return list(instance.get_dynamic_partitions(str(TICKERS.name)))


def _unmatched(asked: Universe, listed: Sequence[Listed]) -> list[str]:
    """Say which rules take nothing, for their words may be mistaken."""
    exchanges = ", ".join(sorted({one.exchange for one in listed if one.exchange}))
    kinds = ", ".join(sorted({one.asset_type for one in listed if one.asset_type}))
    return [
        f"listings[{position}] of the universe's file takes no ticker; there are the exchanges "
        f"{exchanges} and the asset types {kinds}"
        for position, rule in enumerate(asked.rules)
        if listed and not any(rule.takes(one) for one in listed)
    ]


def _some(tickers: Sequence[str]) -> str:
    more = f" and {len(tickers) - _SHOWN} more" if len(tickers) > _SHOWN else ""
    return ", ".join(tickers[:_SHOWN]) + more


@dg.resource(description="The universe: partitions, priorities, and the file STOCKS_UNIVERSE_FILE.")
def roster(_: dg.InitResourceContext) -> Roster:
    """Return the universe as the settings have it."""
    settings = read_settings()
    warehouse = Warehouse(find_connections(settings).database_url)
    return Roster(warehouse, UniverseFile.from_settings(settings))


_PRIORITY = dg.Enum("Priority", [dg.EnumValue(str(priority), priority) for priority in Priority])


@dg.op(
    config_schema={
        "add": dg.Field([str], default_value=[], description="Tickers to add, such as BRK.B."),
        "remove": dg.Field([str], default_value=[], description="Tickers to remove."),
        "priority": dg.Field(
            dg.Noneable(_PRIORITY),
            default_value=None,
            description="Set for the tickers that are added, known already or not.",
        ),
    },
    description="Adds and removes tickers, after the universe's file has been applied.",
)
def change_universe(context: dg.OpExecutionContext, roster: dg.ResourceParam[Roster]) -> None:
    """Apply the file, then what the config says, and show what has changed."""
    asked = context.op_config
    try:
        add, remove = ([parse_ticker(t) for t in asked[name]] for name in ("add", "remove"))
        applied = roster.apply_file(context.instance)
    except (InvalidTickerError, SettingsError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    added = roster.add(context.instance, add, asked["priority"])
    removed, held = roster.remove(context.instance, remove)
    notes = [*applied.notes, *roster.notes_on(removed, removed=True)]
    if asked["priority"] is not None:
        notes += roster.notes_on(add, removed=False)
    for note in notes:
        context.log.warning(note)
    rows = [
        *((ticker, "added by the file") for ticker in applied.added),
        *((ticker, "removed by the file") for ticker in applied.removed),
        *((ticker, "added") for ticker in added),
        *((ticker, "removed") for ticker in removed),
        *((ticker, "kept until a run or backfill has ended") for ticker in [*applied.held, *held]),
    ]
    context.add_output_metadata(
        {
            "tickers": len(universe(context.instance)),
            "added": len(applied.added) + len(added),
            "removed": len(applied.removed) + len(removed),
            "priorities_set": len(applied.prioritized)
            + (len(add) if asked["priority"] is not None else 0),
            "changes": _change_table(rows),
            "notes": notes,
        }
    )


def _change_table(rows: Sequence[tuple[str, str]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [dg.TableRecord({"ticker": ticker, "change": change}) for ticker, change in rows[:_SHOWN]],
        schema=dg.TableSchema([dg.TableColumn(name, "string") for name in ("ticker", "change")]),
    )


@dg.job(
    name="universe",
    description="Applies the universe's file, and adds and removes the tickers of its config. "
    "Data of tickers that are removed stay.",
)
def universe_job() -> None:
    """Change the universe from the UI."""
    change_universe()

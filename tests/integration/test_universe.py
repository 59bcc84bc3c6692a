"""The universe on real servers: the file, the UI's job, and what is left to do."""

from datetime import UTC, date, datetime

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from stocks_assets.adapters.backlog import find_behind, make_backlog
from stocks_assets.adapters.dbt_project import project_digest
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.standings import find_standings
from stocks_assets.adapters.universe_file import UniverseFile
from stocks_assets.defs.jobs import refresh_run
from stocks_assets.defs.universe import Roster, universe, universe_job
from stocks_assets.domain.datasets import SPLITS, WEEKLY_BARS
from stocks_assets.domain.outcomes import TransportFailed
from stocks_assets.domain.planner import Priority
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.errors import SettingsError

HIGH, NORMAL, LOW = Priority
FRIDAY = date(2026, 11, 13)
MARKET = SampleMarket(first_session=date(2025, 1, 2))
TICKERS = MARKET.tickers(3)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "universe.yaml"


@pytest.fixture
def roster(world, file):
    return Roster(world.warehouse, UniverseFile(file))


def apply(world, roster, file, text):
    file.write_text(text)
    return roster.apply_file(world.instance)


def list_securities(world, *listings):
    """Put (ticker, exchange, kind) into the list of securities, each listed now."""
    with world.warehouse.connect() as connection:
        connection.cursor().executemany(
            "insert into silver.listings values (%s, '9999-12-31', 'Name', %s, %s, null, 'active', "
            "0, '', '', now(), now())",
            listings,
        )


# The file


def test_the_file_adds_and_removes_what_it_names_and_leaves_what_was_added_by_hand(
    world, roster, file
):
    roster.add(world.instance, ["BY.HAND", "B"], HIGH)
    first = apply(world, roster, file, "tickers: [A, B, {ticker: BF/B, priority: low}, C-D]")
    assert universe(world.instance) == ["BY.HAND", "B", "A", "BF/B", "C-D"]
    assert (first.added, first.removed, first.total) == (["A", "BF/B", "C-D"], [], 5)
    assert world.warehouse.priorities() == {"BY.HAND": HIGH, "B": HIGH, "BF/B": LOW}

    again = roster.apply_file(world.instance)
    assert (again.describe(), again.notes) == ("", [])

    second = apply(world, roster, file, "tickers: [{ticker: C-D, priority: high}, E]")
    assert second.describe() == (
        "added 1 (E), removed 3 (B, A, BF/B), set the priority of 1; 3 tickers in all"
    )
    assert universe(world.instance) == ["BY.HAND", "C-D", "E"]
    assert world.warehouse.priorities() == {"BY.HAND": HIGH, "C-D": HIGH}


def test_a_file_that_is_gone_removes_nothing_until_somebody_lets_it_go(world, roster, file):
    apply(world, roster, file, "tickers: [A, B]")
    file.unlink()
    applied = roster.apply_file(world.instance)
    assert universe(world.instance) == ["A", "B"]
    assert "the 2 tickers that the universe's file named stay: put it back" in applied.notes[0]

    # Back again, it still knows what it named.
    assert apply(world, roster, file, "tickers: [B]").removed == ["A"]
    assert roster.let_go() == 0
    file.unlink()
    assert roster.let_go() == 1
    assert roster.apply_file(world.instance).notes == []
    assert apply(world, roster, file, "tickers: [C]").removed == []
    assert universe(world.instance) == ["B", "C"]


def test_a_file_that_cannot_be_read_changes_nothing(world, roster, file):
    apply(world, roster, file, "tickers: [A]")
    with pytest.raises(SettingsError, match="not a ticker"):
        apply(world, roster, file, "tickers: [B, C;D]")
    assert universe(world.instance) == ["A"]


def test_a_rule_takes_listed_securities_and_without_the_list_nothing_is_removed(
    world, roster, file
):
    rule = "listings: [{exchanges: [NYSE], asset_types: [Stock], at_most: 2, priority: low}]"
    before = apply(world, roster, file, f"tickers: [A]\n{rule}")
    assert before.lacks_listings
    assert "is not loaded yet" in before.notes[0]

    list_securities(world, ("M", "NYSE", "Stock"), ("N", "NYSE", "Stock"), ("O", "NYSE", "ETF"))
    taken = roster.apply_file(world.instance)
    assert (taken.added, taken.notes) == (["M", "N"], [])
    assert world.warehouse.priorities() == {"M": LOW, "N": LOW}

    # A new listing that comes first in the alphabet drives none out; one that is gone makes room.
    list_securities(world, ("B", "NYSE", "Stock"))
    assert roster.apply_file(world.instance).describe() == ""
    with world.warehouse.connect() as connection:
        connection.execute("delete from silver.listings where ticker = 'M'")
    assert universe(world.instance) == ["A", "M", "N"]
    moved = roster.apply_file(world.instance)
    assert (moved.added, moved.removed) == (["B"], ["M"])

    with world.warehouse.connect() as connection:
        connection.execute("truncate silver.listings")
    assert roster.apply_file(world.instance).removed == []
    list_securities(world, ("Z", "NASDAQ", "Stock"))
    nothing = apply(world, roster, file, rule)
    assert "takes no ticker; there are the exchanges NASDAQ and the asset types Stock" in str(
        nothing.notes
    )


def test_the_first_and_last_ticker_stay_until_a_run_over_all_of_them_has_ended(world, roster, file):
    apply(world, roster, file, "tickers: [A, B, C]")
    _, tags = refresh_run(["B"], universe(world.instance))
    world.instance.add_run(
        dg.DagsterRun(job_name="refresh", tags=tags, status=dg.DagsterRunStatus.STARTED)
    )
    applied = apply(world, roster, file, "tickers: []")
    assert (applied.removed, applied.held) == (["B"], ["A", "C"])
    assert "A, C: kept until the run or backfill that needs them has ended" in applied.notes[0]
    assert roster.remove(world.instance, ["C"]) == ([], ["C"])
    assert universe(world.instance) == ["A", "C"]

    (run,) = world.instance.get_runs()
    world.instance.report_run_failed(run)
    assert roster.apply_file(world.instance).removed == ["A", "C"]


@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources`")  # Dagster's own use
@pytest.mark.parametrize("whole", [True, False], ids=["all", "chosen"])
def test_the_tickers_of_a_backfill_stay_until_it_has_ended(world, roster, file, whole):
    apply(world, roster, file, "tickers: [A, B, C]")
    graph = world.definitions(SampleSource(MARKET, lambda: FRIDAY)).resolve_asset_graph()
    with dg.partition_loading_context(dynamic_partitions_store=world.instance):
        backfill = PartitionBackfill.from_asset_partitions(
            "one",
            graph,
            None if whole else ["A", "B"],
            [dg.AssetKey([layer, "weekly_bars"]) for layer in ("bronze", "silver")],
            datetime.now(UTC).timestamp(),
            {},
            world.instance,
            all_partitions=whole,
            title=None,
            description=None,
            run_config=None,
        )
    world.instance.add_backfill(backfill)
    held = ["A", "B", "C"] if whole else ["A", "B"]
    applied = apply(world, roster, file, "tickers: []")
    assert (applied.removed, applied.held) == (["C"] * (not whole), held)
    assert roster.remove(world.instance, held) == ([], held)
    assert universe(world.instance) == held

    world.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert roster.apply_file(world.instance).removed == held


def test_what_the_file_will_undo_is_said(world, roster, file):
    apply(world, roster, file, "tickers: [A, {ticker: B, priority: high}]")
    (note,) = roster.notes_on(["A", "ELSE"], removed=True)
    assert "names A, which will be back: take it out there" in note
    (note,) = roster.notes_on(["A", "B"], removed=False)
    assert "names B, which has its priority from there" in note
    file.write_text("tickers: [;]")
    assert "is not a ticker" in roster.notes_on(["A"], removed=True)[0]


# The job of the UI


def run_job(world, roster, **config):
    return universe_job.execute_in_process(
        instance=world.instance,
        resources={"roster": roster},
        run_config={"ops": {"change_universe": {"config": config}}},
        raise_on_error=False,
    )


def test_the_job_applies_the_file_then_its_config_and_shows_what_has_changed(world, roster, file):
    file.write_text("tickers: [A, OLD]")
    roster.add(world.instance, ["BY.HAND"], None)
    done = run_job(world, roster, add=["brk.b", "BF/B", "C-D"], remove=["OLD"], priority="high")
    assert done.success
    assert universe(world.instance) == ["BY.HAND", "A", "BRK.B", "BF/B", "C-D"]
    assert world.warehouse.priorities() == dict.fromkeys(["BRK.B", "BF/B", "C-D"], HIGH)
    (output,) = done.filter_events(lambda event: event.is_successful_output)
    metadata = output.step_output_data.metadata
    assert [metadata[name].value for name in ("tickers", "added", "removed")] == [5, 5, 1]
    changes = {
        (row.data["ticker"], row.data["change"]) for row in metadata["changes"].value.records
    }
    assert changes >= {("A", "added by the file"), ("BF/B", "added"), ("OLD", "removed")}
    assert "names OLD, which will be back" in metadata["notes"].value[0]


def test_the_job_without_config_just_applies_the_file(world, roster, file):
    file.write_text("tickers: [A]")
    assert universe_job.execute_in_process(
        instance=world.instance, resources={"roster": roster}
    ).success
    assert universe(world.instance) == ["A"]


@pytest.mark.parametrize(("named", "asked"), [("A", "C;D"), ("C;D", "B")])
def test_the_job_with_what_is_no_ticker_changes_nothing_and_says_so(
    world, roster, file, named, asked
):
    file.write_text(f"tickers: [{named}]")
    refused = run_job(world, roster, add=["E", asked])
    assert not refused.success
    assert "'C;D' is not a ticker" in str(refused.all_events)
    assert universe(world.instance) == []


# What failed or is missing, and how each ticker stands


class Unreliable(SampleSource):
    """Gives no splits of one ticker and no weekly bars of another."""

    def fetch(self, dataset, ticker, part="", **how):
        if (dataset, ticker) in ((SPLITS, TICKERS[0]), (WEEKLY_BARS, TICKERS[1])):
            return TransportFailed("the connection was reset")
        return super().fetch(dataset, ticker, part, **how)


def test_the_backlog_is_what_failed_or_is_missing_in_any_layer(world):
    good, bad = SampleSource(MARKET, lambda: FRIDAY), Unreliable(MARKET, lambda: FRIDAY)

    def backlog():
        tickers = universe(world.instance)
        return make_backlog(
            good,
            world.warehouse,
            tickers,
            intraday_months=0,
            behind=find_behind(world.warehouse, tickers, gold_project=project_digest()),
        )

    world.add(*TICKERS, "NOPE")
    assert set(map(str, backlog().values())) == {"['nothing of it was ever fetched']"}
    assert list(backlog()) == [*TICKERS, "NOPE"]
    world.refresh(bad, [*TICKERS, "NOPE"], layers=("bronze",))
    left = backlog()
    assert left.keys() == set(TICKERS)  # NOPE is left alone
    assert "splits failed: TransportFailed: the connection was reset" in left[TICKERS[0]]
    assert "weekly_bars failed: TransportFailed: the connection was reset" in left[TICKERS[1]]
    assert "silver/weekly_bars" in left[TICKERS[2]][0]
    standings = {one.ticker: one for one in find_standings(world.warehouse, TICKERS)}
    assert "weekly_bars" in standings[TICKERS[0]].fetched
    assert "weekly_bars" not in standings[TICKERS[1]].fetched
    assert standings[TICKERS[1]].failure.asset == "bronze/weekly_bars"

    world.refresh(bad, TICKERS, layers=("silver",))
    left = backlog()
    assert [len(left[ticker]) for ticker in TICKERS] == [2, 2, 1]
    assert left[TICKERS[2]] == ["gold is behind silver"]
    world.refresh(good, list(left), layers=("bronze", "silver"))
    with world.warehouse.gold_batch("a batch", TICKERS[:2], built_by=project_digest()):
        pass
    assert backlog() == {TICKERS[2]: ["gold is behind silver"]}

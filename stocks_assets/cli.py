"""`stocks`, the command line. It prints and exits; the work is done elsewhere."""

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from stocks_assets.domain.datasets import DATASETS, MARKET
from stocks_assets.domain.exports import Format
from stocks_assets.domain.planner import Priority
from stocks_assets.domain.tickers import parse_ticker
from stocks_assets.errors import SettingsError, StocksError
from stocks_assets.platform import Checked, Platform, Service
from stocks_assets.settings import PROJECT_ROOT
from stocks_assets.stack.compose import write_compose_secrets

if TYPE_CHECKING:
    from stocks_assets.adapters.standings import Standing
    from stocks_assets.adapters.trace import Trace
    from stocks_assets.adapters.warehouse import Failure
    from stocks_assets.defs.headless import Headless
app = typer.Typer(
    help="Stock market data as software-defined assets: one command from vendor to mart.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
tickers_app = typer.Typer(help="The universe: which tickers are kept.", no_args_is_help=True)
app.add_typer(tickers_app, name="tickers")

out = Console(file=sys.stdout, highlight=False)
err = Console(file=sys.stderr, highlight=False)

NOTHING_RAN, SOME_FAILED = 1, 3
_SHOWN, _ROWS_SHOWN = 25, 50

TickerArguments = Annotated[list[str], typer.Argument(help="Tickers, such as AAPL or BRK.B.")]


def main() -> None:
    """Run the command line; what a person can mend is one line on standard error and status 1."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As for Ctrl-C: what was started is stopped. A signal that is ignored (nohup) stays so.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda ended_by, _: sys.exit(128 + ended_by))
    # What a pool tries again and again is said once, by who waits for it.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    try:
        app()
    except StocksError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(NOTHING_RAN)
    except Exception as error:
        if not _is_of_a_lost_database(error):
            raise
        said = str(error).strip().splitlines()[0]
        err.print(
            f"[bold red]error:[/] PostgreSQL does not answer any more: {escape(said)}; when it is "
            "back (stocks up), run again what was left: stocks refresh --failed",
            soft_wrap=True,
        )
        sys.exit(NOTHING_RAN)


def _is_of_a_lost_database(error: BaseException | None) -> bool:
    """Tell whether a connection was lost; by name, as the drivers cost each command's start."""
    while error is not None:
        if type(error).__name__ in ("OperationalError", "PoolTimeout", "AdminShutdown"):
            return True
        error = error.__cause__ or error.__context__
    return False


def say(line: str) -> None:
    """Print a line of progress."""
    out.print(f"  {line}", soft_wrap=True, markup=False)


def _say_all(lines: Iterable[str]) -> None:
    """Print lines of progress, the first of them where there are many."""
    lines = list(lines)
    for line in lines[:_SHOWN]:
        say(line)
    if len(lines) > _SHOWN:
        say(f"and {len(lines) - _SHOWN} more")


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it runs.")] = False,
) -> None:
    """Start the servers and the UI; what runs already is left alone."""
    platform = Platform.from_settings()
    platform.require_source()
    platform.require_universe()
    url = platform.up(say)
    out.print(f"[bold green]The UI is at {url}[/]")
    if detach:
        out.print("Stop everything with: stocks down")
    else:
        _serve(platform)


@app.command()
def down() -> None:
    """Stop everything that the project started; the data stays."""
    Platform.from_settings().down(say)


@app.command()
def status(
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts, passwords included.")
    ] = False,
    only_home: Annotated[bool, typer.Option("--home", help="The home folder and no more.")] = False,
) -> None:
    """Say what runs, where, and in which version."""
    platform = Platform.from_settings()
    if only_home:
        out.print(str(platform.home), soft_wrap=True, markup=False)
        return
    found = platform.status()
    if as_json:
        out.print_json(json.dumps(found, default=str))
        return
    table = Table("service", "state", "address", "version", box=None, pad_edge=False)
    for service in found["services"]:
        name, state = service["name"], "[dim]stopped[/]"
        if service["running"]:
            state = "[green]running[/]"
        elif name in found["elsewhere"]:
            name, state = name.replace("seaweedfs", "s3"), "as set"
        table.add_row(name, state, service["address"] or "", service["version"] or "")
    out.print(table)
    if found["reader_url"]:
        is_ours = "postgres" not in found["elsewhere"]
        how = "its password: stocks status --json" if is_ours else "the password that it has there"
        out.print(f"Analysts connect to {_without_secret(found['reader_url'])} (with {how}).")


@app.command()
def query(
    statement: Annotated[
        str | None, typer.Argument(help="A statement in SQL; none, or -: from standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read the statement from this file.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the rows into this file.")
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="Default: what the output's name ends in.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="How many rows; on the terminal 50, else all.")
    ] = None,
) -> None:
    """Ask gold and silver something, as the role that may only read."""
    text = _statement(statement, file)
    form = _format(output, form)
    platform = Platform.from_settings()
    if form is None:
        _show(platform, text, _ROWS_SHOWN if limit is None else limit)
        return
    from stocks_assets.adapters.query import limited, write, write_file

    with platform.query(text, as_text=form is Format.CSV) as found:
        result = found
        if limit is not None:
            result = replace(found, batches=limited(found.batches, limit))
        if output is None:
            write(result, form, sys.stdout.buffer)
            return
        rows = write_file(result, form, output)
    out.print(f"Wrote {_count(rows)} to {output}.", soft_wrap=True, markup=False)


@app.command()
def trace(
    ticker: Annotated[str, typer.Argument(help="A ticker, such as AAPL.")],
    day: Annotated[
        datetime | None,
        typer.Argument(formats=["%Y-%m-%d"], help="A date in the bar; none: the newest bars."),
    ] = None,
) -> None:
    """Follow a price from gold through silver to the object that it came from.

    The object is read and shaped again: what comes out has to be what silver holds. Exit status: 0
    it is, 3 it is not, 1 there is no such bar.
    """
    wanted, of_day = parse_ticker(ticker), day.date() if day else None
    traces = Platform.from_settings().trace(wanted, of_day)
    if not traces:
        when = f" on {of_day}" if of_day else ""
        raise StocksError(
            f"silver has no bar of {wanted}{when}; "
            f"see what there is with: stocks tickers list --details"
        )
    for found in traces:
        _print_trace(found)
    if any(found.differing or found.problem for found in traces):
        sys.exit(SOME_FAILED)


@app.command()
def export(
    tables: Annotated[
        list[str] | None,
        typer.Argument(help="Tables of gold, such as fct_daily_prices; none: all."),
    ] = None,
    tickers: Annotated[
        list[str] | None,
        typer.Option("--tickers", help="Only these, by comma or by several options."),
    ] = None,
) -> None:
    """Write gold as Parquet into the bucket for it, what has changed of it since the last time."""
    started = time.monotonic()
    given = [one for text in tickers or () for one in text.split(",") if one.strip()]
    wanted = list(dict.fromkeys(parse_ticker(ticker) for ticker in given))
    platform = Platform.from_settings()
    found, strangers = platform.export(tables or (), wanted or None)
    table = Table("table", box=None, pad_edge=False)
    for name in ("objects", "written", "removed", "rows", "MB"):
        table.add_column(name, justify="right")
    for name, line in sorted(found.items()):
        counts = (f"{line[count]:,}" for count in ("objects", "written", "removed", "rows"))
        table.add_row(name, *counts, f"{line['bytes'] / 1e6:,.1f}")
    if found:
        out.print(table)
    written = sum(line["written"] + line["removed"] for line in found.values())
    out.print(
        f"{written:,} objects have changed, in {time.monotonic() - started:.1f} s; "
        f"gold is in s3://{platform.curated_bucket}/gold/.",
        soft_wrap=True,
    )
    if strangers:
        out.print(f"Gold has no {', no '.join(strangers)}.", soft_wrap=True, markup=False)
        sys.exit(SOME_FAILED)


@app.command()
def report(
    ticker: Annotated[
        str | None, typer.Option("--ticker", help="Open the page of this ticker.")
    ] = None,
    day: Annotated[
        str | None, typer.Option("--date", help="The report of this day; none: the newest.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write it here: a file, or a folder for a large one."),
    ] = None,
    opens: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
) -> None:
    """Download the market report, which each refresh makes, and open it in the browser."""
    from stocks_assets.adapters.report.download import download, open_in_browser, parse_day

    wanted = parse_ticker(ticker) if ticker is not None else None
    wanted_day = parse_day(day) if day is not None else None
    platform = Platform.from_settings()
    with platform.reports() as reports:
        found = reports.find(wanted_day)
        page = download(reports, found, output or platform.reports_folder / found.folder, wanted)
    session = found.session or "no session yet"
    out.print(f"The market report of {session}, made {found.made_at}, is in", markup=False)
    out.print(str(page.path), soft_wrap=True, markup=False)
    if opens and not open_in_browser(page.url):
        out.print(f"No browser opened here; open {page.url} in one.", soft_wrap=True, markup=False)


@app.command()
def prepare(
    closes: Annotated[
        bool,
        typer.Option(
            "--close",
            help="Let nobody into the database but its roles. The embedded one is always closed.",
        ),
    ] = False,
) -> None:
    """Make databases, tables and bucket, where containers or others start the rest."""
    Platform.from_settings().prepare(say, closes=closes)


@app.command()
def init(
    file: Annotated[Path, typer.Option(help="Where to write them.")] = PROJECT_ROOT / ".env",
) -> None:
    """Generate the passwords and keys of docker-compose.yml; those that are there stay."""
    made = write_compose_secrets(file)
    said = f"Wrote {', '.join(made)} into" if made else "Nothing was missing in"
    out.print(
        f"{said} {file}, which its owner alone may read. Next: docker compose up --detach --wait",
        soft_wrap=True,
        markup=False,
    )


@app.command()
def serve(
    service: Annotated[Service, typer.Argument(help="Which of Dagster's processes to become.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            help="The port to listen on. If none is named, the web server's is 3000, and the code "
            "location listens on a socket in the home folder.",
            min=1,
            max=65535,
        ),
    ] = None,
    code: Annotated[
        str | None,
        typer.Option(help="Host and port of the code location, if not that socket."),
    ] = None,
) -> None:
    """Be one process of several, where something else starts them: containers, systemd.

    The servers run, and hold what `stocks prepare` has made. Whoever reaches a port of the code
    location may start runs.
    """
    Platform.from_settings().serve(service, host=host, port=port, code=code)


@app.command()
def healthy(
    service: Annotated[Checked, typer.Argument(help="What runs on this machine.")],
    port: Annotated[
        int | None, typer.Option(help="The port that it was told to listen on.", min=1, max=65535)
    ] = None,
) -> None:
    """Exit with status 0 if what `stocks serve` or `stocks worker` started works, else with 1."""
    if not Platform.from_settings().is_healthy(service, port=port):
        sys.exit(1)


@app.command()
def worker(
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, help="How many runs at once.")
    ] = 1,
    name: Annotated[
        str | None, typer.Option(help="What it is called in logs; unique on its machine.")
    ] = None,
) -> None:
    """Do runs from the queue in STOCKS_CELERY_BROKER_URL, on this or another machine."""
    Platform.from_settings().work(concurrency=concurrency, name=name)


@app.command()
def plan() -> None:
    """Show which calls come next, what is left of the day, and when the rest is done."""
    platform = Platform.from_settings()
    platform.require_universe()
    with platform.headless() as headless:
        _say_all(headless.apply_universe_file().lines())
        found = platform.plan(headless.tickers())
    if found is None:
        out.print("Calls of this source cost nothing: a refresh asks for everything.")
        return
    left = found.allowance.left
    if left is not None:
        out.print(f"{left} of {found.allowance.per_day} calls are left for now.")
    out.print(f"{found.describe()}.", soft_wrap=True)
    for call in found.calls[:_SHOWN]:
        say(str(call))
    if len(found.calls) > _SHOWN:
        say(f"and {len(found.calls) - _SHOWN} more")


@tickers_app.command("add")
def tickers_add(
    tickers: TickerArguments,
    priority: Annotated[
        Priority | None, typer.Option(help="Who goes first where calls are scarce.")
    ] = None,
) -> None:
    """Add tickers to the universe, or change their priority."""
    wanted = list(dict.fromkeys(parse_ticker(ticker) for ticker in tickers))
    platform = Platform.from_settings()
    with platform.headless() as headless:
        added = headless.add_tickers(wanted, priority)
        total = len(headless.tickers())
        hints = platform.hints(wanted)
        if priority is not None:
            hints += headless.notes_on(wanted, removed=False)
    names = ", ".join(added) or "all known already"
    out.print(f"Added {len(added)} ({names}); {total} in all.", soft_wrap=True)
    _say_all(hints)


@tickers_app.command("remove")
def tickers_remove(tickers: TickerArguments) -> None:
    """Take tickers out of the universe; their data stays."""
    wanted = [parse_ticker(ticker) for ticker in tickers]
    with Platform.from_settings().headless() as headless:
        removed, held = headless.remove_tickers(wanted)
        notes = headless.notes_on(removed, removed=True)
    words = dict.fromkeys(removed, "removed, its data stays")
    words |= dict.fromkeys(
        held, "an unfinished run or backfill needs it; remove it when that has ended"
    )
    for ticker in wanted:
        out.print(f"{ticker}: {words.get(ticker, 'not in the universe')}", soft_wrap=True)
    _say_all(notes)


@tickers_app.command("list")
def tickers_list(
    details: Annotated[
        bool, typer.Option("--details", help="With priority, listing, and what was fetched when.")
    ] = False,
) -> None:
    """Print the universe, a ticker a line."""
    platform = Platform.from_settings()
    with platform.headless() as headless:
        tickers = headless.tickers()
        standings = platform.standings(tickers) if details else []
    if details:
        _print_details(standings)
        return
    for ticker in tickers:
        out.print(ticker, markup=False)


@tickers_app.command("sync")
def tickers_sync() -> None:
    """Apply the universe's file now; other commands and the schedule do so as they run."""
    platform = Platform.from_settings()
    platform.require_universe()
    with platform.headless() as headless:
        if kept := headless.let_go_of_universe_file():
            say(f"the file is gone: the {kept} tickers that it named are kept without it")
        applied = headless.apply_universe_file()
    out.print(applied.describe() or f"Nothing has changed; {applied.total} tickers in all.")
    _say_all(applied.notes)


@app.command()
def rebuild(
    tickers: Annotated[
        list[str] | None, typer.Argument(help="Tickers; none: the universe.")
    ] = None,
    tables: Annotated[
        list[str] | None,
        typer.Option("--table", help="A silver table, such as daily_bars; none: all."),
    ] = None,
    layer: Annotated[
        Literal["silver", "gold"],
        typer.Option(help="What to build anew: silver from bronze, or gold from silver."),
    ] = "silver",
) -> None:
    """Build a layer anew from the one below it, to the same content, without asking the vendor.

    Exit status: 0 all done, 3 some tickers failed and keep what they had, 1 nothing could run.
    """
    wanted = list(dict.fromkeys(parse_ticker(ticker) for ticker in tickers or ()))
    if layer == "gold" and (wanted or tables):
        raise SettingsError("gold is built anew as a whole: leave out the tickers and --table")
    platform = Platform.from_settings()
    with platform.headless() as headless:
        if layer == "gold":
            out.print("[bold]Building gold anew[/], from silver:")
            report = headless.rebuild_gold(say)
        else:
            count = len(wanted or headless.tickers())
            out.print(f"[bold]Building silver anew for {count} tickers[/], from bronze:")
            report = headless.rebuild(wanted, tables or [], say)
    if report.error is not None:
        err.print(f"[bold red]error:[/] {escape(report.error)}", soft_wrap=True)
        sys.exit(NOTHING_RAN)
    for failure in report.failures:
        say(f"{failure.ticker}: {failure.reason} ({failure.asset})")
    if report.failures:
        sys.exit(SOME_FAILED)
    out.print("Done." if layer == "gold" else "Done. Gold follows with the next refresh.")


@app.command()
def refresh(
    tickers: Annotated[
        list[str] | None, typer.Argument(help="Tickers of the universe; none: all.")
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Of these just what failed or is missing.")
    ] = False,
) -> None:
    """Bring tickers up to date from bronze to gold, without the UI.

    Exit status: 0 all done, 3 some tickers failed, 1 nothing could run.
    """
    wanted = list(dict.fromkeys(parse_ticker(ticker) for ticker in tickers or ()))
    platform = Platform.from_settings()
    platform.require_source()
    if not wanted:
        platform.require_universe()
    with platform.headless() as headless:
        if not wanted:
            _apply_universe_file(headless)
        universe = headless.tickers()
        if not universe:
            raise SettingsError("there are no tickers yet; add some with: stocks tickers add AAPL")
        strangers = [ticker for ticker in wanted if ticker not in universe]
        if strangers:
            names = " ".join(strangers)
            raise SettingsError(
                f"not in the universe: {names}; add them with: stocks tickers add {names}"
            )
        wanted = wanted or universe
        if failed:
            backlog = platform.backlog(wanted)
            if not backlog:
                out.print(f"Nothing of {len(wanted)} tickers has failed or is missing.")
                return
            wanted = list(backlog)
            _say_all(f"{ticker}: {'; '.join(why)}" for ticker, why in backlog.items())
        sys.exit(_refresh(platform, headless, wanted))


@app.command()
def demo(
    tickers: Annotated[
        int | None, typer.Option(min=1, max=20_000, help="How many tickers; 12 of the sample.")
    ] = None,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="Serve the UI at the end.")] = True,
) -> None:
    """Run the whole graph on the embedded stack, show what came out, and serve the UI."""
    serve = ui and sys.stdout.isatty()
    started = time.monotonic()
    platform = Platform.from_settings()
    platform.require_source()
    with platform.headless(say) as headless:
        listed = list(platform.listed_tickers(tickers)) or headless.tickers()
        if not listed:
            raise StocksError(
                "the source cannot name tickers; add your own with: stocks tickers add AAPL"
            )
        added = headless.add_tickers(listed)
        say(f"{len(listed)} tickers, {len(added)} of them new: {' '.join(listed[:12])}")
        code = _refresh(platform, headless, listed)
        if code == NOTHING_RAN:
            sys.exit(code)
        _summarize(platform)
        out.print(f"Done in [bold]{time.monotonic() - started:.0f} s[/].")
        if serve:
            url = platform.up(say)
            out.print(f"\n[bold green]The UI is at {url}[/]")
            out.print(f"The lineage graph is at {url}/asset-groups", soft_wrap=True)
    if not serve:
        out.print("See it in the browser with: [bold]stocks up[/]  (.venv/bin/stocks up)")
        sys.exit(code)
    _serve(platform)


_BAR = ("open", "high", "low", "close", "volume")
_PRICES = (*_BAR, "dividend_amount", "split_ratio")


def _print_trace(found: "Trace") -> None:
    """Print a bar, from gold down to the words of the vendor."""

    def line(what: str, text: str) -> None:
        out.print(f"  {what:<9}{text}", soft_wrap=True, markup=False)

    row = found.silver
    out.print(f"[bold]{escape(row['ticker'])}[/], {row['session_date']}, silver.{found.table}")
    if found.gold is None:
        line("gold", "not built yet: stocks refresh")
    else:
        names = [name for name in _PRICES if found.gold.get(name) is not None]
        line("gold", ", ".join(f"{name} {found.gold[name]}" for name in names))
        if any(
            found.gold[name] != row[name] for name in _PRICES if {name} <= {*found.gold} & {*row}
        ):
            line("", "is not what silver says; stocks rebuild --layer gold puts it right")
    names = [name for name in (*_PRICES, "adjusted_close") if row.get(name) is not None]
    line("silver", ", ".join(f"{name} {row[name]}" for name in names))
    line("", f"known since {row['known_at']:%Y-%m-%d %H:%M:%S}, load {row['load_id']}")
    line("bronze", str(found.key))
    if found.given is not None:
        line("vendor", found.given)
    if found.is_lost:
        out.print(f"  [bold red]lost[/] {escape(str(found.problem))}", soft_wrap=True)
        line("", "stocks refresh --failed has it fetched again, as far as the vendor still has it")
    elif found.problem or found.differing:
        why = found.problem or f"other values come out for {', '.join(found.differing)}"
        out.print(f"  [bold red]recomputed[/] {escape(why)}; put it right with:", soft_wrap=True)
        line("", f"stocks rebuild {row['ticker']} --table {found.table}")
    else:
        line("", "shaped again, the object gives what silver holds")
    for value in found.earlier:
        line(
            "earlier",
            f"{value['column_name']} {value['old_value']} until {value['restated_at']:%Y-%m-%d} "
            f"({value['class']}, {value['old_bronze_key']})",
        )


def _statement(given: str | None, file: Path | None) -> str:
    """Return the statement, wherever it is to come from."""
    if file is not None:
        if given is not None:
            raise SettingsError("give a statement or --file, not both")
        try:
            return file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{str(file)!r} cannot be read: {error}") from error
    if given not in (None, "-"):
        return str(given)
    if given is None and sys.stdin.isatty():
        raise SettingsError('there is no statement; give one, such as: stocks query "select 1"')
    return sys.stdin.read()


def _format(output: Path | None, form: Format | None) -> Format | None:
    """Return what to write the rows as; None for a table on the terminal."""
    if output is None:
        if form is Format.PARQUET:
            raise SettingsError("parquet is not for terminals; name a file with --output")
        return form
    if not output.absolute().parent.is_dir():
        raise SettingsError(f"there is no folder {str(output.absolute().parent)!r}")
    if form is not None:
        return form
    try:
        return Format(output.suffix.removeprefix("."))
    except ValueError:
        raise SettingsError(
            f"what to write {str(output)!r} as? Let its name end in .csv, .json or .parquet, or "
            "say --format"
        ) from None


def _show(platform: Platform, statement: str, limit: int) -> None:
    """Print the first `limit` rows, and say whether there are more."""
    from stocks_assets.adapters.query import limited

    with platform.query(statement, as_text=True) as result:
        frames = limited(result.batches, limit + 1)
        rows = [row for frame in frames for row in frame.iter_rows()]
    table = Table(box=None, pad_edge=False)
    for column in result.columns:
        justify: Literal["right", "left"] = "right" if column.is_number else "left"
        table.add_column(escape(column.name), justify=justify, no_wrap=True)
    cells = [[_cell(value) for value in row] for row in rows[:limit]]
    for line in cells:
        table.add_row(*line)
    # As wide as its rows are: a script gets all of them, a narrow terminal a line a value.
    width = Measurement.get(out, out.options.update(max_width=1_000_000), table).maximum
    if not out.is_terminal or width <= out.width or not cells:
        Console(file=sys.stdout, highlight=False, width=max(width, 1)).print(table)
    else:
        for number, line in enumerate(cells, start=1):
            out.print(f"[dim]row {number}[/]")
            record = Table(box=None, pad_edge=False, show_header=False)
            for column, value in zip(result.columns, line, strict=True):
                record.add_row(f"[bold]{escape(column.name)}[/]", value)
            out.print(record)
    if len(rows) > limit:
        out.print(
            f"The first {limit} rows are shown, and there are more: --limit shows more of them, "
            "--output writes all into a file.",
            soft_wrap=True,
        )
    else:
        out.print(f"{_count(len(cells))}.")


def _count(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"


def _cell(value: object) -> str:
    if value is None:
        return "[dim]null[/]"
    return escape(str(value).lower() if isinstance(value, bool) else str(value))


def _without_secret(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}").geturl()


def _apply_universe_file(headless: "Headless") -> None:
    """Make the universe say what its file says; load the list of securities first if it has to."""
    applied = headless.apply_universe_file()
    if applied.lacks_listings:
        out.print("[bold]Loading the list of securities[/], which the universe's file goes by:")
        report = headless.load_listings(say)
        _say_all([report.error] if report.error else [f.reason for f in report.failures])
        if applied.describe():
            say(applied.describe())
        applied = headless.apply_universe_file()
    _say_all(applied.lines())


def _refresh(platform: Platform, headless: "Headless", tickers: list[str]) -> int:
    """Refresh `tickers`, say what came of it, and return the exit status."""
    started = time.monotonic()
    out.print(f"[bold]Refreshing {len(tickers)} tickers[/], from bronze to gold:")
    report = headless.refresh(tickers, say, at_most=platform.tickers_per_run)
    seconds = time.monotonic() - started
    if report.error is not None:
        err.print(
            f"[bold red]error:[/] the run stopped after {seconds:.0f} s: "
            f"{escape(report.error)}; its log is in the UI (stocks up) under run {report.run_id}",
            soft_wrap=True,
        )
        return NOTHING_RAN
    if report.failures:
        failed = {failure.ticker for failure in report.failures} - {MARKET}
        out.print(f"[bold yellow]{len(failed)} of {len(tickers)} tickers failed:[/]")
        for failure in report.failures:
            say(_tell(failure))
        return SOME_FAILED
    rest = platform.plan(tickers)
    if rest is not None and (rest.calls or rest.waiting):
        out.print(
            f"Done in {seconds:.1f} s, as far as calls allow: {rest.describe()}.", soft_wrap=True
        )
        return 0
    out.print(f"All {len(tickers)} tickers are up to date, in {seconds:.1f} s.")
    return 0


def _print_details(standings: Sequence["Standing"]) -> None:
    """Print how each ticker stands, with the age of what was last fetched of each dataset."""
    now = datetime.now(UTC)
    datasets = [name for name in DATASETS if any(name in one.fetched for one in standings)]
    table = Table("ticker", "priority", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in (*datasets, "failed"):
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    table.add_column("listing")
    for one in standings:
        times = [*(one.fetched.get(name) for name in datasets), one.failed_at]
        ages = ("" if at is None else age(now - at) for at in times)
        table.add_row(one.ticker, one.priority, *ages, one.listing)
    out.print(table)
    failures = [one.failure for one in standings if one.failure is not None]
    if failures:
        out.print("\nThe last failures, perhaps mended since:")
        _say_all(_tell(failure) for failure in failures)


def _tell(failure: "Failure") -> str:
    return f"{failure.ticker or 'the market'}: {failure.reason} ({failure.asset})"


def age(span: timedelta) -> str:
    """Return such as `5 min`, `30 h` or `12 d`."""
    minutes = int(span.total_seconds() // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // (24 * 60)} d"


def _summarize(platform: Platform) -> None:
    """Print what the warehouse holds and how the market stands."""
    tables = Table("table", title="The warehouse", title_justify="left", box=None, pad_edge=False)
    for name in ("rows", "tickers", "latest"):
        tables.add_column(name, justify="right")
    for line in platform.warehouse().summary():
        cells = (f"{line.rows:,}", line.tickers, line.latest)
        tables.add_row(line.table, *("" if cell is None else str(cell) for cell in cells))
    market = Table(title="The market", title_justify="left", box=None, pad_edge=False)
    market.add_column("ticker", no_wrap=True)
    market.add_column("company", no_wrap=True, overflow="ellipsis", max_width=12)
    for name in ("as of", "close", "week", "year"):
        market.add_column(name, justify="right", no_wrap=True)
    market.add_column("last 20 weeks", no_wrap=True)
    for row in platform.warehouse().watchlist(limit=15):
        colour = "green" if (row.week_return or 0) >= 0 else "red"
        market.add_row(
            row.ticker,
            row.company_name,
            f"{row.session_date}",
            f"{row.close:,.2f}",
            "" if row.week_return is None else f"[{colour}]{row.week_return:+.1%}[/]",
            "" if row.year_return is None else f"{row.year_return:+.1%}",
            sparkline(row.closes),
        )
    out.print()
    out.print(tables)
    out.print()
    out.print(market)
    out.print()


def sparkline(values: list[float]) -> str:
    """Return `values` as a line of blocks, the lowest to the highest."""
    if not values:
        return ""
    low, span = min(values), (max(values) - min(values)) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * (value - low) / span))] for value in values)


def _serve(platform: Platform) -> None:
    """Wait for Ctrl-C or a signal to end, then stop what runs."""
    out.print("Ctrl-C stops everything; the data stays.")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(1):
        pass
    out.print()
    platform.down(say)

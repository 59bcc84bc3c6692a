"""`stocks`, the command line. It prints and exits; the work is done elsewhere."""

import json
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stocks_assets.domain.planner import Priority
from stocks_assets.domain.tickers import parse_ticker
from stocks_assets.errors import SettingsError, StocksError
from stocks_assets.platform import Platform

if TYPE_CHECKING:
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
_SHOWN_CALLS = 25

TickerArguments = Annotated[list[str], typer.Argument(help="Tickers, such as AAPL or BRK.B.")]


def main() -> None:
    """Run the command line; what a person can mend is one line on standard error and status 1."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As for Ctrl-C: what was started is stopped. A signal that is ignored (nohup) stays so.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda ended_by, _: sys.exit(128 + ended_by))
    try:
        app()
    except StocksError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(NOTHING_RAN)


def say(line: str) -> None:
    """Print a line of progress."""
    out.print(f"  {line}", soft_wrap=True, markup=False)


@app.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it runs.")] = False,
) -> None:
    """Start the servers and the UI; what runs already is left alone."""
    platform = Platform.from_settings()
    platform.require_source()
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
) -> None:
    """Say what runs, where, and in which version."""
    found = Platform.from_settings().status()
    if as_json:
        out.print_json(json.dumps(found, default=str))
        return
    table = Table("service", "state", "address", "version", box=None, pad_edge=False)
    for service in found["services"]:
        state = "[green]running[/]" if service["running"] else "[dim]stopped[/]"
        table.add_row(service["name"], state, service["address"] or "", service["version"] or "")
    out.print(table)


@app.command()
def prepare() -> None:
    """Make databases, tables and bucket, where containers or others start the rest."""
    Platform.from_settings().prepare(say)


@app.command()
def plan() -> None:
    """Show which calls come next, what is left of the day, and when the rest is done."""
    platform = Platform.from_settings()
    with platform.headless() as headless:
        found = platform.plan(headless.tickers())
    if found is None:
        out.print("Calls of this source cost nothing: a refresh asks for everything.")
        return
    left = found.allowance.left
    if left is not None:
        out.print(f"{left} of {found.allowance.per_day} calls are left for now.")
    out.print(f"{found.describe()}.", soft_wrap=True)
    for dataset, ticker in found.calls[:_SHOWN_CALLS]:
        say(f"{dataset} {ticker}")
    if len(found.calls) > _SHOWN_CALLS:
        say(f"and {len(found.calls) - _SHOWN_CALLS} more")


@tickers_app.command("add")
def tickers_add(
    tickers: TickerArguments,
    priority: Annotated[
        Priority | None, typer.Option(help="Who goes first where calls are scarce.")
    ] = None,
) -> None:
    """Add tickers to the universe, or change their priority."""
    wanted = [parse_ticker(ticker) for ticker in tickers]
    with Platform.from_settings().headless() as headless:
        added = headless.add_tickers(wanted)
        if priority is not None:
            headless.set_priority(wanted, priority)
        total = len(headless.tickers())
    out.print(f"Added {len(added)} ({', '.join(added) or 'all known already'}); {total} in all.")


@tickers_app.command("remove")
def tickers_remove(tickers: TickerArguments) -> None:
    """Take tickers out of the universe; their data stays."""
    wanted = [parse_ticker(ticker) for ticker in tickers]
    with Platform.from_settings().headless() as headless:
        for ticker in wanted:
            gone = headless.remove_ticker(ticker)
            out.print(f"{ticker}: {'removed, its data stays' if gone else 'not in the universe'}")


@tickers_app.command("list")
def tickers_list() -> None:
    """Print the universe, a ticker a line."""
    with Platform.from_settings().headless() as headless:
        for ticker in headless.tickers():
            out.print(ticker, markup=False)


@app.command()
def refresh(
    tickers: Annotated[
        list[str] | None, typer.Argument(help="Tickers of the universe; none: all.")
    ] = None,
) -> None:
    """Bring tickers up to date from bronze to gold, without the UI.

    Exit status: 0 all done, 3 some tickers failed, 1 nothing could run.
    """
    wanted = list(dict.fromkeys(parse_ticker(ticker) for ticker in tickers or ()))
    platform = Platform.from_settings()
    platform.require_source()
    with platform.headless() as headless:
        universe = headless.tickers()
        if not universe:
            raise SettingsError("there are no tickers yet; add some with: stocks tickers add AAPL")
        strangers = [ticker for ticker in wanted if ticker not in universe]
        if strangers:
            names = " ".join(strangers)
            raise SettingsError(
                f"not in the universe: {names}; add them with: stocks tickers add {names}"
            )
        sys.exit(_refresh(platform, headless, wanted or universe))


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


def _refresh(platform: Platform, headless: "Headless", tickers: list[str]) -> int:
    """Refresh `tickers`, say what came of it, and return the exit status."""
    started = time.monotonic()
    out.print(f"[bold]Refreshing {len(tickers)} tickers[/], from bronze to gold:")
    report = headless.refresh(tickers, say)
    seconds = time.monotonic() - started
    if report.error is not None:
        err.print(
            f"[bold red]error:[/] the run stopped after {seconds:.0f} s: "
            f"{escape(report.error)}; its log is in the UI (stocks up) under run {report.run_id}",
            soft_wrap=True,
        )
        return NOTHING_RAN
    if report.failures:
        failed = sorted({failure.ticker for failure in report.failures})
        out.print(f"[bold yellow]{len(failed)} of {len(tickers)} tickers failed:[/]")
        for failure in report.failures:
            say(f"{failure.ticker}: {failure.reason} ({failure.asset})")
        return SOME_FAILED
    rest = platform.plan(tickers)
    if rest is not None and (rest.calls or rest.waiting):
        out.print(
            f"Done in {seconds:.1f} s, as far as calls allow: {rest.describe()}.", soft_wrap=True
        )
        return 0
    out.print(f"All {len(tickers)} tickers are up to date, in {seconds:.1f} s.")
    return 0


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
    for name in ("as of", "close", "week", "52 weeks"):
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

"""From nothing to gold through a backfill that is asked for over the UI's API, and the day after.

Starts the platform as `stocks up` does, in a folder of its own, once a size of the universe:

1. a backfill of everything, all tickers, over GraphQL; until gold has them all;
2. days pass, the vendor has one more session, and the job `refresh` brings it in: what is due
   for a premium key then, in as few runs as the schedule asks for;
3. for comparison, the naive way: one run a ticker from bronze to gold, of a few, extrapolated.

4. how long the UI takes to answer, and a tick of each schedule and sensor.

The vendor is a server on this machine with the replies of the sample market of two days, made
beforehand: the vendor's own time is taken out, but for that of sending them. Of each it counts the
processes that were started and splits the time: bronze, load (silver), dbt (gold), the report, and
what is none of them, orchestration. Writes a table and a plot; the last line is one JSON object.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import date, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import matplotlib as mpl
import matplotlib.pyplot as plt
import psutil
import psycopg

from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.defs.jobs import refresh_runs
from stocks_assets.domain.calendar import NEW_YORK
from stocks_assets.domain.datasets import DAILY_BARS, DATASETS, MARKET
from stocks_assets.domain.outcomes import Data
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.domain.tickers import encode_ticker

mpl.use("Agg")
STOCKS = Path(sys.executable).with_name("stocks")
DAY, NEXT_DAY = date(2026, 11, 19), date(2026, 11, 20)
NEXT_DAY_AT = datetime(2026, 11, 20, 18, 30, tzinfo=NEW_YORK)
TODAY = "today"
# What the vendor says of a month, or of a ticker, that it has not: here, of all bars of minutes.
NOTHING = b'{"Error Message": "Invalid API call."}'
LAYERS = ("bronze", "silver", "gold", "report")
SHARES = ("fetch", "load", "dbt", "report")
# What a run of one ticker has: the graph's assets that have tickers.
ONCE = (["silver", "exchange_calendar"], ["staging", "stg_exchange_calendar"], ["gold", "dim_date"])
LOCATION = {"repositoryName": "__repository__", "repositoryLocationName": "stocks_assets"}
RUNS = """query ($filter: RunsFilter!) {runsOrError(filter: $filter, limit: 2000) {
    ... on Runs {results {
        runId status creationTime startTime endTime stepStats {stepKey startTime endTime}}}}}"""
# Asked over and over, so no more than that.
STATUSES = """query ($filter: RunsFilter!) {runsOrError(filter: $filter, limit: 2000) {
    ... on Runs {results {status}}}}"""
BACKFILL = """query ($id: String!) {partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {status}}}"""
SECONDS_BETWEEN_LOOKS = 1.0
UI = {
    "graph of all assets": """{assetNodes {assetKey {path} groupName isPartitioned kinds
        dependencyKeys {path} freshnessPolicy {__typename}}}""",
    "partitions of an asset": """query ($key: AssetKeyInput!) {assetNodeOrError(assetKey: $key) {
        ... on AssetNode {partitionKeys assetPartitionStatuses {... on DefaultPartitionStatuses {
        materializedPartitions failedPartitions unmaterializedPartitions}}}}}""",
    "overview of an asset": """query ($key: AssetKeyInput!) {assetNodeOrError(assetKey: $key) {
        ... on AssetNode {assetMaterializations(limit: 100) {partition timestamp}
        partitionStats {numMaterialized numFailed numPartitions}}}}""",
    "status of all assets": """{assetNodes {assetKey {path} assetMaterializations(limit: 1)
        {timestamp} partitionStats {numMaterialized numFailed numPartitions}}}""",
    "runs": "{runsOrError(limit: 25) {... on Runs {results {runId status tags {key value}}}}}",
}
SENSOR = """query ($of: SensorSelector!) {sensorOrError(sensorSelector: $of) {
    ... on Sensor {sensorState {ticks(limit: 50) {timestamp endTimestamp status}}}}}"""
SCHEDULE = """mutation ($of: ScheduleSelector!, $at: Float!) {
    scheduleDryRun(selectorData: $of, timestamp: $at) {__typename ... on DryRunInstigationTick {
        evaluationResult {runRequests {runKey} skipReason error {message}}}
        ... on PythonError {message}}}"""
LAUNCH = """mutation ($p: ExecutionParams!) {launchRun(executionParams: $p) {
    __typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}
    ... on RunConfigValidationInvalid {errors {message}}}}"""
LAUNCH_BACKFILL = """mutation ($p: LaunchBackfillParams!) {
    launchPartitionBackfill(backfillParams: $p) {
        __typename ... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tickers", type=int, default=500, help="of the main figure")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="more sizes, for growth")
    parser.add_argument(
        "--naive", type=int, default=20, help="tickers that get a run each; 0: none"
    )
    parser.add_argument(
        "--first-session",
        type=date.fromisoformat,
        default=SampleMarket().first_session,
        help="of the market; a later one makes the histories shorter",
    )
    parser.add_argument("--plot", type=Path, default=Path("benchmarks/out/bench_backfill.png"))
    parser.add_argument("--keep", action="store_true", help="leave the folders, for a look at logs")
    options = parser.parse_args()
    sizes = sorted({*options.sizes, options.tickers})
    options.replies = Path(tempfile.mkdtemp(prefix="stocks-bench-replies-"))
    try:
        tickers = listed(max(*sizes, options.naive), options)
        write_replies(tickers, options)
        with Vendor(options.replies) as options.vendor:
            figures(sizes, tickers, options)
    finally:
        if not options.keep:
            shutil.rmtree(options.replies)


def figures(sizes, tickers, options) -> None:
    """Measure each way and each size, and say what came of it."""
    naive = {"seconds_a_ticker": math.nan}
    if options.naive:
        naive = run_of_each(tickers[: options.naive], options)
        print(json.dumps(rounded(naive)), flush=True)
    results = []
    for size in sizes:
        result = measure(tickers[:size], options)
        result["naive_seconds"] = naive["seconds_a_ticker"] * size
        result["speedup"] = result["naive_seconds"] / result["seconds"]
        results.append(result)
        print(json.dumps(rounded(result)), flush=True)
    [main_result] = [result for result in results if result["tickers"] == options.tickers]
    report(results, naive, options)
    plot(results, options.plot)
    shown = {**main_result, "naive": naive, "growth": results if len(results) > 1 else []}
    print(json.dumps(rounded(shown)))


def listed(count, options) -> list[str]:
    """Return the first `count` tickers that trade on the last day: others have no next session."""
    market = SampleMarket(first_session=options.first_session)
    source = SampleSource(market, lambda: NEXT_DAY)
    found = []
    for ticker in market.tickers(count * 5 // 4 + 5):
        reply = source.fetch(DAILY_BARS, ticker)
        if isinstance(reply, Data) and str(NEXT_DAY).encode() in reply.body:
            found.append(ticker)
    return found[:count]


def write_replies(tickers, options) -> None:
    """Write what the vendor has on both days."""
    # A forked process would wait for threads of Polars that it has not.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for day in (DAY, NEXT_DAY):
            write = partial(write_replies_of, day=day, options=options)
            list(pool.map(write, [MARKET, *tickers], chunksize=8))


def write_replies_of(ticker, day, options) -> None:
    source = SampleSource(SampleMarket(first_session=options.first_session), lambda: day)
    for dataset in DATASETS.values():
        if dataset.is_monthly or dataset.is_of_market != (ticker == MARKET):
            continue
        [endpoint, *_] = dataset.endpoints
        for recent in (False, True) if endpoint.recent else (False,):
            size = (endpoint.recent if recent else endpoint.parameters).get("outputsize", "")
            folder = options.replies / endpoint.function / size / str(day)
            folder.mkdir(parents=True, exist_ok=True)
            for part in dataset.parts:
                reply = source.fetch(dataset, ticker, part, recent=recent)
                if isinstance(reply, Data):
                    name = part if ticker == MARKET else encode_ticker(ticker)
                    (folder / f"{name}.{dataset.form}").write_bytes(reply.body)


class Vendor:
    """A process that answers calls with the replies of `day`."""

    def __init__(self, replies) -> None:
        self._replies = replies

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/query"

    def __enter__(self):
        self.has(DAY)
        context = get_context("spawn")
        here, there = context.Pipe()
        self._process = context.Process(target=serve, args=(self._replies, there), daemon=True)
        self._process.start()
        self._port = here.recv()
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        self._process.join()

    def has(self, day) -> None:
        """Answer with the replies of `day` from now on."""
        (self._replies / TODAY).write_text(str(day))


def serve(replies, connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = {name: value for name, [value] in parse_qs(urlsplit(self.path).query).items()}
            ticker = encode_ticker(asked["symbol"]) if "symbol" in asked else None
            name = f"{ticker}.json" if ticker else f"{asked['state']}.csv"
            day = (replies / TODAY).read_text()
            reply = replies / asked["function"] / asked.get("outputsize", "") / day / name
            body = reply.read_bytes() if reply.is_file() else NOTHING
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    connection.send(server.server_port)
    server.serve_forever()


class Stack:
    """The platform, as a user starts it, and its API."""

    def __init__(self, options, tickers) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="stocks-bench-"))
        self.keeps = options.keep
        self.tickers = tickers
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("STOCKS_", "AWS_"))},
            "STOCKS_HOME": str(self.home),
            "STOCKS_ENV_FILE": str(self.home / "none.env"),
            "STOCKS_SOURCE": "alpha_vantage",
            "ALPHA_VANTAGE_API_KEY": "KEY0OF0NOBODY",
            "STOCKS_ALPHA_VANTAGE_PLAN": "premium",
            "STOCKS_ALPHA_VANTAGE_URL": options.vendor.url,
            "STOCKS_CALLS_PER_MINUTE": "0",
        }

    def __enter__(self):
        self.up()
        self.stocks("tickers", "add", *self.tickers)
        return self

    def __exit__(self, *_) -> None:
        self.stocks("down")
        if self.keeps:
            print(f"kept: {self.home}", file=sys.stderr)
        else:
            shutil.rmtree(self.home, ignore_errors=True)

    def stocks(self, *arguments) -> str:
        return subprocess.run(
            [STOCKS, *arguments], env=self.environment, check=True, capture_output=True, text=True
        ).stdout

    def up(self, **environment) -> None:
        self.environment |= environment
        self.stocks("up", "--detach")
        self.status = json.loads(self.stocks("status", "--json"))

    def ask(self, query, **variables):
        reply = httpx.post(
            f"{self.status['ui_url']}/graphql",
            json={"query": query, "variables": variables},
            timeout=120,
            trust_env=False,
        ).json()
        if "errors" in reply:
            raise RuntimeError(json.dumps(reply["errors"])[:2000])
        return reply["data"]

    def runs(self, **runs_filter) -> list[dict]:
        return self.ask(RUNS, filter=runs_filter)["runsOrError"]["results"]

    def ended(self, run_ids) -> bool:
        runs = self.ask(STATUSES, filter={"runIds": run_ids})["runsOrError"]["results"]
        return all(run["status"] in ("SUCCESS", "FAILURE", "CANCELED") for run in runs)

    def launch(self, job, assets, config, tags) -> str:
        """Ask for a run over the API; a run that goes nowhere is an error."""
        selector = {**LOCATION, "jobName": job}
        if assets:
            selector["assetSelection"] = [{"path": path} for path in assets]
        params = {
            "selector": selector,
            "runConfigData": config,
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
        }
        launched = self.ask(LAUNCH, p=params)["launchRun"]
        if "run" not in launched:
            raise RuntimeError(json.dumps(launched))
        return launched["run"]["runId"]

    def partitioned(self) -> list[list[str]]:
        nodes = self.ask("{assetNodes {assetKey {path} isPartitioned groupName}}")["assetNodes"]
        return [
            node["assetKey"]["path"]
            for node in nodes
            if node["isPartitioned"] and node["groupName"] != "access"
        ]

    def in_gold(self) -> int:
        """Return of how many tickers gold has each daily figure."""
        with psycopg.connect(self.status["database_url"]) as connection:
            row = connection.execute(
                "select count(distinct ticker) from gold.mart_technical_indicators"
            ).fetchone()
        return row[0]

    def newest(self) -> list[tuple[date, int]]:
        with psycopg.connect(self.status["database_url"]) as connection:
            return connection.execute(
                "select session_date, count(*) from gold.mart_latest_prices group by 1 order by 1"
            ).fetchall()

    def pass_days(self) -> None:
        """Make all calls as old as it takes for a session to have closed since, whatever the day.

        Weekly bars, which are asked for every five days, stay fresh.
        """
        with psycopg.connect(self.status["database_url"]) as connection:
            connection.execute(
                "update ops.fetches set checked_at = checked_at - interval '4 days 12 hours', "
                "had_at = had_at - interval '4 days 12 hours'"
            )

    def rows(self) -> int:
        with psycopg.connect(self.status["database_url"]) as connection:
            return connection.execute("select count(*) from silver.daily_bars").fetchone()[0]


class Processes:
    """Counts the processes that Dagster starts, while it is entered."""

    def __init__(self, stack) -> None:
        self._roots = [
            s["pid"]
            for s in stack.status["services"]
            if s["name"] in ("code-location", "daemon", "webserver")
        ]
        self._seen: dict[tuple[int, float], str] = {}
        self._done = threading.Event()

    def __enter__(self):
        self._look()
        self._before = set(self._seen)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    @property
    def started(self) -> int:
        return len(set(self._seen) - self._before)

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self._look()

    def _look(self) -> None:
        for root in self._roots:
            try:
                for child in psutil.Process(root).children(recursive=True):
                    self._seen.setdefault((child.pid, child.create_time()), "")
            except psutil.Error:
                continue


def measure(tickers, options) -> dict:
    """Take `tickers` from nothing to gold, then one session further."""
    size = len(tickers)
    options.vendor.has(DAY)
    with Stack(options, tickers) as stack:
        with Processes(stack) as processes:
            began = time.perf_counter()
            # What has no tickers comes first: the calendar, which each ticker's gold needs.
            first = stack.launch("__ASSET_JOB", ONCE, {}, {})
            finish(stack, lambda: stack.ended([first]))
            backfill = stack.ask(
                LAUNCH_BACKFILL,
                p={
                    "assetSelection": [{"path": path} for path in stack.partitioned()],
                    "partitionNames": tickers,
                    "title": "everything",
                },
            )["launchPartitionBackfill"]["backfillId"]
            status = finish(stack, lambda: completed(stack, backfill))
            seconds = time.perf_counter() - began
        runs = stack.runs(tags=[{"key": "dagster/backfill", "value": backfill}])
        runs += stack.runs(runIds=[first])
        found = stack.in_gold()
        if status != "COMPLETED_SUCCESS" or found < size * 0.9:
            raise RuntimeError(f"{status}, {found} of {size} tickers in gold; see {stack.home}")
        rows = stack.rows()
        waits = {"ui_seconds": ui_seconds(stack), "tick_seconds": tick_seconds(stack)}
        daily = next_session(stack, options)
        return {
            "tickers": size,
            "rows": rows,
            "seconds": seconds,
            "processes": processes.started,
            "runs": len(runs),
            "shares": shares(runs, seconds),
            **waits,
            **daily,
        }


def ui_seconds(stack) -> dict[str, float]:
    """Return how long the queries behind the UI's pages take."""
    key = {"path": ["gold", "fct_daily_prices"]}
    found = {}
    for name, query in UI.items():
        began = time.perf_counter()
        stack.ask(query, **({"key": key} if "$key" in query else {}))
        found[name] = time.perf_counter() - began
    return found


def tick_seconds(stack) -> dict[str, float]:
    """Return how long a tick takes: of sensors the longest lately, of schedules one made now."""
    found = {}
    for name in ("objects_arrived", "files_dropped"):
        selector = {**LOCATION, "sensorName": name}
        ticks = stack.ask(SENSOR, of=selector)["sensorOrError"]["sensorState"]["ticks"]
        found[name] = max(t["endTimestamp"] - t["timestamp"] for t in ticks if t["endTimestamp"])
    for name in ("after_the_close", "catch_up"):
        began = time.perf_counter()
        at = NEXT_DAY_AT.timestamp()
        tick = stack.ask(SCHEDULE, of={**LOCATION, "scheduleName": name}, at=at)["scheduleDryRun"]
        if tick.get("evaluationResult") is None or tick["evaluationResult"]["error"]:
            raise RuntimeError(json.dumps(tick))
        found[name] = time.perf_counter() - began
    return found


def next_session(stack, options) -> dict:
    """Bring in one more session by the runs that the schedule asks for, one after the other."""
    options.vendor.has(NEXT_DAY)
    stack.pass_days()
    with Processes(stack) as processes:
        began = time.perf_counter()
        ids = [
            stack.launch("refresh", None, config, tags)
            for config, tags in refresh_runs("day after", stack.tickers, stack.tickers, at_most=500)
        ]
        finish(stack, lambda: stack.ended(ids))
        seconds = time.perf_counter() - began
    runs = stack.runs(runIds=ids)
    newest = stack.newest()
    if {run["status"] for run in runs} != {"SUCCESS"} or newest[-1][0] != NEXT_DAY:
        raise RuntimeError(f"the day after failed: {newest}; see {stack.home}")
    return {
        "daily_refresh_seconds": seconds,
        "daily_processes": processes.started,
        "daily_runs": len(runs),
        "daily_shares": shares(runs, seconds),
    }


def run_of_each(tickers, options) -> dict:
    """Measure the naive way: one run a ticker, through all layers, as many at once as allowed."""
    with Stack(options, tickers) as stack:
        first = stack.launch("__ASSET_JOB", ONCE, {}, {})
        finish(stack, lambda: stack.ended([first]))
        assets = stack.partitioned()
        with Processes(stack) as processes:
            began = time.perf_counter()
            ids = [
                stack.launch("__ASSET_JOB", assets, {}, {"dagster/partition": ticker})
                for ticker in tickers
            ]
            finish(stack, lambda: stack.ended(ids))
            seconds = time.perf_counter() - began
        runs = stack.runs(runIds=ids)
        outcomes = Counter(run["status"] for run in runs)
        if outcomes != {"SUCCESS": len(tickers)}:
            raise RuntimeError(f"the naive way failed: {outcomes}; see {stack.home}")
        return {
            "tickers": len(tickers),
            "seconds": seconds,
            "seconds_a_ticker": seconds / len(tickers),
            "processes": processes.started,
            "shares": shares(runs, seconds),
        }


def finish(stack, found, *, within=3600):
    """Wait until `found` returns something."""
    deadline = time.monotonic() + within
    while not (result := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done within {within} s; see {stack.home}")
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return result


def completed(stack, backfill):
    status = stack.ask(BACKFILL, id=backfill)["partitionBackfillOrError"]["status"]
    return None if status in ("REQUESTED", "IN_PROGRESS", "CANCELING", "FAILING") else status


def shares(runs, seconds) -> dict[str, float]:
    """Split `seconds` into layers at work, by their steps; a moment of two layers is shared."""
    events = []
    for run in runs:
        for step in run["stepStats"]:
            if step["startTime"] and step["endTime"]:
                layer = layer_of(step["stepKey"])
                events += [(step["startTime"], layer, 1), (step["endTime"], layer, -1)]
    spent = dict.fromkeys(LAYERS, 0.0)
    at_work: Counter[str] = Counter()
    before = 0.0
    for moment, layer, change in sorted(events):
        layers = [name for name in at_work if at_work[name] > 0]
        for name in layers:
            spent[name] += (moment - before) / len(layers)
        at_work[layer] += change
        before = moment
    named = {name: spent[layer] for name, layer in zip(SHARES, LAYERS, strict=True)}
    return {**named, "orchestration": seconds - sum(named.values())}


def layer_of(step) -> str:
    if step.startswith("curated"):
        return "report"
    return next((layer for layer in ("bronze", "silver") if step.startswith(layer)), "gold")


def report(results, naive, options) -> None:
    header = (
        "tickers",
        "rows",
        "seconds",
        "processes",
        *SHARES,
        "orchestration",
        "naive",
        "speedup",
        "daily",
    )
    print("".join(f"{name:>15}" for name in header))
    for result in results:
        values = (
            result["tickers"],
            result["rows"],
            result["seconds"],
            result["processes"],
            *result["shares"].values(),
            result["naive_seconds"],
            result["speedup"],
            result["daily_refresh_seconds"],
        )
        print("".join(f"{v:>15,.1f}" if isinstance(v, float) else f"{v:>15,}" for v in values))
        daily = ", ".join(f"{name} {value:.1f}" for name, value in result["daily_shares"].items())
        print(f"{'':>15}the day after, in {result['daily_runs']} runs: {daily} s")
        for what in ("ui_seconds", "tick_seconds"):
            said = ", ".join(f"{name} {value:.2f}" for name, value in result[what].items())
            print(f"{'':>15}{what.partition('_')[0]}: {said} s")
    if not options.naive:
        return
    print(
        f"naive: {naive['tickers']} tickers, a run each: {naive['seconds']:.1f} s, "
        f"{naive['processes']} processes; histories since {options.first_session}"
    )


def plot(results, path) -> None:
    sizes = [result["tickers"] for result in results]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    naive = [r["naive_seconds"] for r in results]
    if not any(map(math.isnan, naive)):
        left.plot(sizes, naive, "--", label="a run a ticker (extrapolated)")
    left.plot(sizes, [r["seconds"] for r in results], "o-", label="backfill")
    left.plot(sizes, [r["daily_refresh_seconds"] for r in results], "s-", label="daily refresh")
    left.set(xscale="log", yscale="log", xlabel="tickers", ylabel="seconds")
    left.legend()
    bottom = [0.0] * len(results)
    for name in (*SHARES, "orchestration"):
        heights = [100 * r["shares"][name] / r["seconds"] for r in results]
        right.bar([str(size) for size in sizes], heights, bottom=bottom, label=name)
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    right.set(xlabel="tickers", ylabel="share of a backfill, %")
    right.legend(loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"plotted in {path}")


def rounded(value):
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 2)
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()

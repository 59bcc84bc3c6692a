"""The runbook's blocks, run as they stand there after what they mend has been broken."""

import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from stocks_assets.domain.bronze_key import BronzeKey
from tests.integration.test_command_line import (
    STOCKS,
    CommandLine,
    contents,
    end,
    s3_bucket,
    silver_content,
)

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
BLOCKS = dict(
    re.findall(r"^```sh\n# tested: (\S+)\n(.*?)^```", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
)
GOLD = "select md5(string_agg(t::text, '' order by t::text)) from gold.fct_daily_prices t"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    command = CommandLine(tmp_path_factory.mktemp("runbook") / "home", {})
    try:
        command.succeed("demo", "--tickers", "2", "--no-ui")
        command.succeed("up", "--detach")
        yield command
    finally:
        end(command)


def run(home: CommandLine, name: str) -> str:
    """Run the runbook's block `name` and return what it printed; the home is known from a file."""
    environment = home.environment(STOCKS_ENV_FILE=".env")
    del environment["STOCKS_HOME"]
    (home.home.parent / ".env").write_text(f"STOCKS_HOME={home.home.name}\n")
    environment["PATH"] = f"{STOCKS.parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", BLOCKS[name]],
        env=environment,
        cwd=home.home.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(home: CommandLine, statement: str) -> list[tuple]:
    with psycopg.connect(home.status()["database_url"]) as connection:
        return connection.execute(statement).fetchall()


def change(home: CommandLine, *statements: str) -> None:
    with psycopg.connect(home.status()["database_url"]) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_price_is_followed_to_the_object_that_it_came_from(home):
    [[day, close, key]] = ask(
        home,
        "select session_date, gold.close, bronze_key from gold.fct_daily_prices gold "
        "join silver.daily_bars using (ticker, session_date) "
        "where ticker = 'ALLM' order by session_date desc limit 1",
    )
    said = home.succeed("trace", "allm", str(day))
    daily, weekly, _ = said.split("ALLM, ")[1:]
    assert daily.startswith(f"{day}, silver.daily_bars")
    assert f"close {close}" in daily
    assert key in daily
    assert BronzeKey.parse(key).ticker == "ALLM"
    assert f'"4. close": "{close:.4f}"' in daily
    assert said.count("shaped again, the object gives what silver holds") == 3
    assert "bronze/weekly_bars/" in weekly
    assert "silver has no bar of NONE on 2020-01-02" in home.refuse("trace", "NONE", "2020-01-02")


def test_what_failed_or_is_missing_is_done_by_one_command(home):
    change(home, "delete from ops.fetches where ticker = 'KLVN' and dataset = 'daily_bars'")
    said = run(home, "refresh-failed")
    assert "KLVN: daily_bars was never fetched" in said
    assert "All 1 tickers are up to date" in said
    assert "Nothing of 2 tickers has failed" in run(home, "refresh-failed")


def test_what_was_changed_by_hand_in_silver_or_gold_is_found_and_put_right(home):
    silver, gold = silver_content(home), ask(home, GOLD)
    change(home, "update silver.daily_bars set close = high where ticker = 'ALLM'")
    seen = home.run("trace", "ALLM")
    assert seen.returncode == 3
    assert "other values come out for close" in seen.stdout
    assert "stocks rebuild ALLM --table daily_bars" in seen.stdout
    run(home, "silver-changed-by-hand")
    assert silver_content(home) == silver
    assert home.run("trace", "ALLM").returncode == 0

    change(home, "update gold.fct_daily_prices set close = close + 1")
    assert "is not what silver says" in home.succeed("trace", "ALLM")
    run(home, "gold-changed-by-hand")
    assert ask(home, GOLD) == gold
    assert "leave out the tickers" in home.refuse("rebuild", "--layer", "gold", "ALLM")


def test_killed_processes_are_started_again(home):
    before = contents(home)
    mains = [psutil.Process(pid) for pid in home.running().values()]
    killed = [process for main in mains for process in (*main.children(recursive=True), main)]
    for process in killed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert psutil.wait_procs(killed, timeout=20)[1] == []
    run(home, "killed")
    assert len(home.running()) == 5
    assert contents(home) == before


def test_a_backup_brings_back_what_was_there(home):
    before = contents(home)
    run(home, "backup")
    [backup] = home.home.parent.glob("*.tgz")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    change(home, "drop schema gold cascade", "drop schema silver cascade")
    run(home, "restore")
    assert contents(home) == before


def test_a_lost_database_is_made_anew_from_the_bucket(home):
    silver, gold = silver_content(home), ask(home, GOLD)
    home.succeed("down")
    shutil.rmtree(home.home / "postgres")
    said = run(home, "database-lost")
    assert "Added 2 (ALLM, KLVN)" in said
    home.succeed("up", "--detach")
    assert silver_content(home) == silver
    assert ask(home, GOLD) == gold


# Last: a database that is made anew after this knows only the object that stands in.
def test_an_object_that_is_lost_is_fetched_again_and_stands_in_for_the_old_one(home):
    home.succeed("refresh")
    silver = silver_content(home)
    [[key]] = ask(
        home,
        "select bronze_key from silver.daily_bars where ticker = 'ALLM' "
        "order by session_date desc limit 1",
    )
    s3_bucket(home).Object(key).delete()
    seen = home.run("trace", "ALLM")
    assert seen.returncode == 3
    assert "lost the object cannot be read" in seen.stdout
    assert f"ALLM: daily_bars failed: its object is gone or damaged: {key}" in " ".join(
        run(home, "object-lost").split()
    )
    assert silver_content(home) == silver
    assert home.run("trace", "ALLM").returncode == 0


def test_every_block_that_says_so_is_tested():
    source = Path(__file__).read_text()
    assert len(BLOCKS) == RUNBOOK.read_text().count("# tested: ")
    for name in BLOCKS:
        assert f'"{name}"' in source

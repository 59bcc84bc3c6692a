"""Dagster's daemon, which looks after backfills every few seconds and not every thirty.

A backfill of three layers waits for its daemon four times: as long as all its work takes. What it
waits is a constant in Dagster, read when its loop begins. Started as `python -m` with the arguments
of `dagster-daemon`.
"""

from dagster._daemon import controller
from dagster._daemon.cli import main

SECONDS_BETWEEN_LOOKS = 3

if __name__ == "__main__":
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = SECONDS_BETWEEN_LOOKS
    main()

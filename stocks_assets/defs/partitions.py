"""The one partition scheme: a partition is a ticker; dates live in the data."""

import dagster as dg

INBOX_KEY = dg.AssetKey(["bronze", "inbox"])
TICKERS = dg.DynamicPartitionsDefinition(name="ticker")

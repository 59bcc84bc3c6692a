"""The one partition scheme: a partition is a ticker; dates live in the data."""

import dagster as dg

TICKERS = dg.DynamicPartitionsDefinition(name="ticker")

"""Stock market data as software-defined assets."""

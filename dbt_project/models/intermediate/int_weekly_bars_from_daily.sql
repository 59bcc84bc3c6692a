{{ weekly_bars_from_daily(ref('fct_daily_prices')) }}

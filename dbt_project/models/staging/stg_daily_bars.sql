select
    ticker,
    session_date,
    open,
    high,
    low,
    close,
    adjusted_close,
    volume,
    dividend_amount,
    split_coefficient,
    row_version,
    bronze_key
from {{ source('silver', 'daily_bars') }}

select
    ticker,
    month_start,
    session_date,
    open,
    high,
    low,
    close,
    adjusted_close,
    volume,
    dividend_amount,
    is_complete,
    row_version,
    bronze_key
from {{ source('silver', 'monthly_bars') }}

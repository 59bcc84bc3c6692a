with

series as (
    select
        *,
        first_value(close) over newest_first as last_close,
        first_value(split_index) over newest_first as last_split_index,
        first_value(total_return_index) over newest_first as last_index,
        row_number() over newest_first > 1 as is_followed
    from {{ ref('int_monthly_series') }}
    window newest_first as (partition by ticker, security_key order by month_start desc)
),

adjusted as (
    select
        *,
        last_close * (total_return_index / last_index) as adjusted_close
    from series
),

final as (
    select
        security_key,
        ticker,
        month_start,
        session_date,
        source,
        open * (adjusted_close / close) as adjusted_open,
        high * (adjusted_close / close) as adjusted_high,
        low * (adjusted_close / close) as adjusted_low,
        adjusted_close,
        volume,
        dividend_amount,
        growth - 1 as simple_return_1m,
        last_close * (sma_3m / last_index) as sma_3m,
        last_close * (sma_6m / last_index) as sma_6m,
        last_close * (sma_12m / last_index) as sma_12m,
        is_complete or is_followed as is_complete
    from adjusted
)

select * from final

with

prices as (
    select * from {{ ref('fct_daily_prices') }}
),

last_sessions as (
    select * from {{ ref('int_last_sessions') }}
),

factors as (
    select
        prices.*,
        last_sessions.split_index / prices.split_index as split_factor,
        last_sessions.close * (prices.total_return_index / last_sessions.total_return_index) as adjusted_close
    from prices
    inner join last_sessions
        on
            prices.ticker = last_sessions.ticker
            and prices.security_key = last_sessions.security_key
),

final as (
    select
        security_key,
        ticker,
        session_date,
        split_factor,
        open / split_factor as split_adjusted_open,
        high / split_factor as split_adjusted_high,
        low / split_factor as split_adjusted_low,
        close / split_factor as split_adjusted_close,
        volume * split_factor as split_adjusted_volume,
        total_return_index,
        open * (adjusted_close / close) as adjusted_open,
        high * (adjusted_close / close) as adjusted_high,
        low * (adjusted_close / close) as adjusted_low,
        adjusted_close
    from factors
)

select * from final

with

bars as (
    select * from {{ ref('stg_daily_bars') }}
),

dividends as (
    select * from {{ ref('stg_corporate_actions') }}
    where action_type = 'dividend'
),

splits as (
    select * from {{ ref('stg_corporate_actions') }}
    where action_type = 'split'
),

reused as (
    select * from {{ ref('int_reused_tickers') }}
),

final as (
    select
        coalesce(reused.security_key, {{ first_security_key('bars.ticker') }}) as security_key,
        bars.ticker,
        bars.session_date,
        bars.open,
        bars.high,
        bars.low,
        bars.close,
        bars.volume,
        coalesce(dividends.dividend_amount, bars.dividend_amount, 0) as dividend_amount,
        coalesce(splits.split_ratio, bars.split_coefficient, 1) as split_ratio,
        {{ daily_bar_hash('bars') }}
        # coalesce({{ action_hash('dividends') }}, 0)
        # coalesce({{ action_hash('splits') }}, 0)
        # coalesce({{ security_hash('reused.security_key', 'bars.session_date') }}, 0) as row_hash
    from bars
    left join dividends
        on
            bars.ticker = dividends.ticker
            and bars.session_date = dividends.ex_date
    left join splits
        on
            bars.ticker = splits.ticker
            and bars.session_date = splits.ex_date
    left join reused
        on
            bars.ticker = reused.ticker
            and bars.session_date between reused.valid_from and reused.valid_to
)

select * from final

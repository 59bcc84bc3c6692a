-- depends_on: {{ ref('int_last_sessions') }}
{{ config(
    materialized='incremental',
    incremental_strategy='replace_sessions',
    on_schema_change='fail',
    meta={'period': 'session_date'},
    pre_hook="{{ take_sessions_of([ref('fct_daily_prices'), ref('int_daily_indicators')]) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

prices as (
    select * from {{ changed_sessions(ref('fct_daily_prices')) }} as prices
),

indicators as (
    select * from {{ changed_sessions(ref('int_daily_indicators')) }} as indicators
),

tickers_of_sessions as (
    select
        prices.session_date,
        prices.close * prices.split_ratio - prices.previous_close as change,
        indicators.close > indicators.sma_50 as is_above_sma_50,
        indicators.close > indicators.sma_200 as is_above_sma_200,
        indicators.high >= indicators.high_252 as is_at_new_high,
        indicators.low <= indicators.low_252 as is_at_new_low
    from prices
    inner join indicators
        on
            prices.ticker = indicators.ticker
            and prices.session_date = indicators.session_date
),

counted as (
    select
        session_date,
        count(*)::integer as tickers,
        (count(*) filter (where change > 0))::integer as advancers,
        (count(*) filter (where change < 0))::integer as decliners,
        (count(*) filter (where change = 0))::integer as unchanged,
        (count(*) filter (where is_above_sma_50))::integer as above_sma_50,
        count(is_above_sma_50)::integer as with_sma_50,
        (count(*) filter (where is_above_sma_200))::integer as above_sma_200,
        count(is_above_sma_200)::integer as with_sma_200,
        (count(*) filter (where is_at_new_high))::integer as new_highs,
        (count(*) filter (where is_at_new_low))::integer as new_lows,
        count(is_at_new_high)::integer as with_52w_range
    from tickers_of_sessions
    group by session_date
),

final as (
    select
        *,
        above_sma_50::double precision / nullif(with_sma_50, 0) as share_above_sma_50,
        above_sma_200::double precision / nullif(with_sma_200, 0) as share_above_sma_200
    from counted
)

select * from final

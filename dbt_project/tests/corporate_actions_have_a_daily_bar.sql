{{
    config(
        severity='warn',
        tags=['per_ticker'],
        meta={'dagster': {'ref': {'name': 'fct_daily_prices'}}},
    )
}}

-- An action between a ticker's first and last daily bar whose ex-date has no bar is in no return.
with

actions as (
    select * from {{ ref('fct_corporate_actions') }}
),

-- Limits make each of these a look into the index; as a join, all prices would be read.
without_bar as (
    select actions.*
    from actions
    left join lateral (
        select prices.ticker
        from {{ ref('fct_daily_prices') }} as prices
        where
            prices.ticker = actions.ticker
            and prices.session_date = actions.ex_date
        limit 1
    ) as bar on true
    where bar.ticker is null
)

select
    without_bar.ticker,
    without_bar.ex_date,
    without_bar.action_type
from without_bar
cross join lateral (
    select prices.session_date
    from {{ ref('fct_daily_prices') }} as prices
    where
        prices.ticker = without_bar.ticker
        and prices.session_date < without_bar.ex_date
    limit 1
) as before
cross join lateral (
    select prices.session_date
    from {{ ref('fct_daily_prices') }} as prices
    where
        prices.ticker = without_bar.ticker
        and prices.session_date > without_bar.ex_date
    limit 1
) as after

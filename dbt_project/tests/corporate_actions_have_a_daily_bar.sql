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

prices as (
    select * from {{ ref('fct_daily_prices') }}
),

without_bar as (
    select *
    from actions
    where not exists (
        select 1
        from prices
        where
            prices.ticker = actions.ticker
            and prices.session_date = actions.ex_date
    )
)

select
    ticker,
    ex_date,
    action_type
from without_bar
where
    exists (
        select 1
        from prices
        where
            prices.ticker = without_bar.ticker
            and prices.session_date < without_bar.ex_date
    )
    and exists (
        select 1
        from prices
        where
            prices.ticker = without_bar.ticker
            and prices.session_date > without_bar.ex_date
    )

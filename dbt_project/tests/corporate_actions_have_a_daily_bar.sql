{{
    config(
        severity='warn',
        tags=['per_ticker'],
        meta={'dagster': {'ref': {'name': 'fct_daily_prices'}}},
    )
}}

-- An action between a ticker's first and last daily bar that counts in none of them is in no return.
select
    actions.ticker,
    actions.ex_date,
    actions.action_type
from {{ ref('int_corporate_actions') }} as actions
where
    actions.session_date is null
    and exists (
        select 1
        from {{ ref('fct_daily_prices') }} as prices
        where
            prices.ticker = actions.ticker
            and prices.session_date < actions.ex_date
    )
    and exists (
        select 1
        from {{ ref('fct_daily_prices') }} as prices
        where
            prices.ticker = actions.ticker
            and prices.session_date > actions.ex_date
    )

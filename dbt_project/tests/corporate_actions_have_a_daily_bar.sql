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
    select * from {{ ref('stg_corporate_actions') }}
),

prices as (
    select * from {{ ref('fct_daily_prices') }}
),

histories as (
    select
        ticker,
        min(session_date) as first_session,
        max(session_date) as last_session
    from prices
    group by ticker
)

select
    actions.ticker,
    actions.ex_date,
    actions.action_type
from actions
inner join histories
    on
        actions.ticker = histories.ticker
        and actions.ex_date between histories.first_session and histories.last_session
where not exists (
    select 1
    from prices
    where
        prices.ticker = actions.ticker
        and prices.session_date = actions.ex_date
)

-- Sessions in which the mean of 50 sessions went above that of 200, and what the next 63 sessions brought.
with

means as (
    select
        security_key,
        ticker,
        session_date,
        sma_50 > sma_200 as is_above,
        lag(sma_50 > sma_200) over history as was_above
    from {{ ref('mart_technical_indicators') }}
    where sma_200 is not null
    window history as (partition by security_key order by session_date)
),

outcomes as (
    select
        ticker,
        session_date,
        lead(simple_return_63d, 63) over (partition by security_key order by session_date) as simple_return_after_63d
    from {{ ref('mart_returns_risk') }}
)

select
    means.security_key,
    means.ticker,
    means.session_date,
    outcomes.simple_return_after_63d
from means
inner join outcomes
    on
        means.ticker = outcomes.ticker
        and means.session_date = outcomes.session_date
where means.is_above and not means.was_above
order by means.ticker, means.session_date

-- How the daily returns of two securities went together over the last year, for each pair with half a year in common.
with

last_year as (
    select
        security_key,
        ticker,
        session_date,
        simple_return_1d
    from {{ ref('mart_returns_risk') }}
    where
        simple_return_1d is not null
        and session_date > (select max(session_date) from {{ ref('mart_market_breadth') }}) - 365
)

select
    one.ticker as ticker,
    other.ticker as other_ticker,
    corr(one.simple_return_1d, other.simple_return_1d) as correlation,
    count(*) as sessions
from last_year as one
inner join last_year as other
    on
        one.session_date = other.session_date
        and one.ticker < other.ticker
group by one.security_key, one.ticker, other.security_key, other.ticker
having count(*) >= 126
order by correlation desc nulls last, one.ticker, other.ticker

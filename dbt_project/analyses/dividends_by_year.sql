-- What a share of today has paid in each year, and what that is of the price the year began with.
with

dividends as (
    select
        prices.security_key,
        prices.ticker,
        dates.year,
        sum(prices.dividend_amount / adjusted.split_factor) as dividend_per_share,
        count(*) as payments
    from {{ ref('fct_daily_prices') }} as prices
    inner join {{ ref('mart_adjusted_prices') }} as adjusted
        on
            prices.ticker = adjusted.ticker
            and prices.session_date = adjusted.session_date
    inner join {{ ref('dim_date') }} as dates on prices.session_date = dates.date_day
    where prices.dividend_amount > 0
    group by prices.security_key, prices.ticker, dates.year
),

first_closes as (
    select distinct on (adjusted.security_key, dates.year)
        adjusted.security_key,
        dates.year,
        adjusted.split_adjusted_close
    from {{ ref('mart_adjusted_prices') }} as adjusted
    inner join {{ ref('dim_date') }} as dates on adjusted.session_date = dates.date_day
    order by adjusted.security_key, dates.year, adjusted.session_date
)

select
    dividends.security_key,
    dividends.ticker,
    dividends.year,
    dividends.payments,
    dividends.dividend_per_share,
    dividends.dividend_per_share / first_closes.split_adjusted_close as dividend_yield
from dividends
inner join first_closes
    on
        dividends.security_key = first_closes.security_key
        and dividends.year = first_closes.year
order by dividends.ticker, dividends.year, dividends.security_key

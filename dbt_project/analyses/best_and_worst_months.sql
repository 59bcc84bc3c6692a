-- The three best and the three worst months of each security, by total return.
with

months as (
    select
        security_key,
        ticker,
        month_start,
        simple_return_1m
    from {{ ref('agg_monthly_prices') }}
    where is_complete and simple_return_1m is not null
),

ranked as (
    select
        *,
        row_number() over (partition by security_key order by simple_return_1m desc, month_start) as place_from_top,
        row_number() over (partition by security_key order by simple_return_1m, month_start) as place_from_bottom
    from months
)

select
    security_key,
    ticker,
    month_start,
    simple_return_1m,
    case when place_from_top <= 3 then 'best' else 'worst' end as kind
from ranked
where place_from_top <= 3 or place_from_bottom <= 3
order by ticker, security_key, simple_return_1m desc

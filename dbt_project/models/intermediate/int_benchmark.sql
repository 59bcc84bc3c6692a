select benchmarks.ticker
from unnest(array[{% for ticker in var('benchmarks') %}'{{ ticker }}'{{ ', ' if not loop.last }}{% endfor %}])
    with ordinality as benchmarks (ticker, place)
where exists (
    select 1
    from {{ ref('fct_daily_prices') }} as prices
    where prices.ticker = benchmarks.ticker
)
order by benchmarks.place
limit 1

-- depends_on: {{ ref('int_last_sessions') }}
{{ config(
    materialized='incremental',
    incremental_strategy='replace_sessions',
    on_schema_change='fail',
    meta={'period': 'session_date'},
    pre_hook="{{ take_sessions_of([ref('fct_daily_prices')], depends_on=benchmark()) }}",
    post_hook="{{ pass_changes_on(depends_on=benchmark()) }}",
) }}

with

prices as (
    select * from {{ changed_sessions(ref('fct_daily_prices')) }} as prices
),

-- Sums are taken in the order of the tickers, whatever the plan: those of floats depend on it.
summed as (
    select
        session_date,
        count(*)::integer as tickers,
        sum(close * volume order by ticker) as traded_value,
        avg(simple_return_1d order by ticker) as mean_simple_return_1d,
        (array_agg(ticker order by simple_return_1d desc nulls last, ticker))[1] as best_ticker,
        max(simple_return_1d) as best_simple_return_1d,
        (array_agg(ticker order by simple_return_1d asc nulls last, ticker))[1] as worst_ticker,
        min(simple_return_1d) as worst_simple_return_1d,
        percentile_cont(0.5) within group (order by simple_return_1d) as median_simple_return_1d,
        max(simple_return_1d) filter (where ticker = ({{ benchmark() }})) as benchmark_simple_return_1d
    from prices
    group by session_date
),

final as (
    select
        session_date,
        tickers,
        traded_value,
        mean_simple_return_1d,
        median_simple_return_1d,
        case when best_simple_return_1d is not null then best_ticker end as best_ticker,
        best_simple_return_1d,
        case when worst_simple_return_1d is not null then worst_ticker end as worst_ticker,
        worst_simple_return_1d,
        ({{ benchmark() }}) as benchmark_ticker,
        benchmark_simple_return_1d
    from summed
)

select * from final

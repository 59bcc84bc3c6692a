-- depends_on: {{ ref('int_last_sessions') }} {{ ref('dim_security') }}
{{ config(
    materialized='incremental',
    incremental_strategy='replace_sessions',
    on_schema_change='fail',
    meta={'period': 'session_date'},
    pre_hook="{{ take_sessions_of([ref('int_daily_returns')], depends_on=sectors_digest()) }}",
    post_hook="{{ pass_changes_on(depends_on=sectors_digest()) }}",
) }}

with

returns as (
    select * from {{ changed_sessions(ref('int_daily_returns')) }} as returns
),

-- A profile describes the company that has the ticker now, not those that had it before.
companies as (
    select
        companies.ticker,
        companies.sector,
        securities.security_key
    from {{ ref('dim_company') }} as companies
    inner join {{ ref('dim_security') }} as securities
        on
            companies.ticker = securities.ticker
            and securities.is_current
    where companies.sector is not null and companies.asset_type is distinct from 'ETF'
),

-- Means are taken in the order of the tickers, whatever the plan: sums of floats depend on it.
final as (
    select
        companies.sector,
        returns.session_date,
        count(*)::integer as tickers,
        (count(*) filter (where returns.simple_return_1d > 0))::integer as advancers,
        (count(*) filter (where returns.simple_return_1d < 0))::integer as decliners,
        {% for sessions in [1, 5, 21, 63, 126, 252] -%}
        avg(returns.simple_return_{{ sessions }}d order by returns.ticker) as mean_simple_return_{{ sessions }}d{{ ',' if not loop.last }}
        {% endfor %}
    from returns
    inner join companies
        on
            returns.ticker = companies.ticker
            and returns.security_key = companies.security_key
    group by companies.sector, returns.session_date
)

select * from final

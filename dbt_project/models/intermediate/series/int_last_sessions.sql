{{ config(
    indexes=[{'columns': ['ticker', 'security_key'], 'unique': true}],
    pre_hook="{{ take_changes_of([ref('fct_daily_prices')]) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

tickers as (
    {% if is_incremental() -%}
    select ticker from {{ changes() }}
    {%- else -%}
    {{ distinct_tickers(ref('fct_daily_prices')) }}
    {%- endif %}
),

reused as (
    select * from {{ ref('int_reused_tickers') }}
),

securities as (
    select
        ticker,
        valid_from,
        valid_to
    from reused
    where ticker in (select tickers.ticker from tickers)
    union all
    select
        tickers.ticker,
        '-infinity',
        coalesce(min(reused.valid_from) - 1, 'infinity')
    from tickers
    left join reused on tickers.ticker = reused.ticker
    group by tickers.ticker
),

final as (
    select
        last_row.ticker,
        last_row.security_key,
        first_row.session_date as first_session,
        last_row.session_date,
        last_row.close,
        last_row.split_index,
        last_row.total_return_index,
        last_row.session_number,
        last_row.session_date = max(last_row.session_date) over (partition by last_row.ticker) as is_latest
    from securities
    cross join lateral (
        select *
        from {{ ref('fct_daily_prices') }} as prices
        where
            prices.ticker = securities.ticker
            and prices.session_date between securities.valid_from and securities.valid_to
        order by prices.session_date desc
        limit 1
    ) as last_row
    cross join lateral (
        select prices.session_date
        from {{ ref('fct_daily_prices') }} as prices
        where
            prices.ticker = securities.ticker
            and prices.session_date between securities.valid_from and securities.valid_to
        order by prices.session_date
        limit 1
    ) as first_row
)

select * from final

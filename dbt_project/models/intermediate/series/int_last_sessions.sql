{{ config(
    indexes=[{'columns': ['ticker'], 'unique': true}],
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

final as (
    select last_row.*
    from tickers
    cross join lateral (
        select
            prices.ticker,
            prices.security_key,
            prices.session_date,
            prices.close,
            prices.split_index,
            prices.total_return_index,
            prices.session_number
        from {{ ref('fct_daily_prices') }} as prices
        where prices.ticker = tickers.ticker
        order by prices.session_date desc
        limit 1
    ) as last_row
)

select * from final

{{ config(
    indexes=[{'columns': ['ticker', 'session_date']}],
    meta={'period': 'session_date'},
    pre_hook="{{ take_changes_of([ref('fct_daily_prices'), ref('int_vendor_closes')], is_by_session=false) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

steps as (
    select
        *,
        true as is_new
    from {{ changed_rows(ref('fct_daily_prices')) }} as prices
    {% if is_incremental() %}
    union all
    select
        before_change.*,
        false
    from {{ changes() }} as changes
    cross join lateral (
        select *
        from {{ ref('fct_daily_prices') }} as parents
        where
            parents.ticker = changes.ticker
            and parents.session_date <= changes.kept_through
        order by parents.session_date desc
        limit 20
    ) as before_change
    {% endif %}
),

prices as (
    select
        steps.*,
        bars.adjusted_close as vendor_adjusted_close
    from steps
    {% if is_incremental() -%}
    -- Row by row: as a join, all of silver would be read.
    cross join lateral (
        select rows_of_bars.adjusted_close
        from {{ ref('stg_daily_bars') }} as rows_of_bars
        where rows_of_bars.ticker = steps.ticker and rows_of_bars.session_date = steps.session_date
        offset 0
    ) as bars
    {%- else -%}
    inner join {{ ref('stg_daily_bars') }} as bars
        on
            steps.ticker = bars.ticker
            and steps.session_date = bars.session_date
    {%- endif %}
),

-- How many decimals the payload prints shows in twenty values; in one of them the last may be zeros.
printed as (
    select
        *,
        lag(vendor_adjusted_close) over (partition by ticker, security_key order by session_date)
            as previous_vendor_adjusted_close,
        {{ half_a_printed_unit('vendor_adjusted_close') }} over (
            partition by ticker
            order by session_date
            rows 19 preceding
        ) as half_unit
    from prices
),

stepped as (
    select
        *,
        simple_return_1d + 1 as growth,
        vendor_adjusted_close / nullif(previous_vendor_adjusted_close, 0) as vendor_growth
    from printed
    where is_new
),

judged as (
    select
        *,
        -- Each of the two closes may be off by half a unit of its last decimal.
        vendor_growth * (half_unit / vendor_adjusted_close + half_unit / previous_vendor_adjusted_close)
        + 1e-9 * vendor_growth as tolerance,
        vendor_growth * previous_close / split_ratio - close as implied_dividend,
        vendor_growth * previous_close / (close + dividend_amount) as implied_split
    from stepped
    where vendor_growth > 0
),

final as (
    select
        security_key,
        ticker,
        session_date,
        vendor_adjusted_close,
        previous_vendor_adjusted_close,
        growth - 1 as simple_return,
        vendor_growth - 1 as vendor_simple_return,
        growth - vendor_growth as difference,
        tolerance,
        dividend_amount,
        split_ratio,
        {{ finding_of_step('growth', 'growth') }} as finding,
        implied_dividend,
        implied_split
    from judged
    where abs(growth - vendor_growth) > tolerance
)

select * from final

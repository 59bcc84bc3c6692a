{{ config(
    indexes=[{'columns': ['ticker', 'week_start']}],
    meta={'period': 'week_start'},
    pre_hook="{{ take_changes_of([ref('int_weekly_series')], is_by_session=false) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

weeks as (
    select
        *,
        true as is_new
    from {{ changed_rows(ref('int_weekly_series'), period='week_start') }} as weeks
    {% if is_incremental() %}
    union all
    select
        before_change.*,
        false
    from {{ changes() }} as changes
    cross join lateral (
        select *
        from {{ ref('int_weekly_series') }} as parents
        where
            parents.ticker = changes.ticker
            and parents.week_start <= changes.kept_through
        order by parents.week_start desc, parents.session_date desc
        limit 20
    ) as before_change
    {% endif %}
),

-- How many decimals the payload prints shows in twenty values; in one of them the last may be zeros.
printed as (
    select
        *,
        {{ half_a_printed_unit('vendor_adjusted_close') }} over (
            partition by ticker
            order by week_start, session_date
            rows 19 preceding
        ) as half_unit
    from weeks
),

-- What a dividend comes to depends on the close of its ex-date, which a weekly bar does not give; it lies
-- between the lowest and the highest price of the week.
bounded as (
    select
        *,
        vendor_adjusted_close / vendor_growth as previous_vendor_adjusted_close,
        split_ratio * close / previous_close as growth_of_price,
        coalesce(low, least(close, close * split_ratio, previous_close, previous_close / split_ratio) / 2) as lowest,
        coalesce(high, greatest(close, close * split_ratio, previous_close, previous_close / split_ratio) * 2) as highest
    from printed
    where is_new and vendor_growth > 0
),

stepped as (
    select
        *,
        case when growth_is_exact then growth else growth_of_price * (1 + dividend_amount / highest) end as lowest_growth,
        case when growth_is_exact then growth else growth_of_price * exp(least(dividend_amount / lowest, 300)) end as highest_growth,
        -- Each of the two closes may be off by half a unit of its last decimal.
        vendor_growth * (half_unit / vendor_adjusted_close + half_unit / previous_vendor_adjusted_close)
        + 1e-9 * vendor_growth as tolerance
    from bounded
),

final as (
    select
        security_key,
        ticker,
        week_start,
        session_date,
        vendor_adjusted_close,
        previous_vendor_adjusted_close,
        vendor_growth - 1 as vendor_simple_return,
        lowest_growth - 1 as lowest_simple_return,
        highest_growth - 1 as highest_simple_return,
        tolerance,
        dividend_amount,
        split_ratio,
        {{ finding_of_step('lowest_growth', 'highest_growth') }} as finding,
        vendor_growth * previous_close / split_ratio - close as implied_dividend,
        vendor_growth * previous_close / (close + dividend_amount) as implied_split
    from stepped
    where vendor_growth not between lowest_growth - tolerance and highest_growth + tolerance
)

select * from final

{{ config(
    indexes=[{'columns': ['ticker', 'session_date']}],
    meta={'period': 'session_date'},
    pre_hook="{{ take_changes_of([ref('fct_daily_prices')], is_by_session=false) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

prices as (
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

-- How many decimals the payload prints shows in twenty values; in one of them the last may be zeros.
printed as (
    select
        *,
        lag(vendor_adjusted_close) over history as previous_vendor_adjusted_close,
        0.5 * 10.0::double precision ^ -max(scale(vendor_adjusted_close::text::numeric)) over (history rows 19 preceding)
            as half_unit
    from prices
    window history as (partition by ticker order by session_date)
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
        case
            when abs(close / previous_close - vendor_growth) <= tolerance then 'action unknown to the vendor'
            when abs(vendor_growth / growth - 1) > 0.2 then 'split missing or wrong'
            when vendor_growth > growth then 'dividend missing or too small'
            else 'dividend too large'
        end as finding,
        implied_dividend,
        implied_split
    from judged
    where abs(growth - vendor_growth) > tolerance
)

select * from final

{{ config(
    meta={'period': 'week_start'},
    pre_hook="{{ take_changes_of(
        [ref('fct_weekly_prices'), ref('fct_daily_prices'), ref('fct_corporate_actions')],
        kept={
            'fct_daily_prices': week_before_change(),
            'fct_corporate_actions': week_before_change(),
        },
    ) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

vendor_weeks as (
    select * from {{ changed_rows(ref('fct_weekly_prices'), period='week_start') }} as vendor_weeks
),

daily_weeks as (
    {% if is_incremental() -%}
    {{ weekly_bars_from_daily(changed_rows(ref('fct_daily_prices'), after='changes.kept_through + 6')) }}
    {%- else -%}
    select * from {{ ref('int_weekly_bars_from_daily') }}
    {%- endif %}
),

actions as (
    select *
    from {{ changed_rows(ref('fct_corporate_actions'), period='ex_date', after='changes.kept_through + 6') }} as actions
),

split_weeks as (
    select
        ticker,
        date_trunc('week', ex_date)::date as week_start,
        max(ex_date) as split_date
    from actions
    where split_ratio <> 1
    group by ticker, date_trunc('week', ex_date)::date
),

calendar_weeks as (
    select
        week_start,
        min(date_day) as first_session,
        max(date_day) as last_session
    from {{ ref('dim_date') }}
    where is_session
    group by week_start
),

weeks as (
    select
        ticker,
        week_start,
        vendor_weeks.ticker is null as is_from_daily,
        coalesce(vendor_weeks.session_date, daily_weeks.session_date) as session_date,
        vendor_weeks.open as vendor_open,
        vendor_weeks.high as vendor_high,
        vendor_weeks.low as vendor_low,
        vendor_weeks.volume as vendor_volume,
        daily_weeks.open as daily_open,
        daily_weeks.high as daily_high,
        daily_weeks.low as daily_low,
        daily_weeks.volume as daily_volume,
        daily_weeks.session_date as daily_session_date,
        coalesce(vendor_weeks.close, daily_weeks.close) as close,
        coalesce(vendor_weeks.adjusted_close, daily_weeks.adjusted_close) as adjusted_close,
        coalesce(vendor_weeks.dividend_amount, daily_weeks.dividend_amount) as dividend_amount,
        coalesce(daily_weeks.has_split_inside, false) as daily_has_split_inside,
        calendar_weeks.last_session,
        split_weeks.split_date,
        -- Daily bars that begin in the middle of a week say nothing of how the week began.
        case
            when
                daily_weeks.first_session <= calendar_weeks.first_session
                or not daily_weeks.begins_history
                then daily_weeks.first_session
        end as daily_first_session,
        coalesce(calendar_weeks.first_session, week_start) as calendar_first_session
    from vendor_weeks
    full join daily_weeks using (ticker, week_start)
    left join split_weeks using (ticker, week_start)
    left join calendar_weeks using (week_start)
),

judged as (
    select
        *,
        not is_from_daily and (
            (daily_has_split_inside and daily_session_date <= session_date)
            or coalesce(
                split_date > coalesce(daily_first_session, calendar_first_session)
                and split_date <= session_date,
                false
            )
        ) as vendor_mixes_scales,
        daily_has_split_inside
        and daily_first_session is not null
        and daily_session_date = session_date as daily_keeps_scale
    from weeks
    where adjusted_close is not null
),

chosen as (
    select
        *,
        is_from_daily or (vendor_mixes_scales and daily_keeps_scale) as takes_daily
    from judged
),

bars as (
    select
        ticker,
        week_start,
        session_date,
        case when takes_daily then daily_open when not vendor_mixes_scales then vendor_open end as open,
        case when takes_daily then daily_high when not vendor_mixes_scales then vendor_high end as high,
        case when takes_daily then daily_low when not vendor_mixes_scales then vendor_low end as low,
        close,
        adjusted_close,
        case when takes_daily then daily_volume else vendor_volume end as volume,
        dividend_amount,
        coalesce(session_date >= last_session, false) as is_complete
    from chosen
),

scaled as (
    select
        ticker,
        week_start,
        session_date,
        open * adjusted_close / nullif(close, 0) as adjusted_open,
        high * adjusted_close / nullif(close, 0) as adjusted_high,
        low * adjusted_close / nullif(close, 0) as adjusted_low,
        adjusted_close,
        volume,
        dividend_amount,
        is_complete,
        true as is_new
    from bars
    {% if is_incremental() %}
    -- The longest window reaches back 51 weeks.
    union all
    select
        ticker,
        week_start,
        session_date,
        adjusted_open,
        adjusted_high,
        adjusted_low,
        adjusted_close,
        volume,
        dividend_amount,
        is_complete,
        false
    from {{ kept_rows(51) }} as kept
    {% endif %}
),

adjusted as (
    select
        *,
        lag(adjusted_close) over weeks_of_ticker as previous_adjusted_close,
        row_number() over weeks_of_ticker as weeks_so_far
    from scaled
    window weeks_of_ticker as (partition by ticker order by week_start)
),

windowed as (
    select
        ticker,
        week_start,
        session_date,
        adjusted_open,
        adjusted_high,
        adjusted_low,
        adjusted_close,
        volume,
        dividend_amount,
        adjusted_close / nullif(previous_adjusted_close, 0) - 1 as simple_return_1w,
        case when weeks_so_far >= 4 then avg(adjusted_close) over last_4_weeks end as sma_4w,
        case when weeks_so_far >= 13 then avg(adjusted_close) over last_13_weeks end as sma_13w,
        case when weeks_so_far >= 26 then avg(adjusted_close) over last_26_weeks end as sma_26w,
        case when weeks_so_far >= 52 then avg(adjusted_close) over last_52_weeks end as sma_52w,
        case when weeks_so_far >= 52 then max(adjusted_close) over last_52_weeks end as high_52w,
        case when weeks_so_far >= 52 then min(adjusted_close) over last_52_weeks end as low_52w,
        is_complete,
        is_new
    from adjusted
    window
        last_4_weeks as (partition by ticker order by week_start rows 3 preceding),
        last_13_weeks as (partition by ticker order by week_start rows 12 preceding),
        last_26_weeks as (partition by ticker order by week_start rows 25 preceding),
        last_52_weeks as (partition by ticker order by week_start rows 51 preceding)
),

final as (
    select
        ticker,
        week_start,
        session_date,
        adjusted_open,
        adjusted_high,
        adjusted_low,
        adjusted_close,
        volume,
        dividend_amount,
        simple_return_1w,
        sma_4w,
        sma_13w,
        sma_26w,
        sma_52w,
        high_52w,
        low_52w,
        is_complete
    from windowed
    where is_new
)

select * from final

{#- Whether a ticker trades by New York's calendar: three letters after a dot name an exchange elsewhere. -#}
{% macro is_of_new_york(ticker) -%} {{ ticker }} !~ '\.[A-Z]{3}$' {%- endmacro %}


{#-
    The query of int_weekly_series and int_monthly_series: bars of `unit`s from the daily bars where these
    have all of the period, else the vendor's own, else, with `weeks`, those that the weeks of a month make.
    `windows` are the lengths of the averages; the kept rows that they need are the longest less one.

    Each security is a series of its own. Its total return index goes on, from the row before, by what is
    known most exactly: the returns of the days or weeks themselves where they begin at the close of the
    row before, the vendor's adjusted closes where both rows have one, else closes and actions.
-#}
{% macro period_series(unit, windows, vendor, weeks=none, range_of=none) %}
{%- set key = unit ~ '_start' -%}
{%- set letter = unit[0] -%}
with

vendor_bars as (
    select
        *,
        {{ key }} as period_start
    from {{ changed_rows(vendor, period=key) }} as bars
),

prices as (
    select
        *,
        simple_return_1d + 1 as growth,
        false as scale_is_doubtful
    from {{ changed_rows(ref('fct_daily_prices'), after=end_of_kept(unit)) }} as prices
),

daily_bars as (
    {{ roll_up('prices', "date_trunc('" ~ unit ~ "', session_date)::date") }}
),

{% if weeks -%}
-- A week belongs, as a whole, to the month of its last session, so it never changes its month while it runs.
weeks_with_months as (
    select
        weeks.*,
        coalesce(week_ends.month_start, date_trunc('month', weeks.session_date)::date) as month_of_week
    from {{ changed_rows(weeks, period='week_start', after=week_before_month_after_kept()) }} as weeks
    left join (
        select week_start, month_start
        from {{ ref('dim_date') }}
        where is_last_session_of_week
    ) as week_ends
        on weeks.week_start = week_ends.week_start
    {% if is_incremental() -%}
    where exists (
        select 1
        from {{ changes() }} as changes
        where
            changes.ticker = weeks.ticker
            and coalesce(week_ends.month_start, date_trunc('month', weeks.session_date)::date)
            > coalesce(changes.kept_through, '-infinity')
    )
    {%- endif %}
),

-- Weeks that are all made of days say no more than these, and less of the month's first and last ones.
weeks_of_months as (
    select *
    from (
        select
            *,
            bool_or(source = 'weekly') over (partition by ticker, security_key, month_of_week) as says_more_than_days
        from weeks_with_months
    ) as judged
    where says_more_than_days
),

weekly_bars as (
    {{ roll_up('weeks_of_months', 'month_of_week') }}
),
{%- endif %}

actions as (
    select
        *,
        date_trunc('{{ unit }}', ex_date)::date as period_start
    from {{ changed_rows(ref('fct_corporate_actions'), period='ex_date', after=end_of_kept(unit)) }} as actions
),

sessions as (
    select
        date_day,
        {{ key }} as period_start,
        row_number() over (partition by {{ key }} order by date_day) as number_in_period,
        min(date_day) over (partition by {{ key }}) as first_session,
        max(date_day) over (partition by {{ key }}) as last_session
    from {{ ref('dim_date') }}
    where is_session
),

calendar as (
    select distinct
        period_start,
        first_session,
        last_session
    from sessions
),

known_actions as (
    select
        vendor_bars.ticker,
        vendor_bars.security_key,
        vendor_bars.period_start,
        sum(actions.dividend_amount order by actions.ex_date) as dividend_amount,
        gold.product(actions.split_ratio order by actions.ex_date) as split_ratio,
        bool_or(
            actions.split_ratio <> 1
            and actions.ex_date > coalesce(calendar.first_session, vendor_bars.period_start)
        ) as has_split_inside
    from vendor_bars
    inner join actions
        on
            vendor_bars.ticker = actions.ticker
            and vendor_bars.security_key = actions.security_key
            and vendor_bars.period_start = actions.period_start
            and vendor_bars.session_date >= actions.ex_date
    left join calendar on vendor_bars.period_start = calendar.period_start
    group by vendor_bars.ticker, vendor_bars.security_key, vendor_bars.period_start
),

{% if weeks -%}
ends_of_weeks as (
    select
        month_start as period_start,
        max(date_day) as last_session
    from {{ ref('dim_date') }}
    where is_last_session_of_week
    group by month_start
),
{%- endif %}

found as (
    select
        ticker,
        security_key,
        period_start
    from vendor_bars
    union
    select
        ticker,
        security_key,
        period_start
    from daily_bars
    {% if weeks -%}
    union
    select
        ticker,
        security_key,
        period_start
    from weekly_bars
    {%- endif %}
),

-- Daily bars have all of a period when none of its sessions is missing up to their last one, and the other
-- bars go no further. Where these end earlier, and daily bars began before the period, a session that is
-- missing says less than those that follow. Where there are no others, daily bars are what there is.
chosen as (
    select
        found.ticker,
        found.security_key,
        found.period_start,
        case
            when
                daily_bars.session_date >= coalesce(vendor_bars.session_date {%- if weeks %}, weekly_bars.session_date {%- endif %}, '-infinity')
                and (
                    coalesce(vendor_bars.session_date {%- if weeks %}, weekly_bars.session_date {%- endif %}) is null
                    or daily_bars.row_count >= sessions.number_in_period
                    or (
                        daily_bars.session_date > coalesce(vendor_bars.session_date {%- if weeks %}, weekly_bars.session_date {%- endif %})
                        and daily_bars.previous_session is not null
                    )
                )
                then 'daily'
            when vendor_bars.session_date is not null then '{{ unit }}ly'
            {% if weeks -%}
            when weekly_bars.session_date is not null then 'weekly'
            {% endif -%}
            else 'daily'
        end as source
    from found
    left join daily_bars using (ticker, security_key, period_start)
    left join vendor_bars using (ticker, security_key, period_start)
    {% if weeks -%}
    left join weekly_bars using (ticker, security_key, period_start)
    {% endif -%}
    left join sessions on daily_bars.session_date = sessions.date_day
),

bars as (
    select
        daily_bars.*,
        'daily' as source,
        vendor_bars.adjusted_close as vendor_adjusted_close,
        vendor_bars.session_date as vendor_session,
        null::boolean as is_over
    from chosen
    inner join daily_bars using (ticker, security_key, period_start)
    left join vendor_bars using (ticker, security_key, period_start)
    where chosen.source = 'daily'
    union all
    select
        vendor_bars.ticker,
        vendor_bars.security_key,
        period_start,
        null,
        vendor_bars.session_date,
        null,
        null,
        -- The vendor's bar of a period with a split inside has prices and shares of both scales.
        case when not split_inside then vendor_bars.open end,
        case when not split_inside then vendor_bars.high end,
        case when not split_inside then vendor_bars.low end,
        vendor_bars.close,
        case when not split_inside then vendor_bars.volume end,
        coalesce(known_actions.dividend_amount, vendor_bars.dividend_amount),
        coalesce(known_actions.split_ratio, 1),
        null,
        null,
        chosen.source,
        vendor_bars.adjusted_close,
        vendor_bars.session_date,
        vendor_bars.is_complete
    from chosen
    inner join vendor_bars using (ticker, security_key, period_start)
    left join known_actions using (ticker, security_key, period_start)
    cross join lateral (select coalesce(known_actions.has_split_inside, false) as split_inside) as judged
    where chosen.source = '{{ unit }}ly'
    {% if weeks -%}
    union all
    select
        weekly_bars.*,
        chosen.source,
        null,
        null,
        null
    from chosen
    inner join weekly_bars using (ticker, security_key, period_start)
    where chosen.source = 'weekly'
    {% endif %}
),

series as (
    select
        security_key,
        ticker,
        period_start,
        source,
        session_date,
        previous_session as begins_after,
        open,
        high,
        low,
        close,
        volume,
        dividend_amount,
        split_ratio,
        growth as own_growth,
        case when vendor_session = session_date then vendor_adjusted_close end as vendor_adjusted_close,
        coalesce(scale_is_doubtful, false) as scale_is_doubtful,
        is_over,
        null::double precision as kept_split_index,
        null::double precision as kept_return_index,
        1 as {{ unit }}_number,
        true as is_new,
        true as is_step
    from bars
    {% if is_incremental() %}
    union all
    select
        security_key,
        ticker,
        {{ key }},
        source,
        session_date,
        null,
        open,
        high,
        low,
        close,
        volume,
        dividend_amount,
        split_ratio,
        null,
        vendor_adjusted_close,
        scale_is_doubtful,
        null,
        split_index,
        total_return_index,
        {{ unit }}_number,
        false,
        row_number() over (partition by ticker order by {{ key }} desc, session_date desc) = 1
    from {{ kept_rows(windows[-1] - 1) }} as kept
    {% endif %}
),

in_order as (
    select
        *,
        lag(session_date) over history as previous_session,
        lag(close) over history as previous_close,
        -- Of a close that is printed as zero nothing is left to say how much it moved.
        nullif(vendor_adjusted_close, 0) / nullif(lag(vendor_adjusted_close) over history, 0) as vendor_growth
    from series
    window history as (partition by ticker, security_key order by period_start)
),

known as (
    select
        *,
        split_ratio * (close + dividend_amount) / nullif(previous_close, 0) as known_growth
    from in_order
),

grown as (
    select
        *,
        case
            when previous_session is null then null
            when begins_after = previous_session then own_growth
            else coalesce(vendor_growth, known_growth)
        end as growth,
        -- A step that no known split explains: prices before it are of another scale.
        scale_is_doubtful
        or (
            is_new
            and begins_after is distinct from previous_session
            and coalesce(abs(vendor_growth / known_growth - 1) > 0.2, false)
        ) as scale_may_change
    from known
),

stepped as (
    select
        *,
        gold.product(coalesce(kept_split_index, split_ratio)) over history as split_index,
        gold.product(coalesce(kept_return_index, growth, 1)) over history as total_return_index,
        sum({{ unit }}_number) over history as {{ unit }}s_so_far
    from grown
    where is_step
    window history as (partition by ticker, security_key order by period_start)
),

chained as (
    select
        security_key,
        ticker,
        period_start,
        source,
        session_date,
        previous_session,
        open,
        high,
        low,
        close,
        volume,
        dividend_amount,
        split_ratio,
        vendor_adjusted_close,
        previous_close,
        vendor_growth,
        begins_after = previous_session as growth_is_exact,
        growth,
        scale_may_change,
        is_over,
        split_index,
        total_return_index,
        {{ unit }}s_so_far::integer as {{ unit }}_number,
        is_new
    from stepped
    {% if is_incremental() %}
    union all
    select
        security_key,
        ticker,
        period_start,
        source,
        session_date,
        previous_session,
        open,
        high,
        low,
        close,
        volume,
        dividend_amount,
        split_ratio,
        vendor_adjusted_close,
        null,
        null,
        null,
        null,
        scale_is_doubtful,
        null,
        kept_split_index,
        kept_return_index,
        {{ unit }}_number,
        false
    from grown
    where not is_step
    {% endif %}
),

windowed as (
    select
        *,
        {% for length in windows -%}
        case
            when {{ unit }}_number >= {{ length }}
                then avg(total_return_index) over (history rows {{ length - 1 }} preceding)
        end as sma_{{ length }}{{ letter }},
        {% endfor -%}
        {% if range_of -%}
        {{ unit }}_number >= {{ range_of }}
        and bool_and(high is not null and low is not null and not scale_may_change)
            over (history rows {{ range_of - 1 }} preceding) as range_is_known,
        max(high * split_index) over (history rows {{ range_of - 1 }} preceding) as high_{{ range_of }},
        min(low * split_index) over (history rows {{ range_of - 1 }} preceding) as low_{{ range_of }},
        {% endif -%}
        is_new as is_wanted
    from chained
    window history as (partition by ticker, security_key order by period_start)
),

final as (
    select
        windowed.security_key,
        windowed.ticker,
        windowed.period_start as {{ key }},
        windowed.source,
        windowed.session_date,
        windowed.previous_session,
        windowed.open,
        windowed.high,
        windowed.low,
        windowed.close,
        windowed.volume,
        windowed.dividend_amount,
        windowed.split_ratio,
        windowed.vendor_adjusted_close,
        windowed.previous_close,
        windowed.vendor_growth,
        coalesce(windowed.growth_is_exact, false) as growth_is_exact,
        windowed.growth,
        windowed.scale_may_change as scale_is_doubtful,
        windowed.split_index,
        windowed.total_return_index,
        windowed.{{ unit }}_number,
        {% for length in windows -%}
        windowed.sma_{{ length }}{{ letter }},
        {% endfor -%}
        {% if range_of -%}
        case when windowed.range_is_known then windowed.high_{{ range_of }} end as high_{{ range_of }}{{ letter }},
        case when windowed.range_is_known then windowed.low_{{ range_of }} end as low_{{ range_of }}{{ letter }},
        {% endif -%}
        -- Of the vendor's bar, silver knows. The calendar is New York's: elsewhere, the bar that follows tells.
        coalesce(
            windowed.is_over,
            windowed.session_date >= {% if weeks -%}
            case when windowed.source = 'weekly' then ends_of_weeks.last_session else calendar.last_session end
            {%- else -%} calendar.last_session {%- endif %}
            and {{ is_of_new_york('windowed.ticker') }},
            false
        ) as is_complete
    from windowed
    left join calendar on windowed.period_start = calendar.period_start
    {% if weeks -%}
    left join ends_of_weeks on windowed.period_start = ends_of_weeks.period_start
    {% endif -%}
    where windowed.is_wanted
)

select * from final
{% endmacro %}

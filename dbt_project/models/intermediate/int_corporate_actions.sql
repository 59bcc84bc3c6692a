{#- Where the daily bars tell of an action that a list has under another date, it is one action. -#}
{% set days_apart = 4 %}

with

actions as (
    select
        *,
        coalesce(dividend_amount, split_ratio) as amount,
        bronze_key like 'bronze/daily_bars/%' as is_told_by_bars
    from {{ ref('stg_corporate_actions') }}
),

placed as (
    select
        actions.*,
        next_bar.session_date as next_session
    from actions
    left join lateral (
        select bars.session_date
        from {{ ref('stg_daily_bars') }} as bars
        where
            bars.ticker = actions.ticker
            and bars.session_date >= actions.ex_date
        order by bars.session_date
        limit 1
    ) as next_bar on true
),

final as (
    select
        ticker,
        ex_date,
        action_type,
        dividend_amount,
        split_ratio,
        declaration_date,
        record_date,
        payment_date,
        -- Without a bar before it, in the same security, an action says nothing of what is stored.
        case
            when
                next_session = ex_date
                or exists (
                    select 1
                    from (
                        select bars.session_date
                        from {{ ref('stg_daily_bars') }} as bars
                        where
                            bars.ticker = placed.ticker
                            and bars.session_date < placed.ex_date
                        order by bars.session_date desc
                        limit 1
                    ) as last_bar
                    where not exists (
                        select 1
                        from {{ ref('int_reused_tickers') }} as reused
                        where
                            reused.ticker = placed.ticker
                            and reused.valid_from > last_bar.session_date
                            and reused.valid_from <= placed.next_session
                    )
                )
                then next_session
        end as session_date,
        row_version,
        bronze_key
    from placed
    where
        is_told_by_bars
        or not exists (
            select 1
            from {{ ref('stg_corporate_actions') }} as told
            where
                told.ticker = placed.ticker
                and told.action_type = placed.action_type
                and told.ex_date between placed.ex_date - {{ days_apart }}
                    and greatest(placed.ex_date + {{ days_apart }}, placed.next_session)
                and (
                    told.ex_date <= placed.ex_date + {{ days_apart }}
                    or told.ex_date = placed.next_session
                )
                and told.ex_date <> placed.ex_date
                and told.bronze_key like 'bronze/daily_bars/%'
                and abs(coalesce(told.dividend_amount, told.split_ratio) - placed.amount) <= 0.0001
        )
)

select * from final

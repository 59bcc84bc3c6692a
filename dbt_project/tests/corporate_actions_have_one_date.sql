{{
    config(
        severity='warn',
        tags=['per_ticker'],
        meta={'dagster': {'ref': {'name': 'fct_corporate_actions'}}},
    )
}}

-- An action that a list has under another date than the daily bars counts on that of the bars alone.
select
    listed.ticker,
    listed.ex_date,
    listed.action_type
from {{ ref('stg_corporate_actions') }} as listed
left join {{ ref('fct_corporate_actions') }} as actions
    on
        listed.ticker = actions.ticker
        and listed.ex_date = actions.ex_date
        and listed.action_type = actions.action_type
where actions.ticker is null

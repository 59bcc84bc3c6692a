select bars.ticker, bars.session_date as period, {{ daily_bar_hash('bars') }} as row_hash
from {{ ref('stg_daily_bars') }} as bars
union all
select actions.ticker, actions.session_date, {{ action_hash('actions') }}
from {{ ref('int_corporate_actions') }} as actions
where actions.session_date is not null
union all
select bars.ticker, bars.session_date, {{ security_hash('reused.security_key', 'bars.session_date') }}
from {{ ref('int_reused_tickers') }} as reused
inner join {{ ref('stg_daily_bars') }} as bars
    on
        reused.ticker = bars.ticker
        and bars.session_date between reused.valid_from and reused.valid_to

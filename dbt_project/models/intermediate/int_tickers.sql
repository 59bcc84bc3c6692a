{% set tables = ['stg_companies', 'stg_daily_bars', 'stg_weekly_bars', 'stg_monthly_bars', 'stg_corporate_actions'] -%}
{% for table in tables -%}
select ticker
from ({{ distinct_tickers(ref(table)) }}) as {{ table }}
{{ 'union' if not loop.last }}
{% endfor -%}

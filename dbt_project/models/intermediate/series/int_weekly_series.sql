-- depends_on: {{ ref('fct_weekly_prices') }} {{ ref('fct_daily_prices') }} {{ ref('fct_corporate_actions') }} {{ ref('dim_date') }}
{{ config(
    indexes=[{'columns': ['ticker', 'week_start', 'security_key'], 'unique': true}],
    meta={'period': 'week_start'},
    pre_hook="{{ take_changes_of(
        [ref('fct_weekly_prices'), ref('fct_daily_prices'), ref('fct_corporate_actions'), ref('dim_date')],
        kept={
            'fct_daily_prices': week_before_change(),
            'fct_corporate_actions': week_before_change(),
            'dim_date': week_before_change(),
        },
    ) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

{{ period_series('week', [4, 13, 26, 52], ref('fct_weekly_prices'), range_of=52) }}

-- depends_on: {{ ref('fct_monthly_prices') }} {{ ref('fct_daily_prices') }} {{ ref('fct_corporate_actions') }} {{ ref('dim_date') }}
{{ config(
    indexes=[{'columns': ['ticker', 'month_start', 'security_key'], 'unique': true}],
    meta={'period': 'month_start'},
    pre_hook="{{ take_changes_of(
        [ref('fct_monthly_prices'), ref('fct_daily_prices'), ref('fct_corporate_actions'), ref('int_weekly_series'), ref('dim_date')],
        kept={
            'fct_daily_prices': month_before_change(),
            'fct_corporate_actions': month_before_change(),
            'int_weekly_series': month_before_week(),
            'dim_date': month_before_change(),
        },
    ) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

{{ period_series('month', [3, 6, 12], ref('fct_monthly_prices'), weeks=ref('int_weekly_series')) }}

{#- From the first date to the last no date is missing. -#}
{% test consecutive_dates(model, column_name) %}

with

dates as (
    select
        {{ column_name }} as date_day,
        lag({{ column_name }}) over (order by {{ column_name }}) as previous_day
    from {{ model }}
)

select date_day, previous_day
from dates
where date_day - previous_day <> 1

{% endtest %}

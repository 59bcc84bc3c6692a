{#-
    What a kept period of a parent comes to in a model of longer periods, as SQL on kept_through of
    ops.gold_changes. Where the week or month that a change falls into is not clear, the earlier one
    is built anew.
-#}

{#- The last whole week before a session or date that changed. -#}
{% macro week_before_change() -%}
    date_trunc('week', changes.kept_through + 1)::date - 7
{%- endmacro %}


{#-
    The last month before the one that the last kept week starts in: that week may end in the next
    one, and whether a month is complete shows in the weeks after it.
-#}
{% macro month_before_week() -%}
    (date_trunc('month', changes.kept_through) - interval '1 month')::date
{%- endmacro %}


{#- The last day on which no week of the month after `kept_through` can start. -#}
{% macro week_before_month_after(kept_through) -%}
    ({{ kept_through }} + interval '1 month')::date - 7
{%- endmacro %}

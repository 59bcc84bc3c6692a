{#-
    What a kept period of a parent comes to in a model of longer periods, as SQL on kept_through of
    ops.gold_changes. Where the week or month that a change falls into is not clear, the earlier one
    is built anew.
-#}

{#- The last whole week, or month, before a session or date that changed. -#}
{% macro week_before_change() -%}
    date_trunc('week', changes.kept_through + 1)::date - 7
{%- endmacro %}


{% macro month_before_change() -%}
    (date_trunc('month', changes.kept_through + 1) - interval '1 month')::date
{%- endmacro %}


{#- The last month before the one that the last kept week starts in: that week may end in the next one. -#}
{% macro month_before_week() -%}
    (date_trunc('month', changes.kept_through) - interval '1 month')::date
{%- endmacro %}


{#- The last day of a kept week or month. -#}
{% macro end_of_kept(unit) -%}
    (changes.kept_through + interval '1 {{ unit }}')::date - 1
{%- endmacro %}


{#- The last day on which no week of the month after the last kept one can start. -#}
{% macro week_before_month_after_kept() -%}
    (changes.kept_through + interval '1 month')::date - 7
{%- endmacro %}

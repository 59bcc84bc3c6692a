{#- The expression is true, or unknown for want of a value, in every row. -#}
{% test satisfies(model, expression) %}

select *
from {{ model }}
where not ({{ expression }})

{% endtest %}

{#- The relation lists what is wrong: it is empty. -#}
{% test no_rows(model) %}

select *
from {{ model }}

{% endtest %}

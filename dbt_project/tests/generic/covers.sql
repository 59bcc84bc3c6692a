{#- Every value of `field` in the relation `to` is found here: relationships, seen from the parent's side. -#}
{% test covers(model, column_name, to, field) %}

select children.{{ field }}
from {{ to }} as children
where
    children.{{ field }} is not null
    and not exists (
        select 1
        from {{ model }} as parents
        where parents.{{ column_name }} = children.{{ field }}
    )

{% endtest %}

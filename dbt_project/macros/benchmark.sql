{#- A query for the ticker that betas are measured against; no row where none of them is stored. -#}
{% macro benchmark() -%}
    select benchmark.ticker from {{ ref('int_benchmark') }} as benchmark
{%- endmacro %}

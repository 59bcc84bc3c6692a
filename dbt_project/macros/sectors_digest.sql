{#- A query for one text that changes when a company changes its sector. -#}
{% macro sectors_digest() -%}
    select md5(string_agg(concat_ws('|', companies.ticker, companies.sector, companies.asset_type), ',' order by companies.ticker))
    from {{ ref('dim_company') }} as companies
{%- endmacro %}

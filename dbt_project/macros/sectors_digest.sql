{#- A query for one text that changes when a company changes its sector, or a ticker its security. -#}
{% macro sectors_digest() -%}
    select md5(string_agg(
        concat_ws('|', companies.ticker, companies.sector, companies.asset_type, securities.security_key),
        ',' order by companies.ticker
    ))
    from {{ ref('dim_company') }} as companies
    left join {{ ref('dim_security') }} as securities
        on
            companies.ticker = securities.ticker
            and securities.is_current
{%- endmacro %}

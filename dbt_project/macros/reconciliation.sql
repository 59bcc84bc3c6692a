{#- Half a unit of the last decimal that the vendor prints, as an aggregate over some of its values. -#}
{% macro half_a_printed_unit(column) -%}
    0.5 * 10.0::double precision ^ -max(scale({{ column }}::text::numeric))
{%- endmacro %}


{#- What explains a step of the vendor's adjusted closes that is not between the `lowest` and `highest` of ours. -#}
{% macro finding_of_step(lowest, highest) -%}
    case
        when abs(close / previous_close - vendor_growth) <= tolerance then 'action unknown to the vendor'
        when vendor_growth > {{ highest }} * 1.2 or vendor_growth < {{ lowest }} * 0.8 then 'split missing or wrong'
        when vendor_growth > {{ highest }} then 'dividend missing or too small'
        else 'dividend too large'
    end
{%- endmacro %}

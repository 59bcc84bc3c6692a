{#-
    What tells one state of a row from another, in 64 bits. Hashes of all that a series has up to a
    period, taken together with `bit_xor`, tell its history: equal hashes, equal rows.
-#}
{% macro bar_hash(bars, period) -%}
    hashtextextended({{ bars }}.bronze_key, hashint8extended({{ bars }}.row_version, {{ bars }}.{{ period }} - date '2000-01-01'))
{%- endmacro %}


{#-
    Of a daily bar, without what a payload that says nothing new of it changes: the vendor's adjusted
    close, which each dividend and split restates for the whole history, and the object.
-#}
{% macro daily_bar_hash(bars) -%}
    hashfloat8extended({{ bars }}.open,
        hashfloat8extended({{ bars }}.high,
        hashfloat8extended({{ bars }}.low,
        hashfloat8extended({{ bars }}.close,
        hashfloat8extended(coalesce({{ bars }}.dividend_amount, -1),
        hashfloat8extended(coalesce({{ bars }}.split_coefficient, -1),
        hashint8extended({{ bars }}.volume, {{ bars }}.session_date - date '2000-01-01')))))))
{%- endmacro %}


{% macro action_hash(actions) -%}
    hashtextextended({{ actions }}.action_type, hashint8extended({{ actions }}.row_version, {{ actions }}.ex_date - date '2000-01-01'))
{%- endmacro %}


{% macro security_hash(security_key, period) -%}
    hashint8extended({{ security_key }}, {{ period }} - date '2000-01-01')
{%- endmacro %}


{#- The surrogate key of a security: the same on every server and for good. -#}
{% macro security_key(ticker, valid_from) -%}
    ('x' || left(md5({{ ticker }} || '|' || {{ valid_from }}), 16))::bit(64)::bigint
{%- endmacro %}


{#- The key of the first security that had the ticker; no other one needs the listings. -#}
{% macro first_security_key(ticker) -%}
    {{ security_key(ticker, "'1900-01-01'") }}
{%- endmacro %}

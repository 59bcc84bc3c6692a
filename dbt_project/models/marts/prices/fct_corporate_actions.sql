-- depends_on: {{ ref('stg_corporate_actions') }}
{{ config(
    meta={'period': 'ex_date'},
    pre_hook="{{ compare_with_silver(corporate_action_hashes(), source=ref('stg_corporate_actions')) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

actions as (
    select * from {{ changed_rows(ref('int_corporate_actions'), period='ex_date') }} as actions
),

reused as (
    select * from {{ ref('int_reused_tickers') }}
),

steps as (
    select
        coalesce(reused.security_key, {{ first_security_key('actions.ticker') }}) as security_key,
        actions.ticker,
        actions.ex_date,
        actions.action_type,
        actions.dividend_amount,
        actions.split_ratio,
        actions.declaration_date,
        actions.record_date,
        actions.payment_date,
        actions.bronze_key,
        {{ corporate_action_hash('actions', 'reused') }} as row_hash,
        true as is_new
    from actions
    left join reused
        on
            actions.ticker = reused.ticker
            and actions.ex_date between reused.valid_from and reused.valid_to
    {% if is_incremental() %}
    union all
    select
        security_key,
        ticker,
        ex_date,
        action_type,
        dividend_amount,
        split_ratio,
        declaration_date,
        record_date,
        payment_date,
        bronze_key,
        history_hash,
        false
    from {{ kept_rows(1) }} as kept
    {% endif %}
),

-- Both actions of a date have the hash of the whole date: the frame takes peers together.
chained as (
    select
        *,
        bit_xor(row_hash) over (partition by ticker order by ex_date) as history_hash
    from steps
),

final as (
    select
        security_key,
        ticker,
        ex_date,
        action_type,
        dividend_amount,
        split_ratio,
        declaration_date,
        record_date,
        payment_date,
        history_hash,
        bronze_key
    from chained
    where is_new
)

select * from final

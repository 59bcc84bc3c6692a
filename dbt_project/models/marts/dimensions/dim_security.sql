with

listed as (
    select * from {{ ref('int_securities') }}
),

unlisted as (
    select tickers.ticker
    from {{ ref('int_tickers') }} as tickers
    where not exists (
        select 1
        from listed
        where listed.ticker = tickers.ticker
    )
),

final as (
    select
        security_key,
        ticker,
        valid_from,
        valid_to,
        valid_to = '9999-12-31' as is_current,
        company_name as security_name,
        exchange,
        asset_type,
        listed_on,
        delisted_on,
        status,
        bronze_key
    from listed
    union all
    select
        {{ first_security_key('ticker') }},
        ticker,
        date '1900-01-01',
        date '9999-12-31',
        true,
        null,
        null,
        null,
        null,
        null,
        'unknown',
        null
    from unlisted
)

select * from final

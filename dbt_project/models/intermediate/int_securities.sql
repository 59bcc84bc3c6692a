with

-- A security that one list has as delisted and the other as active is listed, as for the planner.
listings as (
    select distinct on (ticker, coalesce(listed_on, delisted_on))
        *
    from {{ ref('stg_listings') }}
    order by ticker, coalesce(listed_on, delisted_on), delisted_on desc
),

in_order as (
    select
        *,
        lag(delisted_on) over (partition by ticker order by delisted_on) as previous_delisted_on
    from listings
),

-- Of listings that contradict one another, two may begin on the same day.
starts as (
    select distinct on (ticker, valid_from)
        *
    from (
        select
            *,
            case
                when previous_delisted_on is null then date '1900-01-01'
                else greatest(listed_on, previous_delisted_on + 1)
            end as valid_from
        from in_order
    ) as dated
    order by ticker, valid_from, delisted_on desc
),

final as (
    select
        {{ security_key('ticker', "to_char(valid_from, 'YYYY-MM-DD')") }} as security_key,
        ticker,
        valid_from,
        coalesce(lead(valid_from) over (partition by ticker order by valid_from) - 1, date '9999-12-31') as valid_to,
        company_name,
        exchange,
        asset_type,
        listed_on,
        nullif(delisted_on, date '9999-12-31') as delisted_on,
        status,
        bronze_key
    from starts
)

select * from final

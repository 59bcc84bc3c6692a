with

companies as (
    select * from {{ ref('stg_companies') }}
),

tickers as (
    select * from {{ ref('int_tickers') }}
),

final as (
    select
        tickers.ticker,
        coalesce(companies.company_name, tickers.ticker) as company_name,
        companies.ticker is not null as has_profile,
        companies.description,
        companies.asset_type,
        companies.exchange,
        companies.currency,
        companies.country,
        companies.sector,
        companies.industry,
        companies.cik,
        companies.official_site,
        companies.fiscal_year_end,
        companies.latest_quarter,
        companies.market_capitalization,
        companies.shares_outstanding,
        companies.revenue_ttm,
        companies.ebitda,
        companies.eps,
        companies.pe_ratio,
        companies.book_value,
        companies.dividend_per_share,
        companies.dividend_yield,
        companies.profit_margin,
        companies.beta,
        companies.dividend_date,
        companies.ex_dividend_date,
        companies.bronze_key
    from tickers
    left join companies on tickers.ticker = companies.ticker
)

select * from final

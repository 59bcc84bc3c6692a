{#-
    How models are incremental: a series is a sequence of rows of a ticker in the order of its
    `period` column, in which no row depends on a later one. So a refresh has to find, for each
    ticker, how far what is stored still holds (`kept_through`, null for not at all), and build the
    rows after it anew; for a new session those are one row, for a restated history all of them.

    - A model that reads silver compares with silver: `compare_with_silver`.
    - A model that reads other models reads of them in ops.gold_changes: `take_changes_of`.
    - Either way the pre-hook leaves the answer in a temporary table, `changes()`, the model selects
      `changed_rows` of its parents, the strategy `replace_changed` puts them in, and the post-hook
      `pass_changes_on` notes them for the models below. All of it is one transaction, so a run that
      is killed leaves nothing that the next one takes for done.
-#}

{% macro make_change_log() %}
    create table if not exists ops.gold_changes (
        change_id bigint generated always as identity primary key,
        model text not null,
        ticker text,
        kept_through date,
        run_id text not null,
        changed_at timestamptz not null default now()
    );
    comment on table ops.gold_changes is
        'One row per model, ticker and run that changed it: the period up to which rows stayed. No ticker: all.';
    create table if not exists ops.gold_offsets (
        model text primary key,
        change_id bigint not null,
        run_id text not null,
        depends_on text
    );
    comment on table ops.gold_offsets is
        'One row per model: the newest change that it knows of, and what else its rows depend on.';
    create table if not exists ops.gold_passed_tests (
        test text primary key,
        change_id bigint not null
    );
    comment on table ops.gold_passed_tests is
        'One row per dbt test that passed when it was last run, and the newest change that it looked at.';
    delete from ops.gold_changes
    where
        changed_at < now() - interval '1 day'
        and change_id <= (select min(offsets.change_id) from ops.gold_offsets as offsets)
        and not exists (
            select 1
            from ops.gold_passed_tests as tests
            where tests.change_id < gold_changes.change_id
        );
{% endmacro %}


{% macro changes() -%} pg_temp.changes_of_{{ this.identifier }} {%- endmacro %}


{% macro period_of(node) -%} {{ node.config.meta.period }} {%- endmacro %}


{#- All of the model is built, whatever was there. -#}
{% macro note_all_changed() %}
    create temporary table changes_of_{{ this.identifier }} on commit drop as
    select null::text as ticker, null::date as kept_through
{% endmacro %}


{#-
    Changes of the batch's tickers, and of those that became another security, between silver and this
    model. `hashes` is a relation of ticker, period and row_hash, whose `bit_xor` up to a period is the
    model's history_hash there; `source` is what tells the tickers of silver. Tickers are looked up one
    by one: that is one way through the index of silver for a batch of one and of all, whatever the
    statistics make the planner think.
-#}
{% macro compare_with_silver(hashes, source, period=none) %}
{%- if not is_incremental() -%}
    {{ note_all_changed() }}
{%- else -%}
    {%- set period = period or period_of(model) -%}
    {%- set is_of_batch = batch_is_set() and not run_query(
        'select exists (select from (' ~ news_of([ref('int_reused_tickers')]) ~ ') as news where ticker is null)'
    ).rows[0][0] -%}
    create temporary table changes_of_{{ this.identifier }} on commit drop as
    with

    tickers as (
        {% if is_of_batch -%}
        select batches.ticker
        from ops.batches
        where batches.batch_id = current_setting('stocks.batch_id', true)
        union
        select news.ticker from ({{ news_of([ref('int_reused_tickers')]) }}) as news
        {%- else -%}
        ({{ distinct_tickers(source) }})
        union
        ({{ distinct_tickers(this) }})
        {%- endif %}
    ),

    compared as materialized (
        select
            tickers.ticker,
            stored.last_period as stored_period,
            present.last_period as present_period,
            coalesce(present.history_hash = stored.history_hash, false) as is_unchanged
        from tickers
        left join lateral (
            select
                rows_stored.{{ period }} as last_period,
                rows_stored.history_hash
            from {{ this }} as rows_stored
            where rows_stored.ticker = tickers.ticker
            order by rows_stored.{{ period }} desc
            limit 1
        ) as stored on true
        cross join lateral (
            select
                bit_xor(hashes.row_hash) filter (where hashes.period <= stored.last_period) as history_hash,
                max(hashes.period) as last_period
            from {{ hashes }} as hashes
            where hashes.ticker = tickers.ticker
        ) as present
    ),

    differing as (
        select
            compared.ticker,
            case when compared.is_unchanged then compared.stored_period else still_true.period end as kept_through
        from compared
        cross join lateral (
            select max(rows_stored.{{ period }}) as period
            from (
                select
                    hashes.period,
                    bit_xor(bit_xor(hashes.row_hash)) over (order by hashes.period) as history_hash
                from {{ hashes }} as hashes
                where hashes.ticker = compared.ticker
                group by hashes.period
            ) as histories
            inner join {{ this }} as rows_stored
                on
                    histories.period = rows_stored.{{ period }}
                    and histories.history_hash = rows_stored.history_hash
            where
                rows_stored.ticker = compared.ticker
                and not compared.is_unchanged
                and compared.stored_period is not null
        ) as still_true
        where
            (not compared.is_unchanged or compared.present_period > compared.stored_period)
            and (compared.stored_period is not null or compared.present_period is not null)
    )

    select * from differing;

    analyze changes_of_{{ this.identifier }}
{%- endif -%}
{% endmacro %}


{#- A query for what the models `upstream` noted since this one last took it. -#}
{% macro news_of(upstream) -%}
    select
        changes.model,
        changes.ticker,
        changes.kept_through
    from ops.gold_changes as changes
    where
        changes.model in ({% for relation in upstream %}'{{ relation.identifier }}'{{ ', ' if not loop.last }}{% endfor %})
        and changes.change_id > (
            select coalesce(max(offsets.change_id), -1)
            from ops.gold_offsets as offsets
            where offsets.model = '{{ this.identifier }}'
        )
{%- endmacro %}


{#-
    Changes that the models `upstream` passed on since this model last took them. `kept` tells, by
    the name of such a model, which period of this one its kept_through comes to, where they differ.
    With `for_all`, a query for one ticker, a change of that ticker is one of every ticker from the
    same period on; when it names another ticker than last time, all is built anew. A model with a row
    for each session of the first of `upstream` has its rows held against that one's. One that is
    `on_last_scale` has prices on the scale of the security's last session, by its split_factor: with a new
    split nothing of the ticker is kept.
-#}
{% macro take_changes_of(upstream, kept={}, for_all=none, is_by_session=none, on_last_scale=false) %}
{%- if not is_incremental() -%}
    {{ note_all_changed() }}
{%- else -%}
    {%- set period = model.config.meta.get('period') -%}
    {%- set is_by_session = period == 'session_date' if is_by_session is none else is_by_session -%}
    {%- set tickers = '(' ~ distinct_tickers(upstream[0]) ~ ') union (' ~ distinct_tickers(this) ~ ')' -%}
    create temporary table changes_of_{{ this.identifier }} on commit drop as
    with

    taken as (
        select
            coalesce(max(offsets.change_id), -1) as change_id,
            max(offsets.depends_on) as depends_on
        from ops.gold_offsets as offsets
        where offsets.model = '{{ this.identifier }}'
    ),

    news as (
        select
            changes.ticker,
            {% if kept -%}
            case changes.model
                {% for name, expression in kept.items() -%}
                when '{{ name }}' then {{ expression }}
                {% endfor -%}
                else changes.kept_through
            end as kept_through
            {%- else -%}
            changes.kept_through
            {%- endif %}
        from ({{ news_of(upstream) }}) as changes
        union all
        select null, null
        from taken
        where
            taken.change_id < 0
            {% if for_all -%}
            or taken.depends_on is distinct from ({{ for_all }})
            {%- endif %}
    ),

    spread as (
        select
            news.ticker,
            news.kept_through
        from news
        where news.ticker is not null
        union all
        select
            tickers.ticker,
            news.kept_through
        from news
        cross join ({{ tickers }}) as tickers
        where
            {% if for_all -%}
            (news.ticker is null or news.ticker = ({{ for_all }}))
            {%- else -%}
            news.ticker is null
            {%- endif %}
            {% if period -%}
            and (
                news.kept_through is null
                or exists (
                    select 1
                    from {{ this }} as rows_stored
                    where
                        rows_stored.ticker = tickers.ticker
                        and rows_stored.{{ period }} > news.kept_through
                )
            )
            {%- endif %}
    ),

    earliest as (
        select
            ticker,
            nullif(min(coalesce(kept_through, '-infinity')), '-infinity') as kept_through
        from spread
        group by ticker
    )

    select
        earliest.ticker,
        {% if is_by_session -%}
        -- A history that is not the one above was not left by a run: nothing of it is kept.
        case
            when
                (here.session_date, here.security_key, here.session_number)
                = (above.session_date, above.security_key, above.session_number)
                {% if on_last_scale -%}
                and here.split_factor = (
                    select coalesce(gold.product(later.split_ratio order by later.session_date desc), 1)
                    from {{ upstream[0] }} as later
                    where
                        later.ticker = here.ticker
                        and later.security_key = here.security_key
                        and later.session_date > here.session_date
                )
                {%- endif %}
                then earliest.kept_through
        end as kept_through
        {%- else -%}
        earliest.kept_through
        {%- endif %}
    from earliest
    {% if is_by_session -%}
    {% for name, relation in [('here', this), ('above', upstream[0])] -%}
    left join lateral (
        select *
        from {{ relation }} as rows_stored
        where rows_stored.ticker = earliest.ticker and rows_stored.{{ period }} <= earliest.kept_through
        order by rows_stored.{{ period }} desc
        limit 1
    ) as {{ name }} on true
    {% endfor %}
    {%- endif -%}
    ;

    analyze changes_of_{{ this.identifier }}
{%- endif -%}
{% endmacro %}


{#- Note what changed for the models below, and that all that was to be known is in the rows now. -#}
{% macro pass_changes_on(depends_on='null') %}
    insert into ops.gold_changes (model, ticker, kept_through, run_id)
    select '{{ this.identifier }}', changes.ticker, changes.kept_through, '{{ invocation_id }}'
    from pg_temp.changes_of_{{ this.identifier }} as changes;

    insert into ops.gold_offsets (model, change_id, run_id, depends_on)
    select
        '{{ this.identifier }}',
        coalesce((select max(changes.change_id) from ops.gold_changes as changes), 0),
        '{{ invocation_id }}',
        ({{ depends_on }})
    on conflict (model) do update
    set change_id = excluded.change_id, run_id = excluded.run_id, depends_on = excluded.depends_on;

    {%- if execute and run_query(
        'select exists (select from ' ~ changes() ~ ' where ticker is null and kept_through is null)'
    ).rows[0][0] %}
    -- The models below come before autovacuum would look at the new table.
    analyze {{ this }}
    {%- endif -%}
{% endmacro %}


{#-
    The rows of a parent that this model has to build from: all, or those after what is kept.
    `after` is the last period of the parent that is not needed, where that is another one.
-#}
{% macro changed_rows(relation, period='session_date', after='changes.kept_through') -%}
    {%- if is_incremental() -%}
    (
        select parents.*
        from {{ changes() }} as changes
        cross join lateral (
            select rows_of_parent.*
            from {{ relation }} as rows_of_parent
            where
                rows_of_parent.ticker = changes.ticker
                and rows_of_parent.{{ period }} > coalesce({{ after }}, '-infinity')
            -- Keeps the planner from a join that reads the parent as a whole.
            offset 0
        ) as parents
    )
    {%- else -%}
    {{ relation }}
    {%- endif -%}
{%- endmacro %}


{#- The last `count` rows that this model keeps of each changed ticker, oldest last; incremental runs only. -#}
{% macro kept_rows(count) -%}
    {%- set period = period_of(model) -%}
    (
        select kept.*
        from {{ changes() }} as changes
        cross join lateral (
            select rows_stored.*
            from {{ this }} as rows_stored
            where
                rows_stored.ticker = changes.ticker
                and rows_stored.{{ period }} <= changes.kept_through
            order by rows_stored.{{ period }} desc
            limit {{ count }}
        ) as kept
    )
{%- endmacro %}


{#- Incremental strategy: of each changed ticker the rows after kept_through are replaced. -#}
{% macro get_incremental_replace_changed_sql(arg_dict) %}
    {%- set columns = get_quoted_csv(arg_dict["dest_columns"] | map(attribute="name")) -%}
    {%- set period = model.config.meta.get('period') -%}

    delete from {{ arg_dict["target_relation"] }}
    where
        ctid = any(array(
            select replaced.ctid
            from {{ changes() }} as changes
            cross join lateral (
                select rows_stored.ctid
                from {{ arg_dict["target_relation"] }} as rows_stored
                where
                    rows_stored.ticker = changes.ticker
                    {% if period -%}
                    and rows_stored.{{ period }} > coalesce(changes.kept_through, '-infinity')
                    {%- endif %}
                offset 0
            ) as replaced
        ));

    insert into {{ arg_dict["target_relation"] }} ({{ columns }})
    select {{ columns }}
    from {{ arg_dict["temp_relation"] }}

{% endmacro %}


{#-
    The tickers of a relation that has an index on (ticker, ..), found by jumping from one to the
    next: a `distinct` would read millions of rows for hundreds of tickers.
-#}
{% macro distinct_tickers(relation) -%}
    with recursive jumps as (
        (select rows_of.ticker from {{ relation }} as rows_of order by rows_of.ticker limit 1)
        union all
        select (
            select rows_of.ticker
            from {{ relation }} as rows_of
            where rows_of.ticker > jumps.ticker
            order by rows_of.ticker
            limit 1
        )
        from jumps
        where jumps.ticker is not null
    )
    select jumps.ticker
    from jumps
    where jumps.ticker is not null
{%- endmacro %}

{#- The database functions that models use, made at the start of every run under dbt's lock. -#}
{% macro make_functions() %}
    create or replace aggregate gold.product(double precision) (
        sfunc = float8mul,
        stype = double precision,
        initcond = '1'
    );
    comment on aggregate gold.product(double precision) is 'Product, in the order of the rows.';

    {{ make_recursive_indicators() }}
{% endmacro %}


{#-
    Indicators whose next value needs their last one, as TA-Lib computes them, in one pass: calls of
    PL/pgSQL are what costs.

    The state is an array: [1] sessions so far, [2] last close, [3] EMA 12, [4] EMA 26, [5] the fast
    EMA of MACD, which TA-Lib seeds together with the slow one, with the closes 15 to 26, [6] MACD's
    signal, [7] average gain and [8] average loss of RSI 14, [9] ATR 14; [10], [11], [12] the totals of
    the last 20, 50 and 200 closes and [13] of the last 20 volumes, which TA-Lib keeps by taking off the
    value that leaves the window before it adds the next. Until an element has the values of its seed it
    holds their sum so far. `seed`, where it is not null, is the state after this row: so a series is
    taken up where it was left. `close_20` is the close of 20 sessions ago, 0 where there is none; the
    others alike.
-#}
{% macro make_recursive_indicators() %}
    create or replace function gold.recursive_indicators_step(
        state double precision[],
        seed double precision[],
        high double precision,
        low double precision,
        close double precision,
        volume double precision,
        close_20 double precision,
        close_50 double precision,
        close_200 double precision,
        volume_20 double precision
    ) returns double precision[]
    language plpgsql immutable parallel safe
    as $body$
    declare
        number integer;
        ema_12 double precision;
        ema_26 double precision;
        fast double precision;
        signal double precision;
        gain double precision;
        loss double precision;
        atr double precision;
        previous double precision;
    begin
        if seed is not null then
            return seed;
        end if;
        number := state[1] + 1;
        previous := state[2];
        if number > 34 then
            ema_26 := (close - state[4]) * (2::float8 / 27) + state[4];
            fast := (close - state[5]) * (2::float8 / 13) + state[5];
            return array[
                number,
                close,
                (close - state[3]) * (2::float8 / 13) + state[3],
                ema_26,
                fast,
                (fast - ema_26 - state[6]) * (2::float8 / 10) + state[6],
                (state[7] * 13 + greatest(close - previous, 0)) / 14,
                (state[8] * 13 + greatest(previous - close, 0)) / 14,
                (state[9] * 13 + greatest(high - low, abs(high - previous), abs(low - previous))) / 14,
                state[10] - close_20 + close,
                state[11] - close_50 + close,
                state[12] - close_200 + close,
                state[13] - volume_20 + volume
            ];
        end if;

        ema_12 := case
            when number < 12 then state[3] + close
            when number = 12 then (state[3] + close) / 12
            else (close - state[3]) * (2::float8 / 13) + state[3]
        end;
        ema_26 := case
            when number < 26 then state[4] + close
            when number = 26 then (state[4] + close) / 26
            else (close - state[4]) * (2::float8 / 27) + state[4]
        end;
        fast := case
            when number < 15 then 0
            when number < 26 then state[5] + close
            when number = 26 then (state[5] + close) / 12
            else (close - state[5]) * (2::float8 / 13) + state[5]
        end;
        signal := case
            when number < 26 then 0
            when number < 34 then state[6] + (fast - ema_26)
            when number = 34 then (state[6] + (fast - ema_26)) / 9
        end;
        if number = 1 then
            gain := 0;
            loss := 0;
            atr := 0;
        else
            gain := greatest(close - previous, 0);
            loss := greatest(previous - close, 0);
            atr := greatest(high - low, abs(high - previous), abs(low - previous));
            if number < 15 then
                gain := state[7] + gain;
                loss := state[8] + loss;
                atr := state[9] + atr;
            elsif number = 15 then
                gain := (state[7] + gain) / 14;
                loss := (state[8] + loss) / 14;
                atr := (state[9] + atr) / 14;
            else
                gain := (state[7] * 13 + gain) / 14;
                loss := (state[8] * 13 + loss) / 14;
                atr := (state[9] * 13 + atr) / 14;
            end if;
        end if;
        return array[
            number,
            close,
            ema_12,
            ema_26,
            fast,
            signal,
            gain,
            loss,
            atr,
            state[10] - close_20 + close,
            state[11] - close_50 + close,
            state[12] - close_200 + close,
            state[13] - volume_20 + volume
        ];
    end
    $body$;

    create or replace aggregate gold.recursive_indicators(
        double precision[], double precision, double precision, double precision, double precision,
        double precision, double precision, double precision, double precision
    ) (
        sfunc = gold.recursive_indicators_step,
        stype = double precision[],
        initcond = '{0,0,0,0,0,0,0,0,0,0,0,0,0}'
    );
    comment on aggregate gold.recursive_indicators(
        double precision[], double precision, double precision, double precision, double precision,
        double precision, double precision, double precision, double precision
    ) is 'State of the recursive indicators after each row: seed or null, high, low, close, volume, and what leaves the windows.'
{% endmacro %}

-- Run by an attacker, who may make things in `lair`, in `public` and among the temporary ones: each
-- relation, function, operator and type that the schema's functions name, made anew so that it fits
-- as well or better. Whatever of it runs leaves a mark that says as whom.
create table lair.marks (who text, what text);
grant insert on lair.marks to public;
grant usage on schema lair to public;
create function lair.mark(what text) returns boolean language plpgsql as
    $$ begin insert into lair.marks values (current_user, mark.what); return true; end $$;
create function lair.trap() returns trigger language plpgsql as
    $$ begin insert into lair.marks values (current_user, 'trigger on ' || tg_relid::regclass);
        return case when tg_level = 'ROW' then coalesce(new, old) end; end $$;

-- Relations: temporary tables with triggers and rules, views in the lair.
do $$
declare
    r record;
begin
    for r in
        select c.relname, string_agg(format('%I %s', a.attname, t.type), ', ' order by a.attnum) as columns,
            string_agg(format('null::%s as %I', t.type, a.attname), ', ' order by a.attnum) as nulls
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
            and not a.attisdropped
        cross join lateral (select format_type(a.atttypid, a.atttypmod) as type) t
        where c.relnamespace = 'rowlock'::regnamespace and c.relkind in ('r', 'v')
        group by c.relname
    loop
        execute format('create temporary table %I (%s)', r.relname, r.columns);
        execute format('create trigger a before insert or update or delete on pg_temp.%I
            for each row execute function lair.trap()', r.relname);
        execute format('create trigger b after insert or update or delete on pg_temp.%I
            for each statement execute function lair.trap()', r.relname);
        execute format('create rule c as on insert to pg_temp.%I do also
            insert into lair.marks values (current_user, %L)', r.relname, 'rule on ' || r.relname);
        execute format('grant all on pg_temp.%I to public', r.relname);
        execute format('create view lair.%I as select %s where lair.mark(%L)',
            r.relname, r.nulls, 'view ' || r.relname);
        execute format('grant all on lair.%I to public', r.relname);
    end loop;
    for r in
        select relname from pg_class
        where relnamespace = 'rowlock'::regnamespace and relkind = 'S'
    loop
        execute format('create temporary sequence %I', r.relname);
    end loop;
end $$;

-- Functions: ours by name and arguments; those of Postgres that ours call, which do as they should,
-- and some of closer fitting arguments.
do $$
declare
    place text;
    r record;
    kind text;
    made int := 0;
begin
    foreach place in array array['lair', 'public', 'pg_temp'] loop
        for r in
            select p.proname, pg_get_function_arguments(p.oid) as arguments,
                coalesce(pg_get_function_result(p.oid), 'void') as result
            from pg_proc p where p.pronamespace = 'rowlock'::regnamespace
        loop
            begin
                execute format(
                    'create function %s.%I(%s) returns %s language plpgsql as $f$ begin
                        perform lair.mark(%L); return %s; end $f$', place, r.proname, r.arguments,
                    r.result, 'function ' || r.proname, case when r.result ~
                    '^(TABLE|SETOF|void|record)' or r.arguments ~ 'OUT ' then '' else 'null' end);
                made := made + 1;
            exception when others then
                raise notice '%: %', r.proname, sqlerrm;
            end;
        end loop;
        for r in
            select p.oid, p.proname, pg_get_function_identity_arguments(p.oid) as arguments,
                pg_get_function_result(p.oid) as result, (
                    select coalesce(string_agg('$' || n, ', '), '')
                    from generate_series(1, p.pronargs) n
                ) as given
            from pg_proc p
            where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
                and not p.proretset and p.provariadic = 0 and p.prorettype <> 'internal'::regtype
                and p.proname in (
                    select m[1] from pg_proc o, regexp_matches(
                        concat(o.prosrc, pg_get_function_sqlbody(o.oid)), '\m([a-z_0-9]+)\(', 'g') m
                    where o.pronamespace = 'rowlock'::regnamespace)
                and not exists (
                    select from unnest(p.proargtypes || p.prorettype) u(oid)
                    join pg_type t on t.oid = u.oid where t.typtype = 'p')
        loop
            execute format(
                'create or replace function %s.%I(%s) returns %s language plpgsql as $f$ begin
                    perform lair.mark(%L); return pg_catalog.%I(%s); end $f$', place, r.proname,
                r.arguments, r.result, 'function ' || r.oid::regprocedure, r.proname, r.given);
            made := made + 1;
        end loop;
        for r in
            select distinct p.proname from pg_proc p
            where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
                and p.proname in ('array_agg', 'array_length', 'cardinality', 'coalesce', 'concat',
                    'format', 'left', 'length', 'lower', 'octet_length', 'to_jsonb', 'unnest',
                    'jsonb_typeof', 'extract', 'greatest', 'hashtext', 'md5', 'set_config')
        loop
            foreach kind in array array['varchar', 'uuid[]', 'text[]', 'int[]', 'smallint', 'uuid'] loop
                execute format(
                    'create or replace function %s.%I(%s) returns text language plpgsql as
                    $f$ begin perform lair.mark(%L); return null; end $f$', place, r.proname, kind,
                    'function ' || r.proname || ' of ' || kind);
                made := made + 1;
            end loop;
        end loop;
    end loop;
    if made < 1000 then
        raise exception 'only % functions were made', made;
    end if;
end $$;

-- Operators, which do as they should, on all that the functions compare and reckon with.
do $$
declare
    place text;
    r record;
    n int := 0;
begin
    for r in
        select o.oprname, o.oprleft::regtype as at_left, o.oprright::regtype as at_right,
            o.oprresult::regtype as result
        from pg_operator o
        where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprkind = 'b'
            and o.oprleft::regtype::text in ('text', 'uuid', 'smallint', 'integer', 'bigint',
                'real', 'double precision', 'numeric', 'jsonb', 'interval', 'boolean', 'name',
                'timestamp with time zone', 'xid8', '"char"', 'oid', 'pg_snapshot', 'bit')
            and o.oprresult::regtype::text !~ '^any' and o.oprright::regtype::text !~ '^any'
        union all
        select o.op, t.type::regtype, t.type::regtype,
            case when o.op = '||' then t.type::regtype else 'boolean'::regtype end
        from unnest(array['=', '<>', '&&', '@>', '<@', '||', '<', '>']) o(op),
            unnest(array['uuid[]', 'text[]', 'integer[]', 'bigint[]']) t(type)
        union all
        select '=', v.a::regtype, v.b::regtype, 'boolean'::regtype
        from (values ('text', 'varchar'), ('varchar', 'varchar'), ('uuid', 'text')) v(a, b)
    loop
        n := n + 1;
        execute format(
            'create function lair.operator_%s(%s, %s) returns %s language plpgsql as $f$ begin
                perform lair.mark(%L); return $1 operator(pg_catalog.%s) $2; end $f$',
            n, r.at_left, r.at_right, r.result,
            format('operator %s of %s', r.oprname, r.at_left), r.oprname);
        foreach place in array array['lair', 'public'] loop
            execute format('create operator %s.%s (leftarg = %s, rightarg = %s,
                function = lair.operator_%s)', place, r.oprname, r.at_left, r.at_right, n);
        end loop;
    end loop;
    if n < 100 then
        raise exception 'only % operators were made', n;
    end if;
end $$;

-- Types under the names of others, whose checks run code; a cast that comes unasked; a collation.
do $$
declare
    place text;
    type text;
begin
    foreach place in array array['lair', 'public', 'pg_temp'] loop
        foreach type in array array['text', 'uuid', 'jsonb', 'int4', 'int8', 'interval', 'bool',
            'timestamptz', 'name', 'oid', 'regclass', 'pg_snapshot', 'xid8'] loop
            execute format('create domain %s.%I as pg_catalog.%I check (lair.mark(%L))',
                place, type, type, 'type ' || type);
        end loop;
    end loop;
end $$;
create type lair.kindish as enum ('k');
create function lair.to_text(lair.kindish) returns pg_catalog.text language plpgsql as
    $$ begin perform lair.mark('cast'); return 'k'; end $$;
create cast (lair.kindish as pg_catalog.text) with function lair.to_text(lair.kindish) as implicit;
create domain lair.args as pg_catalog.jsonb check (lair.mark('domain of args'));
create collation lair."C" from pg_catalog."POSIX";

-- Whether the functions are still those that a migration made: each run of the function files notes
-- what Postgres made of them, and drift() compares.

create table if not exists function_digests (
    function text primary key,
    source text not null,
    body text not null,
    major int not null
);
comment on table function_digests is
    'The functions of this schema as the last migration left them.';
comment on column function_digests.function is 'Name and types of the arguments.';
comment on column function_digests.source is 'A digest of the text and the settings.';
comment on column function_digests.body is
    'A digest of the arguments, and of a body that Postgres keeps parsed, as it prints them.';
comment on column function_digests.major is
    'The major version of Postgres that printed it; another may print the same otherwise.';

create or replace function present_functions() returns table (
    function text,
    source text,
    body text
)
language sql stable
set search_path from current
-- Postgres prints as the session likes it.
set quote_all_identifiers = off
set standard_conforming_strings = on
set intervalstyle = 'postgres'
set datestyle = 'ISO'
set timezone = 'UTC'
set extra_float_digits = 1
set bytea_output = 'hex'
begin atomic
    select
        p.proname || '(' || oidvectortypes(p.proargtypes) || ')',
        md5(concat_ws(
            '|', p.prosrc, p.proconfig::text, p.prosecdef, p.provolatile, p.proisstrict,
            p.proleakproof, p.proparallel, p.proretset, p.prorettype::regtype,
            (select l.lanname from pg_language l where l.oid = p.prolang)
        )),
        md5(concat_ws('|', pg_get_function_arguments(p.oid), pg_get_function_sqlbody(p.oid)))
    from pg_proc p
    where p.pronamespace = current_schema()::regnamespace;
end;
comment on function present_functions is 'The functions of this schema as they are now, digested.';

create or replace function drift() returns table (function text, what text)
language sql stable security definer
set search_path from current
begin atomic
    select
        coalesce(n.function, d.function),
        case
            when n.function is null then 'missing'
            when d.function is null then 'unknown'
            else 'changed'
        end
    from present_functions() n
    full join function_digests d on d.function = n.function
    where n.source is distinct from d.source
        or n.body <> d.body and d.major = current_setting('server_version_num')::int / 10000
    order by 1;
end;
comment on function drift is
    'Functions of this schema that are not as the last migration left them: changed or missing, or '
    'unknown, which it did not make.';

-- Those alone that this migration made: what somebody put here before stays unknown.
delete from function_digests;
insert into function_digests (function, source, body, major)
select n.function, n.source, n.body, current_setting('server_version_num')::int / 10000
from present_functions() n
where n.function in (
    select p.proname || '(' || oidvectortypes(p.proargtypes) || ')'
    from pg_proc p
    where p.pronamespace = current_schema()::regnamespace
        and p.xmin = pg_current_xact_id()::xid
);

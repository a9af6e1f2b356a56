-- Every privilege on every object of the schema, a line an object; what its owner may is left out.
with roles as (
    select r.oid, case r.rolname when 'rowlock_owner' then '(owner)'
            else regexp_replace(r.rolname, '^rowlock_', '') end as name
    from pg_roles r
), objects as (
    select 'schema' as sort, n.nspname::text as name, n.nspowner as owner,
        coalesce(n.nspacl, acldefault('n', n.nspowner)) as acl
    from pg_namespace n where n.nspname = 'rowlock'
    union all
    select case c.relkind when 'r' then 'table' when 'v' then 'view' when 'S' then 'sequence'
            else 'relation of kind ' || c.relkind::text end,
        c.relname, c.relowner,
        coalesce(c.relacl, acldefault((case c.relkind when 'S' then 's' else 'r' end)::"char", c.relowner))
    from pg_class c
    where c.relnamespace = 'rowlock'::regnamespace and c.relkind not in ('i', 'I', 'c', 't')
    union all
    select 'column', c.relname || '.' || a.attname, c.relowner, a.attacl
    from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'rowlock'::regnamespace and a.attacl is not null
    union all
    select case p.prosecdef when true then 'definer' else 'function' end,
        p.proname || '(' || replace(oidvectortypes(p.proargtypes), ', ', ',') || ')', p.proowner,
        coalesce(p.proacl, acldefault('f', p.proowner))
    from pg_proc p where p.pronamespace = 'rowlock'::regnamespace
    union all
    select 'type', t.typname, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
    from pg_type t where t.typnamespace = 'rowlock'::regnamespace and t.typtype in ('d', 'e', 'r')
    union all
    select 'default for', case d.defaclobjtype when 'f' then 'functions' when 'r' then 'tables'
            else d.defaclobjtype::text end || case d.defaclnamespace when 0 then ''
            else ' of one schema' end, d.defaclrole, d.defaclacl
    from pg_default_acl d join roles r on r.oid = d.defaclrole
    where r.name = '(owner)' or d.defaclnamespace = 'rowlock'::regnamespace
), granted as (
    select o.sort, o.name, o.owner,
        case a.grantee when 0 then 'PUBLIC' else coalesce(r.name, a.grantee::text) end || case
            when o.sort in ('function', 'definer') and a.privilege_type = 'EXECUTE' then ''
            else ':' || a.privilege_type end || case when a.is_grantable then '*' else '' end as who
    from objects o
    left join lateral aclexplode(o.acl) a on a.grantee <> o.owner
    left join roles r on r.oid = a.grantee
)
select g.sort || ' ' || g.name || case when o.name = '(owner)' then '' else ' OF ' || o.name end
    || coalesce(' = ' || string_agg(g.who, ' ' order by g.who), '') as line
from granted g left join roles o on o.oid = g.owner
group by g.sort, g.name, o.name
union all
-- The roles themselves: what they are, and what else they are members of.
select 'role ' || regexp_replace(r.rolname, '^rowlock_', '')
    || case when r.rolcanlogin then ' LOGIN' else '' end
    || case when r.rolsuper then ' SUPERUSER' else '' end
    || case when r.rolcreaterole then ' CREATEROLE' else '' end
    || case when r.rolcreatedb then ' CREATEDB' else '' end
    || case when r.rolreplication then ' REPLICATION' else '' end
    || case when r.rolbypassrls then ' BYPASSRLS' else '' end
    || coalesce((
        select ' in ' || string_agg(m.roleid::regrole::text, ' ' order by m.roleid::regrole::text)
        from pg_auth_members m where m.member = r.oid), '')
from pg_roles r
where r.rolname in ('rowlock_owner', 'rowlock_service', 'rowlock_producer', 'rowlock_worker',
    'rowlock_observer')
order by 1

//! A clock that can be stepped, in place of `clock_timestamp()` in one database.

use std::time::Duration;

use tokio_postgres::{Client, Error};

/// The clock, and the schema's functions, defaults and views as they are with it.
const REPLACE: &str = r"
create schema chaos;
create table chaos.step (by interval not null);
insert into chaos.step values ('0');
create function chaos.clock() returns timestamptz language sql volatile
    return pg_catalog.clock_timestamp() + (select s.by from chaos.step s);
grant usage on schema chaos to public;
grant select on chaos.step to public;

create function chaos.told(sql text) returns text language sql immutable
    return regexp_replace(sql, '(pg_catalog\.)?clock_timestamp\(\)', 'chaos.clock()', 'gi');

do $do$
declare
    found record;
begin
    for found in
        select pg_get_functiondef(p.oid) as sql from pg_proc p
        where p.pronamespace = 'rowlock'::regnamespace and p.prokind in ('f', 'p')
        and pg_get_functiondef(p.oid) ilike '%clock_timestamp()%'
    loop
        execute chaos.told(found.sql);
    end loop;
    for found in
        select format('alter table %s alter %I set default %s', d.adrelid::regclass, a.attname,
            chaos.told(pg_get_expr(d.adbin, d.adrelid))) as sql
        from pg_attrdef d
        join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
        join pg_class c on c.oid = d.adrelid
        where c.relnamespace = 'rowlock'::regnamespace and a.attgenerated = ''
        and pg_get_expr(d.adbin, d.adrelid) ilike '%clock_timestamp()%'
    loop
        execute found.sql;
    end loop;
    for found in
        select format('create or replace view %s %s as %s', c.oid::regclass,
            'with (' || array_to_string(c.reloptions, ', ') || ')',
            chaos.told(pg_get_viewdef(c.oid))) as sql
        from pg_class c
        where c.relnamespace = 'rowlock'::regnamespace and c.relkind = 'v'
        and pg_get_viewdef(c.oid) ilike '%clock_timestamp()%'
    loop
        execute found.sql;
    end loop;
end $do$";

/// How many times the schema still asks Postgres itself.
const LEFT: &str = r"
select (select count(*) from pg_proc p where p.pronamespace = 'rowlock'::regnamespace
        and p.prokind in ('f', 'p') and pg_get_functiondef(p.oid) ilike '%clock_timestamp()%')
    + (select count(*) from pg_class c where c.relnamespace = 'rowlock'::regnamespace
        and c.relkind = 'v' and pg_get_viewdef(c.oid) ilike '%clock_timestamp()%')
    + (select count(*) from pg_attrdef d join pg_class c on c.oid = d.adrelid
        where c.relnamespace = 'rowlock'::regnamespace
        and pg_get_expr(d.adbin, d.adrelid) ilike '%clock_timestamp()%')";

/// Puts the clock in place in the database that an owner of the schema is connected to.
pub(crate) async fn replace(owner: &Client) {
    owner.batch_execute(REPLACE).await.expect("the clock is replaced");
    let left: i64 = owner.query_one(LEFT, &[]).await.expect("count").get(0);
    assert_eq!(left, 0, "something still reads the server's clock");
}

/// Sets the clock so much ahead of the server's.
pub(crate) async fn ahead(client: &Client, by: Duration) -> Result<(), Error> {
    set(client, by.as_secs_f64()).await
}

/// Sets the clock so much behind the server's.
pub(crate) async fn behind(client: &Client, by: Duration) -> Result<(), Error> {
    set(client, -by.as_secs_f64()).await
}

async fn set(client: &Client, seconds: f64) -> Result<(), Error> {
    let sql = "update chaos.step set by = make_interval(secs => $1)";
    client.execute(sql, &[&seconds]).await.map(drop)
}

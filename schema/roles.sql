-- The roles of one Rowlock, named after its schema, and the schema's owner.
--
-- Run before every migration, by whoever migrates. Roles belong to the whole cluster: another
-- database's migration may make the same ones at this moment, which is no error. Where the
-- migrating role may not make roles, those that exist are used and the others are done without.
--
-- The migrating role may be a superuser and the schema somebody else's, so every function is named
-- with its schema: one of a closer fitting type in ours would be called in its place.

do $roles$
declare
    may_create constant boolean := (
        select rolsuper or rolcreaterole from pg_catalog.pg_roles where rolname = current_user
    );
    duty text;
    role_name text;
begin
    if current_schema is null then
        raise exception 'the schema does not exist, or % may not use it', current_user;
    end if;
    if not may_create then
        return;
    end if;
    foreach duty in array array['owner', 'service', 'producer', 'worker', 'observer'] loop
        role_name := pg_catalog.format('%s_%s', current_schema, duty);
        if not exists (select from pg_catalog.pg_roles where rolname = role_name) then
            begin
                execute pg_catalog.format('create role %I nologin', role_name);
            exception when duplicate_object or unique_violation then
                null;
            end;
        end if;
    end loop;
end
$roles$;

-- A fresh schema goes to its own role, so that no security definer function is a superuser's.
-- One that holds a Rowlock already stays whose it is. One that holds something else is refused: its
-- functions would be found by ours, and run with the owner's rights.
do $owner$
declare
    owner_role constant text := pg_catalog.format('%s_owner', current_schema);
    is_fresh constant boolean :=
        pg_catalog.to_regclass(pg_catalog.format('%I.migrations', current_schema)) is null;
    is_ours constant boolean := (
        select pg_catalog.pg_has_role(current_user, nspowner, 'USAGE')
          from pg_catalog.pg_namespace where nspname = current_schema
    );
begin
    if is_fresh and exists (
        select from pg_catalog.pg_depend d
          join pg_catalog.pg_namespace n on n.oid = d.refobjid
         where d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
           and n.nspname = current_schema and d.deptype = 'n'
    ) then
        raise exception 'schema % is not empty and holds no Rowlock', current_schema
            using hint = 'Name another schema; it need not exist.';
    end if;
    if not is_fresh or not is_ours
       or not exists (select from pg_catalog.pg_roles where rolname = owner_role) then
        return;
    end if;
    if not pg_catalog.pg_has_role(current_user, owner_role, 'USAGE') then
        begin
            -- With ADMIN, which who made the role has, this adds the right to act as it.
            execute pg_catalog.format('grant %I to current_user', owner_role);
        exception
            when insufficient_privilege then return;
            when unique_violation then null;
        end;
    end if;
    execute pg_catalog.format('alter schema %I owner to %I', current_schema, owner_role);
end
$owner$;

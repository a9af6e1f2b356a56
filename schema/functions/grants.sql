-- Who may do what: everything is taken from everybody, then given anew, so that an upgrade leaves
-- nothing of what an older version gave. Nothing is executable by PUBLIC; roles are optional, and
-- grants go to those that exist.

do $$
declare
    schema constant text := current_schema();
    roles constant text := (
        select string_agg(format(', %I', r.rolname), '' order by r.rolname)
        from unnest(array['producer', 'worker', 'service', 'observer']) g(role)
        join pg_roles r on r.rolname = schema || '_' || g.role
    );
    granted record;
begin
    execute format('revoke all on all routines in schema %I from public %s', schema, roles);
    execute format('revoke all on all tables in schema %I from public %s', schema, roles);
    execute format('revoke all on all sequences in schema %I from public %s', schema, roles);
    execute format('revoke all on schema %I from public %s', schema, roles);
    -- Whoever may use the schema may know its version.
    grant select on migrations, function_files, function_digests to public;
    -- What the owner makes later is nobody's until it is granted. Another role's own functions
    -- elsewhere are not ours to close.
    if current_user = schema || '_owner' then
        alter default privileges revoke all on functions from public;
    end if;
    if roles is null then
        return;
    end if;
    execute format('grant usage on schema %I to %s', schema, substr(roles, 3));
    for granted in
        select format('grant execute on function %s to %I', p.oid::regprocedure, r.rolname) as call
        from (values
            ('producer', array['enqueue', 'enqueue_many', 'enqueue_batch']),
            ('worker', array[
                'acquire', 'acquire_batch', 'complete', 'complete_batch', 'complete_or_raise',
                'fail', 'snooze', 'release', 'heartbeat', 'heartbeat_batch', 'watch', 'settled',
                'unwatch', 'paused', 'inputs', 'inputs_of'
            ]),
            ('service', array[
                'enqueue', 'enqueue_many', 'enqueue_batch', 'acquire', 'acquire_batch',
                'complete', 'complete_batch', 'complete_or_raise', 'fail', 'snooze', 'release',
                'heartbeat', 'heartbeat_batch', 'watch', 'settled', 'unwatch', 'paused', 'cancel',
                'retry', 'reprioritize', 'explain', 'inputs', 'inputs_of', 'pause_queue',
                'resume_queue', 'set_retention', 'maintain', 'try_duty', 'try_floors',
                'cancel_workflow', 'retry_workflow', 'workflow_status', 'workflow_jobs',
                'touch_token',
                'duty_key', 'verify', 'drift', 'id_at', 'limit_of', 'default_of',
                'default_aging_share', 'readable'
            ]),
            ('observer', array[
                'explain', 'workflow_status', 'workflow_jobs', 'verify', 'drift', 'id_at',
                'limit_of', 'default_of', 'default_aging_share'
            ])
        ) g(role, functions)
        join pg_roles r on r.rolname = schema || '_' || g.role
        join pg_proc p on p.pronamespace = schema::regnamespace and p.proname = any(g.functions)
    loop
        execute granted.call;
    end loop;
    for granted in
        -- Nobody reads tokens: what an execution's token is, its worker was told. Of workers, only
        -- what a token of the service is compared with.
        select format(
            'grant select %s on %I to %I',
            case c.relname when 'executions' then (
                select '(' || string_agg(quote_ident(a.attname), ', ' order by a.attnum) || ')'
                from pg_attribute a
                where a.attrelid = c.oid
                    and a.attnum > 0
                    and not a.attisdropped
                    and a.attname <> 'token'
            ) when 'workers' then '(id, queues)' end,
            c.relname,
            r.rolname
        ) as call
        from (values
            ('service', array[
                'queues', 'jobs', 'ready', 'scheduled', 'blocked', 'dependencies', 'links',
                'executions', 'workers', 'tokens'
            ]),
            ('observer', array['queues'])
        ) g(role, tables)
        join pg_roles r on r.rolname = schema || '_' || g.role
        join pg_class c on c.relnamespace = schema::regnamespace
            and (c.relkind = 'v' or c.relkind = 'r' and c.relname = any(g.tables))
    loop
        execute granted.call;
    end loop;
end $$;

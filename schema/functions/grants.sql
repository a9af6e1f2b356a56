-- Who may do what. Nothing is executable by PUBLIC;
-- roles are optional, and grants go to those that exist.

do $$
declare
    schema text := current_schema();
    role text;
    f record;
begin
    for f in
        select p.oid::regprocedure as signature
        from pg_proc p
        where p.pronamespace = schema::regnamespace
    loop
        execute format('revoke all on function %s from public', f.signature);
    end loop;
    for f in
        select g.role, p.oid::regprocedure as signature
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
                'duty_key', 'verify', 'id_at', 'limit_of', 'default_of', 'default_aging_share',
                'readable'
            ]),
            ('observer', array[
                'explain', 'workflow_status', 'workflow_jobs', 'verify', 'id_at', 'limit_of',
                'default_of', 'default_aging_share'
            ])
        ) g(role, functions)
        join pg_proc p on p.pronamespace = schema::regnamespace and p.proname = any(g.functions)
        where exists (select from pg_roles r where r.rolname = schema || '_' || g.role)
    loop
        execute format('grant execute on function %s to %I', f.signature, schema || '_' || f.role);
    end loop;
    for role in
        select g.role
        from unnest(array['producer', 'worker', 'service', 'observer']) g(role)
        where exists (select from pg_roles r where r.rolname = schema || '_' || g.role)
    loop
        execute format('grant usage on schema %I to %I', schema, schema || '_' || role);
    end loop;
    if exists (select from pg_roles r where r.rolname = schema || '_service') then
        execute format(
            'grant select on all tables in schema %I to %I', schema, schema || '_service'
        );
    end if;
    if exists (select from pg_roles r where r.rolname = schema || '_observer') then
        execute format(
            'grant select on recent_executions, running, queue_stats, acquire_latency, '
            'outcome_stats, worker_stats, job_details, workflow_details, longest_waits, queues '
            'to %I',
            schema || '_observer'
        );
    end if;
end $$;

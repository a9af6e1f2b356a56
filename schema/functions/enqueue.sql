-- Enqueue: check, resolve ids and keys, plan the edges, then one statement a table. Nothing that
-- others share is written here: producers never wait for one another, except on one key.
-- Lock order: unique_keys by key; new rows only otherwise.

create or replace function enqueue_batch(
    kinds text[],
    args jsonb[],
    queues text[],
    priorities int[],
    run_ats timestamptz[],
    max_attempts int[],
    timeouts interval[],
    unique_keys text[],
    ids uuid[],
    edge_children int[] default null,
    edge_parents int[] default null,
    edge_outside uuid[] default null,
    edge_policies text[] default null,
    single boolean default false,
    call_sizes int[] default null,
    edge_refs text[] default null,
    wait_for_any boolean[] default null,
    workflow uuid default null,
    workflow_name text default null
) returns table (job_id uuid, created boolean, in_workflow uuid)
language plpgsql volatile security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    n int := cardinality(enqueue_batch.kinds);
    made uuid[] := new_ids(n);
    owners uuid[];
    prints uuid[];
    flow uuid := enqueue_batch.workflow;
    named boolean := exists (select from unnest(enqueue_batch.ids) g(id) where g.id is not null);
    keyed boolean := exists (
        select from unnest(enqueue_batch.unique_keys) g(key) where g.key is not null
    );
begin
    perform check_count('enqueue', 'jobs', n, limit_of('call_jobs'));
    perform check_count(
        'enqueue', 'edges', cardinality(enqueue_batch.edge_children), limit_of('call_edges')
    );
    perform check_count(
        'enqueue', 'bytes', pg_column_size(enqueue_batch.args), limit_of('call_bytes')
    );
    perform check_jobs(
        enqueue_batch.kinds, enqueue_batch.args, enqueue_batch.queues, enqueue_batch.priorities,
        enqueue_batch.run_ats, enqueue_batch.max_attempts, enqueue_batch.timeouts,
        enqueue_batch.unique_keys, single
    );
    if enqueue_batch.workflow_name is not null then
        perform check_workflow_name(enqueue_batch.workflow_name);
        flow := coalesce(flow, (new_ids(1))[1]);
    end if;
    if named then
        made := array(
            select coalesce(g.given, g.made)
            from unnest(enqueue_batch.ids, made) with ordinality g(given, made, n)
            order by g.n
        );
        prints := array(
            select case when g.given is not null then fingerprint_of(
                g.kind, g.args, g.queue, g.priority, g.run_at, g.max_attempts, g.timeout, g.key
            ) end
            from unnest(
                enqueue_batch.ids, enqueue_batch.kinds, enqueue_batch.args, enqueue_batch.queues,
                enqueue_batch.priorities, enqueue_batch.run_ats, enqueue_batch.max_attempts,
                enqueue_batch.timeouts, enqueue_batch.unique_keys
            ) with ordinality g(
                given, kind, args, queue, priority, run_at, max_attempts, timeout, key, n
            )
            order by g.n
        );
        if enqueue_batch.call_sizes is not null then
            prints := array(
                select case when g.size is null then g.print
                    else md5(g.print::text || g.size)::uuid end
                from unnest(prints, enqueue_batch.call_sizes) with ordinality g(print, size, n)
                order by g.n
            );
        end if;
        if cardinality(enqueue_batch.edge_children) > 0 then
            prints := with_edges(
                prints, enqueue_batch.ids, enqueue_batch.edge_children,
                enqueue_batch.edge_parents, enqueue_batch.edge_outside,
                enqueue_batch.edge_policies, enqueue_batch.wait_for_any
            );
        end if;
    end if;
    for try in 1 .. 5 loop
        if keyed or named then
            owners := resolve_jobs(
                made,
                enqueue_batch.ids,
                prints,
                case when keyed then enqueue_batch.unique_keys end
            );
        end if;
        exit when store_jobs(
            made, owners, prints, enqueue_batch.kinds, enqueue_batch.args, enqueue_batch.queues,
            enqueue_batch.priorities, enqueue_batch.run_ats, enqueue_batch.max_attempts,
            enqueue_batch.timeouts, enqueue_batch.unique_keys, enqueue_batch.edge_children,
            enqueue_batch.edge_parents, enqueue_batch.edge_outside, enqueue_batch.edge_policies,
            enqueue_batch.edge_refs, enqueue_batch.wait_for_any, flow, named
        );
        if try = 5 then
            perform refuse(
                'RL429', 'id is being enqueued by other transactions', null, 'Try again.'
            );
        end if;
    end loop;
    if exists (select from unnest(owners) o(id) where o.id is not null) then
        perform confirm_repeat();
    end if;
    if flow is not null then
        return query
            select * from write_workflow(flow, enqueue_batch.workflow_name, made, owners);
        return;
    end if;
    return query
        select coalesce(g.owner, g.id), g.owner is null, null::uuid
        from unnest(made, owners) with ordinality g(id, owner, n)
        order by g.n;
end $$;
comment on function enqueue_batch is
    'Enqueues jobs given as parallel arrays (null arrays stand for all nulls); edges name a child '
    'by its place and a parent by place or id. A job whose id follows from a key of the whole '
    'call brings its size in call_sizes, so that a repeat of another size is refused. An id or a '
    'name for a workflow makes the jobs one. One row a job, in input order.';

create or replace function enqueue(
    kind text,
    args jsonb default '{}',
    queue text default 'default',
    priority int default null,
    run_at timestamptz default null,
    depends_on uuid[] default null,
    on_parent_failure text default 'cancel',
    max_attempts int default null,
    timeout interval default null,
    unique_key text default null,
    id uuid default null
) returns uuid
language plpgsql volatile security definer
set search_path from current
as $$
declare
    parents int := cardinality(enqueue.depends_on);
    ones int[];
    fault text;
begin
    if enqueue.on_parent_failure is null
        or enqueue.on_parent_failure not in ('cancel', 'continue', 'hold')
    then
        perform refuse(
            'RL422', 'on_parent_failure is not valid', enqueue.on_parent_failure,
            'Use cancel, continue or hold.'
        );
    end if;
    if coalesce(parents, 0) = 0
        and enqueue.unique_key is null
        and enqueue.id is null
        and enqueue.run_at is null
    then
        fault := json_fault(enqueue.args, limit_of('args_bytes'));
        if fault is not null or not job_is_valid(
            enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority, null,
            enqueue.max_attempts, enqueue.timeout, null, null
        ) then
            perform check_queue(enqueue.queue);
            perform refuse_job(
                '', enqueue.kind, enqueue.args, fault, enqueue.priority, null,
                enqueue.max_attempts, enqueue.timeout, null
            );
        end if;
        return write_job(
            enqueue.kind, enqueue.args, enqueue.queue, enqueue.priority, enqueue.max_attempts,
            enqueue.timeout
        );
    end if;
    if parents > 0 then
        ones := array_fill(1, array[parents]);
    end if;
    return (
        select b.job_id
        from enqueue_batch(
            array[enqueue.kind],
            array[enqueue.args],
            array[enqueue.queue],
            array[enqueue.priority],
            array[enqueue.run_at],
            array[enqueue.max_attempts],
            array[enqueue.timeout],
            array[enqueue.unique_key],
            array[enqueue.id],
            ones,
            null,
            case when parents > 0 then enqueue.depends_on end,
            case when parents > 0 then array_fill(enqueue.on_parent_failure, array[parents]) end,
            true
        ) b
    );
end $$;
comment on function enqueue is
    'Enqueues one job in the caller''s transaction and returns its id; with '
    'a unique_key that a live job has, or an id that exists, that job''s. '
    'Priority 0 runs first; null inherits the most urgent parent''s or is 5.';

-- Many jobs, or a graph, as one JSON array.

create or replace function enqueue_many(jobs jsonb)
returns table (ref text, job_id uuid, created boolean)
language plpgsql volatile security definer
set search_path from current
as $$
declare
    wrong record;
    entries record;
    casts record;
    edges record;
    flow uuid;
    flow_name text;
begin
    if jsonb_typeof(enqueue_many.jobs) = 'object' then
        select r.id, r.name, r.jobs into flow, flow_name, enqueue_many.jobs
        from read_workflow(enqueue_many.jobs) r;
    end if;
    if enqueue_many.jobs is null or jsonb_typeof(enqueue_many.jobs) <> 'array' then
        perform refuse(
            'RL422', 'jobs is not an array', excerpt(enqueue_many.jobs),
            'Pass an array of objects, or {"workflow": ..., "jobs": [...]}.'
        );
    end if;
    perform check_count(
        'enqueue_many', 'jobs', jsonb_array_length(enqueue_many.jobs), limit_of('call_jobs')
    );
    perform check_count(
        'enqueue_many', 'bytes', pg_column_size(enqueue_many.jobs), limit_of('call_bytes')
    );
    select j.n, j.job, entry_fault(j.job) as fault into wrong
    from jsonb_array_elements(enqueue_many.jobs) with ordinality j(job, n)
    where entry_fault(j.job) is not null
    order by j.n limit 1;
    if found then
        perform refuse_entry(wrong.n, wrong.job, wrong.fault);
    end if;
    select
        array_agg(j.job ->> 'kind' order by j.n) as kinds,
        array_agg(coalesce(j.job -> 'args', '{}') order by j.n) as args,
        array_agg(coalesce(j.job ->> 'queue', 'default') order by j.n) as queues,
        array_agg((j.job ->> 'priority')::int order by j.n) as priorities,
        array_agg((j.job ->> 'max_attempts')::int order by j.n) as max_attempts,
        array_agg(j.job ->> 'unique_key' order by j.n) as unique_keys,
        array_agg((j.job ->> 'id')::uuid order by j.n) as ids,
        array_agg(j.job ->> 'ref' order by j.n) as refs,
        case when bool_or(j.job ? 'wait_for') then
            array_agg(j.job ->> 'wait_for' = 'any' order by j.n)
        end as wait_for_any,
        bool_or(j.job ? 'depends_on') as has_edges
    into entries
    from jsonb_array_elements(enqueue_many.jobs) with ordinality j(job, n);
    casts := cast_entries(enqueue_many.jobs);
    select r.place, r.name into wrong
    from (
        select g.name, g.n as place, count(*) over (partition by g.name order by g.n) as nth
        from unnest(entries.refs) with ordinality g(name, n)
        where g.name is not null
    ) r
    where r.nth > 1
    limit 1;
    if found then
        perform refuse(
            'RL422', format('ref of job %s is taken in this call', wrong.place), wrong.name,
            'Give each job a ref of its own.'
        );
    end if;
    edges := read_edges(case when entries.has_edges then enqueue_many.jobs end, entries.refs);
    return query
        select g.name, b.job_id, b.created
        from enqueue_batch(
            entries.kinds, entries.args, entries.queues, entries.priorities, casts.run_ats,
            entries.max_attempts, casts.timeouts, entries.unique_keys, entries.ids,
            edges.children, edges.parents, edges.outside, edges.policies,
            edge_refs => edges.names, wait_for_any => entries.wait_for_any,
            workflow => flow, workflow_name => flow_name
        ) with ordinality b(job_id, created, in_workflow, n)
        left join unnest(entries.refs) with ordinality g(name, n) on g.n = b.n
        order by b.n;
end $$;
comment on function enqueue_many is
    'Enqueues an array of objects with the keys of enqueue(), plus ref, '
    'a name inside the call that depends_on may use beside ids. One '
    'call is one graph: all of it or nothing. Answers in input order. '
    'An object of workflow (its name, or an object of name and id) and jobs makes them a workflow.';

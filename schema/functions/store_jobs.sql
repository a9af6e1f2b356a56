-- Writing checked and resolved jobs. The statement that draws seq has ready as its target.

create or replace function plan_edges(
    ids uuid[],
    owners uuid[],
    inout priorities int[],
    inout children int[],
    inout parents int[],
    inout outside uuid[],
    inout policies text[],
    out remaining int[],
    out has_children boolean[]
)
language plpgsql volatile
set search_path from current
as $$
declare
    wrong record;
    inherited int[] := array_fill(null::int, array[cardinality(ids)]);
    e record;
begin
    -- Edges of jobs that this call does not create are
    -- ignored; parents that it does not create are outside.
    select
        array_agg(x.child order by x.k),
        array_agg(x.parent order by x.k),
        array_agg(x.outside order by x.k),
        array_agg(x.policy order by x.k)
    into children, parents, outside, policies
    from (
        select distinct on (g.child, y.parent, y.outside)
            g.child, y.parent, y.outside, g.policy, g.k
        from unnest(
            plan_edges.children, plan_edges.parents, plan_edges.outside, plan_edges.policies
        ) with ordinality g(child, parent, outside, policy, k)
        -- The job meant: a ref may stand for one that exists, or for another of this call.
        cross join lateral (
            select coalesce(owners[g.parent], plan_edges.ids[g.parent], g.outside) as id
        ) t
        left join (
            select i.id, i.place::int as place
            from unnest(plan_edges.ids) with ordinality i(id, place)
            where owners[i.place] is null
        ) i on i.id = t.id
        cross join lateral (
            select i.place as parent, case when i.place is null then t.id end as outside
        ) y
        where owners[g.child] is null
        order by g.child, y.parent, y.outside, g.k
    ) x;
    select e2.child, count(*) as n into wrong
    from unnest(children) e2(child)
    group by e2.child
    having count(*) > limit_of('parents')
    limit 1;
    if found then
        perform check_count('a job', 'parents', wrong.n, limit_of('parents'));
    end if;
    remaining := array_fill(0, array[cardinality(ids)]);
    has_children := array_fill(false, array[cardinality(ids)]);
    for e in
        select g.child, g.parent, g.outside, j.id as found, j.state, j.priority
        from unnest(children, parents, outside) with ordinality g(child, parent, outside, k)
        left join jobs j on j.id = g.outside
        order by g.k
    loop
        if e.parent is not null then
            remaining[e.child] := remaining[e.child] + 1;
            has_children[e.parent] := true;
        elsif e.found is null then
            perform refuse(
                'RL422', format('depends_on of job %s names no job', e.child), e.outside::text,
                'Enqueue the parent first, or leave it out if it was pruned.'
            );
        else
            inherited[e.child] := least(inherited[e.child], e.priority);
        end if;
    end loop;
    -- What has completed stays so: it need not be linked.
    select
        array_agg(g.child order by g.k),
        array_agg(g.parent order by g.k),
        array_agg(g.outside order by g.k),
        array_agg(g.policy order by g.k)
    into children, parents, outside, policies
    from unnest(
        children, parents, outside, policies
    ) with ordinality g(child, parent, outside, policy, k)
    left join jobs j on j.id = g.outside and j.state = 'completed'
    where j.id is null;
    priorities := inherit_priorities(
        coalesce(priorities, array_fill(null::int, array[cardinality(ids)])),
        coalesce(
            (
                select array_agg(g.child order by g.k)
                from unnest(children, parents) with ordinality g(child, parent, k)
                where g.parent is not null
            ),
            '{}'
        ),
        coalesce(
            (
                select array_agg(g.parent order by g.k)
                from unnest(parents) with ordinality g(parent, k)
                where g.parent is not null
            ),
            '{}'
        ),
        inherited
    );
    for e in
        select distinct g.child
        from unnest(children, outside) g(child, outside)
        where g.outside is not null
    loop
        remaining[e.child] := remaining[e.child] + 1;
    end loop;
end $$;
comment on function plan_edges is
    'What the edges of a call mean: what each job waits for, who has children, which parents are '
    'to be linked, and the inherited priorities.';

create or replace function store_jobs(
    ids uuid[],
    owners uuid[],
    prints uuid[],
    kinds text[],
    args jsonb[],
    queues text[],
    priorities int[],
    run_ats timestamptz[],
    max_attempts int[],
    timeouts interval[],
    unique_keys text[],
    edge_children int[],
    edge_parents int[],
    edge_outside uuid[],
    edge_policies text[],
    guarded boolean
) returns boolean
language plpgsql volatile
set search_path from current
as $$
declare
    clock timestamptz := clock_timestamp();
    lanes int[] := store_jobs.priorities;
    children int[];
    parents int[];
    outside uuid[];
    policies text[];
    remaining int[];
    has_children boolean[];
begin
    if cardinality(store_jobs.edge_children) > 0 then
        select p.* into lanes, children, parents, outside, policies, remaining, has_children
        from plan_edges(
            store_jobs.ids, store_jobs.owners, store_jobs.priorities, store_jobs.edge_children,
            store_jobs.edge_parents, store_jobs.edge_outside, store_jobs.edge_policies
        ) p;
    end if;
    if guarded then
        -- Another transaction may be enqueuing the same id:
        -- then all of this is undone and looked at again.
        begin
            perform write_jobs(
                store_jobs.ids, store_jobs.owners, prints, store_jobs.kinds, store_jobs.args,
                store_jobs.queues, lanes, store_jobs.run_ats, store_jobs.max_attempts,
                store_jobs.timeouts, store_jobs.unique_keys, remaining, has_children, clock
            );
        exception when unique_violation then
            if current_setting('transaction_isolation') not in (
                'read committed', 'read uncommitted'
            ) then
                raise serialization_failure using
                    message = 'an id was enqueued since this transaction took its snapshot',
                    hint = 'Run the transaction again.';
            end if;
            delete from unique_keys u
            where u.job_id = any(store_jobs.ids)
                and not exists (select from jobs j where j.id = u.job_id);
            return false;
        end;
    else
        perform write_jobs(
            store_jobs.ids, store_jobs.owners, prints, store_jobs.kinds, store_jobs.args,
            store_jobs.queues, lanes, store_jobs.run_ats, store_jobs.max_attempts,
            store_jobs.timeouts, store_jobs.unique_keys, remaining, has_children, clock
        );
    end if;
    if children is not null then
        insert into dependencies (parent, child, policy)
        select store_jobs.ids[g.parent], store_jobs.ids[g.child], g.policy
        from unnest(children, parents, policies) g(child, parent, policy)
        where g.parent is not null;
        insert into links (parent, child, xid, policy)
        select g.outside, store_jobs.ids[g.child], pg_current_xact_id(), g.policy
        from unnest(children, outside, policies) g(child, outside, policy)
        where g.outside is not null;
        if found then
            set constraints tickets_link_at_commit deferred;
            insert into tickets (xid)
            values (pg_current_xact_id())
            on conflict on constraint tickets_pkey do nothing;
        end if;
    end if;
    return true;
end $$;
comment on function store_jobs is
    'Stores the fresh jobs of a call with their edges. False '
    'if another transaction stored one of their ids meanwhile.';

create or replace function write_jobs(
    ids uuid[],
    owners uuid[],
    prints uuid[],
    kinds text[],
    args jsonb[],
    queues text[],
    priorities int[],
    run_ats timestamptz[],
    max_attempts int[],
    timeouts interval[],
    unique_keys text[],
    remaining int[],
    has_children boolean[],
    clock timestamptz
) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    seqs bigint[];
    woken text[];
    simple boolean := write_jobs.owners is null
        and write_jobs.remaining is null
        and coalesce(clock >= all(write_jobs.run_ats), true);
begin
    with placed as (
        insert into ready as r (queue, priority, job_id, ready_at, args_bytes, kind)
        select
            g.queue,
            coalesce(g.priority, default_priority()),
            g.id,
            clock,
            octet_length(g.args::text),
            g.kind
        from unnest(
            write_jobs.ids, write_jobs.owners, write_jobs.kinds, write_jobs.args,
            write_jobs.queues, write_jobs.priorities, write_jobs.run_ats, write_jobs.remaining
        ) with ordinality g(id, owner, kind, args, queue, priority, run_at, remaining, n)
        where simple
            or g.owner is null
                and coalesce(g.remaining, 0) = 0
                and coalesce(g.run_at <= clock, true)
        order by g.n
        returning r.seq, r.queue
    )
    select array_agg(p.seq), array_agg(distinct p.queue) into seqs, woken
    from placed p;
    if not simple then
        -- Numbers were drawn in input order: the kth ready job has the kth.
        seqs := array(
            select case when g.is_ready then seqs[sum(g.is_ready::int) over (order by g.n)] end
            from (
                select
                    x.n,
                    x.owner is null
                        and coalesce(x.remaining, 0) = 0
                        and coalesce(x.run_at <= clock, true) as is_ready
                from unnest(
                    write_jobs.ids, write_jobs.owners, write_jobs.run_ats, write_jobs.remaining
                ) with ordinality x(id, owner, run_at, remaining, n)
            ) g
            order by g.n
        );
        insert into scheduled (job_id, run_at, priority, queue)
        select g.id, g.run_at, coalesce(g.priority, default_priority()), g.queue
        from unnest(
            write_jobs.ids, write_jobs.owners, write_jobs.queues, write_jobs.priorities,
            write_jobs.run_ats, write_jobs.remaining
        ) g(id, owner, queue, priority, run_at, remaining)
        where g.owner is null and coalesce(g.remaining, 0) = 0 and g.run_at > clock;
        insert into blocked (job_id, remaining, priority, queue)
        select g.id, g.remaining, g.priority, g.queue
        from unnest(
            write_jobs.ids, write_jobs.owners, write_jobs.queues, write_jobs.priorities,
            write_jobs.remaining
        ) g(id, owner, queue, priority, remaining)
        where g.owner is null and g.remaining > 0;
    end if;
    insert into jobs (
        id, state, priority, has_dependents, max_attempts, args_bytes, seq, run_at, created_at,
        timeout, fingerprint, queue, kind, unique_key, args
    )
    select
        g.id,
        case
            when g.remaining > 0 then 'blocked'
            when g.run_at > clock then 'scheduled'
            else 'ready'
        end,
        coalesce(g.priority, default_priority()),
        coalesce(g.has_children, false),
        coalesce(
            g.max_attempts,
            case when settings.any then (
                select q.max_attempts from queues q where q.name = g.queue
            ) end,
            default_max_attempts()
        ),
        octet_length(g.args::text),
        g.seq,
        coalesce(g.run_at, clock),
        clock,
        g.timeout,
        g.print,
        g.queue,
        g.kind,
        g.key,
        g.args
    from (
            select exists (select from queues q where q.max_attempts is not null) as any
        ) settings,
        unnest(
            write_jobs.ids, write_jobs.owners, write_jobs.prints, write_jobs.kinds,
            write_jobs.args, write_jobs.queues, write_jobs.priorities, write_jobs.run_ats,
            write_jobs.max_attempts, write_jobs.timeouts, write_jobs.unique_keys,
            write_jobs.remaining, write_jobs.has_children, seqs
        ) with ordinality g(
            id, owner, print, kind, args, queue, priority, run_at, max_attempts, timeout, key,
            remaining, has_children, seq, n
        )
    where g.owner is null
    order by g.id;
    perform wake(woken);
end $$;
comment on function write_jobs is
    'Inserts fresh jobs and the rows they wait in; owners, prints, '
    'remaining and has_children may be null for all nulls.';

-- The commonest call by far; the arrays of write_jobs would cost it three times as much.
create or replace function write_job(
    kind text,
    args jsonb,
    queue text,
    priority int,
    max_attempts int,
    timeout interval
) returns uuid
language plpgsql volatile
set search_path from current
as $$
declare
    clock timestamptz := clock_timestamp();
    lane int := coalesce(write_job.priority, default_priority());
    bytes int := octet_length(write_job.args::text);
    own uuid := (new_ids(1))[1];
    place bigint;
begin
    insert into ready as r (queue, priority, job_id, ready_at, args_bytes, kind)
    values (write_job.queue, lane, own, clock, bytes, write_job.kind)
    returning r.seq into place;
    insert into jobs (
        id, state, priority, max_attempts, args_bytes, seq, run_at, created_at, timeout, queue,
        kind, args
    )
    values (
        own,
        'ready',
        lane,
        coalesce(
            write_job.max_attempts,
            (select q.max_attempts from queues q where q.name = write_job.queue),
            default_max_attempts()
        ),
        bytes,
        place,
        clock,
        clock,
        write_job.timeout,
        write_job.queue,
        write_job.kind,
        write_job.args
    );
    perform wake(array[write_job.queue]);
    return own;
end $$;
comment on function write_job is
    'Inserts one job that is ready at once and has neither parents nor a key.';

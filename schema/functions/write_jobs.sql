-- Writing fresh jobs and the rows they wait in. The statement that draws seq has ready as its
-- target.

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
    wait_for_any boolean[],
    workflow uuid,
    clock timestamptz
) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    seqs bigint[];
    sizes int[];
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
        returning r.seq, r.args_bytes, r.queue
    )
    -- An order of its own: since 16 the planner may sort all of it for the distinct queues.
    select
        array_agg(p.seq order by p.seq),
        array_agg(p.args_bytes order by p.seq),
        array_agg(distinct p.queue)
    into seqs, sizes, woken
    from placed p;
    if not simple then
        sizes := array(
            select octet_length(a.args::text)
            from unnest(write_jobs.args) with ordinality a(args, n)
            order by a.n
        );
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
        where g.owner is null and coalesce(g.remaining, 0) = 0 and g.run_at > clock
        order by g.id;
        insert into blocked (job_id, remaining, priority, queue, wait_for_any)
        select g.id, g.remaining, g.priority, g.queue, coalesce(g.wait_for_any, false)
        from unnest(
            write_jobs.ids, write_jobs.owners, write_jobs.queues, write_jobs.priorities,
            write_jobs.remaining, write_jobs.wait_for_any
        ) g(id, owner, queue, priority, remaining, wait_for_any)
        where g.owner is null and g.remaining > 0
        order by g.id;
    end if;
    insert into jobs (
        id, state, priority, has_dependents, wait_for_any, max_attempts, args_bytes, seq, run_at,
        created_at, timeout, fingerprint, workflow, queue, kind, unique_key, args
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
        coalesce(g.wait_for_any, false),
        coalesce(
            g.max_attempts,
            case when settings.any then (
                select q.max_attempts from queues q where q.name = g.queue
            ) end,
            default_max_attempts()
        ),
        g.bytes,
        g.seq,
        coalesce(g.run_at, clock),
        clock,
        g.timeout,
        g.print,
        write_jobs.workflow,
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
            write_jobs.remaining, write_jobs.has_children, write_jobs.wait_for_any, seqs, sizes
        ) g(
            id, owner, print, kind, args, queue, priority, run_at, max_attempts, timeout, key,
            remaining, has_children, wait_for_any, seq, bytes
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
    own_priority int := coalesce(write_job.priority, default_priority());
    bytes int := octet_length(write_job.args::text);
    own_id uuid := (new_ids(1))[1];
    own_seq bigint;
begin
    insert into ready as r (queue, priority, job_id, ready_at, args_bytes, kind)
    values (write_job.queue, own_priority, own_id, clock, bytes, write_job.kind)
    returning r.seq into own_seq;
    insert into jobs (
        id, state, priority, max_attempts, args_bytes, seq, run_at, created_at, timeout, queue,
        kind, args
    )
    values (
        own_id,
        'ready',
        own_priority,
        coalesce(
            write_job.max_attempts,
            (select q.max_attempts from queues q where q.name = write_job.queue),
            default_max_attempts()
        ),
        bytes,
        own_seq,
        clock,
        clock,
        write_job.timeout,
        write_job.queue,
        write_job.kind,
        write_job.args
    );
    perform wake(array[write_job.queue]);
    return own_id;
end $$;
comment on function write_job is
    'Inserts one job that is ready at once and has neither parents nor a key.';

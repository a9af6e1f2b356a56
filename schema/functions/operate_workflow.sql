-- Operators' verbs on a whole workflow. As on single jobs, but what others
-- hold does not stop the rest: a set that meets a lock is halved, again and
-- again, until what is held stands alone. That is tried again, and in the end
-- answered as busy.

-- Planned for the arrays at hand: joined in a loop, those of a large workflow would take minutes.
create or replace function parents_first(ids uuid[]) returns uuid[]
language plpgsql stable
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
declare
    children int[];
    parents int[];
begin
    select
        coalesce(array_agg(c.n::int order by c.n, p.n), '{}'),
        coalesce(array_agg(p.n::int order by c.n, p.n), '{}')
    into children, parents
    from unnest(parents_first.ids) with ordinality c(id, n)
    join dependencies d on d.child = c.id
    join unnest(parents_first.ids) with ordinality p(id, n) on p.id = d.parent;
    return array(
        select parents_first.ids[o.place]
        from unnest(
            order_graph(cardinality(parents_first.ids), children, parents)
        ) with ordinality o(place, n)
        order by o.n
    );
end $$;
comment on function parents_first is 'These jobs, each after those of them that it waits for.';

create or replace function below(jobs uuid[]) returns uuid[]
language sql stable
set search_path from current
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
return array(
    with recursive down (id) as (
        select u.id
        from unnest(below.jobs) u(id)
        union
        select c.id
        from down
        cross join lateral (
            select d.child from dependencies d where d.parent = down.id offset 0
        ) d
        join jobs c on c.id = d.child
        where c.state <> 'completed'
    )
    select down.id from down
);
comment on function below is 'Jobs with their descendants, those behind completed ones left out.';

create or replace function in_halves(verb text, job_ids uuid[])
returns table (job_id uuid, verdict text)
language plpgsql volatile
set search_path from current
set lock_timeout = '20ms'
as $$
declare
    todo uuid[] := in_halves.job_ids;
    held uuid[];
    -- A child is never retried before its parent: it would no longer wait for it.
    barred uuid[];
    firsts int[];
    lasts int[];
    top int;
    first int;
    last int;
    part uuid[];
    near uuid[];
    is_holding boolean := false;
    deadline timestamptz;
begin
    for try in 1 .. 5 loop
        held := '{}';
        barred := case when try > 1 then '{}' end;
        firsts[1] := 1;
        lasts[1] := cardinality(todo);
        top := 1;
        while top > 0 loop
            first := firsts[top];
            last := lasts[top];
            top := top - 1;
            if clock_timestamp() > deadline then
                held := held || todo[first:last];
                continue;
            end if;
            part := array(
                select u.id
                from unnest(todo[first:last]) u(id)
                except
                select b.id
                from unnest(barred) b(id)
                order by 1
            );
            begin
                -- With locks of an earlier part there must be no waiting, or who waits for these
                -- would find a deadlock: first what the verb may wait for, without waiting.
                if is_holding then
                    perform hold_jobs(part);
                    near := below(part);
                    perform hold_jobs(array(
                        select j.id
                        from jobs j
                        where j.id = any(near) and j.state = 'blocked'
                        order by j.id
                    ));
                end if;
                return query select w.id, w.word from once(in_halves.verb, part, null) w;
                is_holding := true;
                if barred <> '{}' then
                    held := held || array(
                        select u.id
                        from unnest(todo[first:last]) with ordinality u(id, n)
                        where u.id in (select b.id from unnest(barred) b(id))
                        order by u.n
                    );
                end if;
            exception when lock_not_available then
                deadline := coalesce(deadline, clock_timestamp() + interval '5 seconds');
                if first = last then
                    held := held || todo[first];
                    if in_halves.verb = 'retry' then
                        barred := array(
                            select b.id
                            from unnest(barred) b(id)
                            union
                            select d.id
                            from unnest(below(todo[first:first])) d(id)
                        );
                    end if;
                    continue;
                end if;
                if in_halves.verb = 'retry' and barred is null then
                    barred := '{}';
                    todo := parents_first(todo);
                end if;
                firsts[top + 1] := (first + last) / 2 + 1;
                lasts[top + 1] := last;
                firsts[top + 2] := first;
                lasts[top + 2] := (first + last) / 2;
                top := top + 2;
            end;
        end loop;
        todo := held;
        exit when todo = '{}' or clock_timestamp() > deadline;
        perform pg_sleep(0.02 * try);
    end loop;
    return query select u.id, 'busy' from unnest(todo) u(id);
end $$;
comment on function in_halves is
    'A verb for each of these jobs that is not held by others; busy for those that are.';

create or replace function cancel_workflow(id uuid) returns table (job_id uuid, verdict text)
language plpgsql volatile security definer
set search_path from current
as $$
declare
    unfinished uuid[];
    cancelled uuid[];
    finished uuid[];
begin
    perform need_read_committed('cancel_workflow');
    -- Read once: a job that ends between two looks would be told of twice, or not at all.
    select
        coalesce(array_agg(j.id order by j.id) filter (where j.finished_at is null), '{}'),
        array_agg(j.id order by j.id) filter (where j.state = 'cancelled'),
        array_agg(j.id order by j.id) filter (where j.state in ('completed', 'discarded'))
    into unfinished, cancelled, finished
    from jobs j
    where j.workflow = cancel_workflow.id;
    return query select u.id, 'cancelled' from unnest(cancelled) u(id);
    return query select u.id, 'finished' from unnest(finished) u(id);
    return query select v.job_id, v.verdict from in_halves('cancel', unfinished) v;
    perform confirm_repeat();
end $$;
comment on function cancel_workflow is
    'Cancels what waits of a workflow and asks what runs to stop. A row a job: the verdicts of '
    'cancel(), or busy for one that others still held after five tries. No row for an unknown id.';

create or replace function retry_workflow(id uuid) returns table (job_id uuid, verdict text)
language plpgsql volatile security definer
set search_path from current
as $$
declare
    ended uuid[];
    fallen uuid[];
    completed uuid[];
    unfinished uuid[];
begin
    perform need_read_committed('retry_workflow');
    select
        array_agg(j.id order by j.id) filter (
            where j.state = 'discarded' or j.state = 'cancelled' and j.cause is null
        ),
        array_agg(j.id order by j.id) filter (where j.state = 'cancelled' and j.cause is not null),
        array_agg(j.id order by j.id) filter (where j.state = 'completed'),
        array_agg(j.id order by j.id) filter (where j.finished_at is null)
    into ended, fallen, completed, unfinished
    from jobs j
    where j.workflow = retry_workflow.id;
    return query select u.id, 'completed' from unnest(completed) u(id);
    return query select u.id, 'unfinished' from unnest(unfinished) u(id);
    if ended is not null then
        return query select v.job_id, v.verdict from in_halves('retry', ended) v;
    end if;
    -- In a new statement: those that fell have come back with the jobs that they fell with, or not.
    return query
        select j.id, case when j.state = 'cancelled' then 'unchanged' else 'retried' end
        from unnest(fallen) f(id)
        join jobs j on j.id = f.id;
end $$;
comment on function retry_workflow is
    'Lets the discarded jobs of a workflow run again and those cancelled on request, with what '
    'fell with them. A row a job: the verdicts of retry(), busy for one that others still held '
    'after five tries or that waits for such a one, unchanged for one that fell with a job that '
    'was not retried. No row for an unknown id.';

-- The retry rule, once: fail, snooze, release, lost leases and time-outs all end here.

create or replace function reschedule(
    ids uuid[],
    ats timestamptz[],
    discards boolean[],
    counts int
) returns text[]
language plpgsql volatile
set search_path from current
as $$
declare
    clock timestamptz := clock_timestamp();
    moving uuid[];
    words text[];
    run_ats timestamptz[];
    reasons text[];
    seqs bigint[];
    woken text[];
    ended uuid[];
    cancelled uuid[];
    keyed boolean;
begin
    -- Held first: whether a job was asked to stop is read from the row as it is under the lock.
    perform from jobs j where j.id = any(reschedule.ids) order by j.id for no key update;
    select
        array_agg(x.id order by x.id),
        array_agg(x.state order by x.id),
        array_agg(x.run_at order by x.id),
        array_agg(x.reason order by x.id)
    into moving, words, run_ats, reasons
    from (
        select
            j.id,
            d.state,
            case
                when d.state = 'scheduled'
                    then coalesce(g.at, clock + backoff(j.failures + reschedule.counts))
                else j.run_at
            end as run_at,
            case d.state
                when 'cancelled' then 'cancelled on request'
                when 'discarded'
                    then case
                        when g.discard then 'discarded by its worker'
                        else 'max_attempts reached'
                    end
            end as reason
        from unnest(reschedule.ids, reschedule.ats, reschedule.discards) g(id, at, discard)
        join jobs j on j.id = g.id
        cross join lateral (
            select case
                when j.cancel_requested_at is not null then 'cancelled'
                when g.discard
                    or reschedule.counts > 0 and j.failures + reschedule.counts >= j.max_attempts
                    then 'discarded'
                else 'scheduled'
            end as state
        ) d
        where j.state = 'running'
    ) x;
    with placed as (
        insert into ready as r (queue, priority, job_id, ready_at, args_bytes, kind)
        select j.queue, j.priority, j.id, clock, j.args_bytes, j.kind
        from unnest(moving, words, run_ats) g(id, state, run_at)
        join jobs j on j.id = g.id
        where g.state = 'scheduled' and g.run_at <= clock
        order by j.id
        returning r.seq, r.queue
    )
    select array_agg(p.seq order by p.seq), array_agg(distinct p.queue) into seqs, woken
    from placed p;
    insert into scheduled (job_id, run_at, priority, queue)
    select j.id, g.run_at, j.priority, j.queue
    from unnest(moving, words, run_ats) g(id, state, run_at)
    join jobs j on j.id = g.id
    where g.state = 'scheduled' and g.run_at > clock
    order by j.id;
    -- One update a job: a second one in this transaction would find no room on the page. Numbers
    -- were drawn in the order of ids: the kth due job has the kth.
    with moved as (
        update jobs j
        set failures = j.failures + reschedule.counts,
            state = g.state,
            seq = g.seq,
            run_at = g.run_at,
            finished_at = case when g.state in ('cancelled', 'discarded') then clock end,
            reason = g.reason
        from (
            select
                x.id,
                case when x.is_due then 'ready' else x.state end as state,
                case when x.is_due then seqs[sum(x.is_due::int) over (order by x.id)] end as seq,
                x.run_at,
                x.reason
            from (
                select u.*, u.state = 'scheduled' and u.run_at <= clock as is_due
                from unnest(moving, words, run_ats, reasons) u(id, state, run_at, reason)
            ) x
        ) g
        where j.id = g.id
        returning j.id, j.state, j.has_dependents, j.unique_key
    )
    select
        array_agg(m.id order by m.id) filter (
            where m.state in ('cancelled', 'discarded') and m.has_dependents
        ),
        array_agg(m.id order by m.id) filter (where m.state = 'cancelled'),
        bool_or(m.unique_key is not null and m.state in ('cancelled', 'discarded'))
    into ended, cancelled, keyed
    from moved m;
    perform wake(woken);
    if cancelled is not null then
        update executions e set outcome = 'cancelled'
        from jobs j
        where j.id = any(cancelled) and e.job_id = j.id and e.attempt = j.attempt;
    end if;
    if ended is not null then
        perform cascade_ended(ended);
    end if;
    if keyed then
        perform free_keys(array(
            select j.id
            from jobs j
            where j.id = any(reschedule.ids) and j.finished_at is not null
        ));
    end if;
    return words;
end $$;
comment on function reschedule is
    'Where running jobs (sorted ids) go whose executions were just closed without success: back to '
    'wait until the given time (null: the backoff), discarded, or cancelled if they were asked to '
    'stop. Gives scheduled, discarded or cancelled for each.';

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
    words text[];
    staying uuid[];
    ended uuid[];
    cancelled uuid[];
    keyed boolean;
begin
    -- Held first: whether a job was asked to stop is read from the row as it is under the lock.
    perform from jobs j where j.id = any(reschedule.ids) order by j.id for no key update;
    with moved as (
        update jobs j
        set failures = j.failures + reschedule.counts,
            state = d.state,
            run_at = case
                when d.state = 'scheduled'
                    then coalesce(g.at, clock + backoff(j.failures + reschedule.counts))
                else j.run_at
            end,
            finished_at = case when d.state <> 'scheduled' then clock end,
            reason = case d.state
                when 'cancelled' then 'cancelled on request'
                when 'discarded'
                    then case
                        when g.discard then 'discarded by its worker'
                        else 'max_attempts reached'
                    end
            end
        from unnest(reschedule.ids, reschedule.ats, reschedule.discards) g(id, at, discard)
        join jobs k on k.id = g.id
        cross join lateral (
            select case
                when k.cancel_requested_at is not null then 'cancelled'
                when g.discard
                    or reschedule.counts > 0 and k.failures + reschedule.counts >= k.max_attempts
                    then 'discarded'
                else 'scheduled'
            end as state
        ) d
        where j.id = g.id and j.state = 'running'
        returning j.id, j.state, j.has_dependents, j.unique_key
    )
    select
        array_agg(m.state order by m.id),
        array_agg(m.id order by m.id) filter (where m.state = 'scheduled'),
        array_agg(m.id order by m.id) filter (where m.state <> 'scheduled' and m.has_dependents),
        array_agg(m.id order by m.id) filter (where m.state = 'cancelled'),
        bool_or(m.unique_key is not null and m.state <> 'scheduled')
    into words, staying, ended, cancelled, keyed
    from moved m;
    if staying is not null then
        perform place(staying);
    end if;
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

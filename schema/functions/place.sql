-- Moving waiting jobs to where they can be acquired. Every
-- verb that makes a job ready ends here or in write_jobs.

create or replace function place(ids uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    clock timestamptz := clock_timestamp();
    due uuid[];
    seqs bigint[];
    woken text[];
begin
    with placed as (
        insert into ready as r (queue, priority, job_id, ready_at, args_bytes, kind)
        select j.queue, j.priority, j.id, clock, j.args_bytes, j.kind
        from jobs j
        where j.id = any(place.ids) and j.run_at <= clock
        order by j.id
        returning r.job_id, r.seq, r.queue
    )
    select
        array_agg(p.job_id order by p.seq),
        array_agg(p.seq order by p.seq),
        array_agg(distinct p.queue)
    into due, seqs, woken
    from placed p;
    if due is not null then
        -- By place, as in cascade_completed: ids and numbers are sorted alike.
        update jobs j
        set state = 'ready',
            seq = seqs[
                width_bucket(j.id, array(select u.id from unnest(due) u(id) order by u.id))
            ]
        where j.id = any(due);
        perform wake(woken);
    end if;
    if coalesce(cardinality(due), 0) < cardinality(place.ids) then
        insert into scheduled (job_id, run_at, priority, queue)
        select j.id, j.run_at, j.priority, j.queue
        from jobs j
        where j.id = any(place.ids) and j.run_at > clock
        order by j.id;
        update jobs j set state = 'scheduled', seq = null
        where j.id = any(place.ids) and j.run_at > clock;
    end if;
end $$;
comment on function place is
    'Puts jobs that wait nowhere (sorted ids, rows held) '
    'into ready or, if they are not due, scheduled.';

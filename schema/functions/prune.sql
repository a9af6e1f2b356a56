-- Prune walks the jobs in the order of their ids, which is the order of their birth, in two places:
-- at the front, where jobs have just become old enough, each once; and in rounds over all that is
-- older, for those that ended late. Ids that are not UUIDv7 stand behind and are met in rounds. A
-- round that finds little is followed by a rest ten times as long as its looking took: what stays,
-- and dead rows under a pinned horizon, are not read over and over.

create or replace function forget(ids uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    first uuid := forget.ids[1];
    last uuid := forget.ids[cardinality(forget.ids)];
    flows uuid[];
begin
    -- Mostly there is no edge near: one probe instead of one a job.
    if exists (select from dependencies d where d.parent between first and last) then
        delete from dependencies d where d.parent = any(forget.ids);
    end if;
    if exists (select from dependencies d where d.child between first and last) then
        delete from dependencies d where d.child = any(forget.ids);
    end if;
    if exists (select from links l where l.child between first and last) then
        delete from links l where l.child = any(forget.ids);
    end if;
    delete from executions e where e.job_id = any(forget.ids);
    with gone as (
        delete from jobs j where j.id = any(forget.ids) returning j.workflow
    )
    select array_agg(distinct g.workflow order by g.workflow) into flows
    from gone g
    where g.workflow is not null;
    if flows is not null then
        delete from workflows w
        where w.id = any(flows)
            and not exists (select from jobs j where j.workflow = w.id offset 0);
    end if;
end $$;
comment on function forget is
    'Deletes jobs (sorted ids, rows held) with their edges '
    'and executions, and the workflows of which they were the last.';

create or replace function is_needed(job uuid) returns boolean
language sql stable
set search_path from current
return exists (select from links l where l.parent = is_needed.job)
    or exists (
        select from dependencies d
        where d.parent = is_needed.job
            and exists (
                select from jobs c where c.id = d.child and c.finished_at is null offset 0
            )
    );
comment on function is_needed is 'Whether an unfinished child or a link names the job as parent.';

create or replace function forget_unneeded(ids uuid[]) returns bigint
language plpgsql volatile
set search_path from current
as $$
declare
    doomed uuid[] := forget_unneeded.ids;
    first uuid := doomed[1];
    last uuid := doomed[cardinality(doomed)];
    one uuid;
    done bigint := 0;
begin
    -- In a new statement, under the locks: a child may have
    -- been attached since the jobs were chosen.
    if exists (select from links l where l.parent between first and last)
        or exists (select from dependencies d where d.parent between first and last)
    then
        doomed := array(
            select u.id from unnest(doomed) u(id) where not is_needed(u.id) order by u.id
        );
    end if;
    begin
        perform forget(doomed);
        return cardinality(doomed);
    exception when foreign_key_violation then
        -- A table of the user's keeps one of them: the others go all the same.
        foreach one in array doomed loop
            begin
                perform forget(array[one]);
                done := done + 1;
            exception when foreign_key_violation then
                null;
            end;
        end loop;
        return done;
    end;
end $$;
comment on function forget_unneeded is
    'Deletes those of these ended jobs (sorted ids, rows held) that nothing needs; gives how many.';

create or replace function prune_between(
    above uuid,
    below uuid,
    max_rows int,
    out done bigint,
    out looked bigint,
    out last uuid,
    out reached boolean,
    out busy interval
)
language plpgsql volatile
set search_path from current
as $$
declare
    clock timestamptz := clock_timestamp();
    most int := prune_between.max_rows * 10;
    old uuid[];
begin
    -- It ends at the last job that may go in this run, else at the last there is to look at.
    select
        array_agg(x.id order by x.n) filter (where x.is_old),
        coalesce(max(x.n), 0),
        (array_agg(x.id order by x.n desc))[1],
        coalesce(bool_or(x.is_last and x.n < most), true)
    into old, looked, last, reached
    from (
        select w.id, w.n, w.is_old, w.is_last
        from (
            select
                j.id,
                row_number() over () as n,
                lead(j.id) over () is null as is_last,
                coalesce(j.finished_at < clock - retention_of(j.state, q), false) as is_old
            from (
                select y.id, y.state, y.queue, y.finished_at
                from jobs y
                where y.id > prune_between.above and y.id < prune_between.below
                order by y.id limit most
            ) j
            left join queues q on q.name = j.queue
        ) w
        where w.is_old or w.is_last
        limit prune_between.max_rows
    ) x;
    busy := clock_timestamp() - clock;
    done := 0;
    old := array(
        select j.id
        from jobs j
        left join queues q on q.name = j.queue
        where j.id = any(old)
            and j.finished_at < clock - retention_of(j.state, q)
            and not (j.has_dependents and is_needed(j.id))
        order by j.id for update of j skip locked
    );
    if old <> '{}' then
        done := forget_unneeded(old);
    end if;
end $$;
comment on function prune_between is
    'Looks at jobs between two ids, ten times max_rows at most, and deletes max_rows '
    'of them at most; gives the last one looked at, and whether that was the end.';

create or replace function retention_of(state text, settings queues) returns interval
language sql immutable parallel safe
return case retention_of.state
    when 'discarded'
        then coalesce(
            (retention_of.settings).discarded_retention, default_of('discarded_retention')
        )
    else coalesce((retention_of.settings).retention, default_of('retention'))
end;
comment on function retention_of is
    'How long a job that ended so stays in a queue of these settings (null: the defaults).';

create or replace function prune(max_rows int) returns table (done bigint, more boolean)
language plpgsql volatile security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    round duties;
    part record;
    -- Nothing born since the shortest retention began can be old enough.
    young uuid := id_at(
        clock_timestamp() - (
            select least(default_of('retention'), min(q.retention), min(q.discarded_retention))
            from queues q
        )
    );
    foreign_ids uuid := id_at(clock_timestamp() + interval '1 day');
begin
    perform need_read_committed('prune');
    select d.* into round
    from duties d
    where d.duty = 'prune'
    for update;
    round.front := least(round.front, young);
    part := prune_between(round.front, young, prune.max_rows);
    round.front := coalesce(case when not part.reached then part.last end, young);
    done := part.done;
    more := not part.reached;
    if round.position is null and round.rests_until <= clock_timestamp() then
        round.position := '00000000-0000-0000-0000-000000000000';
        round.looked := 0;
        round.done := 0;
        round.busy := '0';
    end if;
    while round.position is not null and done < prune.max_rows loop
        part := prune_between(
            round.position,
            case
                when round.position < foreign_ids then young
                else 'ffffffff-ffff-ffff-ffff-ffffffffffff'
            end,
            (prune.max_rows - done)::int
        );
        done := done + part.done;
        round.looked := round.looked + part.looked;
        round.done := round.done + part.done;
        round.busy := round.busy + part.busy;
        if not part.reached then
            round.position := part.last;
            exit;
        elsif round.position < foreign_ids then
            round.position := foreign_ids;
        else
            round.position := null;
            round.rests_until := case
                when round.done * 10 <= round.looked
                    then clock_timestamp() + round.busy * 10 - interval '1 second'
                else '-infinity'
            end;
        end if;
    end loop;
    more := more or round.position is not null;
    update duties d
    set position = round.position,
        front = round.front,
        looked = round.looked,
        done = round.done,
        busy = round.busy,
        rests_until = round.rests_until
    where d.duty = 'prune';
    delete from workers w
    where w.id = any(array(
        select x.id
        from workers x
        where x.lease_ends_at < clock_timestamp() - default_of('worker_retention')
            and not exists (select from grants g where g.worker = x.id)
        order by x.id limit prune.max_rows for update skip locked
    ));
    return next;
end $$;
comment on function prune is
    'The duty that deletes jobs ended longer ago than their queue''s '
    'retention, but for those with an unfinished child or a link.';

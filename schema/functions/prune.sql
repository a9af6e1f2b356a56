-- Prune walks the jobs in id order, which is the order of their birth, from where it stopped; ids
-- that are not UUIDv7 stand behind and are walked in each round too.

create or replace function forget(ids uuid[]) returns void
language sql volatile
set search_path from current
begin atomic
    delete from dependencies d where d.parent = any(forget.ids);
    delete from dependencies d where d.child = any(forget.ids);
    delete from executions e where e.job_id = any(forget.ids);
    delete from jobs j where j.id = any(forget.ids);
end;
comment on function forget is 'Deletes jobs (rows held) with their edges and executions.';

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
    here uuid;
    seen uuid[];
    doomed uuid[];
    one uuid;
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
    select d.position into here
    from duties d
    where d.duty = 'prune'
    for update;
    here := coalesce(here, '00000000-0000-0000-0000-000000000000');
    seen := array(
        select x.id
        from (
            (
                select j.id
                from jobs j
                where j.id > here and j.id < young
                order by j.id limit prune.max_rows
            )
            union all
            (
                select j.id
                from jobs j
                where j.id > here and j.id >= foreign_ids
                order by j.id limit prune.max_rows
            )
        ) x
        limit prune.max_rows
    );
    doomed := array(
        select j.id
        from jobs j
        left join queues q on q.name = j.queue
        where j.id = any(seen)
            and j.finished_at < clock_timestamp() - case j.state
                when 'discarded'
                    then coalesce(q.discarded_retention, default_of('discarded_retention'))
                else coalesce(q.retention, default_of('retention'))
            end
            and not exists (select from links l where l.parent = j.id)
            and not (
                j.has_dependents
                and exists (
                    select from dependencies d
                    where d.parent = j.id
                        and exists (
                            select from jobs c
                            where c.id = d.child and c.finished_at is null
                            offset 0
                        )
                )
            )
        order by j.id for update of j skip locked
    );
    -- In a new statement, under the locks: a child may
    -- have been attached since the first one began.
    doomed := array(
        select u.id
        from unnest(doomed) u(id)
        where not exists (select from links l where l.parent = u.id)
            and not exists (
                select from dependencies d
                where d.parent = u.id
                    and exists (
                        select from jobs c
                        where c.id = d.child and c.finished_at is null
                        offset 0
                    )
            )
    );
    begin
        perform forget(doomed);
        done := cardinality(doomed);
    exception when foreign_key_violation then
        -- A table of the user's keeps one of them: the others go all the same.
        done := 0;
        foreach one in array doomed loop
            begin
                perform forget(array[one]);
                done := done + 1;
            exception when foreign_key_violation then
                null;
            end;
        end loop;
    end;
    delete from workers w
    where w.id = any(array(
        select x.id
        from workers x
        where x.lease_ends_at < clock_timestamp() - default_of('worker_retention')
            and not exists (select from grants g where g.worker = x.id)
        order by x.id limit prune.max_rows for update skip locked
    ));
    update duties d
    set position = case when cardinality(seen) = prune.max_rows then seen[prune.max_rows] end
    where d.duty = 'prune';
    more := done > 0 and cardinality(seen) = prune.max_rows;
    return next;
end $$;
comment on function prune is
    'The duty that deletes jobs ended longer ago than their queue''s '
    'retention, but for those with an unfinished child or a link.';

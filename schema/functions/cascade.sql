-- What a finished parent does to its children. Called after the parent's
-- row was changed, as statements of their own: a fresh snapshot sees
-- edges that were committed while we waited for the parent's row.
-- Lock order: job rows -> blocked by job_id -> children's job rows -> unique_keys.

create or replace function unblock(children uuid[]) returns int
language plpgsql volatile
set search_path from current
as $$
declare
    freed uuid[];
begin
    with gone as (
        delete from blocked b
        where b.job_id = any(unblock.children) and b.remaining = 0
        returning b.job_id
    )
    select array_agg(g.job_id order by g.job_id) into freed
    from gone g;
    if freed is not null then
        perform place(freed);
    end if;
    return coalesce(cardinality(freed), 0);
end $$;
comment on function unblock is
    'Releases those of these children that wait for nothing more; their blocked rows are held.';

create or replace function has_its_parent(child uuid) returns boolean
language sql stable
set search_path from current
return exists (
    select from dependencies d
    join jobs p on p.id = d.parent
    where d.child = has_its_parent.child
        and (p.state = 'completed' or d.policy = 'continue' and p.finished_at is not null)
);
comment on function has_its_parent is
    'Whether one of the parents has ended in a way that a child may run after.';

create or replace function recount(children uuid[]) returns void
language sql volatile
set search_path from current
begin atomic
    update blocked b set remaining = c.remaining
    from (
        select
            k.child,
            case
                when x.wait_for_any and has_its_parent(k.child) then 0
                else (
                    select count(*)
                    from dependencies d
                    join jobs j on j.id = d.parent
                    where d.child = k.child
                        and (j.finished_at is null or d.policy = 'hold' and j.state <> 'completed')
                ) + (
                    -- Counted, since an EXISTS may be answered by reading all links.
                    select count(*) from (select from links l where l.child = k.child limit 1) l
                )
            end as remaining
        from unnest(recount.children) k(child)
        join blocked x on x.job_id = k.child
    ) c
    where b.job_id = c.child and b.remaining <> c.remaining;
end;
comment on function recount is
    'Counts anew what blocked children (rows held) wait for: '
    'unfinished parents, parents that hold them, and links; nothing '
    'more where one parent is enough and has ended.';

create or replace function cascade_completed(parents uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    children uuid[];
    counts int[];
    held uuid[];
    freed uuid[];
    early boolean;
begin
    select array_agg(x.child order by x.child), array_agg(x.n order by x.child)
    into children, counts
    from (
        -- By parent, whatever the planner thinks of the order of children.
        select d.child, count(*)::int as n
        from unnest(cascade_completed.parents) p(id)
        cross join lateral (
            select y.child from dependencies y where y.parent = p.id offset 0
        ) d
        group by d.child
    ) x;
    if children is null then
        return;
    end if;
    -- Those that still wait: looked up once a child here, not once an edge above.
    held := array(
        select b.job_id
        from blocked b
        where b.job_id = any(children)
        order by b.job_id for update
    );
    -- A child's count is found by its place among the sorted children: with a join, statistics that
    -- call blocked small would have all of one read for each row of the other. In a query of its
    -- own the array is unpacked once.
    with gone as (
        delete from blocked b
        where b.job_id = any(held)
            and (
                b.wait_for_any
                or b.remaining = counts[
                    width_bucket(
                        b.job_id, array(select u.id from unnest(children) u(id) order by u.id)
                    )
                ]
            )
        returning b.job_id, b.wait_for_any
    )
    select array_agg(g.job_id order by g.job_id), bool_or(g.wait_for_any) into freed, early
    from gone g;
    if early then
        delete from links l where l.child = any(freed);
    end if;
    if coalesce(cardinality(freed), 0) < cardinality(held) then
        update blocked b
        set remaining = b.remaining - counts[
            width_bucket(b.job_id, array(select u.id from unnest(children) u(id) order by u.id))
        ]
        where b.job_id = any(held);
    end if;
    if freed is not null then
        perform place(freed);
    end if;
end $$;
comment on function cascade_completed is
    'Counts completed parents off their children and releases those that wait for nothing more.';

create or replace function falls(child uuid) returns boolean
language sql stable
return coalesce((select not b.wait_for_any from blocked b where b.job_id = falls.child), false);
comment on function falls is
    'Whether a job is blocked and falls with the first parent that cancels it.';

create or replace function closure_of(
    ended uuid[],
    out doomed uuid[],
    out causes uuid[],
    out touched uuid[]
)
language plpgsql volatile
set search_path from current
as $$
begin
    -- The first cause travels down from what ended, each job taking it from one of its parents.
    with recursive fall (id, cause) as (
        select d.child, min(coalesce(p.cause, p.id)::text)::uuid
        from jobs p
        cross join lateral (
            select y.child
            from dependencies y
            where y.parent = p.id and y.policy = 'cancel'
            offset 0
        ) d
        where p.id = any(closure_of.ended) and falls(d.child)
        group by d.child
        union
        select x.child, x.cause
        from (
            select distinct on (d.child) d.child, f.cause
            from fall f
            cross join lateral (
                select y.child
                from dependencies y
                where y.parent = f.id and y.policy = 'cancel'
                offset 0
            ) d
            where falls(d.child)
            order by d.child, f.cause
        ) x
    )
    select array_agg(x.id order by x.id), array_agg(x.cause order by x.id) into doomed, causes
    from (
        select f.id, min(f.cause::text)::uuid as cause
        from fall f
        group by f.id
    ) x;
    select array_agg(x.child order by x.child) into touched
    from (
        select distinct d.child
        from unnest(closure_of.ended || doomed) p(id)
        join dependencies d on d.parent = p.id
        join blocked b on b.job_id = d.child
        where d.policy <> 'cancel' or b.wait_for_any
        except
        select k.id
        from unnest(doomed) k(id)
    ) x;
end $$;
comment on function closure_of is
    'The blocked jobs that fall with these ended ones, at any depth, each with '
    'its first cause, and those that only hear of it (continue, hold, any).';

create or replace function cascade_ended(parents uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    ended uuid[] := cascade_ended.parents;
    fall record;
    before uuid[];
begin
    -- Read the whole closure, lock it in one statement,
    -- write it; then read again for edges committed between.
    loop
        fall := closure_of(ended);
        exit when fall.doomed is null and fall.touched is not distinct from before;
        perform from blocked b
        where b.job_id = any(fall.doomed || fall.touched)
        order by b.job_id for update;
        ended := ended || cancel_blocked(fall.doomed, fall.causes);
        perform hold_children(fall.touched);
        perform recount(fall.touched);
        ended := ended || cancel_forsaken(fall.touched);
        perform unblock(fall.touched);
        before := fall.touched;
    end loop;
end $$;
comment on function cascade_ended is
    'Applies the policies of the children of cancelled and '
    'discarded parents, and of theirs: cancel, continue, hold.';

create or replace function cancel_forsaken(children uuid[]) returns uuid[]
language plpgsql volatile
set search_path from current
as $$
declare
    doomed uuid[];
    causes uuid[];
begin
    select array_agg(x.child order by x.child), array_agg(x.cause order by x.child)
    into doomed, causes
    from (
        select b.job_id as child, min(coalesce(p.cause, p.id)::text)::uuid as cause
        from blocked b
        join dependencies d on d.child = b.job_id
        join jobs p on p.id = d.parent
        where b.job_id = any(cancel_forsaken.children)
            and b.wait_for_any
            and b.remaining = 0
            and not has_its_parent(b.job_id)
        group by b.job_id
    ) x;
    return cancel_blocked(doomed, causes);
end $$;
comment on function cancel_forsaken is
    'Cancels those of these counted children (rows held) that wait '
    'for any parent when none is left that could release them.';

create or replace function cancel_blocked(doomed uuid[], causes uuid[]) returns uuid[]
language plpgsql volatile
set search_path from current
as $$
declare
    written uuid[];
    keyed boolean;
begin
    if doomed is null then
        return '{}';
    end if;
    with gone as (
        delete from blocked b
        using unnest(cancel_blocked.doomed, cancel_blocked.causes) d(id, cause)
        where b.job_id = d.id
        returning b.job_id, d.cause
    )
    select
        coalesce(array_agg(g.job_id order by g.job_id), '{}'),
        array_agg(g.cause order by g.job_id)
    into written, causes
    from gone g;
    with gone as (
        update jobs j
        set state = 'cancelled',
            finished_at = clock_timestamp(),
            cause = w.cause,
            reason = 'a parent was ' || coalesce(r.state, 'cancelled')
        from unnest(written, causes) w(id, cause)
        left join jobs r on r.id = w.cause
        where j.id = w.id
        returning j.unique_key
    )
    select bool_or(g.unique_key is not null) into keyed
    from gone g;
    delete from links l where l.child = any(written);
    if keyed then
        perform free_keys(written);
    end if;
    return written;
end $$;
comment on function cancel_blocked is
    'Cancels blocked jobs (rows held) whose parents ended, with the first cause on each.';

create or replace function hold_children(children uuid[]) returns void
language sql volatile
set search_path from current
begin atomic
    update jobs j set cause = x.cause, reason = 'held: a parent was ' || x.state
    from (
        select distinct on (d.child) d.child, coalesce(p.cause, p.id) as cause, p.state
        from unnest(hold_children.children) k(id)
        join dependencies d on d.child = k.id and d.policy = 'hold'
        join jobs p on p.id = d.parent
        join blocked b on b.job_id = d.child
        where p.state in ('cancelled', 'discarded')
            and (not b.wait_for_any or (
                select q.id
                from dependencies o
                join jobs q on q.id = o.parent
                where o.child = d.child and q.finished_at is null
                limit 1
            ) is null)
        order by d.child, p.finished_at
    ) x
    where j.id = x.child and j.cause is null;
end;
comment on function hold_children is 'Marks held children with the parent that holds them.';

create or replace function free_keys(ids uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
begin
    perform from unique_keys u
    join jobs j on j.unique_key = u.key and j.id = u.job_id
    where j.id = any(free_keys.ids)
    order by u.key for update of u;
    delete from unique_keys u
    using jobs j
    where j.id = any(free_keys.ids) and j.unique_key = u.key and j.id = u.job_id;
end $$;
comment on function free_keys is 'Gives back the unique keys of jobs that ended.';

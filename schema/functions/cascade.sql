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
    early uuid[];
begin
    with gone as (
        delete from blocked b
        where b.job_id = any(unblock.children) and b.remaining = 0
        returning b.job_id, b.wait_for_any
    )
    select
        array_agg(g.job_id order by g.job_id),
        array_agg(g.job_id order by g.job_id) filter (where g.wait_for_any)
    into freed, early
    from gone g;
    if early is not null then
        delete from links l where l.child = any(early);
    end if;
    if freed is not null then
        perform place(freed);
    end if;
    return coalesce(cardinality(freed), 0);
end $$;
comment on function unblock is
    'Releases those of these children that wait for nothing more; their blocked rows are held.';

create or replace function recount(children uuid[]) returns void
language sql volatile
set search_path from current
begin atomic
    -- Without a join, which might begin with all that is blocked; and all by the
    -- edges of the one child, whatever statistics say of jobs and links.
    update blocked b
    set remaining = case
        when b.wait_for_any
            and (
                select count(*)
                from (
                    select
                    from dependencies d
                    cross join lateral (
                        select x.state, x.finished_at from jobs x where x.id = d.parent offset 0
                    ) p
                    where d.child = b.job_id
                        and (
                            p.state = 'completed'
                            or d.policy = 'continue' and p.finished_at is not null
                        )
                    limit 1
                ) x
            ) > 0
            then 0
        else (
            select count(*)
            from dependencies d
            cross join lateral (
                select x.state, x.finished_at from jobs x where x.id = d.parent offset 0
            ) p
            where d.child = b.job_id
                and (p.finished_at is null or d.policy = 'hold' and p.state <> 'completed')
        ) + (select count(*) from (select from links l where l.child = b.job_id limit 1) x)
    end
    where b.job_id = any(recount.children);
end;
comment on function recount is
    'Counts anew what blocked children (rows held) wait for: unfinished parents, parents that hold '
    'them, and links; nothing where one parent is enough and has ended well.';

create or replace function cascade_completed(parents uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    children uuid[];
    counts int[];
    held uuid[];
    freed uuid[];
    early uuid[];
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
    select
        array_agg(g.job_id order by g.job_id),
        array_agg(g.job_id order by g.job_id) filter (where g.wait_for_any)
    into freed, early
    from gone g;
    if early is not null then
        delete from links l where l.child = any(early);
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

-- What the parents of a job gave, for the job that waited for them. Volatile: called beside
-- acquire() in one statement, it must see what ended after that statement began.

create or replace function inputs_of(job_ids uuid[]) returns table (
    job_id uuid,
    ref text,
    parent uuid,
    state text,
    result jsonb,
    omitted boolean
)
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
    bytes bigint := 0;
    given boolean;
begin
    perform check_count(
        'inputs_of', 'jobs', cardinality(inputs_of.job_ids), limit_of('finish_jobs')
    );
    for job_id, ref, parent, state, result in
        select u.id, coalesce(d.ref, d.parent::text), d.parent, p.state, e.result
        from unnest(inputs_of.job_ids) with ordinality u(id, n)
        cross join lateral (
            select y.ref, y.parent from dependencies y where y.child = u.id offset 0
        ) d
        join jobs p on p.id = d.parent
        left join executions e on e.job_id = p.id
            and e.attempt = p.attempt
            and p.state = 'completed'
        order by u.n, 2
    loop
        -- Results are looked at until there are too many of them, and no longer.
        given := result is not null;
        if bytes <= limit_of('inputs_bytes') then
            result := readable(result);
            bytes := bytes + coalesce(octet_length(result::text), 0);
        end if;
        if bytes > limit_of('inputs_bytes') then
            result := null;
        end if;
        omitted := given and result is null;
        return next;
    end loop;
end $$;
comment on function inputs_of is
    'The inputs of several jobs, in the order given; see inputs(). What '
    'all results together have beyond 8 MiB as text is omitted.';

create or replace function inputs(job_id uuid) returns table (
    ref text,
    parent uuid,
    state text,
    result jsonb,
    omitted boolean
)
language sql volatile security definer
set search_path from current
begin atomic
    select i.ref, i.parent, i.state, i.result, i.omitted
    from inputs_of(array[inputs.job_id]) i;
end;
comment on function inputs is
    'The parents of a job, by what its call named them (an id where that was one), with the '
    'results of those that completed. A result beyond 8 MiB in all is omitted: read it from the '
    'parent.';

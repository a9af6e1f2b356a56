-- What the parents of a job gave, for the job that waited for them.

create or replace function inputs(job_id uuid)
returns table (ref text, parent uuid, state text, result jsonb)
language sql stable security definer
set search_path from current
begin atomic
    select coalesce(d.ref, d.parent::text), d.parent, p.state, e.result
    from dependencies d
    join jobs p on p.id = d.parent
    left join executions e on e.job_id = p.id
        and e.attempt = p.attempt
        and p.state = 'completed'
    where d.child = inputs.job_id
    order by 1;
end;
comment on function inputs is
    'The parents of a job, by what its call named them (an id where that was one), with the '
    'results of those that completed.';

-- A workflow: what a call says of it, and its row. The row is
-- the call's own: producers wait for one another only on one id.

create or replace function check_workflow_name(name text) returns void
language plpgsql stable
set search_path from current
as $$
begin
    if length(check_workflow_name.name) not between 1 and limit_of('name_length')
        or check_workflow_name.name ~ '[[:cntrl:]]'
    then
        perform refuse(
            'RL422', 'name of workflow is not valid', check_workflow_name.name,
            format('Use 1 to %s characters, no control characters.', limit_of('name_length'))
        );
    end if;
end $$;
comment on function check_workflow_name is
    'Raises RL422 for what cannot be the name of a workflow; null can.';

create or replace function read_workflow(
    body jsonb,
    out id uuid,
    out name text,
    out jobs jsonb
)
language plpgsql volatile
set search_path from current
as $$
declare
    given jsonb := read_workflow.body -> 'workflow';
    hint constant text := 'Use its name, or an object of name and id, a UUID.';
    wrong text;
begin
    jobs := read_workflow.body -> 'jobs';
    if jsonb_typeof(jobs) is distinct from 'array' then
        perform refuse(
            'RL422', 'jobs is not an array', excerpt(jobs),
            'Pass an array of objects, or {"workflow": ..., "jobs": [...]}.'
        );
    end if;
    wrong := (
        select min(k)
        from jsonb_object_keys(read_workflow.body) k
        where k not in ('workflow', 'jobs')
    );
    if wrong is not null then
        perform refuse('RL422', 'the call has an unknown key', wrong, 'Use workflow and jobs.');
    end if;
    if jsonb_typeof(given) = 'string' then
        given := jsonb_build_object('name', given);
    elsif jsonb_typeof(given) is distinct from 'object' then
        perform refuse('RL422', 'workflow is not valid', excerpt(given), hint);
    end if;
    wrong := (select min(k) from jsonb_object_keys(given) k where k not in ('name', 'id'));
    if wrong is not null then
        perform refuse('RL422', 'workflow has an unknown key', wrong, hint);
    elsif coalesce(jsonb_typeof(given -> 'name'), 'null') not in ('string', 'null') then
        perform refuse('RL422', 'name of workflow is not valid', excerpt(given -> 'name'), hint);
    elsif coalesce(jsonb_typeof(given -> 'id'), 'null') not in ('string', 'null')
        or not is_uuid(given ->> 'id')
    then
        perform refuse('RL422', 'id of workflow is not valid', excerpt(given -> 'id'), hint);
    end if;
    name := given ->> 'name';
    id := coalesce((given ->> 'id')::uuid, (new_ids(1))[1]);
end $$;
comment on function read_workflow is
    'Reads the object form of enqueue_many; makes an id where none is given. '
    'Raises RL422 for what is wrong with it, the jobs themselves left aside.';

create or replace function refuse_workflow(workflow uuid) returns void
language plpgsql stable
set search_path from current
as $$
begin
    perform refuse(
        'RL409', 'workflow has other jobs, or another name', refuse_workflow.workflow::text,
        'Repeat the call with the same name, jobs and ids of jobs, or choose a fresh id.'
    );
end $$;
comment on function refuse_workflow is 'Raises RL409 for the id of a workflow that is another.';

create or replace function write_workflow(
    workflow uuid,
    name text,
    ids uuid[],
    owners uuid[]
) returns table (job_id uuid, created boolean, in_workflow uuid)
language plpgsql volatile
set search_path from current
as $$
declare
    fresh int := (
        select count(*)
        from unnest(write_workflow.ids, write_workflow.owners) g(id, owner)
        where g.owner is null
    );
    known record;
    meant record;
begin
    if fresh > 0 then
        insert into workflows (id, created_at, jobs, name)
        values (write_workflow.workflow, clock_timestamp(), fresh, write_workflow.name)
        on conflict on constraint workflows_pkey do nothing;
        if not found then
            perform refuse_workflow(write_workflow.workflow);
        end if;
    else
        -- A repeat: of the workflow of that id, or else of the one that has all of the jobs.
        select
            count(*) filter (where j.workflow = write_workflow.workflow) as ours,
            case
                when count(*) = count(j.workflow) and min(j.workflow::text) = max(j.workflow::text)
                    then min(j.workflow::text)::uuid
            end as theirs
        into known
        from (
            select distinct g.owner as id from unnest(write_workflow.owners) g(owner)
        ) g
        join jobs j on j.id = g.id;
        select w.* into meant
        from workflows w
        where w.id in (write_workflow.workflow, known.theirs)
        order by (w.id = write_workflow.workflow) desc limit 1;
        if meant.name is distinct from write_workflow.name and meant.id is not null
            or meant.id = write_workflow.workflow and meant.jobs <> known.ours
        then
            perform refuse_workflow(meant.id);
        end if;
    end if;
    return query
        select
            coalesce(g.owner, g.id),
            g.owner is null,
            case
                when g.owner is null then write_workflow.workflow
                else (select j.workflow from jobs j where j.id = g.owner)
            end
        from unnest(write_workflow.ids, write_workflow.owners) with ordinality g(id, owner, n)
        order by g.n;
end $$;
comment on function write_workflow is
    'Writes the workflow of a call that has created jobs (owners is null for those), or sees that '
    'the call repeats one; RL409 if it does not. Gives what the call answers.';

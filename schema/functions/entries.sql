-- Reading the entries of enqueue_many. The fast pass trusts nothing: the first entry with a type
-- that is not the one expected goes to refuse_entry, which names the job and the key.

create or replace function is_uuid(value text) returns boolean
language sql immutable parallel safe
return length(value) = 36 and value ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
comment on function is_uuid is 'Whether a text is a UUID in its usual form.';

create or replace function is_whole(value jsonb) returns boolean
language sql immutable parallel safe
return case
    when jsonb_typeof(value) = 'number'
        then value::numeric between -999999999 and 999999999 and scale(value::numeric) = 0
    else false
end;
comment on function is_whole is
    'Whether a JSON value is a whole number that fits an '
    'int. Looks at no text: that of 1e131071 is long.';

create or replace function entry_fault(job jsonb) returns text
language sql immutable parallel safe
return case
    when jsonb_typeof(job) is distinct from 'object' then 'an object'
    when job - array[
        'ref', 'kind', 'args', 'queue', 'priority', 'run_at', 'depends_on', 'wait_for',
        'on_parent_failure', 'max_attempts', 'timeout', 'unique_key', 'id'
    ] <> '{}'
        then 'unknown'
    when jsonb_typeof(job -> 'kind') is distinct from 'string' then 'kind'
    when coalesce(jsonb_typeof(job -> 'ref'), 'null') not in ('string', 'null') then 'ref'
    when length(job ->> 'ref') not between 1 and limit_of('name_length') then 'ref'
    when coalesce(jsonb_typeof(job -> 'queue'), 'null') not in ('string', 'null') then 'queue'
    when coalesce(jsonb_typeof(job -> 'unique_key'), 'null') not in ('string', 'null')
        then 'unique_key'
    when coalesce(jsonb_typeof(job -> 'on_parent_failure'), 'null') not in ('string', 'null')
        then 'on_parent_failure'
    when job ->> 'on_parent_failure' not in ('cancel', 'continue', 'hold')
        then 'on_parent_failure'
    when job ? 'wait_for' and job -> 'wait_for' not in ('null', '"all"', '"any"') then 'wait_for'
    when job ? 'priority' and job -> 'priority' <> 'null' and not is_whole(job -> 'priority')
        then 'priority'
    when job ? 'max_attempts'
        and job -> 'max_attempts' <> 'null'
        and not is_whole(job -> 'max_attempts')
        then 'max_attempts'
    when coalesce(jsonb_typeof(job -> 'id'), 'null') not in ('string', 'null') then 'id'
    when not is_uuid(job ->> 'id') then 'id'
    when job ? 'run_at'
        and job -> 'run_at' <> 'null'
        and (
            jsonb_typeof(job -> 'run_at') <> 'string'
            or job ->> 'run_at' !~
                '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?'
                '(Z|[+-][0-9]{2}(:?[0-9]{2})?)$'
        )
        then 'run_at'
    when job ? 'timeout'
        and job -> 'timeout' <> 'null'
        and (
            jsonb_typeof(job -> 'timeout') <> 'string'
            or job ->> 'timeout' !~ '^[0-9PTHMSDa-z.: ]{1,64}$'
        )
        then 'timeout'
    when coalesce(jsonb_typeof(job -> 'depends_on'), 'null') not in ('array', 'null')
        then 'depends_on'
    when jsonb_typeof(job -> 'depends_on') = 'array'
        -- One walk for what is all strings.
        and job @? 'strict $.depends_on[*] ? (@.type() != "string")'
        and (
            job @? 'strict $.depends_on[*] ? (@.type() != "string" && @.type() != "object")'
            or job @? '$.depends_on[*] ? (@.type() == "object") ? (
                !(exists (@.job)) || @.job.type() != "string"
                || (exists (@.on_parent_failure) && @.on_parent_failure != null
                    && (@.on_parent_failure.type() != "string"
                        || @.on_parent_failure != "cancel" && @.on_parent_failure != "continue"
                        && @.on_parent_failure != "hold"))
                || exists (@.keyvalue() ? (@.key != "job" && @.key != "on_parent_failure")))'
        )
        then 'depends_on'
end;
comment on function entry_fault is
    'The key of an entry that has not the type it needs; null when all have.';

create or replace function refuse_entry(place bigint, job jsonb, fault text) returns void
language plpgsql stable
set search_path from current
as $$
begin
    if fault = 'an object' then
        perform refuse(
            'RL422', format('jobs: entry %s is not an object', place), excerpt(refuse_entry.job),
            'Each entry is an object with a kind.'
        );
    elsif fault = 'unknown' then
        perform refuse(
            'RL422',
            format('jobs: entry %s has an unknown key', place),
            (
                select min(k)
                from jsonb_object_keys(refuse_entry.job) k
                where k not in (
                    'ref', 'kind', 'args', 'queue', 'priority', 'run_at', 'depends_on', 'wait_for',
                    'on_parent_failure', 'max_attempts', 'timeout', 'unique_key', 'id'
                )
            ),
            'Use ref, kind, args, queue, priority, run_at, depends_on, wait_for, '
            'on_parent_failure, max_attempts, timeout, unique_key, id.'
        );
    end if;
    perform refuse(
        'RL422',
        format('%s of job %s is not valid', fault, place),
        excerpt(refuse_entry.job -> fault),
        case fault
            when 'priority' then 'Use a whole number from 0 to 9.'
            when 'max_attempts' then 'Use a whole number from 1 on.'
            when 'run_at' then 'Use ISO 8601 with a time zone, as 2030-01-31T12:00:00Z.'
            when 'timeout' then 'Use an interval, as "30 seconds" or "PT30S".'
            when 'depends_on' then 'Use an array of refs of this call or ids, or of objects '
                'with one as job, and on_parent_failure (cancel, continue or hold).'
            when 'wait_for' then 'Use all or any.'
            when 'on_parent_failure' then 'Use cancel, continue or hold.'
            when 'id' then 'Use a UUID.'
            when 'ref' then format('Use a string of 1 to %s characters.', limit_of('name_length'))
            else 'Use a string.'
        end
    );
end $$;
comment on function refuse_entry is 'Raises RL422 for a key of an entry.';

create or replace function cast_entries(
    jobs jsonb,
    out run_ats timestamptz[],
    out timeouts interval[]
)
language plpgsql stable
set search_path from current
as $$
declare
    entry record;
    field text;
    moment timestamptz;
    length interval;
begin
    begin
        if cast_entries.jobs @? '$[*].run_at' then
            run_ats := array(
                select (j.job ->> 'run_at')::timestamptz
                from jsonb_array_elements(cast_entries.jobs) with ordinality j(job, n)
                order by j.n
            );
        end if;
        if cast_entries.jobs @? '$[*].timeout' then
            timeouts := array(
                select (j.job ->> 'timeout')::interval
                from jsonb_array_elements(cast_entries.jobs) with ordinality j(job, n)
                order by j.n
            );
        end if;
        return;
    exception when data_exception then
        null;
    end;
    for entry in
        select j.n, j.job
        from jsonb_array_elements(cast_entries.jobs) with ordinality j(job, n)
        order by j.n
    loop
        begin
            field := 'run_at';
            moment := (entry.job ->> field)::timestamptz;
            field := 'timeout';
            length := (entry.job ->> field)::interval;
        exception when data_exception then
            perform refuse_entry(entry.n, entry.job, field);
        end;
    end loop;
end $$;
comment on function cast_entries is
    'Times and intervals of the entries; raises RL422 for the first that is none.';

create or replace function dependencies_of(job jsonb)
returns table (name text, policy text)
language sql immutable parallel safe
begin atomic
    select
        case when jsonb_typeof(d.item) = 'object' then d.item ->> 'job' else d.item #>> '{}' end,
        coalesce(
            case when jsonb_typeof(d.item) = 'object' then d.item ->> 'on_parent_failure' end,
            dependencies_of.job ->> 'on_parent_failure', 'cancel'
        )
    from jsonb_array_elements(
        case
            when jsonb_typeof(dependencies_of.job -> 'depends_on') = 'array'
                then dependencies_of.job -> 'depends_on'
            else '[]'
        end
    ) d(item);
end;
comment on function dependencies_of is
    'What an entry depends on, by ref or id, and the policy of each of these edges.';

create or replace function read_edges(
    jobs jsonb,
    refs text[],
    out children int[],
    out parents int[],
    out outside uuid[],
    out policies text[],
    out names text[]
)
language plpgsql stable
set search_path from current
as $$
declare
    given text[];
    wrong record;
begin
    if read_edges.jobs is null then
        return;
    end if;
    select
        array_agg(e.child),
        array_agg(e.parent),
        array_agg(e.outside),
        array_agg(e.policy),
        array_agg(case when e.parent is not null then e.name end),
        array_agg(e.name)
    into children, parents, outside, policies, names, given
    from (
        select
            row_number() over () as k,
            j.n::int as child,
            r.n::int as parent,
            case when r.n is null and is_uuid(d.name) then d.name::uuid end as outside,
            d.policy,
            d.name
        from jsonb_array_elements(read_edges.jobs) with ordinality j(job, n)
        -- A barrier: else each edge would carry its whole entry, all its other edges with it, into
        -- what row_number() keeps, which beyond work_mem is a file.
        cross join lateral (select x.name, x.policy from dependencies_of(j.job) x offset 0) d
        left join unnest(read_edges.refs) with ordinality r(name, n) on r.name = d.name
        -- Here, once; in the aggregates each would sort for itself.
        order by k
        offset 0
    ) e;
    select g.child, g.name into wrong
    from unnest(children, parents, outside, given) with ordinality g(
        child, parent, outside, name, k
    )
    where g.parent is null and g.outside is null
    order by g.child, g.k limit 1;
    if found then
        perform refuse(
            'RL422', format('depends_on of job %s names no job', wrong.child), wrong.name,
            'Use a ref of this call or the id of a job.'
        );
    end if;
end $$;
comment on function read_edges is
    'The edges of the entries: child and parent by place, or the parent by id; '
    'what the entry calls the parent.';

-- Args and results that cannot be given out. No enqueue and no complete stores any; a restore, a
-- fault of the disk or a statement of the owner's own may. Such a job is discarded where it is
-- acquired, and its neighbours go on.
-- Lock order: as fail, inside an acquire: the job rows are held already.

-- Without a sub-select, so that it is inlined. What is neither compressed nor long has at most
-- twenty times the numbers that a short text may have, and so can be written out. Reads no value,
-- wherever it is stored.
create or replace function is_suspect(value jsonb) returns boolean
language sql stable parallel safe
return pg_column_size(value) > 2000 or pg_column_compression(value) is not null;
comment on function is_suspect is
    'Whether a stored JSON value is large enough to be looked at before it is given out.';

create or replace function unreadable(value jsonb) returns text
language plpgsql stable
set search_path from current
as $$
declare
    fault text;
begin
    -- Long only as text: what is stored in less can be written out if its numbers can, and that is
    -- not tried for each of the many that are well.
    fault := large_json_fault(
        unreadable.value,
        case when pg_column_size(unreadable.value) > 65536 then limit_of('acquire_bytes') end
    );
    return case fault
        when 'number' then 'a number is out of range'
        when 'size' then format('more than %s bytes', limit_of('acquire_bytes'))
    end;
exception when data_exception or program_limit_exceeded or internal_error then
    return left(sqlerrm, limit_of('detail_length')::int);
end $$;
comment on function unreadable is
    'Why a JSON value cannot be given out: it cannot be read, or written out; null when it can.';

create or replace function readable(value jsonb) returns jsonb
language plpgsql stable security definer
set search_path from current
as $$
begin
    if is_suspect(readable.value) and unreadable(readable.value) is not null then
        return null;
    end if;
    return readable.value;
end $$;
comment on function readable is 'A JSON value, or null in place of one that cannot be given out.';

create or replace function quarantine(suspects uuid[]) returns uuid[]
language plpgsql volatile
set search_path from current
as $$
declare
    bad uuid[];
    reasons text[];
begin
    select array_agg(x.id order by x.id), array_agg('args: ' || x.fault order by x.id)
    into bad, reasons
    from (
        select j.id, unreadable(j.args) as fault
        from jobs j
        where j.id = any(quarantine.suspects)
        offset 0
    ) x
    where x.fault is not null;
    if bad is null then
        return '{}';
    end if;
    update executions e
    set finished_at = clock_timestamp(), outcome = 'failed', error = g.reason
    from unnest(bad, reasons) g(id, reason)
    join jobs j on j.id = g.id
    where e.job_id = j.id and e.attempt = j.attempt and e.finished_at is null;
    perform reschedule(bad, null, array_fill(true, array[cardinality(bad)]), 1);
    update jobs j
    set reason = 'quarantined: ' || g.reason
    from unnest(bad, reasons) g(id, reason)
    where j.id = g.id;
    return bad;
end $$;
comment on function quarantine is
    'Discards those of these jobs, just acquired, whose args cannot be given out; gives their ids.';

-- UUIDv7 (RFC 9562): time in milliseconds, the place inside the call, then chance.

create or replace function new_ids(how_many int) returns uuid[]
language plpgsql volatile
set search_path from current
as $$
declare
    prefix text := lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0');
begin
    prefix := left(prefix, 8) || '-' || right(prefix, 4) || '-7';
    return array(
        select (
            prefix || lpad(to_hex(n & 4095), 3, '0') || substr(gen_random_uuid()::text, 19)
        )::uuid
        from generate_series(0, new_ids.how_many - 1) n
    );
end $$;
comment on function new_ids is 'Fresh ids, in order inside a call (the first 4,096).';

create or replace function id_at(moment timestamptz) returns uuid
language sql immutable parallel safe
return (
    lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '70008000000000000000'
)::uuid;
comment on function id_at is 'The smallest UUIDv7 of a moment: ids made before it are smaller.';

create or replace function fingerprint_of(
    kind text,
    args jsonb,
    queue text,
    priority int,
    run_at timestamptz,
    max_attempts int,
    timeout interval,
    unique_key text
) returns uuid
language sql stable
set timezone = 'UTC'
begin atomic
    select md5(
        jsonb_build_array(
            kind, args, queue, priority, extract(epoch from run_at), max_attempts,
            extract(epoch from timeout), unique_key
        )::text
    )::uuid;
end;
comment on function fingerprint_of is
    'A digest of what was asked for: a repeated id must bring the same.';

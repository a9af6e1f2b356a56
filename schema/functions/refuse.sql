-- How every function refuses: one raise, one shape. DESIGN:
-- message names the argument, DETAIL the value, HINT what to do.

create or replace function refuse(code text, message text, detail text, hint text) returns void
language plpgsql stable
set search_path from current
as $$
begin
    raise exception using
        errcode = refuse.code,
        message = refuse.message,
        detail = left(coalesce(refuse.detail, 'null'), limit_of('detail_length')::int),
        hint = refuse.hint;
end $$;
comment on function refuse is 'Raises an RL... error; the detail is cut to 200 characters.';

create or replace function need_read_committed(verb text) returns void
language plpgsql stable
set search_path from current
as $$
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        perform refuse(
            'RL025',
            format('%s needs READ COMMITTED', need_read_committed.verb),
            current_setting('transaction_isolation'),
            'Call it in a READ COMMITTED transaction: an older snapshot would strand jobs '
            'attached meanwhile.'
        );
    end if;
end $$;
comment on function need_read_committed is
    'Raises RL025 in a transaction whose snapshot is older than the statement.';

create or replace function long_number(value jsonb) returns jsonb
language sql immutable strict parallel safe
return (
    select n.n
    from jsonb_path_query(long_number.value, 'strict $.** ? (@.type() == "number")') as n(n)
    where scale(n.n::numeric) > limit_of('json_digits')
        or length(replace(ltrim(n.n::text, '-0.'), '.', '')) > limit_of('json_digits')
    limit 1
);
comment on function long_number is
    'The first number in a JSON value with too many '
    'digits or decimal places; null when there is none.';

-- Without a sub-select, so that it is inlined where it is called.
create or replace function json_fault(value jsonb, max_bytes bigint) returns text
language sql immutable parallel safe
return case
    -- No value is eight times as large as its text.
    when pg_column_size(value) > 8 * max_bytes then 'size'
    -- Numbers first: measuring the text of [1e131071, ...] or [0e-16383, ...] would take seconds.
    when value @? 'strict $.** ? (@ >= 1e1000 || @ <= -1e1000)' then 'number'
    -- Not by long_number: called from here it would be
    -- planned for each value, and zeros are common.
    when value @? 'strict $.** ? (@ > -1e-200 && @ < 1e-200)'
        and exists (
            select from jsonb_path_query(value, 'strict $.** ? (@ > -1e-200 && @ < 1e-200)') as n
            where scale(n::numeric) > limit_of('json_digits')
        )
        then 'number'
    when octet_length(value::text) > max_bytes then 'size'
    when octet_length(value::text) >= 130
        and value @? 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")'
        then 'depth'
    when octet_length(value::text) > 1000
        and value::text ~ '([0-9.]{250}){4}'
        and long_number(value) is not null
        then 'number'
end;
comment on function json_fault is
    'What is wrong with a JSON value: number, size or depth; null when nothing is.';

create or replace function excerpt(value jsonb) returns text
language sql immutable parallel safe
return case
    when json_fault(value, limit_of('args_bytes')) in ('number', 'size')
        then format('%s, too large to show', jsonb_typeof(value))
    else left(value::text, limit_of('detail_length')::int)
end;
comment on function excerpt is 'The beginning of a JSON value, for a DETAIL.';

create or replace function check_count(
    verb text,
    argument text,
    have bigint,
    most bigint
) returns void
language plpgsql stable
set search_path from current
as $$
begin
    if check_count.have > check_count.most then
        perform refuse(
            'RL413',
            format(
                '%s takes at most %s %s', check_count.verb, check_count.most, check_count.argument
            ),
            format('%s given', check_count.have),
            'Split the call.'
        );
    end if;
end $$;
comment on function check_count is 'Raises RL413 when a call brings more than it may.';

-- Without a sub-select, so that it is inlined where it is called.
create or replace function is_queue_name(queue text) returns boolean
language sql immutable parallel safe
return coalesce(
    queue ~ '^[A-Za-z0-9][A-Za-z0-9._:/-]*$' and length(queue) <= limit_of('name_length'), false
);
comment on function is_queue_name is 'Whether a queue may have this name.';

create or replace function check_queue(queue text, place bigint default null) returns void
language plpgsql stable
set search_path from current
as $$
begin
    if not is_queue_name(check_queue.queue) then
        perform refuse(
            'RL422', 'queue' || coalesce(' of job ' || check_queue.place, '') || ' is not valid',
            check_queue.queue,
            'Use 1 to 128 characters: letters, digits and ._:/- and a letter or digit first.'
        );
    end if;
end $$;
comment on function check_queue is 'Raises RL422 when a queue name is not one.';

create or replace function check_lease(lease interval) returns void
language plpgsql stable
set search_path from current
as $$
begin
    if check_lease.lease is null
        or check_lease.lease not between default_of('shortest_lease')
            and default_of('longest_lease')
    then
        perform refuse(
            'RL422', 'lease is not valid', check_lease.lease::text, 'Use 1 second to 24 hours.'
        );
    end if;
end $$;
comment on function check_lease is 'Raises RL422 when a lease is too short or too long.';

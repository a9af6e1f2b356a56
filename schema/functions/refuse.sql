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
    -- Not jsonb_path_query, which gives one after the other in quadratic time.
    from jsonb_array_elements(
        jsonb_path_query_array(long_number.value, 'strict $.** ? (@.type() == "number")')
    ) as n(n)
    where scale(n.n::numeric) > limit_of('json_digits')
        or length(replace(ltrim(n.n::text, '-0.'), '.', '')) > limit_of('json_digits')
    limit 1
);
comment on function long_number is
    'The first number in a JSON value with too many '
    'digits or decimal places; null when there is none.';

create or replace function large_json_fault(value jsonb, max_bytes bigint) returns text
language plpgsql stable parallel safe
set search_path from current
as $$
declare
    numbers jsonb;
    large jsonb := '[]';
    tiny jsonb;
    places record;
    digits text;
    bytes bigint;
begin
    -- Nothing is so much larger than its text: a number takes twelve bytes, and three as text.
    if pg_column_size(large_json_fault.value) > 5 * large_json_fault.max_bytes then
        return 'size';
    end if;
    -- Numbers first: measuring the text of [1e131071, ...] or [0e-16383, ...] would take seconds.
    -- There may be eighty thousand of them, so each is looked at as seldom as can be.
    numbers := jsonb_path_query_array(
        large_json_fault.value, 'strict $.** ? (@.type() == "number")'
    );
    if pg_column_size(numbers) < 250 and octet_length(numbers::text) < limit_of('json_digits') then
        null;
    else
        tiny := jsonb_path_query_array(numbers, 'strict $[*] ? (@ > -1e-200 && @ < 1e-200)');
        if jsonb_array_length(tiny) < jsonb_array_length(numbers) then
            large := jsonb_path_query_array(numbers, 'strict $[*] ? (@ >= 1e200 || @ <= -1e200)');
            if large @? 'strict $[*] ? (@ >= 1e1000 || @ <= -1e1000)' then
                return 'number';
            end if;
        end if;
        -- Plain zeros are many in much that is harmless: the same bytes as so many of them.
        if record_image_ne(
            row(tiny),
            row(('[' || rtrim(repeat('0,', jsonb_array_length(tiny)), ',') || ']')::jsonb)
        ) then
            select max(s.n) as most, sum(s.n) as total into places
            from (
                select scale(n.n::numeric) as n
                from jsonb_array_elements(tiny) n(n)
                offset 0
            ) s;
            if places.most > limit_of('json_digits') then
                return 'number';
            elsif places.total > large_json_fault.max_bytes then
                return 'size';
            end if;
        end if;
        -- At most a thousand places each, and yet too many of them to be written out.
        if 200 * jsonb_array_length(large) > large_json_fault.max_bytes then
            return 'size';
        end if;
        digits := numbers::text;
        -- One digit and a separator each is what many short ones come to.
        if octet_length(digits) - 3 * jsonb_array_length(numbers) > limit_of('json_digits')
            and (
                select max(octet_length(n.n)) from unnest(string_to_array(digits, ', ')) n(n)
            ) > limit_of('json_digits')
            and long_number(numbers) is not null
        then
            return 'number';
        end if;
    end if;
    if large_json_fault.max_bytes is null then
        return null;
    end if;
    bytes := octet_length(large_json_fault.value::text);
    if bytes > large_json_fault.max_bytes then
        return 'size';
    elsif bytes >= 130
        and large_json_fault.value
            @? 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")'
    then
        return 'depth';
    end if;
    return null;
end $$;
comment on function large_json_fault is
    'What json_fault says of a value that is not small; '
    'without max_bytes only its numbers are looked at.';

-- Without a sub-select and stable, as pg_column_size is, so that it is inlined where it is called.
-- In so short a text no number is long, nothing is deep, and few numbers are in so few bytes.
-- Concat is stable too: a cast of a constant would be run by the planner, whatever its size.
create or replace function json_fault(value jsonb, max_bytes bigint) returns text
language sql stable parallel safe
return case
    when pg_column_size(value) > 250 or octet_length(concat(value)) >= 130
        then large_json_fault(value, max_bytes)
end;
comment on function json_fault is
    'What is wrong with a JSON value: number, size or depth; null when nothing is.';

create or replace function excerpt(value jsonb) returns text
language plpgsql stable parallel safe
set search_path from current
as $$
begin
    if json_fault(excerpt.value, limit_of('args_bytes')) in ('number', 'size') then
        return format('%s, too large to show', jsonb_typeof(excerpt.value));
    end if;
    return left(excerpt.value::text, limit_of('detail_length')::int);
end $$;
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

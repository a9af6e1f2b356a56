-- How every function refuses: one raise, one shape. DESIGN: message names the argument, DETAIL the
-- value, HINT what to do.

create or replace function refuse(code text, message text, detail text, hint text) returns void
language plpgsql stable
set search_path from current
as $$
begin
    raise exception using errcode = refuse.code, message = refuse.message,
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
        perform refuse('RL025', format('%s needs READ COMMITTED', need_read_committed.verb),
            current_setting('transaction_isolation'),
            'Call it in a READ COMMITTED transaction: an older snapshot would strand jobs attached meanwhile.');
    end if;
end $$;
comment on function need_read_committed is 'Raises RL025 in a transaction whose snapshot is older than the statement.';

create or replace function has_long_number(value jsonb) returns boolean
language sql immutable strict parallel safe
return exists (
    select from jsonb_path_query(value, '$.** ? (@.type() == "number")') as n
    where length(n::text) > limit_of('json_digits') + 2);
comment on function has_long_number is 'Whether a number in a JSON value has more than 1,000 digits; a string of digits is none.';

-- Without a sub-select, so that it is inlined where it is called.
create or replace function json_fault(value jsonb, max_bytes bigint) returns text
language sql immutable parallel safe
return case
    -- Numbers first: measuring the text of [1e131071, ...] would take seconds.
    when value @? '$.** ? (@ >= 1e1000 || @ <= -1e1000)' then 'number'
    when octet_length(value::text) > max_bytes then 'size'
    when octet_length(value::text) >= 130 and value @? 'strict $.**{65}' then 'depth'
    when octet_length(value::text) > 1000 and value::text ~ '([0-9]{250}){4}' and has_long_number(value) then 'number'
end;
comment on function json_fault is 'What is wrong with a JSON value: number, size or depth; null when nothing is.';

create or replace function check_count(verb text, argument text, have bigint, most bigint) returns void
language plpgsql stable
set search_path from current
as $$
begin
    if check_count.have > check_count.most then
        perform refuse('RL413', format('%s takes at most %s %s', check_count.verb, check_count.most, check_count.argument),
            format('%s given', check_count.have), 'Split the call.');
    end if;
end $$;
comment on function check_count is 'Raises RL413 when a call brings more than it may.';

create or replace function check_queue(queue text, place bigint default null) returns void
language plpgsql stable
set search_path from current
as $$
begin
    if check_queue.queue is null or length(check_queue.queue) > limit_of('name_length')
        or check_queue.queue !~ '^[A-Za-z0-9][A-Za-z0-9._:/-]*$'
    then
        perform refuse('RL422', 'queue' || coalesce(' of job ' || check_queue.place, '') || ' is not valid',
            check_queue.queue,
            'Use 1 to 128 characters: letters, digits and ._:/- and a letter or digit first.');
    end if;
end $$;
comment on function check_queue is 'Raises RL422 when a queue name is not one.';

create or replace function check_lease(lease interval) returns void
language plpgsql stable
set search_path from current
as $$
begin
    if check_lease.lease is null
        or check_lease.lease not between default_of('shortest_lease') and default_of('longest_lease')
    then
        perform refuse('RL422', 'lease is not valid', check_lease.lease::text, 'Use 1 second to 24 hours.');
    end if;
end $$;
comment on function check_lease is 'Raises RL422 when a lease is too short or too long.';

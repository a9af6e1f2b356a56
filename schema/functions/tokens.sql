-- Tokens of the HTTP API. The tokens themselves are made and compared outside: only their digests
-- come here. Whoever owns the schema creates, rotates and revokes them; the service reads them.

create or replace function check_token(
    name text, actions text[], queues text[], expires_in interval
) returns void
language plpgsql stable
set search_path from current
as $$
begin
    if coalesce(length(check_token.name), 0) not between 1 and limit_of('name_length') then
        perform refuse(
            'RL422', 'name is not valid', check_token.name, 'Use 1 to 128 characters.'
        );
    end if;
    if check_token.actions is null
        or check_token.actions = '{}'
        or array_position(check_token.actions, null) is not null
        or not check_token.actions <@ array['enqueue', 'work', 'operate', 'observe']
    then
        perform refuse(
            'RL422', 'actions is not valid', check_token.actions::text,
            'Use enqueue, work, operate, observe, one at least.'
        );
    end if;
    perform check_count(
        'a token', 'queues', cardinality(check_token.queues), limit_of('token_queues')
    );
    if check_token.queues = '{}' or exists (
        select
        from unnest(check_token.queues) q(queue)
        where q.queue is distinct from '*' and not is_queue_name(regexp_replace(q.queue, '\*$', ''))
    ) then
        perform refuse(
            'RL422', 'queues is not valid', check_token.queues::text,
            'Name queues, or beginnings of names that end in *; null for all.'
        );
    end if;
    if check_token.expires_in <= '0' or check_token.expires_in > default_of('longest_token') then
        perform refuse(
            'RL422', 'expires_in is not valid', check_token.expires_in::text,
            'Use more than nothing and at most ten years; null for no end.'
        );
    end if;
end $$;
comment on function check_token is 'Raises RL422 when a token cannot be such.';

create or replace function create_token(
    id text,
    digest bytea,
    name text,
    actions text[],
    queues text[] default null,
    expires_in interval default null
) returns void
language plpgsql volatile
set search_path from current
as $$
begin
    perform check_token(
        create_token.name, create_token.actions, create_token.queues, create_token.expires_in
    );
    insert into tokens (id, digest, name, actions, queues, created_at, expires_at)
    values (
        create_token.id, create_token.digest, create_token.name, create_token.actions,
        create_token.queues, clock_timestamp(), clock_timestamp() + create_token.expires_in
    );
end $$;
comment on function create_token is
    'Takes the digest of a token that was made outside; null queues are all, null expires_in is '
    'for ever. For the owner of the schema.';

create or replace function rotate_token(
    id text, new_id text, new_digest bytea, overlap interval, expires_in interval default null
) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    old tokens;
    clock timestamptz;
begin
    select t.* into old from tokens t where t.id = rotate_token.id for update;
    clock := clock_timestamp();
    if old.id is null or old.revoked_at is not null or old.expires_at <= clock then
        perform refuse(
            'RL404', 'there is no live token with this id', rotate_token.id,
            '`rowlock token list` has those that are.'
        );
    end if;
    if rotate_token.overlap is null
        or rotate_token.overlap not between '0' and default_of('longest_token')
    then
        perform refuse(
            'RL422', 'overlap is not valid', rotate_token.overlap::text,
            'Use nothing to ten years.'
        );
    end if;
    perform create_token(
        rotate_token.new_id, rotate_token.new_digest, old.name, old.actions, old.queues,
        coalesce(rotate_token.expires_in, old.expires_at - old.created_at)
    );
    -- Least leaves out what is null.
    update tokens t
    set expires_at = least(t.expires_at, clock + rotate_token.overlap)
    where t.id = rotate_token.id;
end $$;
comment on function rotate_token is
    'Puts a new token in the place of a live one, which goes on until the overlap has passed; null '
    'expires_in is as long as the old one was made for. For the owner of the schema.';

create or replace function revoke_token(id text) returns boolean
language plpgsql volatile
set search_path from current
as $$
begin
    update tokens t
    set revoked_at = clock_timestamp()
    where t.id = revoke_token.id and t.revoked_at is null;
    if not found and not exists (select from tokens t where t.id = revoke_token.id) then
        perform refuse(
            'RL404', 'there is no token with this id', revoke_token.id,
            '`rowlock token list` has those that are.'
        );
    end if;
    return found;
end $$;
comment on function revoke_token is
    'Ends a token; false if it was revoked before. For the owner of the schema.';

create or replace function touch_token(id text) returns void
language sql volatile security definer
set search_path from current
begin atomic
    update tokens t
    set last_used_at = clock_timestamp()
    where t.id = touch_token.id
        and (
            t.last_used_at is null
            or t.last_used_at < clock_timestamp() - interval '1 minute'
        );
end;
comment on function touch_token is 'Notes that a token is in use, once a minute at most.';

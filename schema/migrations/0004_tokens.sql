-- Who may call the service over HTTP, and what for. Only digests of the tokens are here.

create table tokens (
    id           text not null,
    digest       bytea not null,
    name         text not null,
    actions      text[] not null,
    queues       text[],
    created_at   timestamptz not null,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    constraint tokens_pkey primary key (id),
    constraint tokens_id_is_hex check (id ~ '^[0-9a-f]{16}$'),
    constraint tokens_digest_is_sha256 check (octet_length(digest) = 32),
    constraint tokens_actions_known check
        (actions <@ array['enqueue', 'work', 'operate', 'observe'] and actions <> '{}'),
    constraint tokens_queues_not_empty check (queues <> '{}')
);
comment on table tokens is 'Tokens of the HTTP API, by the digests of them.';
comment on column tokens.id is 'The public part of the token.';
comment on column tokens.digest is
    'SHA-256 of the whole token, whose secret part has 256 random bits.';
comment on column tokens.name is 'For people; a rotated token keeps it.';
comment on column tokens.actions is 'What it is for: enqueue, work, operate, observe.';
comment on column tokens.queues is
    'The queues it is for: names, or beginnings of names that end in *; null means all.';
comment on column tokens.created_at is 'When it was created.';
comment on column tokens.expires_at is 'Until then it is good; null means for ever.';
comment on column tokens.revoked_at is 'When it was revoked.';
comment on column tokens.last_used_at is 'When it was last used, give or take a minute.';

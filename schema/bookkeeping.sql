-- What has been applied to this schema. The migrator makes these tables before the first migration.

create table migrations (
    version int primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp()
);
comment on table migrations is
    'The migrations applied to this schema; the highest version is the schema''s.';
comment on column migrations.version is 'The number in front of the file''s name.';
comment on column migrations.name is 'The file''s name after the number.';
comment on column migrations.checksum is
    'SHA-256 of the file''s text; an applied file must not change.';
comment on column migrations.applied_at is 'When it was applied.';

create table function_files (
    name text primary key,
    checksum text not null
);
comment on table function_files is
    'The files of functions as last applied; all are applied again when one has changed.';
comment on column function_files.name is 'The file''s name without its ending.';
comment on column function_files.checksum is 'SHA-256 of the file''s text.';

-- Whoever may use the schema may know its version.
grant select on migrations, function_files to public;

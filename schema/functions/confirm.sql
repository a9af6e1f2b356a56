-- A call that is repeated finds its work done and writes nothing; its COMMIT would then wait for no
-- standby, and be answered although the first one's has not been confirmed by any.

create or replace function confirm_repeat() returns void
language plpgsql volatile
set search_path from current
as $$
begin
    if current_setting('synchronous_standby_names') <> '' then
        -- Its place in the log is behind all that was done before.
        perform pg_logical_emit_message(true, 'rowlock', ''::text);
    end if;
end $$;
comment on function confirm_repeat is
    'Lets this transaction''s COMMIT wait for standbys, where some have to be waited for, though '
    'it may have written nothing.';

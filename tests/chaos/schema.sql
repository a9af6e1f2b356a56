-- What a run keeps beside the queue, in the schema of the clock. No keys where a double has to show.

create table chaos.orders (call bigint primary key);
create table chaos.effects (n bigint, job uuid, attempt int, worker text);
create table chaos.scribbles (at timestamptz);

-- Every change of state of a job, and every opening and closing of an execution, written by
-- triggers: whatever the functions say of themselves. One job's changes are in the order of their
-- commits, since each holds the row until then. Times are the machine's.
create sequence chaos.steps;
create table chaos.history (
    step bigint default nextval('chaos.steps'),
    xid xid8 default pg_current_xact_id(),
    at timestamptz default pg_catalog.clock_timestamp(),
    job uuid,
    was text,
    state text,
    was_attempt int,
    attempt int
);
create table chaos.runs (
    step bigint default nextval('chaos.steps'),
    xid xid8 default pg_current_xact_id(),
    at timestamptz default pg_catalog.clock_timestamp(),
    job uuid,
    attempt int,
    was text,
    outcome text
);

create function chaos.note_job() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'INSERT' then
        insert into chaos.history (job, state, attempt) values (new.id, new.state, new.attempt);
    elsif tg_op = 'DELETE' then
        insert into chaos.history (job, was, was_attempt) values (old.id, old.state, old.attempt);
    elsif new.state <> old.state or new.attempt <> old.attempt then
        insert into chaos.history (job, was, state, was_attempt, attempt)
        values (new.id, old.state, new.state, old.attempt, new.attempt);
    end if;
    return null;
end $$;
create trigger chaos_note_job after insert or update or delete on rowlock.jobs
    for each row execute function chaos.note_job();

create function chaos.note_run() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'INSERT' then
        insert into chaos.runs (job, attempt, outcome)
        values (new.job_id, new.attempt, new.outcome);
    elsif new.outcome is distinct from old.outcome then
        insert into chaos.runs (job, attempt, was, outcome)
        values (new.job_id, new.attempt, old.outcome, new.outcome);
    end if;
    return null;
end $$;
create trigger chaos_note_run after insert or update on rowlock.executions
    for each row execute function chaos.note_run();

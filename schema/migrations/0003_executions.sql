-- Runs of jobs, and the workers that run them.

-- A low fillfactor and no second index keep finishing an execution HOT.
create table executions (
    job_id      uuid not null,
    attempt     int not null,
    token       uuid not null,
    worker      uuid not null,
    ready_at    timestamptz not null,
    started_at  timestamptz not null,
    finished_at timestamptz,
    outcome     text,
    error       text,
    result      jsonb,
    constraint executions_pkey primary key (job_id, attempt),
    constraint executions_attempt_positive check (attempt > 0),
    constraint executions_outcome_iff_finished check ((outcome is null) = (finished_at is null)),
    constraint executions_outcome_known check (outcome in
        ('completed', 'failed', 'snoozed', 'released', 'cancelled', 'lost', 'timed_out'))
) with (fillfactor = 45, toast_tuple_target = 512, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_limit = 2000);
comment on table executions is 'One row a run of a job by a worker.';
comment on column executions.job_id is 'The job.';
comment on column executions.attempt is 'Its number, from 1.';
comment on column executions.token is 'The right to finish it.';
comment on column executions.worker is 'Who runs it.';
comment on column executions.ready_at is 'Since when the job had been ready.';
comment on column executions.started_at is 'When it was acquired.';
comment on column executions.finished_at is 'When it ended; null while it is open.';
comment on column executions.outcome is
    'completed, failed, snoozed, released, cancelled, lost or timed_out; null while it is open.';
comment on column executions.error is 'What went wrong, in the worker''s words, cut to 16 KiB.';
comment on column executions.result is 'What a completed run gave.';

create table workers (
    id            uuid not null,
    name          text,
    status        text not null default 'live',
    capacity      int,
    started_at    timestamptz not null,
    heartbeat_at  timestamptz not null,
    lease_ends_at timestamptz not null,
    queues        text[] not null default '{}',
    kinds         text[],
    metadata      jsonb,
    constraint workers_pkey primary key (id),
    constraint workers_status_known check (status in ('live', 'lost'))
) with (fillfactor = 50);
comment on table workers is 'One row a worker: one incarnation of one process.';
comment on column workers.id is 'A fresh id at every process start.';
comment on column workers.name is 'For people.';
comment on column workers.status is 'live, or lost once rescue took its executions back.';
comment on column workers.capacity is 'How many jobs it runs at once.';
comment on column workers.started_at is 'When it was first seen.';
comment on column workers.heartbeat_at is 'When it was last seen.';
comment on column workers.lease_ends_at is 'Until then it holds what it acquired.';
comment on column workers.queues is
    'The hundred queues it last asked for, in whatever calls, the newest first: these have floors.';
comment on column workers.kinds is 'The kinds it can run; null means all.';
comment on column workers.metadata is 'Whatever it says of itself.';

create table grants (
    id          bigint generated always as identity (cache 1),
    worker      uuid not null,
    call_number bigint,
    expires_at  timestamptz,
    job_ids     uuid[] not null,
    attempts    int[] not null,
    constraint grants_pkey primary key (worker, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);
create index grants_expires_at_idx on grants (expires_at) where expires_at is not null;
comment on index grants_expires_at_idx is 'Rescue takes executions past their time-out.';
comment on table grants is
    'What one acquire gave to one worker, kept until all of '
    'it has ended: how a lost worker''s executions are found.';
comment on column grants.id is 'Counts acquires.';
comment on column grants.worker is 'To whom.';
comment on column grants.call_number is 'The worker''s own number of the call.';
comment on column grants.expires_at is 'The earliest time-out among its executions.';
comment on column grants.job_ids is 'The jobs, sorted.';
comment on column grants.attempts is 'Their attempts, in the order of job_ids.';

create table duties (
    duty        text not null,
    position    uuid,
    front       uuid,
    looked      bigint not null default 0,
    done        bigint not null default 0,
    busy        interval not null default '0',
    rests_until timestamptz not null default '-infinity',
    constraint duties_pkey primary key (duty)
);
insert into duties (duty) values ('link'), ('prune');
comment on table duties is 'Where a maintenance duty goes on.';
comment on column duties.duty is 'The duty.';
comment on column duties.position is 'The last job that its round looked at; null between rounds.';
comment on column duties.front is
    'Prune: up to here jobs were looked at when they had just become old enough.';
comment on column duties.looked is 'Prune: the jobs that this round has looked at.';
comment on column duties.done is 'Prune: those of them that it deleted.';
comment on column duties.busy is 'Prune: what looking has taken this round.';
comment on column duties.rests_until is 'Prune: no new round before this.';

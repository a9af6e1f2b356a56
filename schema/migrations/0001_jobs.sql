-- The jobs and where each of them waits. One state, one waiting table: ready, scheduled, blocked.
-- Names are unqualified: the migrator sets search_path to the schema being installed.
--
-- Autovacuum. The waiting tables are small and turn over all the time: vacuumed without pauses, and
-- by what has died, not by a share of what is there at the moment. Jobs, executions and edges are
-- large and lose what prune deletes: more often than by default, and ten times as fast, since at a
-- minute's retention all of them are replaced within a minute.

create table queues (
    name                text collate "C" constraint queues_pkey primary key,
    paused_at           timestamptz,
    resumed_at          timestamptz,
    aging_interval      interval default interval '60 seconds',
    aging_share         real not null default 0.25,
    max_attempts        int,
    retention           interval,
    discarded_retention interval,
    updated_at          timestamptz not null default clock_timestamp(),
    constraint queues_aging_interval_positive check (aging_interval > interval '0'),
    constraint queues_aging_share_is_a_share check (aging_share between 0 and 1),
    constraint queues_max_attempts_positive check (max_attempts between 1 and 1000),
    constraint queues_retention_a_minute_to_a_year
        check (retention between interval '1 minute' and interval '366 days'),
    constraint queues_discarded_retention_a_minute_to_a_year
        check (discarded_retention between interval '1 minute' and interval '366 days')
);
comment on table queues is
    'Settings of a queue. Optional: a queue without a row has '
    'the defaults. Written by operators, never by an enqueue.';
comment on column queues.name is 'The queue.';
comment on column queues.paused_at is 'Since when nothing is acquired from it; null when it runs.';
comment on column queues.resumed_at is
    'When it was last resumed: waiting before that does not count as age.';
comment on column queues.aging_interval is
    'Waiting this long makes a job one priority more urgent; null turns aging off.';
comment on column queues.aging_share is 'The share of what is acquired that age may claim, 0 to 1.';
comment on column queues.max_attempts is 'For jobs enqueued without one; null means 25.';
comment on column queues.retention is
    'How long completed and cancelled jobs stay, a minute to a year; null means a day.';
comment on column queues.discarded_retention is 
    'How long discarded jobs stay, a minute to a year; null means a week.';
comment on column queues.updated_at is 'When an operator last changed the row.';

-- No index on a column that changes and room on every page, so that a change of state stays HOT.
create table jobs (
    id                  uuid not null,
    state               text not null,
    priority            smallint not null,
    has_dependents      boolean not null default false,
    wait_for_any        boolean not null default false,
    attempt             int not null default 0,
    failures            int not null default 0,
    max_attempts        int not null,
    args_bytes          int not null,
    seq                 bigint,
    run_at              timestamptz not null,
    created_at          timestamptz not null,
    finished_at         timestamptz,
    cancel_requested_at timestamptz,
    timeout             interval,
    fingerprint         uuid,
    cause               uuid,
    workflow            uuid,
    queue               text collate "C" not null,
    kind                text not null,
    unique_key          text,
    reason              text,
    args                jsonb not null,
    constraint jobs_pkey primary key (id),
    constraint jobs_state_known check (state in
        ('blocked', 'scheduled', 'ready', 'running', 'completed', 'cancelled', 'discarded')),
    constraint jobs_finished_iff_terminal check
        ((finished_at is not null) = (state in ('completed', 'cancelled', 'discarded'))),
    constraint jobs_seq_iff_ready check ((seq is not null) = (state = 'ready'))
) with (fillfactor = 50, toast_tuple_target = 512, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_limit = 2000);
create index jobs_workflow_idx on jobs (workflow, id) where workflow is not null;
comment on index jobs_workflow_idx is 'The jobs of a workflow; jobs of none are not in it.';
comment on table jobs is 'One row a job, from enqueue to prune.';
comment on column jobs.id is 'UUIDv7, made here or by the caller.';
comment on column jobs.state is
    'blocked, scheduled, ready, running, completed, cancelled or discarded.';
comment on column jobs.priority is '0 runs first, 9 last.';
comment on column jobs.has_dependents is
    'True once another job depends on it; a job without dependents touches no edge.';
comment on column jobs.wait_for_any is
    'One completed parent is enough to release it; false means that it waits for all.';
comment on column jobs.attempt is
    'The number of its newest execution; 0 before the first. Only grows.';
comment on column jobs.failures is
    'What counts against max_attempts: failures, lost leases and time-outs.';
comment on column jobs.max_attempts is 'So many failures discard it.';
comment on column jobs.args_bytes is 'The length of args as text, in bytes.';
comment on column jobs.seq is 'Its place in ready, while it is ready.';
comment on column jobs.run_at is 'Not before this; moved by retries and snoozes.';
comment on column jobs.created_at is 'When it was enqueued.';
comment on column jobs.finished_at is 'When it ended.';
comment on column jobs.cancel_requested_at is
    'When it was asked to stop while it ran; however that execution ends, the job ends cancelled.';
comment on column jobs.timeout is 'How long one execution may take; null means no limit.';
comment on column jobs.fingerprint is
    'A digest of what was asked for, when the caller chose '
    'the id: the same id with other content is refused.';
comment on column jobs.cause is
    'The job whose end cancelled or holds this one: the first cause, not the nearest.';
comment on column jobs.workflow is 'The workflow that it was enqueued in; never changes.';
comment on column jobs.queue is 'The queue.';
comment on column jobs.kind is 'What is to be done; handlers go by it.';
comment on column jobs.unique_key is 'At most one live job has it.';
comment on column jobs.reason is 'Why it was cancelled, discarded or held, in words.';
comment on column jobs.args is 'The input, kept digit for digit.';

-- Written by the enqueue that makes the jobs, and never updated: what becomes of a workflow is read
-- from its jobs.
create table workflows (
    id         uuid not null,
    created_at timestamptz not null,
    jobs       int not null,
    name       text,
    constraint workflows_pkey primary key (id),
    constraint workflows_jobs_positive check (jobs > 0)
);
comment on table workflows is 'Jobs that were enqueued as one graph. Kept as long as one of them.';
comment on column workflows.id is 'UUIDv7, made here or by the caller.';
comment on column workflows.created_at is 'When it was enqueued.';
comment on column workflows.jobs is 'How many jobs it was enqueued with.';
comment on column workflows.name is 'What people call it; not unique. Null for none.';

-- The priority-indexed queue. Rows come and go and are never changed. Three rules keep lane floors
-- safe: CACHE 1, every insert draws a new number, and the statement that draws it has this table as
-- its target.
create sequence ready_seq as bigint cache 1;
create table ready (
    queue      text collate "C" not null,
    priority   smallint not null,
    seq        bigint not null default nextval('ready_seq'),
    job_id     uuid not null,
    ready_at   timestamptz not null,
    args_bytes int not null,
    kind       text not null,
    constraint ready_pkey primary key (queue, priority, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_cost_delay = 0);
alter sequence ready_seq owned by ready.seq;
comment on sequence ready_seq is 'The order of ready jobs inside a lane.';
comment on table ready is
    'Jobs that may be acquired now. A lane is one (queue, priority), first in first out by seq.';
comment on column ready.queue is 'The queue.';
comment on column ready.priority is 'The lane.';
comment on column ready.seq is 'The place in the lane.';
comment on column ready.job_id is 'The job.';
comment on column ready.ready_at is 'Since when it is ready; its age counts from here.';
comment on column ready.args_bytes is 'How much args add to a reply.';
comment on column ready.kind is 'The kind of job, for workers that can run only some.';

-- Appended and deleted, never updated: the newest row is found from the top of the index, whatever
-- versions lie dead below it.
create table lane_floors (
    id     bigint generated always as identity (cache 1),
    mark   bigint not null,
    queue  text collate "C" not null,
    floors bigint[] not null,
    constraint lane_floors_pkey primary key (queue, id),
    constraint lane_floors_one_a_priority check (cardinality(floors) = 10),
    constraint lane_floors_one_above_the_mark check (mark + 1 >= all(floors))
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create index lane_floors_mark_idx on lane_floors (mark, id);
comment on index lane_floors_mark_idx is 'A sequence below the highest mark has fallen back.';
comment on table lane_floors is
    'Places below which the lanes of a queue hold nothing and never will; the newest row counts.';
comment on column lane_floors.id is 'Counts rows.';
comment on column lane_floors.mark is 'What ready_seq had given; no floor is more than one above.';
comment on column lane_floors.queue is 'The queue.';
comment on column lane_floors.floors is 'One for each priority, from 0 to 9.';

create table scheduled (
    job_id   uuid not null,
    run_at   timestamptz not null,
    priority smallint not null,
    queue    text collate "C" not null,
    constraint scheduled_pkey primary key (job_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_cost_delay = 0);
create index scheduled_run_at_idx on scheduled (run_at);
comment on index scheduled_run_at_idx is 'Promote takes what is due.';
comment on table scheduled is
    'Jobs that wait for their time: enqueued for later, retried, snoozed.';
comment on column scheduled.job_id is 'The job.';
comment on column scheduled.run_at is 'When it becomes ready.';
comment on column scheduled.priority is 'As on the job, for counting.';
comment on column scheduled.queue is 'As on the job, for counting.';

create table blocked (
    job_id       uuid not null,
    remaining    int not null,
    priority     smallint not null,
    queue        text collate "C" not null,
    wait_for_any boolean not null default false,
    constraint blocked_pkey primary key (job_id),
    constraint blocked_remaining_not_negative check (remaining >= 0)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
comment on table blocked is 'Jobs that wait for parents.';
comment on column blocked.job_id is 'The job.';
comment on column blocked.remaining is
    'Parents that it waits for, plus one while it has rows in links.';
comment on column blocked.priority is 'As on the job, for counting.';
comment on column blocked.queue is 'As on the job, for counting.';
comment on column blocked.wait_for_any is 'As on the job, for cascades.';

create table unique_keys (
    key    text collate "C" not null,
    job_id uuid not null,
    constraint unique_keys_pkey primary key (key)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_cost_delay = 0);
comment on table unique_keys is 'Which live job has a unique key.';
comment on column unique_keys.key is 'The key.';
comment on column unique_keys.job_id is 'The live job.';

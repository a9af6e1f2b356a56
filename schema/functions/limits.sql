-- Every limit, here and nowhere else. Folded to constants when a statement is planned.

create or replace function limit_of(name text) returns bigint
language sql immutable parallel safe
return case name
    when 'args_bytes' then 262144
    when 'result_bytes' then 262144
    when 'inputs_bytes' then 8388608
    when 'error_bytes' then 16384
    when 'json_depth' then 64
    when 'json_digits' then 1000
    when 'name_length' then 128
    when 'call_jobs' then 10000
    when 'call_edges' then 100000
    when 'call_bytes' then 67108864
    when 'parents' then 100000
    when 'max_attempts' then 1000
    when 'acquire_jobs' then 1000
    when 'acquire_queues' then 100
    when 'acquire_kinds' then 1000
    when 'acquire_calls' then 100
    when 'acquire_bytes' then 8388608
    when 'acquire_walk' then 10000
    when 'floor_step' then 100
    when 'finish_jobs' then 10000
    when 'watch_queues' then 256
    when 'maintain_rows' then 100000
    when 'sample' then 10000
    when 'explain_jobs' then 10000
    when 'explain_ahead' then 1000
    when 'explain_parents' then 20
    when 'detail_length' then 200
    when 'token_queues' then 100
end;
comment on function limit_of is
    'A limit by name: counts, bytes or characters. Null for a name that is none.';

create or replace function default_of(name text) returns interval
language sql immutable parallel safe
return case name
    when 'aging_interval' then interval '60 seconds'
    when 'retention' then interval '1 day'
    when 'discarded_retention' then interval '7 days'
    when 'shortest_retention' then interval '1 minute'
    when 'longest_retention' then interval '366 days'
    when 'worker_retention' then interval '1 day'
    when 'timeout_grace' then interval '5 seconds'
    when 'recent' then interval '10 seconds'
    when 'shortest_lease' then interval '1 second'
    when 'longest_lease' then interval '24 hours'
    when 'longest_timeout' then interval '365 days'
    when 'farthest_run_at' then interval '10 years'
    when 'longest_backoff' then interval '1 day'
    when 'longest_token' then interval '3660 days'
end;
comment on function default_of is
    'A default or bound that is a length of time, by name. Null for a name that is none.';

create or replace function default_max_attempts() returns int
language sql immutable parallel safe
return 25;
comment on function default_max_attempts is
    'For a job enqueued without max_attempts into a queue without one.';

create or replace function default_priority() returns int
language sql immutable parallel safe
return 5;
comment on function default_priority is
    'For a job without a priority and without parents to inherit one from.';

create or replace function default_aging_share() returns real
language sql immutable parallel safe
return 0.25;
comment on function default_aging_share is
    'The share of acquires that age may claim in a queue without settings.';

create or replace function backoff(failures int) returns interval
language sql volatile parallel safe
return least(default_of('longest_backoff'), interval '1 second' * 2 ^ least(failures - 1, 20))
    * (0.5 + random() / 2);
comment on function backoff is
    'How long a job waits after its nth failure: a second, '
    'doubling, at most a day, less up to half by chance.';

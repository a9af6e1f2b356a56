-- Edges between jobs, and the parents still to be attached.

create table dependencies (
    parent uuid not null,
    child  uuid not null,
    policy text not null,
    ref    text,
    constraint dependencies_pkey primary key (parent, child),
    constraint dependencies_policy_known check (policy in ('cancel', 'continue', 'hold')),
    constraint dependencies_no_self_edge check (parent <> child)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_cost_limit = 2000);
create index dependencies_child_idx on dependencies (child, parent);
comment on index dependencies_child_idx is 'Recounting what a child waits for; pruning its edges.';
comment on table dependencies is 'A child waits for its parent.';
comment on column dependencies.parent is 'The job waited for.';
comment on column dependencies.child is 'The job that waits.';
comment on column dependencies.policy is
    'What becomes of the child if the parent ends '
    'cancelled or discarded: cancel, continue or hold.';
comment on column dependencies.ref is
    'What the child''s call named the parent; null where that was its id.';

create table links (
    parent uuid not null,
    child  uuid not null,
    xid    xid8 not null,
    policy text not null,
    ref    text,
    constraint links_pkey primary key (child, parent)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_cost_delay = 0);
create index links_xid_idx on links (xid);
create index links_parent_idx on links (parent);
comment on index links_xid_idx is 'The links that a committing transaction asked for.';
comment on index links_parent_idx is 'Prune keeps the parents named here.';
comment on table links is
    'Parents that existed before, to be attached to a child as its transaction commits.';
comment on column links.parent is 'The job to wait for.';
comment on column links.child is 'The job that waits.';
comment on column links.xid is 'The transaction that enqueued the child.';
comment on column links.policy is 'As in dependencies.';
comment on column links.ref is 'As in dependencies.';

create table tickets (
    xid xid8 not null,
    constraint tickets_pkey primary key (xid)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_cost_delay = 0);
comment on table tickets is
    'One row a transaction that has links; its deferred trigger attaches them inside COMMIT.';
comment on column tickets.xid is 'The transaction.';

create function link_at_commit() returns trigger
language plpgsql
as $$
begin
    return null;
end $$;
comment on function link_at_commit is 'Attaches the links of the committing transaction.';
create constraint trigger tickets_link_at_commit
    after insert on tickets
    deferrable initially deferred
    for each row execute function link_at_commit();
comment on trigger tickets_link_at_commit on tickets is
    'Runs inside COMMIT, when the children are complete and no lock has to be held for long.';

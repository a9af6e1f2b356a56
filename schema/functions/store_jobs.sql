-- Storing the checked and resolved jobs of a call, and their edges.

create or replace function store_jobs(
    ids uuid[],
    owners uuid[],
    prints uuid[],
    kinds text[],
    args jsonb[],
    queues text[],
    priorities int[],
    run_ats timestamptz[],
    max_attempts int[],
    timeouts interval[],
    unique_keys text[],
    edge_children int[],
    edge_parents int[],
    edge_outside uuid[],
    edge_policies text[],
    edge_refs text[],
    wait_for_any boolean[],
    workflow uuid,
    guarded boolean
) returns boolean
language plpgsql volatile
set search_path from current
as $$
declare
    clock timestamptz := clock_timestamp();
    own_priorities int[] := store_jobs.priorities;
    children int[];
    parents int[];
    outside uuid[];
    policies text[];
    refs text[];
    is_done boolean[];
    remaining int[];
    has_children boolean[];
begin
    if cardinality(store_jobs.edge_children) > 0 then
        select p.*
        into
            own_priorities, children, parents, outside, policies, refs, is_done, remaining,
            has_children
        from plan_edges(
            store_jobs.ids, store_jobs.owners, store_jobs.priorities, store_jobs.edge_children,
            store_jobs.edge_parents, store_jobs.edge_outside, store_jobs.edge_policies,
            store_jobs.edge_refs, store_jobs.wait_for_any
        ) p;
    end if;
    if guarded then
        -- Another transaction may be enqueuing the same id:
        -- then all of this is undone and looked at again.
        begin
            perform write_jobs(
                store_jobs.ids, store_jobs.owners, prints, store_jobs.kinds, store_jobs.args,
                store_jobs.queues, own_priorities, store_jobs.run_ats, store_jobs.max_attempts,
                store_jobs.timeouts, store_jobs.unique_keys, remaining, has_children,
                store_jobs.wait_for_any, store_jobs.workflow, clock
            );
        exception when unique_violation then
            if current_setting('transaction_isolation') not in (
                'read committed', 'read uncommitted'
            ) then
                raise serialization_failure using
                    message = 'an id was enqueued since this transaction took its snapshot',
                    hint = 'Run the transaction again.';
            end if;
            perform untake_keys(store_jobs.ids);
            return false;
        end;
    else
        perform write_jobs(
            store_jobs.ids, store_jobs.owners, prints, store_jobs.kinds, store_jobs.args,
            store_jobs.queues, own_priorities, store_jobs.run_ats, store_jobs.max_attempts,
            store_jobs.timeouts, store_jobs.unique_keys, remaining, has_children,
            store_jobs.wait_for_any, store_jobs.workflow, clock
        );
    end if;
    if children is not null then
        insert into dependencies (parent, child, policy, ref)
        select
            coalesce(store_jobs.ids[g.parent], g.outside), store_jobs.ids[g.child], g.policy, g.ref
        from unnest(children, parents, outside, policies, refs, is_done) g(
            child, parent, outside, policy, ref, is_done
        )
        where g.parent is not null or g.is_done;
        -- One that waits for any and has it is not blocked, and links nothing.
        insert into links (parent, child, xid, policy, ref)
        select g.outside, store_jobs.ids[g.child], pg_current_xact_id(), g.policy, g.ref
        from unnest(children, outside, policies, refs, is_done) g(
            child, outside, policy, ref, is_done
        )
        where g.outside is not null and not g.is_done and remaining[g.child] > 0;
        if found then
            set constraints tickets_link_at_commit deferred;
            insert into tickets (xid)
            values (pg_current_xact_id())
            on conflict on constraint tickets_pkey do nothing;
        end if;
    end if;
    return true;
end $$;
comment on function store_jobs is
    'Stores the fresh jobs of a call with their edges. False '
    'if another transaction stored one of their ids meanwhile.';

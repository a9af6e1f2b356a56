-- Dependencies: a child is released by the very transaction that ended the last of its parents.
select format('job %s (%s) was released before its parent %s had ended', e.child_n, e.child,
    e.parent_n)
from chaos.edges e
join chaos.history h on h.job = e.child
    and (h.was is null or h.was = 'blocked') and h.state in ('ready', 'scheduled')
left join chaos.ends p on p.job = e.parent
where p.step is null or p.step > h.step
union all
select format('job %s (%s) was %s in another transaction than its parents ended in', f.n, h.job,
    case h.state when 'cancelled' then h.state else 'released' end)
from chaos.history h
join chaos.found f on f.job = h.job
where h.was = 'blocked'
    and not exists (
        select from chaos.edges e
        join chaos.ends p on p.job = e.parent
        where e.child = h.job and p.xid = h.xid
    )
    -- Parents from before the call are attached inside COMMIT or by maintenance.
    and not exists (select from chaos.edges e where e.child = h.job and e.is_late)
    and not (
        h.state = 'cancelled' and h.job in (select a.job from chaos.asked_to_cancel a)
    )
union all
select format('job %s (%s) is %s although its parent %s is %s', e.child_n, e.child, c.state,
    e.parent_n, p.state)
from chaos.edges e
join chaos.found c on c.job = e.child
join chaos.found p on p.job = e.parent
where not e.goes_on and p.state in ('cancelled', 'discarded') and c.state <> 'cancelled'

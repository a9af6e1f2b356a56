-- Liveness: a job was ready for longer than a poll and a second, the database was well, and a
-- worker looked and found less than it wanted, or slept.
select format('job %s was ready for %s, while %s looked %s times or slept', x.job, x.waited,
    coalesce(x.looker, 'nobody'), x.looks)
from (
    select w.*,
        l.looks, l.looker
    from (
        select h.job, c.since, n.at as until, n.at - c.since as waited
        from chaos.history h
        cross join lateral (
            select y.at from chaos.history y
            where y.job = h.job and y.step > h.step order by y.step limit 1
        ) n
        cross join lateral (select chaos.committed(h.xid) as since) c
        where h.state = 'ready' and n.at - h.at > interval '3 seconds'
            and n.at - c.since > interval '3 seconds'
    ) w
    cross join lateral (
        select
            count(*) filter (
                where k.e = 'acquire' and k.got < k.asked
                    and k.begin > w.since + interval '500 milliseconds' and k.at < w.until
            ) as looks,
            bool_or(
                k.e = 'slept'
                and least(k.at, w.until) - greatest(k.begin, w.since) > interval '3 seconds'
            ) as slept,
            min(k.worker) as looker
        from chaos.looks k
        where k.at > w.since and k.begin < w.until
    ) l
    where l.looks >= 3 or l.slept
) x
where not exists (
        select from chaos.faults f, chaos.slack s
        where f.begin < x.until and f.ends + s.slack > x.since
            and f.kind in (
                'restart_database', 'kill_backend', 'exhaust_connections', 'stall', 'step_clock'
            )
    )

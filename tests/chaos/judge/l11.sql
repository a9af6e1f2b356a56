-- Liveness: a job was ready for longer than a poll and a second in one stretch in which nothing
-- struck all, and a worker looked there and found less than it wanted, or slept undisturbed.
select format('job %s was ready for %s, while %s looked %s times or slept', x.job, x.waited,
    coalesce(x.looker, 'nobody'), x.looks)
from (
    select w.*,
        l.looks, l.slept, l.looker
    from (
        select h.job, n.at - c.since as waited, greatest(c.since, s.begin) as since,
            least(n.at, s.ends) as until
        from chaos.history h
        cross join lateral (
            select y.at from chaos.history y
            where y.job = h.job and y.step > h.step order by y.step limit 1
        ) n
        cross join lateral (select chaos.committed(h.xid) as since) c
        join chaos.stretches s
            on least(n.at, s.ends) - greatest(c.since, s.begin) > interval '3 seconds'
        where h.state = 'ready' and n.at - h.at > interval '3 seconds'
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
                and not exists (
                    select from chaos.faults f
                    where f.begin < least(k.at, w.until) and f.ends > greatest(k.begin, w.since)
                        and f.kind in (
                            'stall', 'pause_worker', 'kill_worker', 'black_hole', 'slow_wire'
                        )
                        and (
                            k.worker = any(f.targets)
                            or split_part(k.worker, '.', 1) = any(f.targets)
                        )
                )
            ) as slept,
            min(k.worker) as looker
        from chaos.looks k
        -- The bounds let the index find them: nothing that is noted lasts for a minute.
        where k.at > w.since and k.begin < w.until and k.begin > w.since - interval '1 minute'
    ) l
) x
where x.looks >= 3 or x.slept

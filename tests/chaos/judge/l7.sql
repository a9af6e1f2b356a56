-- Overlapping handlers, where nothing explains why the older one was still at it.
select format('handlers of %s ran at once: execution %s on %s and %s on %s', o.job, o.attempt,
    o.worker, y.attempt, y.worker)
from chaos.told o
join chaos.told oe on oe.job = o.job and oe.attempt = o.attempt and oe.e = 'end'
join chaos.told y on y.job = o.job and y.attempt > o.attempt and y.e = 'start'
left join chaos.causes c on c.job = o.job and c.attempt = o.attempt
where o.e = 'start' and y.at < oe.at
    -- Only a lease that a fault took: before it fails, snoozes or gives back, a handler has ended.
    and (c.cause is null or c.outcome <> 'lost')

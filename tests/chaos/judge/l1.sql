-- Lost: acknowledged and not there, or there and not at its end; asked for and never answered.
select format('job %s of call %s was acknowledged as %s and is not there', p.n, p.call, a.id)
from chaos.acked_ids a
join chaos.planned p on p.call = a.call and p.place = a.place
left join chaos.found f on f.job = a.id and f.n = p.n
where f.job is null
union all
select format('job %s (%s) is %s after the drain', f.n, f.job, f.state)
from chaos.found f
where f.state not in ('completed', 'cancelled', 'discarded')
union all
select format('call %s was never answered', p.call)
from (select distinct x.call from chaos.planned x) p
left join chaos.answers a on a.call = p.call
where not coalesce(a.acked or a.refused or a.rolled_back, false)
union all
select format('call %s was refused', p.call)
from chaos.planned p
join chaos.answers a on a.call = p.call
where a.refused and p.manner <> 'Refused' and p.place = 1
union all
select format('the order of call %s is not there', p.call)
from chaos.planned p
join chaos.answers a on a.call = p.call and a.acked
left join chaos.orders o on o.call = p.call
where p.manner = 'WithOrder' and p.place = 1 and o.call is null and chaos.keeps_orders()

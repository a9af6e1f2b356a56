//! Smaller operations, to find the smallest that still fail.

use super::ops::{New, Op};

impl Op {
    /// The operation without one of its parts, and `None` where there are no more.
    pub(super) fn without(&self, part: usize) -> Option<Op> {
        let fewer = |names: &Vec<usize>| {
            let mut names = names.clone();
            (part < names.len() && 1 < names.len()).then(|| names.remove(part)).map(|_| names)
        };
        match self {
            Op::Finish(end, names) => fewer(names).map(|names| Op::Finish(*end, names)),
            Op::Cancel(names) => fewer(names).map(Op::Cancel),
            Op::Retry(names) => fewer(names).map(Op::Retry),
            Op::Open(job) => job.without(part).map(Op::Open),
            Op::Enqueue(jobs, links) => {
                let mut jobs = jobs.clone();
                if 1 < jobs.len() && part < jobs.len() {
                    let gone = jobs.remove(part).name;
                    for job in &mut jobs {
                        job.edges.retain(|(parent, _)| *parent != gone);
                    }
                    return Some(Op::Enqueue(jobs, *links));
                }
                let mut part = if 1 < jobs.len() { part - jobs.len() } else { part };
                for job in &mut jobs {
                    match job.without(part) {
                        Some(thinner) => {
                            *job = thinner;
                            return Some(Op::Enqueue(jobs, *links));
                        }
                        None => part -= job.parts(),
                    }
                }
                None
            }
            Op::Acquire(_) | Op::Link | Op::Close => None,
        }
    }
}

impl New {
    fn parts(&self) -> usize {
        self.edges.len() + usize::from(self.key.is_some()) + usize::from(self.waits_for_any)
    }

    /// Without an edge, its key, or its waiting for any.
    fn without(&self, part: usize) -> Option<New> {
        let mut job = self.clone();
        if part < self.edges.len() {
            job.edges.remove(part);
        } else if self.parts() <= part {
            return None;
        } else if job.key.is_some() && part == self.edges.len() {
            job.key = None;
        } else {
            job.waits_for_any = false;
        }
        Some(job)
    }
}

//! A graph of jobs made small enough to be drawn: jobs that are alike become one node.

use std::collections::HashMap;
use std::hash::Hash;

use uuid::Uuid;

use super::JobState;

/// So many nodes a drawing has at most.
pub const MOST_NODES: usize = 500;

/// So many edges a drawing has at most.
pub const MOST_EDGES: usize = 2_000;

/// A graph is divided into so many layers at most; a deeper one has several steps in a layer.
const MOST_LAYERS: usize = 100;

/// So often nodes are told apart by those beside them.
const MOST_ROUNDS: usize = 64;

/// A job as a drawing needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphJob {
    /// The job.
    pub id: Uuid,
    /// What sort of job it is.
    pub kind: String,
    /// Its queue.
    pub queue: String,
    /// Where it stands.
    pub state: JobState,
    /// Whether it is blocked until a person acts.
    pub is_held: bool,
    /// What it waits or waited for, jobs outside the graph too.
    pub parents: Vec<Uuid>,
}

/// A job, or several that are alike: same kind, queue and state, between nodes that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphNode {
    /// The job, or the one with the lowest id.
    pub id: Uuid,
    /// How many jobs it stands for.
    pub jobs: usize,
    /// From 0, which waits for nothing inside the graph; above that of its parents.
    pub layer: usize,
    /// What sort of jobs they are.
    pub kind: String,
    /// Their queue.
    pub queue: String,
    /// Where they stand.
    pub state: JobState,
    /// Whether they are blocked until a person acts.
    pub is_held: bool,
}

/// The dependencies between the jobs of two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphEdge {
    /// The node waited for.
    pub parent: Uuid,
    /// The node that waits.
    pub child: Uuid,
    /// How many dependencies it stands for.
    pub jobs: usize,
}

/// A graph to be drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// By layer, then by id; [`MOST_NODES`] at most.
    pub nodes: Vec<GraphNode>,
    /// [`MOST_EDGES`] at most.
    pub edges: Vec<GraphEdge>,
    /// Jobs of nodes beyond those.
    pub jobs_left_out: usize,
    /// Edges beyond those.
    pub edges_left_out: usize,
}

impl Graph {
    /// The graph of these jobs. Up to `single` jobs have a node each; of more, those that are alike
    /// share one, told apart as finely as [`MOST_NODES`] allows.
    #[must_use]
    pub fn of(jobs: &[GraphJob], single: usize) -> Graph {
        let relatives = Relatives::of(jobs);
        let layers = relatives.layers();
        let classes = if jobs.len() <= single.min(MOST_NODES) {
            (0..jobs.len()).collect()
        } else {
            relatives.alike(dense(jobs.iter().zip(&layers).map(|(job, layer)| {
                (*layer, &job.kind, &job.queue, job.state.as_str(), job.is_held)
            })))
        };
        let mut graph = Graph::default();
        let ids = graph.add_nodes(jobs, &layers, &classes);
        graph.add_edges(&relatives, &classes, &ids);
        graph
    }

    /// Gives the id of each class that has become a node.
    fn add_nodes(
        &mut self,
        jobs: &[GraphJob],
        layers: &[usize],
        classes: &[usize],
    ) -> HashMap<usize, Uuid> {
        let mut nodes = HashMap::<usize, GraphNode>::new();
        for ((job, layer), class) in jobs.iter().zip(layers).zip(classes) {
            let node = nodes.entry(*class).or_insert_with(|| GraphNode {
                id: job.id,
                jobs: 0,
                layer: *layer,
                kind: job.kind.clone(),
                queue: job.queue.clone(),
                state: job.state,
                is_held: job.is_held,
            });
            node.jobs += 1;
            node.id = node.id.min(job.id);
        }
        let mut sorted: Vec<_> = nodes.into_iter().collect();
        sorted.sort_by_key(|(_, node)| (node.layer, node.id));
        let beyond = sorted.split_off(sorted.len().min(MOST_NODES));
        self.jobs_left_out = beyond.iter().map(|(_, node)| node.jobs).sum();
        let ids = sorted.iter().map(|(class, node)| (*class, node.id)).collect();
        self.nodes = sorted.into_iter().map(|(_, node)| node).collect();
        ids
    }

    fn add_edges(&mut self, relatives: &Relatives, classes: &[usize], ids: &HashMap<usize, Uuid>) {
        let mut edges = HashMap::<(Uuid, Uuid), usize>::new();
        for (child, parents) in relatives.parents.iter().enumerate() {
            for parent in parents {
                let ends = (ids.get(&classes[*parent]), ids.get(&classes[child]));
                if let (Some(parent), Some(child)) = ends
                    && parent != child
                {
                    *edges.entry((*parent, *child)).or_default() += 1;
                }
            }
        }
        let edge = |((parent, child), jobs)| GraphEdge { parent, child, jobs };
        self.edges = edges.into_iter().map(edge).collect();
        self.edges.sort_by_key(|edge| (edge.parent, edge.child));
        self.edges_left_out = self.edges.len().saturating_sub(MOST_EDGES);
        self.edges.truncate(MOST_EDGES);
    }
}

/// Who waits for whom, by places.
struct Relatives {
    parents: Vec<Vec<usize>>,
    children: Vec<Vec<usize>>,
}

impl Relatives {
    fn of(jobs: &[GraphJob]) -> Self {
        let places: HashMap<Uuid, usize> =
            jobs.iter().enumerate().map(|(place, job)| (job.id, place)).collect();
        let inside = |job: &GraphJob| {
            job.parents.iter().filter_map(|parent| places.get(parent).copied()).collect()
        };
        let parents: Vec<Vec<usize>> = jobs.iter().map(inside).collect();
        let mut children = vec![Vec::new(); jobs.len()];
        for (child, parents) in parents.iter().enumerate() {
            parents.iter().for_each(|parent| children[*parent].push(child));
        }
        Relatives { parents, children }
    }

    /// How many steps each stands below a job that waits for nothing, in [`MOST_LAYERS`] at most.
    fn layers(&self) -> Vec<usize> {
        let mut waits: Vec<usize> = self.parents.iter().map(Vec::len).collect();
        let mut layers = vec![0; waits.len()];
        let mut free: Vec<usize> = (0..waits.len()).filter(|place| waits[*place] == 0).collect();
        while let Some(parent) = free.pop() {
            for child in &self.children[parent] {
                layers[*child] = layers[*child].max(layers[parent] + 1);
                waits[*child] -= 1;
                if waits[*child] == 0 {
                    free.push(*child);
                }
            }
        }
        let depth = layers.iter().max().map_or(1, |last| last + 1);
        if MOST_LAYERS < depth {
            layers.iter_mut().for_each(|layer| *layer = *layer * MOST_LAYERS / depth);
        }
        layers
    }

    /// Divides classes by the classes of parents and children, until that divides no more, or
    /// would give too many.
    fn alike(&self, mut classes: Vec<usize>) -> Vec<usize> {
        let around = |places: &[usize], classes: &[usize]| {
            let mut around: Vec<usize> = places.iter().map(|place| classes[*place]).collect();
            around.sort_unstable();
            around.dedup();
            around
        };
        for _ in 0..MOST_ROUNDS {
            let finer = dense((0..classes.len()).map(|place| {
                let parents = around(&self.parents[place], &classes);
                (classes[place], parents, around(&self.children[place], &classes))
            }));
            let count = |classes: &[usize]| classes.iter().max().map_or(0, |last| last + 1);
            if MOST_NODES < count(&finer) || count(&finer) == count(&classes) {
                break;
            }
            classes = finer;
        }
        classes
    }
}

/// A number for each value, from 0, the same for equal ones.
fn dense<T: Hash + Eq>(values: impl Iterator<Item = T>) -> Vec<usize> {
    let mut numbers = HashMap::new();
    let number = |value| {
        let next = numbers.len();
        *numbers.entry(value).or_insert(next)
    };
    values.map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jobs 1, 2, 3 and so on, each a kind and the numbers of its parents.
    fn jobs<'a>(of: impl IntoIterator<Item = (&'a str, Vec<u128>)>) -> Vec<GraphJob> {
        let job = |(place, (kind, parents)): (u128, (&str, Vec<u128>))| GraphJob {
            id: Uuid::from_u128(place),
            kind: kind.to_owned(),
            queue: "q".to_owned(),
            state: JobState::Blocked,
            is_held: false,
            parents: parents.into_iter().map(Uuid::from_u128).collect(),
        };
        (1..).zip(of).map(job).collect()
    }

    fn shape(graph: &Graph) -> Vec<(usize, &str, usize)> {
        graph.nodes.iter().map(|node| (node.layer, node.kind.as_str(), node.jobs)).collect()
    }

    #[test]
    fn few_jobs_have_a_node_each() {
        let jobs = jobs([("c", vec![2, 3]), ("b", vec![3]), ("a", vec![9])]);
        let graph = Graph::of(&jobs, 3);
        assert_eq!(shape(&graph), [(0, "a", 1), (1, "b", 1), (2, "c", 1)]);
        assert_eq!(graph.edges.len(), 3);
    }

    #[test]
    fn siblings_and_parallel_chains_become_one_and_a_state_apart_stays_apart() {
        let of = [("list", vec![])]
            .into_iter()
            .chain((0..40).map(|_| ("extract", vec![1])))
            .chain((2..42).map(|parent| ("relate", vec![parent])))
            .chain([("sum", (42..82).collect())]);
        let mut jobs = jobs(of);
        let graph = Graph::of(&jobs, 0);
        assert_eq!(
            shape(&graph),
            [(0, "list", 1), (1, "extract", 40), (2, "relate", 40), (3, "sum", 1)]
        );
        assert_eq!(graph.edges.iter().map(|edge| edge.jobs).collect::<Vec<_>>(), [40, 40, 40]);
        // The chain of the one that failed is told apart down to its end.
        jobs[5].state = JobState::Discarded;
        let graph = Graph::of(&jobs, 0);
        assert_eq!(
            graph.nodes.iter().map(|node| node.jobs).collect::<Vec<_>>(),
            [1, 39, 1, 39, 1, 1]
        );
        assert_eq!((graph.jobs_left_out, graph.edges_left_out), (0, 0));
    }

    #[test]
    fn a_long_chain_and_a_wide_mixture_stay_bounded() {
        let chain =
            jobs((0..10_000).map(|place| ("step", if place == 0 { vec![] } else { vec![place] })));
        let graph = Graph::of(&chain, 100);
        assert!(graph.nodes.len() <= MOST_NODES && MOST_LAYERS <= graph.nodes.len());
        assert_eq!(graph.nodes.iter().map(|node| node.jobs).sum::<usize>(), 10_000);
        let kinds: Vec<String> = (0..700).map(|kind| format!("kind {kind}")).collect();
        let graph = Graph::of(&jobs(kinds.iter().map(|kind| (kind.as_str(), vec![]))), 100);
        assert_eq!((graph.nodes.len(), graph.jobs_left_out), (MOST_NODES, 200));
    }
}

//! A graph as lines of text: each node below one of the jobs that it waits for, the last of them to
//! come; the others are named behind it. An only child stands under its parent, so that a chain
//! stays in its column.

use std::collections::HashMap;

use rowlock::engine::WorkflowSummary;
use rowlock::model::{Graph, GraphNode, JobState};
use uuid::Uuid;

use crate::cli::show::printable;

/// The longest bar of progress.
const LONGEST_BAR: usize = 40;

/// So many further parents are named.
const MOST_NAMED: usize = 3;

/// The drawing, each line at most `width` columns wide.
pub(super) fn lines(
    workflow: &WorkflowSummary,
    graph: &Graph,
    width: usize,
    colour: bool,
) -> Vec<String> {
    let mut lines = head(workflow, width);
    let rows = Tree::of(graph).rows();
    let most = (width / 2).max(12);
    let labels = rows.iter().map(|row| row.label().chars().count()).max().unwrap_or(0).min(most);
    lines.extend(rows.iter().map(|row| row.text(labels, width, colour)));
    if 0 < graph.jobs_left_out {
        lines.push(cut(&format!("and {} jobs of other sorts", graph.jobs_left_out), width));
    }
    lines
}

/// Leaves out the lines that do not fit on a screen of so many rows.
pub(super) fn fit(lines: &mut Vec<String>, rows: usize) {
    // The last row is the cursor's.
    let room = rows.saturating_sub(1).max(2);
    if room < lines.len() {
        let beyond = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(format!("{beyond} more lines: --once"));
    }
}

fn head(workflow: &WorkflowSummary, width: usize) -> Vec<String> {
    let name = &printable(workflow.name.as_deref().unwrap_or("workflow"));
    let share = f64::from(workflow.done) / f64::from(workflow.jobs.max(1));
    let bar = LONGEST_BAR.min(width.saturating_sub(8));
    // Whole only when all is done.
    let filled = (share * bar as f64) as usize;
    let counts = workflow.counts.iter().filter(|(_, jobs)| 0 < *jobs);
    let mut parts: Vec<String> = counts.map(|(state, jobs)| format!("{jobs} {state}")).collect();
    parts.extend((0 < workflow.held).then(|| format!("{} of these held", workflow.held)));
    parts.extend((0 < workflow.pruned).then(|| format!("{} pruned", workflow.pruned)));
    let progress = format!("{} of {} done", workflow.done, workflow.jobs);
    vec![
        cut(&format!("{name}  {}  {progress}", workflow.state), width),
        cut(&workflow.id.to_string(), width),
        format!("{}{} {:3.0} %", "█".repeat(filled), "░".repeat(bar - filled), share * 100.0),
        cut(&parts.join(", "), width),
        String::new(),
    ]
}

/// Nodes by place, each below one parent.
struct Tree<'a> {
    nodes: &'a [GraphNode],
    parents: Vec<Vec<usize>>,
    children: Vec<Vec<usize>>,
}

/// One line.
struct Row<'a> {
    lead: String,
    node: &'a GraphNode,
    others: Vec<&'a GraphNode>,
}

impl<'a> Tree<'a> {
    fn of(graph: &'a Graph) -> Self {
        let nodes = graph.nodes.as_slice();
        let places: HashMap<Uuid, usize> =
            nodes.iter().enumerate().map(|(place, node)| (node.id, place)).collect();
        let mut parents = vec![Vec::new(); nodes.len()];
        for edge in &graph.edges {
            if let (Some(parent), Some(child)) = (places.get(&edge.parent), places.get(&edge.child))
            {
                parents[*child].push(*parent);
            }
        }
        let mut children = vec![Vec::new(); nodes.len()];
        for (child, parents) in parents.iter_mut().enumerate() {
            // The last that comes before it, first: jobs of one layer may wait for one another.
            parents.sort_by_key(|parent| (child < *parent, usize::MAX - *parent));
            if let Some(parent) = parents.first().filter(|parent| **parent < child) {
                children[*parent].push(child);
            }
        }
        Tree { nodes, parents, children }
    }

    fn rows(&self) -> Vec<Row<'a>> {
        let mut rows = Vec::new();
        let mut open: Vec<(usize, String, String)> = Vec::new();
        let is_root =
            |place: &usize| self.parents[*place].first().is_none_or(|first| place < first);
        for root in (0..self.nodes.len()).filter(is_root) {
            open.push((root, String::new(), String::new()));
            while let Some((place, lead, base)) = open.pop() {
                self.open_children(place, &lead, &base, &mut open);
                let hangs = !lead.is_empty();
                let others = self.parents[place].iter().skip(usize::from(hangs));
                let others = others.map(|other| &self.nodes[*other]).collect();
                rows.push(Row { lead, node: &self.nodes[place], others });
            }
        }
        rows
    }

    /// The children of a node, the last on the stack first: place, what stands before it, and
    /// before what comes below it.
    fn open_children(
        &self,
        place: usize,
        lead: &str,
        base: &str,
        open: &mut Vec<(usize, String, String)>,
    ) {
        let children = &self.children[place];
        if let [only] = children.as_slice() {
            open.push((*only, format!("{base}↓ "), base.to_owned()));
            return;
        }
        let base = if lead.ends_with("↓ ") { format!("{base}  ") } else { base.to_owned() };
        for (turn, child) in children.iter().rev().enumerate() {
            let (branch, beyond) =
                if turn == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            open.push((*child, format!("{base}{branch}"), format!("{base}{beyond}")));
        }
    }
}

impl Row<'_> {
    fn label(&self) -> String {
        format!("{}{} {}", self.lead, mark(self.node), name(self.node))
    }

    fn text(&self, labels: usize, width: usize, colour: bool) -> String {
        let mut label = self.label();
        let length = label.chars().count();
        if labels < length {
            // What stands on the right tells more.
            let tail: String = label.chars().skip(length - labels + 1).collect();
            label = format!("…{tail}");
        }
        let state = if self.node.is_held { "held" } else { self.node.state.as_str() };
        let mut text = format!("{label:labels$}  {state:9}  {}", self.node.queue);
        if !self.others.is_empty() {
            let named = self.others.iter().take(MOST_NAMED).map(|node| name(node));
            text += &format!("  also after {}", named.collect::<Vec<_>>().join(", "));
            if MOST_NAMED < self.others.len() {
                text += &format!(" and {} more", self.others.len() - MOST_NAMED);
            }
        }
        let text = cut(&text, width);
        let mark = mark(self.node);
        if colour { text.replacen(mark, &painted(self.node, mark), 1) } else { text }
    }
}

fn name(node: &GraphNode) -> String {
    let kind = printable(&node.kind);
    if node.jobs == 1 { kind } else { format!("{kind} ×{}", node.jobs) }
}

fn mark(node: &GraphNode) -> char {
    match node.state {
        _ if node.is_held => '‖',
        JobState::Blocked => '·',
        JobState::Scheduled => '○',
        JobState::Ready => '●',
        JobState::Running => '▶',
        JobState::Completed => '✓',
        JobState::Cancelled => '∅',
        JobState::Discarded => '✗',
    }
}

fn painted(node: &GraphNode, mark: char) -> String {
    let colour = match node.state {
        _ if node.is_held => 33,
        JobState::Completed => 32,
        JobState::Running => 36,
        JobState::Discarded => 31,
        JobState::Cancelled => 33,
        JobState::Blocked | JobState::Scheduled | JobState::Ready => return mark.to_string(),
    };
    format!("\x1b[{colour}m{mark}\x1b[0m")
}

/// The beginning of a text, as much as fits.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.trim_end().to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use rowlock::model::{GraphJob, WorkflowState};
    use time::OffsetDateTime;

    use super::*;

    fn graph(jobs: &[(&str, &[u128])]) -> Graph {
        let job = |(place, (kind, parents)): (u128, &(&str, &[u128]))| GraphJob {
            id: Uuid::from_u128(place),
            kind: (*kind).to_owned(),
            queue: "q".to_owned(),
            state: JobState::Blocked,
            is_held: false,
            parents: parents.iter().copied().map(Uuid::from_u128).collect(),
        };
        Graph::of(&(1..).zip(jobs).map(job).collect::<Vec<_>>(), 100)
    }

    fn workflow() -> WorkflowSummary {
        WorkflowSummary {
            id: Uuid::nil(),
            name: None,
            state: WorkflowState::Running,
            created_at: OffsetDateTime::UNIX_EPOCH,
            finished_at: None,
            jobs: 8,
            done: 3,
            counts: vec![(JobState::Blocked, 5), (JobState::Ready, 0), (JobState::Completed, 2)],
            held: 1,
            pruned: 1,
        }
    }

    fn drawn(jobs: &[(&str, &[u128])], width: usize) -> Vec<String> {
        lines(&workflow(), &graph(jobs), width, false).split_off(5)
    }

    #[test]
    fn a_chain_stays_in_its_column_and_a_fan_hangs_below() {
        let jobs: [(&str, &[u128]); 7] = [
            ("a", &[]),
            ("b", &[1]),
            ("c", &[2]),
            ("d", &[2]),
            ("e", &[3]),
            ("f", &[4, 5, 1]),
            ("alone", &[]),
        ];
        let expected = [
            "· a              blocked    q",
            "↓ · b            blocked    q",
            "  ├─ · c         blocked    q",
            "  │  ↓ · e       blocked    q",
            "  │  ↓ · f       blocked    q  also after d, a",
            "  └─ · d         blocked    q",
            "· alone          blocked    q",
        ];
        let text: Vec<String> = drawn(&jobs, 80)
            .into_iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let expected = expected.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(text, expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let wide = "w".repeat(120);
        let jobs: [(&str, &[u128]); 3] = [(&wide, &[]), (&wide, &[1]), (&wide, &[1, 2])];
        for width in [0, 1, 7, 20, 40, 200] {
            for line in lines(&workflow(), &graph(&jobs), width, false) {
                assert!(line.chars().count() <= width.max(7), "{width}: {line}");
            }
        }
    }

    #[test]
    fn the_head_counts_what_there_is() {
        let head = lines(&workflow(), &Graph::default(), 80, false);
        assert_eq!(head[0], "workflow  running  3 of 8 done");
        assert!(head[2].starts_with("███████████████░") && head[2].ends_with(" 38 %"), "{head:?}");
        assert_eq!(head[3], "5 blocked, 2 completed, 1 of these held, 1 pruned");
    }

    #[test]
    fn a_screen_keeps_the_first_lines() {
        let mut lines: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        fit(&mut lines, 10);
        assert_eq!(lines.len(), 9);
        assert_eq!(lines[8], "2 more lines: --once");
        fit(&mut lines, 10);
        assert_eq!(lines.len(), 9);
    }
}

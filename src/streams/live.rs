//! The tree as it is now: what the supervisors know of each child, and what streams, committers and workers say about
//! themselves.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use supervisors::{NodeState, NodeView};

use super::api::TreeQuery;
use super::directory::{Directory, Entry};
use super::shared::Phase;
use super::tree::partition_name;
use crate::names::StreamId;
use crate::times::timestamp;

/// A node of the tree, flat: its place among all, what hangs on it.
struct Flat {
    view: NodeView,
    parent: Option<usize>,
    depth: usize,
    /// What it says about itself.
    own: Map<String, Value>,
    trouble: bool,
    /// What is below it, by state.
    below: HashMap<&'static str, usize>,
    shown: bool,
    hidden: usize,
}

/// The name of a node's state, as in its JSON.
fn state_name(state: &NodeState) -> &'static str {
    match state {
        NodeState::Running => "running",
        NodeState::Starting => "starting",
        NodeState::Waiting { .. } => "waiting",
        NodeState::Parked { .. } => "parked",
        NodeState::Draining => "draining",
        NodeState::Stopping => "stopping",
        NodeState::Abandoned => "abandoned",
        NodeState::Stopped => "stopped",
    }
}

/// The part of the tree that `query` asks for.
pub(super) async fn tree(directory: &Directory, query: &TreeQuery) -> Value {
    let Some(root) = directory.root() else { return Value::Null };
    let mut nodes = flatten(root.snapshot().await);
    describe_all(directory, &mut nodes);
    count_below(&mut nodes);
    choose(&mut nodes, query);
    assemble(nodes)
}

/// The nodes at `paths`, without children.
pub(super) async fn nodes(directory: &Directory, paths: &[String]) -> Vec<Option<Value>> {
    let Some(root) = directory.root() else { return vec![None; paths.len()] };
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, path) in paths.iter().enumerate() {
        places.entry(path).or_default().push(place);
    }
    let mut found = vec![None; paths.len()];
    let mut flat = flatten(root.snapshot().await);
    flat.retain(|node| places.contains_key(node.view.path.as_str()));
    describe_all(directory, &mut flat);
    for node in flat {
        let wanted = places.get(node.view.path.as_str()).cloned().unwrap_or_default();
        let value = Value::Object(object(node));
        for place in wanted {
            found[place] = Some(value.clone());
        }
    }
    found
}

/// All nodes, parents before their children.
fn flatten(root: NodeView) -> Vec<Flat> {
    let mut flat = Vec::new();
    let mut stack = vec![(root, None, 0)];
    while let Some((mut view, parent, depth)) = stack.pop() {
        let children = std::mem::take(&mut view.children);
        let place = flat.len();
        stack.extend(children.into_iter().rev().map(|child| (child, Some(place), depth + 1)));
        let (own, below) = (Map::new(), HashMap::new());
        flat.push(Flat { view, parent, depth, own, trouble: false, below, shown: false, hidden: 0 });
    }
    flat
}

/// Asks streams about the nodes that are theirs.
fn describe_all(directory: &Directory, nodes: &mut [Flat]) {
    let scrubber = &directory.node.scrubber;
    for node in nodes {
        let path = node.view.path.as_str().to_owned();
        if let Some(error) = &mut node.view.last_error {
            scrubber.clean(&mut error.message);
        }
        if let NodeState::Parked { reason } = &mut node.view.state {
            scrubber.clean(&mut reason.message);
        }
        let entry = stream_of(&path).and_then(|id| directory.entry(&id));
        if let Some(entry) = entry {
            describe(&entry, &path, &mut node.own);
        }
        let calm = matches!(node.view.state, NodeState::Running);
        node.trouble = !calm
            || node.view.abandoned > 0
            || node.view.flapping
            || node.view.restarts_warning
            || node.own.contains_key("trouble");
    }
}

/// The stream to which the node at `path` belongs.
fn stream_of(path: &str) -> Option<StreamId> {
    let mut segments = path.split('/').skip(1);
    if segments.next() != Some("tenants") {
        return None;
    }
    StreamId::new(segments.next()?, segments.next()?).ok()
}

/// What the stream, its committer or its worker at `path` says about itself.
fn describe(entry: &Entry, path: &str, own: &mut Map<String, Value>) {
    let shared = &entry.shared;
    let now_us = shared.node.clock.now_us();
    #[allow(clippy::cast_precision_loss, reason = "seconds of lag need no microseconds beyond 2^52")]
    let lag = |newest: Option<i64>| json!(newest.map(|newest| (now_us - newest) as f64 / 1e6));
    let mut say = |key: &str, value: Value| {
        own.insert(key.to_owned(), value);
    };
    if let Some(at_us) = shared.probe_at_us(path) {
        say("probe_at", json!(timestamp(at_us)));
    }
    let below = path.splitn(5, '/').nth(4);
    let progress = shared.progress.borrow().clone();
    match below {
        None => {
            say("desired", json!(entry.desired()));
            say("epoch", json!(progress.epoch));
            say("lag_seconds", lag(progress.newest_event_us));
            say("queue_bytes", json!(shared.credits.used_bytes()));
            if let Some(reason) = shared.waits_for() {
                say("waits_for", json!(reason));
            }
        }
        Some("committer") => {
            say("epoch", json!(progress.epoch));
            say("generation", json!(progress.generation));
            say("queue_bytes", json!(shared.credits.used_bytes()));
            if let Some(reason) = shared.waits_for() {
                say("waits_for", json!(reason));
            }
        }
        Some(below) => {
            let Some(id) = below.strip_prefix("workers/") else { return };
            let partition = partition_name(id);
            let intake = shared.intake.borrow().clone();
            let standing = intake.map(|intake| intake.standing(&partition)).unwrap_or_default();
            say("position", json!(standing.accepted.as_ref().map(|at| at.as_str())));
            say("committed", json!(standing.committed.as_ref().map(|at| at.as_str())));
            say("lag_seconds", lag(standing.newest_event_us));
            say("queue_bytes", json!(standing.queue_bytes));
            let Some((phase, failed, trouble)) = shared.worker_view(&partition) else { return };
            let (phase, next_at) = match phase {
                Phase::Starting => ("starting", None),
                Phase::Working => ("working", None),
                Phase::Waiting(at_us) => ("waiting", Some(timestamp(at_us))),
                Phase::Ended => ("ended", None),
            };
            say("phase", json!(phase));
            say("next_at", json!(next_at));
            say("failed_workloads", json!(failed));
            if let Some(trouble) = trouble {
                say("trouble", json!(trouble));
            }
        }
    }
}

/// Counts for each node what is below it. Parents stand before their children, so one pass from the end does it.
fn count_below(nodes: &mut [Flat]) {
    for place in (1..nodes.len()).rev() {
        let Some(parent) = nodes[place].parent else { continue };
        let mut counts = std::mem::take(&mut nodes[place].below);
        for (state, count) in &counts {
            *nodes[parent].below.entry(*state).or_default() += count;
        }
        *nodes[parent].below.entry(state_name(&nodes[place].view.state)).or_default() += 1;
        std::mem::swap(&mut nodes[place].below, &mut counts);
    }
}

/// Marks the nodes to show: those that fit with what they hang on, the troubled ones first, then from the top down.
fn choose(nodes: &mut [Flat], query: &TreeQuery) {
    let prefix = query.stream.as_ref().map(|id| format!("lakefeed/tenants/{}/{}", id.tenant(), id.stream()));
    let fits = |node: &Flat| {
        let path = node.view.path.as_str();
        let mine = prefix.as_deref().is_none_or(|prefix| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let wanted = |state: &String| match state.as_str() {
            "trouble" => node.trouble,
            "abandoned" => node.view.abandoned > 0 || state_name(&node.view.state) == "abandoned",
            state => state_name(&node.view.state) == state,
        };
        let deep = query.depth.is_some_and(|depth| node.depth > depth);
        mine && !deep && (query.only.is_empty() || query.only.iter().any(wanted))
    };
    let mut wanted: Vec<usize> = (0..nodes.len()).filter(|place| fits(&nodes[*place])).collect();
    wanted.sort_by_key(|place| (!nodes[*place].trouble, nodes[*place].depth, *place));
    let mut left = query.limit.unwrap_or(usize::MAX);
    if let Some(root) = nodes.first_mut() {
        root.shown = true;
        left = left.saturating_sub(1);
    }
    for place in wanted {
        let mut chain = Vec::new();
        let mut at = Some(place);
        while let Some(place) = at.filter(|place| !nodes[*place].shown) {
            chain.push(place);
            at = nodes[place].parent;
        }
        if chain.len() <= left {
            left -= chain.len();
            chain.iter().for_each(|place| nodes[*place].shown = true);
        }
    }
    for place in 1..nodes.len() {
        if let Some(parent) = nodes[place].parent.filter(|_| !nodes[place].shown) {
            nodes[parent].hidden += 1;
        }
    }
}

/// The node's keys, without children.
fn object(node: Flat) -> Map<String, Value> {
    let supervisor = node.view.kind == supervisors::ChildKind::Supervisor;
    let mut object = match serde_json::to_value(node.view) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    object.remove("children");
    object.extend(node.own);
    if supervisor {
        object.insert("below".to_owned(), json!(node.below));
        object.insert("hidden".to_owned(), json!(node.hidden));
    }
    object
}

/// The shown nodes as one tree. Children stand behind their parents, so it is built from the end.
fn assemble(mut nodes: Vec<Flat>) -> Value {
    let mut children: HashMap<usize, Vec<Value>> = HashMap::new();
    while let Some(node) = nodes.pop() {
        let place = nodes.len();
        let mut mine = children.remove(&place).unwrap_or_default();
        if !node.shown {
            continue;
        }
        mine.reverse();
        let parent = node.parent;
        let mut object = object(node);
        object.insert("children".to_owned(), Value::Array(mine));
        match parent {
            Some(parent) => children.entry(parent).or_default().push(Value::Object(object)),
            None => return Value::Object(object),
        }
    }
    Value::Null
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use supervisors::{ChildKind, ChildPath};

    use super::*;

    fn node(path: &str, state: NodeState, children: Vec<NodeView>) -> NodeView {
        let kind = if children.is_empty() { ChildKind::Worker } else { ChildKind::Supervisor };
        NodeView {
            path: path.split('/').skip(1).fold(ChildPath::root("lakefeed"), |path, id| path.join(id)),
            kind,
            state,
            incarnation: 1,
            uptime_ms: 1,
            restarts_in_window: 0,
            restarts_left: None,
            restarts_warning: false,
            last_error_ms: None,
            flap_score: 0.0,
            flapping: false,
            restarts: 0,
            abandoned: 0,
            last_error: None,
            children,
        }
    }

    /// A tenant with `count` streams of one child each, of which the one at `waiting` waits.
    fn many(count: usize, waiting: usize) -> NodeView {
        let stream = |n: usize| {
            let state = if n == waiting {
                NodeState::Waiting { until_ms: 5, attempt: 2, why: supervisors::WaitReason::Backoff }
            } else {
                NodeState::Running
            };
            let path = format!("lakefeed/tenants/t/s{n}");
            let child = node(&format!("{path}/committer"), state, vec![]);
            node(&path, NodeState::Running, vec![child])
        };
        let tenant = node("lakefeed/tenants/t", NodeState::Running, (0..count).map(stream).collect());
        let tenants = node("lakefeed/tenants", NodeState::Running, vec![tenant]);
        node("lakefeed", NodeState::Running, vec![node("lakefeed/control", NodeState::Running, vec![]), tenants])
    }

    fn shown(root: NodeView, query: &TreeQuery) -> Value {
        let mut nodes = flatten(root);
        nodes.iter_mut().for_each(|node| node.trouble = !matches!(node.view.state, NodeState::Running));
        count_below(&mut nodes);
        choose(&mut nodes, query);
        assemble(nodes)
    }

    fn paths(value: &Value) -> Vec<String> {
        let mut all = vec![value["path"].as_str().expect("a path").to_owned()];
        for child in value["children"].as_array().expect("children") {
            all.extend(paths(child));
        }
        all
    }

    #[test]
    fn test_live_tree_is_whole_and_in_order_without_a_query() {
        let value = shown(many(2, 9), &TreeQuery::default());
        let expected = ["", "/control", "/tenants", "/tenants/t", "/tenants/t/s0", "/tenants/t/s0/committer"];
        let expected: Vec<_> = expected.into_iter().chain(["/tenants/t/s1", "/tenants/t/s1/committer"]).collect();
        assert_eq!(paths(&value), expected.iter().map(|path| format!("lakefeed{path}")).collect::<Vec<_>>());
        assert_eq!(value["below"], serde_json::json!({"running": 7}));
        assert_eq!(value["hidden"], 0);
    }

    #[test]
    fn test_live_tree_of_10_000_streams_shows_what_waits_first() {
        let query = TreeQuery { limit: Some(20), ..TreeQuery::default() };
        let value = shown(many(10_000, 9_876), &query);
        let paths = paths(&value);
        assert_eq!(paths.len(), 20);
        assert!(paths.contains(&"lakefeed/tenants/t/s9876/committer".to_owned()), "{paths:?}");
        assert!(paths.contains(&"lakefeed/control".to_owned()), "from the top down: {paths:?}");
        let tenant = &value["children"][1]["children"][0];
        let streams = tenant["children"].as_array().map_or(0, Vec::len) as u64;
        assert_eq!(tenant["hidden"].as_u64(), Some(10_000 - streams));
        assert_eq!(tenant["below"], serde_json::json!({"running": 19_999, "waiting": 1}));
    }

    #[test]
    fn test_live_tree_filters_by_state_stream_and_depth() {
        let of = |query: TreeQuery| paths(&shown(many(3, 1), &query));
        let chain = ["lakefeed", "lakefeed/tenants", "lakefeed/tenants/t", "lakefeed/tenants/t/s1"];
        for state in ["waiting", "trouble"] {
            let only = of(TreeQuery { only: vec![state.to_owned()], ..TreeQuery::default() });
            assert_eq!(only[..4], chain, "{state}");
            assert_eq!(only[4..], ["lakefeed/tenants/t/s1/committer"], "{state}");
        }
        assert_eq!(of(TreeQuery { only: vec!["parked".to_owned()], ..TreeQuery::default() }), ["lakefeed"]);
        let stream = Some(StreamId::new("t", "s2").expect("names"));
        assert_eq!(
            of(TreeQuery { stream, ..TreeQuery::default() }).last().expect("some"),
            "lakefeed/tenants/t/s2/committer"
        );
        assert_eq!(of(TreeQuery { depth: Some(1), ..TreeQuery::default() }).len(), 3);
    }
}

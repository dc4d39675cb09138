//! What a random sequence consists of: a tree, how the starts of its children go, and what is done to it when.

use supervisors::{AutoShutdown, Class, Restart, Shutdown, Strategy};

/// Time that a worker takes to stop that has to be killed, unless its supervisor waits for ever.
pub(crate) const DEAF: u64 = 80_000;
/// Time that a start takes that hangs.
pub(crate) const HANG: u64 = 70_000;

/// Restart policy; delays double, in milliseconds, without jitter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Policy {
    pub(crate) backoff: Option<Delays>,
    pub(crate) park: Vec<Class>,
    pub(crate) in_a_row: Option<u32>,
    pub(crate) probe: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Delays {
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) reset: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flags {
    pub(crate) strategy: Strategy,
    pub(crate) max: u32,
    pub(crate) window: u64,
    /// The limit parks the child instead of ending the supervisor.
    pub(crate) parks: bool,
    pub(crate) auto: AutoShutdown,
    pub(crate) policy: Policy,
    pub(crate) dynamic: bool,
    pub(crate) room: Option<usize>,
    /// A failure during the first start is treated like a crash.
    pub(crate) retries: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) flags: Flags,
    pub(crate) kids: Vec<Plant>,
}

#[derive(Clone, Debug)]
pub(crate) struct Plant {
    pub(crate) id: String,
    pub(crate) restart: Restart,
    pub(crate) significant: bool,
    pub(crate) shutdown: Shutdown,
    pub(crate) policy: Option<Policy>,
    pub(crate) start_limit: Option<u64>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A future: it runs as soon as it is started.
    Task(Manner),
    /// A start function that takes its time, then a future.
    Slow(u64, Manner),
    /// A ractor actor, started by a function that takes its time. Stops at once.
    Actor(u64),
    /// A supervisor, whose spec takes its time.
    Group(u64, Box<Group>),
}

/// How a worker ends when it is asked to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Milliseconds that it takes.
    pub(crate) after: u64,
    /// It reports a failure then.
    pub(crate) badly: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) class: Class,
    pub(crate) retry_after: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Clean,
    Fail(Fault),
    Panic,
}

/// How one start goes. Of a task, only [`Then::RunFor`] has an effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Opening {
    pub(crate) after: u64,
    pub(crate) then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Then {
    Run,
    /// Ends by itself after this long.
    RunFor(u64, End),
    Fail(Fault),
    Panic,
    Ignore,
}

/// When an operation happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// This long after the one before.
    After(u64),
    /// This much (less one) past the moment in which a restart leaves some window; at once if none will.
    Edge(u64),
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Workers end by themselves, all in the same moment.
    End(Vec<(String, End)>),
    /// An actor or a supervisor is killed from outside.
    Kill(String),
    /// A worker says that it did useful work.
    Healthy(String),
    /// The next starts of a child.
    Openings(String, Vec<Opening>),
    Call(String, Call),
    /// The whole tree is looked at.
    Look,
}

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Start(Plant),
    Terminate(String),
    Restart(String),
    Bounce(String),
    Delete(String),
    Which,
    Count,
    Spec(String),
    Change(Group),
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) tree: Group,
    pub(crate) openings: Vec<(String, Vec<Opening>)>,
    pub(crate) ops: Vec<(When, Op)>,
}

impl Body {
    pub(crate) fn is_group(&self) -> bool {
        matches!(self, Self::Group(..))
    }

    /// Milliseconds that a start takes unless an opening says otherwise.
    pub(crate) fn start_time(&self) -> u64 {
        match self {
            Self::Task(_) => 0,
            Self::Slow(time, _) | Self::Actor(time) | Self::Group(time, _) => *time,
        }
    }

    pub(crate) fn manner(&self) -> Manner {
        match self {
            Self::Task(manner) | Self::Slow(_, manner) => *manner,
            Self::Actor(_) | Self::Group(..) => Manner { after: 0, badly: false },
        }
    }
}

impl Fault {
    /// The machine-readable name that puppets give to their failures.
    pub(crate) fn code(&self) -> String {
        format!("told_{}", self.class)
    }
}

impl Group {
    /// The groups below, with their paths, the outermost first.
    fn paths_into(&self, path: &str, groups: &mut Vec<String>, workers: &mut Vec<String>) {
        groups.push(path.to_owned());
        for kid in &self.kids {
            let below = format!("{path}/{}", kid.id);
            match &kid.body {
                Body::Group(_, group) => group.paths_into(&below, groups, workers),
                _ => workers.push(below),
            }
        }
    }

    /// The group at a path.
    pub(crate) fn at(&self, path: &str) -> &Self {
        path.split('/').skip(1).fold(self, |group, id| {
            let below = group.kids.iter().find(|kid| kid.id == id).map(|kid| &kid.body);
            let Some(Body::Group(_, below)) = below else { unreachable!("no group at {path}") };
            below
        })
    }

    /// Paths of all groups and of all workers.
    pub(crate) fn paths(&self) -> (Vec<String>, Vec<String>) {
        let (mut groups, mut workers) = (Vec::new(), Vec::new());
        self.paths_into("root", &mut groups, &mut workers);
        (groups, workers)
    }
}

/// Every case that is a little simpler than this one.
pub(crate) fn simpler(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let mut width = case.ops.len();
    while width > 0 {
        for start in (0..case.ops.len()).step_by(width) {
            let mut less = case.clone();
            less.ops.drain(start..(start + width).min(case.ops.len()));
            all.push(less);
        }
        width /= 2;
    }
    for index in 0..case.openings.len() {
        let mut less = case.clone();
        less.openings.remove(index);
        all.push(less);
    }
    for tree in simpler_groups(&case.tree) {
        all.push(Case { tree, ..case.clone() });
    }
    for index in 0..case.ops.len() {
        for op in simpler_ops(&case.ops[index].1) {
            let mut less = case.clone();
            less.ops[index].1 = op;
            all.push(less);
        }
    }
    all
}

fn simpler_ops(op: &Op) -> Vec<Op> {
    match op {
        Op::End(ends) if ends.len() > 1 => (0..ends.len()).map(|at| Op::End(without(ends, at))).collect(),
        Op::Openings(path, list) if list.len() > 1 => {
            (0..list.len()).map(|at| Op::Openings(path.clone(), without(list, at))).collect()
        }
        Op::Call(path, Call::Change(group)) => {
            simpler_groups(group).into_iter().map(|group| Op::Call(path.clone(), Call::Change(group))).collect()
        }
        _ => Vec::new(),
    }
}

fn without<T: Clone>(all: &[T], at: usize) -> Vec<T> {
    let mut less = all.to_vec();
    less.remove(at);
    less
}

fn simpler_groups(group: &Group) -> Vec<Group> {
    let mut all = Vec::new();
    for at in 0..group.kids.len() {
        all.push(Group { kids: without(&group.kids, at), ..group.clone() });
        let plant = &group.kids[at];
        let mut put = |plant: Plant| {
            let mut less = group.clone();
            less.kids[at] = plant;
            all.push(less);
        };
        if let Body::Group(time, below) = &plant.body {
            for less in simpler_groups(below) {
                put(Plant { body: Body::Group(*time, Box::new(less)), ..plant.clone() });
            }
        }
        if plant.policy.is_some() {
            put(Plant { policy: None, ..plant.clone() });
        }
        if plant.start_limit.is_some() {
            put(Plant { start_limit: None, ..plant.clone() });
        }
        if plant.restart != Restart::Permanent && !plant.significant {
            put(Plant { restart: Restart::Permanent, ..plant.clone() });
        }
    }
    let plain = Flags { policy: Policy::default(), ..group.flags.clone() };
    if group.flags.policy != plain.policy {
        all.push(Group { flags: plain, ..group.clone() });
    }
    if group.flags.room.is_some() || group.flags.parks {
        all.push(Group { flags: Flags { room: None, parks: false, ..group.flags.clone() }, ..group.clone() });
    }
    all
}

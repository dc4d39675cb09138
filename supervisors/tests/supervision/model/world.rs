//! The model's world: time, what is due when, who lives, and the lines that are told.
//!
//! Nothing here shares code with the crate. There are no tasks and no messages: a list of what is due drives plain state
//! transitions. Two things that fall due in the same millisecond by chance make a sequence `muddled`: their order is
//! nobody's promise, and the sequence is not compared.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use supervisors::{Class, ManageError};

use super::case::{End, Fault, Flags, Opening, Plant};

/// A supervisor's life.
pub(crate) type Gid = usize;
/// A child of a supervisor, as long as the supervisor lives.
pub(crate) type Nth = u64;
/// Where a child stands in its supervisor's order: who starts later has a greater one.
pub(crate) type Place = u64;
/// When, and in which order among those of the same time.
pub(crate) type Key = (u64, u64);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Error {
    pub(crate) code: String,
    pub(crate) class: Class,
    pub(crate) retry_after: Option<u64>,
    pub(crate) origin: Option<Origin>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Origin {
    pub(crate) incident: u64,
    pub(crate) because: String,
}

impl Error {
    pub(crate) fn new(class: Class, code: &str) -> Self {
        Self { code: code.to_owned(), class, retry_after: None, origin: None }
    }

    pub(crate) fn killed() -> Self {
        Self::new(Class::Bug, "killed")
    }

    pub(crate) fn panic() -> Self {
        Self::new(Class::Bug, "panic")
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self { retry_after: fault.retry_after, ..Self::new(fault.class, &fault.code()) }
    }
}

/// How a life ended; `None` is clean.
pub(crate) type Fate = Option<Error>;

pub(crate) fn fate(end: End, actor: bool) -> Fate {
    match end {
        End::Clean => None,
        End::Fail(fault) => Some(fault.into()),
        End::Panic if actor => Some(Error::new(Class::Bug, "actor_failed")),
        End::Panic => Some(Error::panic()),
    }
}

/// Whose wish a start is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wish {
    First,
    New,
    Request,
    Again,
}

/// Why a child is being stopped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cause {
    Terminate,
    Bounce,
    Group,
    End,
    LateStart(Wish),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Is {
    Down,
    Starting(Wish),
    Up(u64),
    Waiting(u64),
    Parked,
    Stopping { cause: Cause, killed: bool, starting: bool },
}

impl Is {
    pub(crate) fn alive(&self) -> bool {
        matches!(self, Self::Starting(_) | Self::Up(_) | Self::Stopping { .. })
    }
}

/// What is remembered of a child's failures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    pub(crate) incident: Option<u64>,
    pub(crate) because: Option<String>,
    pub(crate) row: u32,
    pub(crate) last: Option<u64>,
    pub(crate) down_since: Option<u64>,
    pub(crate) error: Option<String>,
    pub(crate) on_trial: bool,
    pub(crate) own: Vec<u64>,
    pub(crate) count: u64,
}

/// Somebody who waits for an answer: the number of the operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Asker {
    Start(usize),
    Stop(usize),
}

pub(crate) struct Kid {
    pub(crate) nth: Nth,
    pub(crate) place: Place,
    pub(crate) plant: Plant,
    /// The spec that its current life was started by.
    pub(crate) alive: Plant,
    pub(crate) is: Is,
    pub(crate) life: u64,
    pub(crate) incarnation: u64,
    /// The supervisor that it is, once there is one.
    pub(crate) group: Option<Gid>,
    pub(crate) past: Past,
    pub(crate) healthy: bool,
    /// It has ended, and nobody has looked yet.
    pub(crate) over: bool,
    pub(crate) askers: Vec<Asker>,
    /// The timer of its state.
    pub(crate) timer: Option<Key>,
    /// What its life will do by itself.
    pub(crate) acts: Vec<Key>,
}

/// A first start or a group restart.
pub(crate) struct Job {
    pub(crate) cause: Option<(Nth, String)>,
    pub(crate) incident: Option<u64>,
    /// It is about everybody from this place on.
    pub(crate) from: Place,
    pub(crate) step: Step,
    pub(crate) ready: bool,
    pub(crate) spared: HashSet<Nth>,
}

pub(crate) enum Step {
    Stop(Vec<Nth>),
    Wait,
    Start(VecDeque<Nth>, Option<Nth>),
}

pub(crate) struct Closing {
    /// `None` for a clean end.
    pub(crate) error: Option<(Error, Origin)>,
    pub(crate) left: Vec<Nth>,
}

pub(crate) struct Life {
    pub(crate) path: String,
    pub(crate) incarnation: u64,
    pub(crate) flags: Flags,
    pub(crate) kids: BTreeMap<Nth, Kid>,
    pub(crate) restarts: Vec<u64>,
    pub(crate) job: Option<Job>,
    pub(crate) closing: Option<Closing>,
    pub(crate) late: Vec<(Nth, Fate)>,
    /// Its first start is not through.
    pub(crate) young: bool,
    pub(crate) born: u64,
    pub(crate) inherited: Option<Origin>,
    /// Its place in the supervisor above: whose child, which, and in which life.
    pub(crate) above: Option<(Gid, Nth, u64)>,
    /// The next child, and the next place.
    pub(crate) next: Nth,
}

impl Life {
    /// The children in the order in which they start.
    pub(crate) fn in_order(&self) -> Vec<&Kid> {
        let mut kids: Vec<_> = self.kids.values().collect();
        kids.sort_by_key(|kid| kid.place);
        kids
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// A start comes to its result.
    Opened(Gid, Nth, Opening),
    /// A life ends by itself or because it was asked to.
    Ended(Gid, Nth, Fate),
    /// A supervisor is asked to end.
    Ask(Gid),
    /// A nested supervisor's first start is through, or failed.
    Begun(Gid, Nth, Result<(), Error>),
    /// A supervisor has ended.
    Closed(Gid, Nth, u64, Option<(Error, Origin)>),
    RootUp,
    StopLimit(Gid, Nth),
    StartLimit(Gid, Nth),
    Again(Gid, Nth),
    Probe(Gid, Nth),
}

#[derive(Default)]
pub(crate) struct Line {
    pub(crate) at: u64,
    pub(crate) kind: &'static str,
    pub(crate) path: String,
    pub(crate) incarnation: u64,
    pub(crate) incident: Option<u64>,
    pub(crate) because: Option<String>,
    pub(crate) row: u32,
    pub(crate) code: Option<String>,
    pub(crate) delay: Option<u64>,
    pub(crate) strategy: Option<&'static str>,
    pub(crate) recovered: Option<u64>,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) agenda: BTreeMap<Key, Due>,
    pub(crate) lives: BTreeMap<Gid, Life>,
    pub(crate) openings: HashMap<(String, u64), Opening>,
    pub(crate) incarnations: HashMap<String, u64>,
    pub(crate) lines: Vec<Line>,
    pub(crate) answers: Vec<(usize, u64, String)>,
    pub(crate) root_up: bool,
    /// How the root ended: the code of what it gave up for, if it did.
    pub(crate) root_end: Option<Option<String>>,
    pub(crate) muddled: bool,
    counter: u64,
    steps: u64,
}

/// No sequence comes near it.
const MOST_STEPS: u64 = 100_000;

impl World {
    pub(crate) fn fresh(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(crate) fn plan(&mut self, after: u64, due: Due) -> Key {
        let key = (self.now + after, self.fresh());
        self.agenda.insert(key, due);
        key
    }

    pub(crate) fn life(&mut self, gid: Gid) -> &mut Life {
        self.lives.get_mut(&gid).expect("lives")
    }

    pub(crate) fn kid(&mut self, gid: Gid, nth: Nth) -> &mut Kid {
        self.life(gid).kids.get_mut(&nth).expect("known")
    }

    pub(crate) fn has(&self, gid: Gid, nth: Nth) -> bool {
        self.lives.get(&gid).is_some_and(|life| life.kids.contains_key(&nth))
    }

    pub(crate) fn path(&mut self, gid: Gid, nth: Nth) -> String {
        let id = self.kid(gid, nth).plant.id.clone();
        format!("{}/{id}", self.life(gid).path)
    }

    pub(crate) fn next_incarnation(&mut self, path: &str) -> u64 {
        let count = self.incarnations.entry(path.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// A child's state changes: its old state's timer does not ring any more.
    pub(crate) fn set(&mut self, gid: Gid, nth: Nth, is: Is, timer: Option<(u64, Due)>) {
        let key = timer.map(|(after, due)| self.plan(after, due));
        let kid = self.kid(gid, nth);
        let old = std::mem::replace(&mut kid.timer, key);
        kid.is = is;
        if let Some(old) = old {
            self.agenda.remove(&old);
        }
    }

    /// A child's life is over: nothing more comes of it.
    pub(crate) fn close_life(&mut self, gid: Gid, nth: Nth) {
        let kid = self.kid(gid, nth);
        kid.life = 0;
        kid.group = None;
        kid.over = false;
        for key in std::mem::take(&mut kid.acts) {
            self.agenda.remove(&key);
        }
    }

    /// A line about a child, with what is remembered of it filled in.
    pub(crate) fn line(&mut self, gid: Gid, nth: Nth, kind: &'static str) -> Line {
        let (at, path) = (self.now, self.path(gid, nth));
        let kid = self.kid(gid, nth);
        Line {
            at,
            kind,
            path,
            incarnation: kid.incarnation,
            incident: kid.past.incident,
            because: kid.past.because.clone(),
            row: kid.past.row,
            ..Line::default()
        }
    }

    pub(crate) fn answer(&mut self, number: usize, text: impl Into<String>) {
        self.answers.push((number, self.now, text.into()));
    }

    pub(crate) fn answer_starts(&mut self, gid: Gid, nth: Nth, result: &Result<(), ManageError>) {
        let text = super::outcome(result);
        for asker in std::mem::take(&mut self.kid(gid, nth).askers) {
            match asker {
                Asker::Start(number) => self.answer(number, text.clone()),
                Asker::Stop(_) => self.kid(gid, nth).askers.push(asker),
            }
        }
    }

    pub(crate) fn answer_stops(&mut self, gid: Gid, nth: Nth) {
        for asker in std::mem::take(&mut self.kid(gid, nth).askers) {
            match asker {
                Asker::Stop(number) => self.answer(number, "ok"),
                Asker::Start(_) => self.kid(gid, nth).askers.push(asker),
            }
        }
    }

    /// A supervisor is gone, with all that it knew; whoever waited learns just that.
    pub(crate) fn obliterate(&mut self, gid: Gid) {
        let Some(life) = self.lives.remove(&gid) else { return };
        for kid in life.kids.into_values() {
            for key in kid.acts.iter().chain(&kid.timer) {
                self.agenda.remove(key);
            }
            for asker in kid.askers {
                let (Asker::Start(number) | Asker::Stop(number)) = asker;
                self.answer(number, "Gone");
            }
            if let Some(below) = kid.group {
                self.obliterate(below);
            }
        }
        self.agenda.retain(|_, due| !matches!(due, Due::Ask(to) if *to == gid));
    }

    /// Lets everything happen that is due up to a time.
    pub(crate) fn run_until(&mut self, time: u64) {
        while let Some(entry) = self.agenda.first_entry() {
            let at = entry.key().0;
            if at > time {
                break;
            }
            let due = entry.remove();
            self.steps += 1;
            assert!(self.steps < MOST_STEPS, "the model runs in a circle");
            self.muddled |= self.agenda.first_key_value().is_some_and(|(key, _)| key.0 == at);
            self.now = at;
            self.happen(due);
        }
        self.now = self.now.max(time);
    }

    /// Whether something falls due in this very moment.
    pub(crate) fn busy_at(&self, time: u64) -> bool {
        self.agenda.first_key_value().is_some_and(|(key, _)| key.0 <= time)
    }

    /// The lines as text, incidents numbered as they come up.
    pub(crate) fn told(&self) -> Vec<String> {
        let mut incidents = Vec::new();
        self.lines.iter().map(|line| line.text(&mut incidents)).collect()
    }
}

impl Line {
    fn text(&self, incidents: &mut Vec<u64>) -> String {
        let incident = self.incident.map(|id| super::number(incidents, &id));
        super::Told {
            at: self.at,
            kind: self.kind,
            path: &self.path,
            incarnation: self.incarnation,
            incident,
            because: self.because.as_deref(),
            row: self.row,
            code: self.code.as_deref(),
            delay: self.delay,
            strategy: self.strategy,
            recovered: self.recovered,
        }
        .to_string()
    }
}

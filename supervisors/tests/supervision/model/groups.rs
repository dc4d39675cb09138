//! The model's rules for several children: first starts, group restarts, the end.

use std::collections::{BTreeMap, HashSet, VecDeque};

use supervisors::{ManageError, Strategy};

use super::case::{Group, Plant};
use super::world::{
    Cause, Closing, Due, Error, Gid, Is, Job, Kid, Life, Line, Nth, Origin, Past, Place, Step, Wish, World,
};

/// A place before all places.
const EVERYBODY: Place = 0;

impl World {
    /// A supervisor comes to be.
    pub(crate) fn settle_down(
        &mut self,
        path: String,
        incarnation: u64,
        group: Group,
        inherited: Option<Origin>,
        above: Option<(Gid, Nth, u64)>,
    ) -> Gid {
        let gid = usize::try_from(self.fresh()).expect("few");
        let life = Life {
            path,
            incarnation,
            flags: group.flags,
            kids: BTreeMap::new(),
            restarts: Vec::new(),
            job: None,
            closing: None,
            late: Vec::new(),
            young: true,
            born: self.now,
            inherited,
            above,
            next: EVERYBODY + 1,
        };
        self.lives.insert(gid, life);
        let queue: VecDeque<Nth> = group.kids.into_iter().map(|plant| self.add(gid, plant)).collect();
        let step = Step::Start(queue, None);
        let job = Job { cause: None, incident: None, from: EVERYBODY, step, ready: true, spared: HashSet::new() };
        self.life(gid).job = Some(job);
        gid
    }

    pub(crate) fn add(&mut self, gid: Gid, plant: Plant) -> Nth {
        let life = self.life(gid);
        let nth = life.next;
        life.next += 1;
        let kid = Kid {
            nth,
            place: nth,
            alive: plant.clone(),
            plant,
            is: Is::Down,
            life: 0,
            incarnation: 0,
            group: None,
            past: Past::default(),
            healthy: false,
            over: false,
            askers: Vec::new(),
            timer: None,
            acts: Vec::new(),
        };
        life.kids.insert(nth, kid);
        nth
    }

    fn alive(&self, gid: Gid, nth: Nth) -> bool {
        self.lives.get(&gid).and_then(|life| life.kids.get(&nth)).is_some_and(|kid| kid.is.alive())
    }

    /// Carries a supervisor's work as far as it goes by itself.
    pub(crate) fn drive(&mut self, gid: Gid) {
        while self.lives.get(&gid).is_some_and(|life| life.closing.is_none() && life.job.is_some()) {
            let Some(job) = self.life(gid).job.take() else { return };
            let went_on = match job.step {
                Step::Stop(_) => self.drive_stop(gid, job),
                Step::Wait => self.drive_wait(gid, job),
                Step::Start(..) => self.drive_start(gid, job),
            };
            if !went_on {
                return self.drive_close(gid);
            }
        }
        self.drive_close(gid);
    }

    fn drive_stop(&mut self, gid: Gid, mut job: Job) -> bool {
        let Step::Stop(members) = &mut job.step else { return false };
        while members.last().is_some_and(|nth| !self.alive(gid, *nth)) {
            members.pop();
        }
        let Some(last) = members.last().copied() else {
            job.step = Step::Wait;
            self.life(gid).job = Some(job);
            return true;
        };
        self.life(gid).job = Some(job);
        if matches!(self.kid(gid, last).is, Is::Stopping { .. }) {
            return false;
        }
        self.stop(gid, last, Cause::Group);
        true
    }

    fn drive_wait(&mut self, gid: Gid, mut job: Job) -> bool {
        let ready = job.ready;
        if ready {
            let kids = self.life(gid).in_order().into_iter();
            let down = kids.filter(|kid| kid.place >= job.from && !kid.is.alive() && !job.spared.contains(&kid.nth));
            job.step = Step::Start(down.map(|kid| kid.nth).collect(), None);
        }
        self.life(gid).job = Some(job);
        ready
    }

    fn drive_start(&mut self, gid: Gid, mut job: Job) -> bool {
        let Step::Start(queue, current) = &mut job.step else { return false };
        let busy = |world: &mut Self, nth| {
            world.has(gid, nth) && matches!(world.kid(gid, nth).is, Is::Starting(_) | Is::Stopping { .. })
        };
        if current.is_some_and(|nth| busy(self, nth)) {
            self.life(gid).job = Some(job);
            return false;
        }
        *current = queue.pop_front();
        let Some(next) = *current else {
            self.grown_up(gid);
            return true;
        };
        let first = job.cause.is_none();
        self.life(gid).job = Some(job);
        if self.has(gid, next) && !self.alive(gid, next) {
            self.blame(gid, next);
            self.begin(gid, next, if first { Wish::First } else { Wish::Again });
        }
        true
    }

    /// The first start is through, if it was not already.
    fn grown_up(&mut self, gid: Gid) {
        let life = self.life(gid);
        if std::mem::take(&mut life.young) {
            match life.above {
                Some((above, nth, _)) => self.plan(0, Due::Begun(above, nth, Ok(()))),
                None => self.plan(0, Due::RootUp),
            };
        }
        for (nth, fate) in std::mem::take(&mut self.life(gid).late) {
            if self.has(gid, nth) {
                self.kid(gid, nth).over = false;
                self.ended(gid, nth, fate);
            }
        }
    }

    /// A child's failure makes others stop and start with it. What an earlier job had not brought up is this one's.
    pub(crate) fn new_job(&mut self, gid: Gid, nth: Nth, ready: bool) {
        let path = self.path(gid, nth);
        let incident = self.kid(gid, nth).past.incident;
        let life = self.life(gid);
        let mut from = if life.flags.strategy == Strategy::OneForAll { EVERYBODY } else { life.kids[&nth].place };
        let mut spared = HashSet::new();
        let mut was_first = false;
        if let Some(old) = life.job.take() {
            let open = match &old.step {
                Step::Start(queue, current) => {
                    let open = current.iter().chain(queue.front()).filter_map(|nth| life.kids.get(nth));
                    open.map(|kid| kid.place).min().unwrap_or(Place::MAX)
                }
                Step::Stop(_) | Step::Wait => old.from,
            };
            from = from.min(open);
            spared = old.spared;
            was_first = old.cause.is_none();
        }
        spared.remove(&nth);
        let members = life.in_order().into_iter().filter(|kid| kid.place >= from && kid.is.alive());
        let members = members.map(|kid| kid.nth).collect();
        life.job = Some(Job { cause: Some((nth, path)), incident, from, step: Step::Stop(members), ready, spared });
        if was_first {
            self.grown_up(gid);
        }
    }

    /// The children get a new order, by `code_change`'s rule: these first, then the others. What a job has still to do
    /// it does in the new order; whom it was about it is still about, and all who come after one of them.
    pub(crate) fn put_first(&mut self, gid: Gid, first: &[Nth], known: &HashSet<Nth>) {
        let life = self.life(gid);
        let touched = |kid: &Kid, from| known.contains(&kid.nth) && kid.place >= from;
        let from = life.job.as_ref().map_or(EVERYBODY, |job| job.from);
        let touched: Vec<Nth> = life.kids.values().filter(|kid| touched(kid, from)).map(|kid| kid.nth).collect();
        let others = life.in_order().into_iter().map(|kid| kid.nth).filter(|nth| !first.contains(nth));
        let order: Vec<Nth> = first.iter().copied().chain(others).collect();
        for nth in order {
            life.kids.get_mut(&nth).expect("ordered").place = life.next;
            life.next += 1;
        }
        let kids = &life.kids;
        let place = |nth: &Nth| kids[nth].place;
        let Some(job) = &mut life.job else { return };
        if job.from != EVERYBODY {
            job.from = touched.iter().map(place).min().unwrap_or(Place::MAX);
        }
        match &mut job.step {
            // The last is on its way down already.
            Step::Stop(members) => {
                let rest = members.len().saturating_sub(1);
                members[..rest].sort_by_key(place);
            }
            Step::Start(queue, _) => queue.make_contiguous().sort_by_key(place),
            Step::Wait => {}
        }
    }

    fn touched(&self, gid: Gid, nth: Nth) -> bool {
        let life = &self.lives[&gid];
        let Some(job) = life.job.as_ref().filter(|job| job.cause.is_some()) else { return false };
        life.kids.get(&nth).is_some_and(|kid| kid.place >= job.from) && !job.spared.contains(&nth)
    }

    /// Whether a job was about to stop this child anyway.
    pub(crate) fn job_stops(&mut self, gid: Gid, nth: Nth) -> bool {
        let touched = self.touched(gid, nth);
        self.life(gid).job.as_ref().is_some_and(|job| {
            let cause = job.cause.as_ref().is_some_and(|(cause, _)| *cause == nth);
            matches!(job.step, Step::Stop(_)) && touched && !cause
        })
    }

    /// Whether a job will start this child, which is down.
    pub(crate) fn job_starts(&mut self, gid: Gid, nth: Nth) -> bool {
        let touched = self.touched(gid, nth);
        self.life(gid).job.as_ref().is_some_and(|job| match &job.step {
            Step::Start(queue, _) => queue.contains(&nth),
            Step::Stop(_) | Step::Wait => touched,
        })
    }

    /// How long a job still waits on account of another child.
    pub(crate) fn job_waits(&mut self, gid: Gid, nth: Nth) -> u64 {
        let job = self.life(gid).job.as_ref().filter(|job| !job.ready);
        let cause = job.and_then(|job| job.cause.as_ref()).map(|(cause, _)| *cause).filter(|cause| *cause != nth);
        let Some(cause) = cause.filter(|cause| self.has(gid, *cause)) else { return 0 };
        match self.kid(gid, cause).is {
            Is::Waiting(until) => until - self.now,
            _ => 0,
        }
    }

    pub(crate) fn blame(&mut self, gid: Gid, nth: Nth) {
        let Some(Job { cause: Some((cause, path)), incident, .. }) = &self.life(gid).job else { return };
        let (cause, path, incident) = (*cause, path.clone(), *incident);
        if cause != nth {
            let past = &mut self.kid(gid, nth).past;
            past.incident = incident;
            past.because = Some(path);
        }
    }

    pub(crate) fn bounced(&mut self, gid: Gid, nth: Nth) {
        // It may have become temporary meanwhile.
        if !self.has(gid, nth) || self.life(gid).closing.is_some() {
            return;
        }
        match self.life(gid).flags.strategy {
            Strategy::OneForOne => self.begin(gid, nth, Wish::Again),
            Strategy::OneForAll | Strategy::RestForOne => self.new_job(gid, nth, true),
        }
    }

    /// A supervisor begins to end.
    pub(crate) fn close(&mut self, gid: Gid, error: Option<(Error, Origin)>) {
        let life = self.life(gid);
        if life.closing.is_some() {
            return;
        }
        life.job = None;
        let all: Vec<Nth> = life.in_order().into_iter().map(|kid| kid.nth).collect();
        for nth in &all {
            if !self.alive(gid, *nth) {
                self.set(gid, *nth, Is::Down, None);
            }
            self.answer_starts(gid, *nth, &Err(ManageError::ShuttingDown));
        }
        let dynamic = self.life(gid).flags.dynamic;
        let left = if dynamic { Vec::new() } else { all.clone() };
        self.life(gid).closing = Some(Closing { error, left });
        for nth in all.into_iter().filter(|_| dynamic) {
            self.stop_last(gid, nth);
        }
        for (nth, fate) in std::mem::take(&mut self.life(gid).late) {
            self.kid(gid, nth).over = false;
            self.ended(gid, nth, fate);
        }
        self.drive_close(gid);
    }

    fn stop_last(&mut self, gid: Gid, nth: Nth) {
        if self.has(gid, nth) && matches!(self.kid(gid, nth).is, Is::Up(_) | Is::Starting(_)) {
            self.stop(gid, nth, Cause::End);
        }
    }

    fn drive_close(&mut self, gid: Gid) {
        loop {
            let Some(life) = self.lives.get(&gid) else { return };
            let Some(closing) = &life.closing else { return };
            let Some(last) = closing.left.last().copied() else { break };
            if self.alive(gid, last) {
                self.stop_last(gid, last);
                if self.alive(gid, last) {
                    return;
                }
            }
            let Some(life) = self.lives.get_mut(&gid) else { return };
            if let Some(closing) = &mut life.closing {
                closing.left.pop();
            }
        }
        if self.lives.get(&gid).is_some_and(|life| life.kids.values().all(|kid| !kid.is.alive())) {
            self.closed(gid);
        }
    }

    fn closed(&mut self, gid: Gid) {
        let life = self.life(gid);
        let (young, above, path) = (life.young, life.above, life.path.clone());
        let error = life.closing.take().and_then(|closing| closing.error);
        self.obliterate(gid);
        let Some((above, nth, number)) = above else { return self.root_closed(young, path, error) };
        if young {
            let error = match error {
                Some((error, origin)) => Error { origin: Some(origin), ..error },
                None => Error::new(supervisors::Class::Transient, "stopped"),
            };
            self.plan(0, Due::Begun(above, nth, Err(error)));
        } else {
            self.plan(0, Due::Closed(above, nth, number, error));
        }
    }

    fn root_closed(&mut self, young: bool, path: String, error: Option<(Error, Origin)>) {
        let code = error.as_ref().map(|(error, _)| error.code.clone());
        if young {
            self.root_end = Some(code.or_else(|| Some("stopped".to_owned())));
            return;
        }
        self.root_end = Some(code);
        // It may end in the moment in which it came up.
        self.root_is_up();
        let (incident, code) = match error {
            Some((error, origin)) => (Some(origin.incident), Some(error.code)),
            None => (None, None),
        };
        self.lines.push(Line {
            at: self.now,
            kind: "stopped",
            path,
            incarnation: 1,
            incident,
            code,
            ..Line::default()
        });
    }
}

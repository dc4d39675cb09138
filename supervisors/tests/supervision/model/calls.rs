//! The model's answers to operations.

use std::collections::HashSet;

use supervisors::{AutoShutdown, ManageError, Restart, Strategy};

use super::case::{Body, Call, Case, Flags, Group, Op, Plant, When};
use super::world::{Asker, Cause, Error, Fate, Gid, Is, Nth, Wish, World, fate};

/// What the model says of a case.
pub(crate) struct Verdict {
    pub(crate) told: Vec<String>,
    pub(crate) answers: Vec<String>,
    /// When each operation happens; empty if the root did not come up.
    pub(crate) times: Vec<u64>,
    pub(crate) end: Option<String>,
    pub(crate) muddled: bool,
}

/// Longer than anything takes.
const LONG: u64 = 1_000_000;
/// Longer than the first start of any tree that comes up at all.
const PATIENCE: u64 = 100_000;

pub(crate) fn judge(case: &Case) -> Verdict {
    let mut world = World::default();
    for (path, openings) in &case.openings {
        world.give(path, openings);
    }
    let incarnation = world.next_incarnation("root");
    let root = world.settle_down("root".to_owned(), incarnation, case.tree.clone(), None, None);
    world.drive(root);
    while !world.root_up && world.root_end.is_none() {
        // With limits on starts that are shorter than the starts, a patient root tries for ever.
        if world.now > PATIENCE {
            world.muddled = true;
            break;
        }
        let next = world.agenda.first_key_value().expect("a root comes up or does not").0.0;
        world.run_until(next);
    }
    let mut times = Vec::new();
    if world.root_up {
        for (number, (when, op)) in case.ops.iter().enumerate() {
            let at = world.time_of(*when);
            world.run_until(at - 1);
            world.muddled |= world.busy_at(at);
            world.now = at;
            times.push(at);
            world.operate(root, number, op);
        }
        let last = world.now + 1;
        world.run_until(last - 1);
        world.muddled |= world.busy_at(last);
        world.now = last;
        times.push(last);
        if world.lives.contains_key(&root) {
            world.close(root, None);
        }
        world.run_until(last + LONG);
    }
    let mut answers = std::mem::take(&mut world.answers);
    answers.sort_by_key(|(number, ..)| *number);
    let answers = answers.into_iter().map(|(number, at, text)| format!("{number} at {at}: {text}")).collect();
    let end = world.root_end.clone().flatten();
    Verdict { told: world.told(), answers, times, end, muddled: world.muddled }
}

impl World {
    fn give(&mut self, path: &str, openings: &[super::case::Opening]) {
        let lived = self.incarnations.get(path).copied().unwrap_or(0);
        for (incarnation, opening) in (lived + 1..).zip(openings) {
            self.openings.insert((path.to_owned(), incarnation), *opening);
        }
    }

    fn time_of(&mut self, when: When) -> u64 {
        match when {
            When::After(time) => self.now + time,
            When::Edge(past) => {
                let edges = self.lives.values().flat_map(|life| {
                    life.restarts.iter().map(|at| at + life.flags.window).filter(|at| *at > self.now + 1)
                });
                edges.min().map_or(self.now + 1, |edge| edge + past - 1)
            }
        }
    }

    /// Where a path leads, as long as everything on the way runs.
    fn find(&self, gid: Gid, path: &str) -> Option<(Gid, Option<Nth>)> {
        let mut at = (gid, None);
        for id in path.split('/').skip(1) {
            if let (gid, Some(nth)) = at {
                at = (self.lives[&gid].kids[&nth].group?, None);
            }
            let life = self.lives.get(&at.0)?;
            let kid = life.kids.values().find(|kid| kid.plant.id == id)?;
            at.1 = Some(kid.nth);
        }
        Some(at)
    }

    fn operate(&mut self, root: Gid, number: usize, op: &Op) {
        match op {
            Op::End(ends) => {
                let alone = ends.len() == 1;
                let mut targets = Vec::new();
                for (path, end) in ends {
                    // An actor needs a step more to end than a task, so that its moment is not quite the same.
                    let target = self.find_up(root, path).filter(|(gid, nth)| alone || !self.is_actor(*gid, *nth));
                    targets.extend(target.map(|target| (target, *end)));
                }
                let mut order = Vec::new();
                // Each supervisor sees to its own children, the one that is told first before the others.
                targets.sort_by_cached_key(|((gid, _), _)| super::number(&mut order, gid));
                let mut told = HashSet::new();
                let mut before = None;
                for ((gid, nth), end) in targets {
                    // What one supervisor's end sets off, and what happens below another, have no order.
                    let another = before.replace(gid).is_some_and(|before| before != gid);
                    self.muddled |= another && self.busy_at(self.now);
                    if told.insert((gid, nth)) && self.has(gid, nth) {
                        let actor = self.is_actor(gid, nth);
                        self.fall(gid, nth, fate(end, actor));
                    }
                }
            }
            Op::Kill(path) => self.kill_now(root, path),
            Op::Healthy(path) => {
                if let Some((gid, nth)) = self.find_up(root, path) {
                    self.kid(gid, nth).healthy = true;
                }
            }
            Op::Openings(path, openings) => self.give(path, openings),
            Op::Look => {
                let text = if self.lives.contains_key(&root) { self.look(root) } else { "gone".to_owned() };
                self.answer(number, text);
            }
            Op::Call(path, call) => {
                let target = self.find(root, path).filter(|_| self.lives.contains_key(&root));
                let gid = target.and_then(|(gid, nth)| match nth {
                    Some(nth) => self.kid(gid, nth).group,
                    None => Some(gid),
                });
                match gid {
                    Some(gid) => {
                        self.call(gid, number, call);
                        self.drive(gid);
                    }
                    None if path == "root" => self.answer(number, gone(call)),
                    None => self.answer(number, "nobody"),
                }
            }
        }
    }

    /// A worker that runs and listens.
    fn find_up(&self, root: Gid, path: &str) -> Option<(Gid, Nth)> {
        let (gid, nth) = self.find(root, path)?;
        let nth = nth.filter(|_| self.lives.contains_key(&gid))?;
        let kid = self.lives.get(&gid)?.kids.get(&nth)?;
        (matches!(kid.is, Is::Up(_)) && !kid.over && !kid.alive.body.is_group()).then_some((gid, nth))
    }

    fn is_actor(&self, gid: Gid, nth: Nth) -> bool {
        matches!(self.lives[&gid].kids[&nth].alive.body, Body::Actor(_))
    }

    fn fall(&mut self, gid: Gid, nth: Nth, fate: Fate) {
        for key in std::mem::take(&mut self.kid(gid, nth).acts) {
            self.agenda.remove(&key);
        }
        self.ended(gid, nth, fate);
        self.drive(gid);
    }

    /// Actors and supervisors that run can be killed from outside.
    fn kill_now(&mut self, root: Gid, path: &str) {
        let Some((gid, Some(nth))) = self.find(root, path) else { return };
        if !self.has(gid, nth) {
            return;
        }
        let kid = self.kid(gid, nth);
        if !matches!(kid.is, Is::Up(_)) || kid.over {
            return;
        }
        match (&kid.alive.body, kid.group) {
            (Body::Actor(_), _) => self.fall(gid, nth, Some(Error::killed())),
            (Body::Group(..), Some(below)) => {
                self.kid(gid, nth).group = None;
                self.obliterate(below);
                self.fall(gid, nth, Some(Error::killed()));
            }
            _ => {}
        }
    }

    fn call(&mut self, gid: Gid, number: usize, call: &Call) {
        match call {
            Call::Which => {
                let text = self.which(gid);
                self.answer(number, text);
            }
            Call::Count => {
                let kids = || self.lives[&gid].kids.values();
                let groups = kids().filter(|kid| kid.plant.body.is_group()).count();
                let (all, up) = (kids().count(), kids().filter(|kid| kid.is.alive()).count());
                self.answer(number, format!("{all} specs {up} active {groups} groups"));
            }
            Call::Spec(id) => {
                let kid = self.lives[&gid].kids.values().find(|kid| kid.plant.id == *id);
                let text =
                    kid.map_or("none".to_owned(), |kid| super::spec_text(kid.plant.restart, kid.plant.significant));
                self.answer(number, text);
            }
            Call::Start(plant) => self.call_start(gid, number, plant),
            Call::Change(group) => {
                let outcome = self.change(gid, group);
                self.answer(number, super::outcome(&outcome));
            }
            Call::Terminate(id) => match self.by_id(gid, id) {
                Some(nth) => self.terminate(gid, nth, number),
                None => self.answer(number, "NotFound"),
            },
            Call::Restart(id) | Call::Bounce(id) => {
                let bounce = matches!(call, Call::Bounce(_));
                match self.by_id(gid, id) {
                    _ if bounce && self.life(gid).closing.is_some() => self.answer(number, "ShuttingDown"),
                    Some(nth) => self.restart(gid, nth, number, bounce),
                    None => self.answer(number, "NotFound"),
                }
            }
            Call::Delete(id) => {
                let outcome = self.delete(gid, id);
                self.answer(number, super::outcome(&outcome));
            }
        }
    }

    fn by_id(&mut self, gid: Gid, id: &str) -> Option<Nth> {
        self.life(gid).kids.values().find(|kid| kid.plant.id == id).map(|kid| kid.nth)
    }

    fn call_start(&mut self, gid: Gid, number: usize, plant: &Plant) {
        let present = self.by_id(gid, &plant.id);
        let life = self.life(gid);
        let refusal = if life.closing.is_some() {
            Some("ShuttingDown".to_owned())
        } else if !sensible(plant, &life.flags) {
            Some("Invalid".to_owned())
        } else if let Some(nth) = present {
            Some(if life.kids[&nth].is.alive() { "AlreadyStarted" } else { "AlreadyPresent" }.to_owned())
        } else {
            life.flags.room.filter(|room| life.kids.len() >= *room).map(|_| "MaxChildren".to_owned())
        };
        if let Some(refusal) = refusal {
            return self.answer(number, refusal);
        }
        let nth = self.add(gid, plant.clone());
        self.kid(gid, nth).askers.push(Asker::Start(number));
        self.begin(gid, nth, Wish::New);
    }

    /// A job in progress does without this child, and does not wait for it.
    fn spare(&mut self, gid: Gid, nth: Nth) {
        let Some(job) = &mut self.life(gid).job else { return };
        job.spared.insert(nth);
        if let super::world::Step::Start(queue, _) = &mut job.step {
            queue.retain(|queued| *queued != nth);
        }
        if job.cause.as_ref().is_some_and(|(cause, _)| *cause == nth) {
            job.ready = true;
        }
    }

    fn terminate(&mut self, gid: Gid, nth: Nth, number: usize) {
        self.spare(gid, nth);
        let kid = self.kid(gid, nth);
        kid.askers.push(Asker::Stop(number));
        match &mut kid.is {
            Is::Up(_) | Is::Starting(_) => self.stop(gid, nth, Cause::Terminate),
            Is::Stopping { cause: Cause::End, .. } => {}
            Is::Stopping { cause, .. } => *cause = Cause::Terminate,
            Is::Waiting(_) | Is::Parked => {
                let line = self.line(gid, nth, "stopped");
                self.lines.push(line);
                self.set(gid, nth, Is::Down, None);
                self.rest(gid, nth);
            }
            Is::Down => self.rest(gid, nth),
        }
    }

    fn restart(&mut self, gid: Gid, nth: Nth, number: usize, bounce: bool) {
        let closing = self.life(gid).closing.is_some();
        let kid = self.kid(gid, nth);
        let temporary = kid.plant.restart == Restart::Temporary;
        match &kid.is {
            _ if closing => self.answer(number, "ShuttingDown"),
            Is::Up(_) if !bounce || temporary => self.answer(number, "Running"),
            Is::Up(_) => {
                kid.askers.push(Asker::Start(number));
                self.stop(gid, nth, Cause::Bounce);
            }
            Is::Starting(_) | Is::Stopping { .. } => self.answer(number, "Restarting"),
            Is::Down | Is::Waiting(_) | Is::Parked => {
                kid.askers.push(Asker::Start(number));
                self.hurry(gid, nth);
            }
        }
    }

    fn hurry(&mut self, gid: Gid, nth: Nth) {
        if self.job_starts(gid, nth) {
            let job = self.life(gid).job.as_ref().filter(|job| !job.ready);
            if let Some((cause, _)) = job.and_then(|job| job.cause.clone()) {
                match self.kid(gid, cause).is {
                    Is::Parked => self.probe(gid, cause),
                    _ => self.again(gid, cause),
                }
            }
            return;
        }
        match self.kid(gid, nth).is {
            Is::Waiting(_) => self.again(gid, nth),
            Is::Parked => self.probe(gid, nth),
            _ => {
                if let Some(job) = &mut self.life(gid).job {
                    job.spared.remove(&nth);
                }
                self.begin(gid, nth, Wish::Request);
            }
        }
    }

    fn delete(&mut self, gid: Gid, id: &str) -> Result<(), ManageError> {
        let nth = self.by_id(gid, id).ok_or(ManageError::NotFound)?;
        let awaited = self.job_starts(gid, nth);
        match self.kid(gid, nth).is {
            Is::Up(_) => Err(ManageError::Running),
            Is::Starting(_) | Is::Stopping { .. } | Is::Waiting(_) => Err(ManageError::Restarting),
            Is::Down if awaited => Err(ManageError::Restarting),
            Is::Down | Is::Parked => {
                self.spare(gid, nth);
                self.drop_kid(gid, nth);
                Ok(())
            }
        }
    }

    fn change(&mut self, gid: Gid, new: &Group) -> Result<(), ManageError> {
        let invalid = || Err(ManageError::Invalid(supervisors::SpecError::InvalidPeriod));
        let life = self.life(gid);
        if life.closing.is_some() {
            return Err(ManageError::ShuttingDown);
        }
        let flags = &new.flags;
        let ids: HashSet<&String> = new.kids.iter().map(|plant| &plant.id).collect();
        let crowded = flags.room.is_some_and(|room| new.kids.len() > room);
        let unordered = flags.strategy == Strategy::OneForOne && flags.auto == AutoShutdown::Never;
        let sound = flags.window > 0
            && ids.len() == new.kids.len()
            && !crowded
            && (!flags.dynamic || unordered)
            && new.kids.iter().all(|plant| sensible(plant, flags))
            && flags.dynamic == life.flags.dynamic;
        if !sound {
            return invalid();
        }
        let kept = |life: &super::world::Life| {
            life.kids.values().filter(|kid| !ids.contains(&kid.plant.id)).map(|kid| kid.plant.clone()).collect()
        };
        let kept: Vec<Plant> = kept(life);
        if let Some(limit) = flags.room.filter(|room| kept.len() + ids.len() > *room) {
            return Err(ManageError::MaxChildren { limit });
        }
        if !kept.iter().all(|plant| sensible(plant, flags)) {
            return invalid();
        }
        life.flags = flags.clone();
        let known: HashSet<Nth> = life.kids.keys().copied().collect();
        let mut first = Vec::new();
        for plant in &new.kids {
            let nth = self.by_id(gid, &plant.id);
            if let Some(nth) = nth {
                self.kid(gid, nth).plant = plant.clone();
            }
            first.push(nth.unwrap_or_else(|| self.add(gid, plant.clone())));
        }
        if !new.flags.dynamic {
            self.put_first(gid, &first, &known);
        }
        Ok(())
    }
}

fn sensible(plant: &Plant, flags: &Flags) -> bool {
    let lasting = plant.restart == Restart::Permanent || flags.auto == AutoShutdown::Never;
    !(plant.id.is_empty() || plant.id.contains('/') || plant.significant && lasting)
}

/// What a supervisor that does not exist any more is taken to say.
fn gone(call: &Call) -> &'static str {
    match call {
        Call::Which => "",
        Call::Count => "0 specs 0 active 0 groups",
        Call::Spec(_) => "none",
        _ => "Gone",
    }
}

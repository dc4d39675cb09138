//! The model's rules for one child that starts or fails, and what follows.

use supervisors::{ManageError, Restart, Strategy};

use super::case::{Body, Group, Opening, Policy, Then};
use super::world::{Cause, Due, Error, Gid, Is, Line, Nth, Origin, Past, Wish, World, fate};

impl World {
    pub(crate) fn happen(&mut self, due: Due) {
        let gid = match due {
            Due::Opened(gid, nth, opening) => {
                self.opened(gid, nth, opening);
                gid
            }
            Due::Ended(gid, nth, fate) => {
                self.ended(gid, nth, fate);
                gid
            }
            Due::Ask(gid) => {
                if self.lives.contains_key(&gid) {
                    self.close(gid, None);
                }
                gid
            }
            Due::Begun(gid, nth, result) => {
                if self.has(gid, nth) {
                    self.begun(gid, nth, result);
                }
                gid
            }
            Due::Closed(gid, nth, life, error) => {
                if self.has(gid, nth) && self.kid(gid, nth).life == life {
                    let fate = error.map(|(error, origin)| Error { origin: Some(origin), ..error });
                    self.ended(gid, nth, fate);
                }
                gid
            }
            Due::RootUp => return self.root_is_up(),
            Due::StopLimit(gid, nth) => {
                self.kid(gid, nth).timer = None;
                self.kill(gid, nth);
                gid
            }
            Due::StartLimit(gid, nth) => {
                self.kid(gid, nth).timer = None;
                let Is::Starting(wish) = self.kid(gid, nth).is else { return };
                self.stop(gid, nth, Cause::LateStart(wish));
                gid
            }
            Due::Again(gid, nth) => {
                self.kid(gid, nth).timer = None;
                self.again(gid, nth);
                gid
            }
            Due::Probe(gid, nth) => {
                self.kid(gid, nth).timer = None;
                self.probe(gid, nth);
                gid
            }
        };
        self.drive(gid);
    }

    /// Tells of the root's start, unless that was done.
    pub(crate) fn root_is_up(&mut self) {
        if !std::mem::replace(&mut self.root_up, true) {
            let path = "root".to_owned();
            self.lines.push(Line { at: self.now, kind: "started", path, incarnation: 1, ..Line::default() });
        }
    }

    pub(crate) fn begin(&mut self, gid: Gid, nth: Nth, wish: Wish) {
        let path = self.path(gid, nth);
        let incarnation = self.next_incarnation(&path);
        let life = self.fresh();
        let kid = self.kid(gid, nth);
        kid.alive = kid.plant.clone();
        kid.life = life;
        kid.incarnation = incarnation;
        kid.healthy = false;
        let (body, limit) = (kid.alive.body.clone(), kid.alive.start_limit);
        self.set(gid, nth, Is::Starting(wish), limit.map(|limit| (limit, Due::StartLimit(gid, nth))));
        let given = self.openings.get(&(path, incarnation)).copied();
        let opening = given.unwrap_or(Opening { after: body.start_time(), then: Then::Run });
        if let Body::Task(_) = body {
            self.up(gid, nth, opening.then);
        } else {
            self.act(gid, nth, opening.after, Due::Opened(gid, nth, opening));
        }
    }

    /// Something that a child's life does by itself later.
    pub(crate) fn act(&mut self, gid: Gid, nth: Nth, after: u64, due: Due) {
        let key = self.plan(after, due);
        self.kid(gid, nth).acts.push(key);
    }

    fn opened(&mut self, gid: Gid, nth: Nth, opening: Opening) {
        let kid = self.kid(gid, nth);
        let nested = match &kid.alive.body {
            Body::Group(_, group) => Some((**group).clone()),
            _ => None,
        };
        if let Is::Stopping { killed, starting, .. } = &mut kid.is {
            let brought_up = matches!(opening.then, Then::Run | Then::RunFor(..) | Then::Ignore);
            match nested.filter(|_| brought_up) {
                // It comes to be only to be told to end.
                Some(group) => {
                    let below = self.found(gid, nth, group);
                    self.plan(0, Due::Ask(below));
                }
                // Stopped before it could run. Its actor needs a moment to go.
                None if brought_up && matches!(kid.alive.body, Body::Actor(_)) && opening.then != Then::Ignore => {
                    debug_assert!(!*killed);
                    *starting = false;
                    self.act(gid, nth, 0, Due::Ended(gid, nth, None));
                }
                None => self.ended(gid, nth, None),
            }
            return;
        }
        match (opening.then, nested) {
            (Then::Fail(fault), _) => self.not_started(gid, nth, fault.into()),
            (Then::Panic, _) => self.not_started(gid, nth, Error::panic()),
            (_, Some(group)) => {
                self.found(gid, nth, group);
            }
            (Then::Ignore, None) => self.ignored(gid, nth),
            (then @ (Then::Run | Then::RunFor(..)), None) => self.up(gid, nth, then),
        }
    }

    /// A nested supervisor comes to be and begins to start its children.
    fn found(&mut self, gid: Gid, nth: Nth, group: Group) -> Gid {
        let path = self.path(gid, nth);
        let kid = self.kid(gid, nth);
        let because = kid.past.because.clone().unwrap_or_else(|| path.clone());
        let inherited = kid.past.incident.map(|incident| Origin { incident, because });
        let (incarnation, life) = (kid.incarnation, kid.life);
        let below = self.settle_down(path, incarnation, group, inherited, Some((gid, nth, life)));
        self.kid(gid, nth).group = Some(below);
        self.drive(below);
        below
    }

    fn begun(&mut self, gid: Gid, nth: Nth, result: Result<(), Error>) {
        let kid = self.kid(gid, nth);
        match (&kid.is, result) {
            // Having been told to end, it will say when it has.
            (Is::Stopping { .. }, Ok(())) => {
                if let Is::Stopping { starting, .. } = &mut kid.is {
                    *starting = false;
                }
            }
            (Is::Stopping { .. }, Err(_)) => self.ended(gid, nth, None),
            (_, Ok(())) => self.up(gid, nth, Then::Run),
            (_, Err(error)) => self.not_started(gid, nth, error),
        }
    }

    fn up(&mut self, gid: Gid, nth: Nth, then: Then) {
        let now = self.now;
        let first = matches!(self.kid(gid, nth).is, Is::Starting(Wish::First));
        self.set(gid, nth, Is::Up(now), None);
        let inherited = self.life(gid).inherited.clone().filter(|_| first);
        let strategy = self.life(gid).flags.strategy.as_str();
        let kid = self.kid(gid, nth);
        let troubled = kid.past.down_since.is_some() || kid.past.incident.is_some();
        let recovered = if troubled { kid.past.down_since.take().map(|since| now - since) } else { None };
        let actor = matches!(kid.alive.body, Body::Actor(_));
        let mut line = self.line(gid, nth, if troubled { "restarted" } else { "started" });
        if troubled {
            line.strategy = Some(strategy);
            line.recovered = recovered;
        } else if let Some(origin) = inherited {
            line.kind = "restarted";
            line.incident = Some(origin.incident);
            line.because = Some(origin.because);
        }
        self.answer_starts(gid, nth, &Ok(()));
        self.lines.push(line);
        if let Then::RunFor(time, end) = then {
            self.act(gid, nth, time, Due::Ended(gid, nth, fate(end, actor)));
        }
    }

    fn ignored(&mut self, gid: Gid, nth: Nth) {
        self.close_life(gid, nth);
        self.set(gid, nth, Is::Down, None);
        self.forgive(gid, nth);
        self.answer_starts(gid, nth, &Ok(()));
        if self.kid(gid, nth).plant.restart == Restart::Temporary || self.life(gid).flags.dynamic {
            self.drop_kid(gid, nth);
        }
    }

    pub(crate) fn drop_kid(&mut self, gid: Gid, nth: Nth) {
        self.set(gid, nth, Is::Down, None);
        self.close_life(gid, nth);
        let askers = std::mem::take(&mut self.kid(gid, nth).askers);
        assert!(askers.is_empty(), "nobody is left without an answer");
        self.life(gid).kids.remove(&nth);
    }

    pub(crate) fn forgive(&mut self, gid: Gid, nth: Nth) {
        let kid = self.kid(gid, nth);
        kid.past = Past { count: kid.past.count, ..Past::default() };
    }

    pub(crate) fn not_started(&mut self, gid: Gid, nth: Nth, error: Error) {
        let wish = match &self.kid(gid, nth).is {
            Is::Starting(wish) | Is::Stopping { cause: Cause::LateStart(wish), .. } => *wish,
            other => unreachable!("a start failed in {other:?}"),
        };
        self.close_life(gid, nth);
        self.set(gid, nth, Is::Down, None);
        self.note(gid, nth, &error, None);
        let temporary = self.kid(gid, nth).plant.restart == Restart::Temporary;
        match wish {
            Wish::First if !self.life(gid).flags.retries => {
                let origin = self.origin(gid, nth);
                self.close(gid, Some((error, origin)));
            }
            Wish::New => self.drop_kid(gid, nth),
            Wish::Request => {}
            Wish::First | Wish::Again if temporary && self.life(gid).closing.is_none() => self.finished(gid, nth),
            Wish::First | Wish::Again => self.decide(gid, nth, error),
        }
    }

    /// The incident that a child's failure belongs to, and whose it was first.
    fn origin(&mut self, gid: Gid, nth: Nth) -> Origin {
        let path = self.path(gid, nth);
        let past = &self.kid(gid, nth).past;
        Origin { incident: past.incident.expect("failed"), because: past.because.clone().unwrap_or(path) }
    }

    pub(crate) fn policy(&mut self, gid: Gid, nth: Nth) -> (Policy, u64) {
        let own = self.kid(gid, nth).plant.policy.clone();
        let life = self.life(gid);
        let policy = own.unwrap_or_else(|| life.flags.policy.clone());
        let reset = policy.backoff.map_or(life.flags.window, |backoff| backoff.reset);
        (policy, reset)
    }

    /// Remembers a failure and tells it; `uptime` unless it never came up.
    pub(crate) fn note(&mut self, gid: Gid, nth: Nth, error: &Error, uptime: Option<u64>) {
        let now = self.now;
        let (_, reset) = self.policy(gid, nth);
        let born = self.life(gid).born;
        let inherited = self.life(gid).inherited.clone().filter(|_| now - born < reset);
        let fresh = self.fresh();
        let kid = self.kid(gid, nth);
        let healthy = uptime.is_some_and(|uptime| kid.healthy || uptime >= reset);
        let past = &mut kid.past;
        if healthy {
            past.on_trial = false;
            if past.last.is_none_or(|last| now - last >= reset) {
                past.row = 0;
                past.incident = None;
            }
        }
        if let Some(origin) = &error.origin {
            past.incident = Some(origin.incident);
            past.because = Some(origin.because.clone());
        } else {
            if uptime.is_some() {
                past.because = None;
            }
            if (past.row == 0 && uptime.is_some()) || past.incident.is_none() {
                past.incident = Some(inherited.map_or(fresh, |origin| origin.incident));
            }
        }
        past.row += 1;
        past.last = Some(now);
        past.down_since.get_or_insert(now);
        past.error = Some(error.code.clone());
        let mut line = self.line(gid, nth, "failed");
        line.code = Some(error.code.clone());
        let failed = Err(ManageError::StartFailed(supervisors::Failure::new(error.class, error.code.clone(), "")));
        self.answer_starts(gid, nth, &failed);
        self.lines.push(line);
    }

    pub(crate) fn decide(&mut self, gid: Gid, nth: Nth, error: Error) {
        if self.life(gid).closing.is_some() {
            return;
        }
        let now = self.now;
        let (policy, _) = self.policy(gid, nth);
        let flags = self.life(gid).flags.clone();
        let kid = self.kid(gid, nth);
        if kid.past.on_trial || policy.park.contains(&error.class) {
            return self.park(gid, nth, &error);
        }
        let row = kid.past.row;
        let records = if flags.parks { &mut kid.past.own } else { &mut self.life(gid).restarts };
        // Forgotten for good is what is too old by now, and what no limit needs.
        records.push(now);
        records.retain(|at| now - *at <= flags.window);
        let most = flags.max as usize + 1;
        records.drain(..records.len().saturating_sub(most));
        let recent = records.len();
        if recent > flags.max as usize || policy.in_a_row.is_some_and(|most| row > most) {
            if flags.parks {
                return self.park(gid, nth, &error);
            }
            return self.escalate(gid, nth, error);
        }
        self.kid(gid, nth).past.count += 1;
        let grown = policy.backoff.map_or(0, |delays| {
            let doubled = delays.min.saturating_mul(1 << (row - 1).min(30));
            doubled.min(delays.max)
        });
        let mut delay = grown.max(error.retry_after.unwrap_or(0));
        let grouped = flags.strategy != Strategy::OneForOne;
        if grouped {
            delay = delay.max(self.job_waits(gid, nth));
        }
        let mut line = self.line(gid, nth, "restarting");
        line.code = Some(error.code);
        line.strategy = Some(flags.strategy.as_str());
        line.delay = Some(delay);
        self.lines.push(line);
        if delay > 0 {
            self.set(gid, nth, Is::Waiting(now + delay), Some((delay, Due::Again(gid, nth))));
        }
        if grouped {
            self.new_job(gid, nth, delay == 0);
        } else if delay == 0 {
            self.begin(gid, nth, Wish::Again);
        }
    }

    pub(crate) fn again(&mut self, gid: Gid, nth: Nth) {
        let Some(job) = self.life(gid).job.as_mut() else { return self.begin(gid, nth, Wish::Again) };
        if job.cause.as_ref().is_some_and(|(cause, _)| *cause == nth) {
            job.ready = true;
            self.set(gid, nth, Is::Down, None);
        } else if self.job_starts(gid, nth) {
            self.set(gid, nth, Is::Down, None);
        } else {
            self.begin(gid, nth, Wish::Again);
        }
    }

    fn park(&mut self, gid: Gid, nth: Nth, error: &Error) {
        let (policy, _) = self.policy(gid, nth);
        let wait = policy.probe.max(error.retry_after);
        self.set(gid, nth, Is::Parked, wait.map(|wait| (wait, Due::Probe(gid, nth))));
        self.kid(gid, nth).past.on_trial = false;
        let mut line = self.line(gid, nth, "parked");
        line.code = Some(error.code.clone());
        line.delay = wait;
        self.lines.push(line);
        if self.life(gid).flags.strategy != Strategy::OneForOne {
            self.new_job(gid, nth, false);
        }
    }

    pub(crate) fn probe(&mut self, gid: Gid, nth: Nth) {
        self.kid(gid, nth).past.on_trial = true;
        let line = self.line(gid, nth, "probed");
        self.lines.push(line);
        self.again(gid, nth);
    }

    fn escalate(&mut self, gid: Gid, nth: Nth, error: Error) {
        let origin = self.origin(gid, nth);
        let mut line = self.line(gid, nth, "escalated");
        let life = self.life(gid);
        line.path.clone_from(&life.path);
        line.incarnation = life.incarnation;
        line.strategy = Some(life.flags.strategy.as_str());
        line.code = Some(error.code.clone());
        line.because = Some(origin.because.clone());
        self.lines.push(line);
        self.close(gid, Some((error, origin)));
    }
}

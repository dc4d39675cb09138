//! The model's rules for one child: how it starts, fails, ends and is stopped, and what follows.

use supervisors::{AutoShutdown, Class, ManageError, Restart, Shutdown, Strategy};

use super::case::{Body, DEAF, Group, Opening, Policy, Then};
use super::world::{Cause, Due, Error, Fate, Gid, Is, Life, Nth, Origin, Past, Wish, World, fate};

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
                self.close(gid, None);
                gid
            }
            Due::Begun(gid, nth, result) => {
                self.begun(gid, nth, result);
                gid
            }
            Due::Closed(gid, nth, life, error) => {
                if self.has(gid, nth) && self.kid(gid, nth).life == life {
                    let fate = error.map(|(error, origin)| Error { origin: Some(origin), ..error });
                    self.ended(gid, nth, fate);
                }
                gid
            }
            Due::RootUp => {
                self.root_up = true;
                let line = super::world::Line {
                    at: self.now,
                    kind: "started",
                    path: "root".to_owned(),
                    incarnation: 1,
                    ..Default::default()
                };
                self.lines.push(line);
                return;
            }
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
        } else if opening.then != Then::Hang {
            self.act(gid, nth, opening.after, Due::Opened(gid, nth, opening));
        }
    }

    /// Something that a child's life does by itself later.
    fn act(&mut self, gid: Gid, nth: Nth, after: u64, due: Due) {
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
            (Then::Hang, _) => {}
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

    fn not_started(&mut self, gid: Gid, nth: Nth, error: Error) {
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
    fn note(&mut self, gid: Gid, nth: Nth, error: &Error, uptime: Option<u64>) {
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

    fn decide(&mut self, gid: Gid, nth: Nth, error: Error) {
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
        records.push(now);
        let recent = records.iter().filter(|at| now - **at <= flags.window).count();
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
        let wait = policy.probe.map(|every| every.max(error.retry_after.unwrap_or(0)));
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

    /// A life is over, one way or the other.
    pub(crate) fn ended(&mut self, gid: Gid, nth: Nth, fate: Fate) {
        let now = self.now;
        let holds_back = self.holds_back(gid);
        let kid = self.kid(gid, nth);
        match kid.is {
            Is::Up(_) if holds_back => {
                kid.over = true;
                self.life(gid).late.push((nth, fate));
            }
            Is::Up(since) => self.fell(gid, nth, fate, now - since),
            _ => {
                self.close_life(gid, nth);
                self.went(gid, nth, fate);
            }
        }
    }

    fn fell(&mut self, gid: Gid, nth: Nth, fate: Fate, uptime: u64) {
        self.close_life(gid, nth);
        self.set(gid, nth, Is::Down, None);
        if self.life(gid).closing.is_some() || self.job_stops(gid, nth) {
            return self.lies_down(gid, nth, fate.map(|error| error.code));
        }
        let restart = self.kid(gid, nth).plant.restart;
        let error = match (restart, fate) {
            (Restart::Permanent, None) => Error::new(Class::Transient, "ended"),
            (_, None) => {
                let line = self.line(gid, nth, "stopped");
                self.lines.push(line);
                return self.finished(gid, nth);
            }
            (_, Some(error)) => error,
        };
        self.note(gid, nth, &error, Some(uptime));
        if restart == Restart::Temporary {
            return self.finished(gid, nth);
        }
        self.decide(gid, nth, error);
    }

    /// A child ended by itself and stays down.
    fn finished(&mut self, gid: Gid, nth: Nth) {
        self.forgive(gid, nth);
        let kid = self.kid(gid, nth);
        let (significant, temporary) = (kid.plant.significant, kid.plant.restart == Restart::Temporary);
        if temporary || self.life(gid).flags.dynamic {
            self.drop_kid(gid, nth);
        }
        let life = self.life(gid);
        let others = life.kids.values().any(|kid| kid.plant.significant && kid.is != Is::Down);
        let ends = match life.flags.auto {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => significant,
            AutoShutdown::AllSignificant => significant && !others,
        };
        if ends {
            self.close(gid, None);
        }
    }

    pub(crate) fn stop(&mut self, gid: Gid, nth: Nth, cause: Cause) {
        let kid = self.kid(gid, nth);
        let starting = matches!(kid.is, Is::Starting(_));
        let shutdown = kid.plant.shutdown;
        let (manner, below, over) = (kid.alive.body.manner(), kid.group, kid.over);
        let limit = match shutdown {
            Shutdown::Timeout(limit) => Some((super::millis(limit), Due::StopLimit(gid, nth))),
            Shutdown::Brutal | Shutdown::Infinity => None,
        };
        self.set(gid, nth, Is::Stopping { cause, killed: false, starting }, limit);
        if over {
            let late = &mut self.life(gid).late;
            let at = late.iter().position(|(other, _)| *other == nth).expect("its end is known");
            let (_, fate) = late.swap_remove(at);
            return self.ended(gid, nth, fate);
        }
        if shutdown == Shutdown::Brutal {
            return self.kill(gid, nth);
        }
        match below {
            Some(below) => {
                self.plan(0, Due::Ask(below));
            }
            None if starting => {}
            None => {
                // From now on it does nothing but what it was asked to.
                for key in std::mem::take(&mut self.kid(gid, nth).acts) {
                    self.agenda.remove(&key);
                }
                let fate = manner.badly.then(|| Error::new(Class::Transient, "badly"));
                if manner.after != DEAF {
                    self.act(gid, nth, manner.after, Due::Ended(gid, nth, fate));
                }
            }
        }
    }

    pub(crate) fn kill(&mut self, gid: Gid, nth: Nth) {
        let Is::Stopping { cause, starting, .. } = self.kid(gid, nth).is.clone() else { return };
        self.set(gid, nth, Is::Stopping { cause, killed: true, starting }, None);
        let kid = self.kid(gid, nth);
        let below = kid.group.take();
        for key in std::mem::take(&mut kid.acts) {
            self.agenda.remove(&key);
        }
        if let Some(below) = below {
            self.obliterate(below);
        }
        self.act(gid, nth, 0, Due::Ended(gid, nth, Some(Error::killed())));
    }

    /// A child that was asked to stop is down.
    fn went(&mut self, gid: Gid, nth: Nth, fate: Fate) {
        let Is::Stopping { cause, killed, starting } = self.kid(gid, nth).is.clone() else {
            unreachable!("not stopping")
        };
        let timed = matches!(self.kid(gid, nth).plant.shutdown, Shutdown::Timeout(_));
        let code = match fate {
            _ if killed => timed.then(|| "killed".to_owned()),
            Some(_) if starting => None,
            Some(error) => Some(error.code),
            None => None,
        };
        if let Cause::LateStart(_) = cause {
            return self.not_started(gid, nth, Error::new(Class::Hung, "start_timeout"));
        }
        self.set(gid, nth, Is::Down, None);
        match cause {
            Cause::Terminate => {
                let mut line = self.line(gid, nth, "stopped");
                line.code = code;
                self.rest(gid, nth);
                self.lines.push(line);
            }
            Cause::Bounce => {
                self.forgive(gid, nth);
                self.lies_down(gid, nth, code);
                self.bounced(gid, nth);
            }
            _ => self.lies_down(gid, nth, code),
        }
    }

    /// It stays down because somebody wanted it.
    pub(crate) fn rest(&mut self, gid: Gid, nth: Nth) {
        self.forgive(gid, nth);
        self.answer_starts(gid, nth, &Err(ManageError::Stopped));
        self.answer_stops(gid, nth);
        if self.kid(gid, nth).plant.restart == Restart::Temporary || self.life(gid).flags.dynamic {
            self.drop_kid(gid, nth);
        }
    }

    /// Stopped because of others.
    fn lies_down(&mut self, gid: Gid, nth: Nth, code: Option<String>) {
        let now = self.now;
        self.blame(gid, nth);
        let mut line = self.line(gid, nth, "stopped");
        let closing = self.life(gid).closing.as_ref();
        if let Some((_, origin)) = closing.and_then(|closing| closing.error.as_ref()) {
            line.incident = Some(origin.incident);
            line.because = Some(origin.because.clone());
        }
        line.code = code;
        if closing.is_none() {
            self.kid(gid, nth).past.down_since = Some(now);
        }
        self.answer_stops(gid, nth);
        self.lines.push(line);
        if self.kid(gid, nth).plant.restart == Restart::Temporary {
            self.answer_starts(gid, nth, &Err(ManageError::Stopped));
            self.drop_kid(gid, nth);
        }
    }

    /// Whether ends of children wait until the first start is through.
    fn holds_back(&mut self, gid: Gid) -> bool {
        let Life { closing, flags, job, .. } = self.life(gid);
        let first = job.as_ref().is_some_and(|job| job.cause.is_none());
        closing.is_none() && flags.strategy != Strategy::OneForOne && first
    }
}

//! The model's rules for one child that ends by itself or is stopped.

use supervisors::{AutoShutdown, Class, ManageError, Restart, Shutdown, Strategy};

use super::world::{Cause, Due, Error, Fate, Gid, Is, Life, Nth, World};

impl World {
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
    pub(crate) fn finished(&mut self, gid: Gid, nth: Nth) {
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
                self.act(gid, nth, manner.after, Due::Ended(gid, nth, fate));
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

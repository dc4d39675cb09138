//! Random sequences.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use supervisors::{AutoShutdown, Class, Restart, Shutdown, Strategy};

use super::case::{
    Body, Call, Case, DEAF, Delays, End, Fault, Flags, Group, HANG, Manner, Op, Opening, Plant, Policy, Then, When,
};

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Levels of supervisors, the root included.
const LEVELS: usize = 3;
const OPS: usize = 24;

pub(crate) struct Gen(StdRng);

/// The sequence that belongs to a seed.
pub(crate) fn case(seed: u64) -> Case {
    Gen(StdRng::seed_from_u64(seed)).case()
}

impl Gen {
    fn one_in(&mut self, chances: u32) -> bool {
        self.0.random_ratio(1, chances)
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.0).expect("not empty").clone()
    }

    fn time(&mut self, to: u64) -> u64 {
        self.0.random_range(1..=to)
    }

    fn case(&mut self) -> Case {
        let tree = self.group(1);
        let (groups, workers) = tree.paths();
        let mut openings = Vec::new();
        for path in groups.iter().skip(1).chain(&workers) {
            if self.one_in(6) {
                let count = self.0.random_range(1..3);
                // Without a limit on the start a root that hangs would never come up.
                openings.push((path.clone(), (0..count).map(|_| self.opening(false)).collect()));
            }
        }
        let count = self.0.random_range(0..OPS);
        let ops = (0..count).map(|_| (self.when(), self.op(&tree, &groups, &workers))).collect();
        Case { tree, openings, ops }
    }

    fn when(&mut self) -> When {
        match self.0.random_range(0..10) {
            0..3 => When::After(self.time(40)),
            3..7 => When::After(self.time(900)),
            7..9 => When::After(self.time(9000)),
            _ => When::Edge(self.0.random_range(0..3)),
        }
    }

    fn group(&mut self, level: usize) -> Group {
        let mut flags = self.flags();
        let count = self.0.random_range(usize::from(level > 1)..=4);
        flags.room = flags.room.map(|more| count + more);
        let kids = IDS.iter().take(count).map(|id| self.plant(id, level, &flags)).collect();
        Group { flags, kids }
    }

    fn flags(&mut self) -> Flags {
        let dynamic = self.one_in(7);
        let all = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne, Strategy::OneForAll];
        let strategy = if dynamic { Strategy::OneForOne } else { self.pick(&all) };
        let autos = [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant];
        Flags {
            strategy,
            max: self.0.random_range(0..6),
            window: self.time(9000),
            parks: self.one_in(4),
            auto: if dynamic { AutoShutdown::Never } else { self.pick(&autos) },
            policy: self.policy(),
            dynamic,
            room: if self.one_in(6) { Some(self.0.random_range(0..2)) } else { None },
            retries: self.one_in(2),
        }
    }

    fn policy(&mut self) -> Policy {
        let mut policy = Policy::default();
        if self.one_in(2) {
            let min = 20 + self.time(2000);
            policy.backoff = Some(Delays { min, max: min + self.time(4000), reset: self.time(9000) });
        }
        if self.one_in(4) {
            policy.park = vec![Class::Auth];
        }
        if self.one_in(5) {
            policy.in_a_row = Some(self.0.random_range(1..4));
        }
        if self.one_in(2) {
            policy.probe = Some(100 + self.time(5000));
        }
        policy
    }

    fn plant(&mut self, id: &str, level: usize, flags: &Flags) -> Plant {
        let nested = level < LEVELS && self.0.random_ratio(if level == 1 { 2 } else { 1 }, 5);
        let body = if nested {
            Body::Group(self.time(300), Box::new(self.group(level + 1)))
        } else {
            match self.0.random_range(0..6) {
                0..2 => Body::Task(self.manner()),
                2 => Body::Actor(self.time(300)),
                _ => Body::Slow(self.time(300), self.manner()),
            }
        };
        let usual = if flags.auto == AutoShutdown::Never { Restart::Permanent } else { Restart::Transient };
        let restart = self.pick(&[usual, Restart::Permanent, Restart::Transient, Restart::Temporary]);
        let may = restart != Restart::Permanent && flags.auto != AutoShutdown::Never;
        let shutdown = match self.0.random_range(0..8) {
            0 => Shutdown::Brutal,
            1..6 if nested => Shutdown::Infinity,
            _ => Shutdown::Timeout(std::time::Duration::from_millis(self.time(1500))),
        };
        let policy = if self.one_in(5) { Some(self.policy()) } else { None };
        let start_limit = if self.one_in(3) { Some(self.time(800)) } else { None };
        Plant { id: id.to_owned(), restart, significant: may && !self.one_in(4), shutdown, policy, start_limit, body }
    }

    fn manner(&mut self) -> Manner {
        let after = match self.0.random_range(0..8) {
            0..3 => 0,
            3 => DEAF,
            _ => self.time(700),
        };
        Manner { after, badly: self.one_in(6) }
    }

    fn fault(&mut self) -> Fault {
        let class = self.pick(&[Class::Transient, Class::Transient, Class::Auth, Class::RateLimited]);
        let retry_after = if class == Class::RateLimited { Some(self.time(4000)) } else { None };
        Fault { class, retry_after }
    }

    fn end(&mut self) -> End {
        match self.0.random_range(0..8) {
            0..2 => End::Clean,
            2 => End::Panic,
            _ => End::Fail(self.fault()),
        }
    }

    fn opening(&mut self, may_hang: bool) -> Opening {
        let then = match self.0.random_range(0..12) {
            0..5 => Then::Fail(self.fault()),
            5 => Then::Panic,
            6 => Then::Ignore,
            7 if may_hang => return Opening { after: HANG, then: Then::Fail(self.fault()) },
            8..11 => Then::RunFor(self.time(600), self.end()),
            _ => Then::Run,
        };
        Opening { after: self.time(500), then }
    }

    fn op(&mut self, tree: &Group, groups: &[String], workers: &[String]) -> Op {
        let somebody = |random: &mut Self| {
            let one = if workers.is_empty() { None } else { Some(random.pick(workers)) };
            match one {
                Some(path) if !random.one_in(6) => path,
                _ => format!("{}/{}", random.pick(groups), random.pick(&IDS)),
            }
        };
        match self.0.random_range(0..20) {
            0..6 => Op::End(vec![(somebody(self), self.end())]),
            6..8 => {
                let count = self.0.random_range(2..4);
                Op::End((0..count).map(|_| (somebody(self), self.end())).collect())
            }
            8 if groups.len() > 1 && self.one_in(2) => Op::Kill(self.pick(&groups[1..])),
            8 => Op::Kill(somebody(self)),
            9 => Op::Healthy(somebody(self)),
            10..12 => {
                let path = if groups.len() > 1 && self.one_in(5) { self.pick(&groups[1..]) } else { somebody(self) };
                let count = self.0.random_range(1..4);
                Op::Openings(path, (0..count).map(|_| self.opening(true)).collect())
            }
            12 => Op::Look,
            _ => {
                let path = self.pick(groups);
                let call = if self.one_in(10) { Call::Change(self.mixed(tree.at(&path))) } else { self.call() };
                Op::Call(path, call)
            }
        }
    }

    fn call(&mut self) -> Call {
        let id = self.pick(&IDS).to_owned();
        match self.0.random_range(0..16) {
            0..3 => {
                let flags = self.flags();
                Call::Start(self.plant(&id, LEVELS - 1, &flags))
            }
            3..6 => Call::Terminate(id),
            6..9 => Call::Restart(id),
            9..11 => Call::Bounce(id),
            11..13 => Call::Delete(id),
            13 => Call::Which,
            14 => self.pick(&[Call::Count, Call::Spec(id)]),
            _ => Call::Change(self.change()),
        }
    }

    /// What a group began with in another order, some of it left out, some new.
    fn mixed(&mut self, group: &Group) -> Group {
        let mut group = group.clone();
        if self.one_in(3) && group.kids.len() > 1 {
            group.kids.pop();
        }
        for id in IDS {
            if self.one_in(6) && group.kids.iter().all(|kid| kid.id != id) {
                group.kids.push(self.plant(id, LEVELS, &group.flags));
            }
        }
        group.kids.shuffle(&mut self.0);
        group
    }

    /// New flags and specs, some of which make no sense.
    fn change(&mut self) -> Group {
        let mut group = self.group(LEVELS);
        group.kids.shuffle(&mut self.0);
        if !group.kids.is_empty() && self.one_in(8) {
            let twin = self.pick(&group.kids);
            group.kids.push(twin);
        }
        match self.0.random_range(0..24) {
            0 => group.flags.window = 0,
            1 => group.flags.room = Some(0),
            2 => group.kids.iter_mut().for_each(|kid| kid.significant = true),
            3 => group.kids.iter_mut().for_each(|kid| kid.id.push('/')),
            _ => {}
        }
        group
    }
}

//! What is compared.

use crate::child::Kind;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// One child crashes among `count` siblings, again and again.
    Restart,
    /// The same, each time after a rest.
    Rested,
    /// All children crash at once.
    Storm,
    /// One of a one_for_all group crashes.
    Group,
    /// Dynamic children are started one by one, then stopped with their supervisor.
    StartStop,
    /// Dynamic children wait.
    Idle,
}

/// One line of the comparison.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Its name, which ends in the unit.
    pub(crate) name: &'static str,
    pub(crate) what: What,
    pub(crate) kind: Kind,
    pub(crate) count: usize,
}

const fn scenario(name: &'static str, what: What, kind: Kind, count: usize) -> Scenario {
    Scenario { name, what, kind, count }
}

/// In the order in which they are shown.
pub(crate) const ALL: [Scenario; 14] = [
    scenario("restart_us", What::Restart, Kind::Task, 0),
    scenario("storm_10000_s", What::Storm, Kind::Task, 10_000),
    scenario("start_stop_100000_s", What::StartStop, Kind::Task, 100_000),
    scenario("idle_bytes", What::Idle, Kind::Task, 100_000),
    scenario("group_1000_s", What::Group, Kind::Task, 1_000),
    scenario("restart_rested_us", What::Rested, Kind::Task, 0),
    scenario("restart_among_10_us", What::Restart, Kind::Task, 10),
    scenario("restart_among_1000_us", What::Restart, Kind::Task, 1_000),
    scenario("restart_among_100000_us", What::Restart, Kind::Task, 100_000),
    scenario("actor_restart_us", What::Restart, Kind::Actor, 0),
    scenario("actor_storm_10000_s", What::Storm, Kind::Actor, 10_000),
    scenario("actor_start_stop_100000_s", What::StartStop, Kind::Actor, 100_000),
    scenario("actor_idle_bytes", What::Idle, Kind::Actor, 100_000),
    scenario("actor_group_1000_s", What::Group, Kind::Actor, 1_000),
];

impl Scenario {
    /// The one called `name`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|scenario| scenario.name == name)
    }
}

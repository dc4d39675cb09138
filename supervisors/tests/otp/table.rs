//! The table of scenarios: read, and written as Erlang terms.

use supervisors::{AutoShutdown, Restart, Strategy};

#[derive(Clone, Debug)]
pub(crate) struct Flags {
    pub(crate) strategy: Strategy,
    /// The restart type of all children of a dynamic supervisor.
    pub(crate) dynamic: Option<Restart>,
    pub(crate) intensity: u32,
    pub(crate) period: u64,
    pub(crate) auto: AutoShutdown,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    Plain,
    Brutal,
    Deaf,
}

#[derive(Clone, Debug)]
pub(crate) struct Kid {
    pub(crate) id: String,
    pub(crate) restart: Restart,
    pub(crate) significant: bool,
    pub(crate) manner: Manner,
    pub(crate) group: Option<(Flags, Vec<Kid>)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Crash(Vec<String>),
    Finish(String),
    Kill(String),
    /// The next starts of a child: fail, ignore or throw, and how many of them.
    Opening(String, String, u32),
    Pass(u64),
    Start(Kid),
    Terminate(String),
    Restart(String),
    Delete(String),
    Which,
    Count,
    Change(Flags, Vec<Kid>),
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) before: Vec<Step>,
    pub(crate) flags: Flags,
    pub(crate) kids: Vec<Kid>,
    pub(crate) steps: Vec<Step>,
}

pub(crate) fn scenarios() -> Vec<Scenario> {
    let lines = include_str!("scenarios.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(scenario).collect()
}

fn scenario(line: &str) -> Scenario {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let [name, flags, kids, steps] = cells[..] else { panic!("four cells: {line}") };
    let all = steps.split(';').map(str::trim).filter(|step| !step.is_empty());
    let (before, steps): (Vec<_>, Vec<_>) = all.partition(|step| step.starts_with("before "));
    Scenario {
        name: name.to_owned(),
        before: before.into_iter().map(|text| step(text.trim_start_matches("before "))).collect(),
        flags: self::flags(flags),
        kids: self::kids(kids),
        steps: steps.into_iter().map(step).collect(),
    }
}

fn flags(text: &str) -> Flags {
    let [strategy, limit, auto] = text.split_whitespace().collect::<Vec<_>>()[..] else { panic!("flags: {text}") };
    let (intensity, period) = limit.split_once('/').expect("intensity/period");
    let (strategy, restart) = strategy.split_once(':').unwrap_or((strategy, ""));
    Flags {
        strategy: match strategy {
            "one_for_one" | "dynamic" => Strategy::OneForOne,
            "one_for_all" => Strategy::OneForAll,
            "rest_for_one" => Strategy::RestForOne,
            other => panic!("strategy {other}"),
        },
        dynamic: (strategy == "dynamic").then(|| self::restart(restart)),
        intensity: intensity.parse().expect("number"),
        period: period.parse().expect("number"),
        auto: match auto {
            "never" => AutoShutdown::Never,
            "any_significant" => AutoShutdown::AnySignificant,
            "all_significant" => AutoShutdown::AllSignificant,
            other => panic!("auto-shutdown {other}"),
        },
    }
}

fn restart(text: &str) -> Restart {
    match text {
        "" => Restart::Permanent,
        "tran" => Restart::Transient,
        "temp" => Restart::Temporary,
        other => panic!("restart type {other}"),
    }
}

/// Children apart from each other by spaces outside of parentheses.
fn kids(text: &str) -> Vec<Kid> {
    let (mut depth, mut words) = (0, vec![String::new()]);
    for letter in text.chars() {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        if letter == ' ' && depth == 0 {
            words.push(String::new());
        } else {
            words.last_mut().expect("one").push(letter);
        }
    }
    words.iter().filter(|word| !word.is_empty()).map(|word| kid(word)).collect()
}

fn kid(word: &str) -> Kid {
    let (head, group) = match word.split_once('(') {
        Some((head, rest)) => {
            let (flags, below) = rest.strip_suffix(')').and_then(|rest| rest.split_once(':')).expect("flags: children");
            (head, Some((self::flags(flags), kids(below))))
        }
        None => (word, None),
    };
    let (head, manner) = head.split_once('~').unwrap_or((head, ""));
    let (head, significant) = head.strip_suffix('!').map_or((head, false), |head| (head, true));
    let (id, restart) = head.split_once(':').unwrap_or((head, ""));
    Kid {
        id: id.to_owned(),
        restart: self::restart(restart),
        significant,
        manner: match manner {
            "" => Manner::Plain,
            "brutal" => Manner::Brutal,
            "deaf" => Manner::Deaf,
            other => panic!("manner {other}"),
        },
        group,
    }
}

fn step(text: &str) -> Step {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let id = rest.to_owned();
    match verb {
        "crash" => Step::Crash(rest.split('+').map(str::to_owned).collect()),
        "finish" => Step::Finish(id),
        "kill" => Step::Kill(id),
        "fail" | "ignore" | "throw" => {
            let (id, count) = rest.split_once(' ').expect("child and number");
            Step::Opening(verb.to_owned(), id.to_owned(), count.parse().expect("number"))
        }
        "pass" => Step::Pass(rest.parse().expect("number")),
        "start" => Step::Start(kid(rest)),
        "terminate" => Step::Terminate(id),
        "restart" => Step::Restart(id),
        "delete" => Step::Delete(id),
        "which" => Step::Which,
        "count" => Step::Count,
        "change" => {
            let (flags, below) = rest.split_once(':').expect("flags: children");
            Step::Change(self::flags(flags), kids(below))
        }
        other => panic!("step {other}"),
    }
}

/// All scenarios as terms that the harness reads.
pub(crate) fn terms(all: &[Scenario]) -> String {
    let term = |case: &Scenario| {
        let steps = |steps: &[Step]| list(steps.iter().map(step_term));
        let (flags, kids) = (flags_term(&case.flags), kids_term(&case.kids));
        format!("{{\"{}\", {}, {flags}, {kids}, {}}}.\n", case.name, steps(&case.before), steps(&case.steps))
    };
    all.iter().map(term).collect()
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn restart_term(restart: Restart) -> &'static str {
    match restart {
        Restart::Permanent => "permanent",
        Restart::Transient => "transient",
        Restart::Temporary => "temporary",
    }
}

fn flags_term(flags: &Flags) -> String {
    let strategy = match flags.dynamic {
        Some(restart) => format!("{{dynamic, {}}}", restart_term(restart)),
        None => flags.strategy.as_str().to_owned(),
    };
    let auto = match flags.auto {
        AutoShutdown::Never => "never",
        AutoShutdown::AnySignificant => "any_significant",
        AutoShutdown::AllSignificant => "all_significant",
    };
    format!("{{{strategy}, {}, {}, {auto}}}", flags.intensity, flags.period)
}

fn kids_term(kids: &[Kid]) -> String {
    list(kids.iter().map(kid_term))
}

fn kid_term(kid: &Kid) -> String {
    let what = match &kid.group {
        Some((flags, kids)) => format!("{{group, {}, {}}}", flags_term(flags), kids_term(kids)),
        None => "worker".to_owned(),
    };
    let manner = format!("{:?}", kid.manner).to_lowercase();
    format!("{{{}, {}, {}, {manner}, {what}}}", kid.id, restart_term(kid.restart), kid.significant)
}

fn step_term(step: &Step) -> String {
    match step {
        Step::Crash(ids) => format!("{{crash, {}}}", list(ids.iter().cloned())),
        Step::Finish(id) => format!("{{finish, [{id}]}}"),
        Step::Kill(id) => format!("{{kill, [{id}]}}"),
        Step::Opening(how, id, count) => format!("{{{how}, {id}, {count}}}"),
        Step::Pass(seconds) => format!("{{pass, {seconds}}}"),
        Step::Start(kid) => format!("{{start, {}}}", kid_term(kid)),
        Step::Terminate(id) => format!("{{terminate, {id}}}"),
        Step::Restart(id) => format!("{{restart, {id}}}"),
        Step::Delete(id) => format!("{{delete, {id}}}"),
        Step::Which => "which".to_owned(),
        Step::Count => "count".to_owned(),
        Step::Change(flags, kids) => format!("{{change, {}, {}}}", flags_term(flags), kids_term(kids)),
    }
}

//! The crate's side of a scenario.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisors::{
    ChildContext, ChildPath, ChildSpec, Class, Event, Failure, ManageError, NodeState, Observer, Root, Shutdown,
    Started, SupervisorHandle, SupervisorSpec,
};
use tokio::time::sleep;

use crate::table::{Flags, Kid, Manner, Scenario, Step};

/// What the harness gives its children to stop.
const PATIENCE: Duration = Duration::from_millis(50);

type Lines = Arc<Mutex<Vec<String>>>;

#[derive(Clone, Default)]
struct Stage {
    lines: Lines,
    actors: Arc<Mutex<HashMap<String, ActorRef<Order>>>>,
    openings: Arc<Mutex<HashMap<String, (String, u32)>>>,
}

/// The observer of trees whose events are not looked at.
struct Blind;

impl Observer for Blind {
    fn record(&self, _: Event) {}

    fn next_incarnation(&self, _: &ChildPath) -> u64 {
        1
    }
}

enum Order {
    Crash,
    Finish,
}

/// Writes down how a child ended.
struct Diary {
    id: String,
    lines: Lines,
    how: &'static str,
}

impl Drop for Diary {
    fn drop(&mut self) {
        self.lines.lock().unwrap().push(format!("down {} {}", self.id, self.how));
    }
}

struct Child;

impl Actor for Child {
    type Msg = Order;
    type State = Option<Diary>;
    type Arguments = Diary;

    async fn pre_start(&self, _: ActorRef<Order>, diary: Diary) -> Result<Option<Diary>, ActorProcessingErr> {
        Ok(Some(diary))
    }

    async fn handle(
        &self,
        myself: ActorRef<Order>,
        order: Order,
        state: &mut Option<Diary>,
    ) -> Result<(), ActorProcessingErr> {
        let Some(mut diary) = state.take() else { return Ok(()) };
        match order {
            Order::Crash => {
                diary.how = "crash";
                Err(Box::new(Failure::new(Class::Bug, "crash", "as told")))
            }
            Order::Finish => {
                diary.how = "normal";
                myself.stop(None);
                Ok(())
            }
        }
    }

    async fn post_stop(&self, _: ActorRef<Order>, state: &mut Option<Diary>) -> Result<(), ActorProcessingErr> {
        if let Some(mut diary) = state.take() {
            diary.how = "shutdown";
        }
        Ok(())
    }
}

/// What the crate makes of a scenario.
pub(crate) fn run(scenario: &Scenario) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let stage = Stage::default();
    runtime.block_on(stage.perform(scenario));
    drop(runtime);
    stage.lines.lock().unwrap().clone()
}

impl Stage {
    fn note(&self, line: impl Display) {
        self.lines.lock().unwrap().push(line.to_string());
    }

    async fn perform(&self, scenario: &Scenario) {
        for step in &scenario.before {
            if let Step::Opening(how, id, count) = step {
                self.openings.lock().unwrap().insert(id.clone(), (how.clone(), *count));
            }
        }
        let spec = self.group(&scenario.flags, &scenario.kids);
        let Ok(root) = Root::start("root", spec, Arc::new(Blind), 1).await else { return self.note("not started") };
        for step in &scenario.steps {
            self.step(&root.handle(), step).await;
            sleep(Duration::from_millis(200)).await;
        }
        if root.handle().is_alive() {
            self.note("stop");
        }
        root.stop().await;
        self.note("ended");
    }

    fn group(&self, flags: &Flags, kids: &[Kid]) -> SupervisorSpec {
        let all = kids.iter().map(|kid| match flags.dynamic {
            Some(restart) => self.spec(kid).restart(restart),
            None => self.spec(kid),
        });
        SupervisorSpec {
            dynamic: flags.dynamic.is_some(),
            children: all.collect(),
            ..SupervisorSpec::new(flags.strategy)
        }
        .intensity(flags.intensity, Duration::from_secs(flags.period))
        .auto_shutdown(flags.auto)
    }

    fn spec(&self, kid: &Kid) -> ChildSpec {
        let (stage, id, manner) = (self.clone(), kid.id.clone(), kid.manner);
        let spec = match kid.group.clone() {
            Some((flags, kids)) => ChildSpec::supervisor(id, move |_| {
                let spec = stage.group(&flags, &kids);
                async move { Ok(spec) }
            }),
            None => {
                let shutdown = if manner == Manner::Brutal { Shutdown::Brutal } else { Shutdown::Timeout(PATIENCE) };
                let child = ChildSpec::start(kid.id.clone(), move |ctx| stage.clone().launch(ctx, id.clone(), manner));
                child.shutdown(shutdown)
            }
        };
        spec.restart(kid.restart).significant(kid.significant)
    }

    fn opening(&self, id: &str) -> String {
        let mut openings = self.openings.lock().unwrap();
        match openings.get_mut(id) {
            Some((how, count)) if *count > 0 => {
                *count -= 1;
                how.clone()
            }
            _ => "run".to_owned(),
        }
    }

    async fn launch(self, ctx: ChildContext, id: String, manner: Manner) -> Result<Started, Failure> {
        let failed = Failure::new(Class::Bug, "nope", "as told");
        match self.opening(&id).as_str() {
            "fail" => {
                self.note(format_args!("nostart {id}"));
                return Err(failed);
            }
            "throw" => {
                self.note(format_args!("nostart {id}"));
                panic!("as told");
            }
            "ignore" => {
                self.note(format_args!("ignore {id}"));
                return Ok(Started::ignore());
            }
            _ => {}
        }
        self.note(format_args!("up {id}"));
        let diary = Diary { id: id.clone(), lines: Arc::clone(&self.lines), how: "killed" };
        if manner == Manner::Deaf {
            return Ok(Started::task(async move {
                let _diary = diary;
                std::future::pending().await
            }));
        }
        let supervisor = ctx.supervisor.actor().ok_or_else(|| failed.clone())?;
        let (actor, _) = Actor::spawn_linked(None, Child, diary, supervisor).await.map_err(|_| failed)?;
        self.actors.lock().unwrap().insert(id, actor.clone());
        Ok(Started::actor(actor.get_cell()))
    }

    async fn step(&self, handle: &SupervisorHandle, step: &Step) {
        let actor = |id: &String| self.actors.lock().unwrap()[id].clone();
        match step {
            Step::Crash(ids) => ids.iter().for_each(|id| drop(actor(id).send_message(Order::Crash))),
            Step::Finish(id) => drop(actor(id).send_message(Order::Finish)),
            Step::Kill(id) => actor(id).kill(),
            Step::Opening(how, id, count) => {
                self.openings.lock().unwrap().insert(id.clone(), (how.clone(), *count));
            }
            Step::Pass(seconds) => sleep(Duration::from_secs(*seconds)).await,
            Step::Start(kid) => {
                let spec = self.spec(kid);
                self.answer("start", &kid.id, handle.start_child(spec).await.map(drop));
            }
            Step::Terminate(id) => self.answer("terminate", id, handle.terminate_child(id).await),
            Step::Restart(id) => self.answer("restart", id, handle.restart_child(id).await.map(drop)),
            Step::Delete(id) => self.answer("delete", id, handle.delete_child(id).await),
            Step::Which => {
                let kids = handle.which_children().await;
                let state = |state: &NodeState| match state {
                    NodeState::Running => "up",
                    NodeState::Stopped => "down",
                    _ => "restarting",
                };
                let shown = kids.iter().map(|kid| format!(" {}:{}", kid.id, state(&kid.state)));
                self.note(format_args!("which{}", shown.collect::<String>()));
            }
            Step::Count => {
                let counts = handle.count_children().await;
                let (specs, active) = (counts.specs, counts.active);
                self.note(format_args!("count {specs} {active} {} {}", counts.supervisors, counts.workers));
            }
            Step::Change(flags, kids) => {
                let changed = handle.change(self.group(flags, kids)).await;
                self.note(format_args!("change {}", if changed.is_ok() { "ok" } else { "refused" }));
            }
        }
    }

    fn answer(&self, call: &str, id: &str, outcome: Result<(), ManageError>) {
        let word = match outcome {
            Ok(()) => "ok",
            Err(ManageError::AlreadyStarted) => "already_started",
            Err(ManageError::AlreadyPresent) => "already_present",
            Err(ManageError::NotFound) => "not_found",
            Err(ManageError::Running) => "running",
            Err(ManageError::Restarting) => "restarting",
            Err(_) => "error",
        };
        self.note(format_args!("{call} {id} {word}"));
    }
}

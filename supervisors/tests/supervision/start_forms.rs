//! OTP's start forms for every kind of child: running, running with a word, ignore, error, panic.

use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::{Value, json};
use supervisors::{ChildContext, ChildSpec, Failure, Ignore, ManageError, NodeState, Root, Started, SupervisorSpec};

use crate::support::{Stage, broken, quiet, seconds};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Running,
    Ignore,
    Error,
    Panic,
}

const FORMS: [Form; 4] = [Form::Running, Form::Ignore, Form::Error, Form::Panic];

struct Player(Form);

impl Actor for Player {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        match self.0 {
            Form::Running => Ok(()),
            Form::Ignore => Err(Box::new(Ignore)),
            Form::Error => Err(Box::new(broken())),
            Form::Panic => panic!("start panics"),
        }
    }
}

async fn until_stopped(ctx: ChildContext) -> Result<(), Failure> {
    ctx.stop.stopped().await;
    Ok(())
}

fn function(form: Form) -> ChildSpec {
    ChildSpec::start("c", move |ctx| async move {
        match form {
            Form::Running => Ok(Started::task(until_stopped(ctx)).with_info(json!({ "port": 1 }))),
            Form::Ignore => Ok(Started::ignore().with_info(json!({ "why": "off" }))),
            Form::Error => Err(broken()),
            Form::Panic => panic!("start panics"),
        }
    })
}

fn thread(form: Form) -> ChildSpec {
    ChildSpec::start("c", move |ctx| async move {
        match form {
            Form::Running => Ok(Started::thread(move || {
                while !ctx.stop.is_stopped() {
                    std::thread::yield_now();
                }
                Ok(())
            })),
            Form::Ignore => Ok(Started::ignore()),
            Form::Error => Err(broken()),
            Form::Panic => panic!("start panics"),
        }
    })
}

fn supervisor(form: Form) -> ChildSpec {
    ChildSpec::supervisor("c", move |_| async move {
        match form {
            Form::Running => Ok(SupervisorSpec::default()),
            Form::Ignore => Ok(SupervisorSpec::ignore()),
            Form::Error => Err(broken()),
            Form::Panic => panic!("start panics"),
        }
    })
}

fn actor(form: Form) -> ChildSpec {
    ChildSpec::actor("c", move |_| (Player(form), ()))
}

/// What the start function has to say in each form.
fn info(form: Form) -> Value {
    match form {
        Form::Running => json!({ "port": 1 }),
        Form::Ignore => json!({ "why": "off" }),
        Form::Error | Form::Panic => Value::Null,
    }
}

async fn check(make: fn(Form) -> ChildSpec, form: Form, told: Value) {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default()).await;
    let handle = root.handle();
    let started = handle.start_child(make(form)).await;
    quiet().await;
    let children = handle.which_children().await;
    match form {
        Form::Running => {
            assert_eq!(started, Ok(told));
            assert_eq!(children[0].state, NodeState::Running);
        }
        Form::Ignore => {
            assert_eq!(started, Ok(told));
            assert_eq!(children[0].state, NodeState::Stopped, "the spec is kept");
            assert_eq!(handle.count_children().await.active, 0);
        }
        Form::Error => assert_eq!(started, Err(ManageError::StartFailed(broken()))),
        Form::Panic => {
            let Err(ManageError::StartFailed(failure)) = started else { panic!("{started:?}") };
            assert_eq!(failure.reason.code, "panic");
            assert!(failure.reason.message.starts_with("start panics (at "), "{failure}");
        }
    }
    if matches!(form, Form::Error | Form::Panic) {
        assert!(children.is_empty(), "a child that did not start is forgotten");
        let first: Result<Root, Failure> = stage.try_start(SupervisorSpec::default().child(make(form))).await;
        let code = if form == Form::Panic { "panic" } else { "broken" };
        assert_eq!(first.unwrap_err().reason.code, code, "it fails its supervisor's first start");
    }
    root.stop_within(seconds(1)).await;
}

#[tokio::test(start_paused = true)]
async fn test_start_forms_of_a_start_function() {
    for form in FORMS {
        check(function, form, info(form)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn test_start_forms_of_an_actor() {
    for form in FORMS {
        check(actor, form, Value::Null).await;
    }
}

#[tokio::test(start_paused = true)]
async fn test_start_forms_of_a_supervisor() {
    for form in FORMS {
        check(supervisor, form, Value::Null).await;
    }
}

/// Not on the paused clock: it stands still while a thread runs.
#[tokio::test]
async fn test_start_forms_of_a_thread() {
    for form in FORMS {
        check(thread, form, Value::Null).await;
    }
}

#[tokio::test(start_paused = true)]
async fn test_start_form_ignore_is_forgotten_by_a_dynamic_supervisor() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::dynamic()).await;
    for make in [function, actor, supervisor] {
        root.handle().start_child(make(Form::Ignore)).await.unwrap();
        assert_eq!(root.handle().count_children().await.specs, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn test_start_form_panic_of_a_task_that_is_not_even_made() {
    let stage = Stage::default();
    let root = stage.start(SupervisorSpec::default()).await;
    let child = ChildSpec::task("c", |_| {
        assert!(std::hint::black_box(false), "make panics");
        async { Ok(()) }
    });
    let Err(ManageError::StartFailed(failure)) = root.handle().start_child(child).await else { panic!("it started") };
    assert!(failure.reason.message.starts_with("make panics (at "), "{failure}");
}

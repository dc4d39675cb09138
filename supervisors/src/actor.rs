//! Ractor actors as children: their panics are caught and located as those of tasks are.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};

use crate::life::ChildContext;
use crate::message::Trouble;
use crate::panics::caught;
use crate::policy::{Class, Failure};
use crate::spec::Started;

/// What an actor's `pre_start` fails with if nothing needs to run: the child then counts as started, as with
/// [`Started::ignore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing needs to run")]
pub struct Ignore;

/// A panic on its way through ractor, which knows errors only.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.failure)]
struct Panicked(Box<Trouble>);

/// An actor whose panics become errors before ractor sees them.
struct Guarded<A>(A);

async fn guarded<T>(call: impl Future<Output = Result<T, ActorProcessingErr>>) -> Result<T, ActorProcessingErr> {
    let mut call = pin!(call);
    let panicked = |trouble| Poll::Ready(Err(Box::new(Panicked(Box::new(trouble))) as ActorProcessingErr));
    poll_fn(|context| caught(|| call.as_mut().poll(context)).unwrap_or_else(panicked)).await
}

impl<A: Actor> Actor for Guarded<A> {
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = A::Arguments;

    async fn pre_start(&self, me: ActorRef<A::Msg>, with: A::Arguments) -> Result<A::State, ActorProcessingErr> {
        guarded(async { self.0.pre_start(me, with).await }).await
    }

    async fn post_start(&self, me: ActorRef<A::Msg>, state: &mut A::State) -> Result<(), ActorProcessingErr> {
        guarded(async { self.0.post_start(me, state).await }).await
    }

    async fn post_stop(&self, me: ActorRef<A::Msg>, state: &mut A::State) -> Result<(), ActorProcessingErr> {
        guarded(async { self.0.post_stop(me, state).await }).await
    }

    async fn handle(
        &self,
        me: ActorRef<A::Msg>,
        message: A::Msg,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        guarded(async { self.0.handle(me, message, state).await }).await
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<A::Msg>,
        event: SupervisionEvent,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        guarded(async { self.0.handle_supervisor_evt(me, event, state).await }).await
    }
}

/// Spawns the actor that `make` gives, linked to the supervisor.
pub(crate) async fn start_actor<A: Actor>(
    ctx: ChildContext,
    make: &(dyn Fn(ChildContext) -> (A, A::Arguments) + Send + Sync),
) -> Result<Started, Trouble> {
    let supervisor = ctx.supervisor.cell()?;
    let (handler, arguments) = make(ctx);
    match Guarded::spawn_linked(None, Guarded(handler), arguments, supervisor).await {
        Ok((actor, _)) => Ok(Started::actor(actor.get_cell())),
        Err(SpawnErr::StartupFailed(cause)) if cause.is::<Ignore>() => Ok(Started::ignore()),
        Err(SpawnErr::StartupFailed(cause)) => Err(actor_trouble(cause)),
        Err(other) => Err(Failure::new(Class::Bug, "actor_not_spawned", other.to_string()).into()),
    }
}

/// What an actor failed with: its panic, or its own [`Failure`] where it gave one.
pub(crate) fn actor_trouble(error: ActorProcessingErr) -> Trouble {
    let error = match error.downcast::<Panicked>() {
        Ok(panicked) => return *panicked.0,
        Err(error) => error,
    };
    match error.downcast::<Failure>() {
        Ok(failure) => (*failure).into(),
        Err(other) => Failure::new(Class::Bug, "actor_failed", other.to_string()).into(),
    }
}

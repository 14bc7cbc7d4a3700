//! Handlers: functions of the application that are given every event of a type of streams, as an outlet is.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use unisono_core::entity::check_name;
use unisono_core::outlet::{Manner, Message, Outlet, OutletSource};
use unisono_core::source::Source;
use unisono_core::{Error, ErrorKind, Result};
use unisono_policy::declaration::{Declaration, FollowerDeclaration, SourceDeclaration};
use unisono_policy::delivery::DeliveryPolicy;

use crate::open::Unisono;
use crate::streams::{Recorded, Streams};

/// The kind of sources that are handlers.
const KIND: &str = "handler";

/// A handler that was added: no configuration names it.
pub(crate) struct Added {
    name: Arc<str>,
    /// The entity of the events that it is given.
    entity: Arc<str>,
}

impl Added {
    /// Has a declaration name it.
    pub(crate) fn declare(&self, declaration: &mut Declaration) {
        let Some(fed) = declaration.entities.get_mut(&self.entity) else { return };
        fed.followers.push(FollowerDeclaration {
            source: Arc::clone(&self.name),
            place: None,
            options: Default::default(),
            filter: None,
            map: None,
            delivery: DeliveryPolicy::default(),
            clear: false,
        });
        let source = SourceDeclaration {
            kind: KIND.into(),
            options: Default::default(),
            required: true,
            region: None,
        };
        declaration.sources.insert(Arc::clone(&self.name), source);
    }
}

impl Unisono {
    /// Has a function handle every event of a type of streams, from now on or where the handler of this name stopped: at
    /// least once, those of one stream in order and one after the other. It runs until this is closed.
    ///
    /// Of several processes that add a handler of one name one at a time calls it. How far it has come is kept in the truth,
    /// and it is watched, paused and resumed as the source NAME. An error of a kind for which [`is_away`] holds, such as
    /// `unavailable`, says that nothing can be handled now: the event is handled again until it succeeds. With another
    /// error the event is handled `manner.attempts` times, and is then a dead letter; those behind it go on.
    ///
    /// Fields that are declared personal come encrypted. `already_exists` for the name of another source.
    ///
    /// [`is_away`]: unisono_core::outlet::is_away
    pub async fn handle<E, F, H>(
        &self,
        name: &str,
        events: &Streams<E>,
        manner: Manner,
        handler: F,
    ) -> Result<()>
    where
        E: DeserializeOwned + Send + 'static,
        F: Fn(Recorded<E>) -> H + Send + Sync + 'static,
        H: Future<Output = Result<()>> + Send,
    {
        let outlet = Arc::new(Handler { events: events.clone(), handler });
        self.add_outlet(name, &events.ty, outlet, manner).await
    }

    /// Has an outlet fed with the events of a type of streams.
    pub(crate) async fn add_outlet(
        &self,
        name: &str,
        ty: &str,
        outlet: Arc<dyn Outlet>,
        manner: Manner,
    ) -> Result<()> {
        check_name(name)?;
        let entity = Arc::clone(self.engine.stream(ty)?.name());
        let added = Added { name: name.into(), entity };
        let mut handlers = self.handlers.lock().await;
        let mut wanted = (*self.engine.declaration()).clone();
        if wanted.sources.contains_key(name) {
            return Err(Error::new(ErrorKind::AlreadyExists, "there is a source of this name")
                .with("name", name)
                .hint("give the handler another name"));
        }
        added.declare(&mut wanted);
        let source = OutletSource::over(name, KIND, outlet, manner);
        let open = |_: Arc<str>, _: SourceDeclaration| -> BoxFuture<'_, Result<Arc<dyn Source>>> {
            let source = Arc::clone(&source);
            Box::pin(async move { Ok(source) })
        };
        self.engine.reload(wanted, &open).await?;
        handlers.push(added);
        Ok(())
    }
}

/// A function as an outlet.
struct Handler<E, F> {
    events: Streams<E>,
    handler: F,
}

#[async_trait]
impl<E, F, H> Outlet for Handler<E, F>
where
    E: DeserializeOwned + Send + 'static,
    F: Fn(Recorded<E>) -> H + Send + Sync + 'static,
    H: Future<Output = Result<()>> + Send,
{
    async fn send(&self, message: &Message) -> Result<()> {
        let Some(event) = &message.event else { return Ok(()) };
        let recorded = self.events.recorded(event.clone())?;
        (self.handler)(recorded).await
    }
}

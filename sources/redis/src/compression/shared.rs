//! The dictionary of a shelf in the server, where every process finds it: the first that is offered is everybody's.
//!
//! None of this fails a call: without a dictionary entries are larger, or missed, and never wrong.

use std::sync::Arc;

use redis::Cmd;

use super::Dictionary;
use crate::reply;
use crate::shelf::Shelf;
use crate::source::RedisSource;

impl RedisSource {
    /// Goes along with writes: now and then sees to it that the server has the dictionary of this process, or that this
    /// process has the server's.
    pub(crate) async fn share_dictionary(&self, shelf: &Shelf) {
        if shelf.compression.is_due(|| self.clock.now()) {
            self.exchange(shelf, shelf.compression.own()).await;
        }
    }

    /// Fetches the dictionary that an entry needs, unless the server was asked a moment ago.
    pub(crate) async fn fetch_dictionary(&self, shelf: &Shelf) {
        if shelf.compression.may_ask(self.clock.now()) {
            self.exchange(shelf, None).await;
        }
    }

    /// Puts the dictionary of this process back into a server that was emptied.
    pub(crate) async fn restore_dictionary(&self, shelf: &Shelf) {
        if let Some(own) = shelf.compression.own() {
            self.exchange(shelf, Some(own)).await;
        }
    }

    /// Takes the dictionary that is in the server, or, if there is none, offers one.
    async fn exchange(&self, shelf: &Shelf, own: Option<Arc<Dictionary>>) {
        let key = shelf.dictionary();
        let mut command = Cmd::new();
        match &own {
            Some(own) => command.arg("SET").arg(key).arg(own.bytes()).arg("NX").arg("GET"),
            None => command.arg("GET").arg(key),
        };
        let there = self.client.command(key, &command).await.and_then(reply::bytes);
        match (there, own) {
            (Ok(Some(bytes)), _) => {
                if !shelf.compression.take(bytes) {
                    let key = String::from_utf8_lossy(key);
                    tracing::warn!(%key, "what is kept there is not a dictionary: entries are compressed without one until somebody deletes it");
                }
            }
            (Ok(None), Some(own)) => shelf.compression.adopt(own),
            (Ok(None), None) => {}
            (Err(error), _) => {
                tracing::debug!(%error, entity = %shelf.entity.name(), "the dictionary could not be shared");
            }
        }
    }
}

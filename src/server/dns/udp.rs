//! DNS over UDP: batches of datagrams, answered at once where that is possible.

use super::service::Service;
use crate::ffi::{
    datagrams::{BATCH, Batch},
    packet::WatchedSocket,
};
use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
};

/// Batches that are taken before other tasks get their turn.
const TURN: usize = 16;
/// Batches without an end of what waits that make a backlog: more than a pause of this host's gathers.
const BACKLOG: usize = 8;
/// Buffers that are kept for the next batch; more are in use only while more threads are at work.
const KEPT: usize = 4;

/// Buffers for whoever has a batch in hand: a listener that waits needs none.
#[derive(Debug, Default)]
pub(super) struct Batches(Mutex<Vec<Batch>>);

impl Batches {
    fn take(&self) -> Batch {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give(&self, batch: Batch) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(batch);
        }
    }
}

/// Serves a socket until dropped.
pub(super) async fn serve(socket: Arc<WatchedSocket>, service: Arc<Service>) {
    let batches = service.batches();
    loop {
        let mut guard = match socket.ready().await {
            Ok(guard) => guard,
            Err(error) => {
                tracing::warn!(%error, "a DNS socket can be watched no more");
                return;
            }
        };
        let mut batch = batches.take();
        let mut waits = true;
        for turn in 0..TURN {
            match take(&socket, &service, &mut batch, turn >= BACKLOG) {
                // No more waited. If something has come since, the runtime hears of it: the readiness is cleared only
                // as far as it was known.
                Ok(count) if count < BATCH => {
                    guard.clear_ready();
                    waits = false;
                    break;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    guard.clear_ready();
                    waits = false;
                    break;
                }
                // What an earlier answer met on its way (ICMP), or a signal.
                Err(error) => tracing::debug!(%error, "a DNS socket"),
            }
        }
        batches.give(batch);
        drop(guard);
        if waits {
            tokio::task::yield_now().await;
        }
    }
}

fn take(socket: &Arc<WatchedSocket>, service: &Arc<Service>, batch: &mut Batch, backlog: bool) -> io::Result<usize> {
    let count = batch.receive(socket.socket().as_fd())?;
    service.take_batch(socket, batch, count, backlog);
    Ok(count)
}

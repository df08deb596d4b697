//! Threads of servers.

use std::{future::Future, io, thread::JoinHandle};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// A thread that runs servers' tasks and nothing else: what else the daemon does must not delay them, nor a flood of
/// packets anything else, and one thread that waits for its sockets alone answers for much less (no other is woken to
/// look for work). Dropping this ends it, and waits until its tasks, and all that they hold, are gone: the store is closed
/// by whoever holds it last.
#[derive(Debug)]
pub struct ServerThread {
    handle: Handle,
    /// The thread, which ends when the sender is dropped. `None` only while this is dropped.
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl ServerThread {
    /// In the calling thread's network namespace. `name`: as `ps -L` shows it.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (running, ended) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        // It fails when the sender is dropped: that is the end that it waits for.
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || drop(runtime.block_on(ended)))?;
        Ok(Self { handle, running: Some((running, thread)) })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `future` there; the tasks and sockets that it makes stay there. An error where it panicked.
    pub async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        self.handle.spawn(future).await.map_err(io::Error::other)
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        let Some((running, thread)) = self.running.take() else { return };
        drop(running);
        // It may be one of its own tasks that lets go of it last.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("a server's thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn what_runs_there_stays_there_and_ends_with_it() {
        let name = || std::thread::current().name().map(str::to_owned);
        let thread = ServerThread::start("guests").expect("a thread");
        let spawned = thread.run(async move { (name(), tokio::spawn(async move { name() }).await) }).await;
        let (here, there) = spawned.expect("it ran");
        assert_eq!((here.as_deref(), there.expect("it ran").as_deref()), (Some("guests"), Some("guests")));
        assert!(thread.run(async { panic!("on purpose") }).await.is_err());
        assert!(thread.run(async {}).await.is_ok(), "a panic ends its task alone");
        let held = Arc::new(());
        let holder = Arc::clone(&held);
        let pending = thread.handle().spawn(async move {
            std::future::pending::<()>().await;
            drop(holder);
        });
        drop(thread);
        assert_eq!(Arc::strong_count(&held), 1, "what its tasks held is gone with it");
        assert!(pending.await.expect_err("ended").is_cancelled());
    }
}

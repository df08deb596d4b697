//! That something takes its time, on a terminal.

use std::{
    future::Future,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// What is shorter needs no word.
const PATIENCE: Duration = Duration::from_millis(700);

/// Waits, and says so on a terminal after a moment.
pub async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut error = std::io::stderr();
    if !error.is_terminal() {
        return work.await;
    }
    let begun = Instant::now();
    let mut work = std::pin::pin!(work);
    let mut shown = false;
    let result = loop {
        match tokio::time::timeout(PATIENCE, &mut work).await {
            Ok(result) => break result,
            Err(_) => {
                shown = true;
                let _ = write!(error, "\r{what}… {} s", begun.elapsed().as_secs());
                let _ = error.flush();
            }
        }
    };
    if shown {
        let _ = write!(error, "\r\x1b[K");
    }
    result
}

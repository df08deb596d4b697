//! As much of HTTP/1.1 (RFC 9112) as a scrape needs: one GET a connection. A library's server would keep connections,
//! and with them state that slow or many clients fill.

use super::text::Format;
use std::{future::Future, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// What a request's head may hold.
const MAX_HEAD: usize = 8 * 1024;

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Metrics { format: Format, head: bool },
    Refused(&'static str),
}

/// Answers the one request of a connection; `patience` is how long the request may take to come, and the answer to be
/// taken.
pub(super) async fn answer<C, F, B>(mut connection: C, patience: Duration, metrics: impl FnOnce(Format) -> F)
where
    C: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Option<B>>,
    B: AsRef<[u8]>,
{
    let Ok(Some(head)) = timeout(patience, read_head(&mut connection)).await else { return };
    let (mut answer, mut silent) = (None, false);
    let (status, kind, text) = match parse(&head) {
        Request::Metrics { format, head } => {
            (answer, silent) = (metrics(format).await, head);
            match answer {
                Some(_) => ("200 OK", format.content_type(), String::new()),
                None => {
                    ("503 Service Unavailable", PLAIN, "the metrics cannot be read now; see vmfabricd's log\n".into())
                }
            }
        }
        Request::Refused(status) => (status, PLAIN, format!("{status}: the metrics are at /metrics\n")),
    };
    let body = answer.as_ref().map_or(text.as_bytes(), AsRef::as_ref);
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    );
    let send = async {
        connection.write_all(head.as_bytes()).await?;
        if !silent {
            connection.write_all(body).await?;
        }
        connection.shutdown().await
    };
    // Who does not take its answer has no other coming.
    let _ = timeout(patience, send).await;
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// Up to the empty line; `None` where there is none, or too much before it.
async fn read_head(connection: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !ended(&head) {
        match connection.read(&mut buffer).await {
            Ok(count @ 1..) if head.len() + count <= MAX_HEAD => head.extend(buffer.get(..count)?),
            _ => return None,
        }
    }
    Some(head)
}

fn ended(head: &[u8]) -> bool {
    head.windows(4).any(|bytes| bytes == b"\r\n\r\n") || head.windows(2).any(|bytes| bytes == b"\n\n")
}

fn parse(head: &[u8]) -> Request {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = words.as_slice() else { return Request::Refused("400 Bad Request") };
    if !version.starts_with("HTTP/1.") {
        return Request::Refused("400 Bad Request");
    }
    if !matches!(*method, "GET" | "HEAD") {
        return Request::Refused("405 Method Not Allowed");
    }
    if target.split('?').next() != Some("/metrics") {
        return Request::Refused("404 Not Found");
    }
    let open = lines.take_while(|line| !line.is_empty()).any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("accept") && value.contains("application/openmetrics-text")
        })
    });
    let format = if open { Format::OpenMetrics } else { Format::Prometheus };
    Request::Metrics { format, head: *method == "HEAD" }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(request: &[u8]) -> String {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client.write_all(request).await.expect("written");
        client.shutdown().await.expect("shut");
        answer(server, Duration::from_millis(100), |format| async move { Some(format!("{format:?}\n")) }).await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn requests_get_what_they_ask_for() {
        let classic = asked(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(classic.starts_with("HTTP/1.1 200 OK\r\n") && classic.ends_with("\r\n\r\nPrometheus\n"), "{classic}");
        let open =
            asked(b"GET /metrics?x HTTP/1.0\r\nACCEPT: application/openmetrics-text;version=1.0.0\r\n\r\n").await;
        assert!(open.contains("application/openmetrics-text") && open.ends_with("OpenMetrics\n"), "{open}");
        let head = asked(b"HEAD /metrics HTTP/1.1\r\n\r\n").await;
        assert!(head.contains("Content-Length: 11\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET /metrics\r\n\r\n", "400"),
            ("\r\n\r\n", "400"),
            ("GET /metrics HTTP/2\r\n\r\n", "400"),
        ] {
            let answer = asked(request.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn what_is_too_long_or_too_slow_has_no_answer() {
        assert_eq!(asked(&[b'x'; MAX_HEAD + 1]).await, "");
        assert_eq!(asked(b"GET /metrics HTTP/1.1\r\n").await, "");
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GET ").await.expect("written");
        answer(server, Duration::from_millis(100), |_| async { None::<String> }).await;
        let mut rest = String::new();
        assert_eq!(client.read_to_string(&mut rest).await.expect("closed"), 0);
    }
}

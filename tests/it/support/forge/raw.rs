//! Answers byte by byte, for what no HTTP library would write.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::Io;

/// One step of a raw answer; the connection closes after the last.
#[derive(Debug)]
pub(crate) enum Step {
    /// Write.
    Bytes(Vec<u8>),
    /// Write the same again and again.
    Repeat(Vec<u8>, usize),
    /// Write pieces, each after a pause.
    Drip(Vec<Vec<u8>>, Duration),
    /// Write to the socket itself, below TLS.
    Below(Vec<u8>),
    /// Break the connection (RST) instead of closing it.
    Reset,
    /// Say nothing until the client goes away.
    Silence,
}

/// Plays the steps until they end or the client goes away.
pub(crate) async fn play<S: Io>(mut stream: S, steps: Vec<Step>) {
    for step in steps {
        let done = match step {
            Step::Bytes(bytes) => stream.write_all(&bytes).await,
            Step::Repeat(bytes, times) => repeat(&mut stream, &bytes, times).await,
            Step::Drip(pieces, every) => drip(&mut stream, pieces, every).await,
            Step::Below(bytes) => stream.tcp().try_write(&bytes).map(drop),
            Step::Reset => {
                // What was written must be on its way first: an RST discards the send buffer.
                let flushed = stream.flush().await;
                tokio::task::yield_now().await;
                flushed.and(stream.tcp().set_zero_linger())
            }
            Step::Silence => silence(&mut stream).await,
        };
        if done.is_err() {
            return;
        }
        if stream.flush().await.is_err() {
            return;
        }
    }
    if !stream.tcp().linger().is_ok_and(|linger| linger.is_some()) {
        // An error here only says that the client was faster.
        let _ = stream.shutdown().await;
    }
}

async fn repeat<S: Io>(stream: &mut S, bytes: &[u8], times: usize) -> std::io::Result<()> {
    for _ in 0..times {
        stream.write_all(bytes).await?;
    }
    Ok(())
}

async fn drip<S: Io>(stream: &mut S, pieces: Vec<Vec<u8>>, every: Duration) -> std::io::Result<()> {
    for piece in pieces {
        stream.write_all(&piece).await?;
        stream.flush().await?;
        if !every.is_zero() {
            tokio::time::sleep(every).await;
        }
    }
    Ok(())
}

async fn silence<S: Io>(stream: &mut S) -> std::io::Result<()> {
    let mut ignored = [0_u8; 1024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

//! What runs beside the caller: sends what was written, learns what is durable, and goes on after whatever ends a call.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::{Name, Shared};
use crate::{
    client::{Client, ClientError, Retry, retry},
    proto::v1::{WriteUploadHeader, WriteUploadRequest, write_upload_request::Payload},
};

/// As much goes out at once: HTTP/2 servers take a flood of tiny frames for an attack.
const GATHERED_BYTES: u64 = 16 << 10;
/// What comes slowly is gathered for so long.
const LINGER: Duration = Duration::from_millis(500);
/// A call without content for so long is ended, and begun again when there is some: servers end idle streams.
const QUIET: Duration = Duration::from_secs(10);
/// Between looks at what is durable.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The same while the caller waits for room.
const HASTY_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Nobody is asked about less.
const LOOK_BYTES: usize = 64 << 10;

/// Sends one upload's content.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) name: Name,
    pub(super) shared: Arc<Shared>,
    pub(super) retry: Retry,
}

impl Sender {
    /// Runs until the upload cannot go on; the caller is told why.
    pub(super) async fn run(self) {
        let ended = Ended(Arc::clone(&self.shared));
        let error = self.send_all().await;
        ended.because(error);
    }

    async fn send_all(&self) -> ClientError {
        let (mut tried, mut reached) = (0, 0);
        loop {
            self.shared.work().await;
            let Err(error) = self.go_on().await else { continue };
            let now = self.shared.reached();
            tried = if now > reached { 1 } else { tried + 1 };
            reached = now;
            let pause = error
                .refusal()
                .filter(|refusal| retry::interrupts(refusal))
                .and_then(|refusal| self.retry.pause(refusal, tried));
            let Some(pause) = pause else { return error };
            sleep(pause).await;
            self.shared.state().stale = true;
        }
    }

    /// Looks where the server is, if that is in doubt, and sends from there on until the call ends.
    async fn go_on(&self) -> Result<(), ClientError> {
        if self.shared.state().stale {
            self.shared.go_on_from(&self.client.look(&self.name).await?)?;
        }
        let offset = {
            let state = self.shared.state();
            if state.window.unsent() == 0 {
                return Ok(());
            }
            state.window.next()
        };
        let header = WriteUploadHeader {
            tenant_id: self.name.tenant.clone(),
            upload_id: self.name.upload.clone(),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
        };
        let mut service = self.client.record_service();
        let messages = messages(header, Arc::clone(&self.shared));
        let answer = tokio::select! {
            answer = service.write_upload(messages) => answer?.into_inner(),
            // A server that ends answers no more looks, and would have this call wait for what it holds.
            error = self.learn() => return Err(error),
        };
        let upload = answer
            .upload
            .ok_or(ClientError::Protocol("an answer without an upload"))?;
        self.shared.go_on_from(&upload)
    }

    /// Asks now and then what may be forgotten, until the server is not there to be asked. What else goes wrong with that goes wrong
    /// with the sending as well.
    async fn learn(&self) -> ClientError {
        loop {
            let wait = if self.shared.state().window.is_full() {
                HASTY_LOOK_INTERVAL
            } else {
                LOOK_INTERVAL
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.shared.pressed.notified() => continue,
            }
            if self.shared.state().window.kept() < LOOK_BYTES {
                continue;
            }
            match self.client.look(&self.name).await {
                Ok(upload) => self.shared.forget(&upload),
                Err(error) if error.code() == Some(Code::Unavailable) => return error,
                Err(_) => {}
            }
        }
    }
}

/// The messages of one call, until there is nothing to send for a while, or everything was.
fn messages(header: WriteUploadHeader, shared: Arc<Shared>) -> impl Stream<Item = WriteUploadRequest> + Send {
    let header = Payload::Header(header);
    stream::unfold((Some(header), shared), |(header, shared)| async move {
        let payload = match header {
            Some(header) => header,
            None => Payload::Chunk(next_chunk(&shared).await?),
        };
        let message = WriteUploadRequest {
            payload: Some(payload),
        };
        Some((message, (None, shared)))
    })
}

async fn next_chunk(shared: &Shared) -> Option<Bytes> {
    let mut first_seen = None;
    loop {
        let wait = {
            let mut state = shared.state();
            let unsent = state.window.unsent();
            let seen = *first_seen.get_or_insert_with(Instant::now);
            let due = unsent >= GATHERED_BYTES || state.flushing || seen.elapsed() >= LINGER;
            match unsent {
                0 if state.flushing => return None,
                0 => {
                    first_seen = None;
                    QUIET
                }
                _ if due => return state.window.send(),
                _ => LINGER.saturating_sub(seen.elapsed()),
            }
        };
        let woken = timeout(wait, shared.written.notified()).await;
        if woken.is_err() && shared.state().window.unsent() == 0 {
            return None;
        }
    }
}

/// Tells the caller that nothing is sent any more, also if that is nobody's intention.
struct Ended(Arc<Shared>);

impl Ended {
    fn because(self, error: ClientError) {
        self.0.state().error = Some(error);
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0
            .state()
            .error
            .get_or_insert(ClientError::Protocol("the upload was interrupted"));
        self.0.changed.notify_one();
    }
}

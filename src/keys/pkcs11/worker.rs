//! The thread that asks a token. Its calls may block for ever; whoever waits for one does not.
//!
//! A thread of its own, rather than one of the runtime's: a process must be able to end while a token hangs.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, oneshot},
    time,
};

use crate::keys::provider::ProviderError;

use super::{Settings, token::Token};

/// How long an owner waits for the thread's end.
const GOODBYES: u32 = 100;
const GOODBYE: Duration = Duration::from_millis(5);

type Job = Box<dyn FnOnce(&mut Token) + Send>;

/// Asks a token one thing after the other.
pub(super) struct Worker {
    /// `None` once there will be no more.
    jobs: Option<mpsc::Sender<Job>>,
    thread: thread::JoinHandle<()>,
    /// Held until the thread is through with a job: a token that hangs is given no more of them.
    turn: Arc<Semaphore>,
    patience: Duration,
}

impl Worker {
    /// A thread that reaches the token when it is first asked something, and ends with its owner.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`] if there can be no thread.
    pub(super) fn start(settings: Settings) -> Result<Self, ProviderError> {
        let (jobs, to_do) = mpsc::channel::<Job>();
        let patience = settings.patience;
        let thread = thread::Builder::new()
            .name("callvault-pkcs11".to_owned())
            .spawn(move || {
                let mut token = Token::new(settings);
                for job in to_do {
                    job(&mut token);
                }
            })
            .map_err(ProviderError::unavailable)?;
        Ok(Self {
            jobs: Some(jobs),
            thread,
            turn: Arc::new(Semaphore::new(1)),
            patience,
        })
    }

    /// What a job came to. One whose caller went away, or lost patience, is done all the same once it was begun.
    ///
    /// # Errors
    /// The job's; [`ProviderError::Unavailable`] if the token does not answer in time.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Token) -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let asked = async {
            let ended = |()| ProviderError::unavailable("the token's thread has ended");
            let turn = Arc::clone(&self.turn).acquire_owned().await;
            let turn = turn.map_err(ProviderError::unavailable)?;
            let (answer, answered) = oneshot::channel();
            let job: Job = Box::new(move |token| {
                let result = job(token);
                drop(turn);
                // Nobody may be waiting any more.
                let _ = answer.send(result);
            });
            let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
            if !matches!(sent, Some(Ok(()))) {
                return Err(ended(()));
            }
            answered.await.map_err(|_| ended(()))?
        };
        match time::timeout(self.patience, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(ProviderError::unavailable(format!(
                "the token did not answer within {} s",
                self.patience.as_secs_f32()
            ))),
        }
    }
}

impl Drop for Worker {
    /// Waits a moment for the thread to close its session: modules do not survive a process that ends while they work. One that
    /// hangs is left behind.
    fn drop(&mut self) {
        self.jobs = None;
        for _ in 0..GOODBYES {
            if self.thread.is_finished() {
                return;
            }
            thread::sleep(GOODBYE);
        }
    }
}

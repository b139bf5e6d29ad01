//! Patience: what may be asked again, how often, and after how long.

use std::{future::Future, time::Duration};

use ring::rand::{SecureRandom, SystemRandom};
use tonic::{Code, Status};

use super::{ClientError, Refusal};

/// How often and how patiently a call is repeated that the vault could not answer for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all; 1 never repeats.
    pub tries: u32,
    /// Wait after the first try; doubled after each, and up to half of it taken off at random.
    pub first_wait: Duration,
    /// Longest wait, also when the vault asks for more.
    pub longest_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            tries: 5,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(10),
        }
    }
}

impl Retry {
    /// Never repeats.
    pub const NEVER: Self = Self {
        tries: 1,
        first_wait: Duration::ZERO,
        longest_wait: Duration::ZERO,
    };

    /// Outlasts a restarted server or a network that is gone for a while: some four minutes. Uploads in many calls have it.
    pub const PATIENT: Self = Self {
        tries: 70,
        first_wait: Duration::from_millis(100),
        longest_wait: Duration::from_secs(5),
    };

    /// Makes a call until it is answered, is refused for good, or patience ends.
    pub(super) async fn run<T, F>(self, call: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.run_while(passes, call).await
    }

    /// The same for what fails in other ways as well; those are not repeated.
    pub(super) async fn run_any<T, F>(self, call: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.run_any_while(passes, call).await
    }

    /// As [`Self::run`], for calls that may be repeated after other refusals.
    pub(super) async fn run_while<T, F>(
        self,
        passes: fn(&Refusal) -> bool,
        mut call: impl FnMut() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.run_any_while(passes, || {
            let answer = call();
            async move { Ok(answer.await?) }
        })
        .await
    }

    /// As [`Self::run_any`], for calls that may be repeated after other refusals.
    pub(super) async fn run_any_while<T, F>(
        self,
        passes: fn(&Refusal) -> bool,
        mut call: impl FnMut() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut tried = 1;
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let refusal = error.refusal().filter(|refusal| passes(refusal));
            match refusal.and_then(|refusal| self.pause(refusal, tried)) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(error),
            }
            tried += 1;
        }
    }

    /// How long to wait after this many tries; `None` to give up.
    pub(super) fn wait(self, refusal: &Refusal, tried: u32) -> Option<Duration> {
        passes(refusal).then(|| self.pause(refusal, tried)).flatten()
    }

    /// The same for what is known to pass.
    pub(super) fn pause(self, refusal: &Refusal, tried: u32) -> Option<Duration> {
        if tried >= self.tries {
            return None;
        }
        let doubled = self
            .first_wait
            .saturating_mul(1 << tried.saturating_sub(1).min(16));
        let wait = doubled.min(self.longest_wait);
        let asked = refusal.retry_after.unwrap_or_default();
        Some((wait - jitter(wait)).max(asked.min(self.longest_wait)))
    }
}

/// Whether the same call may be answered later.
fn passes(refusal: &Refusal) -> bool {
    match refusal.code {
        Code::Unavailable => true,
        // Without RetryInfo it is a limit of the message's own size: it will not pass later either.
        Code::ResourceExhausted => refusal.retry_after.is_some(),
        // The token's file may have a new one by then.
        Code::Unauthenticated => is_about_keys(refusal),
        _ => false,
    }
}

/// Whether a token was refused that may be another one soon, or whose key may be known soon.
fn is_about_keys(refusal: &Refusal) -> bool {
    matches!(&*refusal.reason, "TOKEN_EXPIRED" | "TOKEN_KEY")
}

/// Whether this ends a call and not the upload that it belongs to: all its calls may be repeated, whatever became of them.
pub(super) fn interrupts(refusal: &Refusal) -> bool {
    match (refusal.code, &*refusal.reason) {
        (Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded, _) => true,
        // The last: an earlier try of the same call still runs.
        (_, "TOKEN_EXPIRED" | "TOKEN_KEY" | "UPLOAD_OFFSET" | "UPLOAD_COMMITTING" | "UPLOAD_UNDER_WAY") => {
            true
        }
        // Not the vault's words but the connection's.
        (Code::Unknown | Code::Internal | Code::Cancelled, "") => true,
        _ => false,
    }
}

/// At random up to half of a wait, so that callers turned away together do not come back together.
fn jitter(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness there is no jitter, and no harm.
    let _ = SystemRandom::new().fill(&mut byte);
    wait.mul_f64(f64::from(byte[0]) / 512.0)
}

/// A request id that nobody else uses, or the caller's own.
pub(super) fn request_id(given: String) -> String {
    let mut bytes = [0; 16];
    if !given.is_empty() || SystemRandom::new().fill(&mut bytes).is_err() {
        return given;
    }
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::vault::{Error, Kind};

    const QUICK: Retry = Retry {
        tries: 3,
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(2),
    };

    async fn tries_until(kind: Kind, succeed_at: u32) -> (u32, bool) {
        let tries = Cell::new(0);
        let answer = QUICK
            .run(|| async {
                tries.set(tries.get() + 1);
                if tries.get() == succeed_at {
                    Ok(())
                } else {
                    Err(Error::new(kind, "SOME_REASON", "no").into())
                }
            })
            .await;
        (tries.get(), answer.is_ok())
    }

    #[tokio::test]
    async fn only_what_may_pass_is_repeated_and_not_for_ever() {
        assert_eq!(tries_until(Kind::Unavailable, 2).await, (2, true));
        assert_eq!(tries_until(Kind::Exhausted, 3).await, (3, true));
        assert_eq!(tries_until(Kind::Unavailable, 9).await, (3, false));
        for final_answer in [Kind::Invalid, Kind::Corrupt, Kind::Conflict, Kind::Internal] {
            assert_eq!(tries_until(final_answer, 2).await, (1, false), "{final_answer:?}");
        }
    }

    #[test]
    fn the_vaults_wish_is_the_least_wait() {
        let refusal = Refusal::from(Status::from(Error::new(Kind::Unavailable, "R", "m")));
        let wait = Retry::default().wait(&refusal, 1).unwrap();
        assert!(wait >= Duration::from_secs(1), "{wait:?}");
        let refusal = Refusal::from(Status::unavailable("no details"));
        let wait = Retry::default().wait(&refusal, 1).unwrap();
        assert!((Duration::from_millis(50)..=Duration::from_millis(100)).contains(&wait));
    }

    #[test]
    fn what_ends_a_call_is_told_from_what_ends_its_upload() {
        let answered = |kind, reason| Refusal::from(Status::from(Error::new(kind, reason, "m")));
        for passing in [
            answered(Kind::Unavailable, "STORE_BEHIND"),
            answered(Kind::Exhausted, "SPOOL_FULL"),
            answered(Kind::TimedOut, "UPLOAD_IDLE"),
            answered(Kind::WrongState, "UPLOAD_OFFSET"),
            answered(Kind::Conflict, "UPLOAD_COMMITTING"),
            Status::unknown("transport error").into(),
            answered(Kind::Conflict, "UPLOAD_UNDER_WAY"),
            answered(Kind::Unauthenticated, "TOKEN_EXPIRED"),
            Status::internal("h2 protocol error").into(),
            Status::cancelled("operation was canceled").into(),
        ] {
            assert!(interrupts(&passing), "{passing}");
        }
        for last in [
            answered(Kind::Conflict, "UPLOAD_TAKEN_OVER"),
            answered(Kind::WrongState, "UPLOAD_INCOMPLETE"),
            answered(Kind::NotFound, "NOT_FOUND"),
            answered(Kind::Corrupt, "CORRUPT"),
            answered(Kind::Internal, "STORE"),
            Status::unimplemented("another server").into(),
        ] {
            assert!(!interrupts(&last), "{last}");
        }
    }

    #[test]
    fn request_ids_are_minted_only_where_there_is_none() {
        assert_eq!(request_id("mine".to_owned()), "mine");
        assert_eq!(request_id(String::new()).len(), 32);
    }
}

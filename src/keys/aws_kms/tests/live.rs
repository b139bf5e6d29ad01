//! The same promises against moto, a KMS that is not ours: `scripts/live_s3.sh` starts one and sets `CALLVAULT_KMS_ENDPOINT`.
//!
//! Its account is one, so every test has a name of its own. It opens what is scheduled for deletion, and deletes nothing.

use super::*;

/// A key's id stands before what moto seals.
const ID_LEN: usize = 36;

async fn make() -> Subject {
    let endpoint =
        std::env::var("CALLVAULT_KMS_ENDPOINT").unwrap_or_else(|_| panic!("use scripts/live_s3.sh"));
    let keep = tempfile::tempdir().unwrap();
    let settings = settings(&endpoint, &format!("t{}", label(1).vault), &keep);
    let subject = Subject::new(move || open(settings.clone()), keep).await;
    subject.with_clear_bytes(ID_LEN)
}

crate::root_provider_suite!(
    #[ignore = "needs a server: scripts/live_s3.sh"]
    make
);

//! The same promises against a real server: `scripts/live_s3.sh` starts one and sets `CALLVAULT_S3_ENDPOINT`.
//!
//! It takes any credentials, and every test makes a bucket of its own. Another server asks for some, and holds them to the policy
//! that is documented.

use super::*;
use crate::{crypto::rng::SystemRng, domain::clock::Rng};

/// Parts as S3 wants them. moto 5.2 fails (500) at uploads that are gone, and takes parts for another key.
const LIVE: Capabilities = Capabilities {
    knows_uploads: false,
    part_bytes: 5 << 20,
    ..CAPABILITIES
};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name}; use scripts/live_s3.sh"))
}

async fn connect(versions: bool, keep: &TempDir) -> S3Store {
    let endpoint = variable("CALLVAULT_S3_ENDPOINT");
    let rng = SystemRng::new();
    let mut id = [0; 8];
    rng.fill(&mut id).unwrap();
    let mut settings = settings(&endpoint, keep);
    settings.bucket = format!("calls-{}", hex::encode(id));
    settings.tags = BTreeMap::from([("made by".to_owned(), "callvault/tests".to_owned())]);
    settings.patience = patient();
    let session = Session::open(Arc::new(settings.clone())).await.unwrap();
    session.make_bucket(versions).await;
    S3Store::open(settings, &SystemClock, &rng).await.unwrap()
}

/// It also fails now and then when it is asked two things at once.
fn patient() -> Patience {
    Patience {
        attempts: 8,
        backoff: Duration::from_millis(5),
        connect: Duration::from_secs(2),
        operation: Duration::from_secs(120),
        read: Duration::from_secs(60),
    }
}

/// A bucket that lets its caller do what the documented policy says, and no more.
pub(crate) async fn guarded(bucket: &str, keep: &TempDir) -> S3Store {
    let mut settings = settings(&variable("CALLVAULT_S3_GUARDED"), keep);
    settings.bucket = bucket.to_owned();
    settings.credentials_file = Some(PathBuf::from(variable("CALLVAULT_S3_GUARDED_DIR")).join("credentials"));
    settings.tags = BTreeMap::from([("made by".to_owned(), "callvault/tests".to_owned())]);
    settings.patience = patient();
    S3Store::open(settings, &SystemClock, &crate::crypto::rng::SystemRng::new())
        .await
        .unwrap()
}

/// What an operator does to the keys of whoever may use the guarded buckets.
pub(crate) fn operate(what: &str) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/guarded_s3.py");
    let done = std::process::Command::new("python3")
        .arg(script)
        .args([
            what,
            &variable("CALLVAULT_S3_GUARDED"),
            &variable("CALLVAULT_S3_GUARDED_DIR"),
        ])
        .status();
    assert!(done.unwrap().success(), "{what}");
}

async fn subject(versions: bool) -> Subject {
    let keep = TempDir::new().unwrap();
    Subject::new(connect(versions, &keep).await, LIVE, "", keep)
}

mod plain {
    use super::*;

    async fn make() -> Subject {
        subject(false).await
    }

    crate::blob_store_suite!(
        #[ignore = "needs a server: scripts/live_s3.sh"]
        make
    );
}

mod versioned {
    use super::*;

    async fn make() -> Subject {
        subject(true).await
    }

    crate::blob_store_suite!(
        #[ignore = "needs a server: scripts/live_s3.sh"]
        make
    );

    #[tokio::test]
    #[ignore = "needs a server: scripts/live_s3.sh"]
    async fn every_version_of_a_deleted_object_is_removed() {
        let keep = TempDir::new().unwrap();
        let store = connect(true, &keep).await;
        assert!(store.abilities().keeps_versions);
        assert_eq!(store.abilities().tags, Ability::Yes);
        super::super::versions::deleting_leaves_no_version(&store).await;
    }
}

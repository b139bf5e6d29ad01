//! The same promises against a real server: `scripts/live_s3.sh` starts one and sets `CALLVAULT_S3_ENDPOINT`.
//!
//! It takes any credentials, and every test makes a bucket of its own.

use super::*;
use crate::{crypto::rng::SystemRng, domain::clock::Rng};

/// Parts as S3 wants them. moto 5.2 fails (500) at uploads that are gone, and takes parts for another key.
const LIVE: Capabilities = Capabilities {
    knows_uploads: false,
    part_bytes: 5 << 20,
    ..CAPABILITIES
};

async fn connect(versions: bool, keep: &TempDir) -> S3Store {
    let endpoint =
        std::env::var("CALLVAULT_S3_ENDPOINT").expect("CALLVAULT_S3_ENDPOINT; use scripts/live_s3.sh");
    let rng = SystemRng::new();
    let mut id = [0; 8];
    rng.fill(&mut id).unwrap();
    let mut settings = settings(&endpoint, keep);
    settings.bucket = format!("calls-{}", hex::encode(id));
    settings.tags = BTreeMap::from([("made by".to_owned(), "callvault/tests".to_owned())]);
    // It also fails now and then when it is asked two things at once.
    settings.patience.attempts = 8;
    settings.patience.operation = Duration::from_secs(120);
    settings.patience.read = Duration::from_secs(60);
    let session = Session::open(Arc::new(settings.clone())).await.unwrap();
    session.make_bucket(versions).await;
    S3Store::open(settings, &SystemClock, &rng).await.unwrap()
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

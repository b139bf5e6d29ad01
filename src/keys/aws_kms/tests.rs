//! Held against a KMS in this process, and live against moto (`scripts/live_s3.sh`).

mod live;

use std::time::Instant;

use super::*;
use crate::{
    blob::s3::tests::credentials,
    crypto::rng::SystemRng,
    domain::{clock::Timestamp, ids::VaultId},
    keys::{provider::AnchoredHead, suite::Subject},
    testing::kms::{Fault, Service},
};

const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;

fn settings(endpoint: &str, name: &str, keep: &tempfile::TempDir) -> Settings {
    Settings {
        name: name.to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        ca_file: None,
        profile: None,
        credentials_file: Some(credentials(keep, "any", "any")),
        deletion_days: 9,
        patience: Patience {
            attempts: 3,
            backoff: Duration::from_millis(5),
            connect: Duration::from_secs(2),
            read: Duration::from_secs(5),
            operation: Duration::from_secs(20),
        },
    }
}

async fn open(settings: Settings) -> AwsKmsRoot {
    let opened = AwsKmsRoot::open(settings, Arc::new(SystemRng::new())).await;
    opened.unwrap()
}

fn label(epoch: u64) -> EpochLabel {
    let vault = VaultId::mint(Timestamp(1_795_478_400_000_000), &SystemRng::new());
    EpochLabel {
        vault: vault.unwrap(),
        epoch,
    }
}

mod promises {
    use super::*;

    async fn make() -> Subject {
        let (service, keep) = (Service::new(), tempfile::tempdir().unwrap());
        let settings = settings(&service.serve().await, "callvault", &keep);
        Subject::new(move || open(settings.clone()), keep).await
    }

    crate::root_provider_suite!(make);
}

/// A root, and the service that it asks.
struct Rig {
    service: Service,
    root: AwsKmsRoot,
    settings: Settings,
    _keep: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let (service, keep) = (Service::new(), tempfile::tempdir().unwrap());
        let mut settings = settings(&service.serve().await, "callvault", &keep);
        change(&mut settings);
        Self {
            service,
            root: open(settings.clone()).await,
            settings,
            _keep: keep,
        }
    }

    async fn reopen(&mut self) {
        self.root = open(self.settings.clone()).await;
    }
}

fn refusal<T: fmt::Debug>(result: Result<T, ProviderError>) -> String {
    match result.unwrap_err() {
        ProviderError::Unavailable(why) => why.to_string(),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn a_destruction_in_kms_comes_true_after_its_days_and_may_be_called_back_until_then() {
    let rig = Rig::new().await;
    let (label, service) = (label(1), &rig.service);
    let grant = rig.root.create_epoch(label).await.unwrap();
    let at = service.now().plus_micros(9 * DAY_MICROS);
    let scheduled = Destruction::Scheduled { at };
    assert_eq!(rig.root.destroy(label, &grant.handle).await.unwrap(), scheduled);
    service.pass_days(8);
    // The second does not put it off.
    assert_eq!(rig.root.destroy(label, &grant.handle).await.unwrap(), scheduled);
    let told = rig.root.destruction(label, &grant.handle).await.unwrap();
    assert_eq!(told, Some(scheduled));
    service.set(&grant.handle, "Disabled");
    assert_eq!(
        rig.root.destruction(label, &grant.handle).await.unwrap(),
        None,
        "called back"
    );
    let why = refusal(rig.root.unwrap(label, &grant).await);
    assert!(why.contains("enable"), "{why}");
    service.set(&grant.handle, "Enabled");
    rig.root.unwrap(label, &grant).await.unwrap();
    rig.root.destroy(label, &grant.handle).await.unwrap();
    service.pass_days(10);
    for handle in [grant.handle.as_str(), ""] {
        let told = rig.root.destruction(label, handle).await.unwrap();
        assert_eq!(told, Some(Destruction::Destroyed));
        assert_eq!(
            rig.root.destroy(label, handle).await.unwrap(),
            Destruction::Destroyed
        );
    }
    let gone = rig.root.unwrap(label, &grant).await.unwrap_err();
    assert!(matches!(gone, ProviderError::NoSuchKey), "{gone}");
}

/// As by a process that dies between the two.
#[tokio::test]
async fn a_key_that_was_made_and_not_named_is_found_by_its_tags() {
    let mut rig = Rig::new().await;
    let one = label(1);
    // Others' keys, on several pages.
    for epoch in 2..9 {
        let other = EpochLabel { epoch, ..one };
        rig.root.create_epoch(other).await.unwrap();
    }
    rig.service
        .fail("CreateAlias", Fault::Refused("AccessDeniedException"));
    let why = refusal(rig.root.create_epoch(one).await);
    assert!(
        why.contains("CreateAlias") && why.contains("docs/operations.md"),
        "{why}"
    );
    assert_eq!(rig.service.states().len(), 8);
    rig.reopen().await;
    let grant = rig.root.create_epoch(one).await.unwrap();
    assert_eq!(rig.service.states().len(), 8, "no second key");
    rig.root.unwrap(one, &grant).await.unwrap();

    let two = EpochLabel { epoch: 20, ..one };
    rig.service
        .fail("CreateAlias", Fault::Refused("AccessDeniedException"));
    refusal(rig.root.create_epoch(two).await);
    let given_up = rig.root.destroy(two, "").await.unwrap();
    assert!(matches!(given_up, Destruction::Scheduled { .. }), "{given_up:?}");
    let pending = rig
        .service
        .states()
        .iter()
        .filter(|s| **s == "PendingDeletion")
        .count();
    assert_eq!(pending, 1);
}

#[tokio::test]
async fn lost_answers_of_kms_leave_one_epoch() {
    let rig = Rig::new().await;
    for operation in ["CreateKey", "CreateAlias", "Encrypt", "ScheduleKeyDeletion"] {
        let label = label(1);
        rig.service.fail(operation, Fault::AnswerLost);
        let grant = rig.root.create_epoch(label).await.unwrap();
        rig.root.unwrap(label, &grant).await.unwrap();
        assert_eq!(rig.root.create_epoch(label).await.unwrap().handle, grant.handle);
        rig.root.destroy(label, &grant.handle).await.unwrap();
        let gone = rig.root.unwrap(label, &grant).await.unwrap_err();
        assert!(matches!(gone, ProviderError::NoSuchKey), "{operation}: {gone}");
    }
}

#[tokio::test]
async fn kms_that_says_nothing_is_given_up_in_time() {
    let rig = Rig::with(|settings| {
        settings.patience.attempts = 1;
        settings.patience.read = Duration::from_millis(100);
    });
    let rig = rig.await;
    rig.service.fail("CreateKey", Fault::Silent);
    let began = Instant::now();
    let refused = rig.root.create_epoch(label(1)).await.unwrap_err();
    assert!(matches!(refused, ProviderError::Unavailable(_)), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn stale_credentials_of_kms_are_looked_up_again() {
    let rig = Rig::new().await;
    rig.service
        .fail("DescribeKey", Fault::Refused("ExpiredTokenException"));
    rig.root.create_epoch(label(1)).await.unwrap();
}

/// Whoever may move aliases must not make the vault encrypt under another's key, or destroy it.
#[tokio::test]
async fn an_alias_that_was_moved_is_refused() {
    let rig = Rig::new().await;
    let (one, two) = (label(1), label(1));
    let grants = [
        rig.root.create_epoch(one).await.unwrap(),
        rig.root.create_epoch(two).await.unwrap(),
    ];
    let alias = format!("alias/callvault-{}-1", one.vault);
    rig.service.move_alias(&alias, &grants[1].handle);
    for why in [
        refusal(rig.root.create_epoch(one).await),
        refusal(rig.root.destroy(one, "").await),
        refusal(rig.root.destroy(one, &grants[1].handle).await),
    ] {
        assert!(why.contains("tags"), "{why}");
    }
    assert_eq!(rig.service.states(), ["Enabled", "Enabled"]);
    rig.service.remove_aliases();
    rig.root.unwrap(one, &grants[0]).await.unwrap();
    assert_eq!(rig.root.create_epoch(one).await.unwrap().handle, grants[0].handle);
}

#[tokio::test]
async fn a_key_whose_material_came_from_elsewhere_is_refused() {
    let rig = Rig::new().await;
    let label = label(1);
    let grant = rig.root.create_epoch(label).await.unwrap();
    rig.service.set_origin(&grant.handle, "EXTERNAL");
    for why in [
        refusal(rig.root.create_epoch(label).await),
        refusal(rig.root.unwrap(label, &grant).await),
    ] {
        assert!(why.contains("elsewhere"), "{why}");
    }
}

/// KMS would call it missing, which would pass for destroyed.
#[tokio::test]
async fn a_key_of_another_region_is_not_taken_for_a_destroyed_one() {
    let rig = Rig::new().await;
    let handle = "arn:aws:kms:eu-west-1:123456789012:key/abc";
    let why = refusal(rig.root.destruction(label(1), handle).await);
    assert!(why.contains("root.aws_kms.region"), "{why}");
}

fn an_anchor(region_seq: u64, heads: u32) -> Anchor {
    let heads = (0..heads).map(|number| AnchoredHead {
        origin: format!("callvault/01965c9e-7a4c-7000-8000-0123456789ab/state/{number}/3"),
        size: 10_000_000,
        root: [7; 32],
    });
    Anchor {
        vault: label(1).vault,
        region_seq,
        heads: heads.collect(),
    }
}

#[tokio::test]
async fn an_anchor_of_one_head_is_one_request() {
    let rig = Rig::new().await;
    rig.root.advance(&an_anchor(1, 1)).await.unwrap();
    rig.service.forget_asked();
    rig.root.advance(&an_anchor(123_456_789, 1)).await.unwrap();
    assert_eq!(rig.service.asked("TagResource"), 1);
    assert_eq!(
        rig.service.asked("DescribeKey") + rig.service.asked("ListResourceTags"),
        0
    );
}

#[tokio::test]
async fn an_anchor_that_was_half_written_leaves_the_one_before() {
    let mut rig = Rig::new().await;
    let before = an_anchor(1, 6);
    rig.root.advance(&before).await.unwrap();
    // The first request sets the parts, the second commits.
    for lost in 0..2 {
        if lost == 1 {
            rig.service.fail("TagResource", Fault::Refused("ThrottledByTest"));
        }
        let next = an_anchor(2, 9);
        let advanced = rig.root.advance(&next).await;
        assert_eq!(advanced.is_err(), lost == 1);
        rig.reopen().await;
        let read = rig.root.anchor().await.unwrap();
        assert_eq!(
            read,
            Some(next.clone()).filter(|_| lost == 0).or_else(|| read.clone())
        );
        assert!(read.is_some());
        rig.root.advance(&before).await.unwrap();
    }
}

#[tokio::test]
async fn an_altered_anchor_tag_is_corrupt_and_a_new_anchor_replaces_it() {
    let mut rig = Rig::new().await;
    rig.root.advance(&an_anchor(1, 4)).await.unwrap();
    rig.service.alter_tag("callvault-anchor", |value| {
        let at = value.len() - 3;
        let other = if value.ends_with('A') { "BBB" } else { "AAA" };
        value.replace_range(at.., other);
    });
    rig.reopen().await;
    let refused = rig.root.anchor().await.unwrap_err();
    assert!(matches!(refused, ProviderError::Corrupt), "{refused}");
    let next = an_anchor(2, 1);
    rig.root.advance(&next).await.unwrap();
    assert_eq!(rig.root.anchor().await.unwrap(), Some(next));
}

#[tokio::test]
async fn an_anchor_whose_key_is_to_be_deleted_is_refused_with_what_to_do() {
    let mut rig = Rig::new().await;
    rig.root.advance(&an_anchor(1, 1)).await.unwrap();
    let arn = rig.root.anchor_key().await.unwrap().unwrap();
    rig.service.set(&arn, "PendingDeletion");
    rig.reopen().await;
    let why = refusal(rig.root.anchor().await);
    assert!(why.contains("cancel-key-deletion") && why.contains(&arn), "{why}");
}

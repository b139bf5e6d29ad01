//! What is found out at the opening, and what is refused.

use super::{
    bucket::{Bucket, Ways},
    *,
};
use crate::domain::limits;

async fn refusal(ways: Ways) -> String {
    let keep = TempDir::new().unwrap();
    let bucket = Bucket::new(ways);
    let settings = settings(&format!("http://{}", bucket.serve().await), &keep);
    open(settings).await.unwrap_err().to_string()
}

fn forbidding(operation: &'static str) -> Ways {
    Ways {
        forbidden: [operation].into(),
        ..Ways::default()
    }
}

#[tokio::test]
async fn a_bucket_that_can_everything_is_known_as_such_and_left_clean() {
    let ways = Ways {
        versions: true,
        lock: true,
        ..Ways::default()
    };
    let Rig { store, bucket, .. } = Rig::new(ways).await;
    let expected = Abilities {
        keeps_versions: true,
        checks_crc32c: Ability::Yes,
        tags: Ability::Unknown,
        object_lock: Ability::Yes,
        conditional_writes: Ability::Yes,
        lists_uploads: Ability::Yes,
    };
    assert_eq!(*store.abilities(), expected);
    assert!(bucket.kept().is_empty(), "{:?}", bucket.kept());
    assert_eq!(bucket.uploads_under_way(), 0);
}

#[tokio::test]
async fn an_old_store_lacks_what_is_a_second_line_of_defence_only() {
    let ways = Ways {
        old: true,
        forbidden: ["ListMultipartUploads"].into(),
        ..Ways::default()
    };
    let Rig { store, bucket, .. } = Rig::new(ways).await;
    let expected = Abilities {
        keeps_versions: false,
        checks_crc32c: Ability::No,
        tags: Ability::Unknown,
        object_lock: Ability::No,
        conditional_writes: Ability::No,
        lists_uploads: Ability::No,
    };
    assert_eq!(*store.abilities(), expected);
    assert!(bucket.kept().is_empty(), "{:?}", bucket.kept());
}

#[tokio::test]
async fn what_a_vault_needs_and_may_not_do_is_refused_with_what_to_do() {
    for (operation, advice) in [
        ("PutObject", "grant s3:PutObject"),
        ("GetObject", "grant s3:GetObject"),
        ("ListObjectsV2", "grant s3:ListBucket"),
        ("CreateMultipartUpload", "grant s3:PutObject"),
        ("AbortMultipartUpload", "s3:AbortMultipartUpload"),
        ("DeleteObject", "grant s3:DeleteObject"),
    ] {
        let refused = refusal(forbidding(operation)).await;
        assert!(
            refused.contains(advice) && refused.contains("AccessDenied"),
            "{operation}: {refused}"
        );
    }
    for operation in ["ListObjectVersions", "DeleteObjectVersion"] {
        let ways = Ways {
            versions: true,
            ..forbidding(operation)
        };
        let refused = refusal(ways).await;
        assert!(
            refused.contains("s3:DeleteObjectVersion"),
            "{operation}: {refused}"
        );
    }
}

#[tokio::test]
async fn nothing_more_than_the_documented_policy_is_asked_for() {
    let ways = Ways {
        versions: true,
        ..Ways::default()
    };
    let asked: std::collections::BTreeSet<_> = Rig::new(ways).await.bucket.asked().into_iter().collect();
    // Names of operations beside the actions of the policy in docs/operations.md.
    let actions = std::collections::BTreeMap::from([
        ("PutObject", "s3:PutObject"),
        ("CreateMultipartUpload", "s3:PutObject"),
        ("UploadPart", "s3:PutObject"),
        ("CompleteMultipartUpload", "s3:PutObject"),
        ("AbortMultipartUpload", "s3:AbortMultipartUpload"),
        ("GetObject", "s3:GetObject"),
        ("HeadObject", "s3:GetObject"),
        ("DeleteObject", "s3:DeleteObject"),
        ("DeleteObjectVersion", "s3:DeleteObjectVersion"),
        ("ListObjectsV2", "s3:ListBucket"),
        ("ListObjectVersions", "s3:ListBucketVersions"),
        ("ListMultipartUploads", "s3:ListBucketMultipartUploads"),
        (
            "GetObjectLockConfiguration",
            "s3:GetBucketObjectLockConfiguration",
        ),
    ]);
    let documented = include_str!("../../../../docs/operations.md");
    for operation in asked {
        let action = actions.get(operation).unwrap_or_else(|| panic!("{operation}"));
        assert!(
            documented.contains(&format!("\"{action}\"")),
            "{action} is not in the policy"
        );
    }
}

/// The lifecycle rule that docs/operations.md gives is one that a store takes, and removes nothing that is current.
#[test]
fn the_documented_lifecycle_rule_removes_only_what_nobody_needs() {
    let documented = include_str!("../../../../docs/operations.md");
    let (_, rule) = documented
        .split_once("### The lifecycle rule\n```json\n")
        .unwrap();
    let rule: serde_json::Value = serde_json::from_str(rule.split_once("```").unwrap().0).unwrap();
    let rules = rule["Rules"].as_array().unwrap();
    let life_days = limits::UPLOAD_MICROS / (24 * 3_600 * 1_000_000);
    let mut aborts = false;
    for rule in rules {
        assert_eq!(rule["Status"], "Enabled");
        for (action, value) in rule.as_object().unwrap() {
            let prefix = rule["Filter"]["Prefix"].as_str().unwrap();
            match action.as_str() {
                "ID" | "Status" | "Filter" => {}
                "AbortIncompleteMultipartUpload" => {
                    assert_eq!(prefix, "", "of all objects");
                    assert!(value["DaysAfterInitiation"].as_i64().unwrap() > life_days);
                    aborts = true;
                }
                // Checkpoints are all that is ever overwritten.
                "NoncurrentVersionExpiration" => assert_eq!(prefix, "log/"),
                "Expiration" => assert_eq!(*value, serde_json::json!({ "ExpiredObjectDeleteMarker": true })),
                other => panic!("{other} may move or remove what is current"),
            }
        }
    }
    assert!(aborts, "what was given up goes in the end");
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_or_answer_is_told_from_one_that_refuses() {
    let gone = Ways {
        gone: true,
        ..Ways::default()
    };
    let refused = refusal(gone).await;
    assert!(
        refused.contains("create it") && refused.contains("NoSuchBucket"),
        "{refused}"
    );
    let keep = TempDir::new().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = open(settings(&format!("http://{nobody}"), &keep))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("endpoint"), "{refused}");
}

#[tokio::test]
async fn wrong_credentials_are_told_and_their_secret_is_not() {
    let keep = TempDir::new().unwrap();
    let bucket = Bucket::new(Ways::default());
    let settings = settings(&format!("http://{}", bucket.serve().await), &keep);
    credentials(&keep, bucket::ACCESS_KEY, "a-wrong-secret");
    let refused = open(settings.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("credentials"), "{refused}");
    for shown in [format!("{refused:?}"), refused.to_string()] {
        assert!(!shown.contains("a-wrong-secret"), "{shown}");
    }
    std::fs::remove_file(keep.path().join("credentials")).unwrap();
    let refused = open(settings).await.unwrap_err().to_string();
    assert!(refused.contains("that there are credentials"), "{refused}");
}

#[tokio::test]
async fn an_authority_file_without_certificates_is_refused() {
    let keep = TempDir::new().unwrap();
    let path = keep.path().join("ca.pem");
    for text in [
        "",
        "nothing",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&path, text).unwrap();
        let mut settings = settings("https://localhost:1", &keep);
        settings.ca_file = Some(path.clone());
        let refused = open(settings).await.unwrap_err().to_string();
        assert!(
            refused.contains("store.s3.ca_file") && refused.contains("ca.pem"),
            "{refused}"
        );
    }
}

async fn tagged(ways: Ways) -> (Rig, Ability) {
    let (bucket, keep) = (Bucket::new(ways), TempDir::new().unwrap());
    let mut settings = settings(&format!("http://{}", bucket.serve().await), &keep);
    settings.tags = BTreeMap::from([("cost centre".to_owned(), "calls/mx".to_owned())]);
    let store = open(settings).await.unwrap();
    let tags = store.abilities().tags;
    (Rig { store, bucket, keep }, tags)
}

#[tokio::test]
async fn objects_carry_the_configured_tags_where_the_store_has_tags() {
    let (rig, tags) = tagged(Ways::default()).await;
    assert_eq!(tags, Ability::Yes);
    rig.store.put(&key("x"), body(10)).await.unwrap();
    let upload = rig.store.begin(&key("y")).await.unwrap();
    let part = rig
        .store
        .put_part(&key("y"), &upload, 1, 0, body(10))
        .await
        .unwrap();
    rig.store.complete(&key("y"), &upload, &[part]).await.unwrap();
    for name in ["x", "y"] {
        assert_eq!(
            rig.bucket.tags(name),
            [("cost centre".to_owned(), "calls/mx".to_owned())]
        );
    }
    let old = Ways {
        old: true,
        ..Ways::default()
    };
    let (rig, tags) = tagged(old).await;
    assert_eq!(tags, Ability::No);
    assert_eq!(rig.store.tagging, None, "said once, and never sent again");
}

#[tokio::test]
async fn what_a_probe_left_behind_is_removed_later() {
    let (bucket, keep) = (Bucket::new(Ways::default()), TempDir::new().unwrap());
    bucket.plant("probe/0123/object", b"old", std::time::UNIX_EPOCH);
    bucket.plant(
        "probe/4567/object",
        b"perhaps another's, now",
        super::bucket::now(),
    );
    bucket.plant("blobs/x", b"not a probe's", std::time::UNIX_EPOCH);
    open(settings(&format!("http://{}", bucket.serve().await), &keep))
        .await
        .unwrap();
    let left: Vec<_> = bucket.kept().into_keys().collect();
    assert_eq!(left, ["blobs/x", "probe/4567/object"]);
}

#[tokio::test]
async fn what_object_lock_keeps_is_no_reason_to_refuse() {
    let ways = Ways {
        versions: true,
        lock: true,
        forbidden: ["DeleteObjectVersion"].into(),
        ..Ways::default()
    };
    let rig = Rig::new(ways).await;
    assert_eq!(rig.store.abilities().object_lock, Ability::Yes);
}

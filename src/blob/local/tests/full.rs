//! A disk without room.
//!
//! Room is a matter of the whole process, so each test runs itself again: once in a mount namespace of its own with 1 MiB of
//! tmpfs (where the machine allows it), once under a limit on the size of files.

use std::{env, path::PathBuf, process::Command};

use super::*;

const ROOT: &str = "CALLVAULT_TEST_FULL_ROOT";

/// How `the_child` is run by a shell whose `$1` is the test binary and `$2` the directory.
const CHILD: &str = r#"exec "$1" --exact blob::local::tests::full::the_child --ignored --nocapture"#;

fn run_child(shell: &[&str], prepare: &str) {
    let root = TempDir::new().unwrap();
    let output = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", &format!("{prepare} && {CHILD}"), "sh"])
        .args([env::current_exe().unwrap().as_os_str(), root.path().as_os_str()])
        .env(ROOT, root.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn a_full_disk_is_said_to_be_full_and_shows_nothing() {
    let allowed = Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount -t tmpfs none /tmp"])
        .output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: this machine lets nobody mount a tmpfs of their own");
    }
    run_child(
        &["unshare", "-rm", "sh"],
        r#"mount -t tmpfs -o size=1m none "$2""#,
    );
}

#[test]
fn a_limit_on_file_sizes_is_no_room_either() {
    // Ignored signals stay ignored: the write fails instead of killing the process.
    run_child(&["sh"], "trap '' XFSZ && ulimit -f 512");
}

#[tokio::test]
#[ignore = "run by the tests above"]
async fn the_child() {
    let Some(root) = env::var_os(ROOT).map(PathBuf::from) else {
        return;
    };
    let store = open(&root).await;
    store.put(&key("small"), body(1_000)).await.unwrap();
    assert_full(store.put(&key("big/one"), body(2 << 20)).await);
    assert_full(store.overwrite(&key("small"), body(2 << 20)).await);
    let upload = store.begin(&key("big/two")).await.unwrap();
    let first = store
        .put_part(&key("big/two"), &upload, 1, 0, body(100_000))
        .await
        .unwrap();
    assert_full(
        store
            .put_part(&key("big/two"), &upload, 2, 100_000, body(2 << 20))
            .await,
    );
    let listed = store.list("", false, None, 10).await.unwrap().objects;
    assert_eq!(
        listed
            .iter()
            .map(|o| (o.key.as_str(), o.length))
            .collect::<Vec<_>>(),
        [("small", 1_000)]
    );
    assert_eq!(
        staged(&root),
        [format!("{}.data", upload.0), format!("{}.upload", upload.0)]
    );
    // What failed has left no part behind; what was there before still counts.
    store.complete(&key("big/two"), &upload, &[first]).await.unwrap();
    assert_eq!(
        store.get(&key("big/two"), ByteRange::Full).await.unwrap().bytes,
        body(100_000)
    );
    assert_eq!(
        store.get(&key("small"), ByteRange::Full).await.unwrap().bytes,
        body(1_000)
    );
}

fn assert_full<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Full)), "{result:?}");
}

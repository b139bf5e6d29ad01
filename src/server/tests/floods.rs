//! Peers that keep the server busy with nothing: their connection ends, the server's memory does not grow, and others are served.

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{client::PUT, raw::*, *};

/// What the process holds in memory, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

/// Floods the server while an honest client calls it; how many repetitions the flood got.
async fn flood(before: Vec<u8>, repeated: impl FnMut(u32) -> Vec<u8>, times: u32) -> Option<u32> {
    let running = Running::start().await;
    let mut honest = running.client(Role::Supervisor).await;
    honest.call(HEALTH, &[]).await.unwrap();
    let memory = resident();
    let (stop, mut stopped) = oneshot::channel::<()>();
    let calling = tokio::spawn(async move {
        let mut served = 0;
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            let reply = honest.call(HEALTH, &[]).await.unwrap();
            assert_eq!(reply.code, Code::Ok);
            served += 1;
        }
        served
    });
    let mut raw = Raw::greet(&running, Role::Reader).await;
    raw.send(&before).await.unwrap();
    let taken = raw.flood(repeated, times).await;
    drop(stop);
    assert!(calling.await.unwrap() > 0, "others are served");
    let grown = resident().saturating_sub(memory);
    // Other tests run beside this one: a wide margin, and still far below what the floods would fill.
    assert!(grown < 256 << 20, "memory grew by {grown} bytes");
    taken
}

/// A stream that waits for more of its request.
fn opened() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &headers(PUT))
}

const TIMES: u32 = 3_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_ends_the_connection() {
    let ping = frame(PING, 0, 0, &[7; 8]);
    assert!(flood(vec![], |_| ping.clone(), TIMES).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_settings_ends_the_connection() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    assert!(flood(vec![], |_| settings.clone(), TIMES).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_window_updates_ends_the_connection() {
    let update = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    assert!(flood(vec![], |_| update.clone(), TIMES).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_empty_data_ends_the_connection() {
    let empty = frame(DATA, 0, 1, &[]);
    assert!(flood(opened(), |_| empty.clone(), TIMES).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_single_bytes_ends_the_connection() {
    let byte = frame(DATA, 0, 1, &[0]);
    assert!(flood(opened(), |_| byte.clone(), TIMES).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_priorities_ends_the_connection() {
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
    assert!(flood(opened(), |_| priority.clone(), TIMES).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_frames_ends_the_connection() {
    let unknown = frame(0x77, 0, 0, &[]);
    assert!(flood(vec![], |_| unknown.clone(), TIMES).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_empty_continuations_ends_the_connection() {
    let begun = frame(HEADERS, 0, 1, &headers(PUT));
    let empty = frame(CONTINUATION, 0, 1, &[]);
    assert!(flood(begun, |_| empty.clone(), TIMES).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_end_the_connection() {
    let begun = frame(HEADERS, 0, 1, &headers(PUT));
    // `x: <1,000 bytes>`, never indexed.
    let mut more = vec![0x10, 1, b'x', 0x7f, 0xe9, 0x06];
    more.resize(more.len() + 1_000, b'y');
    let more = frame(CONTINUATION, 0, 1, &more);
    let taken = flood(begun, |_| more.clone(), 100_000).await.unwrap();
    assert!(taken < 10_000, "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_nothing_end_the_connection() {
    let taken = flood(vec![], |n| frame(HEADERS, END_HEADERS, 2 * n + 1, &[]), TIMES).await;
    assert!(taken.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_reset_at_once_end_the_connection() {
    let request = headers(READ);
    let pair = |n| {
        let stream = 2 * n + 1;
        let opened = frame(HEADERS, END_HEADERS, stream, &request);
        [opened, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let taken = flood(vec![], pair, TIMES).await.unwrap();
    assert!(taken < 20_000, "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_reset_a_moment_after_they_began_end_the_connection() {
    let running = Running::start().await;
    let mut raw = Raw::greet(&running, Role::Reader).await;
    let request = headers(READ);
    let mut pairs = 0;
    let began = std::time::Instant::now();
    loop {
        let stream = 2 * pairs + 1;
        let opened = raw.send(&frame(HEADERS, END_HEADERS, stream, &request)).await;
        // The server has taken it on by now, so the library's own bound does not count it.
        tokio::task::yield_now().await;
        let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        if opened.is_err() || raw.send(&reset).await.is_err() {
            break;
        }
        pairs += 1;
        assert!(began.elapsed() < Duration::from_secs(60), "{pairs} pairs");
    }
    let mut honest = running.client(Role::Supervisor).await;
    assert_eq!(honest.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_whose_answers_nobody_reads_holds_no_memory() {
    let running = Running::start().await;
    let memory = resident();
    let mut raw = Raw::greet(&running, Role::Reader).await;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1_000);
    let flooding = async {
        for _ in 0..10_000 {
            if raw.send(&pings).await.is_err() {
                return;
            }
        }
        panic!("all of it was taken");
    };
    // Either the connection ends, or the server no longer reads what it cannot answer.
    let _ = timeout(Duration::from_secs(3), flooding).await;
    let mut honest = running.client(Role::Supervisor).await;
    assert_eq!(honest.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    assert!(resident().saturating_sub(memory) < 256 << 20);
}

//! Connections that last: they end at their age without breaking a call, and a peer that is no longer there is noticed.

use super::{
    client::Call,
    raw::{END_HEADERS, HEADERS, Raw, frame, headers},
    *,
};

/// The end that a peer is told of before it comes: GOAWAY (type 7) on the connection, NO_ERROR.
fn farewell(answer: &[u8]) -> bool {
    answer
        .windows(17)
        .any(|part| part[..9] == [0, 0, 8, 7, 0, 0, 0, 0, 0] && part[13..] == [0; 4])
}

async fn aged() -> Running {
    let limits = Limits {
        connection_age_seconds: 1,
        drain_seconds: 1,
        ..Limits::default()
    };
    Running::start_with(limits, DevPki::identities().unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_a_certain_age_is_asked_to_end() {
    let running = aged().await;
    let mut raw = Raw::greet(&running, Role::Reader).await;
    let mut answer = Vec::new();
    let told = async {
        while !farewell(&answer) {
            assert!(raw.0.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
        }
    };
    timeout(Duration::from_secs(10), told).await.expect("it is told");
    assert!(raw.ends().await, "and cut, as it does not close");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_outlives_the_age_of_its_connection_and_the_next_one_needs_another() {
    let running = aged().await;
    let mut client = running.client(Role::Reader).await;
    let mut call: Call = client.open(READ, &read("finish")).await.unwrap();
    assert!(call.message().await.is_some());
    let refused = async { while client.call(HEALTH, &[]).await.is_ok() {} };
    timeout(Duration::from_secs(10), refused)
        .await
        .expect("no new calls on it");
    let mut next = running.client(Role::Reader).await;
    assert_eq!(next.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    running.drain.begin();
    let reply = call.finish().await.unwrap();
    assert_eq!((reply.code, reply.messages.len()), (Code::Ok, 1));
}

/// Its network is gone: nothing says so but that no ping is answered. A call that runs would keep it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_answers_no_ping_is_cut_and_its_call_ends() {
    let limits = Limits {
        keepalive_seconds: 1,
        calls_per_principal: 1,
        ..Limits::default()
    };
    let running = Running::start_with(limits, DevPki::identities().unwrap()).await;
    let mut vanished = Raw::greet(&running, Role::Reader).await;
    let request = headers(READ);
    vanished
        .send(&frame(HEADERS, END_HEADERS, 1, &request))
        .await
        .unwrap();
    // Whoever reads what comes, and acknowledges its pings, stays.
    let mut lively = running.client(Role::Supervisor).await;
    let mut call = lively.open(READ, &read("for-ever")).await.unwrap();
    assert!(call.message().await.is_some());
    let mut other = running.client(Role::Reader).await;
    let busy = async { while other.call(HEALTH, &[]).await.unwrap().code == Code::Ok {} };
    timeout(Duration::from_secs(5), busy)
        .await
        .expect("the place is taken");
    assert!(vanished.ends().await);
    let free = async { while other.call(HEALTH, &[]).await.unwrap().code != Code::Ok {} };
    timeout(Duration::from_secs(5), free)
        .await
        .expect("and given back");
    let more = timeout(Duration::from_secs(1), call.message()).await;
    assert!(more.is_err(), "the other goes on");
}

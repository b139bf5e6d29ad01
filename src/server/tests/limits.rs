//! Limits, each with the answer that names it.

use super::{
    client::{GET, PUT},
    raw::{HEADERS, Raw, frame, headers},
    *,
};

async fn limited(limits: Limits) -> Running {
    let limits = Limits {
        drain_seconds: 1,
        ..limits
    };
    Running::start_with(limits, DevPki::identities().unwrap()).await
}

#[tokio::test]
async fn one_principals_connections_leave_places_to_others() {
    let running = limited(Limits {
        connections_per_principal: 2,
        ..Limits::default()
    })
    .await;
    let mut first = running.client(Role::Reader).await;
    let mut second = running.client(Role::Reader).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    }
    let mut third = Raw::shake_hands(&running, Role::Reader).await;
    let words = third.last_words().await;
    assert!(
        words.contains("limit=limits.connections_per_principal"),
        "{words}"
    );
    let mut other = running.client(Role::Uploader).await;
    assert_eq!(other.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    drop(first);
    let served = async {
        loop {
            let config = client::config(&running.pki, Some(Role::Reader));
            if let Ok(mut client) = Client::connect(running.api, config).await
                && client.call(HEALTH, &[]).await.is_ok()
            {
                return;
            }
        }
    };
    timeout(Duration::from_secs(5), served)
        .await
        .expect("a place came free");
}

#[tokio::test]
async fn who_finds_no_place_is_told_the_limit() {
    let running = limited(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let mut first = running.client(Role::Reader).await;
    assert_eq!(first.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    let words = Raw::shake_hands(&running, Role::Uploader)
        .await
        .last_words()
        .await;
    assert!(words.contains("limit=limits.connections"), "{words}");
}

#[tokio::test]
async fn a_principal_that_calls_too_often_is_told_when_to_come_back() {
    let running = limited(Limits {
        principal_calls_per_second: 1,
        principal_calls_burst: 2,
        ..Limits::default()
    })
    .await;
    let mut client = running.client(Role::Reader).await;
    for _ in 0..2 {
        assert_eq!(client.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    }
    let refused = client.call(HEALTH, &[]).await.unwrap();
    assert_eq!(
        (refused.code, refused.reason().as_str()),
        (Code::ResourceExhausted, "CALL_RATE")
    );
    let wait = refused.retry_after().unwrap();
    assert!(!wait.is_zero() && wait <= Duration::from_secs(1), "{wait:?}");
    let mut other = running.client(Role::Uploader).await;
    assert_eq!(other.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    tokio::time::sleep(wait).await;
    assert_eq!(client.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
}

#[tokio::test]
async fn calls_at_a_time_are_bounded_and_places_come_back() {
    let running = limited(Limits {
        calls_per_principal: 1,
        ..Limits::default()
    })
    .await;
    let mut client = running.client(Role::Reader).await;
    let mut stream = client.open(READ, &read("for-ever")).await.unwrap();
    assert!(stream.message().await.is_some());
    let refused = client.call(HEALTH, &[]).await.unwrap();
    assert_eq!(
        (refused.code, refused.reason().as_str()),
        (Code::ResourceExhausted, "PRINCIPAL_CALLS")
    );
    assert!(refused.retry_after().is_some());
    let mut other = running.client(Role::Uploader).await;
    assert_eq!(other.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    drop(stream);
    let again = async { while client.call(HEALTH, &[]).await.unwrap().code != Code::Ok {} };
    timeout(Duration::from_secs(5), again)
        .await
        .expect("the place came back");
}

#[tokio::test]
async fn a_call_that_is_stuck_ends_in_time() {
    let running = limited(Limits {
        call_seconds: 1,
        calls_per_principal: 1,
        ..Limits::default()
    })
    .await;
    let mut client = running.client(Role::Reader).await;
    for (headers, reason) in [
        (&[][..], "CALL_TOO_LONG"),
        (&[("grpc-timeout", "50m")][..], "DEADLINE"),
        (&[("grpc-timeout", "1H")][..], "CALL_TOO_LONG"),
    ] {
        let reply = client.call_with(GET, headers).await.unwrap();
        assert_eq!(
            (reply.code, reply.reason().as_str()),
            (Code::DeadlineExceeded, reason)
        );
    }
    assert_eq!(client.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
}

#[tokio::test]
async fn a_stream_ends_when_its_caller_said() {
    let running = Running::start().await;
    let mut client = running.client(Role::Reader).await;
    let mut call = client
        .open_with(READ, &read("for-ever"), &[("grpc-timeout", "200m")])
        .await
        .unwrap();
    assert!(call.message().await.is_some());
    let reply = call.finish().await.unwrap();
    assert_eq!(
        (reply.code, reply.reason().as_str()),
        (Code::DeadlineExceeded, "DEADLINE")
    );
}

#[tokio::test]
async fn a_panic_ends_its_call_and_no_other() {
    let running = Running::start().await;
    let mut client = running.client(Role::Reader).await;
    let mut beside = client.open(READ, &read("finish")).await.unwrap();
    assert!(beside.message().await.is_some());
    for mode in ["panic", "panic-later"] {
        let reply = client.call(READ, &read(mode)).await.unwrap();
        assert_eq!(
            (reply.code, reply.reason().as_str()),
            (Code::Internal, "PANIC"),
            "{mode}"
        );
        assert!(!reply.message.contains("number"));
    }
    assert_eq!(client.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
    running.drain.begin();
    assert_eq!(beside.finish().await.unwrap().code, Code::Ok);
}

#[tokio::test]
async fn metadata_that_is_too_long_is_refused_by_name_and_then_by_number() {
    let running = Running::start().await;
    let mut client = running.client(Role::Reader).await;
    let some = "y".repeat(8 << 10);
    assert_eq!(
        client.call_with(HEALTH, &[("x", &some)]).await.unwrap().code,
        Code::Ok
    );
    let much = "y".repeat(20 << 10);
    let refused = client.call_with(HEALTH, &[("x", &much)]).await.unwrap();
    assert_eq!(
        (refused.code, refused.reason().as_str()),
        (Code::InvalidArgument, "METADATA_TOO_LONG")
    );
    let too_much = "y".repeat(100 << 10);
    let refused = client.call_with(HEALTH, &[("x", &too_much)]).await.unwrap_err();
    assert!(refused.to_string().contains("431"), "{refused}");
    let many: Vec<_> = (0..3_000).map(|n| (format!("x-{n}"), "y".to_owned())).collect();
    let many: Vec<_> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert!(client.call_with(HEALTH, &many).await.is_err());
    let mut next = running.client(Role::Reader).await;
    assert_eq!(next.call(HEALTH, &[]).await.unwrap().code, Code::Ok);
}

#[tokio::test]
async fn streams_of_one_connection_are_bounded() {
    let running = limited(Limits {
        streams_per_connection: 4,
        ..Limits::default()
    })
    .await;
    let mut raw = Raw::greet(&running, Role::Reader).await;
    for n in 0..5 {
        raw.send(&frame(HEADERS, 4, 2 * n + 1, &headers(PUT)))
            .await
            .unwrap();
    }
    // RST_STREAM on the fifth: REFUSED_STREAM.
    let refusal = frame(3, 0, 9, &[0, 0, 0, 7]);
    let mut answer = Vec::new();
    let refused = async {
        while !answer.windows(refusal.len()).any(|part| part == refusal) {
            assert!(raw.0.read_buf(&mut answer).await.unwrap() > 0);
        }
    };
    timeout(Duration::from_secs(3), refused).await.unwrap();
}

#[tokio::test]
async fn a_long_request_that_never_ends_leaves_room_for_others() {
    // Room for four messages of the largest size; a principal has two.
    let running = limited(Limits {
        receive_budget_bytes: 16 << 20,
        ..Limits::default()
    })
    .await;
    let mut hoarder = running.client(Role::Reader).await;
    let length: u32 = 4 << 20;
    let begun = [&[0][..], &length.to_be_bytes(), &[7; 100]].concat();
    let mut messages = Vec::new();
    for _ in 0..3 {
        messages.push(hoarder.begin(PUT, &begun).await.unwrap());
    }
    let mut honest = running.client(Role::Uploader).await;
    let reply = honest.call(PUT, &vec![0; 3 << 20]).await.unwrap();
    assert_ne!(reply.reason(), "RECEIVE_BUDGET");
    // The one beyond its share is told so when it has waited long enough.
    let refused = messages.pop().unwrap().finish().await.unwrap();
    assert_eq!(
        (refused.code, refused.reason().as_str()),
        (Code::ResourceExhausted, "RECEIVE_BUDGET")
    );
    assert!(refused.retry_after().is_some());
}

#[tokio::test]
async fn a_vault_that_takes_nothing_in_is_not_ready_and_says_why() {
    let running = Running::start().await;
    assert!(
        client::get(running.ops, "/readyz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    running.health.suspend(Some("INDEX_FULL")).await;
    let answer = client::get(running.ops, "/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.ends_with("INDEX_FULL"),
        "{answer}"
    );
    let mut probe = Client::plain(running.ops).await.unwrap();
    assert_eq!(serving_status(&probe.call(HEALTH, &[]).await.unwrap()), 2);
    running.health.suspend(None).await;
    assert!(
        client::get(running.ops, "/readyz")
            .await
            .starts_with("HTTP/1.1 200")
    );
}

//! Peers that take their time, at every step on the way to a call: they keep nobody waiting, and do not stay.

use super::{raw::Raw, *};

fn hasty() -> Limits {
    Limits {
        handshakes: 8,
        handshake_seconds: 1,
        connection_idle_seconds: 1,
        drain_seconds: 1,
        ..Limits::default()
    }
}

/// Another caller comes through. On a busy machine it may itself be too slow for limits this tight, so it may try again.
async fn served(running: &Running) {
    let served = async {
        loop {
            let config = client::config(&running.pki, Some(Role::Uploader));
            if let Ok(mut client) = Client::connect(running.api, config).await
                && let Ok(reply) = client.call(HEALTH, &[]).await
            {
                assert_eq!(reply.code, Code::Ok);
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), served).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_push_out_each_other_and_nobody_else() {
    let limits = Limits {
        handshake_seconds: 60,
        connection_idle_seconds: 60,
        ..hasty()
    };
    let running = Running::start_with(limits, DevPki::identities().unwrap()).await;
    let mut silent = Vec::new();
    for n in 0..100 {
        let mut socket = TcpStream::connect(running.api).await.unwrap();
        if n % 2 == 0 {
            // The beginning of a ClientHello.
            socket.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        silent.push(socket);
    }
    served(&running).await;
    let mut oldest = silent.swap_remove(0);
    let closed = timeout(Duration::from_secs(20), oldest.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    served(&running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_says_http2_is_given_up() {
    let running = Running::start_with(hasty(), DevPki::identities().unwrap()).await;
    let mut silent = Raw::shake_hands(&running, Role::Reader).await;
    let mut half = Raw::shake_hands(&running, Role::Reader).await;
    half.send(b"PRI * HTTP/2.0\r\n").await.unwrap();
    served(&running).await;
    assert!(silent.ends().await && half.ends().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_calls_is_asked_to_end() {
    let running = Running::start_with(hasty(), DevPki::identities().unwrap()).await;
    let mut idle = Raw::greet(&running, Role::Reader).await;
    served(&running).await;
    // Settings and their ack, then a GOAWAY: type 7, NO_ERROR, whatever the last stream.
    let mut answer = Vec::new();
    let told = async {
        while !answer.windows(5).any(|part| part == [8, 7, 0, 0, 0]) {
            assert!(idle.0.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
        }
    };
    timeout(Duration::from_secs(20), told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_a_call_is_never_idle() {
    let running = Running::start_with(hasty(), DevPki::identities().unwrap()).await;
    let mut client = running.client(Role::Reader).await;
    let mut stream = client.open(READ, &read("finish")).await.unwrap();
    assert!(stream.message().await.is_some());
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    running.drain.begin();
    assert_eq!(stream.finish().await.unwrap().code, Code::Ok);
}

//! A store that is gone, slow, forgetful or wrong for a while: what was acknowledged stays, and nobody needs a restart.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use callvault::{
    domain::{
        ids::{RecordId, TenantId},
        limits,
    },
    index::{Change, Index, Key, Row},
    testing::{
        faulty::{Failure, Faults, Operation, Rule},
        world::{Engine, World},
    },
    vault::{Error, Kind, PutSpec},
};

use super::{
    faults::{
        TEL, TWO_EXTENTS, a_call, eventually, objects, rebuilt, requested, slots_are_used_once, uploads,
        world,
    },
    kit::*,
};

const THREE_EXTENTS: usize = 17_600_000;

fn log_is_down(world: &World) {
    let log = world.faults.on_all().below("log/");
    log.always().fail_before(Failure::Unavailable);
}

/// A put whose caller does not wait for long.
async fn hasty(world: &World, spec: PutSpec, body: &Bytes) -> Option<Result<(), Error>> {
    let call = put(world.vault(), spec, body);
    let outcome = tokio::time::timeout(Duration::from_millis(300), call).await;
    outcome.ok().map(|put| put.map(drop))
}

/// A page that only the index knows would take with it all that was sealed under it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sealed_under_a_page_that_is_not_in_the_bucket() {
    for engine in [Engine::Memory, Engine::Sled] {
        let (_dir, mut world, t) = world(engine).await;
        log_is_down(&world);
        let body = content(1, 1_000);
        let mut acknowledged = BTreeSet::new();
        for n in 0..4 {
            let request = format!("r{n}");
            if let Some(Ok(())) = hasty(&world, requested(&t, &request), &body).await {
                acknowledged.insert(request);
            }
        }
        let visible = everything(world.vault(), &t).await.len();
        world.crash().await;
        world.faults.clear();
        world.lose_index().await.unwrap();
        world.open().await.unwrap();
        let records = everything(world.vault(), &t).await;
        assert!(records.len() >= visible.max(acknowledged.len()), "{records:?}");
        for record in records {
            assert_eq!(read(world.vault(), &t, record.id).await.unwrap(), body);
        }
        // Nor is anything when the log is well again and the page is still the one that was begun.
        for request in ["r0", "r1", "r2", "r3"] {
            put(world.vault(), requested(&t, request), &body).await.unwrap();
        }
        slots_are_used_once(&world).await;
        no_findings(world.vault()).await;
        rebuilt(&mut world).await;
        assert_eq!(everything(world.vault(), &t).await.len(), 4);
    }
}

/// Every call that an upload of three extents, or a small one, makes of the store.
fn writes() -> Vec<(Operation, u64, usize)> {
    vec![
        (Operation::Put, 1, 1_000),
        (Operation::Begin, 1, THREE_EXTENTS),
        (Operation::PutPart, 1, THREE_EXTENTS),
        (Operation::PutPart, 2, THREE_EXTENTS),
        (Operation::PutPart, 3, THREE_EXTENTS),
        (Operation::Complete, 1, THREE_EXTENTS),
    ]
}

fn at(faults: &Faults, operation: Operation, nth: u64) -> Rule {
    faults.on(operation).below("blobs/").nth(nth)
}

async fn until_acknowledged(world: &World, spec: &PutSpec, body: &Bytes) -> usize {
    for tries in 1.. {
        match put(world.vault(), spec.clone(), body).await {
            Ok(_) => return tries,
            Err(error) => assert_eq!(error.kind, Kind::Unavailable, "{error:?}"),
        }
        assert!(tries < 5);
    }
    0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_lost_anywhere_in_an_upload_or_a_call_made_twice_makes_one_record() {
    let (_dir, mut world, t) = world(Engine::Memory).await;
    let mut made = 0;
    for (operation, nth, length) in writes() {
        for twice in [false, true] {
            let body = content(made, length);
            let spec = requested(&t, &format!("r{made}"));
            let rule = at(&world.faults, operation, nth);
            let lost = if twice {
                rule.twice()
            } else {
                rule.fail_after(Failure::Unavailable)
            };
            let tries = until_acknowledged(&world, &spec, &body).await;
            assert_eq!(lost.fired(), 1, "{operation} {nth}");
            made += 1;
            if twice || matches!(operation, Operation::Put | Operation::Complete) {
                assert_eq!(tries, 1, "{operation} {nth}: the object tells");
            }
            until_acknowledged(&world, &spec, &body).await;
            let records = everything(world.vault(), &t).await;
            assert_eq!(records.len() as u64, made, "{operation} {nth}");
            world.faults.clear();
        }
    }
    slots_are_used_once(&world).await;
    no_findings(world.vault()).await;
    let before = everything(world.vault(), &t).await;
    rebuilt(&mut world).await;
    assert_eq!(everything(world.vault(), &t).await, before);
}

/// The completion took effect, its ack was lost, and nobody could look: the retry stores again, and one of them counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_that_nobody_could_look_for_is_one_record_after_its_retry() {
    let (_dir, mut world, t) = world(Engine::Memory).await;
    let (spec, body) = (requested(&t, "r"), content(1, TWO_EXTENTS));
    at(&world.faults, Operation::Complete, 1).fail_after(Failure::Unavailable);
    at(&world.faults, Operation::Head, 1)
        .always()
        .fail_before(Failure::Unavailable);
    let error = put(world.vault(), spec.clone(), &body).await.unwrap_err();
    assert_eq!(told(&error), (Kind::Unavailable, "STORE_UNAVAILABLE"));
    world.faults.clear();
    assert_eq!(everything(world.vault(), &t).await, []);
    world.clock.advance(1_000_000);
    let record = put(world.vault(), spec.clone(), &body).await.unwrap();
    assert_eq!(
        objects(&world, "blobs/").await.len(),
        2,
        "one of them is an orphan"
    );
    for _ in 0..2 {
        assert_eq!(put(world.vault(), spec.clone(), &body).await.unwrap(), record);
        assert_eq!(everything(world.vault(), &t).await, std::slice::from_ref(&record));
        rebuilt(&mut world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_expire_anywhere_are_told_and_renewed_without_a_restart() {
    let (_dir, mut world, t) = world(Engine::Memory).await;
    let mut records = Vec::new();
    for (n, (operation, nth, length)) in writes().into_iter().enumerate() {
        let (spec, body) = (requested(&t, &format!("r{n}")), content(n as u64, length));
        at(&world.faults, operation, nth).fail_before(Failure::Denied);
        let error = put(world.vault(), spec.clone(), &body).await.unwrap_err();
        assert_eq!(
            told(&error),
            (Kind::Unavailable, "STORE_DENIED"),
            "{operation} {nth}"
        );
        assert_eq!(everything(world.vault(), &t).await.len(), n, "{operation} {nth}");
        eventually("the upload is aborted", async || uploads(&world).await == 0).await;
        records.push(put(world.vault(), spec, &body).await.unwrap());
        world.faults.clear();
    }
    let record = records.remove(0);
    let reading = world.faults.on(Operation::Get).below("blobs/");
    reading.fail_before(Failure::Denied);
    let error = read(world.vault(), &t, record.id).await.unwrap_err();
    assert_eq!(told(&error), (Kind::Unavailable, "STORE_DENIED"));
    assert_eq!(
        read(world.vault(), &t, record.id).await.unwrap(),
        content(0, 1_000)
    );
    // Tiles, then the checkpoint: the change waits, and is there when it is acknowledged.
    for operation in [Operation::Put, Operation::Overwrite] {
        let denied = world.faults.on(operation).below("log/").always();
        let denied = denied.fail_before(Failure::Denied);
        let new = descriptor(&format!("after {operation}"), TEL);
        let change = update(&t, record.id, &["conversation_id"], new);
        let vault = Arc::clone(world.vault());
        let waiting = tokio::spawn(async move { vault.update(change).await });
        eventually("the log is tried more than once", async || denied.fired() > 1).await;
        assert!(!waiting.is_finished());
        world.faults.clear();
        waiting.await.unwrap().unwrap();
    }
    let before = everything(world.vault(), &t).await;
    no_findings(world.vault()).await;
    assert_eq!(rebuilt(&mut world).await.adopted, 0);
    assert_eq!(everything(world.vault(), &t).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_gone_for_a_while_comes_back_to_all_that_was_queued() {
    for failure in [Failure::Unavailable, Failure::Denied] {
        let (_dir, mut world, t) = world(Engine::Sled).await;
        let kept = put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
        world.vault().settle().await.unwrap();
        let full = world.vault().budget().available();
        // These are acknowledged: their blobs are there, their leaves wait.
        log_is_down(&world);
        for n in 0..20 {
            put(world.vault(), a_call(&t), &content(n, 100)).await.unwrap();
        }
        world.faults.clear();
        world.faults.take_down_with(failure);
        let vault = Arc::clone(world.vault());
        let tenant = t.clone();
        let waiting = tokio::spawn(async move {
            let new = class("made-meanwhile");
            vault.create_retention_class(ACTOR, &tenant, new, None).await
        });
        refuses_everything(&world, &t, kept.id, failure).await;
        assert!(!waiting.is_finished(), "a change waits");
        assert_eq!(
            world.vault().budget().available(),
            full,
            "what was refused holds nothing"
        );
        assert!(world.vault().collect_orphans().await.is_err());
        assert_eq!(
            everything(world.vault(), &t).await.len(),
            21,
            "the index is there"
        );
        world.faults.bring_up();
        waiting.await.unwrap().unwrap();
        put(
            world.vault(),
            requested(&t, "afterwards"),
            &content(2, TWO_EXTENTS),
        )
        .await
        .unwrap();
        assert_eq!(read(world.vault(), &t, kept.id).await.unwrap(), content(1, 9));
        world.vault().collect_orphans().await.unwrap();
        no_findings(world.vault()).await;
        let before = everything(world.vault(), &t).await;
        assert_eq!(
            rebuilt(&mut world).await.adopted,
            0,
            "every leaf was shipped, in order"
        );
        assert_eq!(everything(world.vault(), &t).await, before);
        let classes = world.vault().retention_classes(&t, None, 9).await.unwrap().items;
        assert_eq!(classes.len(), 2);
    }
}

/// Uploads and reads, side by side and again and again.
async fn refuses_everything(world: &World, t: &TenantId, id: RecordId, failure: Failure) {
    let expected = match failure {
        Failure::Denied => (Kind::Unavailable, "STORE_DENIED"),
        _ => (Kind::Unavailable, "STORE_UNAVAILABLE"),
    };
    for round in 0..10 {
        let small = put(world.vault(), requested(t, "afterwards"), &content(2, 100)).await;
        assert_eq!(told(&small.unwrap_err()), expected, "{round}");
        let large = put(world.vault(), a_call(t), &content(3, TWO_EXTENTS)).await;
        assert_eq!(told(&large.unwrap_err()), expected, "{round}");
        let error = read(world.vault(), t, id).await.unwrap_err();
        assert_eq!(told(&error), expected, "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_is_waited_for_no_longer_than_promised_and_holds_up_nobody() {
    let (_dir, mut world, t) = world(Engine::Memory).await;
    world.close().await;
    world.patience.call = Duration::from_millis(700);
    world.patience.read = Duration::from_millis(700);
    world.open().await.unwrap();
    put(world.vault(), a_call(&t), &content(0, 9)).await.unwrap();
    let full = world.vault().budget().available();

    let hung = at(&world.faults, Operation::Put, 1).hang();
    let vault = Arc::clone(world.vault());
    let spec = requested(&t, "r");
    let hanging = tokio::spawn(async move { put(&vault, spec, &content(1, 100)).await });
    eventually("it hangs", async || hung.fired() == 1).await;
    let other = put(world.vault(), a_call(&t), &content(2, TWO_EXTENTS))
        .await
        .unwrap();
    assert_eq!(
        read(world.vault(), &t, other.id).await.unwrap(),
        content(2, TWO_EXTENTS)
    );
    let error = hanging.await.unwrap().unwrap_err();
    assert_eq!(told(&error), (Kind::Unavailable, "STORE_UNAVAILABLE"));
    put(world.vault(), requested(&t, "r"), &content(1, 100))
        .await
        .unwrap();

    // A checkpoint that was written and never answered: the log goes on.
    world.faults.on(Operation::Overwrite).below("log/").hang_after();
    let new = descriptor("other", TEL);
    let changed = world
        .vault()
        .update(update(&t, other.id, &["conversation_id"], new));
    assert_eq!(changed.await.unwrap().version, 2);

    world.faults.on(Operation::Get).below("blobs/").hang();
    assert_eq!(
        read(world.vault(), &t, other.id).await.unwrap(),
        content(2, TWO_EXTENTS)
    );
    assert_eq!(world.vault().budget().available(), full);
    // Not even the end of the process waits for ever.
    put(world.vault(), a_call(&t), &content(3, 9)).await.unwrap();
    world.faults.on_all().always().hang();
    tokio::time::timeout(Duration::from_secs(60), world.close())
        .await
        .unwrap();
    world.faults.clear();
    world.open().await.unwrap();
    assert_eq!(everything(world.vault(), &t).await.len(), 4);
    no_findings(world.vault()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_survives_a_moment_without_its_store() {
    let (_dir, world, t) = world(Engine::Memory).await;
    let body = content(1, THREE_EXTENTS);
    let id = put(world.vault(), a_call(&t), &body).await.unwrap().id;
    let blobs = || world.faults.on(Operation::Get).below("blobs/");
    for nth in [1, 7] {
        let gone = blobs().nth(nth).times(3).fail_before(Failure::Unavailable);
        assert_eq!(read(world.vault(), &t, id).await.unwrap(), body);
        assert_eq!(gone.fired(), 3);
    }
    let slow = blobs().every(2).always().fail_before(Failure::Unavailable);
    for start in (0..body.len()).step_by(500_000) {
        let end = body.len().min(start + 500_000);
        let got = read_range(world.vault(), &t, id, start as u64, Some(500_000), LAWFUL).await;
        assert!(got.unwrap() == body[start..end], "{start}");
    }
    assert!(slow.fired() > 10, "slowed down, and all there");
    world.faults.clear();
    blobs().nth(7).always().fail_before(Failure::Unavailable);
    let error = read(world.vault(), &t, id).await.unwrap_err();
    assert_eq!(told(&error), (Kind::Unavailable, "STORE_UNAVAILABLE"));
    world.faults.clear();
    assert_eq!(read(world.vault(), &t, id).await.unwrap(), body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_that_flips_on_the_way_is_read_again_and_one_that_stays_is_data_loss() {
    let (_dir, world, t) = world(Engine::Memory).await;
    let body = content(1, TWO_EXTENTS);
    let id = put(world.vault(), a_call(&t), &body).await.unwrap().id;
    let full = world.vault().budget().available();
    let blobs = || world.faults.on(Operation::Get).below("blobs/");
    // In a header, in a segment behind one, in a run without one; a range whose header is read by itself is read second.
    let whole = (0, None);
    let middle = (1_000_000, Some(10));
    for (nth, byte, (offset, limit)) in [
        (1, 3, whole),
        (1, 60_000, whole),
        (5, 100, whole),
        (9, 39, whole),
        (1, 5, middle),
        (2, 5, middle),
    ] {
        let case = format!("{nth} {byte} {offset}");
        let flip = blobs().nth(nth).flip(byte);
        let got = read_range(world.vault(), &t, id, offset, limit, LAWFUL).await;
        let end = limit.map_or(body.len(), |l| (offset + l) as usize);
        assert!(got.unwrap() == body[offset as usize..end], "{case}");
        assert_eq!(flip.fired(), 1, "{case}");
        world.faults.clear();
        let stays = blobs().nth(nth).always().flip(byte);
        let error = read_range(world.vault(), &t, id, offset, limit, LAWFUL).await;
        assert_eq!(told(&error.unwrap_err()), (Kind::Corrupt, "INTEGRITY"), "{case}");
        assert!(stays.fired() >= 2, "{case}");
        world.faults.clear();
    }
    eventually("the budget is full again", async || {
        world.vault().budget().available() == full
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_a_wrong_length_is_never_content() {
    let (_dir, world, t) = world(Engine::Memory).await;
    let body = content(1, TWO_EXTENTS);
    let id = put(world.vault(), a_call(&t), &body).await.unwrap().id;
    let blobs = || world.faults.on(Operation::Get).below("blobs/");
    let wrong = |rule: Rule, how: u8| match how {
        0 => rule.lengthen(1),
        1 => rule.truncate(70_000),
        2 => rule.truncate(0),
        _ => rule.misstate(17),
    };
    for how in 0..4 {
        let once = wrong(blobs().nth(2), how);
        assert_eq!(read(world.vault(), &t, id).await.unwrap(), body);
        assert_eq!(once.fired(), 1);
        wrong(blobs().always(), how);
        let error = read(world.vault(), &t, id).await.unwrap_err();
        assert_eq!(told(&error), (Kind::Internal, "STORE"), "{how}");
        world.faults.clear();
        assert_eq!(read(world.vault(), &t, id).await.unwrap(), body);
    }
}

/// What a rebuild cannot read it leaves out: so a bit that flips on the way must not look like damage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_through_bad_weather_leaves_nothing_out() {
    let (_dir, mut world, t) = world(Engine::Memory).await;
    let body = content(1, 70_000);
    for n in 0..3 {
        let record = put(world.vault(), a_call(&t), &body).await.unwrap();
        let new = descriptor(&format!("c{n}"), TEL);
        world
            .vault()
            .update(update(&t, record.id, &["conversation_id"], new))
            .await
            .unwrap();
    }
    log_is_down(&world);
    put(world.vault(), a_call(&t), &body).await.unwrap();
    let before = everything(world.vault(), &t).await;
    world.crash().await;
    world.faults.clear();
    let mut struck = 0;
    for nth in 1..60 {
        for how in 0..6 {
            world.close().await;
            world.lose_index().await.unwrap();
            let rule = world.faults.on(Operation::Get).nth(nth);
            let fault = match how {
                0..=2 => rule.flip([0, 11, 60][how]),
                3 => rule.truncate(1),
                4 => rule.times(9).fail_before(Failure::Unavailable),
                _ => rule.misstate(3),
            };
            let opened = world.open().await;
            world.faults.clear();
            struck += fault.fired();
            let replayed = match opened {
                Ok(replayed) => replayed,
                // Refused, and nothing spoilt.
                Err(_) => world.open().await.unwrap(),
            };
            if let Some(replayed) = replayed {
                assert_eq!(replayed.broken, Vec::<String>::new(), "{nth} {how}");
            }
            assert_eq!(everything(world.vault(), &t).await, before, "{nth} {how}");
        }
    }
    assert!(struck > 100, "{struck}");
    no_findings(world.vault()).await;
}

/// What a start had in hand when it was cut short is nowhere: the next one begins anew, and adopts what no leaf names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_cut_short_while_it_catches_up_is_done_again() {
    let (_dir, mut world, t) = world(Engine::Memory).await;
    let kept = put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
    for n in 0..3 {
        let new = descriptor(&format!("c{n}"), TEL);
        let change = update(&t, kept.id, &["conversation_id"], new);
        world.vault().update(change).await.unwrap();
        world.close().await;
        world.open().await.unwrap();
    }
    put(world.vault(), a_call(&t), &content(2, 9)).await.unwrap();
    world.vault().settle().await.unwrap();
    log_is_down(&world);
    put(world.vault(), a_call(&t), &content(3, 9)).await.unwrap();
    let before = everything(world.vault(), &t).await;
    let mut refused = 0;
    for (operation, below) in [
        (Operation::List, "blobs/"),
        (Operation::Get, "blobs/"),
        (Operation::Get, "payloads/"),
        (Operation::Get, "log/"),
        (Operation::Put, "log/"),
        (Operation::Overwrite, "log/"),
    ] {
        for nth in 1..20 {
            world.crash().await;
            world.faults.clear();
            world.lose_index().await.unwrap();
            let gone = world.faults.on(operation).below(below).nth(nth).always();
            gone.fail_before(Failure::Unavailable);
            refused += usize::from(world.open().await.is_err());
            world.crash().await;
            world.faults.clear();
            world.open().await.unwrap();
            assert_eq!(
                everything(world.vault(), &t).await,
                before,
                "{operation} {below} {nth}"
            );
        }
    }
    assert!(refused > 20, "{refused}");
    no_findings(world.vault()).await;
    world.close().await;
    assert_eq!(world.open().await.unwrap(), None, "and not once more");
}

/// What is made at the first start vouches for the manifest for ever after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_misreads_its_manifest_makes_nothing() {
    for nth in 1..4 {
        for byte in [0, 11, 30] {
            let dir = directory();
            let mut world = World::new(dir.path(), Engine::Memory, nth).unwrap();
            let claim = world.faults.on(Operation::Overwrite).below("claims/");
            claim.fail_before(Failure::Unavailable);
            world.open().await.unwrap_err();
            let manifest = world.faults.on(Operation::Get).below("vault/").nth(nth);
            manifest.flip(byte);
            let refused = world.open().await.is_err();
            assert_eq!(refused, nth < 3, "{nth} {byte}");
            world.faults.clear();
            if refused {
                world.open().await.unwrap();
            }
            let t = make_tenant(world.vault(), "acme").await;
            put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
            rebuilt(&mut world).await;
            assert_eq!(everything(world.vault(), &t).await.len(), 1, "{nth} {byte}");
        }
    }
}

/// Leaves wait in the index for a log that is down, but not without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_far_behind_stops_new_puts_until_it_catches_up() {
    let (_dir, world, t) = world(Engine::Memory).await;
    put(world.vault(), a_call(&t), &content(1, 9)).await.unwrap();
    world.vault().settle().await.unwrap();
    let index = world.memory_index().clone();
    let queue = index
        .rows()
        .into_iter()
        .rfind(|row| matches!(row.key, Key::LogNext(_)))
        .unwrap();
    let next = u64::from_be_bytes(queue.value.clone().try_into().unwrap());
    for (waiting, refused) in [(limits::QUEUED_LEAVES, false), (limits::QUEUED_LEAVES + 1, true)] {
        let pretended = Row {
            value: (next + waiting).to_be_bytes().to_vec(),
            ..queue.clone()
        };
        index.commit(write(pretended)).await.unwrap();
        let begun = world.vault().begin_put(a_call(&t)).await;
        let told = begun.err().map(|error| told(&error));
        assert_eq!(told, refused.then_some((Kind::Unavailable, "LOG_BEHIND")));
        if refused {
            let one = vec![super::messages::message(1)];
            let answers = world.vault().put_messages(&t, one).await.unwrap();
            let answer = answers.into_iter().next().unwrap();
            assert_eq!(
                told_of(answer.map(|_| ())),
                Some((Kind::Unavailable, "LOG_BEHIND"))
            );
        }
    }
    index.commit(write(queue)).await.unwrap();
    put(world.vault(), a_call(&t), &content(2, 9)).await.unwrap();
    no_findings(world.vault()).await;
}

fn told_of(answer: Result<(), Error>) -> Option<(Kind, &'static str)> {
    answer.err().map(|error| told(&error))
}

fn write(row: Row) -> Change {
    Change {
        put: vec![row],
        ..Change::default()
    }
}

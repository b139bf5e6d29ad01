//! Whatever write to the bucket is the last one of a process, and whether it took effect or not: what was begun is whole, goes on, or never was.

use std::time::Duration;

use super::{
    erasure::{erase, record_call},
    rotation::{ended, read},
    sweep::{is_final, sweep},
    *,
};
use crate::{
    domain::{
        erasure::{ErasureState, Target},
        ids::RecordId,
    },
    testing::{
        faulty::{Injected, Operation},
        world::{Engine, World},
    },
};

/// A tenant's key, the root, records, a whole tenant, and a sweep, one after the other.
async fn story(vault: &Arc<Vault>, gone: RecordId, doomed: &TenantId) -> Result<(), Error> {
    let tenant: TenantId = "dev".parse().unwrap();
    let begun = vault.rotate_tenant_key("keys", &tenant, None).await?;
    ended(vault, &begun).await;
    let begun = vault.rotate_root_epoch("keys", None).await?;
    ended(vault, &begun).await;
    vault.request_erasure(erase(Target::Records(vec![gone]))).await?;
    let whole = ErasureSpec {
        tenant: doomed.clone(),
        ..erase(Target::Tenant)
    };
    vault.request_erasure(whole).await?;
    let begun = vault.run_sweep("keys", None).await?;
    ended(vault, &begun).await;
    Ok(())
}

/// Returns when the process has come to its last write: everything that it does from then on comes to nothing.
async fn last_write(world: &World, last: &Injected) {
    while last.fired() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.faults.take_down();
}

/// Whether there was such a write.
async fn lives_through(operation: Operation, nth: u64, took_effect: bool) -> bool {
    let what = format!("{operation:?} {nth} {took_effect}");
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 0x1a57).unwrap();
    world.open().await.unwrap();
    let tenant = make_tenant(world.vault()).await;
    let doomed: TenantId = "acme".parse().unwrap();
    let made = world
        .vault()
        .create_tenant("admin", &doomed, TenantSettings::default(), None);
    made.await.unwrap();
    let (kept, gone) = (
        record_call(world.vault(), 1).await,
        record_call(world.vault(), 2).await,
    );
    let rule = world.faults.on(operation).nth(nth);
    let last = if took_effect {
        rule.hang_after()
    } else {
        rule.hang()
    };
    let vault = Arc::clone(world.vault());
    let died = tokio::select! {
        _ = story(&vault, gone.id, &doomed) => false,
        () = last_write(&world, &last) => true,
    };
    drop(vault);
    world.crash().await;
    world.faults.clear();
    world.open().await.unwrap();
    let vault = world.vault();
    vault.carry_out_due().await.unwrap();
    for operation in vault.key_operations(None, 100, |_| true).await.unwrap().0 {
        assert_eq!(
            ended(vault, &operation).await.state,
            OperationState::Succeeded,
            "{what}"
        );
    }
    assert_eq!(read(vault, kept.id).await, b"what was said in call 1", "{what}");
    let erasures = vault.erasures(&tenant, None, 10).await.unwrap().0;
    match erasures.first() {
        // Logged: gone, whoever was told. Never logged: there.
        Some(erasure) => {
            assert!(erasure.state >= ErasureState::Effective, "{what} {erasure:?}");
            let found = vault
                .record(&tenant, &Name::Id(gone.id), Purpose::LegalCompliance)
                .await;
            assert_eq!(found.unwrap_err().kind, Kind::NotFound, "{what}");
        }
        None => assert_eq!(read(vault, gone.id).await, b"what was said in call 2", "{what}"),
    }
    assert_eq!(vault.verify().await.unwrap().findings, vec![], "{what}");
    assert_eq!(sweep(vault).await.state, OperationState::Succeeded, "{what}");
    if let Some(erasure) = erasures.first() {
        assert!(is_final(vault, erasure).await, "{what}");
    }
    // Nor does an index that is made anew say otherwise.
    world.close().await;
    world.lose_index().await.unwrap();
    world.open().await.unwrap();
    let vault = world.vault();
    assert_eq!(read(vault, kept.id).await, b"what was said in call 1", "{what}");
    assert_eq!(vault.verify().await.unwrap().findings, vec![], "{what}");
    world.close().await;
    died
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_object_is_written_last_all_of_it_goes_on_and_no_survivor_is_lost() {
    let mut deaths = 0;
    for operation in [Operation::Put, Operation::Overwrite, Operation::Delete] {
        for nth in 1.. {
            // Every other one as if it had come to nothing, the others as if nobody had been told that it came.
            if !lives_through(operation, nth, nth % 2 == 0).await {
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths > 15, "{deaths}");
}

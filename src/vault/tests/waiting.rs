//! What may still be erased of a tenant that waits for its own erasure, and who may call what back.

use std::sync::atomic::{AtomicI64, Ordering};

use super::{
    erasure::{erase, is_there, purged, record_call},
    sweep::{Mortal, dead},
    *,
};
use crate::domain::{
    erasure::{ErasureState, Ground, Target},
    record::SubjectIdentifier,
    tenant::TenantState,
};
use crate::testing::world::{Engine, World};

const DAY: i64 = 24 * 3_600 * 1_000_000;

fn with_grace(target: Target) -> ErasureSpec {
    ErasureSpec {
        grace_micros: Some(DAY),
        ..erase(target)
    }
}

fn mandatory(target: Target) -> ErasureSpec {
    ErasureSpec {
        ground: Ground::MandatoryDestruction,
        ..erase(target)
    }
}

async fn state_of(vault: &Arc<Vault>, tenant: &TenantId) -> TenantState {
    vault.tenant(tenant).await.unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_is_suspended_in_an_index_made_anew_and_erased_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), Engine::Memory, 0x5059).unwrap();
    world.open().await.unwrap();
    let tenant = make_tenant(world.vault()).await;
    let record = record_call(world.vault(), 1).await;
    world
        .vault()
        .suspend_tenant("admin", &tenant, true, None)
        .await
        .unwrap();
    world.close().await;
    world.lose_index().await.unwrap();
    world.open().await.unwrap();
    assert_eq!(state_of(world.vault(), &tenant).await, TenantState::Suspended);
    assert_eq!(world.vault().verify().await.unwrap().findings, vec![]);
    // Its end may be asked for, and taken back: it is what it was before.
    let erasure = with_grace(Target::Tenant);
    let erasure = world.vault().request_erasure(erasure).await.unwrap();
    assert_eq!(state_of(world.vault(), &tenant).await, TenantState::PendingShred);
    let refused = world
        .vault()
        .suspend_tenant("admin", &tenant, false, None)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::NotFound);
    world
        .vault()
        .cancel_erasure("admin", &tenant, &erasure.id)
        .await
        .unwrap();
    assert_eq!(state_of(world.vault(), &tenant).await, TenantState::Suspended);
    world
        .vault()
        .suspend_tenant("admin", &tenant, false, None)
        .await
        .unwrap();
    let read = world
        .vault()
        .record(&tenant, &Name::Id(record.id), Purpose::ServiceProvision)
        .await;
    assert_eq!(read.unwrap().id, record.id);
    assert_eq!(world.vault().verify().await.unwrap().findings, vec![]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mandatory_destruction_does_not_wait_for_the_erasure_of_its_tenant() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let (card, child, other) = (
        record_call(vault, 1).await,
        record_call(vault, 2).await,
        record_call(vault, 3).await,
    );
    let whole = vault.request_erasure(with_grace(Target::Tenant)).await.unwrap();
    let ids = Target::Records(vec![card.id]);
    assert_eq!(
        vault.request_erasure(erase(ids.clone())).await.unwrap_err().kind,
        Kind::NotFound,
        "whoever need not be first waits with the tenant"
    );
    let seen = vault
        .preview_erasure(&tenant, &ids, Ground::MandatoryDestruction)
        .await
        .unwrap();
    assert_eq!(seen.records, 1);
    let of_child = Target::Subject(SubjectIdentifier::Tel("+525512340002".parse().unwrap()));
    let mut done = Vec::new();
    for target in [ids, of_child] {
        let erasure = vault.request_erasure(mandatory(target)).await.unwrap();
        assert_eq!((erasure.state, erasure.shredded), (ErasureState::Effective, 1));
        done.push(erasure.id);
    }
    vault
        .cancel_erasure("compliance", &tenant, &whole.id)
        .await
        .unwrap();
    assert_eq!(state_of(vault, &tenant).await, TenantState::Active);
    opened.close().await;
    for index in [index, MemoryIndex::default()] {
        let opened = bench.open(&Arc::new(index)).await;
        let vault = &opened.vault;
        purged(vault).await;
        assert!(is_there(vault, &other).await);
        for gone in [&card, &child] {
            assert!(!is_there(vault, gone).await);
        }
        for erasure in &done {
            let state = vault.erasure(&tenant, erasure).await.unwrap().state;
            assert_eq!(state, ErasureState::Effective);
        }
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
        opened.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_must_go_is_not_called_back_by_who_only_wanted_it_to() {
    let bench = Bench::new().await;
    let index = MemoryIndex::default();
    let opened = bench.open(&Arc::new(index.clone())).await;
    let vault = &opened.vault;
    let tenant = make_tenant(vault).await;
    let record = record_call(vault, 1).await;
    let of_record = vault
        .request_erasure(with_grace(Target::Records(vec![record.id])))
        .await
        .unwrap();
    let wanted = vault.request_erasure(with_grace(Target::Tenant)).await.unwrap();
    let must = vault.request_erasure(mandatory(Target::Tenant)).await.unwrap();
    assert_eq!(must.state, ErasureState::Effective);
    for late in [&wanted.id, &of_record.id] {
        let refused = vault.cancel_erasure("compliance", &tenant, late).await;
        assert_eq!(refused.unwrap_err().reason, "NOT_CANCELLABLE");
    }
    let gone = vault.request_erasure(mandatory(Target::Tenant)).await;
    assert_eq!(gone.unwrap_err().kind, Kind::NotFound, "it is gone already");
    bench.clock.advance(2 * DAY);
    vault.carry_out_due().await.unwrap();
    opened.close().await;
    for index in [index, MemoryIndex::default()] {
        let opened = bench.open(&Arc::new(index)).await;
        let vault = &opened.vault;
        assert_eq!(state_of(vault, &tenant).await, TenantState::Shredded);
        for case in [&of_record.id, &wanted.id, &must.id] {
            let state = vault.erasure(&tenant, case).await.unwrap().state;
            assert_eq!(state, ErasureState::Effective);
        }
        purged(vault).await;
        assert_eq!(vault.verify().await.unwrap().findings, vec![]);
        opened.close().await;
    }
}

/// The process dies before the n-th change of a mandatory destruction of a tenant that waits for another erasure; whoever takes
/// that other one back afterwards does not get the tenant back.
#[tokio::test(flavor = "multi_thread")]
async fn a_destruction_of_a_tenant_that_was_cut_short_is_not_undone_by_taking_another_erasure_back() {
    let (mut undone, mut taken_back) = (0, 0);
    for n in 0..8 {
        let bench = Bench::new().await;
        let index = MemoryIndex::default();
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let mortal = Mortal {
            index: index.clone(),
            left: Arc::clone(&left),
        };
        let opened = bench
            .open_over(Arc::new(mortal), Arc::clone(&bench.root) as _)
            .await;
        let vault = Arc::clone(&opened.vault);
        let tenant = make_tenant(&vault).await;
        let wanted = vault.request_erasure(with_grace(Target::Tenant)).await.unwrap();
        left.store(n, Ordering::Release);
        tokio::select! {
            _ = vault.request_erasure(mandatory(Target::Tenant)) => {}
            () = dead(&left) => {}
        }
        drop(vault);
        opened.crash().await;
        for index in [index, MemoryIndex::default()] {
            let opened = bench.open(&Arc::new(index)).await;
            let vault = &opened.vault;
            let cases = vault.erasures(&tenant, None, 10).await.unwrap().0;
            let must = cases.iter().find(|case| case.id != wanted.id);
            let back = vault.cancel_erasure("compliance", &tenant, &wanted.id).await;
            let state = state_of(vault, &tenant).await;
            match must.map(|case| case.state) {
                None => assert_eq!((back.is_ok(), state), (true, TenantState::Active), "{n}"),
                Some(ErasureState::Effective) => {
                    assert_eq!((back.is_ok(), state), (false, TenantState::Shredded), "{n}");
                }
                Some(_) => {
                    taken_back += u32::from(back.is_ok());
                    assert_eq!(state, TenantState::PendingShred, "{n}");
                }
            }
            undone += u32::from(must.is_none());
            opened.close().await;
        }
        // With what was taken back in the logs, an index that is made anew says the same.
        let opened = bench.open(&Arc::new(MemoryIndex::default())).await;
        let vault = &opened.vault;
        vault.carry_out_due().await.unwrap();
        let cases = vault.erasures(&tenant, None, 10).await.unwrap().0;
        let must = cases.iter().any(|case| case.id != wanted.id);
        let expected = if must {
            TenantState::Shredded
        } else {
            TenantState::Active
        };
        assert_eq!(state_of(vault, &tenant).await, expected, "{n}");
        opened.close().await;
    }
    assert!(undone > 0 && taken_back > 0, "{undone} {taken_back}");
}

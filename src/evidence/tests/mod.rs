//! Certificates that hold, and everything that makes one not hold.

pub(super) mod sample;
mod vectors;

use bytes::Bytes;
use proptest::prelude::*;

use self::sample::{Sample, TestKey, id, leaf};
use super::{
    certificate::{Certificate, Elsewhere, Hash, Listed, Stage},
    jws::JwsError,
    proof::ProofError,
    verify::{Refused, verify},
};
use crate::{
    ledger::log::Signer,
    proto::storage::{ErasureFinal, RootEpochDestroyed, StateLeaf, TenantKeyDestroyed, state_leaf::Body},
};

/// What is done to a certificate, and its name.
type Bend = (&'static str, fn(&mut Certificate));

fn of_each() -> impl Iterator<Item = Sample> {
    [Stage::Effective, Stage::Final]
        .into_iter()
        .flat_map(|stage| [Sample::records(stage), Sample::tenant(stage)])
}

#[test]
fn certificates_of_both_stages_hold_for_records_and_for_tenants() {
    for mut sample in of_each() {
        let file = sample.signed();
        let proven = verify(&file, &sample.keys()).unwrap();
        assert_eq!(proven.certificate, sample.certificate);
        let stage = sample.certificate.identity.stage;
        assert!(
            proven
                .lines
                .iter()
                .any(|line| line.contains(&format!("content {stage}")))
        );
        assert!(proven.lines.iter().any(|line| line.starts_with("Never proves")));
    }
}

#[test]
fn a_certificate_says_none_where_there_is_nothing() {
    let mut sample = Sample::records(Stage::Effective);
    let file = sample.signed();
    let document = super::jws::verify(&file, |_| Some(sample.certificate_key.public_key())).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&document.payload).unwrap();
    assert_eq!(document["method"]["root_epochs_destroyed"], "none");
    assert_eq!(document["target"]["blobs"][0]["version_id"], "none");
    assert_eq!(document["verification"]["errors"], "none");
    fn nothing_is_empty(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Null => false,
            serde_json::Value::String(text) => !text.is_empty(),
            serde_json::Value::Array(items) => items.iter().all(nothing_is_empty),
            serde_json::Value::Object(members) => members.values().all(nothing_is_empty),
            _ => true,
        }
    }
    assert!(nothing_is_empty(&document));
    let empty = serde_json::from_str::<Listed<u64>>("[]");
    assert!(empty.is_err());
}

/// Signed by the vault itself, and still refused: the document has to say what the leaves say.
#[test]
fn a_certificate_that_says_something_else_than_the_log_is_refused() {
    let bends: &[Bend] = &[
        ("tenant", |c| c.identity.tenant = "other".into()),
        ("reference", |c| c.identity.reference = "case-8".into()),
        ("ground", |c| c.identity.ground = "dpv:A7-3".into()),
        ("requester", |c| c.identity.requested_by = "dpo-1".into()),
        ("approvers", |c| c.identity.approvers = Listed::default()),
        ("request time", |c| {
            c.identity.requested_at = c.identity.due_at.clone()
        }),
        ("due time", |c| {
            c.identity.due_at = c.identity.requested_at.clone()
        }),
        ("erasure", |c| {
            c.identity.erasure.replace_range(35.., "2");
            c.identity.id.replace_range(35..36, "2");
        }),
        ("vault", |c| c.identity.vault.replace_range(35.., "8")),
        ("id", |c| c.identity.id.push('x')),
        ("form", |c| c.format.push('x')),
        ("asked for", |c| c.target.asked_for = "QUERY".into()),
        ("set", |c| c.target.set_sha256.replace_range(..1, "f")),
        ("count", |c| c.target.record_count += 1),
        ("slots", |c| c.method.slots_punctured += 1),
        ("content", |c| {
            c.verification.content.since.replace_range(..4, "2027")
        }),
        ("traces", |c| {
            c.verification.search_traces.since.replace_range(..4, "2027")
        }),
        ("content stage", |c| {
            c.verification.content.stage = match c.verification.content.stage {
                Stage::Effective => Stage::Final,
                Stage::Final => Stage::Effective,
            }
        }),
        ("epochs", |c| c.method.root_epochs_destroyed = Listed(vec![1])),
        ("versions", |c| {
            c.method.tenant_key_versions_destroyed = Listed(vec![2])
        }),
        ("errors", |c| {
            c.verification.errors = Listed(vec!["one".into()]);
            c.method.slots_punctured += u64::from(c.identity.stage == Stage::Effective);
        }),
        ("proves", |c| c.proves.clear()),
        ("residual copies", |c| c.residual_copies.clear()),
        ("leaf left out", |c| drop(c.inclusion.leaves.remove(0))),
        ("last leaf left out", |c| drop(c.inclusion.leaves.pop())),
        ("leaf twice", |c| {
            c.inclusion.leaves.push(c.inclusion.leaves[0].clone())
        }),
        ("proofs swapped", |c| {
            let first = c.inclusion.leaves[0].proof.clone();
            c.inclusion.leaves[0].proof = std::mem::replace(&mut c.inclusion.leaves[1].proof, first);
        }),
        ("index", |c| c.inclusion.leaves[0].index += 1),
        ("leaf", |c| c.inclusion.leaves[0].leaf[3] ^= 1),
        ("proof", |c| c.inclusion.leaves[0].proof[0] = Hash([0; 32])),
        ("checkpoint left out", |c| c.inclusion.checkpoints.clear()),
        ("checkpoint twice", |c| {
            c.inclusion.checkpoints.push(c.inclusion.checkpoints[0].clone())
        }),
        ("checkpoint size", |c| {
            // The size is the second line.
            let at = c.inclusion.checkpoints[0].origin.len() + 1;
            c.inclusion.checkpoints[0].note.insert(at, '1');
        }),
    ];
    let of_records: &[Bend] = &[
        ("record left out", |c| drop(c.target.blobs.0[0].records.pop())),
        ("record twice", |c| {
            let record = c.target.blobs.0[0].records[0].clone();
            c.target.blobs.0[0].records.push(record);
        }),
        ("record", |c| {
            c.target.blobs.0[0].records[0].record.replace_range(35.., "9")
        }),
        ("slot", |c| c.target.blobs.0[0].records[0].slot += 1),
        ("page", |c| {
            c.target.blobs.0[0].records[0].page.replace_range(35.., "9")
        }),
        ("kind", |c| {
            c.target.blobs.0[0].records[0].kind = "artifact".into()
        }),
        ("entry", |c| c.target.blobs.0[0].records[0].entry += 1),
        ("entries", |c| c.target.blobs.0[0].records[0].entries += 1),
        ("record bytes", |c| {
            c.target.blobs.0[0].records[0].bytes += 1;
            c.target.blobs.0[0].bytes += 1;
        }),
        ("object", |c| c.target.blobs.0[0].object.push('x')),
        ("version", |c| c.target.blobs.0[0].version_id = "v1".into()),
        ("footer", |c| {
            c.target.blobs.0[0].footer_sha256.replace_range(..1, "1")
        }),
        ("bytes", |c| c.target.blobs.0[0].bytes += 1),
        ("tenant keys", |c| c.target.tenant_keys = Listed(vec![1])),
        ("derived since", |c| {
            c.target.derived_since = Listed(vec![c.target.blobs.0[0].records[0].record.clone()]);
        }),
        ("elsewhere", |c| {
            let record = c.target.blobs.0[0].records[0].record.replace("8002", "8009");
            let erasure = c.identity.erasure.clone();
            c.target.elsewhere = Listed(vec![Elsewhere { record, erasure }]);
        }),
    ];
    let of_final: &[Bend] = &[
        ("way left out", |c| drop(c.verification.paths.0.pop())),
        ("way without an end", |c| {
            c.verification.paths.0[0].first_epoch = 3
        }),
        ("way to an epoch that lives", |c| {
            c.verification.paths.0[0].last_epoch = 3
        }),
        ("region slot", |c| c.verification.paths.0[0].region_slot += 1),
        ("region page", |c| {
            c.verification.paths.0[0].region_page.replace_range(35.., "9")
        }),
        ("epoch that lives", |c| {
            let mut epoch = c.verification.epochs.0[1].clone();
            epoch.epoch = 3;
            c.verification.epochs.0.push(epoch);
            c.method.root_epochs_destroyed.0.push(3);
        }),
        ("end of an epoch", |c| {
            c.verification.epochs.0[0].destroyed_at.replace_range(..4, "2027")
        }),
        ("answer", |c| c.verification.epochs.0[0].answer = "opened".into()),
        ("pages", |c| c.verification.pages.0.push("x".into())),
    ];
    for mut sample in of_each() {
        sample.signed();
        let good = sample.certificate.clone();
        assert!(verify(&sample.sign(), &sample.keys()).is_ok());
        let is_records = good.target.asked_for == "RECORDS";
        let is_final = good.identity.stage == Stage::Final;
        let mut all = bends.to_vec();
        all.extend(of_records.iter().filter(|_| is_records));
        all.extend(of_final.iter().filter(|_| is_final));
        for (what, bend) in all {
            sample.certificate = good.clone();
            bend(&mut sample.certificate);
            assert!(sample.certificate != good, "{what} bends nothing");
            assert!(
                verify(&sample.sign(), &sample.keys()).is_err(),
                "{what} is not noticed"
            );
        }
    }
}

/// The log itself has to tell the whole story.
#[test]
fn a_stage_that_the_log_does_not_tell_is_refused() {
    let without = |is: fn(&Body) -> bool| {
        let mut sample = Sample::records(Stage::Final);
        sample.leaves.retain(|leaf| !leaf.body.as_ref().is_some_and(is));
        let file = sample.signed();
        verify(&file, &sample.keys())
    };
    for is in [
        (|body| matches!(body, Body::ErasureRequested(_))) as fn(&Body) -> bool,
        |body| matches!(body, Body::RecordsShredded(_)),
        |body| matches!(body, Body::ErasureEffective(_)),
        |body| matches!(body, Body::TenantCreated(_)),
        |body| matches!(body, Body::TenantKeyRotated(_)),
        |body| matches!(body, Body::TenantKeyDestroyed(_)),
        |body| matches!(body, Body::RootEpochDestroying(_)),
        |body| {
            matches!(
                body,
                Body::RootEpochDestroyed(RootEpochDestroyed {
                    scheduled_micros: 0,
                    ..
                })
            )
        },
        |body| matches!(body, Body::ErasureFinal(ErasureFinal { content: true, .. })),
        |body| {
            matches!(
                body,
                Body::ErasureFinal(ErasureFinal {
                    search_traces: true,
                    ..
                })
            )
        },
    ] {
        assert!(without(is).is_err());
    }
    assert!(without(|_| false).is_ok());
}

#[test]
fn leaves_of_another_erasure_or_of_nothing_are_refused() {
    let with = |more: StateLeaf| {
        let mut sample = Sample::records(Stage::Final);
        sample.leaves.push(more);
        let file = sample.signed();
        verify(&file, &sample.keys()).map(drop)
    };
    let of = |erasure_id: Bytes| {
        Body::ErasureFinal(ErasureFinal {
            erasure_id,
            ..ErasureFinal::default()
        })
    };
    assert_eq!(with(leaf(50, "acme", of(id(1)))), Ok(()));
    for more in [
        leaf(50, "acme", of(id(2))),
        leaf(50, "other", of(id(1))),
        leaf(
            50,
            "other",
            Body::TenantKeyDestroyed(TenantKeyDestroyed { version: 1 }),
        ),
        leaf(50, "acme", Body::TenantUpdated(Default::default())),
    ] {
        assert!(matches!(with(more), Err(Refused::Leaves(_))));
    }
}

#[test]
fn other_keys_are_refused() {
    let mut sample = Sample::records(Stage::Final);
    let (file, keys) = (sample.signed(), sample.keys());
    sample.certificate_key = TestKey::new(3);
    assert!(matches!(
        verify(&file, &sample.keys()),
        Err(Refused::Signature(JwsError::UnknownKey(_)))
    ));
    assert!(matches!(
        verify(&sample.sign(), &keys),
        Err(Refused::Signature(JwsError::UnknownKey(_)))
    ));
    // A log's key signs no certificates, and a certificate's no logs.
    let mut swapped = Sample::records(Stage::Final);
    std::mem::swap(&mut swapped.log_key, &mut swapped.certificate_key);
    assert!(verify(&file, &swapped.keys()).is_err());
    let mut other_log = Sample::records(Stage::Final);
    other_log.log_key = TestKey::new(3);
    let file = other_log.signed();
    assert!(matches!(
        verify(&file, &keys),
        Err(Refused::Proof(ProofError::Checkpoint(_)))
    ));
}

/// Ten thousand records, a leaf for every three hundred of them.
#[test]
fn a_certificate_of_many_records_is_checked_in_little_time() {
    let mut sample = Sample::many(10_000);
    let file = sample.signed();
    assert!(file.len() < 16 << 20, "{}", file.len());
    verify(&file, &sample.keys()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_changed_byte_of_a_certificate_is_noticed(at: prop::sample::Index, to: u8, of in 0usize..4) {
        let (file, keys) = certificates(of);
        let mut bent = file.clone();
        let at = at.index(bent.len());
        prop_assume!(bent[at] != to);
        bent[at] = to;
        prop_assert!(verify(&bent, keys).is_err());
        prop_assert!(verify(&file[..at], keys).is_err());
        let mut longer = file.clone();
        longer.insert(at, to);
        prop_assert!(verify(&longer, keys).is_err());
    }
}

fn certificates(of: usize) -> (&'static Vec<u8>, &'static super::keys::KeySet) {
    static ALL: std::sync::OnceLock<Vec<(Vec<u8>, super::keys::KeySet)>> = std::sync::OnceLock::new();
    let all = ALL.get_or_init(|| {
        of_each()
            .map(|mut sample| (sample.signed(), sample.keys()))
            .collect()
    });
    (&all[of].0, &all[of].1)
}

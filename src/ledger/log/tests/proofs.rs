//! Proofs hold, and nothing else does.

use super::{
    super::{Head, LogError, check_consistency, check_inclusion},
    entries, log_of, naive_head, naive_root, reader,
};

const SIZES: [u64; 14] = [1, 2, 3, 4, 7, 8, 255, 256, 257, 300, 511, 512, 513, 770];

#[tokio::test]
async fn inclusion_proofs_hold_for_the_entry_and_for_no_other() {
    for size in SIZES {
        let (store, _) = log_of(&[0..size]).await;
        let (reader, all) = (reader(&store).await.unwrap().unwrap(), entries(0..size));
        let head = reader.head();
        for position in [0, 1, 2, size / 2, 255, 256, size - 1]
            .into_iter()
            .filter(|p| *p < size)
        {
            let entry = &all[position as usize];
            let mut proof = reader.inclusion_proof(position).await.unwrap();
            check_inclusion(&proof, &head, position, entry).unwrap();
            assert!(check_inclusion(&proof, &head, position, b"other").is_err());
            assert!(check_inclusion(&proof, &head, position + 1, entry).is_err());
            assert!(
                check_inclusion(
                    &proof,
                    &Head {
                        root: [1; 32],
                        ..head
                    },
                    position,
                    entry
                )
                .is_err()
            );
            assert!(
                check_inclusion(
                    &proof,
                    &Head {
                        size: u64::MAX,
                        ..head
                    },
                    position,
                    entry
                )
                .is_err()
            );
            for n in 0..proof.len() {
                proof[n][n] ^= 1;
                assert!(check_inclusion(&proof, &head, position, entry).is_err());
                proof[n][n] ^= 1;
            }
            proof.push([0; 32]);
            assert!(check_inclusion(&proof, &head, position, entry).is_err());
        }
        for beyond in [size, u64::MAX] {
            assert!(matches!(
                reader.inclusion_proof(beyond).await,
                Err(LogError::BeyondHead { .. })
            ));
        }
    }
}

#[tokio::test]
async fn consistency_proofs_hold_for_prefixes_and_for_nothing_else() {
    for size in SIZES {
        let (store, _) = log_of(&[0..size]).await;
        let (reader, all) = (reader(&store).await.unwrap().unwrap(), entries(0..size));
        for before in SIZES.into_iter().filter(|before| *before <= size) {
            let old = naive_head(&all[..before as usize]);
            assert_eq!(reader.root_at(before).await.unwrap(), old.root);
            let mut proof = reader.consistency_proof(before).await.unwrap();
            check_consistency(&proof, &old, &reader.head()).unwrap();
            let other = Head { root: [1; 32], ..old };
            assert!(check_consistency(&proof, &other, &reader.head()).is_err());
            for n in 0..proof.len() {
                proof[n][n] ^= 1;
                assert!(check_consistency(&proof, &old, &reader.head()).is_err());
                proof[n][n] ^= 1;
            }
            proof.push([0; 32]);
            assert!(check_consistency(&proof, &old, &reader.head()).is_err());
        }
        assert!(matches!(
            reader.consistency_proof(size + 1).await,
            Err(LogError::BeyondHead { .. })
        ));
        assert!(matches!(
            reader.root_at(size + 1).await,
            Err(LogError::BeyondHead { .. })
        ));
    }
}

#[tokio::test]
async fn every_log_begins_with_the_empty_one() {
    let (store, _) = log_of(&[0..9]).await;
    let reader = reader(&store).await.unwrap().unwrap();
    assert_eq!(reader.root_at(0).await.unwrap(), naive_root(&[]));
    let proof = reader.consistency_proof(0).await.unwrap();
    check_consistency(&proof, &Head::EMPTY, &reader.head()).unwrap();
    check_consistency(&proof, &Head::EMPTY, &Head::EMPTY).unwrap();
    assert!(check_consistency(&[[0; 32]], &Head::EMPTY, &reader.head()).is_err());
    assert!(
        check_consistency(
            &[],
            &Head {
                size: 0,
                root: [1; 32]
            },
            &reader.head()
        )
        .is_err()
    );
}

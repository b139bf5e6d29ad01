//! Epochs are made, opened and destroyed.

use super::{Destruction, EpochGrant, EpochLabel, ProviderError, Subject, a_vault};

/// What is opened twice is one key.
pub async fn an_epoch_opens_to_one_key(subject: Subject) {
    let grant = subject.create(1).await;
    assert!(!grant.handle.is_empty());
    let key = subject.key(1, &grant).await;
    assert_eq!(key, subject.key(1, &grant).await);
    assert!(
        !grant.wrapped.windows(8).any(|bytes| bytes == &key[..8]),
        "the key is wrapped"
    );
}

/// What was made is there after a restart.
pub async fn an_epoch_outlives_its_provider(mut subject: Subject) {
    let grant = subject.create(1).await;
    let key = subject.key(1, &grant).await;
    subject.reopen().await;
    assert_eq!(key, subject.key(1, &grant).await);
    assert_eq!(subject.create(1).await.handle, grant.handle);
}

/// A label names one provider key, and every grant that was given under it opens.
pub async fn creating_again_is_the_same_epoch(subject: Subject) {
    let first = subject.create(1).await;
    let key = subject.key(1, &first).await;
    let second = subject.create(1).await;
    assert_eq!(second.handle, first.handle);
    assert_eq!(key, subject.key(1, &first).await);
    subject.key(1, &second).await;
}

/// Also when it is made by several at once.
pub async fn creations_beside_each_other_make_one_epoch(subject: Subject) {
    let grants = futures_util::future::join_all((0..4).map(|_| subject.create(1))).await;
    for grant in &grants {
        assert_eq!(grant.handle, grants[0].handle);
        subject.key(1, grant).await;
    }
    subject.destroy(1, &grants[0].handle).await;
    for grant in &grants {
        let refused = subject.refusal(subject.label(1), grant).await;
        assert!(matches!(refused, ProviderError::NoSuchKey), "{refused:?}");
    }
}

/// No two epochs share a provider key.
pub async fn epochs_have_keys_of_their_own(subject: Subject) {
    let (one, two) = (subject.create(1).await, subject.create(2).await);
    assert_ne!(one.handle, two.handle);
    assert_ne!(subject.key(1, &one).await, subject.key(2, &two).await);
}

/// Neither another epoch's label nor another vault's opens it.
pub async fn a_grant_opens_under_its_own_label_only(subject: Subject) {
    let (one, two) = (subject.create(1).await, subject.create(2).await);
    let elsewhere = EpochLabel {
        vault: a_vault(),
        epoch: 1,
    };
    let mixed = EpochGrant {
        handle: two.handle.clone(),
        wrapped: one.wrapped.clone(),
    };
    for (label, grant) in [
        (subject.label(2), &one),
        (subject.label(3), &one),
        (elsewhere, &one),
        (subject.label(2), &mixed),
    ] {
        let refused = subject.refusal(label, grant).await;
        assert!(
            matches!(refused, ProviderError::NoSuchKey | ProviderError::Corrupt),
            "{label:?}: {refused:?}"
        );
    }
}

/// Whatever is changed of a wrapped key, it opens no more.
pub async fn an_altered_wrapped_key_is_corrupt(subject: Subject) {
    let grant = subject.create(1).await;
    let (clear, length) = (subject.clear, grant.wrapped.len());
    let flipped = |at: usize| {
        let mut wrapped = grant.wrapped.clone();
        wrapped[at] ^= 0x10;
        wrapped
    };
    let flips = [clear, (clear + length) / 2, length - 17, length - 1].map(flipped);
    let mut longer = grant.wrapped.clone();
    longer.push(0);
    let lengths = [grant.wrapped[..length - 1].to_vec(), longer, vec![0], vec![]];
    for at in 0..clear {
        let altered = EpochGrant {
            wrapped: flipped(at),
            ..grant.clone()
        };
        subject.refusal(subject.label(1), &altered).await;
    }
    for wrapped in flips.into_iter().chain(lengths) {
        let altered = EpochGrant {
            wrapped,
            ..grant.clone()
        };
        let refused = subject.refusal(subject.label(1), &altered).await;
        assert!(
            matches!(refused, ProviderError::Corrupt),
            "{:?}: {refused:?}",
            altered.wrapped
        );
    }
    subject.key(1, &grant).await;
}

/// Whether it is gone or will be: from then on it opens nothing.
pub async fn a_destroyed_epoch_opens_nothing(subject: Subject) {
    let grant = subject.create(1).await;
    assert_eq!(subject.destruction(1, &grant.handle).await, None);
    let destroyed = subject.destroy(1, &grant.handle).await;
    let refused = subject.refusal(subject.label(1), &grant).await;
    assert!(matches!(refused, ProviderError::NoSuchKey), "{refused:?}");
    assert_eq!(subject.destruction(1, &grant.handle).await, Some(destroyed));
}

/// Whoever was not told the handle destroys by the label.
pub async fn an_epoch_is_destroyed_by_its_label_alone(subject: Subject) {
    let grant = subject.create(1).await;
    assert_eq!(subject.destruction(1, "").await, None);
    let destroyed = subject.destroy(1, "").await;
    let refused = subject.refusal(subject.label(1), &grant).await;
    assert!(matches!(refused, ProviderError::NoSuchKey), "{refused:?}");
    assert_eq!(subject.destruction(1, "").await, Some(destroyed));
    assert_eq!(subject.destruction(1, &grant.handle).await, Some(destroyed));
}

/// The second time says what the first said, and puts nothing off.
pub async fn destroying_twice_changes_nothing(subject: Subject) {
    let grant = subject.create(1).await;
    let destroyed = subject.destroy(1, &grant.handle).await;
    assert_eq!(subject.destroy(1, &grant.handle).await, destroyed);
    assert_eq!(subject.destroy(1, "").await, destroyed);
}

/// What is not there needs no destroying.
pub async fn what_never_was_is_destroyed(subject: Subject) {
    assert_eq!(subject.destroy(7, "").await, Destruction::Destroyed);
    assert_eq!(subject.destruction(7, "").await, Some(Destruction::Destroyed));
}

/// Neither another label nor a handle that is another label's destroys an epoch.
pub async fn destroying_one_spares_all_others(subject: Subject) {
    let mut grants = Vec::new();
    for epoch in 1..=3 {
        grants.push(subject.create(epoch).await);
    }
    subject.destroy(2, &grants[1].handle).await;
    let elsewhere = EpochLabel {
        vault: a_vault(),
        epoch: 1,
    };
    // It may be refused; what counts is what is left.
    let _ = subject.provider().destroy(elsewhere, "").await;
    let _ = subject.provider().destroy(elsewhere, &grants[0].handle).await;
    let _ = subject
        .provider()
        .destroy(subject.label(9), &grants[2].handle)
        .await;
    subject.key(1, &grants[0]).await;
    subject.key(3, &grants[2]).await;
}

/// Whether a destruction came true can be asked later.
pub async fn a_destruction_is_told_of_after_a_restart(mut subject: Subject) {
    let (one, two) = (subject.create(1).await, subject.create(2).await);
    let destroyed = subject.destroy(1, &one.handle).await;
    subject.reopen().await;
    assert_eq!(subject.destruction(1, &one.handle).await, Some(destroyed));
    assert_eq!(subject.destruction(2, &two.handle).await, None);
    let refused = subject.refusal(subject.label(1), &one).await;
    assert!(matches!(refused, ProviderError::NoSuchKey), "{refused:?}");
}

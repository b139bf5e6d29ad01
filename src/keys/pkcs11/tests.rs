//! Held against SoftHSM 2, a token in software, where it is installed (`apt-get install softhsm2`).
//!
//! Its module reads where its tokens are from the environment, which a test must not change: the tests run in processes of
//! their own, started by the two that are not ignored.

use std::path::Path;

use super::*;
use crate::{
    crypto::rng::SystemRng,
    domain::{clock::Timestamp, ids::VaultId},
    keys::suite::Subject,
    testing::token::{PIN, assert_all_passed, beside_a_token, module, write_pin},
};

#[test]
fn a_token_holds_every_promise_of_a_root() {
    if let Some(ran) = beside_a_token("keys::pkcs11::tests::promises::") {
        assert_all_passed(&ran, 19);
    }
}

#[test]
fn a_token_that_restarts_or_says_no_is_met_as_it_should_be() {
    // A process each: a login, and an end of the module, are a whole process's.
    for test in [
        "alone::keys_never_leave_the_token",
        "alone::a_token_that_restarted_is_logged_in_to_again",
        "alone::a_login_that_somebody_ended_is_made_again",
        "alone::a_wrong_pin_is_tried_once_and_says_what_to_do",
        "alone::the_pin_may_come_from_the_environment",
        "alone::what_is_not_there_is_said_with_what_to_do",
        "alone::a_replacement_that_was_cut_short_leaves_the_last_anchor",
        "alone::an_altered_anchor_is_corrupt",
        "alone::a_key_that_may_leave_the_token_is_refused",
    ] {
        let test = format!("keys::pkcs11::tests::{test}");
        let Some(ran) = beside_a_token(&test) else { return };
        assert_all_passed(&ran, 1);
    }
}

#[test]
fn a_vault_may_have_its_root_on_a_token() {
    if let Some(ran) = beside_a_token("app::root::tests::a_vault_lives_on_a_token") {
        assert_all_passed(&ran, 1);
    }
}

#[test]
fn a_root_may_move_to_a_token_and_back() {
    if let Some(ran) = beside_a_token("app::root::tests::a_root_moves_to_a_token") {
        assert_all_passed(&ran, 1);
    }
}

#[tokio::test]
async fn a_token_that_hangs_is_given_up_in_time_and_asked_no_more() {
    let settings = Settings {
        patience: Duration::from_millis(50),
        ..settings(Path::new("/nowhere"), "x")
    };
    let worker = Worker::start(settings).unwrap();
    let (release, hangs) = std::sync::mpsc::channel::<()>();
    let hung = worker.call(move |_| {
        let _ = hangs.recv();
        Ok(())
    });
    let late = |refused: ProviderError| match refused {
        ProviderError::Unavailable(why) => why.to_string().contains("did not answer within 0.05 s"),
        _ => false,
    };
    assert!(late(hung.await.unwrap_err()));
    let begun = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&begun);
    let next = worker.call(move |_| {
        seen.store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    });
    assert!(late(next.await.unwrap_err()));
    release.send(()).unwrap();
    worker.call(|_| Ok(())).await.unwrap();
    assert!(
        !begun.load(std::sync::atomic::Ordering::SeqCst),
        "what was given up is not done later"
    );
}

fn settings(dir: &Path, name: &str) -> Settings {
    crate::testing::token::settings(dir, name)
}

async fn open(settings: Settings) -> Result<Pkcs11Root, ProviderError> {
    Pkcs11Root::open(settings, Arc::new(SystemRng::new())).await
}

fn label(epoch: u64) -> EpochLabel {
    let vault = VaultId::mint(Timestamp(1_795_478_400_000_000), &SystemRng::new());
    EpochLabel {
        vault: vault.unwrap(),
        epoch,
    }
}

mod promises {
    use super::*;

    async fn make() -> Subject {
        let dir = tempfile::tempdir().unwrap();
        write_pin(dir.path(), PIN);
        // Its own anchor, on a token that all share.
        let name = format!("t{}", label(1).vault);
        let settings = settings(dir.path(), &name);
        let open = move || {
            let settings = settings.clone();
            async move { open(settings).await.unwrap() }
        };
        Subject::new(open, dir).await
    }

    crate::root_provider_suite!(
        #[ignore = "needs a token: a_token_holds_every_promise_of_a_root"]
        make
    );
}

mod alone {
    use cryptoki::{
        context::{CInitializeArgs, CInitializeFlags, Pkcs11},
        mechanism::Mechanism,
        object::{Attribute, AttributeType, KeyType, ObjectClass},
        session::{Session, UserType},
        types::AuthPin,
    };

    use super::*;
    use crate::keys::provider::AnchoredHead;

    /// Another user of the module in this process, as an operator's tool would be in its own.
    fn operator() -> (Pkcs11, Session) {
        let module = Pkcs11::new(module().unwrap()).unwrap();
        let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slots = module.get_slots_with_initialized_token().unwrap();
        let session = module.open_rw_session(slots[0]).unwrap();
        let _ = session.login(UserType::User, Some(&AuthPin::from(PIN.to_owned())));
        (module, session)
    }

    async fn root() -> (Pkcs11Root, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        write_pin(dir.path(), PIN);
        (open(settings(dir.path(), "callvault")).await.unwrap(), dir)
    }

    #[tokio::test]
    #[ignore = "needs a token of its own"]
    async fn keys_never_leave_the_token() {
        let (root, _dir) = root().await;
        let grant = root.create_epoch(label(1)).await.unwrap();
        let (_module, session) = operator();
        let keys = session
            .find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)])
            .unwrap();
        assert_eq!(keys.len(), 1);
        let told = session.get_attributes(
            keys[0],
            &[
                AttributeType::Sensitive,
                AttributeType::AlwaysSensitive,
                AttributeType::Extractable,
                AttributeType::NeverExtractable,
                AttributeType::ValueLen,
                AttributeType::Label,
                AttributeType::Value,
            ],
        );
        let told = told.unwrap();
        for attribute in [
            Attribute::Sensitive(true),
            Attribute::AlwaysSensitive(true),
            Attribute::Extractable(false),
            Attribute::NeverExtractable(true),
            Attribute::ValueLen(32.into()),
            Attribute::Label(grant.handle.into_bytes()),
        ] {
            assert!(told.contains(&attribute), "{attribute:?} of {told:?}");
        }
        assert!(!told.iter().any(|a| matches!(a, Attribute::Value(_))), "{told:?}");
    }

    /// The module is ended under it and begins again, with other sessions and handles.
    #[tokio::test]
    #[ignore = "needs a token of its own"]
    async fn a_token_that_restarted_is_logged_in_to_again() {
        let (root, _dir) = root().await;
        let label = label(1);
        let grant = root.create_epoch(label).await.unwrap();
        let key = root.unwrap(label, &grant).await.unwrap();
        for _ in 0..3 {
            Pkcs11::new(module().unwrap()).unwrap().finalize().unwrap();
            let again = root.unwrap(label, &grant).await.unwrap();
            assert!(key.ct_eq(&again));
        }
        Pkcs11::new(module().unwrap()).unwrap().finalize().unwrap();
        root.destroy(label, &grant.handle).await.unwrap();
        let refused = root.unwrap(label, &grant).await.unwrap_err();
        assert!(matches!(refused, ProviderError::NoSuchKey), "{refused}");
    }

    /// Whoever is not logged in sees no key, which must never be taken for a destroyed one.
    #[tokio::test]
    #[ignore = "needs a token of its own"]
    async fn a_login_that_somebody_ended_is_made_again() {
        let (root, _dir) = root().await;
        let label = label(1);
        let grant = root.create_epoch(label).await.unwrap();
        let (_module, session) = operator();
        session.logout().unwrap();
        assert_eq!(root.destruction(label, &grant.handle).await.unwrap(), None);
        session.logout().unwrap();
        root.unwrap(label, &grant).await.unwrap();
    }

    #[tokio::test]
    #[ignore = "needs a token of its own"]
    async fn a_wrong_pin_is_tried_once_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        write_pin(dir.path(), "111111");
        let refused = open(settings(dir.path(), "callvault")).await.unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, ProviderError::Refused(_)), "{refused:?}");
        assert!(
            text.contains("Correct the PIN") && text.contains("tried once") && text.contains("/pin"),
            "{text}"
        );
        assert!(!text.contains("111111"), "{text}");
        // The one that was refused is not tried again, not even once it was corrected: whoever corrects it starts again.
        let worker = Worker::start(settings(dir.path(), "callvault")).unwrap();
        worker.call(Token::check).await.unwrap_err();
        write_pin(dir.path(), PIN);
        let still = worker.call(Token::check).await.unwrap_err();
        assert!(matches!(still, ProviderError::Refused(_)), "{still:?}");
        open(settings(dir.path(), "callvault")).await.unwrap();
    }

    #[tokio::test]
    #[ignore = "needs a token of its own"]
    async fn the_pin_may_come_from_the_environment() {
        let root = open(Settings {
            pin: PinSource::Environment("CALLVAULT_TEST_PIN".to_owned()),
            ..settings(Path::new("/nowhere"), "callvault")
        });
        let root = root.await.unwrap();
        root.create_epoch(label(1)).await.unwrap();
        assert!(!format!("{root:?}").contains(PIN));
    }

    #[tokio::test]
    #[ignore = "needs a token of its own"]
    async fn what_is_not_there_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        write_pin(dir.path(), PIN);
        let good = settings(dir.path(), "callvault");
        let no_module = Settings {
            module: "/nowhere/module.so".into(),
            ..good.clone()
        };
        let refused = open(no_module).await.unwrap_err().to_string();
        assert!(
            refused.contains("/nowhere/module.so") && refused.contains("root.pkcs11.module"),
            "{refused}"
        );
        let no_token = Settings {
            token: "elsewhere".to_owned(),
            ..good.clone()
        };
        let ProviderError::Unavailable(why) = open(no_token).await.unwrap_err() else {
            panic!("a token may be plugged in")
        };
        assert!(why.to_string().contains("elsewhere"), "{why}");
        let no_pin = Settings {
            pin: PinSource::Environment("CALLVAULT_NO_SUCH_PIN".to_owned()),
            ..good
        };
        let refused = open(no_pin).await.unwrap_err().to_string();
        assert!(refused.contains("$CALLVAULT_NO_SUCH_PIN"), "{refused}");
    }

    fn an_anchor(region_seq: u64) -> Anchor {
        Anchor {
            vault: label(1).vault,
            region_seq,
            heads: vec![AnchoredHead {
                origin: "callvault/x/state/1/1".to_owned(),
                size: region_seq * 10,
                root: [7; 32],
            }],
        }
    }

    fn kept_anchors(session: &Session) -> Vec<(cryptoki::object::ObjectHandle, Vec<u8>)> {
        let found = session
            .find_objects(&[Attribute::Class(ObjectClass::DATA)])
            .unwrap();
        let value = |object| match &session.get_attributes(object, &[AttributeType::Value]).unwrap()[..] {
            [Attribute::Value(value)] => (object, value.clone()),
            other => panic!("{other:?}"),
        };
        found.into_iter().map(value).collect()
    }

    fn keep(session: &Session, value: Vec<u8>) {
        let object = [
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Application(b"callvault".to_vec()),
            Attribute::Label(b"callvault-anchor".to_vec()),
            Attribute::Value(value),
        ];
        session.create_object(&object).unwrap();
    }

    /// Between the new object and the end of the old one.
    #[tokio::test]
    #[ignore = "needs a token of its own"]
    async fn a_replacement_that_was_cut_short_leaves_the_last_anchor() {
        let (root, _dir) = root().await;
        let (_module, session) = operator();
        root.advance(&an_anchor(9)).await.unwrap();
        let old = kept_anchors(&session).remove(0).1;
        let last = an_anchor(2);
        root.advance(&last).await.unwrap();
        assert_eq!(kept_anchors(&session).len(), 1, "the one before is destroyed");
        keep(&session, old);
        assert_eq!(root.anchor().await.unwrap(), Some(last));
        let next = an_anchor(3);
        root.advance(&next).await.unwrap();
        assert_eq!(kept_anchors(&session).len(), 1);
        assert_eq!(root.anchor().await.unwrap(), Some(next));
    }

    #[tokio::test]
    #[ignore = "needs a token of its own"]
    async fn an_altered_anchor_is_corrupt() {
        let (root, _dir) = root().await;
        let (_module, session) = operator();
        root.advance(&an_anchor(9)).await.unwrap();
        let (object, value) = kept_anchors(&session).remove(0);
        for at in [8, 20, value.len() - 1] {
            let mut altered = value.clone();
            altered[at] ^= 1;
            for (object, _) in kept_anchors(&session) {
                session.destroy_object(object).unwrap();
            }
            keep(&session, altered);
            let refused = root.anchor().await.unwrap_err();
            assert!(matches!(refused, ProviderError::Corrupt), "{at}: {refused}");
        }
        assert!(session.destroy_object(object).is_err());
    }

    /// Made by somebody else under an epoch's label, so that it could be kept.
    #[tokio::test]
    #[ignore = "needs a token of its own"]
    async fn a_key_that_may_leave_the_token_is_refused() {
        let (root, _dir) = root().await;
        let (_module, session) = operator();
        let label = label(1);
        let id = [&label.vault.as_bytes()[..], &label.epoch.to_be_bytes()].concat();
        let template = [
            Attribute::Token(true),
            Attribute::KeyType(KeyType::AES),
            Attribute::Id(id),
            Attribute::Label(root.handle(label).into_bytes()),
            Attribute::ValueLen(32.into()),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
        let refused = root.create_epoch(label).await.unwrap_err();
        assert!(refused.to_string().contains("taken out of it"), "{refused}");
        // Another epoch is not held up by it.
        let other = EpochLabel { epoch: 2, ..label };
        root.create_epoch(other).await.unwrap();
    }
}

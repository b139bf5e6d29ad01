//! A token, asked by one thread: reached, logged in to, asked, and reached again when it was away.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{Mechanism, MechanismType, aead::GcmParams},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, SessionState, UserType},
    slot::Slot,
};
use zeroize::Zeroizing;

use crate::{
    crypto::{context, secret::EpochKey},
    domain::clock::Rng,
    keys::{
        anchor,
        provider::{Anchor, EpochLabel, ProviderError},
    },
};

use super::Settings;

const APPLICATION: &[u8] = b"callvault";
const NONCE_LEN: usize = 12;
const TAG_BITS: u64 = 128;
/// Nonce, epoch key, tag.
const WRAPPED_LEN: usize = NONCE_LEN + 32 + 16;

/// A token and the session with it, if there is one.
pub(super) struct Token {
    settings: Settings,
    module: Option<Pkcs11>,
    session: Option<Session>,
    /// Why it is not logged in to any more: a PIN that was refused is not tried again, for a token locks after a few.
    refused: Option<String>,
}

/// What a job may meet.
enum Failure {
    /// The answer is known.
    Known(ProviderError),
    /// The token said something; a new session may help.
    Told(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        Self::Known(error)
    }
}

impl Token {
    /// Nothing is asked yet.
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            module: None,
            session: None,
            refused: None,
        }
    }

    /// Logs in, and looks whether the token can do what it will be asked.
    pub(super) fn check(&mut self) -> Result<(), ProviderError> {
        self.with(|_| Ok(()))?;
        let Some(module) = &self.module else { return Ok(()) };
        let slot = self.slot(module)?;
        let can = module.get_mechanism_list(slot).map_err(told)?;
        match can.contains(&MechanismType::AES_GCM) {
            true => Ok(()),
            false => Err(ProviderError::Refused(format!(
                "the token {:?} does not know AES-GCM (CKM_AES_GCM); use one that does",
                self.settings.token
            ))),
        }
    }

    /// An epoch key, new, wrapped under the label's key object, which is made if there is none.
    pub(super) fn create_epoch(
        &mut self,
        label: EpochLabel,
        named: &str,
        rng: &dyn Rng,
    ) -> Result<Vec<u8>, ProviderError> {
        let epoch_key = EpochKey::generate(rng).map_err(ProviderError::unavailable)?;
        self.with(|session| {
            let key = match keys(session, label, named)?.first() {
                Some(made_before) => *made_before,
                None => make_key(session, label, named)?,
            };
            must_stay_on_the_token(session, key)?;
            let mut nonce = [0; NONCE_LEN];
            rng.fill(&mut nonce).map_err(ProviderError::unavailable)?;
            let sealed = {
                let aad = context::epoch_key(&label.vault, label.epoch);
                let parameters = GcmParams::new(&mut nonce, &aad, TAG_BITS.into())?;
                session.encrypt(&Mechanism::AesGcm(parameters), key, epoch_key.expose())?
            };
            // After the call: some tokens put a nonce of their own there.
            let wrapped = [&nonce[..], &sealed].concat();
            match wrapped.len() == WRAPPED_LEN {
                true => Ok(wrapped),
                false => {
                    Err(ProviderError::unavailable("the token's AES-GCM is not what it should be").into())
                }
            }
        })
    }

    /// The epoch key that was wrapped under the label's key object.
    pub(super) fn unwrap(
        &mut self,
        label: EpochLabel,
        named: &str,
        wrapped: &[u8],
        rng: &dyn Rng,
    ) -> Result<EpochKey, ProviderError> {
        self.with(|session| {
            let keys = keys(session, label, named)?;
            if keys.is_empty() {
                return Err(ProviderError::NoSuchKey.into());
            }
            let (nonce, sealed) = match wrapped.split_at_checked(NONCE_LEN) {
                Some(parts) if wrapped.len() == WRAPPED_LEN => parts,
                _ => return Err(ProviderError::Corrupt.into()),
            };
            let aad = context::epoch_key(&label.vault, label.epoch);
            // Two processes may have made one each at the same moment.
            for key in keys {
                let mut nonce = nonce.to_vec();
                let parameters = GcmParams::new(&mut nonce, &aad, TAG_BITS.into())?;
                match session.decrypt(&Mechanism::AesGcm(parameters), key, sealed) {
                    Ok(opened) => {
                        let opened = Zeroizing::new(opened);
                        return EpochKey::from_slice(&opened).map_err(|_| ProviderError::Corrupt.into());
                    }
                    Err(error) if is_unauthentic(&error) => {}
                    // SoftHSM's word for it, among others: the key says whether it is the token that fails.
                    Err(error) if is_vague(&error) && works(session, key, rng)? => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(ProviderError::Corrupt.into())
        })
    }

    /// Destroys every key object of a label, and looks again.
    pub(super) fn destroy(&mut self, label: EpochLabel, named: &str) -> Result<(), ProviderError> {
        self.with(|session| {
            for key in keys(session, label, named)? {
                session.destroy_object(key)?;
            }
            match keys(session, label, named)?.is_empty() {
                true => Ok(()),
                false => {
                    let still = "the token says that it destroyed a key, and still has it";
                    Err(ProviderError::unavailable(still).into())
                }
            }
        })
    }

    /// Whether a label has a key object.
    pub(super) fn has_epoch(&mut self, label: EpochLabel, named: &str) -> Result<bool, ProviderError> {
        self.with(|session| Ok(!keys(session, label, named)?.is_empty()))
    }

    /// The last anchor that was set. Where the one before is still there, a replacement was cut short: the last counts.
    pub(super) fn anchor(&mut self, named: &str) -> Result<Option<Anchor>, ProviderError> {
        self.with(|session| {
            let last = anchors(session, named)?
                .into_iter()
                .max_by_key(|kept| kept.serial);
            let last = last.map(|kept| anchor::decode(&kept.bytes)).transpose()?;
            Ok(last)
        })
    }

    /// Adds an anchor, then destroys those before it.
    pub(super) fn advance(&mut self, named: &str, encoded: &[u8]) -> Result<(), ProviderError> {
        self.with(|session| {
            let before = anchors(session, named)?;
            let last = before.iter().map(|kept| kept.serial).max().unwrap_or(0);
            let value = [&(last + 1).to_be_bytes()[..], encoded].concat();
            let mut object = anchor_template(named);
            object.extend([
                Attribute::Private(true),
                Attribute::Modifiable(false),
                Attribute::Value(value),
            ]);
            session.create_object(&object)?;
            for kept in before {
                session.destroy_object(kept.object)?;
            }
            Ok(())
        })
    }

    /// Asks in a session that is logged in; once more in a new one if the old one has ended meanwhile.
    fn with<T>(&mut self, ask: impl Fn(&Session) -> Result<T, Failure>) -> Result<T, ProviderError> {
        for is_last in [false, true] {
            let asked = match self.session() {
                Ok(session) => ask(session),
                Err(failure) => Err(failure),
            };
            match asked {
                Ok(answer) => return Ok(answer),
                Err(Failure::Known(error)) => return Err(error),
                Err(Failure::Told(error)) => {
                    // Whatever it was, the next one begins anew.
                    self.session = None;
                    if is_last || !has_ended(&error) {
                        return Err(told(error));
                    }
                    tracing::info!(%error, "the session with the token has ended; logging in again");
                }
            }
        }
        Err(ProviderError::unavailable("the token ends every session"))
    }

    /// The session, logged in: whoever is not sees no private object, and would take them all for destroyed.
    fn session(&mut self) -> Result<&Session, Failure> {
        let lives = |session: &Session| {
            let info = session.get_session_info();
            info.is_ok_and(|info| info.session_state() == SessionState::RwUser)
        };
        if !self.session.as_ref().is_some_and(lives) {
            // Before another one is opened, which may get its number.
            self.session = None;
            self.session = Some(self.log_in()?);
        }
        self.session
            .as_ref()
            .ok_or_else(|| ProviderError::unavailable("no session").into())
    }

    fn log_in(&mut self) -> Result<Session, Failure> {
        if let Some(why) = &self.refused {
            return Err(refused(why.clone()).into());
        }
        let module = self.module()?;
        let slot = self.slot(&module)?;
        let token = module.get_token_info(slot)?;
        if token.user_pin_locked() {
            return Err(refused("the token's PIN is locked; its security officer sets another one").into());
        }
        if token.user_pin_final_try() {
            let why = "one wrong PIN more would lock the token, and it is not risked; log in with the token's own tool \
                 first, which gives it its tries back";
            return Err(refused(why).into());
        }
        let session = module.open_rw_session(slot)?;
        let pin = self.settings.pin.read()?;
        match session.login_with_raw(UserType::User, &pin) {
            // As a process that has it open elsewhere is.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(Error::Pkcs11(said, function)) => match self.refused_pin(&said) {
                Some(why) => {
                    self.refused = Some(why.clone());
                    Err(refused(why).into())
                }
                None => Err(Error::Pkcs11(said, function).into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// What to do about a PIN that will not do.
    fn refused_pin(&self, said: &RvError) -> Option<String> {
        let (token, pin) = (&self.settings.token, &self.settings.pin);
        Some(match said {
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => format!(
                "the token {token:?} does not take the PIN of {pin}; it was tried once and is not tried again, for a token \
                 locks after a few. Correct the PIN, then start the vault again"
            ),
            RvError::PinLocked => {
                format!("the PIN of the token {token:?} is locked; its security officer sets another one")
            }
            RvError::PinExpired => {
                format!("the PIN of the token {token:?} has expired; set another one, and put it into {pin}")
            }
            RvError::UserPinNotInitialized => {
                format!(
                    "the token {token:?} has no user PIN yet; its security officer sets one, which goes into {pin}"
                )
            }
            _ => return None,
        })
    }

    /// The module, loaded and initialised. A process does both once, whoever else in it uses the module.
    fn module(&mut self) -> Result<Pkcs11, Failure> {
        let module = match &self.module {
            Some(loaded) => loaded.clone(),
            None => load(&self.settings.module).map_err(|error| {
                refused(format!(
                    "the module {} cannot be loaded: {error}; correct root.pkcs11.module",
                    self.settings.module.display()
                ))
            })?,
        };
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(error.into()),
        }
        self.module = Some(module.clone());
        Ok(module)
    }

    fn slot(&self, module: &Pkcs11) -> Result<Slot, ProviderError> {
        let mut found = Vec::new();
        for slot in module.get_slots_with_token().map_err(told)? {
            // A slot that cannot be asked holds another's token, or none any more.
            if let Ok(token) = module.get_token_info(slot)
                && token.token_initialized()
                && token.label().trim_end() == self.settings.token
            {
                found.push(slot);
            }
        }
        match found[..] {
            [slot] => Ok(slot),
            // It may be plugged in again.
            [] => Err(ProviderError::unavailable(format!(
                "there is no token labelled {:?}",
                self.settings.token
            ))),
            _ => Err(refused(format!(
                "several tokens are labelled {:?}; give the vault's a label of its own",
                self.settings.token
            ))),
        }
    }
}

/// A module, loaded once in a process, and never unloaded: few survive that.
fn load(path: &Path) -> Result<Pkcs11, Error> {
    static LOADED: Mutex<Vec<(PathBuf, Pkcs11)>> = Mutex::new(Vec::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, module)) = loaded.iter().find(|(other, _)| other == path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path)?;
    loaded.push((path.to_owned(), module.clone()));
    Ok(module)
}

/// An anchor on the token.
struct Kept {
    object: ObjectHandle,
    serial: u64,
    bytes: Vec<u8>,
}

fn anchors(session: &Session, named: &str) -> Result<Vec<Kept>, Failure> {
    let mut found = Vec::new();
    for object in session.find_objects(&anchor_template(named))? {
        for attribute in session.get_attributes(object, &[AttributeType::Value])? {
            let Attribute::Value(value) = attribute else {
                continue;
            };
            let (serial, bytes) = value.split_first_chunk().ok_or(ProviderError::Corrupt)?;
            found.push(Kept {
                object,
                serial: u64::from_be_bytes(*serial),
                bytes: bytes.to_vec(),
            });
        }
    }
    Ok(found)
}

fn anchor_template(named: &str) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Application(APPLICATION.to_vec()),
        Attribute::Label(named.as_bytes().to_vec()),
    ]
}

/// The key objects of a label: one, unless two processes made it at once.
fn keys(session: &Session, label: EpochLabel, named: &str) -> Result<Vec<ObjectHandle>, Failure> {
    let mut template = key_template(label, named);
    template.push(Attribute::Class(ObjectClass::SECRET_KEY));
    Ok(session.find_objects(&template)?)
}

fn key_template(label: EpochLabel, named: &str) -> Vec<Attribute> {
    let mut id = label.vault.as_bytes().to_vec();
    id.extend_from_slice(&label.epoch.to_be_bytes());
    vec![
        Attribute::Token(true),
        Attribute::KeyType(KeyType::AES),
        Attribute::Id(id),
        Attribute::Label(named.as_bytes().to_vec()),
    ]
}

fn make_key(session: &Session, label: EpochLabel, named: &str) -> Result<ObjectHandle, Failure> {
    let mut template = key_template(label, named);
    template.extend([
        Attribute::ValueLen(32.into()),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
    ]);
    Ok(session.generate_key(&Mechanism::AesKeyGen, &template)?)
}

/// Refuses a key that was somewhere else, or could go there: destroying it here would prove nothing.
fn must_stay_on_the_token(session: &Session, key: ObjectHandle) -> Result<(), Failure> {
    let asked = [AttributeType::AlwaysSensitive, AttributeType::NeverExtractable];
    let told = session.get_attributes(key, &asked)?;
    let stays =
        told.contains(&Attribute::AlwaysSensitive(true)) && told.contains(&Attribute::NeverExtractable(true));
    match stays {
        true => Ok(()),
        false => Err(refused(
            "the token has a key under an epoch's label that was or may be taken out of it; look who made it, and remove it",
        )
        .into()),
    }
}

/// What does not authenticate, in the words that tokens have for it.
fn is_unauthentic(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::EncryptedDataInvalid
                | RvError::EncryptedDataLenRange
                | RvError::SignatureInvalid
                | RvError::DataInvalid,
            _
        )
    )
}

/// A failure, of one or the other.
fn is_vague(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(RvError::GeneralError | RvError::FunctionFailed, _)
    )
}

/// Whether a key opens what it has just sealed.
fn works(session: &Session, key: ObjectHandle, rng: &dyn Rng) -> Result<bool, Failure> {
    let (mut nonce, sample) = ([0; NONCE_LEN], [0; 32]);
    rng.fill(&mut nonce).map_err(ProviderError::unavailable)?;
    let sealed = {
        let parameters = GcmParams::new(&mut nonce, APPLICATION, TAG_BITS.into())?;
        session.encrypt(&Mechanism::AesGcm(parameters), key, &sample)?
    };
    let parameters = GcmParams::new(&mut nonce, APPLICATION, TAG_BITS.into())?;
    Ok(session.decrypt(&Mechanism::AesGcm(parameters), key, &sealed)? == sample)
}

/// The session is none any more, or nobody is logged in.
fn has_ended(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::CryptokiNotInitialized
                | RvError::SessionClosed
                | RvError::SessionHandleInvalid
                | RvError::UserNotLoggedIn
                | RvError::DeviceRemoved
                | RvError::DeviceError
                | RvError::TokenNotPresent
                | RvError::SlotIdInvalid
                // Said of anything, also of two that use a token at once; every job may be repeated.
                | RvError::GeneralError
                | RvError::FunctionFailed
                // Objects have other handles after a restart.
                | RvError::ObjectHandleInvalid
                | RvError::KeyHandleInvalid,
            _
        )
    )
}

fn refused(why: impl Into<String>) -> ProviderError {
    ProviderError::Refused(why.into())
}

/// By its name and the function: the texts are long, and quote the standard.
fn told(error: Error) -> ProviderError {
    match error {
        Error::Pkcs11(said, function) => {
            ProviderError::unavailable(format!("the token answered {said:?} to {function:?}"))
        }
        error => ProviderError::unavailable(error),
    }
}

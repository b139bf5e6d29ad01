//! As much of AWS KMS as a root asks for, in this process: with its states, its pages, and what may go wrong on the way.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a test that asks for what KMS does not have is wrong

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State as Shared, response::IntoResponse, routing::post};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::{
    crypto::{aead, rng::SystemRng, secret::Secret},
    domain::clock::{Rng, Timestamp},
    keys::aws_kms::{Patience, Settings},
};

const REGION: &str = "us-east-1";
/// Keys that a page of a listing has: few, so that there are pages.
const PAGE: usize = 3;

/// What goes wrong, once, with an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this code.
    Refused(&'static str),
    /// It is done, and the answer is lost.
    AnswerLost,
    /// No answer comes.
    Silent,
}

#[derive(Debug)]
struct Key {
    material: Secret<32>,
    tags: BTreeMap<String, String>,
    state: &'static str,
    deletion: Option<i64>,
    origin: &'static str,
}

#[derive(Debug, Default)]
struct Account {
    keys: BTreeMap<String, Key>,
    aliases: BTreeMap<String, String>,
    faults: Vec<(String, Fault)>,
    asked: Vec<String>,
    now: i64,
}

/// A service, and its operator's hands.
#[derive(Clone, Debug)]
pub struct Service(Arc<Mutex<Account>>);

impl Service {
    #[allow(clippy::new_without_default)] // it is a service, not a value
    pub fn new() -> Self {
        let account = Account {
            now: 1_795_478_400,
            ..Account::default()
        };
        Self(Arc::new(Mutex::new(account)))
    }

    /// Serves it; returns where.
    pub async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(answer)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    /// How a root reaches it at `endpoint`; `dir` is given a file of credentials.
    pub fn settings(endpoint: &str, dir: &Path) -> Settings {
        let credentials = dir.join("kms-credentials");
        let text = "[default]\naws_access_key_id = any\naws_secret_access_key = any\n";
        fs::write(&credentials, text).unwrap();
        Settings {
            name: "callvault".to_owned(),
            region: REGION.to_owned(),
            endpoint: Some(endpoint.to_owned()),
            ca_file: None,
            profile: None,
            credentials_file: Some(credentials),
            deletion_days: 7,
            patience: Patience {
                attempts: 3,
                backoff: Duration::from_millis(5),
                connect: Duration::from_secs(2),
                read: Duration::from_secs(5),
                operation: Duration::from_secs(20),
            },
        }
    }

    fn account(&self) -> std::sync::MutexGuard<'_, Account> {
        self.0.lock().unwrap()
    }

    /// The next `operation` goes wrong so.
    pub fn fail(&self, operation: &str, fault: Fault) {
        self.account().faults.push((operation.to_owned(), fault));
    }

    /// How often an operation was asked for.
    pub fn asked(&self, operation: &str) -> usize {
        let account = self.account();
        account.asked.iter().filter(|asked| *asked == operation).count()
    }

    pub fn forget_asked(&self) {
        self.account().asked.clear();
    }

    /// States of all keys.
    pub fn states(&self) -> Vec<&'static str> {
        self.account().keys.values().map(|key| key.state).collect()
    }

    /// Time goes by; what is due is deleted, and its aliases.
    pub fn pass_days(&self, days: i64) {
        let mut account = self.account();
        account.now += days * 24 * 3_600;
        let now = account.now;
        account
            .keys
            .retain(|_, key| key.deletion.is_none_or(|at| at > now));
        let Account { keys, aliases, .. } = &mut *account;
        aliases.retain(|_, target| keys.contains_key(target));
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.account().now * 1_000_000)
    }

    /// What an operator may do to a key by its ARN.
    pub fn set(&self, arn: &str, state: &'static str) {
        let mut account = self.account();
        let key = account.keys.get_mut(id_of(arn)).unwrap();
        key.state = state;
        key.deletion = None;
    }

    /// The state of a key by its ARN, while there is one.
    pub fn state_of(&self, arn: &str) -> Option<&'static str> {
        self.account().keys.get(id_of(arn)).map(|key| key.state)
    }

    pub fn set_origin(&self, arn: &str, origin: &'static str) {
        self.account().keys.get_mut(id_of(arn)).unwrap().origin = origin;
    }

    pub fn move_alias(&self, alias: &str, arn: &str) {
        let id = id_of(arn).to_owned();
        self.account().aliases.insert(alias.to_owned(), id);
    }

    pub fn remove_aliases(&self) {
        self.account().aliases.clear();
    }

    /// Changes a tag's value of whichever key has it.
    pub fn alter_tag(&self, name: &str, alter: impl Fn(&mut String)) {
        for key in self.account().keys.values_mut() {
            key.tags.get_mut(name).into_iter().for_each(&alter);
        }
    }
}

fn id_of(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap()
}

fn arn(id: &str) -> String {
    format!("arn:aws:kms:{REGION}:123456789012:key/{id}")
}

async fn answer(Shared(service): Shared<Service>, headers: HeaderMap, body: String) -> impl IntoResponse {
    let target = headers["x-amz-target"].to_str().unwrap();
    let operation = target.strip_prefix("TrentService.").unwrap().to_owned();
    assert!(headers.contains_key("authorization"), "it is signed");
    let request: Value = serde_json::from_str(&body).unwrap();
    let fault = {
        let mut account = service.account();
        account.asked.push(operation.clone());
        let at = account.faults.iter().position(|(named, _)| *named == operation);
        at.map(|at| account.faults.remove(at).1)
    };
    match fault {
        Some(Fault::Silent) => tokio::time::sleep(Duration::from_secs(60)).await,
        Some(Fault::Refused(code)) => return refused(code),
        _ => {}
    }
    let answered = service.account().answer(&operation, &request);
    match (fault, answered) {
        (Some(Fault::AnswerLost), _) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        (_, Ok(answer)) => (StatusCode::OK, answer.to_string()),
        (_, Err(code)) => refused(code),
    }
}

fn refused(code: &str) -> (StatusCode, String) {
    let said = json!({ "__type": code, "message": "so it is" });
    (StatusCode::BAD_REQUEST, said.to_string())
}

type Answered = Result<Value, &'static str>;

impl Account {
    fn answer(&mut self, operation: &str, request: &Value) -> Answered {
        match operation {
            "CreateKey" => self.create_key(request),
            "CreateAlias" => self.create_alias(request),
            "DescribeKey" => {
                let id = self.find(request)?;
                Ok(json!({ "KeyMetadata": self.metadata(&id) }))
            }
            "ListKeys" => self.list_keys(request),
            "ListResourceTags" => {
                let id = self.find_key(request)?;
                let tags = self.keys[&id].tags.iter();
                let tags: Vec<_> = tags
                    .map(|(key, value)| json!({ "TagKey": key, "TagValue": value }))
                    .collect();
                Ok(json!({ "Tags": tags, "Truncated": false }))
            }
            "TagResource" => {
                let id = self.find_key(request)?;
                let key = self.keys.get_mut(&id).unwrap();
                if key.state == "PendingDeletion" {
                    return Err("KMSInvalidStateException");
                }
                key.tags.extend(tags(request));
                match key.tags.len() <= 50 {
                    true => Ok(json!({})),
                    false => Err("TagException"),
                }
            }
            "ScheduleKeyDeletion" => self.schedule(request),
            "Encrypt" => {
                let id = self.usable(request)?;
                let plain = STANDARD.decode(request["Plaintext"].as_str().unwrap()).unwrap();
                let key = &self.keys[&id];
                let sealed = aead::wrap(&key.material, &plain, &context(request), &SystemRng::new());
                let blob = STANDARD.encode(sealed.unwrap());
                Ok(json!({ "CiphertextBlob": blob, "KeyId": arn(&id) }))
            }
            "Decrypt" => {
                let id = self.usable(request)?;
                let sealed = STANDARD
                    .decode(request["CiphertextBlob"].as_str().unwrap())
                    .unwrap();
                let opened = aead::unwrap_to(&self.keys[&id].material, &sealed, &context(request));
                let opened = opened.map_err(|_| "InvalidCiphertextException")?;
                Ok(json!({ "Plaintext": STANDARD.encode(opened.expose()), "KeyId": arn(&id) }))
            }
            other => panic!("a root does not ask for {other}"),
        }
    }

    fn create_key(&mut self, request: &Value) -> Answered {
        let mut bytes = [0; 16];
        SystemRng::new().fill(&mut bytes).unwrap();
        let id = hex::encode(bytes);
        let key = Key {
            material: Secret::generate(&SystemRng::new()).unwrap(),
            tags: tags(request).collect(),
            state: "Enabled",
            deletion: None,
            origin: "AWS_KMS",
        };
        self.keys.insert(id.clone(), key);
        Ok(json!({ "KeyMetadata": self.metadata(&id) }))
    }

    fn create_alias(&mut self, request: &Value) -> Answered {
        let id = id_of(request["TargetKeyId"].as_str().unwrap()).to_owned();
        let key = self.keys.get(&id).ok_or("NotFoundException")?;
        if key.state == "PendingDeletion" {
            return Err("KMSInvalidStateException");
        }
        let alias = request["AliasName"].as_str().unwrap().to_owned();
        if self.aliases.contains_key(&alias) {
            return Err("AlreadyExistsException");
        }
        self.aliases.insert(alias, id);
        Ok(json!({}))
    }

    fn list_keys(&self, request: &Value) -> Answered {
        let after = request["Marker"].as_str().unwrap_or_default();
        let rest = self.keys.keys().filter(|id| id.as_str() > after);
        let page: Vec<_> = rest.take(PAGE + 1).collect();
        let keys: Vec<_> = page
            .iter()
            .take(PAGE)
            .map(|id| json!({ "KeyId": id, "KeyArn": arn(id) }))
            .collect();
        let more = page.len() > PAGE;
        let mut answer = json!({ "Keys": keys, "Truncated": more });
        if more {
            answer["NextMarker"] = json!(page[PAGE - 1]);
        }
        Ok(answer)
    }

    fn schedule(&mut self, request: &Value) -> Answered {
        let id = self.find_key(request)?;
        let days = request["PendingWindowInDays"].as_i64().unwrap();
        assert!((7..=30).contains(&days));
        let at = self.now + days * 24 * 3_600;
        let key = self.keys.get_mut(&id).unwrap();
        if key.state == "PendingDeletion" {
            return Err("KMSInvalidStateException");
        }
        (key.state, key.deletion) = ("PendingDeletion", Some(at));
        Ok(json!({ "KeyId": arn(&id), "DeletionDate": at as f64, "KeyState": "PendingDeletion" }))
    }

    fn metadata(&self, id: &str) -> Value {
        let key = &self.keys[id];
        let mut metadata = json!({
            "KeyId": id, "Arn": arn(id), "KeyState": key.state, "Origin": key.origin, "Enabled": key.state == "Enabled",
        });
        if let Some(at) = key.deletion {
            metadata["DeletionDate"] = json!(at as f64);
        }
        metadata
    }

    /// By id, ARN or alias.
    fn find(&self, request: &Value) -> Result<String, &'static str> {
        let named = request["KeyId"].as_str().unwrap();
        match named.starts_with("alias/") {
            true => self.aliases.get(named).cloned().ok_or("NotFoundException"),
            false => self.find_key(request),
        }
    }

    /// By id or ARN.
    fn find_key(&self, request: &Value) -> Result<String, &'static str> {
        let id = id_of(request["KeyId"].as_str().unwrap()).to_owned();
        match self.keys.contains_key(&id) {
            true => Ok(id),
            false => Err("NotFoundException"),
        }
    }

    fn usable(&self, request: &Value) -> Result<String, &'static str> {
        let id = self.find(request)?;
        match self.keys[&id].state {
            "Enabled" => Ok(id),
            "Disabled" => Err("DisabledException"),
            _ => Err("KMSInvalidStateException"),
        }
    }
}

fn tags(request: &Value) -> impl Iterator<Item = (String, String)> {
    let tags = request["Tags"].as_array().unwrap().iter();
    tags.map(|tag| {
        let field = |name: &str| tag[name].as_str().unwrap().to_owned();
        let (key, value) = (field("TagKey"), field("TagValue"));
        assert!(key.len() <= 128 && value.len() <= 256, "{key}={value}");
        (key, value)
    })
    .collect::<Vec<_>>()
    .into_iter()
}

fn context(request: &Value) -> Vec<u8> {
    let pairs: BTreeMap<String, String> =
        serde_json::from_value(request["EncryptionContext"].clone()).unwrap_or_default();
    format!("{pairs:?}").into_bytes()
}

//! A vault behind a real server, and requests to begin with.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use callvault::{
    access::{
        identity::{Callers, Listed},
        policy::PolicySet,
        token::{ClaimGrant, GrantedTenants, Issuer, IssuerSpec, Issuers, KeySet, TokenAlgorithm},
    },
    blob::{local::LocalStore, store::BlobStore},
    client::{Client, ClientConfig, ClientError, Content, Identity, Retry},
    config::{ClientCertificates, Limits, Tls},
    crypto::rng::SystemRng,
    domain::{
        clock::{Clock, Rng, SystemClock},
        ids::IndexId,
        principal::{Principal, Role, Teams, TenantScope},
    },
    grpc::{self, StreamLimits},
    index::{
        Index,
        memory::MemoryIndex,
        sled::{SledIndex, SledOptions},
    },
    keys::file::FileRoot,
    proto::v1::*,
    server::{Drain, Server, ServerTls, pki::DevPki},
    spool::Directory,
    testing::issuer::TokenSigner,
    vault::{Opened, UploadSettings, Vault, VaultSettings},
};
use tempfile::TempDir;
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

pub(crate) const TENANT: &str = "dev";
pub(crate) const OTHER: &str = "other";
pub(crate) const PURPOSE: &str = "ServiceProvision";
pub(crate) const MIB: usize = 1 << 20;

/// One vault, one server, two tenants (`dev` and `other`) with a default retention class.
pub(crate) struct World {
    pub(crate) store: Arc<LocalStore>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) drain: Drain,
    pub(crate) callers: Arc<Callers>,
    address: std::net::SocketAddr,
    pki: DevPki,
    _opened: Opened,
    dir: TempDir,
}

/// What a world is made with.
pub(crate) struct Plan {
    pub(crate) limits: StreamLimits,
    pub(crate) server: Limits,
    pub(crate) memory_budget: u64,
    pub(crate) identities: Listed,
    pub(crate) issuers: Issuers,
    pub(crate) policies: Option<PolicySet>,
    pub(crate) sled: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            limits: StreamLimits::default(),
            server: Limits {
                drain_seconds: 1,
                ..Limits::default()
            },
            memory_budget: 256 << 20,
            identities: DevPki::identities().unwrap(),
            issuers: Issuers::new([], Arc::new(SystemClock)),
            policies: None,
            sled: false,
        }
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(Plan::default()).await
    }

    pub(crate) async fn start_with(plan: Plan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) =
            (Arc::new(SystemClock), Arc::new(SystemRng::new()));
        let blobs = dir.path().join("blobs");
        let store = LocalStore::open(&blobs, Arc::clone(&clock), Arc::clone(&rng));
        let store = Arc::new(store.await.unwrap());
        let index: Arc<dyn Index> = if plan.sled {
            Arc::new(
                SledIndex::open(
                    &dir.path().join("index"),
                    SledOptions {
                        cache_bytes: 16 << 20,
                    },
                )
                .unwrap(),
            )
        } else {
            Arc::new(MemoryIndex::new())
        };
        let settings = VaultSettings {
            region: "local".parse().unwrap(),
            country: "MX".to_owned(),
            node: 0,
            memory_budget: plan.memory_budget,
            tenant_share_percent: callvault::domain::limits::TENANT_SHARE_PERCENT,
            index_id: IndexId::mint(clock.now(), &*rng).unwrap(),
            take_over: false,
            uploads: UploadSettings::new(Arc::new(Directory::open(&dir.path().join("spool")).unwrap())),
            recovery: None,
        };
        let root = FileRoot::open(&dir.path().join("root"), Arc::clone(&rng)).unwrap();
        let blobs: Arc<dyn BlobStore> = Arc::clone(&store) as _;
        let opened = Vault::open(settings, blobs, index, Arc::new(root), clock, rng);
        let opened = opened.await.unwrap();
        let pki = DevPki::open(dir.path(), &SystemClock).unwrap();
        let drain = Drain::new();
        let addresses = callvault::server::Addresses {
            api: (Ipv4Addr::LOCALHOST, 0).into(),
            ops: None,
        };
        // Without a certificate nobody is anybody, unless a test has issuers.
        let files = Tls {
            client_certificates: ClientCertificates::Optional,
            ..pki.tls()
        };
        let tls = Arc::new(ServerTls::load(&files).unwrap());
        let policies = plan.policies.unwrap_or_else(default_policies);
        let callers = Arc::new(Callers::new(
            plan.identities,
            plan.issuers,
            policies,
            Arc::new(SystemClock),
        ));
        let server = Server::bind(addresses, plan.server, tls, Arc::clone(&callers), drain.clone());
        let server = server.await.unwrap();
        let address = server.api_address().unwrap();
        tokio::spawn(server.run(grpc::routes(&opened.vault, plan.limits)));
        let world = Self {
            vault: Arc::clone(&opened.vault),
            store,
            drain,
            callers,
            address,
            pki,
            _opened: opened,
            dir,
        };
        world.make_tenants().await;
        world
    }

    /// A world whose callers come with tokens, whatever their role, their tenants and their country.
    pub(crate) async fn of_bearers() -> (Self, Bearers) {
        let bearers = Bearers {
            signer: TokenSigner::ed25519(),
        };
        let issuers = COUNTRIES.map(|(name, country)| {
            let issuer = Arc::new(Issuer::new(bearers_of(name, country)));
            let keys = KeySet::parse(bearers.signer.set("k").as_bytes()).unwrap();
            issuer.learn(keys, SystemClock.now());
            issuer
        });
        let plan = Plan {
            issuers: Issuers::new(issuers, Arc::new(SystemClock)),
            ..Plan::default()
        };
        (Self::start_with(plan).await, bearers)
    }

    /// A connection of nobody.
    pub(crate) async fn bare_client(&self) -> Client {
        let nobody = self.dir.path().join("no-token");
        std::fs::write(&nobody, "none").unwrap();
        self.bearing(&nobody).await
    }

    /// A connection of whoever a token in a file says.
    pub(crate) async fn bearing(&self, file: &std::path::Path) -> Client {
        let config = ClientConfig {
            identity: Identity {
                token_file: Some(file.to_owned()),
                ..Identity::default()
            },
            ..self.config(Role::Reader)
        };
        Client::connect(&config).await.unwrap().with_retry(Retry::NEVER)
    }

    async fn make_tenants(&self) {
        for tenant in [TENANT, OTHER] {
            let id = tenant.parse().unwrap();
            self.vault
                .create_tenant("setup", &id, Default::default(), None)
                .await
                .unwrap();
            let class = callvault::domain::tenant::RetentionClass {
                id: "standard".parse().unwrap(),
                minimum_days: 0,
                maximum_days: None,
                action: callvault::domain::tenant::RetentionAction::Shred,
                jurisdiction: None,
                legal_ground: None,
                effective: Default::default(),
                created: Default::default(),
            };
            self.vault
                .create_retention_class("setup", &id, class, None)
                .await
                .unwrap();
            let change = callvault::vault::TenantChange {
                fields: BTreeSet::from(["default_retention_class"]),
                settings: callvault::domain::tenant::TenantSettings {
                    default_retention_class: Some("standard".parse().unwrap()),
                    ..Default::default()
                },
            };
            self.vault
                .update_tenant("setup", &id, &change, None, None)
                .await
                .unwrap();
        }
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    pub(crate) fn config(&self, role: Role) -> ClientConfig {
        let (certificate, key) = self.pki.client(role);
        ClientConfig {
            endpoint: format!("https://{}", self.address),
            server_name: None,
            ca: self.pki.authority(),
            identity: Identity::with_certificate(certificate, key),
            purpose: Some(PURPOSE.to_owned()),
        }
    }

    pub(crate) async fn client(&self, role: Role) -> Client {
        let client = Client::connect(&self.config(role)).await.unwrap();
        client.with_retry(Retry::NEVER)
    }

    /// Uploads content under a descriptor.
    pub(crate) async fn put(&self, descriptor: Descriptor, content: impl Into<Bytes>) -> Record {
        let uploader = self.client(Role::Uploader).await;
        let put = uploader.put_recording(spec(descriptor), Content::bytes(content), None);
        put.await.unwrap()
    }

    /// Blobs in the store, and uploads that were begun and not ended.
    pub(crate) async fn leftovers(&self) -> (usize, usize) {
        let blobs = self.store.list("blobs/", false, None, 1_000).await.unwrap();
        let uploads = self.store.uploads("").await.unwrap();
        (blobs.objects.len(), uploads.len())
    }

    /// Damages the store's only blob.
    pub(crate) fn flip_byte_of_the_only_blob(&self, offset: usize) {
        let mut dirs = vec![self.dir.path().join("blobs")];
        let mut largest = (0, std::path::PathBuf::new());
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                } else {
                    largest = largest.max((entry.metadata().unwrap().len(), entry.path()));
                }
            }
        }
        let mut bytes = std::fs::read(&largest.1).unwrap();
        bytes[offset] ^= 1;
        std::fs::write(&largest.1, bytes).unwrap();
    }

    /// Waits until the store holds nothing of an upload.
    pub(crate) async fn expect_nothing_left(&self) {
        for _ in 0..100 {
            if self.leftovers().await == (0, 0) {
                // What was still on its way to the store must not bring it back.
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert_eq!(self.leftovers().await, (0, 0));
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("left (blobs, uploads): {:?}", self.leftovers().await);
    }
}

/// The agent that every bearer is, and the team that it sees.
pub(crate) const BEARER_AGENT: &str = "a-7";
pub(crate) const BEARER_TEAM: &str = "north";

/// Where bearers call from, by the issuer of their token.
const COUNTRIES: [(&str, Option<&str>); 3] =
    [("home", Some("MX")), ("abroad", Some("US")), ("unknown", None)];

/// Makes tokens for whomever.
pub(crate) struct Bearers {
    signer: TokenSigner,
}

impl Bearers {
    /// Of a role, for one tenant or for all.
    pub(crate) fn token(&self, role: Role, country: &str, all: bool) -> String {
        let role = if all {
            format!("{role}-everywhere")
        } else {
            role.to_string()
        };
        let ends = SystemClock.now().micros() / 1_000_000 + 3_000;
        let claims = serde_json::json!({"iss": format!("https://{country}"), "aud": "callvault", "sub": role, "roles": [role],
            "tenants": [TENANT], "agent": BEARER_AGENT, "teams": [BEARER_TEAM], "exp": ends});
        self.signer.token("k", &claims)
    }
}

fn bearers_of(name: &str, country: Option<&str>) -> IssuerSpec {
    let grants = Role::ALL.iter().flat_map(|role| {
        let grant = |value: String, tenants| ClaimGrant {
            claim: "roles".to_owned(),
            value,
            roles: [*role].into(),
            tenants,
        };
        [
            grant(role.to_string(), GrantedTenants::Claim("tenants".to_owned())),
            grant(
                format!("{role}-everywhere"),
                GrantedTenants::Scope(TenantScope::All),
            ),
        ]
    });
    IssuerSpec {
        issuer: format!("https://{name}"),
        audience: "callvault".to_owned(),
        algorithms: vec![TokenAlgorithm::EdDsa],
        skew: Duration::ZERO,
        life: Duration::from_secs(3_600),
        must_be_bound: false,
        alias_claim: "sub".to_owned(),
        alias_prefix: String::new(),
        agent_claim: Some("agent".to_owned()),
        teams_claim: Some("teams".to_owned()),
        country: country.map(|country| country.parse().unwrap()),
        grants: grants.collect(),
        stale: Duration::from_secs(3_600),
    }
}

/// The roles, and nothing else.
pub(crate) fn default_policies() -> PolicySet {
    PolicySet::default_set("MX".parse().unwrap()).unwrap()
}

/// The dev identities, but `role` only for the tenants given.
pub(crate) fn scoped(role: Role, tenants: &[&str]) -> Listed {
    let listed = Role::ALL.iter().map(|r| {
        let scope = if *r == role {
            TenantScope::Some(tenants.iter().map(|t| t.parse().unwrap()).collect())
        } else {
            TenantScope::All
        };
        let name = format!("spiffe://callvault/dev/{r}");
        let principal = Principal::new(r.name(), [*r], scope).unwrap();
        let principal = principal
            .from_country("MX".parse().ok())
            .at_work_as(None, Teams::All);
        (name, principal)
    });
    Listed::new(listed).unwrap()
}

pub(crate) fn at(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

pub(crate) fn descriptor() -> Descriptor {
    Descriptor {
        conversation_id: "conversation-1".to_owned(),
        channel: Channel::Voice.into(),
        start_time: Some(at(1_700_000_000)),
        ..Default::default()
    }
}

pub(crate) fn spec(descriptor: Descriptor) -> PutRecordingSpec {
    PutRecordingSpec {
        tenant_id: TENANT.to_owned(),
        descriptor: Some(descriptor),
        ..Default::default()
    }
}

/// Content that is nowhere the same.
pub(crate) fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(word)
        .take(len.div_ceil(8))
        .flatten()
        .collect();
    bytes.truncate(len);
    bytes
}

/// The reason and the field of a refusal.
pub(crate) fn why<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (String, String) {
    let error = answer.unwrap_err();
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    (text(error.reason()), text(error.field()))
}

pub(crate) fn is(reason: &str, field: &str) -> (String, String) {
    (reason.to_owned(), field.to_owned())
}

/// Sends hand-made bytes as one unary or server-streaming request, and returns the first answer.
pub(crate) async fn raw(
    client: &Client,
    path: &'static str,
    message: impl Into<Bytes>,
    purpose: Option<&str>,
) -> Result<Bytes, Status> {
    let mut call = tonic::client::Grpc::new(client.channel());
    call.ready().await.unwrap();
    let mut request = Request::new(message.into());
    if let Some(purpose) = purpose {
        request
            .metadata_mut()
            .insert("callvault-purpose", purpose.parse().unwrap());
    }
    let path = http::uri::PathAndQuery::from_static(path);
    let mut answer = call.server_streaming(request, path, Raw).await?.into_inner();
    Ok(answer.message().await?.unwrap_or_default())
}

/// Bytes as they are.
#[derive(Clone, Copy)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

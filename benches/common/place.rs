//! A directory with certificates, a configuration and a client file, removed in the end.

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use callvault::{
    client::{Client, ClientFile, Identity, Retry},
    config::{Config, Index, Keys, Limits, Listing, Log, Region, Root, S3, S3Checksum, Store},
    domain::{clock::SystemClock, principal::Role},
    proto::v1::{
        CreateRetentionClassRequest, CreateTenantRequest, RetentionAction, RetentionClass, Tenant,
        UpdateTenantRequest,
    },
    server::pki::DevPki,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;

use super::Failure;

/// The bucket's name.
pub(crate) const BUCKET: &str = "bench";
/// The retention class of everything.
pub(crate) const CLASS: &str = "bench";

/// A directory below `CALLVAULT_BENCH_DIR`, or else the system's own for what is temporary.
pub(crate) fn directory() -> Result<TempDir, Failure> {
    let below = env::var_os("CALLVAULT_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    Ok(tempfile::Builder::new()
        .prefix("callvault-bench")
        .tempdir_in(below)?)
}

/// A place for a vault on a bucket that speaks S3.
pub(crate) struct Place {
    dir: TempDir,
    /// Where the vault tells what it has counted.
    pub(crate) ops: SocketAddr,
}

impl Place {
    pub(crate) fn new() -> Result<Self, Failure> {
        // A port that was free a moment ago.
        let ops = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let place = Self {
            dir: directory()?,
            ops,
        };
        let home = place.home();
        fs::create_dir_all(&home)?;
        let pki = DevPki::open(&home, &SystemClock)?;
        fs::write(place.credentials(), credentials())?;
        let roles = Role::ALL.iter().map(|role| {
            let (certificate, key) = pki.client(*role);
            (
                role.name().to_owned(),
                Identity::with_certificate(certificate, key),
            )
        });
        let client = ClientFile {
            endpoint: "https://127.0.0.1:1".to_owned(),
            server_name: None,
            tenant: Some("bench-1".to_owned()),
            purpose: Some("ServiceProvision".to_owned()),
            ca: pki.authority(),
            roles: roles.collect::<BTreeMap<_, _>>(),
        };
        fs::write(home.join("client.toml"), toml::to_string(&client)?)?;
        Ok(place)
    }

    /// Where certificates, credentials and the client file lie.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn credentials(&self) -> PathBuf {
        credentials_file(&self.home())
    }

    /// Writes the configuration of a vault on the bucket at `address`, with all defaults, and says where.
    pub(crate) fn configure(&self, bucket: &str) -> Result<PathBuf, Failure> {
        let pki = DevPki::open(&self.home(), &SystemClock)?;
        let dir = self.dir.path();
        let store = S3 {
            bucket: BUCKET.to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some(format!("https://{bucket}")),
            allow_http: false,
            path_style: None,
            ca_file: Some(pki.authority()),
            profile: None,
            credentials_file: Some(self.credentials()),
            checksum: S3Checksum::Crc32c,
            tags: BTreeMap::new(),
            attempts: 4,
            connect_seconds: 5,
            read_seconds: 30,
            operation_seconds: 120,
        };
        let principals = Role::ALL.iter().map(|role| Listing {
            certificate: format!("spiffe://callvault/dev/{role}"),
            alias: role.name().to_owned(),
            roles: vec![role.name().to_owned()],
            tenants: vec!["*".to_owned()],
            country: None,
            agent: None,
            teams: vec!["*".to_owned()],
        });
        let config = Config {
            listen: "127.0.0.1:0".parse()?,
            ops_listen: Some(self.ops),
            data: dir.join("data"),
            root: Root::directory(dir.join("root")),
            region: Region {
                name: "bench".to_owned(),
                country: "MX".to_owned(),
            },
            recovery_store: None,
            store: Store::S3(Box::new(store)),
            tls: Some(pki.tls()),
            principals: principals.collect(),
            issuers: Vec::new(),
            policy: Default::default(),
            limits: Limits::default(),
            log: Log::default(),
            index: Index::default(),
            keys: Keys::default(),
        };
        let path = dir.join("callvault.toml");
        fs::write(&path, toml::to_string(&config)?)?;
        Ok(path)
    }
}

/// A client of the server at `address`, with the certificates below `home`. Without patience: a refusal is a result.
pub(crate) async fn connect(home: &Path, address: &str, role: &str) -> Result<Client, Failure> {
    let mut config = ClientFile::load(&home.join("client.toml"))?.role(role)?;
    config.endpoint = format!("https://{address}");
    Ok(Client::connect(&config).await?.with_retry(Retry::NEVER))
}

/// The client file of a process that is to speak with the server at `address`.
pub(crate) fn client_file(home: &Path, address: &str) -> Result<PathBuf, Failure> {
    let mut client = ClientFile::load(&home.join("client.toml"))?;
    client.endpoint = format!("https://{address}");
    let path = home.join(format!("client-{}.toml", address.replace(':', "-")));
    fs::write(&path, toml::to_string(&client)?)?;
    Ok(path)
}

/// Makes the tenants `bench-1` to `bench-<count>`, some at a time.
pub(crate) async fn make_tenants(home: &Path, address: &str, count: usize) -> Result<(), Failure> {
    let admin = connect(home, address, "tenant-admin").await?;
    let made = stream::iter(1..=count)
        .map(|number| make_tenant(&admin, number))
        .buffer_unordered(8);
    made.try_collect().await
}

async fn make_tenant(admin: &Client, number: usize) -> Result<(), Failure> {
    let tenant_id = tenant(number);
    let request = CreateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: tenant_id.clone(),
            ..Tenant::default()
        }),
        ..CreateTenantRequest::default()
    };
    admin.create_tenant(request).await?;
    let request = CreateRetentionClassRequest {
        tenant_id,
        retention_class: Some(RetentionClass {
            retention_class_id: CLASS.to_owned(),
            maximum_days: 1,
            action: RetentionAction::Shred.into(),
            ..RetentionClass::default()
        }),
        ..CreateRetentionClassRequest::default()
    };
    admin.create_retention_class(request).await?;
    let request = UpdateTenantRequest {
        tenant_id: tenant(number),
        tenant: Some(Tenant {
            default_retention_class: CLASS.to_owned(),
            ..Tenant::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["default_retention_class".to_owned()],
        }),
        ..UpdateTenantRequest::default()
    };
    admin.update_tenant(request).await?;
    Ok(())
}

pub(crate) fn tenant(number: usize) -> String {
    format!("bench-{number}")
}

pub(crate) fn credentials_file(home: &Path) -> PathBuf {
    home.join("credentials")
}

/// The bucket looks at none.
fn credentials() -> &'static str {
    "[default]\naws_access_key_id = AKIDBENCH\naws_secret_access_key = not-a-secret\n"
}

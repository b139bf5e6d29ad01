//! Values of index rows: a message and a MAC under a key derived from the root, bound to the row's key.
//!
//! Whoever writes the index can then deny service, or put back an old row until the next `verify`, and nothing else.

use prost::Message;

use std::sync::Arc;

use crate::{
    blob::format::Request,
    crypto::{blind, context::Context},
    domain::ids::{RequestId, TenantId},
    index::{Key, LogKind, Row, Scope},
    keys::region::RegionKeys,
};

use super::Error;

const MAC_LEN: usize = 16;

/// Makes and opens the values of rows.
#[derive(Clone, Debug)]
pub(crate) struct RowCodec(Arc<RegionKeys>);

impl RowCodec {
    pub(crate) fn new(region: Arc<RegionKeys>) -> Self {
        Self(region)
    }

    /// A row of this message.
    pub(crate) fn row(&self, key: Key, message: &impl Message) -> Row {
        let mut value = message.encode_to_vec();
        let mac = blind::row_mac(self.0.row_mac(), &key_bytes(&key), &value);
        value.extend_from_slice(&mac);
        Row { key, value }
    }

    /// The message of a row.
    ///
    /// # Errors
    /// [`Error::corrupt`] if it is not one that this vault wrote under this key.
    pub(crate) fn open<M: Message + Default>(&self, key: &Key, value: &[u8]) -> Result<M, Error> {
        let (message, mac) = value
            .split_last_chunk::<MAC_LEN>()
            .ok_or_else(|| Error::corrupt("index row"))?;
        if !blind::row_mac_ok(self.0.row_mac(), &key_bytes(key), message, mac) {
            return Err(Error::corrupt("index row"));
        }
        M::decode(message).map_err(|_| Error::corrupt("index row"))
    }

    /// A request of a call that must be known again even when the tenant's own keys are gone, and what it asked.
    pub(crate) fn request(&self, tenant: &TenantId, request: &RequestId, asked: &[u8]) -> Request {
        let mac = |what: &'static str, about: &[u8]| {
            let half = |half: u32| {
                let key = Context::new(what).text(tenant.as_str()).u32(half).finish();
                blind::row_mac(self.0.row_mac(), &key, about)
            };
            let mut whole = [0; 2 * MAC_LEN];
            whole[..MAC_LEN].copy_from_slice(&half(0));
            whole[MAC_LEN..].copy_from_slice(&half(1));
            whole
        };
        Request {
            mac: mac("callvault/v1/erasure-request", request.as_str().as_bytes()),
            fingerprint: mac("callvault/v1/erasure-fingerprint", asked),
        }
    }

    /// A digest by which a request about keys is known again, of a tenant or of the region.
    pub(crate) fn request_mac(&self, tenant: Option<&TenantId>, request: &RequestId) -> [u8; MAC_LEN] {
        let tenant = tenant.map_or("", TenantId::as_str);
        let key = Context::new("callvault/v1/key-request").text(tenant).finish();
        blind::row_mac(self.0.row_mac(), &key, request.as_str().as_bytes())
    }
}

/// The message of a row whose MAC cannot be checked yet: an epoch is read to find the key that the MAC is made with.
///
/// # Errors
/// [`Error::corrupt`] if it is malformed.
pub(crate) fn unchecked<M: Message + Default>(value: &[u8]) -> Result<M, Error> {
    let corrupt = || Error::corrupt("index row");
    let (message, _) = value.split_last_chunk::<MAC_LEN>().ok_or_else(corrupt)?;
    M::decode(message).map_err(|_| corrupt())
}

/// One encoding for every key, whatever the engine: the table's number, then its columns.
fn key_bytes(key: &Key) -> Vec<u8> {
    let row = |table: u32| Context::new("callvault/v1/row").u32(table);
    match key {
        Key::Meta(name) => row(1).text(name),
        Key::Epoch(epoch) => row(2).u64(*epoch),
        Key::RegionPage(page) => row(3).bytes(page.as_bytes()),
        Key::Log(log) => row(4).u32(log_kind(log.kind)).u32(log.node).u64(log.term),
        Key::LogNext(log) => row(5).u32(log_kind(log.kind)).u32(log.node).u64(log.term),
        Key::Sequence(Scope::Fact) => row(6),
        Key::Sequence(Scope::Region) => row(7),
        Key::Sequence(Scope::Tenant(tenant)) => row(8).text(tenant.as_str()),
        Key::Tenant(tenant) => row(9).text(tenant.as_str()),
        Key::TenantKey(tenant, version) => row(10).text(tenant.as_str()).u64(*version),
        Key::RetentionClass(tenant, class) => row(11).text(tenant.as_str()).text(class.as_str()),
        Key::Page(tenant, page) => row(12).text(tenant.as_str()).bytes(page.as_bytes()),
        Key::OpenPage(tenant, class, month) => row(13).text(tenant.as_str()).text(class).u32(*month),
        Key::Record(tenant, record) => row(14).text(tenant.as_str()).bytes(record.as_bytes()),
        Key::ByTime(tenant, start, record) => row(15)
            .text(tenant.as_str())
            .i64(start.micros())
            .bytes(record.as_bytes()),
        Key::ByConversation(tenant, number, start, record) => row(16)
            .text(tenant.as_str())
            .bytes(number)
            .i64(start.micros())
            .bytes(record.as_bytes()),
        Key::BySubject(tenant, number, start, record) => row(17)
            .text(tenant.as_str())
            .bytes(number)
            .i64(start.micros())
            .bytes(record.as_bytes()),
        Key::BySource(tenant, source, start, record) => row(21)
            .text(tenant.as_str())
            .bytes(source.as_bytes())
            .i64(start.micros())
            .bytes(record.as_bytes()),
        Key::Identifier(tenant, blind) => row(18).text(tenant.as_str()).bytes(blind),
        Key::External(tenant, blind) => row(19).text(tenant.as_str()).bytes(blind),
        Key::Request(tenant, blind) => row(20).text(tenant.as_str()).bytes(blind),
        Key::KeyOperation(operation) => row(22).bytes(operation.as_bytes()),
        Key::Erasure(tenant, erasure) => row(23).text(tenant.as_str()).bytes(erasure.as_bytes()),
        Key::DueErasure(due, tenant, erasure) => row(24)
            .i64(due.micros())
            .text(tenant.as_str())
            .bytes(erasure.as_bytes()),
        Key::Tombstone(tenant, record) => row(25).text(tenant.as_str()).bytes(record.as_bytes()),
        Key::Unswept(tenant, erasure) => row(26).text(tenant.as_str()).bytes(erasure.as_bytes()),
        Key::Purge(tenant, object) => row(27).text(tenant.as_str()).text(object),
        Key::Blinding(tenant) => row(28).text(tenant.as_str()),
        Key::Renumber(tenant, number) => row(29).text(tenant.as_str()).bytes(number),
    }
    .finish()
}

fn log_kind(kind: LogKind) -> u32 {
    match kind {
        LogKind::State => 1,
        LogKind::Access => 2,
    }
}

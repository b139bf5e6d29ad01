//! Records are found: the narrowest index that the query allows, then what is sealed is opened and compared.

use crate::{
    crypto::context::Context,
    domain::{
        clock::Timestamp,
        ids::{RecordId, TenantId},
        judge::Reason,
        record::{Query, Record},
    },
    index::{Key, Range, Scan, key::Number},
    keys::tenant::TenantKeys,
};

use super::{Error, Kind, Vault, page_token, record::may_see, terms};

/// Rows looked at for one page: a query that matches little answers with a short page and a token, not with a long wait.
const ROWS_PER_PAGE: usize = 5_000;
/// Rows read at once.
const BATCH: usize = 256;

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// Latest start first.
    #[default]
    NewestFirst,
    /// Earliest start first.
    OldestFirst,
}

/// One page of a listing.
#[derive(Clone, Debug)]
pub struct ListPage {
    /// Records that match, in order.
    pub records: Vec<Record>,
    /// Pass to the next call; `None` at the end.
    pub next: Option<String>,
}

/// Which rows a query reads.
#[derive(Clone, Copy, Debug)]
enum Through {
    Time,
    Conversation(Number),
    Subject(Number),
    Source(RecordId),
}

impl Vault {
    /// Finds records that match and may be seen for this purpose.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a token that this vault did not give for this query and order.
    pub async fn list(
        &self,
        tenant: &TenantId,
        query: &Query,
        order: Order,
        size: usize,
        token: Option<&str>,
        reason: impl Into<Reason>,
    ) -> Result<ListPage, Error> {
        let _turn = self.turn(tenant).await?;
        self.active_tenant(tenant).await?;
        self.list_of_any(tenant, query, order, size, token, &reason.into())
            .await
    }

    /// Likewise, whether or not the tenant is served.
    pub(super) async fn list_of_any(
        &self,
        tenant: &TenantId,
        query: &Query,
        order: Order,
        size: usize,
        token: Option<&str>,
        reason: &Reason,
    ) -> Result<ListPage, Error> {
        loop {
            let keys = self.keys.tenant(tenant).await?;
            let page = self
                .page_under(&keys, tenant, query, order, size, token, reason)
                .await?;
            // What the old index key led to is deleted after another took over: the page may lack it.
            if self.is_blinded_by(tenant, &keys).await? {
                return Ok(page);
            }
        }
    }

    /// Whether these keys still blind what is looked up.
    pub(super) async fn is_blinded_by(&self, tenant: &TenantId, keys: &TenantKeys) -> Result<bool, Error> {
        let now = self.keys.tenant(tenant).await?;
        Ok(now.blinding().0 == keys.blinding().0)
    }

    #[allow(clippy::too_many_arguments)] // all of what the caller asked
    async fn page_under(
        &self,
        keys: &TenantKeys,
        tenant: &TenantId,
        query: &Query,
        order: Order,
        size: usize,
        token: Option<&str>,
        reason: &Reason,
    ) -> Result<ListPage, Error> {
        let mac_key = self.keys.region().row_mac();
        let stated = state_query(tenant, query, order);
        let after = token
            .map(|token| page_token::open(mac_key, token, &stated))
            .transpose()?;
        let Some(through) = self.narrowest(keys, tenant, query).await? else {
            return Ok(ListPage {
                records: Vec::new(),
                next: None,
            });
        };
        let mut page = ListPage {
            records: Vec::new(),
            next: None,
        };
        let mut after = after.map(|(start, record)| through.key(tenant, start, record));
        let mut seen = 0;
        loop {
            let scan = Scan {
                range: through.range(tenant, query),
                reverse: order == Order::NewestFirst,
                after: after.clone(),
                limit: BATCH.min(size.max(1) * 2),
            };
            let keys: Vec<Key> = self
                .index
                .scan(&scan)
                .await?
                .into_iter()
                .map(|row| row.key)
                .collect();
            let exhausted = keys.len() < scan.limit;
            seen += keys.len();
            for (key, record) in self.open_batch(tenant, keys).await? {
                if page.records.len() == size {
                    page.next = after
                        .as_ref()
                        .and_then(position)
                        .map(|at| page_token::seal(mac_key, at, &stated));
                    return Ok(page);
                }
                page.records
                    .extend(record.filter(|r| query.matches(r) && may_see(r, reason)));
                after = Some(key);
            }
            if exhausted {
                return Ok(page);
            }
            if seen >= ROWS_PER_PAGE {
                page.next = after
                    .as_ref()
                    .and_then(position)
                    .map(|at| page_token::seal(mac_key, at, &stated));
                return Ok(page);
            }
        }
    }

    /// The index to read, or `None` if the query names somebody that nobody knows.
    async fn narrowest(
        &self,
        keys: &TenantKeys,
        tenant: &TenantId,
        query: &Query,
    ) -> Result<Option<Through>, Error> {
        if let Some(source) = query.derived_from {
            return Ok(Some(Through::Source(source)));
        }
        let key = keys.index_key();
        let (blind, through): (_, fn(Number) -> Through) = if let Some(subject) = &query.subject {
            (terms::subject(key, subject), Through::Subject)
        } else if let Some(conversation) = &query.conversation {
            (terms::conversation(key, conversation), Through::Conversation)
        } else if let Some(agent) = &query.agent {
            (terms::agent(key, agent), Through::Subject)
        } else {
            return Ok(Some(Through::Time));
        };
        Ok(terms::number(&*self.index, &self.rows, tenant, &blind)
            .await?
            .map(through))
    }

    /// The records behind rows; `None` where the record is gone or not there yet.
    async fn open_batch(
        &self,
        tenant: &TenantId,
        keys: Vec<Key>,
    ) -> Result<Vec<(Key, Option<Record>)>, Error> {
        let ids: Vec<RecordId> = keys.iter().filter_map(position).map(|(_, id)| id).collect();
        let wanted: Vec<Key> = ids.iter().map(|id| Key::Record(tenant.clone(), *id)).collect();
        let values = self.index.get_many(&wanted).await?;
        let mut opened = Vec::with_capacity(keys.len());
        for ((key, id), value) in keys.into_iter().zip(ids).zip(values) {
            let record = match value {
                Some(value) => match self.open_record(&self.parse_row(tenant, &id, value)?).await {
                    Ok((record, _)) => Some(record),
                    // It was shredded since its row was read: that is no fault of the others.
                    Err(error) if error.kind == Kind::Shredded => None,
                    Err(error) => return Err(error),
                },
                None => None,
            };
            // A row that a correction left behind stands at a time that is no longer the record's.
            let stands = |r: &Record| position(&key).is_some_and(|(start, _)| start == r.descriptor.start);
            let record = record.filter(stands);
            opened.push((key, record));
        }
        Ok(opened)
    }
}

impl Through {
    fn range(self, tenant: &TenantId, query: &Query) -> Range {
        let from = query.from.unwrap_or(Timestamp(i64::MIN));
        let until = query.until.unwrap_or(Timestamp(i64::MAX));
        match self {
            Self::Time => Range::ByTime(tenant.clone(), from, until),
            Self::Conversation(number) => Range::ByConversation(tenant.clone(), number, from, until),
            Self::Subject(number) => Range::BySubject(tenant.clone(), number, from, until),
            Self::Source(source) => Range::BySource(tenant.clone(), source, from, until),
        }
    }

    fn key(self, tenant: &TenantId, start: Timestamp, record: RecordId) -> Key {
        match self {
            Self::Time => Key::ByTime(tenant.clone(), start, record),
            Self::Conversation(number) => Key::ByConversation(tenant.clone(), number, start, record),
            Self::Subject(number) => Key::BySubject(tenant.clone(), number, start, record),
            Self::Source(source) => Key::BySource(tenant.clone(), source, start, record),
        }
    }
}

/// Where a row stands in time.
fn position(key: &Key) -> Option<(Timestamp, RecordId)> {
    match key {
        Key::ByTime(_, start, record)
        | Key::ByConversation(_, _, start, record)
        | Key::BySubject(_, _, start, record)
        | Key::BySource(_, _, start, record) => Some((*start, *record)),
        _ => None,
    }
}

/// Everything that a token is bound to.
pub(super) fn state_query(tenant: &TenantId, query: &Query, order: Order) -> Vec<u8> {
    let list = |items: Vec<u32>| items.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    let mut stated = Context::new("callvault/v1/list")
        .text(tenant.as_str())
        .u32(u32::from(order == Order::OldestFirst))
        .bytes(&list(query.kinds.iter().map(|k| k.number()).collect()))
        .bytes(&list(query.states.iter().map(|s| s.number()).collect()))
        .i64(query.from.map_or(i64::MIN, Timestamp::micros))
        .i64(query.until.map_or(i64::MAX, Timestamp::micros))
        .text(query.conversation.as_ref().map_or("", |c| c.as_str()))
        .text(query.agent.as_ref().map_or("", |a| a.as_str()))
        .u32(query.direction.map_or(0, |d| d.number()))
        .u32(query.channel.map_or(0, |c| c.number()));
    stated = match &query.subject {
        None => stated.u32(0),
        Some(crate::domain::record::SubjectIdentifier::Tel(tel)) => stated.u32(1).text(tel.as_str()),
        Some(crate::domain::record::SubjectIdentifier::Mailto(m)) => stated.u32(2).text(&m.folded()),
        Some(crate::domain::record::SubjectIdentifier::External(id)) => stated.u32(3).text(id.as_str()),
    };
    stated = match &query.derived_from {
        None => stated.bytes(&[]),
        Some(source) => stated.bytes(source.as_bytes()),
    };
    for (key, value) in &query.labels {
        stated = stated.text(key.as_str()).text(value);
    }
    stated.finish()
}

//! A group from its departure to its answers.

use std::sync::Arc;

use crate::domain::ids::TenantId;

use super::{
    super::{
        Error, Kind, Vault,
        put::{Blob, Fresh, Told, Upload, fresh_record, off_the_async_threads, outcome_of},
    },
    Waiting,
    prepare::{Ready, refuse_all},
    seal::Sealed,
};

impl Vault {
    /// Stores a group and answers each of its messages.
    pub(super) async fn put_group(self: &Arc<Self>, tenant: &TenantId, group: Vec<Waiting>) {
        let ready = self.prepare(tenant, group).await;
        if ready.is_empty() {
            return;
        }
        let sealed = match self.sealed(tenant, ready).await {
            Ok(sealed) => sealed,
            Err((ready, error)) => return refuse_all(ready.into_iter().map(|m| m.answer), error),
        };
        let mut upload = Upload::new(Arc::clone(&self.store), sealed.object.clone());
        match upload.finish(1, 0, sealed.bytes.clone(), Vec::new()).await {
            Ok(version) => self.index_group(sealed, version.0).await,
            Err(error) => refuse_all(sealed.group.into_iter().map(|m| m.answer), error),
        }
    }

    /// Seals a group where it holds up nobody's I/O; gives it back if that fails.
    async fn sealed(
        self: &Arc<Self>,
        tenant: &TenantId,
        group: Vec<Ready>,
    ) -> Result<Sealed, (Vec<Ready>, Error)> {
        let created = self.clock.now();
        let slots = match self.group_slots(tenant, &group, created).await {
            Ok(slots) => slots,
            Err(error) => return Err((group, error)),
        };
        let (vault, tenant) = (Arc::clone(self), tenant.clone());
        // If it fails the group is dropped, and whoever waits is told that it was interrupted.
        off_the_async_threads(move || vault.seal_group(&tenant, group, slots, created))
            .await
            .map_err(|error| (Vec::new(), error))
    }

    /// Makes the records of a stored group known and answers them.
    async fn index_group(&self, mut sealed: Sealed, version: String) {
        sealed.name.object_version = version;
        let length = sealed.bytes.len() as u64;
        // Only their number is needed from here on.
        drop(std::mem::take(&mut sealed.bytes));
        let blob = Blob {
            footer: &sealed.footer,
            name: &sealed.name,
            length,
        };
        let entries = sealed.group.iter().enumerate();
        let entries = entries.map(|(index, message)| Fresh {
            index,
            descriptor: &message.descriptor,
            actor: &message.actor,
        });
        let mut outcomes = self.index_entries(&blob, Told::ByPut, entries.collect()).await;
        let refused =
            |outcome: &Result<(), Error>| matches!(outcome, Err(error) if error.kind == Kind::AlreadyExists);
        if outcomes.values().all(refused) {
            // Nothing points at the blob and nothing may: a rebuild would adopt it. While one record lives in it, it stays.
            let _ = self.store.delete(&sealed.object).await;
        }
        for (index, message) in sealed.group.into_iter().enumerate() {
            let outcome = outcome_of(&mut outcomes, index);
            let descriptor = message.descriptor;
            let record = outcome.map(|()| fresh_record(&sealed.footer, index, descriptor));
            message.answer.give(record);
        }
    }
}

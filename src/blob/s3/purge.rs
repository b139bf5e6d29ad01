//! Removal of an object, every version of it.

use super::{S3Store, refusal::Refusal};
use crate::blob::store::{ObjectKey, StoreError};

/// What a bucket that keeps versions holds under one name.
#[derive(Debug, Default)]
struct Kept {
    versions: Vec<String>,
    markers: Vec<String>,
}

impl S3Store {
    /// Removes an object so that no version of it is left.
    ///
    /// A plain removal comes first: where versions are kept it hides them all at once, and tells that they are kept, whatever
    /// the bucket did when it was probed. Markers go last: a purge that is cut short leaves nothing visible, and can be repeated.
    pub(super) async fn purge(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let keeps = self.remove(key, None).await?;
        if !keeps && !self.abilities.keeps_versions {
            return Ok(());
        }
        let kept = self.kept(key).await?;
        for version in kept.versions.iter().chain(&kept.markers) {
            self.remove(key, Some(version)).await?;
        }
        Ok(())
    }

    /// Removes one version, or hides all. Tells whether the bucket keeps versions.
    async fn remove(&self, key: &ObjectKey, version: Option<&String>) -> Result<bool, StoreError> {
        let answer = self
            .session
            .send("DeleteObject", |client| {
                client
                    .delete_object()
                    .bucket(&self.settings.bucket)
                    .key(key.as_str())
                    .set_version_id(version.cloned())
                    .send()
            })
            .await;
        match answer {
            Ok(answer) => Ok(answer.delete_marker == Some(true) || answer.version_id.is_some()),
            Err(refusal) => match StoreError::from(refusal) {
                StoreError::NotFound => Ok(false),
                error => Err(error),
            },
        }
    }

    async fn kept(&self, key: &ObjectKey) -> Result<Kept, StoreError> {
        let mut kept = Kept::default();
        let (mut after_key, mut after_version) = (None, None);
        loop {
            let page = self.versions(key, after_key, after_version).await?;
            let named = |name: &Option<String>| name.as_deref() == Some(key.as_str());
            let versions = page.versions.unwrap_or_default();
            let markers = page.delete_markers.unwrap_or_default();
            // Names come in order, the shortest with this beginning first: beyond it nothing is ours.
            let beyond = versions.iter().any(|v| !named(&v.key)) || markers.iter().any(|m| !named(&m.key));
            kept.versions.extend(
                versions
                    .into_iter()
                    .filter(|v| named(&v.key))
                    .filter_map(|v| v.version_id),
            );
            kept.markers.extend(
                markers
                    .into_iter()
                    .filter(|m| named(&m.key))
                    .filter_map(|m| m.version_id),
            );
            if beyond || page.is_truncated != Some(true) {
                return Ok(kept);
            }
            if page.next_key_marker.is_none() {
                return Err(StoreError::Protocol("a listing goes on nowhere"));
            }
            (after_key, after_version) = (page.next_key_marker, page.next_version_id_marker);
        }
    }

    /// One page of what is kept under names that begin with `key`.
    pub(super) async fn versions(
        &self,
        key: &ObjectKey,
        after_key: Option<String>,
        after_version: Option<String>,
    ) -> Result<aws_sdk_s3::operation::list_object_versions::ListObjectVersionsOutput, Refusal> {
        self.session
            .send("ListObjectVersions", |client| {
                client
                    .list_object_versions()
                    .bucket(&self.settings.bucket)
                    .prefix(key.as_str())
                    .set_key_marker(after_key.clone())
                    .set_version_id_marker(after_version.clone())
                    .send()
            })
            .await
    }
}

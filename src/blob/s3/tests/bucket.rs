//! A bucket in memory that speaks S3 over loopback: signatures, parsing and XML are `s3s`'s, the behaviour is AWS's as its
//! documentation and its error texts tell it. (`s3s-fs` checks neither tags of parts nor whose an upload is.)

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::TryStreamExt;
use s3s::{
    S3, S3Request, S3Response, S3Result,
    auth::SimpleAuth,
    dto::*,
    host::{S3Host, VirtualHost},
    s3_error,
    service::S3ServiceBuilder,
};
use tokio::net::TcpListener;

pub(crate) const NAME: &str = "calls";
pub(crate) const ACCESS_KEY: &str = "AKIDCALLVAULT";
pub(crate) const NEWER_ACCESS_KEY: &str = "AKIDNEWER";
pub(crate) const SECRET_KEY: &str = "not-a-secret";
/// S3 says 5 MiB, and hashing that takes a debug build its time.
pub(crate) const SMALLEST_PART: usize = 64 << 10;

/// Clones are the same bucket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket(Arc<Mutex<State>>);

/// What the bucket is, and is not, able or willing to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    /// Keep versions.
    pub(crate) versions: bool,
    /// Ignore checksums, tags and conditions, as an older store does.
    pub(crate) old: bool,
    /// Have object lock configured.
    pub(crate) lock: bool,
    /// Not exist, for a while.
    pub(crate) gone: bool,
    /// Operations that access rules forbid.
    pub(crate) forbidden: BTreeSet<&'static str>,
    /// Entries of a page of versions or uploads, to see more than one.
    pub(crate) page: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    ways: Ways,
    /// Versions of every name, oldest first.
    objects: BTreeMap<String, Vec<Version>>,
    uploads: BTreeMap<(String, String), Upload>,
    ids: u64,
    asked: Vec<&'static str>,
    removed: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Version {
    id: String,
    /// A marker has none.
    body: Option<Bytes>,
    tags: Vec<(String, String)>,
    modified: SystemTime,
}

#[derive(Debug)]
struct Upload {
    parts: BTreeMap<i32, Part>,
    checksummed: bool,
    tags: Vec<(String, String)>,
    begun: SystemTime,
}

#[derive(Clone, Debug)]
struct Part {
    body: Bytes,
    etag: String,
    crc32c: Option<String>,
}

/// Both styles of address: the bucket is a part of the host's name, or of the path.
struct Either;

impl S3Host for Either {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let named = host.split_once(".localhost");
        Ok(named.map_or_else(
            || VirtualHost::new(host),
            |(bucket, _)| VirtualHost::new("localhost").with_bucket(bucket),
        ))
    }
}

impl Bucket {
    pub(crate) fn new(ways: Ways) -> Self {
        let bucket = Self::default();
        bucket.state().ways = ways;
        bucket
    }

    /// Serves the bucket on loopback until the runtime ends.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let mut builder = S3ServiceBuilder::new(self.clone());
        let mut auth = SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY);
        auth.register(NEWER_ACCESS_KEY.to_owned(), SECRET_KEY.into());
        builder.set_auth(auth);
        builder.set_host(Either);
        let service =
            axum::error_handling::HandleError::new(builder.build(), |error: s3s::HttpError| async move {
                (
                    axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                    format!("{error:?}"),
                )
            });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            axum::serve(listener, axum::Router::new().fallback_service(service))
                .await
                .unwrap();
        });
        address
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Ways)) {
        change(&mut self.state().ways);
    }

    /// Names of what is kept, versions and markers counted.
    pub(crate) fn kept(&self) -> BTreeMap<String, usize> {
        let state = self.state();
        let kept = state.objects.iter().filter(|(_, versions)| !versions.is_empty());
        kept.map(|(name, versions)| (name.clone(), versions.len()))
            .collect()
    }

    pub(crate) fn uploads_under_way(&self) -> usize {
        self.state().uploads.len()
    }

    pub(crate) fn tags(&self, name: &str) -> Vec<(String, String)> {
        self.state().objects[name].last().unwrap().tags.clone()
    }

    /// Operations asked for so far.
    pub(crate) fn asked(&self) -> Vec<&'static str> {
        self.state().asked.clone()
    }

    /// Names that were removed and that the policy of docs/operations.md does not let a vault remove.
    pub(crate) fn removed_beyond_the_policy(&self) -> Vec<String> {
        let allowed = |name: &String| {
            let removable = ["blobs/", "claims/", "probe/"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            removable || (name.starts_with("log/") && name.contains(".p/"))
        };
        self.state()
            .removed
            .iter()
            .filter(|name| !allowed(name))
            .cloned()
            .collect()
    }

    /// Puts what no vault would.
    pub(crate) fn plant(&self, name: &str, body: &'static [u8], modified: SystemTime) {
        let mut state = self.state();
        state.store(name, Some(Bytes::from_static(body)), Vec::new());
        if let Some(version) = state.objects.get_mut(name).and_then(|v| v.last_mut()) {
            version.modified = modified;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The state, for an operation that is allowed, on a bucket that is there.
    fn enter(&self, operation: &'static str, bucket: &str) -> S3Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.asked.push(operation);
        if state.ways.gone || bucket != NAME {
            return Err(s3_error!(NoSuchBucket));
        }
        if state.ways.forbidden.contains(operation) {
            return Err(s3_error!(AccessDenied, "a rule forbids it"));
        }
        Ok(state)
    }
}

impl State {
    fn id(&mut self) -> String {
        self.ids += 1;
        format!("id.{:08}", self.ids)
    }

    fn store(&mut self, name: &str, body: Option<Bytes>, tags: Vec<(String, String)>) -> String {
        let id = if self.ways.versions {
            self.id()
        } else {
            "null".to_owned()
        };
        let versions = self.objects.entry(name.to_owned()).or_default();
        versions.retain(|version| version.id != id);
        versions.push(Version {
            id: id.clone(),
            body,
            tags,
            modified: now(),
        });
        id
    }

    fn current(&self, name: &str) -> Option<(&Version, &Bytes)> {
        let version = self.objects.get(name)?.last()?;
        Some((version, version.body.as_ref()?))
    }

    fn said(&self, id: String) -> Option<String> {
        self.ways.versions.then_some(id)
    }

    fn check(&self, body: &[u8], stated: Option<&String>) -> S3Result<()> {
        match stated {
            Some(stated) if !self.ways.old && *stated != crc32c(body) => {
                Err(s3_error!(BadDigest, "the CRC-32C does not match"))
            }
            _ => Ok(()),
        }
    }

    fn upload(&mut self, name: &str, id: &str) -> S3Result<&mut Upload> {
        self.uploads
            .get_mut(&(name.to_owned(), id.to_owned()))
            .ok_or_else(|| s3_error!(NoSuchUpload))
    }
}

#[async_trait::async_trait]
impl S3 for Bucket {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let body = whole(input.body).await;
        let mut state = self.enter("PutObject", &input.bucket)?;
        state.check(&body, input.checksum_crc32c.as_ref())?;
        if input.if_none_match.is_some() && !state.ways.old && state.current(&input.key).is_some() {
            return Err(s3_error!(PreconditionFailed));
        }
        let tags = pairs(input.tagging.as_deref().filter(|_| !state.ways.old));
        let id = state.store(&input.key, Some(body.clone()), tags);
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag(&body))),
            version_id: state.said(id),
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let state = self.enter("GetObject", &req.input.bucket)?;
        let (version, body) = state
            .current(&req.input.key)
            .ok_or_else(|| s3_error!(NoSuchKey))?;
        let length = body.len() as u64;
        let (bytes, range) = match req.input.range {
            None => (body.clone(), None),
            Some(range) => {
                let within = range.check(length).ok().filter(|within| !within.is_empty());
                let within = within.ok_or_else(|| s3_error!(InvalidRange))?;
                let text = format!("bytes {}-{}/{length}", within.start, within.end - 1);
                let (from, to) = (usize::try_from(within.start), usize::try_from(within.end));
                (body.slice(from.unwrap()..to.unwrap()), Some(text))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(i64::try_from(bytes.len()).unwrap()),
            content_range: range,
            last_modified: Some(version.modified.into()),
            version_id: state.said(version.id.clone()),
            body: Some(StreamingBlob::from(s3s::Body::from(bytes))),
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let state = self.enter("HeadObject", &req.input.bucket)?;
        let (version, body) = state
            .current(&req.input.key)
            .ok_or_else(|| s3_error!(NoSuchKey))?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(i64::try_from(body.len()).unwrap()),
            last_modified: Some(version.modified.into()),
            version_id: state.said(version.id.clone()),
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        let mut state = self.enter("DeleteObject", &input.bucket)?;
        state.removed.insert(input.key.clone());
        if let Some(id) = input.version_id {
            drop(state);
            let mut state = self.enter("DeleteObjectVersion", &input.bucket)?;
            if let Some(versions) = state.objects.get_mut(&input.key) {
                versions.retain(|version| version.id != id);
            }
            return Ok(S3Response::new(DeleteObjectOutput {
                version_id: Some(id),
                ..Default::default()
            }));
        }
        if state.ways.versions {
            let id = state.store(&input.key, None, Vec::new());
            return Ok(S3Response::new(DeleteObjectOutput {
                delete_marker: Some(true),
                version_id: Some(id),
                ..Default::default()
            }));
        }
        state.objects.remove(&input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let state = self.enter("ListObjectsV2", &input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.unwrap_or_default();
        let limit = usize::try_from(input.max_keys.unwrap_or(1_000)).unwrap();
        let (mut contents, mut folded) = (Vec::new(), BTreeSet::new());
        let mut last = None;
        for name in state.objects.keys().filter(|name| name.starts_with(&prefix)) {
            let Some((version, body)) = state.current(name) else {
                continue;
            };
            let fold = input.delimiter.as_ref().and_then(|delimiter| {
                let end = name[prefix.len()..].find(delimiter.as_str())? + delimiter.len();
                Some(name[..prefix.len() + end].to_owned())
            });
            let entry = fold.clone().unwrap_or_else(|| name.clone());
            if entry <= after || fold.as_ref().is_some_and(|fold| folded.contains(fold)) {
                continue;
            }
            if contents.len() + folded.len() == limit {
                return Ok(listed(contents, folded, last));
            }
            last = Some(entry);
            match fold {
                Some(fold) => drop(folded.insert(fold)),
                None => contents.push(Object {
                    key: Some(name.clone()),
                    size: Some(i64::try_from(body.len()).unwrap()),
                    last_modified: Some(version.modified.into()),
                    ..Default::default()
                }),
            }
        }
        Ok(listed(contents, folded, None))
    }

    async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = req.input;
        let state = self.enter("ListObjectVersions", &input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let after = (
            input.key_marker.unwrap_or_default(),
            input.version_id_marker.unwrap_or_default(),
        );
        let mut output = ListObjectVersionsOutput::default();
        let (mut versions, mut markers, mut last) = (Vec::new(), Vec::new(), None);
        let named = state.objects.iter().filter(|(name, _)| name.starts_with(&prefix));
        // By name, the newest first.
        let all =
            named.flat_map(|(name, versions)| versions.iter().rev().map(move |version| (name, version)));
        for (name, version) in all {
            let passed =
                *name < after.0 || (*name == after.0 && (after.1.is_empty() || version.id >= after.1));
            if passed {
                continue;
            }
            if Some(versions.len() + markers.len()) == state.ways.page {
                output.is_truncated = Some(true);
                (output.next_key_marker, output.next_version_id_marker) = last.unwrap_or_default();
                break;
            }
            last = Some((Some(name.clone()), Some(version.id.clone())));
            match &version.body {
                Some(_) => versions.push(ObjectVersion {
                    key: Some(name.clone()),
                    version_id: Some(version.id.clone()),
                    ..Default::default()
                }),
                None => markers.push(DeleteMarkerEntry {
                    key: Some(name.clone()),
                    version_id: Some(version.id.clone()),
                    ..Default::default()
                }),
            }
        }
        (output.versions, output.delete_markers) = (Some(versions), Some(markers));
        Ok(S3Response::new(output))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let mut state = self.enter("CreateMultipartUpload", &input.bucket)?;
        let id = state.id();
        let upload = Upload {
            parts: BTreeMap::new(),
            checksummed: input.checksum_algorithm.is_some(),
            tags: pairs(input.tagging.as_deref().filter(|_| !state.ways.old)),
            begun: now(),
        };
        state.uploads.insert((input.key, id.clone()), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            upload_id: Some(id),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = req.input;
        let body = whole(input.body).await;
        let mut state = self.enter("UploadPart", &input.bucket)?;
        state.check(&body, input.checksum_crc32c.as_ref())?;
        let old = state.ways.old;
        let upload = state.upload(&input.key, &input.upload_id)?;
        if !old && upload.checksummed != input.checksum_crc32c.is_some() {
            return Err(s3_error!(InvalidRequest, "Checksum Type mismatch occurred"));
        }
        let part = Part {
            etag: etag(&body),
            crc32c: input.checksum_crc32c,
            body,
        };
        let e_tag = Some(ETag::Strong(part.etag.clone()));
        upload.parts.insert(input.part_number, part);
        Ok(S3Response::new(UploadPartOutput {
            e_tag,
            ..Default::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let mut state = self.enter("CompleteMultipartUpload", &input.bucket)?;
        let old = state.ways.old;
        let upload = state.upload(&input.key, &input.upload_id)?;
        let named = input.multipart_upload.and_then(|m| m.parts).unwrap_or_default();
        let (mut whole, mut before) = (Vec::new(), 0);
        for (at, part) in named.iter().enumerate() {
            let number = part.part_number.unwrap_or_default();
            let stored = upload.parts.get(&number).ok_or_else(|| s3_error!(InvalidPart))?;
            if number <= before {
                return Err(s3_error!(InvalidPartOrder));
            }
            before = number;
            if part.e_tag.as_ref().map(ETag::value) != Some(&stored.etag) {
                return Err(s3_error!(InvalidPart));
            }
            if !old && upload.checksummed && part.checksum_crc32c != stored.crc32c {
                return Err(s3_error!(
                    InvalidRequest,
                    "The complete request must include the checksum for each part."
                ));
            }
            if at + 1 < named.len() && stored.body.len() < SMALLEST_PART {
                return Err(s3_error!(EntityTooSmall));
            }
            whole.extend_from_slice(&stored.body);
        }
        let tags = upload.tags.clone();
        state.uploads.remove(&(input.key.clone(), input.upload_id));
        let id = state.store(&input.key, Some(whole.into()), tags);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            version_id: state.said(id),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = req.input;
        let mut state = self.enter("AbortMultipartUpload", &input.bucket)?;
        state.upload(&input.key, &input.upload_id)?;
        state.uploads.remove(&(input.key, input.upload_id));
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        let state = self.enter("ListMultipartUploads", &input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let after = (
            input.key_marker.unwrap_or_default(),
            input.upload_id_marker.unwrap_or_default(),
        );
        let mut listed: Vec<_> = state
            .uploads
            .iter()
            .filter(|((key, _), _)| key.starts_with(&prefix))
            .filter(|((key, id), _)| (key, id) > (&after.0, &after.1))
            .map(|((key, id), upload)| MultipartUpload {
                key: Some(key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(upload.begun.into()),
                ..Default::default()
            })
            .collect();
        let page = state.ways.page.unwrap_or(usize::MAX);
        let truncated = listed.len() > page;
        listed.truncate(page);
        let last = listed.last().filter(|_| truncated).cloned().unwrap_or_default();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            is_truncated: Some(truncated),
            next_key_marker: last.key,
            next_upload_id_marker: last.upload_id,
            uploads: Some(listed),
            ..Default::default()
        }))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let state = self.enter("GetObjectTagging", &req.input.bucket)?;
        if state.ways.old {
            return Err(s3_error!(NotImplemented));
        }
        let (version, _) = state
            .current(&req.input.key)
            .ok_or_else(|| s3_error!(NoSuchKey))?;
        let tags = version.tags.iter().map(|(key, value)| Tag {
            key: Some(key.clone()),
            value: Some(value.clone()),
        });
        Ok(S3Response::new(GetObjectTaggingOutput {
            tag_set: tags.collect(),
            version_id: None,
        }))
    }

    async fn get_object_lock_configuration(
        &self,
        req: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        let state = self.enter("GetObjectLockConfiguration", &req.input.bucket)?;
        if !state.ways.lock {
            return Err(s3_error!(ObjectLockConfigurationNotFoundError));
        }
        Ok(S3Response::new(GetObjectLockConfigurationOutput {
            object_lock_configuration: Some(ObjectLockConfiguration::default()),
        }))
    }
}

async fn whole(body: Option<StreamingBlob>) -> Bytes {
    let Some(body) = body else {
        return Bytes::new();
    };
    let pieces: Vec<Bytes> = body.try_collect().await.unwrap();
    Bytes::from(pieces.concat())
}

fn listed(
    contents: Vec<Object>,
    folded: BTreeSet<String>,
    next: Option<String>,
) -> S3Response<ListObjectsV2Output> {
    let folded = folded
        .into_iter()
        .map(|prefix| CommonPrefix { prefix: Some(prefix) });
    S3Response::new(ListObjectsV2Output {
        contents: Some(contents),
        common_prefixes: Some(folded.collect()),
        is_truncated: Some(next.is_some()),
        next_continuation_token: next,
        ..Default::default()
    })
}

fn pairs(tagging: Option<&str>) -> Vec<(String, String)> {
    let decode = |text: &str| text.replace("%20", " ").replace("%2F", "/");
    tagging
        .into_iter()
        .flat_map(|text| text.split('&'))
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn etag(body: &[u8]) -> String {
    format!("{:08x}{:08x}", body.len(), crc32c::crc32c(body))
}

fn crc32c(body: &[u8]) -> String {
    STANDARD.encode(crc32c::crc32c(body).to_be_bytes())
}

#[allow(clippy::disallowed_methods)] // the bucket is another machine: it has a clock of its own
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

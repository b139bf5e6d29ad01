//! The calls of `RecordService`.

use futures_util::{Stream, StreamExt, stream};

use super::{Client, ClientError, Content, Download, Retry, Upload, retry::request_id};
use crate::proto::v1::{
    GetRecordRequest, ListRecordsRequest, ListRecordsResponse, PutRecordingClosing, PutRecordingSpec,
    ReadRecordingRequest, Record, UpdateRecordRequest, get_record_request::Name,
};

impl Client {
    /// Uploads a recording; returns when the vault has it durably.
    ///
    /// Repeated when the vault is not available for now, if the content can be sent again and the spec has a `request_id`.
    ///
    /// # Errors
    /// [`ClientError::Content`] if the content cannot be read; what the vault answered. Nothing is kept then.
    pub async fn put_recording(
        &self,
        spec: PutRecordingSpec,
        content: Content,
        closing: Option<PutRecordingClosing>,
    ) -> Result<Record, ClientError> {
        let retry = if content.is_replayable() && !spec.request_id.is_empty() {
            self.usual_patience()
        } else {
            Retry::NEVER
        };
        let once = || self.send(spec.clone(), &content, closing.clone());
        retry.run_any(once).await
    }

    async fn send(
        &self,
        spec: PutRecordingSpec,
        content: &Content,
        closing: Option<PutRecordingClosing>,
    ) -> Result<Record, ClientError> {
        let mut chunks = content.open().await?;
        let mut upload = self.begin_upload(spec).await?;
        loop {
            // A source may have nothing to give for a long time after the vault has refused.
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                () = Upload::ended(&upload) => return Err(upload.refusal().await),
            };
            match chunk {
                Some(chunk) => upload.write(chunk?).await?,
                None => return upload.finish(closing).await,
            }
        }
    }

    /// Begins to read a recording's content: from byte `offset` on, `limit` bytes, or all that follow if it is 0.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn read_recording(
        &self,
        tenant_id: &str,
        record_id: &str,
        offset: u64,
        limit: u64,
    ) -> Result<Download, ClientError> {
        let request = ReadRecordingRequest {
            tenant_id: tenant_id.to_owned(),
            record_id: record_id.to_owned(),
            // What does not fit lies beyond every recording's end, and is answered so.
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
        };
        let begin = || async {
            let chunks = self.record_service().read_recording(request.clone()).await?;
            Download::begin(chunks.into_inner()).await
        };
        self.usual_patience().run_any(begin).await
    }

    /// One record, by the vault's id or the platform's.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn get_record(&self, tenant_id: &str, name: Name) -> Result<Record, ClientError> {
        let request = GetRecordRequest {
            tenant_id: tenant_id.to_owned(),
            name: Some(name),
        };
        let get = || async { self.record_service().get_record(request.clone()).await };
        let answer = self.usual_patience().run(get).await?.into_inner();
        answer
            .record
            .ok_or(ClientError::Protocol("an answer without a record"))
    }

    /// One page of records.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn list_records(
        &self,
        request: ListRecordsRequest,
    ) -> Result<ListRecordsResponse, ClientError> {
        let list = || async { self.record_service().list_records(request.clone()).await };
        Ok(self.usual_patience().run(list).await?.into_inner())
    }

    /// All records that match, page after page.
    pub fn all_records(
        &self,
        request: ListRecordsRequest,
    ) -> impl Stream<Item = Result<Record, ClientError>> + Send + use<> {
        let client = self.clone();
        let pages = stream::try_unfold(Some(request), move |next| {
            let client = client.clone();
            async move {
                let Some(mut request) = next else { return Ok(None) };
                let page = client.list_records(request.clone()).await?;
                request.page_token = page.next_page_token;
                let next = (!request.page_token.is_empty()).then_some(request);
                Ok::<_, ClientError>(Some((page.records, next)))
            }
        });
        pages.flat_map(|page| match page {
            Ok(records) => stream::iter(records).map(Ok).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        })
    }

    /// Corrects a record's descriptor. Without a `request_id` it gets one, so that a retry is the same correction.
    ///
    /// # Errors
    /// What the vault answered.
    pub async fn update_record(&self, mut request: UpdateRecordRequest) -> Result<Record, ClientError> {
        request.request_id = request_id(request.request_id);
        let update = || async { self.record_service().update_record(request.clone()).await };
        let answer = self.usual_patience().run(update).await?.into_inner();
        answer
            .record
            .ok_or(ClientError::Protocol("an answer without a record"))
    }
}

//! Every limit, with its reason. An error that a limit causes names it.

/// Plaintext of one recording, 64 GiB: NIST SP 800-38D bounds one key and message; a week of stereo G.711 is 9 GiB.
pub const RECORDING_BYTES: u64 = 64 << 30;
/// Plaintext of one message body, 1 MiB.
pub const MESSAGE_BYTES: u64 = 1 << 20;
/// Messages of one batch: as many as share a blob.
pub const BATCH_MESSAGES: usize = 1_000;
/// One batch of messages, encoded, 4 MiB: what gRPC implementations take when nobody told them otherwise.
pub const BATCH_BYTES: usize = 4 << 20;
/// Descriptors of one batch, encoded, 2 MiB: its answer repeats them and must fit into a message as well.
pub const BATCH_DESCRIPTOR_BYTES: usize = 2 << 20;
/// Bodies and descriptors in the answer to a batch of reads, 3.5 MiB: the rest of 4 MiB is for what stands around them.
pub const BATCH_ANSWER_BYTES: u64 = 3_584 << 10;
/// Encoded descriptor, 32 KiB: read and opened whole on every listing.
pub const DESCRIPTOR_BYTES: usize = 32 << 10;
/// Footer of a blob, 1 MiB: read whole before anything in it is trusted.
pub const FOOTER_BYTES: usize = 1 << 20;
/// Leaf of a log, 60 KiB: C2SP tlog-tiles length prefixes are 16 bits; longer leaves become payloads.
pub const LEAF_BYTES: usize = 60 << 10;
/// Extents of one recording: S3 takes 10,000 parts.
pub const EXTENTS: usize = 10_000;
/// Rows of one index transaction: sled holds one global lock while they are written, a few microseconds each. Fewer would cost
/// every message more than readers gain (docs/adr/0010-transactions-of-256-rows.md).
pub const TRANSACTION_ROWS: usize = 256;
/// Rows of an index transaction that nobody waits for: whoever reads meanwhile waits for a fraction of a millisecond.
pub const BACKGROUND_ROWS: usize = 32;
/// Parties of one record.
pub const PARTIES: usize = 64;
/// Labels of one record.
pub const LABELS: usize = 64;
/// Bytes of a label's key.
pub const LABEL_KEY_BYTES: usize = 63;
/// Bytes of a label's value, and of every short free text in a descriptor.
pub const TEXT_BYTES: usize = 256;
/// Languages, data categories, purposes or jurisdictions of one record.
pub const TERMS: usize = 32;
/// Items of one page of a listing.
pub const PAGE_SIZE: u32 = 1_000;
/// Items of one page when the caller does not say.
pub const DEFAULT_PAGE_SIZE: u32 = 50;
/// One message of a stream from a client: a chunk and its framing.
pub const STREAM_MESSAGE_BYTES: usize = 4 << 20;
/// Content bytes in one message to a client.
pub const CHUNK_BYTES: usize = 512 << 10;
/// Days of a retention class, 100 years: no law asks for more, and times stay within their range.
pub const RETENTION_DAYS: u32 = 36_525;
/// Life of a request id, 24 h.
pub const REQUEST_ID_MICROS: i64 = 24 * 3_600 * 1_000_000;
/// An unnamed blob younger than this may belong to an upload under way, 7 days.
pub const ORPHAN_MICROS: i64 = 7 * 24 * 3_600 * 1_000_000;
/// Life of an unfinished upload, 7 days: it holds a slot, and half a call is personal data too.
pub const UPLOAD_MICROS: i64 = 7 * 24 * 3_600 * 1_000_000;
/// Bytes of unfinished uploads on the disk when the configuration does not say, 32 GiB: 2,000 calls of 16 minutes each.
pub const SPOOL_BYTES: u64 = 32 << 30;
/// Unfinished uploads at a time; each costs some kilobytes of memory and two small files.
pub const UPLOADS: usize = 16_384;
/// Longest time from a put's ack to its leaf in the bucket, 1 s.
pub const SHIP_INTERVAL_MILLIS: u64 = 500;
/// Of the bytes in flight, what one tenant may hold, hundredths: whatever it does, as much is left for the others.
pub const TENANT_SHARE_PERCENT: u8 = 50;
/// Metadata of one call, 16 KiB, as HTTP/2 counts it (RFC 9113 section 6.5.2): a call has a handful of short headers.
pub const METADATA_BYTES: usize = 16 << 10;
/// A bearer token, 8 KiB: what proxies let through as one header; those of providers that list groups are long.
pub const TOKEN_BYTES: usize = 8 << 10;
/// Metadata beyond which HTTP/2 itself refuses (431), 64 KiB: between the two a caller still gets a clear answer.
pub const HEADER_LIST_BYTES: u32 = 64 << 10;
/// Bytes of one message of a request that are held without asking, 64 KiB: most messages are shorter.
pub const FREE_REQUEST_BYTES: u64 = 64 << 10;
/// Bytes that wait for one slow reader in HTTP/2's own buffer, 256 KiB: times the calls, it is memory.
pub const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Connections at a time of all certificates that belong to nobody: enough to be told so.
pub const STRANGERS: usize = 32;
/// Calls in a row that nobody is recognised by, after which a connection is cut: whoever tries tokens pays with a handshake for each few.
pub const UNRECOGNISED_CALLS: u32 = 16;
/// How long a refusal for load is held back, 100 ms: who asks again at once must not keep the server busy with refusing.
pub const REFUSAL_PAUSE_MILLIS: u64 = 100;
/// How often certificates, configuration and policies on disk are looked at, 5 s: rotation tools replace files and send no signal. What
/// changed is read when two looks agree.
pub const CERTIFICATE_CHECK_SECONDS: u64 = 5;
/// One try of a read from the store, 30 s: a few MiB, and the store's own tries.
pub const STORE_READ_MILLIS: u64 = 30_000;
/// Any other call of the store, 2 min: a part of 16 MiB at 140 KB/s. What takes longer is gone, and must not hold others up.
pub const STORE_CALL_MILLIS: u64 = 120_000;
/// The completion of a multipart upload, 10 min: some stores copy the object.
pub const STORE_COMPLETE_MILLIS: u64 = 600_000;
/// Tries of a read whose store is not there for a moment, or answers with a wrong length; about a second in all.
pub const STORE_READ_TRIES: u32 = 4;
/// Leaves that may wait for the bucket before puts are refused: 100,000 are some 50 MB of index and a minute's shipping.
pub const QUEUED_LEAVES: u64 = 100_000;
/// Records of one erasure, 200,000: their ids are one object of 3 MiB, read whole.
pub const ERASURE_RECORDS: usize = 200_000;
/// Records named one by one in one erasure: as many as a page of a listing has.
pub const ERASURE_NAMED: usize = 1_000;

#!/usr/bin/env python3
"""Uploads a recording to callvault and goes on by itself: after a lost connection, a killed server, or its own end.

    python3 upload.py call.wav --conversation crm-4711 --request-id call-1

Run again with the same request id and the same file, it goes on where the server is. Prints the record's id.
The calls that it makes, and which errors it repeats them after, are those of docs/client.md.
"""

import argparse
import json
import os
import random
import sys
import time
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import google_crc32c
import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from callvault.v1 import record_pb2, record_service_pb2 as v1, record_service_pb2_grpc, vocabulary_pb2

CHUNK_BYTES = 256 << 10  # of a message: at least 256 bytes, at most 4 MiB with its framing
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
TRIES = 70  # without progress: some four minutes

# What passes by itself is repeated by the library; what a server asks for in RetryInfo is not seen by it.
SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "callvault.v1.RecordService", "method": m} for m in
                     ("BeginUpload", "GetUpload", "CommitUpload", "AbortUpload")],
            "timeout": "60s",
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

OPTIONS = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    # A server that vanished is noticed while calls run.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def connect(client_file, role):
    """A channel as `client.toml` says, under the certificate of a role; and the tenant that the file names."""
    client = tomllib.loads(client_file.read_text())
    below = client_file.parent
    identity = client["roles"][role]
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(below / client["ca"]).read_bytes(),
        private_key=(below / identity["key"]).read_bytes(),
        certificate_chain=(below / identity["certificate"]).read_bytes(),
    )
    options = list(OPTIONS)
    if "server_name" in client:
        options.append(("grpc.ssl_target_name_override", client["server_name"]))
    channel = grpc.secure_channel(urlsplit(client["endpoint"]).netloc, credentials, options)
    return channel, client.get("tenant")


def upload(calls, path, begin):
    """Begins the upload, or finds it again; sends what the server has not; commits. Returns the record."""
    tried, reached = 0, -1
    known = None
    while True:
        try:
            if known is None:
                known = calls.BeginUpload(begin).upload
            now = calls.GetUpload(v1.GetUploadRequest(tenant_id=known.tenant_id, upload_id=known.upload_id)).upload
            if now.state == v1.UPLOAD_STATE_COMMITTED:
                return now.record
            if now.received_offset > reached:
                tried, reached = 0, now.received_offset
            print(f"going on at byte {now.received_offset}", file=sys.stderr)
            calls.WriteUpload(messages(now, path))
            return calls.CommitUpload(committing(now, path)).record
        except grpc.RpcError as error:
            tried += 1
            if tried >= TRIES or not may_go_on(error):
                raise
            time.sleep(pause(error, tried))


def messages(now, path):
    """One header, then the content that the server has not."""
    yield v1.WriteUploadRequest(
        header=v1.WriteUploadHeader(
            tenant_id=now.tenant_id, upload_id=now.upload_id, offset=now.received_offset
        )
    )
    with open(path, "rb") as file:
        file.seek(now.received_offset)
        while chunk := file.read(CHUNK_BYTES):
            yield v1.WriteUploadRequest(chunk=chunk)


def committing(now, path):
    """Length and CRC-32C of the whole content: if the file has changed meanwhile, nothing is mixed."""
    checksum, size = google_crc32c.Checksum(), 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            checksum.update(chunk)
            size += len(chunk)
    return v1.CommitUploadRequest(
        tenant_id=now.tenant_id,
        upload_id=now.upload_id,
        size_bytes=size,
        expected_crc32c=int.from_bytes(checksum.digest(), "big"),
    )


def may_go_on(error):
    """Whether this ends a call and not the upload."""
    reason = details(error)[0]
    code = error.code()
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED):
        return True
    if reason in ("UPLOAD_OFFSET", "UPLOAD_INCOMPLETE", "UPLOAD_COMMITTING", "UPLOAD_UNDER_WAY"):
        return True
    # Not the vault's words but the connection's.
    lost = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)
    return reason is None and code in lost


def pause(error, tried):
    """Doubled after each try, up to half of it taken off at random; at least what the server asks for."""
    wait = min(FIRST_WAIT * 2 ** min(tried - 1, 16), LONGEST_WAIT)
    return max(wait * random.uniform(0.5, 1), min(details(error)[1], LONGEST_WAIT))


def details(error):
    """The vault's reason, if the answer is the vault's own, and how long it asks to wait."""
    reason, wait = None, 0.0
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
                reason = info.reason
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                info = error_details_pb2.RetryInfo()
                detail.Unpack(info)
                wait = info.retry_delay.ToTimedelta().total_seconds()
    return reason, wait


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--conversation", required=True, help="the platform's conversation")
    parser.add_argument("--request-id", required=True, help="stable and unique, e.g. the platform's id of the call")
    parser.add_argument("--client", type=Path, default=os.environ.get("CALLVAULT_CLIENT", "callvault-data/client.toml"))
    parser.add_argument("--role", default="uploader")
    parser.add_argument("--tenant")
    asked = parser.parse_args()

    channel, tenant = connect(Path(asked.client), asked.role)
    # The same at every run: another descriptor under the same request id is refused.
    began = Timestamp()
    began.FromNanoseconds(asked.file.stat().st_mtime_ns)
    begin = v1.BeginUploadRequest(
        tenant_id=asked.tenant or tenant,
        request_id=asked.request_id,
        descriptor=record_pb2.Descriptor(
            conversation_id=asked.conversation, channel=vocabulary_pb2.CHANNEL_VOICE, start_time=began
        ),
    )
    try:
        with channel:
            record = upload(record_service_pb2_grpc.RecordServiceStub(channel), asked.file, begin)
    except grpc.RpcError as error:
        sys.exit(f"error: {error.details()} ({details(error)[0] or error.code().name})")
    print(record.record_id)


if __name__ == "__main__":
    main()

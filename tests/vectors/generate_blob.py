#!/usr/bin/env python3
"""Writes the vectors of blobs' ends (tests/vectors/blob), from docs/format.md alone: protobuf and CRC-32C by hand.

Run once (`python3 tests/vectors/generate_blob.py`, no dependencies). Never change a vector: add one.
"""
import hashlib
import json
import pathlib
import struct

OUT = pathlib.Path(__file__).parent / "blob"
VAULT = bytes.fromhex("01890a5dac96774bbcceb302099a8057")
RECORDS = [bytes.fromhex("01890a5dac96774bbcceb302099a80" + n) for n in ("58", "5a")]
PAGE = bytes.fromhex("01890a5dac96774bbcceb302099a8059")
MAX_FOOTER = 1 << 20


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def number(field, n):
    return varint(field << 3) + varint(n) if n else b""


def blob(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data if data else b""


def extent_lengths(plaintext):
    lengths = []
    while plaintext:
        taken = min(plaintext, 8_386_520)
        plaintext -= taken
        segments = -(-(taken + 40) // 65_520)
        lengths.append(taken + 40 + 16 * segments)
    return lengths


def entry(record, plaintext, slot=7, kind=1, lengths=None, dek=60, commitment=32, mac=b"", fingerprint=b""):
    lengths = extent_lengths(plaintext) if lengths is None else lengths
    return (
        blob(1, record)
        + number(2, kind)
        + blob(3, b"".join(varint(n) for n in lengths))
        + blob(4, PAGE)
        + number(5, slot)
        + blob(6, bytes(range(dek)))
        + blob(7, bytes([3] * commitment))
        + blob(8, mac)
        + blob(9, fingerprint)
        + blob(10, b"sealed descriptor")
        + blob(11, bytes([4] * 32))
        + number(12, plaintext)
    )


def footer(*entries, version=1, tail=b"", tenant=b"acme", vault=VAULT):
    head = number(1, version) + blob(2, vault) + blob(3, b"eu-west") + blob(4, tenant)
    head += number(5, 3) + number(6, 1_795_478_400_000_000)
    return head + b"".join(blob(7, e) for e in entries) + tail


def end(encoded, length=None, crc=None, magic=b"CVB1"):
    covered = encoded + struct.pack(">I", len(encoded) if length is None else length)
    return covered + struct.pack(">I", crc32c(covered) if crc is None else crc) + magic


def write(name, data, **fields):
    OUT.mkdir(exist_ok=True)
    fields = {"end": data.hex(), **fields}
    (OUT / f"{name}.json").write_text(json.dumps(fields, indent=2) + "\n")


def good(name, encoded, plaintexts):
    content = sum(sum(extent_lengths(p)) for p in plaintexts)
    sha256 = hashlib.sha256(encoded).hexdigest()
    write(name, end(encoded), sha256=sha256, plaintext_lengths=plaintexts, content_length=content)


ONE = footer(entry(RECORDS[0], 1))
MAC = bytes([1] * 32)
good("one", ONE, [1])
good("two-with-request", footer(entry(RECORDS[0], 65_480, mac=MAC, fingerprint=MAC), entry(RECORDS[1], 65_481, kind=2)), [65_480, 65_481])
good("three-extents", footer(entry(RECORDS[0], 20_000_000)), [20_000_000])
write("malformed-magic", end(ONE, magic=b"CVB2"))
write("malformed-checksum", end(ONE, crc=0))
write("malformed-length-over", end(ONE, length=MAX_FOOTER + 1))
write("malformed-length-zero", end(ONE, length=0))
write("malformed-cut", end(ONE)[:11])
write("malformed-empty", b"")
write("malformed-version", end(footer(entry(RECORDS[0], 1), version=2)))
write("malformed-no-entries", end(footer()))
write("malformed-unknown-field", end(footer(entry(RECORDS[0], 1), tail=number(15, 1))))
write("malformed-field-twice", end(footer(entry(RECORDS[0], 1), tail=blob(4, b"acme"))))
write("malformed-tenant", end(footer(entry(RECORDS[0], 1), tenant=b"ACME")))
write("malformed-vault", end(footer(entry(RECORDS[0], 1), vault=bytes(16))))
write("malformed-record", end(footer(entry(bytes(16), 1))))
write("malformed-kind", end(footer(entry(RECORDS[0], 1, kind=4))))
write("malformed-slot", end(footer(entry(RECORDS[0], 1, slot=4096))))
write("malformed-dek", end(footer(entry(RECORDS[0], 1, dek=59))))
write("malformed-commitment", end(footer(entry(RECORDS[0], 1, commitment=31))))
write("malformed-request-alone", end(footer(entry(RECORDS[0], 1, mac=MAC))))
write("malformed-plaintext-zero", end(footer(entry(RECORDS[0], 0, lengths=[56]))))
write("malformed-extent-longer", end(footer(entry(RECORDS[0], 1, lengths=[58]))))
write("malformed-extent-missing", end(footer(entry(RECORDS[0], 20_000_000, lengths=extent_lengths(20_000_000)[:2]))))

#!/usr/bin/env python3
"""Writes the test vectors, from docs/format.md alone: a second implementation that shares no code with the vault.

Run once (`python3 tests/vectors/generate.py`, needs PyPI `cryptography`); the files are committed and tests/crypto.rs reads
them. Every input is fixed, so running it again changes nothing. Never change a vector: add one.
"""
import hashlib
import hmac
import json
import pathlib
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HERE = pathlib.Path(__file__).parent
SEGMENT = 65_536

VAULT = bytes.fromhex("01890a5dac96774bbcceb302099a8057")
RECORD = bytes.fromhex("01890a5dac96774bbcceb302099a8058")
PAGE = bytes.fromhex("01890a5dac96774bbcceb302099a8059")
TENANT, REGION = "acme", "eu-west"


def write(area, name, **fields):
    folder = HERE / area
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n")


# --- the format ---


def context(label, *fields):
    """Fields are bytes, text, or (width in bits, integer)."""
    out = bytes([len(label)]) + label.encode()
    for field in fields:
        out += struct.pack(">I", len(plain(field))) + plain(field)
    return out


def plain(field):
    if isinstance(field, tuple):
        width, number = field
        return number.to_bytes(width // 8, "big", signed=number < 0)
    return field.encode() if isinstance(field, str) else field


def u32(n):
    return (32, n)


def u64(n):
    return (64, n)


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(ikm, salt, info):
    return mac(mac(salt or bytes(32), ikm), info + b"\x01")


def derive(key, name):
    return hkdf(key, b"", b"callvault/v1/" + name.encode())


def wrap(key, nonce, plaintext, aad):
    return nonce + AESGCM(key).encrypt(nonce, plaintext, aad)


def node(root, depth, index):
    for shift in reversed(range(depth)):
        root = mac(root, bytes([index >> shift & 1]))
    return root


def cover(gone, depth=0, index=0):
    """Largest whole subtrees, left to right, as (depth, index)."""
    width = 4096 >> depth
    if not any(index * width <= slot < (index + 1) * width for slot in gone):
        return [(depth, index)]
    if depth == 12:
        return []
    return cover(gone, depth + 1, 2 * index) + cover(gone, depth + 1, 2 * index + 1)


def state(root, gone):
    nodes = cover(gone)
    body = b"".join(struct.pack(">BH", d, i) + node(root, d, i) for d, i in nodes)
    return struct.pack(">BH", 1, len(nodes)) + body


def extent(key, aad, salt, prefix, plaintext, flags=None, first=0):
    """Returns the extent and the SHA-256 of its tags. `flags` and `first` are for malformed ones."""
    cuts, at = [], SEGMENT - 40 - 16
    while at < len(plaintext):
        cuts.append(at)
        at += SEGMENT - 16
    edges = [0, *cuts, len(plaintext)]
    texts = [plaintext[a:b] for a, b in zip(edges, edges[1:])]
    cipher = AESGCM(hkdf(key, salt, aad))
    out, tags = bytes([40]) + salt + prefix, b""
    for number, text in enumerate(texts):
        last = flags[number] if flags else number == len(texts) - 1
        nonce = prefix + struct.pack(">IB", first + number, last)
        sealed = cipher.encrypt(nonce, text, None)
        out, tags = out + sealed, tags + sealed[-16:]
    return out, hashlib.sha256(tags).digest()


# --- the vectors ---

COMMITMENT = bytes([0xC0]) * 32
BINDING_FIELDS = [u32(7), PAGE, u32(4095), bytes(range(60)), COMMITMENT, b"", b"", bytes([0xD0]) * 32]
BINDING = hashlib.sha256(context("callvault/v1/binding", *BINDING_FIELDS)).digest()
CONTEXTS = {
    "extent": [TENANT, RECORD, u32(1), REGION, u32(5000)],
    "wrapped-dek": [VAULT, TENANT, PAGE, u32(4095), RECORD],
    "wrapped-tenant-key": [VAULT, TENANT, u64(3), "region", PAGE, u32(17)],
    "tenant-keyring": [VAULT, TENANT, u64(3)],
    "region-keyring": [VAULT, REGION, u64(9)],
    "tenant-page-state": [VAULT, TENANT, PAGE, u64(2), u64(3)],
    "region-page-state": [VAULT, REGION, PAGE, u64(2), u64(9)],
    "epoch-key": [VAULT, u64(9)],
    "payload": [VAULT, TENANT, "settings", u64(2**40 + 1)],
    "spool-record": [VAULT, TENANT, RECORD, u32(1), u64(7), bytes([0xE0]) * 32],
    "spool-mark": [VAULT, TENANT, RECORD, u32(0), bytes([0xE0]) * 32],
    "binding": BINDING_FIELDS,
    "descriptor": [
        VAULT, TENANT, RECORD, u32(1), REGION, (64, 1_795_478_400_000_001), "blobs/acme/2026/11/24/x",
        u32(0), u32(1), u32(2), u32(57), u64(8_386_521), u32(1), BINDING,
    ],
}


def typed(field):
    kind = f"u{field[0]}" if isinstance(field, tuple) else "text" if isinstance(field, str) else "bytes"
    if kind == "u64" and field[1] > 2**50:
        kind = "i64"
    value = field[1] if isinstance(field, tuple) else field if isinstance(field, str) else field.hex()
    return {kind: value}


def contexts():
    for name, fields in CONTEXTS.items():
        encoded = context(f"callvault/v1/{name}", *fields)
        digest = {"sha256": hashlib.sha256(encoded).hexdigest()} if name == "binding" else {}
        write("context", name, label=f"callvault/v1/{name}", fields=[typed(f) for f in fields],
              encoded=encoded.hex(), **digest)


def kdfs():
    key = bytes(range(32))
    for name in ["content", "descriptor", "payload", "spool", "fingerprint", "commitment", "tenant-page", "tenant-keyring",
                 "region-page", "region-keyring", "certificate-signing"]:
        write("kdf", name, key=key.hex(), info=f"callvault/v1/{name}", derived=derive(key, name).hex())


def blinds():
    key = bytes(range(1, 33))
    cases = {
        "identifier-tel": ("identifier", [u32(1), "+43123456789"]),
        "identifier-external-record": ("identifier", [u32(6), "call-ä"]),
        "request": ("request", [TENANT, "req-1"]),
        "request-fingerprint": ("request-fingerprint", [b"ab", b"", b"c"]),
        "row": ("row", [b"\x01key", b"value"]),
    }
    for name, (label, fields) in cases.items():
        tag = mac(key, context(f"callvault/v1/{label}", *fields))
        write("blind", name, key=key.hex(), label=f"callvault/v1/{label}",
              fields=[typed(f) for f in fields], mac=(tag[:16] if name == "row" else tag).hex())
    # What a message asked: 5 bytes, their CRC-32C, no closing, and a descriptor.
    dek, asked = bytes(range(32)), b"".join([plain(u64(5)), bytes.fromhex("9a71bb4c"), b"\xff" * 8, bytes(8), b"\x0a\x06conv-1"])
    key, label = derive(dek, "fingerprint"), "callvault/v1/request-fingerprint"
    write("blind", "record-fingerprint", dek=dek.hex(), key=key.hex(), label=label, fields=[typed(asked)],
          mac=mac(key, context(label, asked)).hex())


def pages():
    root = bytes(range(64, 96))
    for name, gone in {"fresh": [], "one-gone": [1234], "edges-gone": [0, 4095], "run-gone": list(range(96, 160)),
                       "last-two-left": list(range(4094)), "all-gone": list(range(4096))}.items():
        live = [s for s in [0, 1, 95, 96, 159, 160, 1233, 1234, 1235, 2048, 4094, 4095] if s not in gone]
        write("page", name, root=root.hex(), punctured=gone, state=state(root, gone).hex(),
              slot_keys={str(s): node(root, 12, s).hex() for s in live})

    def stored(*places, form=1, count=None):
        body = b"".join(struct.pack(">BH", d, i) + bytes([9]) * 32 for d, i in places)
        return struct.pack(">BH", form, len(places) if count is None else count) + body

    for name, what, bytes_ in [
        ("empty", "page state length", b""),
        ("cut", "page state length", stored((0, 0))[:-1]),
        ("trailing", "page state length", stored((0, 0)) + b"\0"),
        ("count", "page state length", stored((0, 0), count=2)),
        ("too-many-nodes", "page state length", stored(*[(12, 2 * i) for i in range(2048)], (12, 4095))),
        ("unknown-format", "page state format", stored((0, 0), form=2)),
        ("too-deep", "page state node", stored((13, 0))),
        ("index-beyond-depth", "page state node", stored((1, 2))),
        ("out-of-order", "page state order", stored((2, 3), (2, 0))),
        ("overlap", "page state order", stored((1, 0), (2, 1))),
        ("twice", "page state order", stored((2, 1), (2, 1))),
        ("siblings", "page state siblings", stored((1, 0), (1, 1))),
    ]:
        write("page", f"malformed-{name}", state=bytes_.hex(), error=what)


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def wraps():
    slot_key, nonce, dek = bytes([0x51]) * 32, bytes(range(12)), bytes(range(100, 132))
    aad = context("callvault/v1/wrapped-dek", *CONTEXTS["wrapped-dek"])
    other = context("callvault/v1/wrapped-dek", VAULT, TENANT, PAGE, u32(4094), RECORD)
    good = wrap(slot_key, nonce, dek, aad)
    commitment = derive(dek, "commitment")

    def case(name, wrapped=good, aad=aad, commitment=commitment, key=slot_key, **outcome):
        write("wrap", name, slot_key=key.hex(), aad=aad.hex(), wrapped=wrapped.hex(),
              commitment=commitment.hex(), **(outcome or {"error": "unauthentic"}))

    case("dek", dek=dek.hex())
    case("malformed-nonce", flip(good, 0))
    case("malformed-ciphertext", flip(good, 12))
    case("malformed-tag", flip(good, 59))
    case("malformed-cut", good[:-1])
    case("malformed-short", good[:27])
    case("malformed-empty", b"")
    case("malformed-slot", aad=other)
    case("malformed-key", key=bytes([0x52]) * 32)
    case("malformed-commitment", commitment=flip(commitment, 31))
    case("malformed-commitment-cut", commitment=commitment[:31])
    case("malformed-commitment-missing", commitment=b"")
    case("malformed-key-length", wrap(slot_key, nonce, dek[:31], aad))


def pattern(length):
    return bytes(i % 251 for i in range(length))


def extents():
    key, salt, prefix = bytes([0x33]) * 32, bytes(range(32)), bytes(range(200, 207))
    aad = context("callvault/v1/extent", *CONTEXTS["extent"])

    def case(name, length, sealed, aad=aad, key=key, tags=None):
        body = sealed if isinstance(sealed, dict) else {"sealed": sealed.hex()}
        outcome = {"error": "unauthentic"} if tags is None else {
            "tags_digest": tags.hex(), "plaintext_sha256": hashlib.sha256(pattern(length)).hexdigest()}
        write("extent", name, content_key=key.hex(), aad=aad.hex(), plaintext_length=length, **body, **outcome)

    def good(length, **how):
        return extent(key, aad, salt, prefix, pattern(length), **how)

    for name, length in {"one-byte": 1, "hundred-bytes": 100, "one-full-segment": 65_480,
                         "two-segments": 65_481, "three-full-segments": 196_520}.items():
        sealed, tags = good(length)
        case(name, length, sealed, tags=tags)

    small, _ = good(100)
    case("malformed-header-length", 100, flip(small, 0))
    case("malformed-salt", 100, flip(small, 1))
    case("malformed-prefix", 100, flip(small, 39))
    case("malformed-ciphertext", 100, flip(small, 40))
    case("malformed-tag", 100, flip(small, 155))
    case("malformed-cut", 100, small[:-1])
    case("malformed-trailing", 100, small + b"\0")
    case("malformed-header-only", 100, small[:40])
    case("malformed-header-cut", 100, small[:39])
    case("malformed-empty", 100, b"")
    case("malformed-longer-than-said", 99, small)
    case("malformed-aad", 100, small, aad=flip(aad, len(aad) - 1))
    case("malformed-key", 100, small, key=bytes([0x34]) * 32)
    case("malformed-last-flag-missing", 100, good(100, flags=[0])[0])
    case("malformed-first-segment-number", 100, good(100, first=1)[0])

    def parts(*ranges):
        return {"sealed_from": {"file": "three-full-segments.json", "ranges": [list(r) for r in ranges]}}

    case("malformed-reordered", 196_520, parts((0, 65_536), (131_072, 196_608), (65_536, 131_072)))
    case("malformed-repeated", 196_520, parts((0, 131_072), (65_536, 131_072)))
    case("malformed-last-segment-missing", 196_520, parts((0, 131_072)))
    case("malformed-last-segment-missing-and-length-too", 131_000, parts((0, 131_072)))
    case("malformed-middle-segment-missing", 131_000, parts((0, 65_536), (131_072, 196_608)))


def spools():
    key, head = bytes([0x61]) * 32, b"head"
    owner = [VAULT, TENANT, RECORD, u32(1)]
    records = [b"one", pattern(5_000), b"three"]
    digest = hashlib.sha256(head).digest()

    def sealed(number, record):
        body = wrap(key, bytes([number]) * 12, record, context("callvault/v1/spool-record", *owner, u64(number), digest))
        return struct.pack(">I", len(body)) + body

    def mark(length, count, nonce):
        aad = context("callvault/v1/spool-mark", *owner, digest)
        return wrap(key, bytes([nonce]) * 12, struct.pack(">QQ", length, count), aad) + bytes(20)

    start = b"CVS1" + struct.pack(">I", len(head)) + head
    body = [sealed(number, record) for number, record in enumerate(records)]
    empty = len(start) + 128
    marked = empty + len(body[0]) + len(body[1])
    marks = mark(empty, 0, 200) + mark(marked, 2, 201)
    whole = start + marks + b"".join(body)

    def case(name, log, **outcome):
        write("spool", name, key=key.hex(), head=head.hex(), log=log.hex(), **outcome)

    case("whole", whole, records=3)
    case("torn-mark", flip(whole, len(start) + 64), records=3)
    case("torn-behind-the-mark", whole[:-1], records=2)
    case("garbage-behind-the-end", whole + bytes(70), records=3)
    case("damaged-before-the-mark", flip(whole, marked - 1), error="damaged")
    case("cut-before-the-mark", whole[:marked - 1], error="damaged")
    case("both-marks", flip(flip(whole, len(start)), len(start) + 64), error="damaged")
    case("magic", flip(whole, 0), error="damaged")
    case("reordered", start + marks + body[1] + body[0] + body[2], error="damaged")
    case("repeated", start + marks + body[0] + body[0] + body[2], error="damaged")


contexts(), kdfs(), blinds(), pages(), wraps(), extents(), spools()

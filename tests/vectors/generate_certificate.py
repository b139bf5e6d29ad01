#!/usr/bin/env python3
"""Writes the vectors of certificates of erasure, from docs/format.md alone: a second implementation, of the side that signs.

Run once (`python3 tests/vectors/generate_certificate.py`, needs PyPI `cryptography`); the files are committed. src/evidence and
scripts/verify_certificate.py must both say of each what `holds` says. Never change a vector: add one.
"""
import base64
import copy
import datetime
import hashlib
import json
import pathlib
import uuid

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FOLDER = pathlib.Path(__file__).parent / "certificate"
VAULT, TENANT = "01890a5d-ac96-774b-bcce-b302099a8057", "acme"
ORIGIN = f"callvault/{VAULT}/state/1/4"
T0 = 1_795_478_400_000_000


def sha256(data):
    return hashlib.sha256(data).digest()


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def id_of(last):
    return uuid.UUID(bytes=bytes.fromhex("01890a5dac96774bbcceb302099a80") + bytes([last]))


def time(offset):
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=T0 + offset)
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"


# --- protobuf ---


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def message(fields):
    """{number: value}: integers, bytes, text, lists of integers (packed) or of bytes, in ascending order."""
    out = b""
    for number, value in sorted(fields.items()):
        many = value if isinstance(value, list) and not all(isinstance(v, int) for v in value) else [value]
        for one in many:
            if isinstance(one, int):
                out += varint(number << 3) + varint(one) if one else b""
                continue
            if isinstance(one, list):
                one = b"".join(varint(n) for n in one)
            one = one.encode() if isinstance(one, str) else one
            if one or many is value:
                out += varint(number << 3 | 2) + varint(len(one)) + one
    return out


def leaf(at, body, content, tenant=TENANT):
    return message({1: 1, 2: T0 + at, 3: "compliance-1", 5: tenant}) + varint(body << 3 | 2) + varint(len(content)) + content


# --- logs and signatures ---


class Key:
    def __init__(self, seed):
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.private.public_key().public_bytes_raw()
        self.name = sha256(self.public)[:8].hex()


SEED = bytes(range(32))


def hkdf(ikm, info):
    import hmac

    prk = hmac.digest(bytes(32), ikm, "sha256")
    return hmac.digest(prk, info + b"\1", "sha256")


LOG = Key(SEED)
CERTIFICATE = Key(hkdf(SEED, b"callvault/v1/certificate-signing"))
OTHER = Key(bytes(32))


def merkle(hashes):
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"")
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\1" + merkle(hashes[:k]) + merkle(hashes[k:]))


def path(hashes, at):
    if len(hashes) < 2:
        return []
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return path(hashes[:k], at) + [merkle(hashes[k:])] if at < k else path(hashes[k:], at - k) + [merkle(hashes[:k])]


def inclusion(leaves, key=LOG, origin=ORIGIN):
    filler = message({1: 1, 2: T0}) + varint(11 << 3 | 2) + b"\x02\x08\x09"
    entries = [filler] * 3 + leaves + [filler]
    hashes = [sha256(b"\0" + entry) for entry in entries]
    text = f"{origin}\n{len(entries)}\n{base64.b64encode(merkle(hashes)).decode()}\n"
    key_id = sha256(origin.encode() + b"\n\1" + key.public)[:4]
    signature = base64.b64encode(key_id + key.private.sign(text.encode())).decode()
    note = f"{text}\n\u2014 {origin} {signature}\n"
    cited = [
        {"origin": origin, "index": at, "leaf": b64url(entry), "proof": [b64url(hash) for hash in path(hashes, at)]}
        for at, entry in enumerate(entries)
        if entry != filler
    ]
    return {"checkpoints": [{"origin": origin, "note": note}], "leaves": cited}


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sign(document, key=CERTIFICATE, kid=None, header=None):
    payload = document if isinstance(document, bytes) else canonical(document)
    header = header or {"alg": "EdDSA", "kid": kid or f"cert-{key.name}", "typ": "callvault-erasure+jws"}
    protected, payload = b64url(canonical(header)), b64url(payload)
    signature = b64url(key.private.sign(f"{protected}.{payload}".encode()))
    return canonical({"payload": payload, "signatures": [{"protected": protected, "signature": signature}]}).decode()


def jwk(key, use):
    kid = f"cert-{key.name}" if use == "certificate" else key.name
    x = b64url(key.public)
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "x": x, "kid": kid, "callvault_use": use}


KEYS = {"keys": [jwk(CERTIFICATE, "certificate"), jwk(LOG, "log-checkpoint")]}


# --- the erasure ---


def shredded(last, entry):
    record = {1: id_of(last).bytes, 2: 2, 3: f"blobs/{TENANT}/2026/11/24/{id_of(0x10)}", 4: "v1.2", 5: b"\7" * 32, 6: entry}
    return message(record | {7: 3, 8: 100 + entry, 9: id_of(0x30).bytes, 10: 40 + entry})


def requested(target, ids, erasure=1):
    digest = sha256(b"".join(ids)) if ids else b""
    fields = {1: id_of(erasure).bytes, 2: target, 3: 1, 4: "case-7", 5: T0 + 5, 6: digest, 7: ids, 9: ["dpo-1"], 10: len(ids)}
    return leaf(0, 24, message(fields))


def key(version):
    return message({1: version, 2: "region", 3: id_of(0x40).bytes, 4: version, 5: b"\1" * 60, 6: b"\2" * 32})


def sweep(of_tenant):
    leaves = [leaf(1, 15, message({1: key(1)})), leaf(2, 22, message({1: id_of(0x51).bytes, 2: key(2)}))]
    if not of_tenant:
        leaves += [leaf(20, 23, message({1: version})) for version in (1, 2)]
    for epoch in 1, 2:
        leaves += [leaf(21, 30, message({1: epoch, 2: 3, 3: id_of(0x50).bytes}), "")]
        leaves += [leaf(22, 31, message({1: epoch, 2: at, 3: id_of(0x50).bytes}), "") for at in (T0 + 30, 0)]
    final = {1: id_of(1).bytes, 4: id_of(0x50).bytes, 5: [1, 2], 6: [1, 2]}
    return leaves + [leaf(31, 32, message(final | {2: 1})), leaf(32, 32, message(final | {3: 1}))]


def erasure(stage, of_tenant=False, more=False):
    """Leaves and document; `more`: of the set, one was erased elsewhere, and something was derived from it since."""
    final = stage == "FINAL"
    ids = [id_of(2).bytes, id_of(3).bytes]
    if of_tenant:
        leaves = [requested(5, []), leaf(6, 27, message({1: id_of(1).bytes, 2: [1, 2]})), leaf(7, 28, message({1: id_of(1).bytes}))]
    else:
        one = lambda record: leaf(6, 26, message({1: id_of(1).bytes, 2: [record]}))
        ids += [id_of(5).bytes] if more else []
        leaves = [requested(1, ids), one(shredded(2, 0)), one(shredded(3, 2))] + ([one(shredded(4, 1))] if more else [])
        leaves.append(leaf(7, 28, message({1: id_of(1).bytes, 2: 3 if more else 2})))
    leaves += sweep(of_tenant) if final else []
    record = lambda last, entry: {
        "record": str(id_of(last)), "kind": "message", "entry": entry, "entries": 3, "bytes": 100 + entry,
        "page": str(id_of(0x30)), "slot": 40 + entry,
    }
    name = f"blobs/{TENANT}/2026/11/24/{id_of(0x10)}"
    blob = {"store": "s3", "region": "mx-central", "object": name, "version_id": "v1.2", "footer_sha256": "07" * 32, "bytes": 303 if more else 202}
    blob |= {"records": [record(2, 0), *([record(4, 1)] if more else []), record(3, 2)]}
    line = lambda at: {"stage": stage, "since": time(at), "meaning": f"as docs/format.md says of {stage}"}
    way = lambda v: {"key_version": v, "region_page": str(id_of(0x40)), "region_slot": v, "first_epoch": 1, "last_epoch": 2}
    end = lambda e: {"epoch": e, "provider": "file", "destroyed_at": time(22), "answer": "refused: no such key"}
    document = {
        "format": "callvault-erasure-certificate/1",
        "identity": {
            "id": f"{id_of(1)}-{stage.lower()}", "version": 1, "stage": stage, "issued_at": time(40), "vault": VAULT,
            "region": "mx-central", "tenant": TENANT, "erasure": str(id_of(1)), "reference": "case-7", "ground": "dpv:A17",
            "requested_by": "compliance-1", "approvers": ["dpo-1"], "requested_at": time(0), "due_at": time(5),
        },
        "target": {
            "asked_for": "TENANT" if of_tenant else "RECORDS",
            "data_class": "messages",
            "encrypted_before_stored": "yes",
            "set_sha256": "none" if of_tenant else sha256(b"".join(ids)).hex(),
            "record_count": 0 if of_tenant else 3 if more else 2,
            "blobs": "none" if of_tenant else [blob],
            "tenant_keys": [1, 2] if of_tenant else "none",
            "derived_since": [str(id_of(4))] if more else "none",
            "elsewhere": [{"record": str(id_of(5)), "erasure": str(id_of(6))}] if more else "none",
        },
        "method": {
            "technique": "cryptographic erase", "reaches": "Clear", "algorithm": "AES-256-GCM", "strength_bits": 256,
            "slots_punctured": 3 if more else 2, "tenant_key_versions_destroyed": [1, 2] if final or of_tenant else "none",
            "root_epochs_destroyed": [1, 2] if final else "none", "rng": "the operating system's", "module": "software",
            "validation": "none", "zeroisation": "said \u2014 in words, \"quoted\" and\nwith lines", "escrow": "none exists",
        },
        "tool": {"name": "callvault", "version": "0.1.0", "build_sha256": "unknown"},
        "verification": {
            "content": line(31 if final else 7), "search_traces": line(32 if final else 7),
            "pages": [str(id_of(0x30))] if final and not of_tenant else "none",
            "paths": [way(1), way(2)] if final else "none", "epochs": [end(1), end(2)] if final else "none",
            "objects": {
                "checked": "each was looked for", "gone": 0, "kept": "none" if of_tenant else [name],
                "pending": [{"object": "blobs/acme/x", "tries": 3, "reason": "STORE_DENIED"}] if of_tenant else "none",
            },
            "errors": "none",
        },
        "residual_copies": [{"copies": "replicas", "status": "none", "killed_by": "none", "dead_by": "none"}],
        "proves": ["A committed, recorded destruction of keys; never the absence of a copy that was decrypted before."],
        "inclusion": inclusion(leaves),
    }
    return leaves, document


def write(name, certificate, holds=False, keys=KEYS):
    FOLDER.mkdir(exist_ok=True)
    vector = {"holds": holds, "keys": keys, "certificate": certificate}
    (FOLDER / f"{name}.json").write_text(json.dumps(vector, indent=2, ensure_ascii=False) + "\n")


def main():
    for stage in "EFFECTIVE", "FINAL":
        for of_tenant in False, True:
            name = f"{'tenant' if of_tenant else 'records'}-{stage.lower()}"
            write(name, sign(erasure(stage, of_tenant)[1]), holds=True)
    write("records-more-final", sign(erasure("FINAL", more=True)[1]), holds=True)
    leaves, good = erasure("FINAL")
    text = sign(good)

    def bent(name, bend):
        document = copy.deepcopy(good)
        bend(document)
        write(f"malformed-{name}", sign(document))

    def put(*path):
        *path, last, value = path

        def bend(document):
            for step in path:
                document = document[step]
            document[last] = value

        return bend

    def swap(document):
        cited = document["inclusion"]["leaves"]
        cited[1]["proof"], cited[2]["proof"] = cited[2]["proof"], cited[1]["proof"]

    # Signed by somebody else, or not over these bytes.
    payload = json.loads(text)["payload"]
    changed = canonical(good).replace(b'"case-7"', b'"case-8"')
    write("malformed-altered-field", text.replace(payload, b64url(changed)))
    write("malformed-wrong-key", sign(good, OTHER))
    write("malformed-wrong-key-under-the-name", sign(good, OTHER, kid=f"cert-{CERTIFICATE.name}"))
    write("malformed-log-key", sign(good, LOG))
    write("malformed-log-key-named", sign(good, LOG, kid=LOG.name))
    write("malformed-other-keys", text, keys={"keys": [jwk(OTHER, "certificate"), jwk(OTHER, "log-checkpoint")]})
    write("malformed-other-log-key", text, keys={"keys": [jwk(CERTIFICATE, "certificate"), jwk(OTHER, "log-checkpoint")]})
    write("malformed-truncated", text[: len(text) // 2])
    write("malformed-empty", "")
    write("malformed-newline", text + "\n")
    write("malformed-spaces", text.replace(",", ", "))
    write("malformed-signature-bits", text[:-6] + chr(ord(text[-6]) + 1) + text[-5:])
    twice = json.loads(text)
    twice["signatures"] *= 2
    write("malformed-two-signatures", canonical(twice).decode())
    header = {"alg": "EdDSA", "kid": f"cert-{CERTIFICATE.name}", "typ": "callvault-erasure+jws"}
    write("malformed-crit", sign(good, header=header | {"crit": ["exp"], "exp": 1}))
    write("malformed-alg-none", sign(good, header=header | {"alg": "none"}))
    write("malformed-typ", sign(good, header=header | {"typ": "JWT"}))
    write("malformed-not-canonical", sign(json.dumps(good, sort_keys=True).encode()))
    write("malformed-member-twice", sign(canonical(good).replace(b'{"format"', b'{"format":"x","format"')))
    # Signed by the vault's key, and not what the log says.
    bent("unknown-member", put("more", "x"))
    bent("missing-member", lambda document: document.pop("tool"))
    bent("empty-list", put("identity", "approvers", []))
    bent("fraction", put("target", "record_count", 2.5))
    bent("version", put("identity", "version", 2))
    bent("stage", put("identity", "stage", "EFFECTIVE"))
    bent("reference", put("identity", "reference", "case-8"))
    bent("tenant", put("identity", "tenant", "other"))
    bent("vault", put("identity", "vault", str(id_of(0x58))))
    bent("record", put("target", "blobs", 0, "records", 0, "record", str(id_of(9))))
    bent("record-missing", lambda document: document["target"]["blobs"][0]["records"].pop())
    bent("slot", put("target", "blobs", 0, "records", 0, "slot", 41))
    bent("footer", put("target", "blobs", 0, "footer_sha256", "08" * 32))
    bent("set", put("target", "set_sha256", "08" * 32))
    bent("epoch-alive", put("verification", "epochs", 1, "epoch", 3))
    bent("way-open", put("verification", "paths", 1, "last_epoch", 3))
    bent("derived-since", put("target", "derived_since", [str(id_of(2))]))
    bent("elsewhere", put("target", "elsewhere", [{"record": str(id_of(5)), "erasure": str(id_of(6))}]))
    bent("way-missing", lambda document: document["verification"]["paths"].pop())
    bent("region-slot", put("verification", "paths", 0, "region_slot", 7))
    bent("provider-answers", put("verification", "epochs", 0, "answer", "opened"))
    bent("time", put("verification", "content", "since", time(30)))
    bent("errors", put("verification", "errors", ["one"]))
    bent("swapped-proofs", swap)
    bent("proof-cut", lambda document: document["inclusion"]["leaves"][0]["proof"].pop())
    bent("proof-long", lambda document: document["inclusion"]["leaves"][0]["proof"].append(b64url(bytes(32))))
    bent("index", put("inclusion", "leaves", 0, "index", 4))
    bent("leaf-twice", lambda document: document["inclusion"]["leaves"].append(document["inclusion"]["leaves"][0]))
    bent("checkpoint-missing", put("inclusion", "checkpoints", []))
    note = good["inclusion"]["checkpoints"][0]["note"]
    bent("checkpoint-altered", put("inclusion", "checkpoints", 0, "note", note.replace(f"\n{len(leaves) + 4}\n", f"\n{len(leaves) + 5}\n")))
    # Other stories, each well proven.
    told = lambda name, leaves: bent(name, put("inclusion", inclusion(leaves)))
    told("other-erasures-leaf", leaves + [leaf(31, 32, message({1: id_of(2).bytes, 2: 1}))])
    told("other-tenants-leaf", leaves + [leaf(31, 32, message({1: id_of(1).bytes, 2: 1}), "other")])
    told("leaf-of-nothing", leaves + [leaf(31, 16, b"")])
    told("other-erasure-requested", [requested(1, [id_of(2).bytes, id_of(3).bytes], 2)] + leaves[1:])
    told("not-effective", [one for one in leaves if leaf(7, 28, message({1: id_of(1).bytes, 2: 2})) != one])
    told("not-final", leaves[:-1])
    told("epoch-scheduled", [one for one in leaves if leaf(22, 31, message({1: 2, 3: id_of(0x50).bytes}), "") != one])
    told("key-not-destroyed", [one for one in leaves if leaf(20, 23, message({1: 2})) != one])
    bent("other-log", put("inclusion", inclusion(leaves, OTHER)))
    bent("other-vault-log", put("inclusion", inclusion(leaves, LOG, ORIGIN.replace("8057", "8058"))))
    bent("access-log", put("inclusion", inclusion(leaves, LOG, ORIGIN.replace("state", "access"))))
    effective = erasure("EFFECTIVE")[1]
    effective["method"]["root_epochs_destroyed"] = [1]
    write("malformed-effective-claims-final", sign(effective))


main()

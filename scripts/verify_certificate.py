#!/usr/bin/env python3
"""Checks a certificate of erasure against a vault's published keys, offline.

    verify_certificate.py CERTIFICATE KEYS [--json]

CERTIFICATE is what `callvault certificate show` writes, KEYS the JWK set that `callvault certificate keys` writes. Written from
docs/format.md ("Certificates") and proto/callvault/storage/v1 alone: it shares no code with callvault. Prints what is proven,
a line each; --json prints the document instead. Exits 0 if it holds, 1 if it does not (and says why), 2 if it is used wrongly.
Needs `cryptography` from PyPI.
"""
import argparse, base64, binascii, datetime, hashlib, json, re, sys, uuid
from pathlib import Path
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tiny_protobuf import Refused, decode, need

sha256 = lambda data: hashlib.sha256(data).digest()
GROUNDS = {1: "dpv:A17", 2: "dpv:A7-3", 3: "callvault:RetentionExpired", 4: "callvault:MandatoryDestruction"}
GROUNDS |= {5: "callvault:ContractEnded"}
TARGETS = {1: "RECORDS", 2: "QUERY", 3: "SUBJECT", 4: "CONVERSATION", 5: "TENANT"}
KINDS = {1: "recording", 2: "message", 3: "artifact"}
ANSWERS = "refused: no such key", (
    "not asked: its provider is no longer the region's; it answered the destruction when it was asked for it"
)
# Every member of the document, with what it is: a text, a number, one of these things, or a list of them that may be "none".
NAMES, NUMBERS = ["text"], ["number"]
LINE = dict(stage="text", since="text", meaning="text")
RECORD = dict(record="text", kind="text", entry="number", entries="number", bytes="number", page="text", slot="number")
BLOB = dict(store="text", region="text", object="text", version_id="text", footer_sha256="text", bytes="number")
BLOB |= dict(records=("all", RECORD))
EPOCH = dict(epoch="number", provider="text", destroyed_at="text", answer="text")
WAY = dict(key_version="number", region_page="text", region_slot="number", first_epoch="number", last_epoch="number")
OBJECTS = dict(checked="text", gone="number", kept=NAMES, pending=[dict(object="text", tries="number", reason="text")])
LEAF = dict(origin="text", index="number", leaf="text", proof=("all", "text"))
DOCUMENT = dict(
    format="text",
    identity=dict.fromkeys(
        "id issued_at stage vault region tenant erasure reference ground requested_by requested_at due_at".split(), "text"
    )
    | dict(version="number", approvers=NAMES),
    target=dict.fromkeys("asked_for data_class encrypted_before_stored set_sha256".split(), "text")
    | dict(record_count="number", blobs=[BLOB], tenant_keys=NUMBERS)
    | dict(derived_since=NAMES, elsewhere=[dict(record="text", erasure="text")]),
    method=dict.fromkeys("technique reaches algorithm rng module validation zeroisation escrow".split(), "text")
    | dict(strength_bits="number", slots_punctured="number")
    | dict(tenant_key_versions_destroyed=NUMBERS, root_epochs_destroyed=NUMBERS),
    tool=dict(name="text", version="text", build_sha256="text"),
    verification=dict(content=LINE, search_traces=LINE, pages=NAMES, paths=[WAY], epochs=[EPOCH], objects=OBJECTS, errors=NAMES),
    residual_copies=("all", dict(copies="text", status="text", killed_by="text", dead_by="text")),
    proves=("all", "text"),
    inclusion=dict(checkpoints=("all", dict(origin="text", note="text")), leaves=("all", LEAF)),
)


def unbase64url(text, what):
    need(isinstance(text, str) and re.fullmatch(r"[\w-]*", text, re.A), f"{what}: not base64url")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise Refused(f"{what}: not base64url")
    need(base64.urlsafe_b64encode(data).rstrip(b"=").decode() == text, f"{what}: not the one base64url spelling")
    return data


def whole(value):
    """Numbers are integers that every implementation keeps."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        whole(item)
    need(not isinstance(value, float), "the document: a number with a fraction")
    need(isinstance(value, bool) or not isinstance(value, int) or abs(value) < 1 << 53, "the document: a number too large")


def canonical(data, what):
    """JSON whose spelling is the one of RFC 8785. Names of members are ASCII, so that their order is that of their bytes."""
    try:
        value = json.loads(data)
        spelt = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused(f"{what}: not JSON")
    need(spelt == data, f"{what}: not canonical JSON")
    return value


def fits(value, form, what):
    """The members that there must be, and no others. A list that may be empty is spelt "none" when it is."""
    if isinstance(form, dict):
        need(isinstance(value, dict) and value.keys() == form.keys(), f"{what}: other members than are known")
        for name in form:
            fits(value[name], form[name], f"{what}.{name}")
    elif isinstance(form, str):
        good = isinstance(value, str) if form == "text" else isinstance(value, int) and not isinstance(value, bool)
        need(good and (form == "text" or value >= 0), f"{what}: not a {form}")
    elif value != "none" or isinstance(form, tuple):
        need(isinstance(value, list) and (value or isinstance(form, tuple)), f"{what}: neither a list nor none")
        for item in value:
            fits(item, form[-1], what)


def listed(value):
    return [] if value == "none" else value


def key_set(data):
    keys = {"log-checkpoint": [], "certificate": {}}
    for jwk in json.loads(data)["keys"]:
        need((jwk["kty"], jwk["crv"]) == ("OKP", "Ed25519"), "keys: one that is not Ed25519")
        public, use = unbase64url(jwk["x"], "keys"), jwk["callvault_use"]
        kid = sha256(public)[:8].hex()
        need(len(public) == 32 and use in keys, "keys: one of another length or use")
        if use == "certificate":
            kid = f"cert-{kid}"
            keys[use][kid] = public
        else:
            keys[use].append(public)
        need(jwk["kid"] == kid, "keys: a kid that is not its key's")
    return keys


def signed(public, message, signature):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        return True
    except InvalidSignature:
        return False


def opened(data, keys):
    """The document and the kid of its signature."""
    file = canonical(data, "the file")
    need(isinstance(file, dict) and file.keys() == {"payload", "signatures"}, "the file: members")
    signatures = file["signatures"]
    need(isinstance(signatures, list) and len(signatures) == 1, "the file: not exactly one signature")
    need(isinstance(signatures[0], dict) and signatures[0].keys() == {"protected", "signature"}, "the file: members")
    protected, payload = signatures[0]["protected"], file["payload"]
    header = canonical(unbase64url(protected, "the header"), "the header")
    need(isinstance(header, dict) and header.keys() == {"alg", "kid", "typ"}, "the header: other parameters than are known")
    need(header["alg"] == "EdDSA" and header["typ"] == "callvault-erasure+jws", "the header: algorithm or type")
    need(header["kid"] in keys["certificate"], f"no certificate key is named {header['kid']!r}")
    signature = unbase64url(signatures[0]["signature"], "the signature")
    text = unbase64url(payload, "the payload")
    need(signed(keys["certificate"][header["kid"]], f"{protected}.{payload}".encode(), signature), "the signature does not hold")
    document = canonical(text, "the document")
    whole(document)
    fits(document, DOCUMENT, "the document")
    return document, header["kid"]


def head(checkpoint, vault, keys):
    """Size and root of a checkpoint that a log key of the vault signed."""
    origin, note = checkpoint["origin"], checkpoint["note"]
    need(re.fullmatch(rf"callvault/{re.escape(vault)}/state/(0|[1-9]\d*)/(0|[1-9]\d*)", origin, re.A), f"{origin}: not a log of the vault")
    parts = re.fullmatch(r"((.+)\n(0|[1-9]\d{,14})\n([\w+/]{43}=)\n)\n((\u2014 \S+ [\w+/]+=*\n)+)", note, re.A)
    need(parts and parts[2] == origin, f"{origin}: checkpoint")
    lines = [line.split(" ") for line in parts[5].splitlines()]
    for key in keys["log-checkpoint"]:
        key_id = sha256(origin.encode() + b"\n\1" + key)[:4]
        for _, name, value in lines:
            value = base64.b64decode(value)
            if name == origin and value[:4] == key_id and signed(key, parts[1].encode(), value[4:]):
                return int(parts[3]), base64.b64decode(parts[4])
    raise Refused(f"{origin}: the checkpoint is not signed by a published log key")


def root_of(leaf, index, size, proof):
    """RFC 9162 section 2.1.3.2: the root that an inclusion proof leads to."""
    need(index < size, "a leaf beyond the head of its log")
    fn, sn, root = index, size - 1, sha256(b"\0" + leaf)
    for hash in proof:
        need(sn > 0 and len(hash) == 32, "a proof that is too long")
        if fn & 1 or fn == sn:
            root = sha256(b"\1" + hash + root)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = sha256(b"\1" + root + hash)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0, "a proof that is too short")
    return root


def proven_leaves(document, keys):
    vault, heads, seen, leaves = document["identity"]["vault"], {}, set(), []
    for checkpoint in document["inclusion"]["checkpoints"]:
        need(checkpoint["origin"] not in heads, f"{checkpoint['origin']}: two checkpoints")
        heads[checkpoint["origin"]] = head(checkpoint, vault, keys)
    for cited in document["inclusion"]["leaves"]:
        what = f"leaf {cited['index']} of {cited['origin']}"
        need(cited["origin"] in heads and (what not in seen), f"{what}: no checkpoint, or twice")
        seen.add(what)
        size, root = heads[cited["origin"]]
        entry, proof = unbase64url(cited["leaf"], what), [unbase64url(hash, what) for hash in cited["proof"]]
        need(root_of(entry, cited["index"], size, proof) == root, f"{what}: is not proven to be in the log")
        leaf = decode("StateLeaf", entry, what)
        need(leaf["format_version"] == 1, f"{what}: another format")
        leaves.append(leaf)
    return leaves


class Story:
    """What the leaves say of one erasure. Refuses leaves of anything else."""

    def __init__(self, leaves, tenant, erasure):
        self.requested = self.tenant = self.effective = self.content = self.traces = None
        self.shredded, self.keys, self.keys_gone, self.versions, self.epochs = [], {}, set(), set(), set()
        self.destroying, self.destroyed = set(), {}
        for leaf in leaves:
            at, bodies = leaf["time_micros"], [name for name in BODIES if leaf[name]]
            need(len(bodies) == 1, "a leaf that has nothing to do with an erasure is cited")
            name, body = bodies[0], leaf[bodies[0]]
            if not name.startswith("root_epoch"):
                need(leaf["tenant_id"] == tenant and body.get("erasure_id", erasure) == erasure, "a leaf of another erasure is cited")
            if name == "erasure_requested":
                self.once("requested", (at, leaf["actor"], body))
            elif name == "records_shredded":
                self.shredded += body["records"]
            elif name == "tenant_shredded":
                self.once("tenant", sorted(set(body["key_versions"])))
                self.keys_gone |= set(body["key_versions"])
            elif name == "erasure_effective":
                self.once("effective", (at, body["records"]))
            elif name == "erasure_final":
                self.versions |= set(body["key_versions"])
                self.epochs |= set(body["epochs"])
                if body["content"] and self.content is None:
                    self.content = at
                if body["search_traces"] and self.traces is None:
                    self.traces = at
            elif name in ("tenant_created", "tenant_key_rotated"):
                key = body["key"]
                need(key and key["version"] not in self.keys, "a key version was made twice")
                self.keys[key["version"]] = key
            elif name == "tenant_key_destroyed":
                self.keys_gone.add(body["version"])
            elif name == "root_epoch_destroying":
                self.destroying.add(body["epoch"])
            elif body["scheduled_micros"] == 0:
                self.destroyed.setdefault(body["epoch"], at)

    def once(self, name, said):
        need(getattr(self, name) is None, "a step of the erasure is cited twice")
        setattr(self, name, said)


BODIES = "erasure_requested records_shredded tenant_shredded erasure_effective erasure_final tenant_created tenant_key_rotated".split()
BODIES += "tenant_key_destroyed root_epoch_destroying root_epoch_destroyed".split()


def time(micros):
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=micros)
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"


def uuid_of(data):
    need(len(data) == 16, "a leaf has a malformed id")
    return str(uuid.UUID(bytes=data))


def agree(document, story):
    identity, target, method, verification = (document[name] for name in ("identity", "target", "method", "verification"))
    same = lambda said, logged, what: need(said == logged, f"the log does not say what the certificate says of {what}")
    stage, tenant = identity["stage"], story.tenant
    need(stage in ("EFFECTIVE", "FINAL"), "the document: stage")
    same((document["format"], identity["version"]), ("callvault-erasure-certificate/1", 1), "its form")
    same(identity["id"], f"{identity['erasure']}-{stage.lower()}", "its id")
    need(document["proves"] and document["residual_copies"], "the document: leaves out what it proves, or residual copies")
    need(story.requested, "the log does not say that it was asked for")
    need(story.effective, "the log does not say that it is effective")
    at, actor, asked = story.requested
    said = [identity[name] for name in "requested_at due_at requested_by approvers reference ground".split()]
    logged = [time(at), time(asked["due_micros"]), actor, asked["approvers"] or "none", asked["reference"] or "none"]
    same(said, logged + [GROUNDS.get(asked["ground"])], "who asked for it, when and why")
    same(target["asked_for"], TARGETS.get(asked["target"]), "what was asked for")
    same(target["set_sha256"], asked["set_sha256"].hex() or "none", "the set of records")
    count = target["record_count"]
    if tenant is not None:
        same((target["asked_for"], listed(target["tenant_keys"])), ("TENANT", tenant), "the tenant's keys")
        nothing = [target[name] for name in ("blobs", "derived_since", "elsewhere")]
        same((nothing, count, story.shredded), (["none"] * 3, 0, []), "records of a whole tenant")
        same(method["slots_punctured"], len(tenant), "the number of slots")
        need(tenant, "the log names no key of the tenant")
    else:
        same((target["asked_for"] != "TENANT", target["tenant_keys"]), (True, "none"), "what was asked for")
        records = {uuid_of(record["record_id"]): record for record in story.shredded}
        same(len(records), len(story.shredded), "a record that is shredded twice")
        same((len(records), story.effective[1], method["slots_punctured"]), (count, count, count), "the number of records")
        since, elsewhere = listed(target["derived_since"]), [other["record"] for other in listed(target["elsewhere"])]
        need(set(since) <= set(records) and len(set(since)) == len(since), "the certificate names what was not derived since")
        need(not set(elsewhere) & set(records) and len(set(elsewhere)) == len(elsewhere), "a record is erased here and elsewhere")
        ids = sorted(uuid.UUID(id).bytes for id in (set(records) - set(since)) | set(elsewhere))
        same(len(ids), asked["records"], "the number of records that were asked for")
        same(target["set_sha256"], sha256(b"".join(ids)).hex(), "the set of records")
        for blob in listed(target["blobs"]):
            same(blob["bytes"], sum(erased["bytes"] for erased in blob["records"]), "the bytes of an object")
            for erased in blob["records"]:
                need(erased["record"] in records, "the certificate names a record that is not in the log")
                record = records.pop(erased["record"])
                said = [erased[name] for name in "page slot kind entry entries bytes".split()]
                said += [blob[name] for name in "object version_id footer_sha256".split()]
                logged = [uuid_of(record["page_id"]), record["slot"], KINDS.get(record["kind"]), record["entry_index"]]
                logged += [record["entry_count"], record["plaintext_length"], record["object_key"]]
                same(said, logged + [record["object_version"] or "none", record["footer_sha256"].hex()], "a record")
        need(not records, "the certificate leaves out a record")
    lines = [verification[name] for name in ("content", "search_traces")]
    if stage == "EFFECTIVE":
        since = [story.effective[0]] * 2
        nothing = [method["root_epochs_destroyed"], *(verification[name] for name in ("pages", "paths", "epochs"))]
        same((nothing, listed(method["tenant_key_versions_destroyed"])), (["none"] * 4, tenant or []), "what is destroyed")
    else:
        since = [story.content, story.traces]
        need(None not in since, "the log does not say that content and search traces are final")
        every_way_ends(target, method, verification, story, same)
    for line, at in zip(lines, since):
        same((line["stage"], line["since"]), (stage, time(at)), "its stage")


def every_way_ends(target, method, verification, story, same):
    """slot -> page -> key version -> slot of a region page -> epoch, and the epoch is destroyed."""
    same(verification["errors"], "none", "errors")
    pages = sorted({erased["page"] for blob in listed(target["blobs"]) for erased in blob["records"]})
    same(listed(verification["pages"]), pages, "the pages")
    ways, ends = listed(verification["paths"]), listed(verification["epochs"])
    versions, epochs = [way["key_version"] for way in ways], [end["epoch"] for end in ends]
    need(ways and versions == sorted(set(versions)) == method["tenant_key_versions_destroyed"], "the ways do not go through the key versions")
    need(ends and epochs == sorted(set(epochs)) == method["root_epochs_destroyed"], "the ways do not end in the epochs")
    need(story.versions <= set(versions) and story.epochs <= set(epochs), "the sweep destroyed more than the certificate says")
    for way in ways:
        key = story.keys.get(way["key_version"])
        need(key and way["key_version"] in story.keys_gone, "the log does not say that a key version is destroyed")
        same((way["region_page"], way["region_slot"]), (uuid_of(key["region_page_id"]), key["slot"]), "the slot of a key version")
        first, last = way["first_epoch"], way["last_epoch"]
        need(first <= last and {first, last} <= set(epochs), "a way does not end")
    for end in ends:
        logged = end["epoch"] in story.destroying and story.destroyed.get(end["epoch"])
        need(logged, f"the log does not say that epoch {end['epoch']} is destroyed")
        same(end["destroyed_at"], time(logged), "the end of an epoch")
        need(end["answer"] in ANSWERS, "the provider did not refuse an epoch")


def tell(document, kid):
    identity, target, method = document["identity"], document["target"], document["method"]
    inclusion = document["inclusion"]
    yield f"signed by {kid} at {identity['issued_at']}"
    yield f"{len(inclusion['leaves'])} leaves are in the log of vault {identity['vault']}, under {len(inclusion['checkpoints'])} signed checkpoints"
    yield f"erasure {identity['erasure']} of tenant {identity['tenant']}: asked for at {identity['requested_at']}, ground {identity['ground']}, reference {identity['reference']}"
    if target["asked_for"] == "TENANT":
        yield f"the tenant's key versions {target['tenant_keys']} are punctured"
    else:
        yield f"{target['record_count']} records in {len(listed(target['blobs']))} objects are shredded: the slot of each is punctured"
    if identity["stage"] == "FINAL":
        yield f"key versions {method['tenant_key_versions_destroyed']} and root epochs {method['root_epochs_destroyed']} are destroyed"
    for name in "content", "search_traces":
        line = document["verification"][name]
        yield f"{name} {line['stage']} since {line['since']}: {line['meaning']}"
    yield from document["proves"]
    yield f"the certificate holds: {identity['erasure']} {identity['stage']}"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("certificate", type=Path)
    parser.add_argument("keys", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        keys = key_set(arguments.keys.read_bytes())
        document, kid = opened(arguments.certificate.read_bytes(), keys)
        identity = document["identity"]
        story = Story(proven_leaves(document, keys), identity["tenant"], uuid.UUID(identity["erasure"]).bytes)
        need(str(uuid.UUID(identity["erasure"])) == identity["erasure"], "the document: erasure")
        agree(document, story)
    except (Refused, OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"the certificate does not hold: {error}")
    if arguments.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print("\n".join(tell(document, kid)))


if __name__ == "__main__":
    main()

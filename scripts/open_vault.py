#!/usr/bin/env python3
"""Opens everything in a vault: a copy of its bucket and its root directory (provider `file`).

    open_vault.py BUCKET ROOT [--out DIR]

Written from docs/format.md and proto/callvault/storage/v1 alone: it shares no code with callvault, so what it opens, a
stranger can open. Prints one JSON object a tenant and one a record; --out also writes each content to DIR/<record id>.
Exits 1 and names what does not authenticate. Needs `cryptography` from PyPI.
"""
import argparse, base64, datetime, hashlib, hmac, json, os, re, struct, sys, uuid
from pathlib import Path
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tiny_protobuf import Refused, decode, need


u32, u64, i64 = struct.Struct(">I").pack, struct.Struct(">Q").pack, struct.Struct(">q").pack
sha256 = lambda data: hashlib.sha256(data).digest()
day = lambda micros: f"{datetime.datetime.fromtimestamp(micros // 10**6, datetime.timezone.utc):%Y/%m/%d}"
name_of = lambda id: str(uuid.UUID(bytes=id))


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return u32(crc ^ 0xFFFFFFFF)


def context(label, *fields):
    label = b"callvault/v1/" + label.encode()
    fields = [f.encode() if isinstance(f, str) else f for f in fields]
    return bytes([len(label)]) + label + b"".join(u32(len(f)) + f for f in fields)


def derive(key, info, salt=b""):
    info = b"callvault/v1/" + info.encode() if isinstance(info, str) else info
    prk = hmac.digest(salt or bytes(32), key, "sha256")
    return hmac.digest(prk, info + b"\1", "sha256")


def unseal(key, sealed, aad, what):
    try:
        return (AESGCM(key) if isinstance(key, bytes) else key).decrypt(sealed[:12], sealed[12:], aad)
    except (InvalidTag, ValueError):
        raise Refused(f"{what}: does not authenticate")


def committed(key, wrap, what):
    need(derive(key, "commitment") == wrap["commitment"], f"{what}: commitment")
    return key


def page_nodes(state, what):
    count, nodes, end = int.from_bytes(state[1:3], "big"), [], 0
    need(state[:1] == b"\1" and count <= 2048 and len(state) == 3 + 35 * count, f"{what}: format or length")
    for at in range(3, len(state), 35):
        depth, index, seed = state[at], int.from_bytes(state[at + 1 : at + 3], "big"), state[at + 3 : at + 35]
        need(depth <= 12 and index < 1 << depth and index << 12 - depth >= end, f"{what}: nodes")
        need(not (nodes and index & 1 and nodes[-1][:2] == (depth, index - 1)), f"{what}: siblings")
        nodes.append((depth, index, seed))
        end = index + 1 << 12 - depth
    return nodes


def slot_key(pages, page, slot, what):
    for depth, index, seed in pages.get(page, (0, []))[1]:
        if slot >> 12 - depth == index and slot < 4096:
            for bit in range(11 - depth, -1, -1):
                seed = hmac.digest(seed, bytes([slot >> bit & 1]), "sha256")
            return seed
    raise Refused(f"{what}: slot {slot} is gone from its page")


def merkle(hashes):
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"")
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\1" + merkle(hashes[:k]) + merkle(hashes[k:]))


class Log:
    """A log whose checkpoint, bundles and tiles agree. Nothing it says is known to be the vault's before `verify`."""

    def __init__(self, bucket, vault, node, term):
        self.origin, self.dir = f"callvault/{vault}/state/{node}/{term}", bucket / "log/state" / node / term
        text = (self.dir / "checkpoint").read_bytes().decode(errors="replace")
        parts = re.fullmatch(r"((.+)\n([1-9]\d{,14})\n([\w+/]{43}=)\n)\n((\u2014 \S+ [\w+/]+=*\n)+)", text, re.A)
        need(parts and parts[2] == self.origin, f"{self.origin}: checkpoint")
        self.signed, size, root = parts[1].encode(), int(parts[3]), base64.b64decode(parts[4])
        lines, self.entries = [line.split(" ") for line in parts[5].splitlines()], []
        self.signatures = [(name, base64.b64decode(value)) for _, name, value in lines]
        for n, width in tiles(size):
            bundle, at = self.read("entries", n, width), 0
            for _ in range(width):
                length = int.from_bytes(bundle[at : at + 2], "big")
                self.entries.append(bundle[at + 2 : at + 2 + length])
                at += 2 + length
        self.hashes = hashes = [sha256(b"\0" + entry) for entry in self.entries]
        need(merkle(hashes) == root, f"{self.origin}: entries are not those of the checkpoint's root")
        for level in range(7):
            for n, width in tiles(len(hashes)):
                tile = b"".join(hashes[256 * n : 256 * n + width])
                need(self.read(level, n, width)[: 32 * width] == tile, f"{self.origin}: tile {level}/{n}")
            hashes = [merkle(hashes[256 * n :][:256]) for n, width in tiles(len(hashes)) if width == 256]
        self.leaves = [decode("StateLeaf", entry, f"{self.origin}, a leaf") for entry in self.entries]
        self.opened = self.leaves[0]["log_opened"]
        need(self.opened and self.opened["origin"] == self.origin, f"{self.origin}: does not begin with its LogOpened")

    def read(self, level, n, width):
        name = f"{n % 1000:03}"
        while n := n // 1000:
            name = f"x{n % 1000:03}/{name}"
        path = self.dir / f"tile/{level}/{name}"
        partial = Path(f"{path}.p/{width}")
        return (partial if width < 256 and partial.exists() else path).read_bytes()

    def verify(self, key):
        key_id = sha256(self.origin.encode() + b"\n\1" + key)[:4]
        ours = [value[4:] for name, value in self.signatures if (name, value[:4]) == (self.origin, key_id)]
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(b"".join(ours), self.signed)
        except InvalidSignature:
            raise Refused(f"{self.origin}: the checkpoint is not signed by the region's key")


def tiles(size):
    return [(n, min(256, size - 256 * n)) for n in range(-(-size // 256))]


class Vault:
    def __init__(self, bucket, root):
        # A bucket of the local store lies in `objects`.
        self.bucket = bucket / "objects" if (bucket / "objects").is_dir() else bucket
        self.root, self.tenants, self.put, self.updates = root, {}, {}, {}
        self.manifest = (self.bucket / "vault/manifest").read_bytes()
        said = decode("VaultManifest", self.manifest, "vault/manifest")
        self.id, self.region = said["vault_id"], said["region"]
        need(said["format_version"] == 1 and len(self.id) == 16, "vault/manifest: format")
        checkpoints = self.bucket.glob("log/state/*/*/checkpoint")
        logs = [Log(self.bucket, name_of(self.id), *path.parts[-3:-1]) for path in checkpoints]
        leaves = self.in_order(logs)
        self.open_epoch(leaves)
        for log in logs:
            log.verify(self.signer.public_key().public_bytes_raw())
        anchor = decode("Anchor", self.framed("anchor", b"CVA1"), "anchor")
        need(anchor["vault_id"] == self.id, "anchor: of another vault")
        hashes = {log.origin: log.hashes for log in logs}
        for head in anchor["heads"] + [head for log in logs for head in log.opened["retired"]]:
            have = hashes.get(head["origin"], [])[: head["size"]]
            need(merkle(have) == head["root"], f"{head['origin']}: is not, or not beyond, what was remembered of it")
        self.open_keys(leaves)
        for leaf in leaves:
            self.apply(leaf)
        self.adopt()

    def framed(self, name, magic):
        data = (self.root / name).read_bytes()
        need(data[:4] == magic and crc32c(data[:-4]) == data[-4:], f"{name}: magic or checksum")
        return data[4:-4]

    def in_order(self, logs):
        """Leaves: the region's sequence, then the tenants', then the facts."""
        numbered, facts = {}, []
        for leaf, entry in [pair for log in logs for pair in zip(log.leaves, log.entries)]:
            key = (leaf["tenant_id"], leaf["tenant_seq"] or leaf["region_seq"])
            need(leaf["format_version"] == 1, "a leaf of another format version")
            have = numbered.setdefault(key, (entry, leaf)) if key[1] else facts.append(leaf)
            need(not have or have[0] == entry, f"two leaves are number {key[1]} of {key[0] or 'the region'}")
        for of, number in numbered:
            need(number == 1 or (of, number - 1) in numbered, f"{of or 'the region'}: no leaf {number - 1}")
        return [numbered[key][1] for key in sorted(numbered)] + facts

    def open_epoch(self, leaves):
        """The newest epoch: older ones may be destroyed, and nothing needs them."""
        e = max((leaf["root_epoch_created"] for leaf in leaves if leaf["root_epoch_created"]), key=lambda e: e["epoch"])
        what, number = f"epoch {e['epoch']}", u64(e["epoch"])
        need(e["provider"] == "file", f"{what}: provider {e['provider']}")
        file = self.framed(f"epoch-{e['epoch']:08}.key", b"CVE1")
        need(file[:24] == self.id + number and file[56:] == e["wrapped_epoch_key"], f"{what}: key file")
        self.epoch = {e["epoch"]: unseal(file[24:56], file[56:], context("epoch-key", self.id, number), what)}
        aad = context("region-keyring", self.id, self.region, number)
        keyring = unseal(derive(self.epoch[e["epoch"]], "region-keyring"), e["sealed_keyring"], aad, f"{what}, keyring")
        keyring = decode("RegionKeyring", keyring, f"{what}, keyring")
        need(keyring["manifest_sha256"] == sha256(self.manifest), "vault/manifest: is not the one that the keyring names")
        self.signer = Ed25519PrivateKey.from_private_bytes(keyring["signing_keys"][-1]["seed"])

    def open_keys(self, leaves):
        """Of every key and page the newest: the region's pages, the tenants' keys, their pages."""
        newest, keys, self.region_pages = {}, {}, {}

        def seen(owner, *pages):
            for p in pages:
                at = newest.setdefault(owner, {})
                at[p["page_id"]] = max(at.get(p["page_id"], p), p, key=lambda p: p["generation"])

        for leaf in leaves:
            id, created, rotated = leaf["tenant_id"], leaf["tenant_created"], leaf["tenant_key_rotated"]
            if e := leaf["root_epoch_created"]:
                seen("", *self.states("RegionPageStates", e["page_states"]))
            if p := leaf["region_page_sealed"]:
                seen("", *(self.states("RegionPageStates", [p["stored"]]) if p["stored"] else [p]))
            if p := created["settings_page"] if created else leaf["tenant_page_sealed"]:
                seen(id, p)
            if rotated:
                seen(id, *self.states("TenantPageStates", rotated["page_states"]))
            if k := created or rotated:
                keys[id] = max(keys.get(id, k), k, key=lambda k: k["key"]["version"])
        for p in newest.get("", {}).values():
            self.open_page(self.region_pages, p, self.epoch, p["epoch"], "region-page", self.region)
        for id, said in keys.items():
            self.tenants[id] = tenant = {"pages": {}, "classes": []}
            k, what = said["key"], f"key of tenant {id}"
            fields = u64(k["version"]), k["root_id"], k["region_page_id"], u32(k["slot"])
            slot = slot_key(self.region_pages, k["region_page_id"], k["slot"], what)
            key = committed(unseal(slot, k["wrapped_key"], context("wrapped-tenant-key", self.id, id, *fields), what), k, what)
            aad, what = context("tenant-keyring", self.id, id, u64(k["version"])), f"keyring of tenant {id}"
            tenant["keyring"] = decode("TenantKeyring", unseal(derive(key, "tenant-keyring"), said["sealed_keyring"], aad, what), what)
            for p in newest[id].values():
                self.open_page(tenant["pages"], p, {k["version"]: key}, p["key_version"], "tenant-page", id)

    def states(self, kind, objects):
        """The sealed page states in objects of many."""
        for named in objects:
            # One whose key is destroyed may be missing. If it is not, a page of the newest generation will lack its key.
            if not (self.bucket / "payloads" / named["sha256"].hex()).exists():
                continue
            pages = decode(kind, self.payload(named, "page states"), "page states")["pages"]
            need(len(pages) == named["pages"], "page states: number of pages")
            yield from pages

    def apply(self, leaf):
        id, payload = leaf["tenant_id"], leaf["tenant_created"] or leaf["tenant_updated"]
        if payload:
            s, what = payload["settings"], f"settings of tenant {id}"
            aad, key = context("payload", self.id, id, "settings", u64(s["version"])), derive(self.dek(id, s, "settings", what), "payload")
            self.tenants[id]["settings"] = decode("TenantSettings", unseal(key, self.payload(s, what), aad, what), what)
        if leaf["retention_class_created"]:
            self.tenants[id]["classes"].append(leaf["retention_class_created"]["retention_class"])
        if u := leaf["record_updated"]:
            self.updates.setdefault(u["record_id"], {})[u["descriptor_version"]] = u["descriptor"]
        if put := leaf["records_put"]:
            for record in put["record_ids"]:
                other = self.put.setdefault(record, put)
                need(other["footer_sha256"] == put["footer_sha256"], f"record {name_of(record)}: in two blobs")

    def open_page(self, pages, p, keys, key, label, owner):
        what = f"{label} {name_of(p['page_id'])}, generation {p['generation']}"
        need(key in keys, f"{what}: no key {key}")
        aad = context(f"{label}-state", self.id, owner, p["page_id"], u64(p["generation"]), u64(key))
        nodes = page_nodes(unseal(derive(keys[key], label), p["sealed_state"], aad, what), what)
        pages[p["page_id"]] = p["generation"], nodes

    def dek(self, tenant, wrapped, owner, what):
        slot = slot_key(self.tenants[tenant]["pages"], wrapped["page_id"], wrapped["slot"], what)
        aad = context("wrapped-dek", self.id, tenant, wrapped["page_id"], u32(wrapped["slot"]), owner)
        return committed(unseal(slot, wrapped["wrapped_dek"], aad, what), wrapped, what)

    def payload(self, named, what):
        sealed = (self.bucket / "payloads" / named["sha256"].hex()).read_bytes()
        need(len(sealed) == named["length"] and sha256(sealed) == named["sha256"], f"{what}: payload object")
        return sealed

    def footer(self, key):
        """The footer of a blob and its SHA-256."""
        with open(self.bucket / key, "rb") as blob:
            size = blob.seek(0, 2)
            blob.seek(max(size - 12, 0))
            trailer = blob.read()
            length = int.from_bytes(trailer[:4], "big")
            need(trailer[8:] == b"CVB1" and length <= min(1 << 20, size - 12), f"{key}: trailer")
            blob.seek(size - 12 - length)
            footer = blob.read(length)
        need(crc32c(footer + trailer[:4]) == trailer[4:8], f"{key}: footer's CRC")
        f = decode("BlobFooter", footer, key)
        need(f["format_version"] == 1 and f["vault_id"] == self.id and f["tenant_id"] in self.tenants, f"{key}: vault or tenant")
        need(sum(n for e in f["entries"] for n in e["extent_lengths"]) == size - 12 - length, f"{key}: lengths of its extents")
        return f, sha256(footer)

    def adopt(self):
        """Takes records that no leaf names: the leaves may have been queued in the index when the bucket was copied."""
        answered, unnamed = {}, []
        for key in sorted(str(path.relative_to(self.bucket)) for path in self.bucket.glob("blobs/*/*/*/*/*")):
            try:
                f, digest = self.footer(key)
            except (Refused, ValueError):
                continue  # named: its records say so; not named: a rebuild passes it over, too
            at, ids = f["created_at_micros"], [e["record_id"] for e in f["entries"]]
            whole = {"object_key": key, "footer_sha256": digest, "record_ids": ids}
            for e in f["entries"]:
                t = (f["tenant_id"], e["request_mac"])
                if e["record_id"] not in self.put:
                    unnamed.append((e["record_id"], t, at, whole))
                elif t[1] and self.put[e["record_id"]]["object_key"] == key:
                    answered.setdefault(t, []).append(at)
        for id, t, at, whole in unnamed:
            place = f"blobs/{t[0]}/{day(at)}/{name_of(whole['record_ids'][0])}"
            if whole["object_key"] == place and not any(abs(at - other) < 86_400_000_000 for other in answered.get(t, [])):
                self.put[id] = whole
                if t[1]:
                    answered.setdefault(t, []).append(at)

    def record(self, id, out):
        put, what = self.put[id], f"record {name_of(id)}"
        f, digest = self.footer(put["object_key"])
        ids = [e["record_id"] for e in f["entries"]]
        same = digest == put["footer_sha256"] and set(put["record_ids"]) <= set(ids)
        need(same, f"{put['object_key']}: is not the blob that its leaf names")
        index = ids.index(id)
        e, tenant = f["entries"][index], f["tenant_id"]
        kind, lengths = u32(e["kind"]), e["extent_lengths"]
        need(lengths == extent_lengths(e["plaintext_length"]), f"{what}: lengths of its extents")
        dek = self.dek(tenant, e, id, what)
        bound = "wrapped_dek", "commitment", "request_mac", "request_fingerprint", "tags_digest"
        binding = sha256(context("binding", u32(f["node"]), e["page_id"], u32(e["slot"]), *(e[name] for name in bound)))
        place = (self.id, tenant, id, kind, f["region"], i64(f["created_at_micros"]), put["object_key"], u32(index))
        place += u32(len(f["entries"])), u32(len(lengths)), u32(lengths[-1]), u64(e["plaintext_length"])
        sealed = {1: e["sealed_descriptor"]}
        for version, named in self.updates.get(id, {}).items():
            sealed[version] = self.payload(named, f"{what}, descriptor {version}")
        for version in sorted(sealed):
            step, aad = f"{what}, descriptor {version}", context("descriptor", *place, u32(version), binding)
            descriptor = decode("Descriptor", unseal(derive(dek, "descriptor"), sealed[version], aad, step), step)
        descriptor = {name: value for name, value in descriptor.items() if name != "incomplete" or value}
        descriptor["labels"] = {label["key"]: label["value"] for label in descriptor["labels"]}
        whole, digests, target = hashlib.sha256(), b"", str(out / name_of(id)) if out else None
        with open(self.bucket / put["object_key"], "rb") as blob, open(f"{target}.part" if out else os.devnull, "wb") as sink:
            blob.seek(sum(n for other in f["entries"][:index] for n in other["extent_lengths"]))
            for number, length in enumerate(lengths):
                aad, tags = context("extent", tenant, id, kind, f["region"], u32(number)), b""
                for plain, tag in segments(derive(dek, "content"), blob.read(length), aad, f"{what}, extent {number}"):
                    whole.update(plain)
                    sink.write(plain)
                    tags += tag
                digests += sha256(tags)
        need(sha256(digests) == e["tags_digest"], f"{what}: tags digest")
        if out:
            os.replace(f"{target}.part", target)
        shown = {"record_id": name_of(id), "tenant_id": tenant, "kind": e["kind"], "region": f["region"], "slot": e["slot"]}
        shown |= {"created_at_micros": f["created_at_micros"], "object_key": put["object_key"], "entry_index": index}
        shown |= {"page_id": name_of(e["page_id"]), "descriptor_version": version, "descriptor": descriptor}
        return shown | {"content_length": e["plaintext_length"], "content_sha256": whole.digest()}


def extent_lengths(plaintext):
    """Ciphertext lengths of the extents of an entry of so many bytes."""
    lengths = []
    while plaintext > 0:
        part = min(plaintext, (128 if len(lengths) < 5000 else 256) * 65520 - 40)
        lengths.append(40 + part + 16 * -(-(part + 40) // 65520))
        plaintext -= part
    return lengths


def segments(content_key, extent, aad, what):
    """Plaintext and tag of each segment."""
    need(extent[:1] == b"\x28", f"{what}: header")
    key, starts = AESGCM(derive(content_key, aad, extent[1:33])), [40, *range(65536, len(extent), 65536), len(extent)]
    for number, (start, end) in enumerate(zip(starts, starts[1:])):
        nonce = extent[33:40] + u32(number) + bytes([end == len(extent)])
        yield unseal(key, nonce + extent[start:end], None, f"{what}, segment {number}"), extent[end - 16 : end]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in "bucket", "root", "--out":
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    show = lambda value: print(json.dumps(value, default=bytes.hex, ensure_ascii=False))
    try:
        vault = Vault(arguments.bucket, arguments.root)
    except (Refused, OSError, ValueError) as error:
        sys.exit(str(error))
    failures = []
    for id, tenant in sorted(vault.tenants.items()):
        show({"tenant_id": id, "settings": tenant["settings"], "retention_classes": tenant["classes"]})
    for id in sorted(vault.put):
        try:
            show(vault.record(id, arguments.out))
        except (Refused, OSError, ValueError) as error:
            failures.append(str(error))
    sys.exit("\n".join(failures) or 0)


if __name__ == "__main__":
    main()

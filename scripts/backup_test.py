#!/usr/bin/env python3
"""What old copies of a vault still open: every copy of its bucket, index and data directory, and every key that there is now.

    backup_test.py --bucket DIR... --root DIR... [--rows FILE...] [--spool DIR...] [--numbers FILE] [--guesses FILE]
                   [--expect FILE] [--out DIR]

Written from docs/format.md and proto/callvault/storage/v1 alone, and as somebody who means harm would write it: nothing is
checked that needs no checking, every state of every page is tried, whether a log names it or not, and what one copy opens is
used on all the others. Only what authenticates counts as opened.

  --bucket   copies of the bucket, old and new; with what unfinished uploads left in them
  --root     root directories (provider `file`): those that exist
  --rows     rows of copies of the index, a JSON object a line: {"table", "key": [columns], "value": hex}
  --spool    copies of the spool in the data directory
  --numbers  identifiers to look for in the rows of the index, one a line: telephone numbers, addresses, ids
  --guesses  what may have been asked for, a guess a line, in hex: the part of a request's fingerprint, in which each of the identifiers
             is tried in the place of a telephone number of as many zeros; under every key that a request was ever compared by
  --expect   lines of `<record or tenant id, or identifier> <state>`; anything else fails
  --out      writes each content that opens to DIR/<record id>

A record `opens` if content and descriptor do, is `partly` open if its key is there, and `gone` if it is not. A tenant `opens`
if a version of its key does. An identifier is `gone` if no row that leads anywhere can be found with it, leads to `survivors`
if all records behind it open, and to `traces` if one does not. Prints a table, and one JSON object in the last line. Exits 1
unless everything is as expected. Needs `cryptography` from PyPI.
"""
import argparse, json, sys, uuid
from collections import Counter, defaultdict
from pathlib import Path
from open_vault import committed, context, crc32c, day, derive, extent_lengths, hmac, i64, name_of, page_nodes, segments
from open_vault import sha256, u32, u64, unseal
from tiny_protobuf import Refused, decode, need

KINDS = range(1, 7)  # of identifiers


def attempt(do, *arguments):
    """What it gives, or nothing where it does not authenticate, decode or fit."""
    try:
        return do(*arguments)
    except (Refused, ValueError, IndexError, OSError):
        return None


class Pages:
    """Seeds of pages, of all their states that opened: a slot that any of them has can be derived."""

    def __init__(self):
        self.seeds = defaultdict(dict)

    def add(self, page, nodes, via):
        for depth, index, seed in nodes:
            self.seeds[page, depth, index].setdefault(seed, via)

    def slot(self, page, slot):
        """Every key that can be derived for a slot, and how."""
        keys = {}
        for depth in range(13):
            for seed, via in self.seeds.get((page, depth, slot >> 12 - depth), {}).items():
                for bit in range(11 - depth, -1, -1):
                    seed = hmac.digest(seed, bytes([slot >> bit & 1]), "sha256")
                keys.setdefault(seed, f"{via} > slot {slot}")
        return keys.items()

    def live(self):
        slots = {(page, s) for page, depth, index in self.seeds for s in range(index << 12 - depth, index + 1 << 12 - depth)}
        return len(slots)


class Copies:
    """Everything that lies in the copies, each thing once, and nothing of it opened."""

    def __init__(self):
        self.vaults, self.leaves, self.payloads, self.blobs, self.rows = set(), {}, {}, {}, []
        self.provider_keys, self.epochs, self.region_pages, self.tenant_keys = {}, set(), set(), {}
        self.tenant_pages, self.keyrings, self.wraps, self.settings = set(), set(), {}, set()
        self.places, self.descriptors, self.named, self.tenants = defaultdict(set), defaultdict(set), set(), set()
        self.fingerprints = {}
        self.unreadable = Counter()

    def bucket(self, copy):
        base = copy / "objects" if (copy / "objects").is_dir() else copy
        for path in sorted(p for p in copy.rglob("*") if p.is_file()):
            name = str(path.relative_to(base)) if path.is_relative_to(base) else ""
            if name == "vault/manifest":
                manifest = decode("VaultManifest", path.read_bytes(), str(path))
                self.vaults.add((manifest["vault_id"], manifest["region"]))
            elif name.startswith("log/state/") and "/tile/entries/" in name:
                self.entries(path.read_bytes())
            elif name.startswith("payloads/"):
                data = path.read_bytes()
                self.payloads[sha256(data)] = data
            elif not name.startswith("log/"):
                # Blobs, also those in quarantine, and whatever an upload that was never finished may have left.
                if footer := attempt(read_footer, path):
                    self.blobs.setdefault(footer, []).append(path)
                elif name.startswith("blobs/"):
                    self.unreadable["blob"] += 1

    def entries(self, bundle):
        at = 0
        while at + 2 <= len(bundle):
            end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
            entry, at = bundle[at + 2 : end], end
            if entry not in self.leaves:
                self.leaves[entry] = attempt(decode, "StateLeaf", entry, "leaf")
                self.unreadable["leaf"] += self.leaves[entry] is None

    def root(self, copy):
        for path in sorted(p for p in copy.rglob("*") if p.is_file()):
            data = path.read_bytes()
            if data[:4] == b"CVE1" and len(data) == 124:
                epoch = int.from_bytes(data[20:28], "big")
                self.provider_keys.setdefault(data[28:60], path.name)
                self.epochs.add((epoch, data[60:120]))

    def spool(self, copy):
        """Journals of uploads: their heads have wraps of their own of what became records."""
        for path in sorted(p for p in copy.rglob("*") if p.is_file()):
            data = path.read_bytes()
            head = attempt(decode, "SpoolHead", data[8 : 8 + int.from_bytes(data[4:8], "big")], "spool")
            if data[:4] == b"CVS1" and head and head["wrapped_dek"]:
                self.wrap(head["tenant_id"], head["upload_id"], head, "spool")

    # What is in it, by where it stands.

    def sort(self):
        for leaf in filter(None, list(self.leaves.values())):
            self.sort_leaf(leaf)
        for table, key, value in self.rows:
            attempt(self.sort_row, table, key, value)
        for footer in self.blobs:
            self.sort_footer(footer)
        # Objects of states that no leaf names belong to work that was cut short; whose they are is found by trying.
        for digest in set(self.payloads) - self.named:
            self.states("RegionPageStates", {"sha256": digest}, "")
            for tenant in self.tenants:
                self.states("TenantPageStates", {"sha256": digest}, tenant)

    def sort_leaf(self, leaf):
        tenant = leaf["tenant_id"]
        if tenant:
            self.tenants.add(tenant)
        if e := leaf["root_epoch_created"]:
            self.epochs.add((e["epoch"], e["wrapped_epoch_key"]))
            for named in e["page_states"]:
                self.states("RegionPageStates", named, "")
        if p := leaf["region_page_sealed"]:
            self.state("", p, "leaf")
            if p["stored"]:
                self.states("RegionPageStates", p["stored"], "")
        if c := leaf["tenant_created"]:
            self.tenant_key(tenant, c["key"], c["sealed_keyring"])
            self.state(tenant, c["settings_page"], "leaf")
        if r := leaf["tenant_key_rotated"]:
            self.tenant_key(tenant, r["key"], r["sealed_keyring"])
        if p := leaf["tenant_page_sealed"]:
            self.state(tenant, p, "leaf")
        if s := leaf["records_shredded"]:
            for p in s["pages"]:
                self.state(tenant, p, "leaf")
        for body in filter(None, (leaf["tenant_key_rotated"], leaf["records_shredded"])):
            for named in body["page_states"]:
                self.states("TenantPageStates", named, tenant)
        if s := leaf["index_key_staged"]:
            self.keyrings.add((tenant, s["sealed_keyring"]))
        if u := leaf["tenant_created"] or leaf["tenant_updated"]:
            self.sealed_settings(tenant, u["settings"], None)
        if u := leaf["record_updated"]:
            self.fingerprints[tenant, leaf["request_fingerprint"]] = u["record_id"]
            named = u["descriptor"]["sha256"]
            self.named.add(named)
            if named in self.payloads:
                self.descriptors[u["record_id"]].add((u["descriptor_version"], self.payloads[named]))

    def sort_row(self, table, key, value):
        """A row that holds something sealed: a message, and 16 bytes of a MAC."""
        kinds = {"Epoch": "EpochRow", "RegionPage": "PageRow", "Tenant": "TenantRow", "TenantKey": "TenantKeyRow"}
        kinds |= {"Page": "PageRow", "Record": "RecordRow", "Request": "RequestRow"}
        if table not in kinds:
            return
        row = decode(kinds[table], value[:-16], f"row of {table}")
        if table == "Epoch":
            self.epochs.add((row["epoch"], row["wrapped_epoch_key"]))
        elif table in ("RegionPage", "Page"):
            tenant, page = ("", *key) if table == "RegionPage" else key
            for state in filter(None, (row, row["staged"])):
                versions = {"page_id": uuid.UUID(page).bytes, "key_version": state["key_version"], "epoch": state["key_version"]}
                self.state(tenant, versions | {k: state[k] for k in ("generation", "sealed_state")}, "row")
        elif table == "Tenant":
            self.tenants.add(key[0])
            self.keyrings.add((key[0], row["sealed_keyring"]))
            self.sealed_settings(key[0], row["settings"], row["sealed_settings"])
        elif table == "TenantKey":
            self.tenant_key(key[0], row["key"], None)
        elif table == "Request":
            self.fingerprints[key[0], row["fingerprint"]] = row["record_id"]
        else:
            tenant, record = key[0], uuid.UUID(key[1]).bytes
            self.wrap(tenant, record, row, "row")
            lengths = extent_lengths(row["plaintext_length"])
            place = (tenant, record, u32(row["kind"]), row["region"], i64(row["created_micros"]), row["object_key"])
            place += u32(row["entry_index"]), u32(row["entry_count"]), u32(len(lengths)), u32(lengths[-1])
            self.places[record].add((place + (u64(row["plaintext_length"]),), row["binding"]))
            self.descriptors[record].add((row["descriptor_version"], row["sealed_descriptor"]))

    def sort_footer(self, footer):
        f = decode("BlobFooter", footer, "footer")
        tenant, created, count = f["tenant_id"], f["created_at_micros"], len(f["entries"])
        key = f"blobs/{tenant}/{day(created)}/{name_of(f['entries'][0]['record_id'])}"
        self.tenants.add(tenant)
        for index, e in enumerate(f["entries"]):
            id, lengths = e["record_id"], e["extent_lengths"]
            self.wrap(tenant, id, e, "footer")
            self.fingerprints[tenant, e["request_fingerprint"]] = id
            bound = "wrapped_dek", "commitment", "request_mac", "request_fingerprint", "tags_digest"
            binding = sha256(context("binding", u32(f["node"]), e["page_id"], u32(e["slot"]), *(e[name] for name in bound)))
            place = (tenant, id, u32(e["kind"]), f["region"], i64(created), key, u32(index), u32(count))
            place += u32(len(lengths)), u32(lengths[-1]), u64(e["plaintext_length"])
            self.places[id].add((place, binding))
            self.descriptors[id].add((1, e["sealed_descriptor"]))

    def states(self, kind, named, owner):
        """The sealed page states in an object of many."""
        self.named.add(named["sha256"]) if "length" in named else None
        object = attempt(decode, kind, self.payloads.get(named["sha256"], b"\0"), "page states")
        for page in object["pages"] if object else []:
            self.state(owner, page, "object")

    def state(self, owner, p, source):
        if len(p["page_id"]) == 16 and p["sealed_state"]:
            pages, under = (self.tenant_pages, p["key_version"]) if owner else (self.region_pages, p["epoch"])
            pages.add((owner, p["page_id"], p["generation"], under, p["sealed_state"], source))

    def tenant_key(self, tenant, key, keyring):
        self.tenants.add(tenant)
        self.tenant_keys[tenant, key["wrapped_key"]] = key
        if keyring:
            self.keyrings.add((tenant, keyring))

    def wrap(self, tenant, owner, w, source):
        self.wraps.setdefault((tenant, owner, w["page_id"], w["slot"], w["wrapped_dek"]), (w["commitment"], source))

    def sealed_settings(self, tenant, payload, sealed):
        self.wrap(tenant, "settings", payload, "payload")
        self.named.add(payload["sha256"])
        if sealed := sealed or self.payloads.get(payload["sha256"]):
            self.settings.add((tenant, payload["version"], sealed))


def read_footer(path):
    with open(path, "rb") as blob:
        size = blob.seek(0, 2)
        blob.seek(max(size - 12, 0))
        trailer = blob.read()
        length = int.from_bytes(trailer[:4], "big")
        need(trailer[8:] == b"CVB1" and length <= min(1 << 20, size - 12), "trailer")
        blob.seek(size - 12 - length)
        footer = blob.read(length)
    need(crc32c(footer + trailer[:4]) == trailer[4:8], "footer's CRC")
    need(decode("BlobFooter", footer, "footer")["entries"], "footer")
    return footer


class Opened:
    """All that opens, from the root down."""

    def __init__(self, copies):
        self.copies = copies
        need(len(copies.vaults) == 1, "the copies are not of one vault")
        ((self.vault, self.region),) = copies.vaults
        self.epochs, self.region, self.region_pages = {}, self.region, Pages()
        self.tenant_keys, self.tenant_pages = defaultdict(dict), defaultdict(Pages)
        self.deks, self.index_keys, self.request_keys = defaultdict(dict), defaultdict(dict), defaultdict(dict)
        self.settings = set()
        self.counts = Counter()
        self.open_region()
        self.open_tenants()
        self.open_deks()

    def tried(self, what, opened):
        self.counts[what, "tried"] += 1
        self.counts[what, "opened"] += bool(opened)
        return opened

    def open_region(self):
        for epoch, wrapped in sorted(self.copies.epochs):
            aad, found = context("epoch-key", self.vault, u64(epoch)), None
            for key, file in self.copies.provider_keys.items():
                if found := attempt(unseal, key, wrapped, aad, "epoch"):
                    self.epochs.setdefault((epoch, found), f"{file} > epoch {epoch}")
                    break
            self.tried("epoch keys", found)
        for _, page, generation, under, sealed, source in self.copies.region_pages:
            aad = context("region-page-state", self.vault, self.region, page, u64(generation), u64(under))
            nodes = None
            for (_, key), via in self.epochs.items():
                if (state := attempt(unseal, derive(key, "region-page"), sealed, aad, "page")) is not None:
                    nodes = page_nodes(state, "region page")
                    self.region_pages.add(page, nodes, f"{via} > region page {name_of(page)} generation {generation} ({source})")
            self.tried("region page states", nodes is not None)

    def open_tenants(self):
        for (tenant, wrapped), k in self.copies.tenant_keys.items():
            fields = u64(k["version"]), k["root_id"], k["region_page_id"], u32(k["slot"])
            aad, found = context("wrapped-tenant-key", self.vault, tenant, *fields), None
            for slot, via in self.region_pages.slot(k["region_page_id"], k["slot"]):
                if found := attempt(self.unwrap, slot, wrapped, aad, k):
                    self.tenant_keys[tenant].setdefault(found, (k["version"], f"{via} > key {k['version']} of {tenant}"))
            self.tried("tenant keys", found)
        for tenant, page, generation, under, sealed, source in self.copies.tenant_pages:
            aad, opened = context("tenant-page-state", self.vault, tenant, page, u64(generation), u64(under)), False
            for key, (_, via) in self.tenant_keys[tenant].items():
                if (state := attempt(unseal, derive(key, "tenant-page"), sealed, aad, "page")) is not None:
                    nodes, opened = page_nodes(state, "tenant page"), True
                    via = f"{via} > page {name_of(page)} generation {generation} ({source})"
                    self.tenant_pages[tenant].add(page, nodes, via)
            self.tried("tenant page states", opened)
        for tenant, sealed in self.copies.keyrings:
            opened = False
            for key, (version, via) in self.tenant_keys[tenant].items():
                aad = context("tenant-keyring", self.vault, tenant, u64(version))
                if keyring := attempt(unseal, derive(key, "tenant-keyring"), sealed, aad, "keyring"):
                    keyring, opened = decode("TenantKeyring", keyring, "keyring"), True
                    for name in "index_key", "next_index_key":
                        if keyring[name]:
                            self.index_keys[tenant].setdefault(keyring[name], f"{via} > {name} of its keyring")
                    self.request_keys[tenant].setdefault(keyring["request_key"], f"{via} > request_key of its keyring")
            self.tried("keyrings", opened)

    def open_deks(self):
        for (tenant, owner, page, slot, wrapped), (commitment, source) in self.copies.wraps.items():
            aad, found = context("wrapped-dek", self.vault, tenant, page, u32(slot), owner), None
            for key, via in self.tenant_pages[tenant].slot(page, slot):
                if found := attempt(self.unwrap, key, wrapped, aad, {"commitment": commitment}):
                    self.deks[tenant, owner].setdefault(found, f"{via} > wrapped DEK ({source})")
            self.tried("wrapped DEKs", found)
        for tenant, version, sealed in self.copies.settings:
            for dek in self.deks[tenant, "settings"]:
                aad = context("payload", self.vault, tenant, "settings", u64(version))
                if attempt(unseal, derive(dek, "payload"), sealed, aad, "settings"):
                    self.settings.add(tenant)

    def unwrap(self, slot, wrapped, aad, wrap):
        return committed(unseal(slot, wrapped, aad, "wrap"), wrap, "wrap")

    def records(self, out):
        """Every record that anything in the copies tells of, and what of it opens."""
        content, copies, found = self.contents(out), self.copies, {}
        ids = {(tenant, owner) for tenant, owner, *_ in copies.wraps if owner != "settings"}
        for tenant, id in sorted(ids):
            deks, descriptors = self.deks.get((tenant, id), {}), {}
            for place, binding in copies.places[id]:
                for version, sealed in copies.descriptors[id]:
                    aad = context("descriptor", self.vault, *place, u32(version), binding)
                    for dek in deks:
                        if plain := attempt(unseal, derive(dek, "descriptor"), sealed, aad, "descriptor"):
                            descriptors[version] = decode("Descriptor", plain, "descriptor")
            whole = id in content and descriptors
            found[id] = {
                "tenant": tenant,
                "state": "opens" if whole else "partly" if deks else "gone",
                "descriptors": sorted(descriptors),
                "content_sha256": content.get(id),
                "through": next(iter(deks.values()), None),
            }
            self.descriptors[id] = descriptors
        return found

    def contents(self, out):
        """SHA-256 of every content that opens, by its record."""
        self.descriptors, contents = {}, {}
        for footer, paths in self.copies.blobs.items():
            f, at = decode("BlobFooter", footer, "footer"), 0
            for e in f["entries"]:
                id, start = e["record_id"], at
                at += sum(e["extent_lengths"])
                for dek in self.deks.get((f["tenant_id"], id), {}):
                    for path in paths:
                        if id not in contents and (plain := attempt(self.content, f, e, dek, path, start)) is not None:
                            contents[id] = sha256(plain)
                            if out:
                                (out / name_of(id)).write_bytes(plain)
        return contents

    def content(self, f, e, dek, path, start):
        plain, digests = [], b""
        with open(path, "rb") as blob:
            blob.seek(start)
            for number, length in enumerate(e["extent_lengths"]):
                aad, tags = context("extent", f["tenant_id"], e["record_id"], u32(e["kind"]), f["region"], u32(number)), b""
                for part, tag in segments(derive(dek, "content"), blob.read(length), aad, "extent"):
                    plain.append(part)
                    tags += tag
                digests += sha256(tags)
        need(sha256(digests) == e["tags_digest"], "tags digest")
        return b"".join(plain)

    # Who spoke with whom, by the rows of the index.

    def sort_traces(self):
        """Rows by what leads to them: blinds to numbers, numbers to records."""
        self.numbers, self.behind, self.externals = defaultdict(set), defaultdict(set), defaultdict(set)
        for table, key, value in self.copies.rows:
            tenant = key[0] if key else ""
            if table == "Identifier":
                row = attempt(decode, "IdentifierRow", value[:-16], "row")
                self.numbers[tenant, bytes.fromhex(key[1])] |= {row["number"]} if row else set()
            elif table == "External":
                row = attempt(decode, "ExternalRow", value[:-16], "row")
                self.externals[tenant, bytes.fromhex(key[1])] |= {row["record_id"]} if row else set()
            elif table in ("BySubject", "ByConversation"):
                self.behind[tenant, bytes.fromhex(key[1])].add(uuid.UUID(key[3]).bytes)

    def linked(self, identifier):
        """Records that an identifier leads to, under every index key that opens, and how."""
        records = {}
        for tenant, keys in self.index_keys.items():
            for key, via in keys.items():
                for kind in KINDS:
                    blind = hmac.digest(key, context("identifier", u32(kind), identifier), "sha256")
                    for number in self.numbers.get((tenant, blind), ()):
                        records |= {id: f"{via} > number {number.hex()}" for id in self.behind.get((tenant, number), ())}
                    records |= {id: f"{via} > external id" for id in self.externals.get((tenant, blind), ())}
        return records

    def confirmed(self, guesses, identifiers):
        """Records of which a guess of what was asked for is right: its fingerprint says so. By the number of the guess."""
        found = defaultdict(dict)
        for tenant, key, via in self.fingerprint_keys():
            for number, guess in enumerate(guesses):
                for identifier in identifiers:
                    asked = guess.replace(b"+" + b"0" * (len(identifier) - 1), identifier.encode())
                    digest = hmac.digest(key, context("request-fingerprint", asked), "sha256")
                    if id := self.copies.fingerprints.get((tenant, digest)):
                        found[id][number] = f"{via} > fingerprint of {identifier}"
        return found

    def fingerprint_keys(self):
        """A record's own, and the tenant's, which was the key of all fingerprints before there was one of each record."""
        for tenant, keys in self.request_keys.items():
            yield from ((tenant, key, via) for key, via in keys.items())
        for (tenant, _), deks in self.deks.items():
            yield from ((tenant, derive(dek, "fingerprint"), f"{via} > fingerprint key") for dek, via in deks.items())

    def associated(self):
        """Records that do not open, and what they have in common with records that do and stand under the same number."""
        said = {id: identifiers(versions) for id, versions in self.descriptors.items() if versions}
        found = defaultdict(set)
        for records in self.behind.values():
            known = [said[id] for id in records if id in said]
            for id in records if known else ():
                if id not in said:
                    found[id] |= set.intersection(*known)
        return found


def identifiers(versions):
    found = set()
    for d in versions.values():
        found |= {d["conversation_id"], *(p[k] for p in d["parties"] for k in ("tel", "mailto", "external_subject_id", "agent_id"))}
    return found - {""}


def lines_of(file):
    return [line.split() for line in file.read_text().splitlines() if line.strip()] if file else []


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in "bucket", "root", "rows", "spool":
        parser.add_argument(f"--{name}", type=Path, action="append", default=[], required=name == "bucket")
    for name in "numbers", "guesses", "expect", "out":
        parser.add_argument(f"--{name}", type=Path)
    arguments = parser.parse_args()
    copies = Copies()
    for read, places in (copies.bucket, arguments.bucket), (copies.root, arguments.root), (copies.spool, arguments.spool):
        for place in places:
            need(place.is_dir(), f"{place}: no such directory")
            read(place)
    for file in arguments.rows:
        with open(file) as lines:
            for row in map(json.loads, lines):
                copies.rows.append((row["table"], row["key"], bytes.fromhex(row["value"])))
    copies.sort()
    opened = Opened(copies)
    records = opened.records(arguments.out)
    opened.sort_traces()

    states, told = {}, {"records": {}, "tenants": {}, "identifiers": {}, "keys": {}, "associated": {}, "confirmed": {}}
    for id, record in records.items():
        told["records"][name_of(id)] = record
        states[name_of(id)] = record["state"]
    for tenant in sorted(copies.tenants):
        keys = opened.tenant_keys[tenant]
        states[tenant] = "opens" if keys else "gone"
        versions = sorted({version for version, _ in keys.values()})
        told["tenants"][tenant] = {"state": states[tenant], "key_versions": versions, "settings": tenant in opened.settings}
    for (identifier,) in lines_of(arguments.numbers):
        to = opened.linked(identifier)
        open_ones = all(id in records and records[id]["state"] == "opens" for id in to)
        states[identifier] = "gone" if not to else "survivors" if open_ones else "traces"
        told["identifiers"][identifier] = {"state": states[identifier], "records": {name_of(id): via for id, via in to.items()}}
    for id, common in opened.associated().items():
        told["associated"][name_of(id)] = sorted(common)
    guesses = [bytes.fromhex(guess) for (guess,) in lines_of(arguments.guesses)]
    for id, via in opened.confirmed(guesses, list(told["identifiers"])).items():
        told["confirmed"][name_of(id)] = via
    for (what, how), count in opened.counts.items():
        told["keys"].setdefault(what, {})[how] = count
    told["keys"]["live slots"] = {"region": opened.region_pages.live(), **{t: p.live() for t, p in opened.tenant_pages.items()}}
    told["unreadable"] = {what: count for what, count in copies.unreadable.items() if count}
    expected = dict(lines_of(arguments.expect))
    told["unexpected"] = {
        id: {"expected": expected.get(id), "state": states.get(id, "gone")}
        for id in sorted({*expected, *(states if arguments.expect else ())})
        # An identifier that nothing is said of is asked for and no more.
        if states.get(id, "gone") != expected.get(id, states.get(id) if id in told["identifiers"] else None)
    }

    for what, counts in told["keys"].items():
        print(f"{what:20}", "  ".join(f"{how} {count}" for how, count in counts.items()))
    for id, record in told["records"].items():
        print(f"{id}  {record['state']:9}  {record['tenant']:20}  descriptors {record['descriptors']}")
        if expected.get(id, record["state"]) != record["state"] and record["through"]:
            print(f"    through {record['through']}")
    for kind in "tenants", "identifiers":
        for id, of in told[kind].items():
            print(f"{id:36}  {of['state']}")
    for id, guesses in told["confirmed"].items():
        for number, via in guesses.items():
            print(f"{id}  {states[id] if id in states else 'gone':9}  guess {number} of it is right: {via}")
    for id, why in told["unexpected"].items():
        print(f"UNEXPECTED {id}: {why['state']}, expected {why['expected'] or 'nothing of that name'}")
    print(json.dumps(told, default=bytes.hex))
    sys.exit(1 if told["unexpected"] else 0)


if __name__ == "__main__":
    try:
        main()
    except (Refused, OSError) as error:
        sys.exit(str(error))

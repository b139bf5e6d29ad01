#!/usr/bin/env python3
"""Makes fuzz/seeds from the test vectors and from a handful of written-out messages. Run it from anywhere."""
import json
import pathlib
import sys

root = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root / "scripts"))
seeds = root / "fuzz" / "seeds"


def field(number: int, wire: int, payload: bytes) -> bytes:
    return varint(number << 3 | wire) + payload


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def text(number: int, value) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return field(number, 2, varint(len(raw)) + raw)


def number(at: int, value: int) -> bytes:
    return field(at, 0, varint(value))


def write(target: str, name: str, data: bytes) -> None:
    (seeds / target).mkdir(parents=True, exist_ok=True)
    (seeds / target / name).write_bytes(data)


for path in sorted((root / "tests/vectors/blob").glob("*.json")):
    end = bytes.fromhex(json.loads(path.read_text())["end"])
    write("footer", path.stem, end)
    write("footer", path.stem + "-bare", end[:-12])

party = number(1, 1) + text(2, "+525512345678") + text(3, "ana@example.com") + text(4, "Ana") + text(6, "a-7")
stored = (
    text(1, "c-1") + number(2, 1) + number(3, 1) + number(4, 1_700_000_000_000_000) + number(5, 60_000) + text(6, party)
    + text(7, "audio/wav") + text(8, "es-MX") + text(9, text(1, "team") + text(2, "north")) + text(16, "standard")
    + text(19, "call-1")
)
write("descriptor", "full", stored)
write("descriptor", "least", text(1, "c-1") + number(2, 1) + text(7, "audio/wav") + text(16, "standard"))

write("page_token", "sealed", b"\x05" + (1_700_000_000_000_000).to_bytes(8, "big") + bytes.fromhex("01890a5dac96774bbcceb302099a8057"))
write("page_token", "text", b"\x00CICAgICAgICA")

claims = {"iss": "https://login.example", "aud": ["callvault"], "sub": "a-7", "exp": 1_767_226_000, "nbf": 1_767_225_000,
          "roles": ["reader"], "tenants": ["dev"]}
write("token", "claims", json.dumps(claims).encode())
write("token", "bound", json.dumps(claims | {"cnf": {"x5t#S256": "A" * 43}}).encode())
write("token", "keys", json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}).encode())
write("token", "unsigned", b"eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUifQ.")

said = text(1, "c-1") + number(2, 1) + text(4, number(1, 1_700_000_000)) + text(6, party)
spec = text(1, "dev") + text(2, said) + text(3, "0190b2a0-0000-7000-8000-000000000001") + number(4, 10)
write("request", "spec", b"\x00" + text(1, spec))
write("request", "chunk", b"\x00" + text(2, b"x" * 300))
write("request", "closing", b"\x00" + text(3, text(1, number(1, 5))))
record = "01890a5d-ac96-774b-bcce-b302099a8057"
write("request", "read", b"\x01" + text(1, "dev") + text(2, record) + number(3, 5))
write("request", "get", b"\x02" + text(1, "dev") + text(3, "call-1"))
write("request", "list", b"\x03" + text(1, "dev") + text(2, number(1, 1) + text(4, "c-1")) + number(4, 10))
write("request", "update", b"\x04" + text(1, "dev") + text(2, record) + text(3, said) + text(4, text(1, "parties")))
write("request", "tenant", b"\x05" + text(1, text(1, "acme") + text(2, "Acme")))
write("request", "tenant-update", b"\x06" + text(1, text(1, "acme") + text(2, "A")) + text(2, text(1, "display_name")))
write("request", "class", b"\x07" + text(1, "dev") + text(2, text(1, "standard") + number(2, 30)))
message = text(1, "dev") + text(2, said) + text(3, "m-1") + text(4, "¿sigue ahí?")
write("request", "message", b"\x0a" + message)
write("request", "messages", b"\x0b" + text(1, "dev") + text(2, message) + text(2, text(2, said) + text(4, "x")))
write("request", "message-get", b"\x0c" + text(1, "dev") + text(2, record))
write("request", "messages-get", b"\x0d" + text(1, "dev") + text(2, record) + text(2, record))
write("request", "upload-begin", b"\x0e" + text(1, "dev") + text(2, said) + text(3, "u-1") + number(4, 2))
write("request", "upload-header", b"\x0f" + text(1, text(1, "dev") + text(2, record) + number(3, 300)))
write("request", "upload-chunk", b"\x0f" + text(2, b"x" * 300))
write("request", "upload-get", b"\x10" + text(1, "dev") + text(2, record))
crc32c = field(5, 5, (0x12345678).to_bytes(4, "little"))
write("request", "upload-commit", b"\x11" + text(1, "dev") + text(2, record) + number(3, 600) + text(4, text(1, number(1, 5))) + crc32c)
write("request", "upload-abort", b"\x12" + text(1, "dev") + text(2, record))
write("request", "classes", b"\x13" + text(1, "dev") + number(2, 10) + text(3, "c3RhbmRhcmQ"))
write("request", "tenants", b"\x08" + number(1, 10) + text(2, "ZGV2"))
reference, grace = text(4, "CASE-1"), text(5, number(1, 86_400))
write("request", "erasure-preview", b"\x1c" + text(1, "dev") + text(2, text(3, text(1, "+525512345678"))) + number(3, 1))
write("request", "erasure-records", b"\x1d" + text(1, "dev") + text(2, text(1, text(1, record) + text(1, record))) + number(3, 1) + reference + grace)
write("request", "erasure-query", b"\x1d" + text(1, "dev") + text(2, text(2, text(4, "c-1"))) + number(3, 5) + reference + text(6, bytes(32)))
write("request", "erasure-tenant", b"\x1d" + text(1, "dev") + text(2, number(5, 1)) + number(3, 4) + reference + text(7, "e-1"))
write("request", "erasures", b"\x20" + text(1, "dev") + number(2, 10) + text(3, "MDE4OTBhNWQ"))

write("stream", "short", b"\x00\x05\x00\x01" + b"hello, caller")
write("stream", "segments", b"\x10\x00\x01\x02" + bytes(range(256)) * 256)
print(f"{sum(1 for _ in seeds.rglob('*') if _.is_file())} seeds in fuzz/seeds")

"""Decodes the stored protobuf messages by the text of proto/callvault/storage/v1, without protoc or a library."""
import re
from pathlib import Path


class Refused(Exception):
    """Something does not authenticate; says what."""


def need(ok, what):
    if not ok:
        raise Refused(what)


# Protobuf: every message of the stored formats as {field number: (type, repeated or optional or nothing, name)}.
MESSAGES = {"Label": {1: ("string", "", "key"), 2: ("string", "", "value")}}
for file in (Path(__file__).resolve().parent.parent / "proto/callvault/storage/v1").glob("*.proto"):
    for message, body in re.findall(r"^message (\w+) \{\n(.*?)^\}", re.sub("//.*", "", file.read_text()), re.M | re.S):
        body = body.replace("map<string, string>", "repeated Label")
        fields = re.findall(r"(repeated|optional|) *\b(\w+) (\w+) = (\d+);", body)
        MESSAGES[message] = {int(number): (kind, mark, name) for mark, kind, name, number in fields}


def varint(data, at, what):
    value = 0
    for i in range(10):
        need(at + i < len(data), f"{what}: cut off")
        value |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            need(value < 1 << 64 and (i == 0 or data[at + i]), f"{what}: not a canonical varint")
            return value, at + i + 1
    raise Refused(f"{what}: varint too long")


def decode(message, data, what):
    """A message as a dict. Refuses any encoding but the canonical one, which is all a writer writes."""
    spec, at, last, out = MESSAGES[message], 0, 0, {}
    empty = {"string": "", "bytes": b""}
    for kind, mark, name in spec.values():
        out[name] = [] if mark == "repeated" else None if mark or kind in MESSAGES else empty.get(kind, 0)
    while at < len(data):
        tag, at = varint(data, at, what)
        need(tag >> 3 in spec, f"{what}: unknown field {tag >> 3} of {message}")
        kind, mark, name = spec[tag >> 3]
        scalar, repeated = kind not in MESSAGES and kind not in empty, mark == "repeated"
        need(tag >> 3 > last or (tag >> 3 == last and repeated and not scalar), f"{what}: {name} out of order")
        need(tag & 7 == (0 if scalar and not repeated else 2), f"{what}: wire type of {name}")
        last, (value, at) = tag >> 3, varint(data, at, what)
        signed = lambda v: v - (1 << 64) if kind == "int64" and v >> 63 else v
        if scalar and not repeated:
            need(value or mark, f"{what}: default of {name} written out")
            out[name] = signed(value)
            continue
        need(at + value <= len(data) and (value or repeated or kind in MESSAGES), f"{what}: length of {name}")
        value, start, at = data[at : at + value], 0, at + value
        while scalar and start < len(value):
            number, start = varint(value, start, what)
            out[name].append(signed(number))
        if not scalar:
            value = value.decode() if kind == "string" else value if kind == "bytes" else decode(kind, value, what)
            out[name] = out[name] + [value] if repeated else value
    return out

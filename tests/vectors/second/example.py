"""Section 11: the worked example, with the values as they stand in the document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from .grant import grants_signed_bytes, parse_grant
from .keys import chunk_nonce, device_key, grant_keys, hpke_info, payload_keys, sha256
from .opening import Device, open_with_grant, open_with_vault, verify
from .sealed import parse_sealed
from .signatures import Ed25519Key, P256Key, Publisher
from .tree import PARENT, pair

Values = dict[str, bytes]


def run(document: Path) -> int:
    values = sections(document.read_text())
    failures = [what for what, holds in checks(values) if not holds]
    for what in failures:
        print(f"doesn't hold: {what}")
    print(f"{sum(1 for _ in checks(values)) - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


def sections(document: str) -> dict[str, Values]:
    """The values of sections 11.2, 11.3, …: a name on its own line, then indented lines of hexadecimal bytes."""
    found: dict[str, Values] = {}
    for section in re.split(r"^### ", document, flags=re.M):
        if section.startswith("11."):
            blocks = "\n".join(re.findall(r"^```text\n(.*?)^```", section, flags=re.M | re.S))
            values = re.findall(r"^(\S.*)\n((?: {4}[0-9a-f]+\n)+)", blocks, flags=re.M)
            found[section.split()[0]] = {name: bytes.fromhex("".join(value.split())) for name, value in values}
    return found


def checks(values: dict[str, Values]) -> Iterator[tuple[str, bool]]:
    payload, envelope, derived, hpke, path, small = (values[f"11.{i}"] for i in range(1, 7))
    model = bytes(i % 251 for i in range(2060))
    file = sealed_file(payload, envelope)
    publisher = Publisher((Ed25519Key(envelope["publisher key"]),))
    master = {1: envelope["master key, version 1"]}
    yield from header(file, payload, envelope)
    yield "11.2 opens with the vault", open_with_vault(file, publisher, master).model == model

    yield "11.3 device key", device_key(derived["fleet key, version 1"], "kitchen-7") == derived["device key"]
    granted = parse_grant(derived["grant"])
    key, nonce = grant_keys(derived["device key"], granted, payload["model id"])
    yield "11.3 terms", granted.terms_bytes == derived["terms"]
    yield "11.3 SHA-256(terms)", sha256(derived["terms"]) == derived["SHA-256(terms)"]
    yield "11.3 grant key and nonce", (key, nonce) == (derived["grant key"], derived["grant nonce"])
    device = Device("kitchen-7", ("wake-word",), publisher, 0, None, device_key=derived["device key"])
    yield "11.3 opens", open_with_grant(file, derived["grant"], device).model == model

    granted = parse_grant(hpke["grant"])
    yield "11.4 terms", granted.terms_bytes == hpke["terms, the aad"]
    yield "11.4 info", hpke_info(payload["model id"]) == hpke["info"]
    yield "11.4 leaf", granted.leaf == hpke["leaf"]
    device = Device("kitchen-7", ("wake-word",), publisher, 0, 1767225600, x25519=hpke["device's private key"])
    yield "11.4 opens", open_with_grant(file, hpke["grant"], device).model == model

    granted = parse_grant(path["grant"])
    assert granted.path is not None
    yield "11.5 root", granted.path.root(granted.leaf) == path["root"]
    yield "11.5 signed bytes", grants_signed_bytes(path["root"]) == path["grants' signed bytes"]
    yield "11.5 opens", open_with_grant(file, path["grant"], device).model == model

    publisher = Publisher((P256Key(small["public key x"], small["public key y"]),))
    file = small["sealed model"]
    verify(file, publisher)
    yield "11.6 model id", parse_sealed(file).model_id == small["model id"]
    yield "11.6 opens with the vault", open_with_vault(file, publisher, master).model == small["model"]
    device = Device("kitchen-7", ("greeting",), publisher, 0, None, device_key=derived["device key"])
    opened = open_with_grant(file, small["device-key grant, as in 11.3"], device, "device")
    yield "11.6 opens", (opened.model, opened.floor) == (small["model"], 1)


def sealed_file(payload: Values, envelope: Values) -> bytes:
    """As the end of section 11.2 says."""
    index = b"".join(payload[f"tag({i})"] + payload[f"chaining value({i})"] for i in range(3))
    ciphertexts = b"".join(payload[f"ciphertext({i})"] for i in range(3))
    return payload["bytes 0 .. 16+M"] + envelope["envelope"] + index + bytes(33) + ciphertexts


def header(file: bytes, payload: Values, envelope: Values) -> Iterator[tuple[str, bool]]:
    sealed = parse_sealed(file)
    keys = payload_keys(payload["content key"], sealed.subject)
    nonces = [chunk_nonce(keys.base_nonce, i) for i in range(3)]
    values = [payload[f"chaining value({i})"] for i in range(3)]
    yield "11.1 subject", sealed.subject == payload["subject"]
    yield "11.1 SHA-256(subject)", sha256(sealed.subject) == payload["SHA-256(subject)"]
    yield "11.1 payload key", keys.key == payload["payload key"]
    yield "11.1 base nonce", keys.base_nonce == payload["base nonce"]
    yield "11.1 commitment", keys.commitment == payload["commitment"] == sealed.manifest.commitment
    yield "11.1 nonces", nonces == [payload[f"nonce({i})"] for i in range(3)]
    yield "11.1 parent", pair(values[:2], PARENT) == [payload["parent of chaining values 0 and 1"]]
    yield "11.1 root", sealed.manifest.root == payload["root"] == blake3(sealed.payload).digest()
    yield "11.1 signed bytes", sealed.signed_bytes == payload["signed bytes"]
    yield "11.1 model id", sealed.model_id == payload["model id"]
    yield "11.2 whole", len(file) == 2956 and blake3(file).digest() == envelope["BLAKE3 of the whole sealed model"]

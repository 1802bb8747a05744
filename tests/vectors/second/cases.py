"""Test vectors: one JSON file each, with what goes in, what must come out, and values on the way."""

from __future__ import annotations

import json
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from .folder import ListRefused, parse_list
from .grant import DeviceKeyWrapping, Grant, HpkeWrapping, grants_signed_bytes, parse_grant
from .keys import (
    check_x25519,
    chunk_nonce,
    device_key,
    grant_keys,
    hpke_decap,
    hpke_info,
    hpke_key_schedule,
    open_slots,
    payload_keys,
    sha256,
    unwrap_device_key,
    unwrap_hpke,
)
from .opening import Device, Opened, open_with_grant, open_with_vault, verify
from .refusal import Refused
from .sealed import Sealed, parse_sealed, parse_stored
from .signatures import Ed25519Key, P256Key, Publisher

Case = dict[str, Any]


def run(folder: Path) -> int:
    files = sorted(folder.glob("*.json"))
    failed = 0
    for file in files:
        problems = check(json.loads(file.read_text()))
        for problem in problems:
            print(f"{file.stem}: {problem}")
        failed += bool(problems)
    print(f"{len(files) - failed} passed, {failed} failed")
    return 1 if failed or not files else 0


def check(case: Case) -> list[str]:
    got, expected = outcome(case), case["expect"]
    problems = [] if agree(got, expected) else [f"expected {expected}, got {got}"]
    expected_values: dict[str, str] = case.get("values") or {}
    values = computed_values(case) if expected_values else {}
    for name, value in expected_values.items():
        if name not in values:
            problems.append(f"{name} isn't computed by this reader")
        elif values[name].hex() != value.lower():
            problems.append(f"{name}: expected {value}, got {values[name].hex()}")
    return problems


def agree(got: Case, expected: Case) -> bool:
    """What an opening gives is compared as far as the case says it."""
    if "opened" not in got or "opened" not in expected:
        return got == expected
    return all(str(got["opened"][name]) == str(value) for name, value in expected["opened"].items())


def outcome(case: Case) -> Case:
    if case["operation"] == "parse-list":
        return parsed_list(case)
    try:
        opened = operate(case)
    except Refused as refused:
        return {"refused": {"code": refused.number, "name": refused.name}}
    if opened is None:
        return {"accepted": True}
    model = opened.model
    return {"opened": {"model_blake3": blake3(model).hexdigest(), "length": len(model), "floor": opened.floor}}


def parsed_list(case: Case) -> Case:
    try:
        entries = parse_list(b64decode(case["list"], validate=True))
    except ListRefused as refused:
        return {"class": refused.exit_code}
    files = [(entry.path, entry.id.hex(), entry.length) for entry in entries]
    expected = [(file["path"], file["id"], int(file["length"])) for file in case.get("files") or []]
    return {"accepted": files == expected}


def operate(case: Case) -> Opened | None:
    match case["operation"]:
        case "open-grant":
            return open_with_grant(sealed(case), grant(case), device(case), case.get("profile", "host"))
        case "open-vault":
            return open_with_vault(sealed(case), publisher(case), masters(case), case["vault"].get("line"))
        case "verify":
            verify(sealed(case), publisher(case))
        case "parse-sealed":
            parse_sealed(sealed(case))
        case "parse-grant":
            parse_grant(grant(case))
        case "check-x25519":
            check_x25519(bytes.fromhex(case["key"]))
        case "check-publisher-key":
            check_publisher_key(case)
        case "derive-device-key":
            device_key(bytes.fromhex(case["fleet"]["key"]), case["fleet"]["device"])
        case operation:
            raise ValueError(f"unknown operation {operation}")
    return None


def check_publisher_key(case: Case) -> None:
    """The keys are under `publisher`; or `key` is one, of Ed25519 or as x || y of P-256."""
    publisher(case)
    if "key" in case:
        key = bytes.fromhex(case["key"])
        P256Key(key[:32], key[32:]) if len(key) == 64 else Ed25519Key(key)


def sealed(case: Case) -> bytes:
    return b64decode(case["sealed"], validate=True)


def grant(case: Case) -> bytes:
    return b64decode(case["grant"], validate=True)


def publisher(case: Case) -> Publisher:
    return Publisher(tuple(publisher_key(key) for key in case.get("publisher") or []))


def publisher_key(key: dict[str, str]) -> Ed25519Key | P256Key:
    if key["algorithm"] == "ed25519":
        return Ed25519Key(bytes.fromhex(key["key"]))
    return P256Key(bytes.fromhex(key["x"]), bytes.fromhex(key["y"]))


def masters(case: Case) -> dict[int, bytes]:
    return {int(version): bytes.fromhex(key) for version, key in case["vault"]["master"].items()}


def device(case: Case) -> Device:
    fields = case["device"]
    return Device(
        id=fields["id"],
        lines=(fields["line"],),
        publisher=publisher(case),
        floor=optional(fields, "floor", int),
        now=optional(fields, "now", int),
        device_key=optional(fields, "device_key", bytes.fromhex),
        x25519=optional(fields, "x25519", bytes.fromhex),
    )


def optional(fields: Case, name: str, convert: Any) -> Any:
    return None if fields.get(name) is None else convert(fields[name])


def computed_values(case: Case) -> dict[str, bytes]:
    """Every value that can be computed from what the case gives, by its name in the cases."""
    values: dict[str, bytes] = {}
    if "fleet" in case:
        values["device_key"] = device_key(bytes.fromhex(case["fleet"]["key"]), case["fleet"]["device"])
    with suppress(Refused):
        if "grant" in case:
            granted = parse_grant(grant(case))
            values |= {"terms": granted.terms_bytes, "leaf": granted.leaf, "terms_hash": sha256(granted.terms_bytes)}
            if granted.path is not None:
                values["grants_signed_bytes"] = grants_signed_bytes(granted.path.root(granted.leaf))
        if "sealed" in case:
            parse = parse_stored if case.get("profile") == "device" else parse_sealed
            model = parse(sealed(case))
            values |= header_values(model)
            if "vault" in case:
                values |= content_values(model, open_slots(model, masters(case)))
            if "grant" in case and "device" in case:
                values |= grant_values(model, granted, device(case))
    return values


def header_values(model: Sealed) -> dict[str, bytes]:
    return {
        "subject": model.subject,
        "signed_bytes": model.signed_bytes,
        "model_id": model.model_id,
        "root": model.manifest.root,
    }


def grant_values(model: Sealed, granted: Grant, reader: Device) -> dict[str, bytes]:
    if not isinstance(granted.wrapping, DeviceKeyWrapping):
        assert isinstance(granted.wrapping, HpkeWrapping) and reader.x25519 is not None
        info = hpke_info(model.model_id)
        shared = hpke_decap(granted.wrapping.encapsulated, reader.x25519)
        key, nonce = hpke_key_schedule(granted.terms.suite, shared, info)
        content_key = unwrap_hpke(granted, model.model_id, reader.x25519)
        values = {"info": info, "shared_secret": shared, "hpke_key": key, "hpke_nonce": nonce}
        return values | content_values(model, content_key)
    assert reader.device_key is not None
    key, nonce = grant_keys(reader.device_key, granted, model.model_id)
    content_key = unwrap_device_key(granted, model.model_id, reader.device_key)
    return {"grant_key": key, "grant_nonce": nonce} | content_values(model, content_key)


def content_values(model: Sealed, content_key: bytes) -> dict[str, bytes]:
    keys = payload_keys(content_key, model.subject)
    return {
        "content_key": content_key,
        "subject_hash": sha256(model.subject),
        "last_nonce": chunk_nonce(keys.base_nonce, len(model.chaining_values) - 1),
        "payload_key": keys.key,
        "base_nonce": keys.base_nonce,
        "commitment": keys.commitment,
    }

#!/usr/bin/env python3
"""The second reader of modelseal files (see the package `second`), as a library and a program.

Exit codes of `open`: 3, 4, 6 and 7 are the class of the error that docs/FORMAT.md defines.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from second import cases, example
from second.grant import parse_grant
from second.keys import device_key
from second.opening import Device, Opened, open_with_grant, open_with_vault, verify
from second.refusal import Error, Refused
from second.sealed import parse_sealed
from second.signatures import Publisher, key_of_library

__all__ = [
    "Device",
    "Error",
    "Opened",
    "Publisher",
    "Refused",
    "device_key",
    "open_with_grant",
    "open_with_vault",
    "parse_grant",
    "parse_sealed",
    "verify",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("open", help="open a sealed model with a grant, as a host")
    command.add_argument("sealed", type=Path)
    command.add_argument("--grant", type=Path, required=True)
    command.add_argument("--identity", type=Path, required=True, help="the identity file of modelseal")
    command.add_argument("-o", "--output", type=Path, required=True)
    command.set_defaults(run=open_file)

    command = commands.add_parser("verify", help="verify a sealed model without any secret key")
    command.add_argument("sealed", type=Path)
    command.add_argument("--publisher", type=Path, required=True, help="public keys in PEM")
    command.set_defaults(run=verify_file)

    command = commands.add_parser("run", help="run every *.json of a folder as a test vector")
    command.add_argument("folder", type=Path)
    command.set_defaults(run=lambda args: cases.run(args.folder))

    command = commands.add_parser("example", help="recompute section 11 of FORMAT.md")
    command.add_argument("document", type=Path)
    command.set_defaults(run=lambda args: example.run(args.document))

    args = parser.parse_args()
    code: int = args.run(args)
    return code


def open_file(args: argparse.Namespace) -> int:
    def act() -> None:
        device = read_identity(args.identity.read_text())
        opened = open_with_grant(args.sealed.read_bytes(), args.grant.read_bytes(), device)
        args.output.write_bytes(opened.model)

    return exit_code(act)


def verify_file(args: argparse.Namespace) -> int:
    end = "-----END PUBLIC KEY-----"

    def act() -> None:
        pems = [pem + end for pem in args.publisher.read_text().split(end) if pem.strip()]
        verify(args.sealed.read_bytes(), read_publisher(pems))

    return exit_code(act)


def exit_code(act: Callable[[], None]) -> int:
    try:
        act()
    except Refused as refused:
        print(f"{refused.number} {refused.name}", file=sys.stderr)
        return refused.exit_code
    except OSError as error:
        print(error, file=sys.stderr)
        return 6
    except (KeyError, ValueError) as error:
        print(f"an identity that isn't enrolled, or keys that aren't any: {error!r}", file=sys.stderr)
        return 1
    return 0


def read_identity(text: str) -> Device:
    """The stored floor is the identity's first one: this program stores none."""
    identity = json.loads(text)
    return Device(
        id=identity["device"],
        lines=tuple(identity["lines"]),
        publisher=read_publisher(identity["publisher"]),
        floor=identity["first_floor"],
        now=int(time.time()),
        device_key=secret(identity, "device_key"),
        x25519=secret(identity, "x25519"),
    )


def read_publisher(keys: list[str]) -> Publisher:
    return Publisher(tuple(key_of_library(load_pem_public_key(pem.encode())) for pem in keys))


def secret(identity: dict[str, str], name: str) -> bytes | None:
    return bytes.fromhex(identity[name]) if name in identity else None


if __name__ == "__main__":
    sys.exit(main())

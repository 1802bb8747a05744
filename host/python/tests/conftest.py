"""What the tests share: a vault, the command line, and PyTorch only if it is asked for."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import modelseal

PASSPHRASE = "correct horse"
ROOT = Path(__file__).resolve().parents[3]


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also what needs PyTorch, which must be installed")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if item not in long]
    config.hook.pytest_deselected(items=long)


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """No setting of the caller's counts, and the vault of the command line is the tests'."""
    for name in [name for name in os.environ if name.startswith("MODELSEAL_")]:
        if name != "MODELSEAL_PROGRAM":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def vault(tmp_path):
    return modelseal.Vault.create(f"file:{tmp_path}/vault.json", passphrase=PASSPHRASE)


@pytest.fixture
def cli(tmp_path):
    """Runs the command line on the same vault, and gives what it answers."""
    program = os.environ.get("MODELSEAL_PROGRAM", ROOT / "target/debug/modelseal")

    def run(*args, code=0):
        environment = {"MODELSEAL_VAULT": f"file:{tmp_path}/vault.json", "MODELSEAL_PASSPHRASE": PASSPHRASE}
        ran = subprocess.run(
            [program, "--json", *map(str, args)], env={**os.environ, **environment}, capture_output=True, text=True
        )
        assert ran.returncode == code, ran.stderr
        text = ran.stdout if code == 0 else ran.stderr
        return json.loads(text) if text.strip() else None

    return run


@pytest.fixture
def model():
    """A model of a few chunks."""
    return os.urandom(5 * 65536 + 123)


@pytest.fixture
def sealed(tmp_path, vault, model):
    path = tmp_path / "model.sealed"
    modelseal.seal(model, path, line="wake-word", version=3, vault=vault)
    return path


@pytest.fixture
def device(cli, sealed):
    """An enrolled device and its grant for the sealed model."""
    cli("device", "enroll", "kitchen-7", "--line", "wake-word", "--derive", "--identity-out", "kitchen-7.identity")
    cli("grant", sealed, "--device", "kitchen-7", "-o", "kitchen-7.grant")
    return {"grant": "kitchen-7.grant", "identity": "kitchen-7.identity"}


def flip(path, offset):
    """Changes one byte of a file."""
    with open(path, "r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))

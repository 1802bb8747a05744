"""No file ever has a model's plaintext: every system call that carries some of it is looked at, with strace."""

import re
import subprocess
import sys

import pytest
from conftest import PASSPHRASE

MARK = "PLAINTEXT!"
CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,sendfile,splice,tee,vmsplice,copy_file_range,mmap,sendto,"
    "sendmsg,memfd_create,io_uring_setup"
)

SEAL = """
model = b"PLAINTEXT!" * 50_000
modelseal.seal(model, "from-bytes.sealed", line="l", version=1)
modelseal.seal(bytearray(model), "from-buffer.sealed", line="l", version=1)
modelseal.seal("model", "from-file.sealed", line="l", version=1)
modelseal.seal("folder", "from-folder", line="l", version=1)
save_file({"a": numpy.frombuffer(model, numpy.uint8)}, "tensors.sealed")
save({"a": numpy.frombuffer(model, numpy.uint8)}, line="l")
"""
OPEN = """
with modelseal.open("from-file.sealed") as model:
    assert model.read().count(b"PLAINTEXT!") == 50_000
    model.read_at(70_000, 100_000)
with modelseal.open_dir("from-folder") as folder:
    folder.read("model")
load_file("tensors.sealed")
load(open("tensors.sealed", "rb").read())
with safe_open("tensors.sealed", "np") as model:
    model.get_slice("a")[1000:200_000]
"""
MIGRATE = """
modelseal.migrate_fernet("fernet", "fernet.key", "migrated.sealed")
"""
IMPORTS = """
import numpy, modelseal
from modelseal.safetensors import safe_open
from modelseal.safetensors.numpy import load, load_file, save, save_file
"""


@pytest.fixture
def traced(tmp_path, vault, monkeypatch):
    """What a program does with plaintext besides reading it."""
    from cryptography.fernet import Fernet

    monkeypatch.setenv("MODELSEAL_VAULT", f"file:{tmp_path}/vault.json")
    monkeypatch.setenv("MODELSEAL_PASSPHRASE", PASSPHRASE)
    (tmp_path / "folder").mkdir()
    for name in ("model", "folder/model"):
        (tmp_path / name).write_text(MARK * 50_000)
    (tmp_path / "fernet.key").write_bytes(key := Fernet.generate_key())
    (tmp_path / "fernet").write_bytes(Fernet(key).encrypt(MARK.encode() * 50_000))

    def run(*programs):
        options = ["-f", "-y", "-qq", "-s", "2000000", "-e", CALLS, "-e", "signal=none", "-o", "trace"]
        (tmp_path / "program.py").write_text(IMPORTS + "".join(programs))
        subprocess.run(["strace", *options, sys.executable, "program.py"], check=True)
        lines = (tmp_path / "trace").read_text().splitlines()
        assert any("openat(" in line and "vault.json" in line for line in lines), "strace saw nothing"
        assert not any("io_uring_setup" in line for line in lines), "what that does, strace doesn't see"
        return [line[:200] for line in lines if carries(line)]

    return run


def carries(line):
    """Plaintext; a file that is mapped so that what is written there gets into it; bytes moved unseen; a file without a
    name that could hold any."""
    mapped = re.search(r"mmap\(.*PROT_WRITE.*MAP_SHARED[^_]", line) and "MAP_ANONYMOUS" not in line
    moved = re.search(r"\b(sendfile|splice|tee|copy_file_range|memfd_create)\(", line)
    return MARK[:5] in line or mapped or moved


def test_sealing_writes_none(traced):
    assert traced(SEAL) == []


def test_opening_writes_none(traced):
    assert traced(SEAL, OPEN) == []


def test_migrating_writes_none(traced):
    assert traced(MIGRATE) == []


def test_a_program_that_writes_some_is_seen(traced):
    shown = traced(SEAL, 'open("leak", "wb").write(modelseal.open("from-file.sealed").read())')
    assert shown and all("/leak>" in line for line in shown)

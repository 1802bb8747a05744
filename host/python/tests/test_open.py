"""Opening: with a vault, with a grant, in part; and what is left of it."""

import gc
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

import numpy
import pytest
from conftest import PASSPHRASE, flip
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

import modelseal


def test_it_is_the_model_and_the_manifest_says_what_was_said(tmp_path, vault, model):
    claims = {"licence": "MIT", "base": "b"}
    made = modelseal.seal(model, "m.sealed", line="l", version=7, vault=vault, kind="onnx", claims=claims)
    assert made.path == "m.sealed" and made.length == os.path.getsize("m.sealed")
    with modelseal.open("m.sealed", vault=f"file:{tmp_path}/vault.json", passphrase=PASSPHRASE) as opened:
        assert opened.read() == model and len(opened) == len(model)
        said = opened.manifest
        assert (said.line, said.version, said.kind, said.length) == ("l", 7, "onnx", len(model))
        assert said.claims == claims and said.suite == "aes-256-gcm" and said.id == made.id
        assert abs((datetime.now(timezone.utc) - said.created).total_seconds()) < 60
        with pytest.raises(AttributeError):
            said.line = "other"


def test_the_command_line_opens_what_python_sealed_and_the_other_way(cli, vault, model, tmp_path):
    (tmp_path / "m.onnx").write_bytes(model)
    modelseal.seal("m.onnx", "python.sealed", line="l", version=1, vault=vault, suite="chacha20-poly1305", profile="device")
    cli("open", "python.sealed", "-o", "back")
    assert (tmp_path / "back").read_bytes() == model
    cli("seal", "m.onnx", "-o", "cli.sealed", "--line", "l", "--model-version", "2")
    opened = modelseal.open("cli.sealed", vault=vault)
    assert opened.read() == model and opened.manifest.kind == "onnx"


def test_the_environment_says_which_vault_and_where_the_passphrase_is(monkeypatch, tmp_path, sealed, model):
    monkeypatch.setenv("MODELSEAL_VAULT", f"file:{tmp_path}/vault.json")
    with pytest.raises(modelseal.VaultError, match="MODELSEAL_PASSPHRASE_FILE"):
        modelseal.open(sealed)
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    monkeypatch.setenv("MODELSEAL_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    assert modelseal.open(sealed).read() == model
    # A path is that of a vault file.
    assert modelseal.open(sealed, vault=tmp_path / "vault.json").read() == model


def test_no_view_of_it_is_a_copy(sealed, vault, model):
    with modelseal.open(sealed, vault=vault) as opened:
        data = opened.read()
        assert isinstance(data, bytes) and opened.read() is data
        view = memoryview(data)
        assert view.readonly and view.nbytes == len(model)
        array = numpy.frombuffer(data, numpy.uint8)
        assert numpy.shares_memory(array, numpy.frombuffer(view, numpy.uint8))
        with pytest.raises(ValueError):
            array[0] = 1


def test_what_is_shown_of_it_isnt_the_model(sealed, vault):
    opened = modelseal.open(sealed, vault=vault)
    assert repr(opened.read()) == str(opened.read()) == f"<modelseal.Plaintext: {len(opened)} bytes>"
    assert "wake-word version 3" in repr(opened)


def test_any_part_of_it(sealed, vault, model):
    opened = modelseal.open(sealed, vault=vault)
    for offset, length in [(0, 1), (65535, 2), (65536, 65536), (100, 3 * 65536), (len(model) - 1, 1), (len(model), 0)]:
        assert opened.read_at(offset, length) == model[offset : offset + length]
    for offset, length in [(0, len(model) + 1), (len(model), 1), (2**63, 1)]:
        with pytest.raises(modelseal.UsageError):
            opened.read_at(offset, length)


def test_a_part_is_opened_though_another_is_damaged(sealed, vault, model):
    flip(sealed, -1)
    opened = modelseal.open(sealed, vault=vault)
    assert opened.read_at(0, 65536) == model[:65536]
    for reading in (opened.read, lambda: opened.read_at(len(model) - 1, 1)):
        with pytest.raises(modelseal.NotAuthenticError) as failed:
            reading()
        assert str(sealed) in str(failed.value)


def test_threads_read_one_model_at_once(sealed, vault, model):
    opened = modelseal.open(sealed, vault=vault)

    def part(i):
        offset = i * 997 % (len(model) - 5000)
        return opened.read_at(offset, 5000) == model[offset : offset + 5000]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(part, range(500)))


def test_a_closed_model_gives_nothing_and_what_it_gave_stays_its_holders(sealed, vault, model):
    with modelseal.open(sealed, vault=vault) as opened:
        view = memoryview(opened.read())
        part = opened.read_at(10, 10)
    assert opened.closed
    for reading in (opened.read, lambda: opened.read_at(0, 1), lambda: opened.tensors):
        with pytest.raises(ValueError, match="closed"):
            reading()
    gc.collect()
    assert view == model and part == model[10:20]


HOLDER = """
import gc, sys
import modelseal

path, how = sys.argv[1:]

def pause():
    print("now", flush=True)
    sys.stdin.readline()

with modelseal.open(path) as model:
    if how == "read":
        held = model.read()
    elif how == "read_at":
        held = model.read_at(0, len(model))
    elif how == "view":
        held = memoryview(model.read())
    else:
        held = list(model.tensors.values())
    pause()
held = None
gc.collect()
pause()
"""


def found(pid, needle, dumped_only=False):
    """How often the memory of a process has these bytes; or that part of it that core dumps have."""
    hits = 0
    with open(f"/proc/{pid}/smaps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            name, *rest = line.split()
            if not name.endswith(":"):
                area, rights, where = name, rest[0], rest[-1]
            if name != "VmFlags:" or "r" not in rights or where.startswith("[v") or (dumped_only and "dd" in rest):
                continue
            start, end = (int(part, 16) for part in area.split("-"))
            memory.seek(start)
            hits += memory.read(end - start).count(needle)
    return hits


@pytest.mark.parametrize("how", ["read", "read_at", "view", "tensors"])
def test_nothing_of_it_is_left_in_memory_once_it_is_closed(monkeypatch, tmp_path, vault, how):
    from modelseal.safetensors.numpy import save_file

    weights = os.urandom(1 << 20)
    save_file({"w": numpy.frombuffer(weights, numpy.uint8)}, "m.sealed", vault=vault)
    monkeypatch.setenv("MODELSEAL_VAULT", f"file:{tmp_path}/vault.json")
    monkeypatch.setenv("MODELSEAL_PASSPHRASE", PASSPHRASE)
    needles = [weights[at : at + 64] for at in range(0, len(weights), 60_000)]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "m.sealed", how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "now\n"
        assert all(found(holder.pid, needle) > 0 for needle in needles)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "now\n"
        assert not any(found(holder.pid, needle) for needle in needles)


IN_PARTS = """
import sys
import modelseal

with modelseal.open("model.sealed", grant="kitchen-7.grant", identity="kitchen-7.identity") as model:
    model.read_at(70_000, 10)
    print("now", flush=True)
    sys.stdin.readline()
"""


def expand(key, info, length):
    return HKDFExpand(hashes.SHA256(), length, info).derive(key)


def payload_key(sealed, grant, device_key, model_id):
    """As FORMAT.md says, sections 3.1 and 3.4, of a grant for a device key: its wrapping ends it, but for one byte."""
    terms, salt, wrapped = grant[12:-82], grant[-81:-49], grant[-49:-1]
    info = b"modelseal/v1/device-grant\0" + salt + sha256(terms).digest() + model_id
    key = expand(device_key, info, 44)
    content_key = AESGCM(key[:32]).decrypt(key[32:], wrapped, None)
    subject = sealed[16 : 16 + int.from_bytes(sealed[10:12], "little") - 64]
    return expand(content_key, b"modelseal/v1/payload\0" + sha256(subject).digest(), 32)


def test_a_core_dump_has_no_key_of_a_model_that_is_open(device, vault, sealed):
    identity = json.loads(Path(device["identity"]).read_text())
    device_key = bytes.fromhex(identity["device_key"])
    model_id = bytes.fromhex(modelseal.open(sealed, vault=vault).manifest.id)
    key = payload_key(sealed.read_bytes(), Path(device["grant"]).read_bytes(), device_key, model_id)
    holder = subprocess.Popen(
        [sys.executable, "-c", IN_PARTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "now\n"
        assert found(holder.pid, key) > 0
        assert found(holder.pid, key[:16], dumped_only=True) == 0
        assert found(holder.pid, device_key[:16]) == 0


def test_others_run_while_it_is_opened(vault):
    modelseal.seal(bytes(64 << 20), "large.sealed", line="l", version=1, vault=vault)
    opened = modelseal.open("large.sealed", vault=vault)
    counted, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    # One call of the library: with the GIL held, the other thread would stand still.
    sys.setswitchinterval(1e-5)
    try:
        before = counted[0]
        opened._sealed.read_at(0, len(opened))
        assert counted[0] > before + 100
    finally:
        sys.setswitchinterval(5e-3)
        stop.set()
        thread.join()


# Memory.

READER = """
import sys
import modelseal

vault = modelseal.Vault("file:vault.json", passphrase="correct horse")
limit, value = sys.argv[1:]
if limit == "group":
    with open(value + "/cgroup.procs", "w") as procs:
        procs.write("0")
else:
    import resource
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(value), used + int(value)))
model = modelseal.open("large.sealed", vault=vault)
try:
    model.read()
except modelseal.IoError as error:
    print(error.code, error)
else:
    print("read")
"""


@pytest.fixture
def reader(vault):
    """Reads 256 MiB under a limit of 128, and gives what it says."""
    modelseal.seal(bytes(256 << 20), "large.sealed", line="l", version=1, vault=vault)

    def read(*limit):
        ran = subprocess.run([sys.executable, "-c", READER, *limit], capture_output=True, text=True)
        assert ran.returncode == 0, (ran.returncode, ran.stderr)
        return ran.stdout

    return read


def test_what_doesnt_fit_into_memory_is_an_error_with_its_number(reader):
    said = reader("address space", str(128 << 20))
    assert said.startswith("6 ") and "needs 268435456 bytes of memory" in said and "read_at" in said


def test_a_control_groups_limit_is_told_before_anything_is_killed(reader):
    group = limited(128 << 20)
    if group is None:
        pytest.skip("this process may not make a control group with a memory limit")
    try:
        said = reader("group", str(group))
    finally:
        group.rmdir()
    assert said.startswith("6 ") and "needs 268435456 bytes of memory" in said and "134217728" in said


def limited(limit):
    """A control group, of either version."""
    for root, name in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        group = Path(root) / f"modelseal-python-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            # In a folder that isn't a control group's, there is no such file, and none is to be made.
            with open(group / name, "r+") as file:
                file.write(str(limit))
            return group
        except OSError:
            group.rmdir()
    return None


# With a grant.


def floors():
    with open("kitchen-7.identity.state") as file:
        return json.load(file)["floors"]


def test_a_device_opens_with_its_grant_and_remembers_the_floor(device, sealed, model):
    opened = modelseal.open(sealed, **device)
    assert not os.path.exists("kitchen-7.identity.state"), "nothing was handed out yet"
    assert opened.read_at(0, 10) == model[:10]
    assert not os.path.exists("kitchen-7.identity.state"), "of the rest nothing is known"
    assert opened.read() == model
    assert floors() == {"wake-word": 3}


def test_of_parts_the_application_says_when_the_floor_is_stored(device, sealed, model):
    opened = modelseal.open(sealed, **device)
    assert opened.read_at(0, 10) == model[:10]
    opened.confirm()
    opened.confirm()
    assert floors() == {"wake-word": 3}


def test_the_environment_names_grant_and_identity(device, sealed, model, monkeypatch):
    monkeypatch.setenv("MODELSEAL_GRANT", device["grant"])
    with pytest.raises(modelseal.UsageError, match="belong together"):
        modelseal.open(sealed)
    monkeypatch.setenv("MODELSEAL_IDENTITY", device["identity"])
    assert modelseal.open(sealed).read() == model


def test_a_damaged_model_doesnt_raise_the_floor(device, sealed):
    flip(sealed, -1)
    with pytest.raises(modelseal.NotAuthenticError):
        modelseal.open(sealed, **device).read()
    assert not os.path.exists("kitchen-7.identity.state")


def test_without_confirmation_no_floor_is_stored(device, sealed):
    modelseal.open(sealed, **device, confirm=False).read()
    assert not os.path.exists("kitchen-7.identity.state")


def test_an_older_version_is_refused_once_a_newer_one_was_confirmed(cli, device, sealed, vault):
    modelseal.seal(b"newer", "newer.sealed", line="wake-word", version=4, vault=vault)
    cli("grant", "newer.sealed", "--device", "kitchen-7", "-o", "newer.grant")
    modelseal.open("newer.sealed", grant="newer.grant", identity=device["identity"]).read()
    with pytest.raises(modelseal.RefusedError) as refused:
        modelseal.open(sealed, **device)
    assert refused.value.name == "RolledBack"
    cli("open", sealed, "-o", "out", "--grant", device["grant"], "--identity", device["identity"], code=4)


def test_a_state_elsewhere(device, sealed, tmp_path):
    modelseal.open(sealed, **device, state=tmp_path / "elsewhere").read()
    assert (tmp_path / "elsewhere").exists() and not os.path.exists("kitchen-7.identity.state")


# Folders.


@pytest.fixture
def folder(tmp_path, vault):
    (tmp_path / "model/weights").mkdir(parents=True)
    files = {"config.json": b"{}", "weights/1.bin": os.urandom(100_000), "empty": b""}
    for path, data in files.items():
        (tmp_path / "model" / path).write_bytes(data)
    modelseal.seal(tmp_path / "model", "model-1", line="llm", version=1, vault=vault)
    return files


def test_a_folder_is_sealed_and_opened_as_one(folder, vault):
    with modelseal.open_dir("model-1", vault=vault) as opened:
        assert opened.manifest.line == "llm" and set(opened) == set(folder)
        assert {path: opened.read(path) for path in opened} == folder
        assert opened["config.json"].read() == b"{}"
        one = opened["weights/1.bin"]
        with pytest.raises(KeyError):
            opened["other"]
    assert one.closed
    for reading in (opened.__getitem__, opened.read):
        for path in ("config.json", "empty"):
            with pytest.raises(modelseal.UsageError, match="closed"):
                reading(path)
    with pytest.raises(modelseal.UsageError, match="open_dir"):
        modelseal.open("model-1", vault=vault)


def test_it_is_a_mapping_with_empty_files_too(folder, vault, tmp_path):
    (tmp_path / "model/empty.onnx").write_bytes(b"")
    modelseal.seal(tmp_path / "model", "model-2", line="llm", version=2, vault=vault)
    with modelseal.open_dir("model-2", vault=vault) as opened:
        files = dict(opened)
        assert {path: model.read() for path, model in opened.items()} == {**folder, "empty.onnx": b""}
        assert sum(len(model) for model in opened.values()) == sum(map(len, folder.values()))
        empty = files["empty"]
        assert empty.read() == empty.read_at(0, 0) == b"" and len(empty) == 0 and empty
        said = empty.manifest
        assert (said.line, said.version, said.kind, said.id, said.length) == ("llm", 2, "bytes", "", 0)
        assert files["empty.onnx"].manifest.kind == "onnx"
        with pytest.raises(modelseal.UsageError):
            empty.read_at(0, 1)
        with pytest.raises(modelseal.Error, match="not a safetensors model"):
            empty.tensors
    assert empty.closed
    with pytest.raises(modelseal.UsageError, match="closed"):
        empty.read()


def test_a_file_of_another_release_is_refused(folder, vault, tmp_path):
    modelseal.seal(tmp_path / "model", "model-2", line="llm", version=2, vault=vault)
    with modelseal.open_dir("model-1", vault=vault) as opened:
        os.replace("model-2/config.json.sealed", "model-1/config.json.sealed")
        assert opened.read("weights/1.bin") == folder["weights/1.bin"]
        with pytest.raises(modelseal.RefusedError):
            opened.read("config.json")
    with pytest.raises(modelseal.RefusedError, match="config.json"):
        modelseal.open_dir("model-1", vault=vault)
    os.remove("model-1/config.json.sealed")
    with pytest.raises(modelseal.NotAuthenticError, match="missing"):
        modelseal.open_dir("model-1", vault=vault)

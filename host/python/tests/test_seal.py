"""Sealing: what is taken, what is refused, and what an interruption leaves."""

import os
import signal

import numpy
import pytest
from conftest import PASSPHRASE

import modelseal


@pytest.mark.parametrize(
    "make", [bytes, bytearray, memoryview, lambda model: numpy.frombuffer(model, numpy.uint8)], ids=str
)
def test_anything_that_has_bytes(vault, model, make):
    modelseal.seal(make(model), "m.sealed", line="l", version=1, vault=vault)
    assert modelseal.open("m.sealed", vault=vault).read() == model


def test_arrays_are_sealed_as_they_lie_in_memory(vault):
    array = numpy.arange(60_000, dtype="f4").reshape(200, 300)
    modelseal.seal(array, "m.sealed", line="l", version=1, vault=vault)
    assert modelseal.open("m.sealed", vault=vault).read() == array.tobytes()
    with pytest.raises(TypeError):
        modelseal.seal(array.T, "t.sealed", line="l", version=1, vault=vault)


def test_one_byte(vault):
    modelseal.seal(b"x", "m.sealed", line="l", version=1, vault=vault)
    data = modelseal.open("m.sealed", vault=vault).read()
    assert data == b"x"
    del data
    assert b"x" == bytes([120]), "what others share isn't wiped"


@pytest.mark.parametrize("kind, model", [("gguf", b"GGUF" + bytes(20)), ("tflite", b"\0\0\0\0TFL3"), ("bytes", b"abc")])
def test_the_kind_is_guessed(vault, kind, model):
    modelseal.seal(model, "m.sealed", line="l", version=1, vault=vault)
    assert modelseal.open("m.sealed", vault=vault).manifest.kind == kind


@pytest.mark.parametrize(
    "said",
    [
        {"line": "Not A Line"},
        {"version": -1},
        {"version": 2**64},
        {"kind": "directory"},
        {"suite": "rot13"},
        {"profile": "cloud"},
        {"claims": {"Key": "v"}},
        {"claims": {f"k{i}": "v" for i in range(9)}},
    ],
    ids=str,
)
def test_what_cant_be_said(vault, said):
    with pytest.raises(modelseal.UsageError):
        modelseal.seal(b"model", "m.sealed", **{"line": "l", "version": 1, "vault": vault, **said})
    assert not os.path.exists("m.sealed")


def test_nothing_is_sealed_over_a_vault_or_its_own_input(vault, tmp_path):
    (tmp_path / "model").write_bytes(b"model")
    for out in ("vault.json", "model"):
        before = (tmp_path / out).read_bytes()
        with pytest.raises(modelseal.UsageError):
            modelseal.seal("model", out, line="l", version=1, vault=vault)
        assert (tmp_path / out).read_bytes() == before
    with pytest.raises(modelseal.UsageError, match="empty"):
        modelseal.seal(b"", "m.sealed", line="l", version=1, vault=vault)


def test_progress_is_told_and_ends_with_all_of_it(vault):
    told = []
    model = bytes(32 << 20)
    modelseal.seal(model, "m.sealed", line="l", version=1, vault=vault, progress=lambda *done: told.append(done))
    modelseal.open("m.sealed", vault=vault, progress=lambda *done: told.append(done)).read()
    assert told[-1] == (len(model), len(model)) and told.count(told[-1]) == 2
    assert all(done <= total == len(model) for done, total in told)


def test_a_bar_of_tqdm(vault, capsys):
    modelseal.seal(bytes(1 << 20), "m.sealed", line="l", version=1, vault=vault, progress=modelseal.tqdm_progress("sealing"))
    shown = capsys.readouterr().err
    assert "sealing: 100%" in shown and "1.00M/1.00M" in shown


def files():
    return {name: os.path.getsize(name) for name in os.listdir()}


def large(vault, tmp_path, how):
    """Work that takes long enough to be told of, as a function of the callback."""
    model = bytes(256 << 20)
    if how == "seal bytes":
        return lambda progress: modelseal.seal(model, "m.sealed", line="l", version=1, vault=vault, progress=progress)
    if how == "seal file":
        (tmp_path / "model").write_bytes(model)
        return lambda progress: modelseal.seal("model", "m.sealed", line="l", version=1, vault=vault, progress=progress)
    if how == "seal folder":
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder/model").write_bytes(model)
        return lambda progress: modelseal.seal("folder", "m", line="l", version=1, vault=vault, progress=progress)
    modelseal.seal(model, "in.sealed", line="l", version=1, vault=vault)
    return lambda progress: modelseal.open("in.sealed", vault=vault, progress=progress).read()


@pytest.mark.parametrize("how", ["seal bytes", "seal file", "seal folder", "open"])
def test_control_c_ends_it_and_leaves_nothing(vault, tmp_path, how):
    work = large(vault, tmp_path, how)
    before = files()

    def interrupt(done, total):
        assert done < total, "it went on to the end"
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work(interrupt)
    assert files() == before


def test_an_error_of_the_callback_ends_it_too(vault, tmp_path):
    work = large(vault, tmp_path, "open")

    def fail(done, total):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work(fail)


def test_what_was_there_stays_if_sealing_anew_is_interrupted(vault, tmp_path):
    modelseal.seal(b"before", "m.sealed", line="l", version=1, vault=vault)
    before = (tmp_path / "m.sealed").read_bytes()

    def fail(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        modelseal.seal(bytes(256 << 20), "m.sealed", line="l", version=2, vault=vault, progress=fail)
    assert (tmp_path / "m.sealed").read_bytes() == before


def test_a_vault_is_made_once_with_its_registry(tmp_path, cli):
    made = modelseal.Vault.create(f"file:{tmp_path}/vault.json", passphrase=PASSPHRASE, algorithm="ecdsa-p256")
    assert made.location == f"file:{tmp_path}/vault.json" and made.location in repr(made)
    assert "BEGIN PUBLIC KEY" in made.publisher()
    with pytest.raises(modelseal.VaultError):
        modelseal.Vault.create(f"file:{tmp_path}/vault.json", passphrase=PASSPHRASE)
    cli("device", "enroll", "d", "--line", "l", "--derive", "--identity-out", "d.identity")

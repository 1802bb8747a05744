"""What was encrypted with Fernet is sealed instead. PyTorch's pickles are in test_torch.py."""

import io
import os
import pickle
import traceback
import zipfile
from pathlib import Path

import pytest
from conftest import flip
from cryptography.fernet import Fernet

import modelseal


@pytest.fixture
def key(tmp_path):
    (tmp_path / "model_key.key").write_bytes(key := Fernet.generate_key())
    return key


@pytest.fixture
def encrypted(tmp_path, key, model):
    (tmp_path / "model.onnx.enc").write_bytes(Fernet(key).encrypt(model))
    return tmp_path / "model.onnx.enc"


@pytest.mark.parametrize("form", [lambda key: key, bytes.decode, lambda key: "model_key.key"], ids=["bytes", "str", "path"])
def test_it_is_sealed(encrypted, key, form, vault, model):
    made = modelseal.migrate_fernet(encrypted, form(key), "m.sealed", vault=vault, line="l", version=4, kind="onnx")
    with modelseal.open("m.sealed", vault=vault) as opened:
        assert opened.read() == model and opened.manifest.id == made.id
        assert (opened.manifest.line, opened.manifest.version, opened.manifest.kind) == ("l", 4, "onnx")


def test_another_key_or_a_changed_file_is_refused(encrypted, key, vault):
    with pytest.raises(modelseal.NotAuthenticError):
        modelseal.migrate_fernet(encrypted, Fernet.generate_key(), "m.sealed", vault=vault)
    flip(encrypted, 200)
    with pytest.raises(modelseal.Error):
        modelseal.migrate_fernet(encrypted, key, "m.sealed", vault=vault)
    with pytest.raises(modelseal.IoError):
        modelseal.migrate_fernet(encrypted, "no-such.key", "m.sealed", vault=vault)
    assert not os.path.exists("m.sealed")


def test_what_isnt_a_key_ends_as_on_the_command_line(cli, encrypted, key, vault, tmp_path):
    (tmp_path / "wrong.key").write_bytes(key[:-1])
    (tmp_path / "wrong.key").chmod(0o600)
    said = cli("migrate-fernet", encrypted, "--key", "wrong.key", "-o", "m", "--line", "l", "--model-version", "1", code=3)
    for wrong in (b"no key", key[:-1], key + key, "wrong.key", tmp_path / "wrong.key"):
        with pytest.raises(modelseal.NotAuthenticError, match="isn't a Fernet key") as raised:
            modelseal.migrate_fernet(encrypted, wrong, "m.sealed", vault=vault)
        assert raised.value.code == said["code"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key[:-1],
        lambda key: key[:42],
        lambda key: key + key,
        lambda key: key.translate(str.maketrans("-_", "+/")).replace("=", ""),
        lambda key: f"'{key}'",
        Path,
    ],
    ids=["without =", "cut", "twice", "base64", "quoted", "path"],
)
def test_a_spoilt_key_is_never_quoted(encrypted, key, vault, spoil):
    with pytest.raises(modelseal.NotAuthenticError, match="isn't a Fernet key") as raised:
        modelseal.migrate_fernet(encrypted, spoil(key.decode()), "m.sealed", vault=vault)
    said = "".join(traceback.format_exception(raised.value, chain=True)) + repr(raised.value)
    assert not any(key.decode()[at : at + 8] in said for at in range(32))


def test_neither_the_key_nor_the_token_is_overwritten(encrypted, key, vault, tmp_path):
    before = encrypted.read_bytes()
    os.symlink("model_key.key", "link")
    for out in ("model_key.key", "link", "./model.onnx.enc", tmp_path / "vault.json"):
        for given in ("model_key.key", tmp_path / "model_key.key"):
            with pytest.raises(modelseal.UsageError) as raised:
                modelseal.migrate_fernet("model.onnx.enc", given, out, vault=vault)
            assert raised.value.code == 2
    with pytest.raises(modelseal.UsageError, match="is an input"):
        modelseal.migrate_fernet("model.onnx.enc", key, "model.onnx.enc", vault=vault)
    assert encrypted.read_bytes() == before and (tmp_path / "model_key.key").read_bytes() == key


def test_the_kind_is_guessed_as_on_the_command_line(cli, encrypted, key, vault, tmp_path):
    for name, plain in (("model.onnx.enc", b"abc"), ("a.onnx.fernet", b"GGUF"), ("weights.enc", b"abc")):
        (tmp_path / name).write_bytes(Fernet(key).encrypt(plain))
        cli("migrate-fernet", name, "--key", "model_key.key", "-o", "cli", "--line", "l", "--model-version", "1")
        modelseal.migrate_fernet(name, key, "m.sealed", vault=vault)
        kinds = [modelseal.open(path, vault=vault).manifest.kind for path in ("cli", "m.sealed")]
        assert kinds[0] == kinds[1], name
    modelseal.migrate_fernet("model.onnx.enc", key, "m.sealed", vault=vault)
    assert modelseal.open("m.sealed", vault=vault).manifest.kind == "onnx"


@pytest.mark.parametrize("cut", [4, 30, -30])
def test_half_a_zip_file_is_malformed(tmp_path, key, vault, cut):
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("model/data.pkl", b"x" * 100)
    (tmp_path / "model.enc").write_bytes(Fernet(key).encrypt(half := zipped.getvalue()[:cut]))
    with pytest.raises(modelseal.NotAuthenticError, match="convert=None"):
        modelseal.migrate_fernet("model.enc", key, "m.sealed", vault=vault)
    modelseal.migrate_fernet("model.enc", key, "m.sealed", vault=vault, convert=None)
    assert modelseal.open("m.sealed", vault=vault).read() == half


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


def test_a_pickle_isnt_run(tmp_path, key, vault, monkeypatch):
    pickled = pickle.dumps({"weight": Harmful()})
    (tmp_path / "model.enc").write_bytes(Fernet(key).encrypt(pickled))
    # Where there is no PyTorch, it isn't converted; where there is one, its names aren't allowed.
    with pytest.raises(modelseal.UnsupportedError, match="convert=None"):
        modelseal.migrate_fernet("model.enc", key, "m.sealed", vault=vault)
    modelseal.migrate_fernet("model.enc", key, "m.sealed", vault=vault, convert=None)
    assert modelseal.open("m.sealed", vault=vault).read() == pickled
    assert not os.path.exists("was-run")


def test_the_old_key_isnt_taken_for_a_vault(key):
    with pytest.raises(modelseal.UsageError, match="migrate_fernet"):
        modelseal.ModelProtection(key_path="model_key.key", passphrase="p")
    assert open("model_key.key", "rb").read() == key


def test_the_vault_is_made_if_it_isnt_there_and_never_without_a_passphrase(monkeypatch):
    with pytest.raises(modelseal.VaultError, match="MODELSEAL_PASSPHRASE_FILE"):
        modelseal.ModelProtection(key_path="keys/vault.json")
    monkeypatch.setenv("MODELSEAL_PASSPHRASE", "p")
    made = modelseal.ModelProtection(key_path="keys/vault.json")
    again = modelseal.ModelProtection(key_path="keys/vault.json")
    assert made.vault.publisher() == again.vault.publisher()

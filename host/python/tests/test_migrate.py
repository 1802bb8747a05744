"""What was encrypted with Fernet is sealed instead. PyTorch's pickles are in test_torch.py."""

import os
import pickle

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
    with pytest.raises(modelseal.UsageError):
        modelseal.migrate_fernet(encrypted, b"no key", "m.sealed", vault=vault)
    with pytest.raises(modelseal.IoError):
        modelseal.migrate_fernet(encrypted, "no-such.key", "m.sealed", vault=vault)
    assert not os.path.exists("m.sealed")


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

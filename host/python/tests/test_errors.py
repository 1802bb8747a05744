"""Each failure is an exception of its class, and has the code with which the command line ends."""

import os
import pickle

import pytest
from conftest import PASSPHRASE, flip

import modelseal

CLASSES = {
    2: modelseal.UsageError,
    3: modelseal.NotAuthenticError,
    4: modelseal.RefusedError,
    5: modelseal.VaultError,
    6: modelseal.IoError,
    7: modelseal.UnsupportedError,
}


def damaged(sealed):
    flip(sealed, -1)


def foreign(sealed):
    flip(sealed, 0)


def of_a_later_format(sealed):
    flip(sealed, 8)


def missing(sealed):
    os.remove(sealed)


def cut(sealed):
    os.truncate(sealed, 500)


@pytest.mark.parametrize(
    "spoil, code, name",
    [(damaged, 3, "Chunk"), (cut, 3, "Truncated"), (missing, 6, None), (foreign, 7, "ForeignMagic"), (of_a_later_format, 7, "UnknownVersion")],
)
def test_a_spoilt_model(cli, vault, sealed, spoil, code, name):
    spoil(sealed)
    said = cli("open", sealed, "-o", "out", code=code)
    with pytest.raises(CLASSES[code]) as raised:
        modelseal.open(sealed, vault=vault).read()
    error = raised.value
    assert (error.code, error.name) == (code, name) and isinstance(error, modelseal.Error)
    assert (said["code"], said["name"], said["hint"]) == (error.code, error.name, error.hint)
    assert str(error) == f"{error.what}\n  hint: {error.hint}"


def test_another_line(cli, vault, sealed):
    with pytest.raises(modelseal.RefusedError) as raised:
        modelseal.open(sealed, vault=vault, line="other")
    assert raised.value.name == "OtherLine"
    cli("open", sealed, "-o", "out", "--line", "other", code=4)


def test_a_wrong_passphrase(tmp_path, sealed):
    with pytest.raises(modelseal.VaultError) as raised:
        modelseal.open(sealed, vault=f"file:{tmp_path}/vault.json", passphrase="hunter2")
    assert "hunter2" not in str(raised.value)


def test_another_vaults_model(tmp_path, sealed):
    other = modelseal.Vault.create(f"file:{tmp_path}/other.json", passphrase="p")
    with pytest.raises(modelseal.NotAuthenticError) as raised:
        modelseal.open(sealed, vault=other)
    assert raised.value.name == "ManifestSignature"


def test_what_doesnt_go_together(vault, sealed, device, tmp_path):
    for arguments in (
        {"vault": vault, **device},
        {"vault": vault, "passphrase": PASSPHRASE},
        {"grant": device["grant"], "vault": vault},
        {"vault": "nonsense"},
        {"vault": vault, "state": tmp_path / "state"},
    ):
        with pytest.raises(ValueError) as raised:
            modelseal.open(sealed, **arguments)
        assert raised.value.code == 2


def test_they_are_what_python_calls_them_and_survive_pickling(vault):
    assert issubclass(modelseal.UsageError, ValueError) and issubclass(modelseal.IoError, OSError)
    with pytest.raises(OSError) as raised:
        modelseal.open("missing", vault=vault)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), again.what, again.hint, again.code) == (
        modelseal.IoError,
        raised.value.what,
        raised.value.hint,
        6,
    )

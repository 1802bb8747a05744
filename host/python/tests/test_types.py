"""What a type checker says: of the package, and of a program that uses all of it."""

import subprocess
import sys
from pathlib import Path

USE = """
import os
from collections.abc import Mapping
import modelseal
from modelseal.safetensors import safe_open
from modelseal.safetensors.numpy import load_file, save_file

vault: modelseal.Vault = modelseal.Vault.create("file:v", passphrase="p")
sealed: modelseal.Sealed = modelseal.seal(b"x", "m.sealed", line="l", version=1, vault=vault, claims={"a": "b"})
made: str = modelseal.seal(bytearray(b"x"), "m.sealed", line="l", version=1, progress=modelseal.tqdm_progress()).id
with modelseal.open("m.sealed", vault=vault) as model:
    data: bytes = model.read()
    view: memoryview = model.read_at(0, 1)
    line: str = model.manifest.line
    claims: Mapping[str, str] = model.manifest.claims
    for name, tensor in model.tensors.items():
        shape: tuple[int, ...] = tensor.shape
try:
    modelseal.open(os.fspath("m"), grant="g", identity="i", confirm=False)
except modelseal.RefusedError as error:
    code: int = error.code
    hint: str = error.hint
with modelseal.open_dir("m") as folder:
    one: modelseal.Model = folder["a"]
with safe_open("m.sealed", framework="np") as opened:
    names: list[str] = opened.keys()
save_file(load_file("m.sealed", vault="file:v"), "n.sealed", {"a": "b"}, line="l")
modelseal.migrate_fernet("old", "key", "new", vault=vault)
"""
WRONG = """
import modelseal
modelseal.seal(b"x", "m.sealed", line="l")
modelseal.open("m").read().nope
modelseal.open("m", vault=3)
"""


def mypy(*args):
    ran = subprocess.run([sys.executable, "-m", "mypy", "--strict", *args], capture_output=True, text=True)
    return ran.returncode, ran.stdout + ran.stderr


def test_the_package():
    assert Path(__import__("modelseal").__file__).with_name("py.typed").exists()
    # PyTorch is large, and tqdm has no types.
    code, said = mypy("-p", "modelseal", "--ignore-missing-imports")
    assert code == 0, said


def test_a_program_that_uses_it(tmp_path):
    (tmp_path / "use.py").write_text(USE)
    code, said = mypy("use.py")
    assert code == 0, said
    (tmp_path / "wrong.py").write_text(WRONG)
    code, said = mypy("wrong.py")
    assert code == 1 and said.count("error:") == 3, said

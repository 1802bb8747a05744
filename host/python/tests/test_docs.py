"""docs/PYTHON.md begins with ten lines that work; the other blocks do, too."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest
from conftest import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/PYTHON.md").read_text(), re.M | re.S)


def test_the_first_lines_work(tmp_path, capsys):
    silero = Path(find_spec("silero_vad").submodule_search_locations[0])
    shutil.copy(silero / "data/silero_vad.onnx", tmp_path / "vad.onnx")
    assert len(BLOCKS[0].splitlines()) <= 10
    exec(BLOCKS[0], said := {})
    assert capsys.readouterr().out.startswith("[[0.")
    assert said["model"].closed and isinstance(said["session"].run(None, said["inputs"])[0], numpy.ndarray)


def test_opening_as_a_device(device, sealed, model):
    sealed.rename("wake.sealed")
    assert eval(BLOCKS[1].strip(), {"modelseal": __import__("modelseal")}).read() == model


@pytest.mark.long
def test_pytorch(tmp_path, monkeypatch):
    import torch
    from cryptography.fernet import Fernet

    monkeypatch.setenv("MODELSEAL_PASSPHRASE", "p")
    said = {"modelseal": __import__("modelseal"), "model": torch.nn.Linear(3, 3)}
    (tmp_path / "model_key.key").write_bytes(key := Fernet.generate_key())
    torch.save(said["model"].state_dict(), "old")
    (tmp_path / "old.enc").write_bytes(Fernet(key).encrypt((tmp_path / "old").read_bytes()))
    for block in BLOCKS[2:]:
        exec(block, said)
    said["protection"].load_model(torch.nn.Linear(3, 3), "model.sealed")

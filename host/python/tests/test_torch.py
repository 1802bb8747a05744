"""PyTorch, on the CPU: tensors, modules, TorchScript, and what the Fernet-based class has left behind."""

import io
import os
import pickle
from importlib.util import find_spec
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

import modelseal
from modelseal.safetensors import safe_open

pytestmark = pytest.mark.long

NAMES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64"
NAMES += " float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz"


@pytest.fixture
def torch():
    import torch

    torch.manual_seed(11)
    return torch


@pytest.fixture
def sealed_torch(torch):
    import modelseal.safetensors.torch

    return modelseal.safetensors.torch


@pytest.fixture
def tensors(torch):
    tensors = {name: torch.randn(6, 5).to(getattr(torch, name)) for name in NAMES.split()}
    return {**tensors, "scalar": torch.tensor(4.5), "empty": torch.zeros(0, 3), "big": torch.randn(400, 300)}


def same(torch, ours, theirs):
    bits = [torch.view_as_real(t) if t.is_complex() else t for t in (ours, theirs)]
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in bits]
    return ours.dtype == theirs.dtype and ours.shape == theirs.shape and torch.equal(*bits)


def test_what_is_saved_is_loaded_and_is_what_safetensors_writes(torch, sealed_torch, tensors, vault):
    import safetensors.torch

    sealed_torch.save_file(tensors, "m.sealed", {"format": "pt"}, vault=vault)
    assert modelseal.open("m.sealed", vault=vault).read() == safetensors.torch.save(tensors, {"format": "pt"})
    for loaded in (
        sealed_torch.load_file("m.sealed", vault=vault),
        sealed_torch.load_file("m.sealed", torch.device("cpu"), backend="mmap", vault=vault),
        sealed_torch.load(sealed_torch.save(tensors, vault=vault, line="l"), vault=vault),
    ):
        assert set(loaded) == set(tensors)
        assert all(same(torch, loaded[name], tensor) for name, tensor in tensors.items())
    loaded["big"].add_(1)


def test_safe_open_is_safetensors_own(torch, sealed_torch, tensors, vault):
    import safetensors.torch

    sealed_torch.save_file(tensors, "m.sealed", vault=vault)
    safetensors.torch.save_file(tensors, "m.safetensors")
    with safe_open("m.sealed", framework="pt", device="cpu", vault=vault) as ours:
        with safetensors.safe_open("m.safetensors", framework="pt") as theirs:
            assert sorted(ours.keys()) == sorted(theirs.keys())
            for name in theirs.keys():
                assert same(torch, ours.get_tensor(name), theirs.get_tensor(name))
            for index in [(slice(3, 9),), (slice(None), slice(5, 7)), (slice(1, 2), slice(0, 300))]:
                assert same(torch, ours.get_slice("big")[index], theirs.get_slice("big")[index])
            assert torch.equal(ours.get_slice("big")[7], tensors["big"][7])


def test_what_shares_memory_is_refused_as_by_safetensors(torch, sealed_torch, vault):
    one = torch.zeros(4, 4)
    for wrong in ({"a": one, "b": one}, {"a": one.T[:2]}, {"a": one.to_sparse()}, {"a": 3}):
        with pytest.raises(ValueError):
            sealed_torch.save_file(wrong, "m.sealed", vault=vault)
    assert not os.path.exists("m.sealed")


@pytest.fixture
def tied(torch):
    """A language model's usual shape: what embeds also projects back."""

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(50, 16)
            self.body = torch.nn.GRU(16, 16)
            self.norm = torch.nn.BatchNorm1d(16)
            self.head = torch.nn.Linear(16, 50, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.norm(self.body(self.embed(ids))[0]))

    return Tied


def answers(torch, model):
    with torch.no_grad():
        return model.eval()(torch.arange(40) % 50)


def test_model_protection_saves_and_loads_a_module(torch, tied, monkeypatch):
    monkeypatch.setenv("MODELSEAL_PASSPHRASE", "p")
    protection = modelseal.ModelProtection(key_path="model.key")
    model, other = tied(), tied()
    assert protection.save_model(model, "model.sealed").path == "model.sealed"
    assert not torch.equal(answers(torch, model), answers(torch, other))
    loaded = modelseal.ModelProtection(key_path="model.key").load_model(other, "model.sealed")
    assert loaded is other and torch.equal(answers(torch, model), answers(torch, other))
    assert other.head.weight is other.embed.weight
    with modelseal.open("model.sealed", vault="file:model.key") as opened:
        assert opened.manifest.kind == "safetensors" and opened.manifest.line == "model"
        # Once, with a note of the other name.
        assert set(opened.tensors.metadata.items()) & {("head.weight", "embed.weight"), ("embed.weight", "head.weight")}


def test_another_module_is_refused_and_nothing_else_than_sealed_loads(torch, tied, vault, monkeypatch):
    monkeypatch.setenv("MODELSEAL_PASSPHRASE", "p")
    protection = modelseal.ModelProtection(key_path="model.key")
    protection.save_model(tied(), "model.sealed")
    smaller = torch.nn.Sequential(torch.nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="Missing key"):
        protection.load_model(smaller, "model.sealed")
    protection.load_model(smaller, "model.sealed", strict=False)
    torch.save(tied().state_dict(), "plain.pth")
    with pytest.raises(modelseal.UnsupportedError):
        protection.load_model(tied(), "plain.pth")
    # Another vault's.
    modelseal.seal(b"x" * 100, "other.sealed", line="model", version=1, vault=vault)
    with pytest.raises(modelseal.NotAuthenticError):
        protection.load_model(tied(), "other.sealed")


def test_tied_modules_go_between_safetensors_and_here(torch, sealed_torch, tied, vault):
    import safetensors.torch

    model, other = tied(), tied()
    safetensors.torch.save_model(model, "m.safetensors")
    modelseal.seal("m.safetensors", "m.sealed", line="l", version=1, vault=vault)
    assert sealed_torch.load_model(other, "m.sealed", vault=vault) == (set(), [])
    assert torch.equal(answers(torch, model), answers(torch, other))
    sealed_torch.save_model(model, "m.sealed", vault=vault)
    with open("back.safetensors", "wb") as file:
        file.write(modelseal.open("m.sealed", vault=vault).read())
    safetensors.torch.load_model(other := tied(), "back.safetensors")
    assert torch.equal(answers(torch, model), answers(torch, other))


def test_parts_of_one_storage_are_whole_tensors_of_their_own(torch, sealed_torch, vault):
    storage = torch.randn(6, 4)
    state = {"first": storage[:3], "second": storage[3:]}
    sealed_torch.save_file(state, "m.sealed", vault=vault)
    loaded = sealed_torch.load_file("m.sealed", vault=vault)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_torchscript(torch, vault):
    path = Path(find_spec("silero_vad").submodule_search_locations[0]) / "data/silero_vad.jit"
    samples = [torch.randn(1, 512) * 0.3 for _ in range(20)]

    def voice(model):
        with torch.no_grad():
            return torch.cat([model(sample, 16000) for sample in samples])

    plain = voice(torch.jit.load(path))
    assert len(set(plain.flatten().tolist())) > 10
    modelseal.seal(path, "m.sealed", line="vad", version=1, vault=vault)
    with modelseal.open("m.sealed", vault=vault) as model:
        assert model.manifest.kind == "torchscript"
        assert torch.equal(voice(torch.jit.load(io.BytesIO(model.read()))), plain)


def silero_weights():
    return Path(find_spec("silero_vad").submodule_search_locations[0]) / "data/silero_vad_16k.safetensors"


def test_real_weights(torch, sealed_torch, vault):
    import safetensors.torch

    plain = safetensors.torch.load_file(silero_weights())
    modelseal.seal(silero_weights(), "m.sealed", line="vad", version=1, vault=vault)
    loaded = sealed_torch.load_file("m.sealed", vault=vault)
    assert len(plain) > 5 and all(same(torch, loaded[name], tensor) for name, tensor in plain.items())
    # A layer of it computes the same.
    name, weight = next((name, weight) for name, weight in plain.items() if weight.dim() == 3)
    sound = torch.randn(1, weight.shape[1], 2 * weight.shape[2])
    convolve = torch.nn.functional.conv1d
    assert torch.equal(convolve(sound, loaded[name]), convolve(sound, weight))


# What the Fernet-based class has left behind.


class FernetProtection:
    """The old class: a Fernet key in a file, and the module's state as an encrypted pickle."""

    def __init__(self, key_path):
        if not os.path.exists(key_path):
            Path(key_path).write_bytes(Fernet.generate_key())
        self.fernet = Fernet(Path(key_path).read_bytes())

    def save(self, data, path):
        Path(path).write_bytes(self.fernet.encrypt(data))


def saved(torch, state, **how):
    buffer = io.BytesIO()
    torch.save(state, buffer, **how)
    return buffer.getvalue()


def forms(torch, model):
    state = model.state_dict()
    yield from (pickle.dumps(state, protocol) for protocol in range(2, 6))
    yield pickle.dumps(dict(model.named_parameters()) | state)
    yield saved(torch, state)
    yield saved(torch, state, _use_new_zipfile_serialization=False)
    yield saved(torch, {"epoch": 3, "state_dict": state})
    yield saved(torch, {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"lr": 0.1}})
    yield pickle.dumps({"model_state_dict": state})


def test_a_module_of_the_old_class_is_migrated_and_loaded(torch, tied, monkeypatch):
    monkeypatch.setenv("MODELSEAL_PASSPHRASE", "p")
    old, new = FernetProtection("model_key.key"), modelseal.ModelProtection(key_path="vault.json")
    model = tied()
    for data in forms(torch, model):
        old.save(data, "old.enc")
        modelseal.migrate_fernet("old.enc", "model_key.key", "new.sealed", vault=new.vault)
        loaded = new.load_model(tied(), "new.sealed")
        assert torch.equal(answers(torch, model), answers(torch, loaded))


def test_what_was_saved_on_a_gpu_is_migrated_without_one(torch, tied, vault, monkeypatch):
    state = tied().state_dict()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        forms = [pickle.dumps(state), saved(torch, state), saved(torch, state, _use_new_zipfile_serialization=False)]
    assert all(b"cuda:0" in data for data in forms)
    for data in forms:
        FernetProtection("model_key.key").save(data, "old.enc")
        modelseal.migrate_fernet("old.enc", "model_key.key", "new.sealed", vault=vault)
        weight = modelseal.open("new.sealed", vault=vault).tensors["norm.weight"]
        assert torch.equal(torch.from_numpy(weight.copy()), state["norm.weight"])


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


def test_of_a_pickle_nothing_is_run_but_what_makes_tensors(torch, tied, vault):
    old = FernetProtection("model_key.key")
    state = tied().state_dict()
    harmful = {**state, "x": Harmful()}
    inner = pickle.dumps(state["embed.weight"])
    # A storage within the pickle is a file of PyTorch's own, which could be a harmful one.
    smuggled = pickle.dumps({"a": Smuggled(saved(torch, Harmful(), _use_new_zipfile_serialization=False))})
    for data in (
        pickle.dumps(harmful),
        saved(torch, harmful),
        saved(torch, harmful, _use_new_zipfile_serialization=False),
        smuggled,
        saved(torch, torch.nn.Linear(2, 2)),
        pickle.dumps({"lr": 0.1}),
        pickle.dumps({}),
        pickle.dumps(state)[:2000] + b".",
        inner,
        # It sets an attribute of what it names.
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + pickle.dumps({"changed": 1}, 2)[2:-1] + b"b.",
    ):
        old.save(data, "old.enc")
        with pytest.raises(modelseal.UnsupportedError, match="convert=None"):
            modelseal.migrate_fernet("old.enc", "model_key.key", "new.sealed", vault=vault)
        assert not os.path.exists("was-run") and not os.path.exists("new.sealed")
        assert not vars(torch._utils._rebuild_tensor_v2)


class Smuggled:
    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        import torch

        return torch.storage._load_from_bytes, (self.data,)


def test_torchscript_is_migrated_as_it_is(torch, vault):
    script = torch.jit.script(torch.nn.Linear(2, 2))
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    FernetProtection("model_key.key").save(buffer.getvalue(), "old.enc")
    modelseal.migrate_fernet("old.enc", "model_key.key", "new.sealed", vault=vault)
    assert modelseal.open("new.sealed", vault=vault).read() == buffer.getvalue()

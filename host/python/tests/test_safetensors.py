"""``modelseal.safetensors.numpy`` beside ``safetensors.numpy``."""

import json
import struct

import ml_dtypes
import numpy
import pytest
import safetensors.numpy
from conftest import flip

import modelseal
import modelseal.safetensors
import modelseal.safetensors.numpy as sealed_numpy
from modelseal.safetensors import safe_open

DTYPES = ["f8", "f4", "f2", "i8", "u8", "i4", "u4", "i2", "u2", "i1", "u1", "?", "c8"]
DTYPES += [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]


@pytest.fixture
def tensors():
    random = numpy.random.default_rng(7)
    tensors = {f"t.{numpy.dtype(d).name}": random.integers(0, 2, (5, 4, 3)).astype(d) for d in DTYPES}
    tensors["big"] = random.standard_normal((500, 333))
    tensors["scalar"] = numpy.array(4.5, "f4")
    tensors["empty"] = numpy.zeros((0, 7), "i8")
    return tensors


def same(ours, theirs):
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


def test_the_plaintext_is_what_safetensors_writes(tensors, vault):
    metadata = {"format": "np", "ünïcode": 'with "quotes"'}
    sealed_numpy.save_file(tensors, "m.sealed", vault=vault)
    assert modelseal.open("m.sealed", vault=vault).read() == safetensors.numpy.save(tensors)
    one = {"big": tensors["big"]}
    sealed_numpy.save_file(one, "m.sealed", {"format": "np"}, vault=vault)
    assert modelseal.open("m.sealed", vault=vault).read() == safetensors.numpy.save(one, {"format": "np"})
    sealed_numpy.save_file(tensors, "m.sealed", metadata, vault=vault)
    with safe_open("m.sealed", "np", vault=vault) as opened:
        assert opened.metadata() == metadata


def test_what_is_saved_is_loaded(tensors, vault):
    sealed_numpy.save_file(tensors, "m.sealed", vault=vault, line="l", version=2)
    loaded = sealed_numpy.load_file("m.sealed", vault=vault, line="l")
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        same(loaded[name], tensor)
        assert loaded[name].flags.writeable, "as safetensors'"
    loaded["big"] += 1
    data = sealed_numpy.save(tensors, vault=vault, line="l")
    for name, tensor in sealed_numpy.load(data, vault=vault).items():
        same(tensor, tensors[name])


def test_arrays_of_any_layout(vault):
    array = numpy.arange(24, dtype="f4").reshape(4, 6)
    odd = {"transposed": array.T, "strided": array[:, ::2], "big-endian": array.astype(">f4")}
    sealed_numpy.save_file(odd, "m.sealed", vault=vault)
    for name, tensor in sealed_numpy.load_file("m.sealed", vault=vault).items():
        assert numpy.array_equal(tensor, odd[name])


def test_without_a_name_the_line_is_the_files_and_the_version_grows(vault, monkeypatch):
    sealed_numpy.save_file({"a": numpy.zeros(1)}, "My Model.safetensors.sealed", vault=vault)
    first = modelseal.open("My Model.safetensors.sealed", vault=vault).manifest
    assert first.line == "my-model" and first.kind == "safetensors"
    monkeypatch.setenv("MODELSEAL_LINE", "other")
    sealed_numpy.save_file({"a": numpy.zeros(1)}, "m.sealed", vault=vault)
    second = modelseal.open("m.sealed", vault=vault).manifest
    assert second.line == "other" and second.version > first.version


def test_safe_open_is_safetensors_own(tensors, vault, tmp_path):
    sealed_numpy.save_file(tensors, "m.sealed", {"a": "b"}, vault=vault)
    safetensors.numpy.save_file(tensors, "m.safetensors", {"a": "b"})
    with safe_open("m.sealed", framework="np", device="cpu", backend="mmap", vault=vault) as ours:
        with safetensors.safe_open("m.safetensors", framework="np") as theirs:
            assert sorted(ours.keys()) == sorted(theirs.keys())
            assert ours.offset_keys() == theirs.offset_keys()
            assert ours.metadata() == theirs.metadata()
            # Of the 8-bit floats it has the names only.
            for name in (name for name in theirs.keys() if "float8" not in name):
                same(ours.get_tensor(name), theirs.get_tensor(name))
            slices = ours.get_slice("big"), theirs.get_slice("big")
            assert slices[0].get_shape() == slices[1].get_shape() and slices[0].get_dtype() == slices[1].get_dtype()
            for index in [
                numpy.s_[:],
                numpy.s_[3],
                numpy.s_[-1],
                numpy.s_[10:20],
                numpy.s_[490:],
                numpy.s_[20:10],
                numpy.s_[:, 5:7],
                numpy.s_[7:9, 330:],
                numpy.s_[...],
            ]:
                same(slices[0][index], numpy.ascontiguousarray(theirs.get_tensor("big")[index]))
            assert numpy.array_equal(slices[0][::50, 1], tensors["big"][::50, 1])
            with pytest.raises(safetensors.SafetensorError):
                ours.get_tensor("nope")
            with pytest.raises(modelseal.UsageError):
                slices[0][500]
    with pytest.raises(ValueError, match="closed"):
        ours.get_tensor("big")


def test_only_what_is_asked_for_is_opened(vault):
    tensors = {"a": numpy.arange(100_000.0), "b": numpy.arange(100_000.0)}
    sealed_numpy.save_file(tensors, "m.sealed", vault=vault)
    flip("m.sealed", -1)
    with safe_open("m.sealed", "np", vault=vault) as opened:
        assert numpy.array_equal(opened.get_tensor("a"), tensors["a"])
        assert numpy.array_equal(opened.get_slice("b")[:1000], tensors["b"][:1000])
        with pytest.raises(modelseal.NotAuthenticError):
            opened.get_tensor("b")
    model = modelseal.open("m.sealed", vault=vault)
    assert numpy.array_equal(model.tensors["a"], tensors["a"])
    with pytest.raises(modelseal.NotAuthenticError):
        model.tensors["b"]


def test_the_models_tensors_are_a_mapping(tensors, vault):
    sealed_numpy.save_file(tensors, "m.sealed", {"a": "b"}, vault=vault)
    with modelseal.open("m.sealed", vault=vault) as model:
        found = model.tensors
        assert model.tensors is found and set(found) == set(tensors) and len(found) == len(tensors)
        assert found.metadata == {"a": "b"} and found.shape("big") == (500, 333) and found.dtype("t.bfloat16") == "BF16"
        for name, tensor in found.items():
            same(tensor, tensors[name])
        assert "nope" not in found and found.get("nope") is None
    with pytest.raises(ValueError, match="closed"):
        found["big"]


def test_numpy_alone_has_no_bfloat16(vault, monkeypatch):
    sealed_numpy.save_file({"a": numpy.zeros(3, ml_dtypes.bfloat16)}, "m.sealed", vault=vault)
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(modelseal.UnsupportedError, match="ml_dtypes"):
        sealed_numpy.load_file("m.sealed", vault=vault)


def test_what_isnt_sealed_isnt_loaded(tensors):
    safetensors.numpy.save_file(tensors, "plain.safetensors")
    vault = modelseal.Vault.create("file:v", passphrase="p")
    with pytest.raises(modelseal.UnsupportedError):
        sealed_numpy.load_file("plain.safetensors", vault=vault)
    with pytest.raises(modelseal.UnsupportedError):
        safe_open("plain.safetensors", "tf", vault=vault)


def header(said, tail=b""):
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return struct.pack("<Q", len(text)) + text + tail


F4 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "model",
    [
        b"short",
        struct.pack("<Q", 1 << 60) + b"{}",
        header(b"{not json"),
        header(b"\xff\xfe"),
        header([1, 2]),
        header({"a": {}}),
        header({"a": {**F4, "dtype": "F99"}}, bytes(8)),
        header({"a": {**F4, "shape": [3]}}, bytes(8)),
        header({"a": {**F4, "shape": [-2]}}, bytes(8)),
        header({"a": {**F4, "shape": [True, 2]}}, bytes(8)),
        header({"a": {**F4, "data_offsets": [8, 16]}}, bytes(16)),
        header({"a": F4}, bytes(7)),
        header({"a": F4}, bytes(9)),
        header({"a": F4, "b": F4}, bytes(8)),
        header({"a": F4, "__metadata__": {"x": 1}}, bytes(8)),
        header({"a": F4, "__metadata__": "x"}, bytes(8)),
    ],
)
def test_a_malformed_header_is_an_error_of_ours(vault, model):
    modelseal.seal(model, "m.sealed", line="l", version=1, vault=vault, kind="safetensors")
    with pytest.raises(modelseal.Error, match="not a safetensors model"):
        modelseal.open("m.sealed", vault=vault).tensors
    with pytest.raises(safetensors.SafetensorError):
        safetensors.numpy.load(model)

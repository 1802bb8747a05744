"""What a pickle can't do to PyTorch, with a stand-in for PyTorch, which is large. The real one is in test_torch.py."""

import importlib
import io
import pickle
import sys
from types import ModuleType, SimpleNamespace

import pytest

import modelseal


def rebuild(*arguments):
    return Tensor(arguments)


class Tensor:
    def __init__(self, arguments):
        self.arguments = arguments

    def detach(self):
        return self


class Storage:
    pass


class Version(str):
    """Compared as PyTorch compares its own."""

    def __lt__(self, other):
        def numbers(version):
            return tuple(map(int, version.split(".")))

        return numbers(self) < numbers(other)


@pytest.fixture
def torch(monkeypatch):
    module = ModuleType("torch")
    module.__version__ = Version("2.10.0")
    module._utils = SimpleNamespace(_rebuild_tensor_v2=rebuild, _rebuild_parameter=rebuild)
    module.storage = SimpleNamespace(TypedStorage=Storage)
    module.UntypedStorage, module.Tensor = Storage, Tensor
    # A file of PyTorch's own, as which anything that PyTorch allows comes out.
    module.load = lambda file, **how: {b"storage": Storage(), b"function": rebuild}[file.read()]
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.delitem(sys.modules, "modelseal._unpickle", raising=False)
    yield module
    sys.modules.pop("modelseal._unpickle", None)
    vars(rebuild).clear()


def tensors(data):
    return importlib.import_module("modelseal._unpickle").tensors(data, "convert=None")


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
ORDERED = b"ccollections\nOrderedDict\n"
#: What PyTorch allows in a file of its own, by way of a storage.
INNER = b"ctorch.storage\n_load_from_bytes\n" + pickle.dumps(b"function", 2)[2:-1] + b"\x85R"
STATE = pickle.dumps({"changed": 1}, 2)[2:-1]
SLOTS = pickle.dumps((None, {"__defaults__": (1,)}), 2)[2:-1]


@pytest.mark.parametrize("what", [REBUILD, INNER, ORDERED, b"c_codecs\nencode\n"])
@pytest.mark.parametrize("state", [STATE, SLOTS])
def test_a_refused_pickle_leaves_nothing_on_what_it_named(torch, what, state):
    with pytest.raises(modelseal.UnsupportedError, match="can't be converted safely"):
        tensors(b"\x80\x02" + what + state + b"b.")
    assert vars(rebuild) == {} and rebuild.__defaults__ is None


def test_tensors_come_out_and_attributes_dont(torch):
    named = b"X\x01\x00\x00\x00a" + REBUILD + b"(I1\ntR"
    # An ordered dict whose attributes are looked up before the dict's own.
    data = b"\x80\x02" + ORDERED + b")R(" + named + b"u" + pickle.dumps({"items": None, "get": 1}, 2)[2:-1] + b"b."
    state = tensors(data)
    assert list(state) == ["a"] and state["a"].arguments == (1,)
    storage = b"ctorch.storage\n_load_from_bytes\n" + pickle.dumps(b"storage", 2)[2:-1] + b"\x85R"
    loaded = tensors(b"\x80\x02}(X\x01\x00\x00\x00a" + REBUILD + storage + b"\x85Ru.")
    assert isinstance(loaded["a"].arguments[0], Storage)


@pytest.mark.parametrize("version", ["2.5.1", "2.9.1", "1.13.0"])
def test_a_pytorch_that_can_be_made_to_run_pickles_isnt_used(torch, version):
    torch.__version__ = Version(version)
    torch.load = None
    with pytest.raises(modelseal.UnsupportedError, match=f"(?s)PyTorch {version}.*torch 2.10.*convert=None"):
        tensors(pickle.dumps({"a": 1}, 2))

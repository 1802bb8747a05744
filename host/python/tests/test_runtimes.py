"""Real models in real runtimes: from the sealed model, to the bit what the unprotected one gives."""

from importlib.util import find_spec
from pathlib import Path

import numpy
import onnxruntime
import pytest
import safetensors.numpy
from tflite_micro import runtime

import modelseal
import modelseal.safetensors.numpy


def packaged(package):
    return Path(find_spec(package).submodule_search_locations[0])


SILERO = packaged("silero_vad") / "data"
WAKE_WORDS = sorted((packaged("pymicro_wakeword") / "models").glob("*.tflite"))


@pytest.fixture
def opened(vault):
    def seal_and_open(path):
        modelseal.seal(path, "m.sealed", line="l", version=1, vault=vault)
        return modelseal.open("m.sealed", vault=vault)

    return seal_and_open


def voice(model):
    """What Silero's model says of a second of noise."""
    session = onnxruntime.InferenceSession(model)
    random, state, said = numpy.random.default_rng(1), numpy.zeros((2, 1, 128), "f4"), []
    for _ in range(31):
        samples = random.standard_normal((1, 576), "f4") * 0.3
        given = {"input": samples, "state": state, "sr": numpy.array(16000)}
        output, state = session.run(None, {wanted.name: given[wanted.name] for wanted in session.get_inputs()})
        said.append(output)
    return numpy.concatenate([*said, state], axis=None)


@pytest.mark.parametrize("name", ["silero_vad.onnx", "silero_vad_half.onnx", "silero_vad_16k_op15.onnx"])
def test_onnx_runtime(opened, name):
    plain = voice(SILERO / name)
    assert len(set(plain[:31].tolist())) > 10
    with opened(SILERO / name) as model:
        assert model.manifest.kind == "onnx"
        assert voice(model.read()).tobytes() == plain.tobytes()


def heard(interpreter):
    """What a wake-word model says of noises of all kinds; each of them takes some for a word."""
    shape, random, said = interpreter.get_input_details(0)["shape"], numpy.random.default_rng(3), []
    for low, high in [(-128, -100), (-128, 0), (-128, 128), (0, 128), (100, 128)]:
        for step in range(200):
            if step % 7 == 0:
                sound = random.integers(low, high, (1, 1, shape[-1]))
            samples = numpy.clip(sound + random.integers(-10, 10, shape), -128, 127)
            interpreter.set_input(samples.astype("i1"), 0)
            interpreter.invoke()
            said.append(interpreter.get_output(0).copy())
    return numpy.concatenate(said, axis=None)


@pytest.mark.parametrize("path", WAKE_WORDS, ids=lambda path: path.stem)
def test_tflite_micro(opened, path):
    plain = heard(runtime.Interpreter.from_file(str(path)))
    assert len(set(plain.tolist())) > 1
    with opened(path) as model:
        assert model.manifest.kind == "tflite"
        interpreter = runtime.Interpreter.from_bytes(model.read())
    # The model is closed, and the interpreter still has what it needs.
    assert heard(interpreter).tobytes() == plain.tobytes()


def test_litert(opened):
    from ai_edge_litert.interpreter import Interpreter

    def outputs(interpreter):
        interpreter.allocate_tensors()
        wanted, random = interpreter.get_input_details()[0], numpy.random.default_rng(3)
        said = []
        for _ in range(200):
            samples = random.integers(-128, 128, wanted["shape"], dtype=wanted["dtype"])
            interpreter.set_tensor(wanted["index"], samples)
            interpreter.invoke()
            said.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
        return numpy.concatenate(said, axis=None)

    path = next(path for path in WAKE_WORDS if path.stem == "hey_mycroft")
    plain = outputs(Interpreter(model_path=str(path)))
    assert len(set(plain.tolist())) > 1
    with opened(path) as model:
        interpreter = Interpreter(model_content=model.read())
    assert outputs(interpreter).tobytes() == plain.tobytes()


def test_there_were_wake_words():
    assert len(WAKE_WORDS) == 4


def test_safetensors(opened, vault):
    path = SILERO / "silero_vad_16k.safetensors"
    plain = safetensors.numpy.load_file(path)
    with opened(path) as model:
        assert model.manifest.kind == "safetensors" and set(model.tensors) == set(plain)
        for name, tensor in model.tensors.items():
            assert tensor.dtype == plain[name].dtype and tensor.tobytes() == plain[name].tobytes()
    loaded = modelseal.safetensors.numpy.load_file("m.sealed", vault=vault)
    assert all(loaded[name].tobytes() == tensor.tobytes() for name, tensor in plain.items())

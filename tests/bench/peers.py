"""What modelseal is compared with: each seals or opens one file, in a process of its own, and says how long it took.

    peers.py NAME seal|open FROM TO      TO is where a sealed file goes; opening is into memory
"""

import base64
import json
import sys
import time

KEY = bytes(range(32))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def plain(what, source, target):
    from safetensors.numpy import load_file, save_file

    if what == "open":
        return lambda: load_file(source)
    tensors = load_file(source)
    return lambda: save_file(tensors, target)


def lazy(what, source, name):
    import numpy  # noqa: F401, or importing it would be timed
    import safetensors.numpy  # noqa: F401
    from safetensors import safe_open

    def work():
        with safe_open(source, framework="np") as model:
            return model.get_tensor(name)

    return work


def fernet(what, source, target):
    from cryptography.fernet import Fernet

    cipher = Fernet(base64.urlsafe_b64encode(KEY))
    if what == "open":
        return lambda: cipher.decrypt(read(source))
    return lambda: write(target, cipher.encrypt(read(source)))


def aesgcm(what, source, target):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher, nonce = AESGCM(KEY), bytes(12)
    if what == "open":
        return lambda: cipher.decrypt(nonce, read(source), None)
    return lambda: write(target, cipher.encrypt(nonce, read(source), None))


def secretbox(what, source, target):
    from nacl.secret import SecretBox

    box = SecretBox(KEY)
    if what == "open":
        return lambda: box.decrypt(read(source))
    return lambda: write(target, box.encrypt(read(source)))


def tink(what, source, target):
    import os

    from tink import cleartext_keyset_handle, new_keyset_handle, streaming_aead
    from tink import BinaryKeysetReader, BinaryKeysetWriter

    streaming_aead.register()
    keys = (source if what == "open" else target) + ".keys"
    if os.path.exists(keys):
        handle = cleartext_keyset_handle.read(BinaryKeysetReader(read(keys)))
    else:
        template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
        handle = new_keyset_handle(template)
        with open(keys, "wb") as file:
            cleartext_keyset_handle.write(BinaryKeysetWriter(file), handle)
    primitive = handle.primitive(streaming_aead.StreamingAead)

    def seal():
        with open(source, "rb") as plain, primitive.new_encrypting_stream(open(target, "wb"), b"") as out:
            while block := plain.read(1 << 20):
                out.write(block)

    def open_():
        with primitive.new_decrypting_stream(open(source, "rb"), b"") as sealed:
            return sealed.read()

    return open_ if what == "open" else seal


def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


def main():
    name, what, source, target = sys.argv[1:]
    work = globals()[name](what, source, target)
    write("/proc/self/clear_refs", b"5")
    began = time.perf_counter()
    made = work()
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_kib": status("VmHWM:")}))
    del made


main()

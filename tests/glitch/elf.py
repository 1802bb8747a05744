"""What the campaign needs of an image: what lies in flash, and where its functions are."""

import json
import struct


class Image:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = file.read()
        head = struct.unpack_from("<16sHHIIIIIHHHHHH", self.bytes)
        self.segments = [self._segment(head[5] + i * head[9]) for i in range(head[10])]
        self.segments = [s for s in self.segments if s is not None]
        self.functions, self.log = {}, {}
        self._symbols(head[6], head[11], head[12])

    def _segment(self, at):
        kind, offset, _, physical, size, *_ = struct.unpack_from("<8I", self.bytes, at)
        return (physical, self.bytes[offset : offset + size]) if kind == 1 and size else None

    def _symbols(self, at, size, count):
        sections = [struct.unpack_from("<10I", self.bytes, at + i * size) for i in range(count)]
        for _, kind, _, _, offset, length, link, *_ in sections:
            if kind != 2:
                continue
            names = sections[link][4]
            for entry in range(offset, offset + length, 16):
                name, value, extent, info, _, _ = struct.unpack_from("<IIIBBH", self.bytes, entry)
                text = self.bytes[names + name : self.bytes.index(b"\0", names + name)].decode()
                if info & 15 == 2 and extent:
                    self.functions[text] = (value & ~1, extent)
                elif text.startswith('{"package"'):
                    self.log[value] = json.loads(text)

    def function(self, part):
        """Where the one function begins whose mangled name has `part` in it."""
        found = [at for name, (at, _) in self.functions.items() if part in name]
        if len(found) != 1:
            raise SystemExit(f"the image has {len(found)} functions named {part}: tests/glitch has to learn the new name")
        return found[0]

    def without(self, part):
        """Makes the function return 0 at once."""
        at = self.function(part)
        for i, (start, data) in enumerate(self.segments):
            if start <= at < start + len(data):
                data = bytearray(data)
                data[at - start : at - start + 4] = b"\x00\x20\x70\x47"
                self.segments[i] = (start, bytes(data))
        return self

    def functions_like(self, parts):
        return {at: name for name, (at, _) in self.functions.items() if any(part in name for part in parts)}

    def ranges_like(self, parts):
        return [(at, at + size) for name, (at, size) in self.functions.items() if any(part in name for part in parts)]

    def name_at(self, address):
        return next((name for name, (at, size) in self.functions.items() if at <= address < at + size), "?")

    def message(self, beginning):
        """The number of the log message that begins so."""
        return next(n for n, m in self.log.items() if m["tag"] == "defmt_println" and m["data"].startswith(beginning))


def size_of(halfword):
    """Bytes of the instruction that begins with `halfword` (Thumb)."""
    return 4 if halfword >= 0xE800 else 2


def it_length(halfword):
    """How many instructions an IT makes conditional; 0 if it isn't one."""
    mask = halfword & 15
    if halfword & 0xFF00 != 0xBF00 or mask == 0:
        return 0
    return 4 - ((mask & -mask).bit_length() - 1)

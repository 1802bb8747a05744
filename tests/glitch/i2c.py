"""An AT24C64 on a bus of which software moves each edge, as QEMU's mps2-an386 has it."""

SCL, SDA = 1, 2
ADDRESS = 0x50


class Eeprom:
    def __init__(self, memory):
        self.memory = bytearray(memory)
        self.lines, self.drive = SCL | SDA, True
        self.phase, self.bits, self.count = "idle", 0, 0
        self.pointer, self.written, self.out = 0, 0, 0

    def state(self):
        return (bytes(self.memory), self.lines, self.drive, self.phase, self.bits, self.count, self.pointer,
                self.written, self.out)

    def same(self, state):
        """Between two transactions, of which each says where it reads, no more matters than what is stored."""
        return self.phase == state[3] == "idle" and self.memory == state[0]

    def restore(self, state):
        (memory, self.lines, self.drive, self.phase, self.bits, self.count, self.pointer, self.written,
         self.out) = state
        if self.memory != memory:
            self.memory = bytearray(memory)

    def read(self):
        return self.lines & SCL | (SDA if self.lines & SDA and self.drive else 0)

    def set(self, bits):
        self._edge(self.lines | bits)

    def clear(self, bits):
        self._edge(self.lines & ~bits)

    def _edge(self, lines):
        before, self.lines = self.lines, lines & (SCL | SDA)
        rose, fell = self.lines & ~before, before & ~self.lines
        if before & SCL and lines & SCL:
            if fell & SDA:
                self.phase, self.bits, self.count, self.drive = "address", 0, 0, True
            elif rose & SDA:
                self.phase, self.drive = "idle", True
        elif rose & SCL:
            self._rise()
        elif fell & SCL:
            self._fall()

    def _rise(self):
        self.count += 1
        if self.phase == "send":
            if self.count == 9 and self.lines & SDA:
                self.phase = "idle"
        elif self.count <= 8:
            self.bits = self.bits << 1 & 0xFF | (1 if self.lines & SDA else 0)

    def _fall(self):
        if self.phase == "idle":
            self.drive = True
            return
        if self.count == 9:
            self.count = 0
            if self.phase in ("turn", "send"):
                self.phase = "send"
                self._next()
            self.drive = True
        if self.phase == "send":
            self.drive = self.count >= 8 or bool(self.out << self.count & 0x80)
        elif self.count == 8:
            self._byte()

    def _byte(self):
        """A whole byte has been received: acknowledged by pulling SDA low."""
        byte, self.bits = self.bits, 0
        if self.phase == "address":
            if byte >> 1 != ADDRESS:
                self.phase = "idle"
                return
            self.phase = "turn" if byte & 1 else "receive"
            self.written = 0
        elif self.phase == "receive":
            if self.written < 2:
                self.pointer = (self.pointer << 8 | byte) & 0xFFFF
            else:
                self.memory[self.pointer % len(self.memory)] = byte
                self.pointer += 1
            self.written += 1
        self.drive = False

    def _next(self):
        self.out = self.memory[self.pointer % len(self.memory)]
        self.pointer = (self.pointer + 1) % len(self.memory)

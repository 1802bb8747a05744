"""The board, from reset to the verdict, in unicorn.

What ends a run: the board's `run` returns its verdict, the log says that it opened, `abandon` (after a panic or a
fault), an exception, or too many blocks. The application's first look at the model is remembered.
"""

import ctypes
import os

from unicorn import (UC_ARCH_ARM, UC_HOOK_BLOCK, UC_HOOK_CODE, UC_HOOK_INTR, UC_HOOK_MEM_WRITE_PROT,
                     UC_MODE_MCLASS, UC_MODE_THUMB, UC_PROT_ALL, UC_PROT_EXEC, UC_PROT_READ, Uc, UcError)
from unicorn import arm_const as arm
from unicorn.unicorn_py3.unicorn import uclib

from i2c import Eeprom

PAGE = 4096
# What is saved at once of memory that isn't expected to be written.
BLOCK = 64 << 10
FLASH = (0, 512 << 10)
RAM = (0x2000_0000, 4 << 20)
PROVISIONED = 0x203F_0000
# As much as any case needs.
PSRAM = (0x2100_0000, 8 << 10)
# Of both models.
STORAGE = 16 << 20
I2C = 0x4002_A000
SYSTEM = (0xE000_0000, 1 << 20)
ARGUMENTS = [arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3]
RESULTS = ARGUMENTS + [arm.UC_ARM_REG_R12]
PC, SP, LR = arm.UC_ARM_REG_PC, arm.UC_ARM_REG_SP, arm.UC_ARM_REG_LR
# What a function can depend on when it is called: not on its caller's flags, nor on r12.
CALLED = [getattr(arm, f"UC_ARM_REG_R{n}") for n in range(12)] + [SP, LR]
# All that the image's code can change. (A saved context of the engine's own can't be restored in another one.)
REGISTERS = ([getattr(arm, f"UC_ARM_REG_R{n}") for n in range(13)] + [SP, LR, arm.UC_ARM_REG_XPSR]
             + [getattr(arm, f"UC_ARM_REG_D{n}") for n in range(16)] + [arm.UC_ARM_REG_FPSCR, PC])
# Blocks: many times what any clean run takes; what is added for each primitive that is really run, in times of
# what it took when it was recorded; and how many calls of primitives there may be, many times what any clean run makes.
LIMIT, MORE, CALLS = 1_000_000, 4, 2000
ENDLESS = 1 << 62


class Registers:
    """Some of them at once, past the engine's own Python, which takes most of the time of a short run."""

    def __init__(self, uc, registers):
        count = len(registers)
        self.values = (ctypes.c_uint64 * count)()
        first = ctypes.addressof(self.values)
        places = (ctypes.c_void_p * count)(*(first + 8 * i for i in range(count)))
        self.all = uc._uch, (ctypes.c_int * count)(*registers), places, count

    def read(self):
        uclib.uc_reg_read_batch(*self.all)
        return tuple(self.values)

    def write(self, values):
        self.values[:] = values
        uclib.uc_reg_write_batch(*self.all)


class Blocks:
    """How many more the engine executes before it stops. Counted in C, which takes a hundredth of the time."""

    def __init__(self, uc):
        library = ctypes.CDLL(os.environ["GLITCH_BLOCKS"])
        self.count = (ctypes.c_uint64 * 2)(ENDLESS, ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p).value)
        self.hook = ctypes.c_size_t()
        address = ctypes.cast(library.block, ctypes.c_void_p)
        every = ctypes.c_uint64(1), ctypes.c_uint64(0)
        status = uclib.uc_hook_add(uc._uch, ctypes.byref(self.hook), UC_HOOK_BLOCK, address,
                                   ctypes.cast(self.count, ctypes.c_void_p), *every)
        if status:
            raise UcError(status)

    @property
    def left(self):
        return self.count[0]

    @left.setter
    def left(self, blocks):
        self.count[0] = blocks


class Machine:
    def __init__(self, image, case, success=None):
        self.image, self.case, self.success = image, case, success
        self.eeprom = Eeprom(case.eeprom)
        self.uc = uc = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        uc.ctl_set_cpu_model(arm.UC_CPU_ARM_CORTEX_M4)
        uc.mem_map(*FLASH, UC_PROT_ALL)
        for at, data in image.segments:
            if at < FLASH[1]:
                uc.mem_write(at, data)
        uc.mem_protect(*FLASH, UC_PROT_READ | UC_PROT_EXEC)
        uc.mem_map(*RAM)
        uc.mem_map(*PSRAM)
        uc.mem_map(*SYSTEM)
        uc.mmio_map(I2C, PAGE, self._bus_read, None, self._bus_write, None)
        uc.mem_write(PROVISIONED, case.provisioned)
        uc.mem_write(PSRAM[0], case.psram)
        # The floating-point unit is on in this engine; the image switches it on itself.
        uc.reg_write(arm.UC_ARM_REG_FPEXC, 1 << 30)
        self.called, self.results = Registers(uc, CALLED), Registers(uc, RESULTS + [PC])
        self.all, self.semihosting = Registers(uc, REGISTERS), Registers(uc, [ARGUMENTS[0], PC])
        self.place = Registers(uc, [PC])
        self.stop, self.memo, self.memos, self.bypass = None, None, None, None
        self.watched, self.extra, self.before = set(), set(), None
        self.hooked, self.clean, self.handed, self.back, self.over = set(), {}, False, None, False
        self.blocks = Blocks(uc)
        self._hooks()

    # What the board is made of.

    def _bus_read(self, _, offset, __, ___):
        return self.eeprom.read() if offset == 0 else 0

    def _bus_write(self, _, offset, __, value, ___):
        if offset == 0:
            self.eeprom.set(value)
        elif offset == 4:
            self.eeprom.clear(value)

    def _hooks(self):
        image, at = self.image, self._at
        self.opened = image.message("opened ").to_bytes(2, "little")
        # Choosing what to boot begins with the state.
        self.board, self.entry = image.function("3run3run17h"), image.function("StateStore$GT$4load")
        at(image.function("_defmt_write"), self._logs)
        at(image.function("memory10wiped_exit"), lambda: self._end("crashed"))
        at(image.function("blake34hash17h"), self._application)
        self.uc.hook_add(UC_HOOK_INTR, self._exception)
        self.uc.hook_add(UC_HOOK_MEM_WRITE_PROT, self._protected)

    def _at(self, address, call):
        return self.uc.hook_add(UC_HOOK_CODE, lambda *_: call(), begin=address, end=address)

    def _end(self, why):
        self.stop = why
        self.uc.emu_stop()

    def _logs(self):
        if self.over:
            return
        pointer, length = self.uc.reg_read(ARGUMENTS[0]), self.uc.reg_read(ARGUMENTS[1])
        if length == 2 and self.uc.mem_read(pointer, 2) == self.opened:
            self._end("opened")

    def _returned(self):
        """The verdict, as `run` returns it: an error's code, or what it returns when it has told the log that it opened."""
        if self.over:
            return
        code = self.uc.reg_read(ARGUMENTS[0]) & 0xFFFF
        self._end("false verdict" if code == self.success else f"refused {code}")

    def _application(self):
        """The application looks at its model; at an empty one, there is nothing to see, nor at one that goes on where there
        is no memory."""
        start, length = (self.uc.reg_read(register) for register in ARGUMENTS[1:3])
        if length and PSRAM[0] <= start and start + length <= PSRAM[0] + STORAGE:
            self.handed = True

    def _exception(self, uc, number, _):
        if number == 7:
            operation, pc = self.semihosting.read()
            if operation in (0x18, 0x20):
                self._end("false verdict")
            self.semihosting.write((0, pc + 2 | 1 if self.flash(pc, 2) == b"\xab\xbe" else pc | 1))
        else:
            self._end("crashed")

    def _protected(self, uc, _, address, size, *__):
        if not RAM[0] <= address < RAM[0] + RAM[1] and not PSRAM[0] <= address < PSRAM[0] + PSRAM[1]:
            return False
        for block in {address & -BLOCK, address + size - 1 & -BLOCK}:
            self.extra.add(block)
            for at, length in self.unwatched(block, BLOCK):
                uc.mem_protect(at, length, UC_PROT_ALL)
        return True

    # Running.

    def run(self, limit=LIMIT, until=0xFFFF_FFFE):
        """To the end; gives what it was."""
        self.stop, self.blocks.left, self.calls = None, limit, 0
        while self.stop is None:
            self.memo = None
            try:
                self.uc.emu_start(self.pc() | 1, until)
            except UcError:
                self.stop = "crashed"
                continue
            if self.memo is not None:
                self.memo[0].apply(self, self.memo[1])
            elif self.stop is None and self.pc() == until:
                self.stop = "until"
            elif self.stop is None and self.blocks.left == 0:
                self.stop = "hung"
        return self.stop

    def go_on(self, until=0xFFFF_FFFE):
        """Behind the end that `run` has found."""
        self.over = True
        self.run(until=until)
        self.over = False

    def step(self):
        """One instruction. Only for a machine that does nothing but step: the engine counts instructions only in code
        that it has translated for counting."""
        self.stop, self.blocks.left = None, ENDLESS
        try:
            self.uc.emu_start(self.pc() | 1, 0xFFFF_FFFE, count=1)
        except UcError:
            return "crashed"
        return self.stop

    def to_entry(self):
        """From reset to just before the first check. From there on, only what is written changes."""
        stack, reset = (int.from_bytes(self.uc.mem_read(at, 4), "little") for at in (0, 4))
        self.uc.reg_write(SP, stack)
        self.uc.reg_write(PC, reset | 1)
        for place in (self.board, self.entry):
            if self.run(limit=ENDLESS, until=place) != "until":
                raise SystemExit(f"{self.case.name}: the boot path isn't reached: {self.stop}")
            if place == self.board:
                self.back = self.uc.reg_read(LR) & ~1
                self._at(self.back, self._returned)
        self.sound = self.uc.context_save()

    def know(self, memos):
        """Primitives whose outcome is known are not run again."""
        self.memos = memos
        for entry in memos.calls:
            if entry not in self.hooked:
                self.hooked.add(entry)
                self._at(entry, lambda entry=entry: self._recall(entry))
        self.uc.ctl_flush_tb()

    def _recall(self, entry):
        self.calls += 1
        if self.calls > CALLS:
            self._end("hung")
            return
        registers = self.called.read()
        if any(self._is(*state) for state in self.clean.get((entry, registers), [])):
            self._end("as before")
            return
        memo = self.memos.find(entry, self, registers, self.bypass)
        if memo:
            self.memo = memo, registers
            self.uc.emu_stop()
        else:
            self.blocks.left += MORE * self.memos.longest[entry]

    def mark(self, entry):
        """The clean run comes by here: a run that comes to be in the same state goes on as it does."""
        registers, memory, eeprom = self.save()
        sp = self.uc.reg_read(SP)
        used = [(max(start, sp), data[max(0, sp - start):]) if start <= sp < start + len(data) else (start, data)
                for start, data in memory]
        self.clean.setdefault((entry, self.called.read()), []).append((used, eeprom))

    def _is(self, memory, eeprom):
        """Whether all that is in use is what it was. What lies below the stack pointer isn't."""
        return (not self.extra and not self.handed and self.eeprom.same(eeprom)
                and all(self.uc.mem_read(at, len(data)) == data for at, data in memory))

    def write(self, address, data):
        """Writes RAM as the processor would."""
        if self.before:
            for page in range(address & -PAGE, address + len(data), PAGE):
                if page not in self.watched and page & -BLOCK not in self.extra:
                    self._protected(self.uc, None, page, 1)
        self.uc.mem_write(address, data)

    def to_block(self, n):
        """To the `n`th block from here."""
        left = n + 1

        def count(*_):
            nonlocal left
            left -= 1
            if left == 0:
                self._end("block")

        hook = self.uc.hook_add(UC_HOOK_BLOCK, count)
        self.uc.ctl_flush_tb()
        clean, self.clean = self.clean, {}
        ended = self.run(limit=ENDLESS)
        self.clean = clean
        self.uc.hook_del(hook)
        self.uc.ctl_flush_tb()
        self.stop = None
        return ended == "block"

    def pc(self):
        return self.place.read()[0]

    def flash(self, address, size):
        return bytes(self.uc.mem_read(address, size))

    # Snapshots.

    def watch(self, pages):
        """From here on `pages` are saved; others, when they are first written."""
        self.watched = pages
        for start, length in (RAM, PSRAM):
            for at, size in self.unwatched(start, length):
                self.uc.mem_protect(at, size, UC_PROT_READ | UC_PROT_EXEC)
        self.runs = _runs(sorted(pages))
        self.before = {start: bytes(self.uc.mem_read(*RAM)) if start == RAM[0] else bytes(self.uc.mem_read(*PSRAM))
                       for start in (RAM[0], PSRAM[0])}

    def unwatched(self, start, length):
        return _runs(page for page in range(start, start + length, PAGE) if page not in self.watched)

    def save(self):
        memory = [(start, bytes(self.uc.mem_read(start, length))) for start, length in self.runs]
        return self.all.read(), memory, self.eeprom.state()

    def restore(self, saved):
        registers, memory, eeprom = saved
        for start, data in memory:
            self.uc.mem_write(start, data)
        for block in self.extra:
            for at, length in self.unwatched(block, BLOCK):
                base = RAM[0] if at < PSRAM[0] else PSRAM[0]
                self.uc.mem_write(at, self.before[base][at - base : at - base + length])
                self.uc.mem_protect(at, length, UC_PROT_READ | UC_PROT_EXEC)
        self.extra.clear()
        # A crash can leave more behind in the engine than registers: after a jump to 0, all is a fault.
        self.uc.context_restore(self.sound)
        self.all.write(registers)
        self.eeprom.restore(eeprom)
        self.handed = False

    def patch(self, address, data):
        self.uc.mem_protect(address & -PAGE, 2 * PAGE if address % PAGE > PAGE - 4 else PAGE, UC_PROT_ALL)
        self.uc.mem_write(address, data)
        self.uc.mem_protect(address & -PAGE, 2 * PAGE if address % PAGE > PAGE - 4 else PAGE,
                            UC_PROT_READ | UC_PROT_EXEC)
        self.uc.ctl_remove_cache(address, address + len(data))

    # What ended.

    def plaintext(self):
        """Whether the model's memory holds the genuine plaintext, of which 16 bytes are enough."""
        memory, model = bytes(self.uc.mem_read(*PSRAM)), self.case.model
        return any(model[i : i + 16] in memory for i in range(0, len(model) - 15, 512))


def _runs(pages):
    runs = []
    for page in pages:
        if runs and runs[-1][0] + runs[-1][1] == page:
            runs[-1][1] += PAGE
        else:
            runs.append([page, PAGE])
    return [tuple(run) for run in runs]

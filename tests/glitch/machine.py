"""The board, from reset to the verdict, in unicorn.

What ends a run: the verdict's frame in the log, the end of the program, `abandon` (after a panic or a fault), an
exception, or too much time. The application's first look at the model is remembered.
"""

import time

from unicorn import (UC_ARCH_ARM, UC_HOOK_BLOCK, UC_HOOK_CODE, UC_HOOK_INTR, UC_HOOK_MEM_WRITE_PROT, UC_HOOK_MEM_WRITE_UNMAPPED, UC_MODE_MCLASS, UC_MODE_THUMB,
                     UC_PROT_ALL, UC_PROT_EXEC, UC_PROT_READ, Uc, UcError)
from unicorn import arm_const as arm

from elf import is_branch_back, size_of
from i2c import Eeprom

PAGE = 4096
FLASH = (0, 512 << 10)
RAM = (0x2000_0000, 4 << 20)
PROVISIONED = 0x203F_0000
# As much as any case needs; wiping the rest of the 16 MiB is cut short.
PSRAM = (0x2100_0000, 8 << 10)
I2C = 0x4002_A000
SYSTEM = (0xE000_0000, 1 << 20)
ARGUMENTS = [arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3]
RESULTS = ARGUMENTS + [arm.UC_ARM_REG_R12]
PC, SP, LR = arm.UC_ARM_REG_PC, arm.UC_ARM_REG_SP, arm.UC_ARM_REG_LR
# All that the image's code can change. (A saved context of the engine's own can't be restored in another one.)
REGISTERS = ([getattr(arm, f"UC_ARM_REG_R{n}") for n in range(13)] + [SP, LR, arm.UC_ARM_REG_XPSR]
             + [getattr(arm, f"UC_ARM_REG_D{n}") for n in range(16)] + [arm.UC_ARM_REG_FPSCR, PC])
# Seconds of the processor: some million instructions, many times what any clean run takes; and what is added for each
# public-key operation that is really run.
LIMIT, MORE = 0.08, 0.4


class Machine:
    def __init__(self, image, case):
        self.image, self.case = image, case
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
        self.stop, self.memo, self.memos, self.used, self.bypass = None, None, {}, 0, None
        self.watched, self.extra, self.before = set(), set(), None
        self.wiping, self.hooked = False, set()
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
        opened, refused = image.message("opened "), image.message("refused ")
        self.frame, self.handed, self.verdicts = None, False, {opened: "opened", refused: "refused"}
        self.entry = image.function("modelseal_firmware4boot4boot17h")
        at(image.function("_defmt_acquire"), self._frame_begins)
        at(image.function("_defmt_write"), self._frame_goes_on)
        self.uc.hook_add(UC_HOOK_MEM_WRITE_UNMAPPED, self._wiped)
        at(image.function("memory10wiped_exit"), lambda: self._end("crashed"))
        at(image.function("blake34hash17h"), self._application)
        self.uc.hook_add(UC_HOOK_INTR, self._exception)
        self.uc.hook_add(UC_HOOK_MEM_WRITE_PROT, self._protected)

    def _at(self, address, call):
        return self.uc.hook_add(UC_HOOK_CODE, lambda *_: call(), begin=address, end=address)

    def _end(self, why):
        self.stop = why
        self.uc.emu_stop()

    def _frame_begins(self):
        self.frame = "begun"

    def _frame_goes_on(self):
        pointer, length = self.uc.reg_read(ARGUMENTS[0]), self.uc.reg_read(ARGUMENTS[1])
        if self.frame not in ("begun", "refused") or length != 2:
            return
        value = int.from_bytes(self.uc.mem_read(pointer, 2), "little")
        if self.frame == "refused":
            self._end(f"refused {value}")
        else:
            self.frame = self.verdicts.get(value)
            if self.frame == "opened":
                self._end("opened")

    def _wiped(self, _, __, address, *___):
        """A write just behind the storage that there is: only the wipe of all of it comes there byte by byte."""
        self.wiping = address == PSRAM[0] + PSRAM[1]
        return False

    def _leave_loop(self):
        """Goes on behind the next branch back, which closes the wipe's loop."""
        self.wiping, pc = False, self.uc.reg_read(PC)
        code, at = bytes(self.uc.mem_read(pc, 2048)), 0
        while at < len(code) - 4:
            size = size_of(code[at] | code[at + 1] << 8)
            if is_branch_back(code[at : at + size]):
                self.uc.reg_write(PC, pc + at + size | 1)
                return
            at += size
        raise SystemExit(f"the wipe at {pc:#x} isn't a loop: tests/glitch has to learn how it ends")

    def _application(self):
        """The application looks at its model; at an empty one, there is nothing to see."""
        if PSRAM[0] <= self.uc.reg_read(ARGUMENTS[1]) < PSRAM[0] + PSRAM[1] and self.uc.reg_read(ARGUMENTS[2]):
            self.handed = True

    def _exception(self, uc, number, _):
        if number == 7:
            operation = uc.reg_read(ARGUMENTS[0])
            if operation in (0x18, 0x20):
                self._end("no verdict")
            uc.reg_write(ARGUMENTS[0], 0)
            pc = uc.reg_read(PC)
            if bytes(uc.mem_read(pc, 2)) == b"\xab\xbe":
                uc.reg_write(PC, pc + 2 | 1)
        else:
            self._end("crashed")

    def _protected(self, uc, _, address, size, *__):
        if not RAM[0] <= address < RAM[0] + RAM[1] and not PSRAM[0] <= address < PSRAM[0] + PSRAM[1]:
            return False
        for page in {address & -PAGE, address + size - 1 & -PAGE}:
            self.extra.add(page)
            uc.mem_protect(page, PAGE, UC_PROT_ALL)
        return True

    # Running.

    def run(self, limit=LIMIT, until=0xFFFF_FFFE):
        """To the end; gives what it was."""
        self.stop, self.limit = None, limit
        began = time.process_time()
        while self.stop is None:
            left = self.limit - (time.process_time() - began)
            if left <= 0:
                return "hung"
            self.memo = None
            try:
                self.uc.emu_start(self.uc.reg_read(PC) | 1, until, timeout=int(left * 1e6) + 1000)
            except UcError as error:
                self.error = error
                if not self.wiping:
                    return "crashed"
                self._leave_loop()
                continue
            if self.memo is not None:
                self.memo.apply(self)
            elif self.stop is None and self.uc.reg_read(PC) == until:
                return "until"
        return self.stop

    def step(self):
        """One instruction. Only for a machine that does nothing but step: the engine counts instructions only in code
        that it has translated for counting."""
        self.stop = self.memo = None
        try:
            self.uc.emu_start(self.uc.reg_read(PC) | 1, 0xFFFF_FFFE, count=1)
        except UcError:
            return "crashed"
        return self.stop

    def to_entry(self):
        """From reset to just before the first check. From there on, only what is written changes."""
        stack, reset = (int.from_bytes(self.uc.mem_read(at, 4), "little") for at in (0, 4))
        self.uc.reg_write(SP, stack)
        self.uc.reg_write(PC, reset | 1)
        if self.run(limit=20, until=self.entry) != "until":
            raise SystemExit(f"{self.case.name}: the boot path isn't reached: {self.stop}")

    def know(self, memos):
        """Primitives whose outcome is known are not run again."""
        self.memos = memos
        for entry in memos:
            if entry not in self.hooked:
                self.hooked.add(entry)
                self._at(entry, lambda entry=entry: self._recall(entry))
        self.uc.ctl_flush_tb()

    def _recall(self, entry):
        for memo in self.memos[entry]:
            if memo is not self.bypass and memo.matches(self):
                self.memo = memo
                self.uc.emu_stop()
                return
        self.limit += MORE

    def write(self, address, data):
        """Writes RAM as the processor would."""
        if self.before:
            for page in range(address & -PAGE, address + len(data), PAGE):
                if page not in self.watched and page not in self.extra:
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
        ended = self.run(limit=60)
        self.uc.hook_del(hook)
        self.uc.ctl_flush_tb()
        self.stop = None
        return ended == "block"

    def flash(self, address, size):
        return bytes(self.uc.mem_read(address, size))

    # Snapshots.

    def watch(self, pages):
        """From here on `pages` are saved; others, when they are first written."""
        self.watched = pages
        for start, length in (RAM, PSRAM):
            for at, size in _runs(page for page in range(start, start + length, PAGE) if page not in pages):
                self.uc.mem_protect(at, size, UC_PROT_READ | UC_PROT_EXEC)
        self.runs = _runs(sorted(pages))
        self.before = {start: bytes(self.uc.mem_read(*RAM)) if start == RAM[0] else bytes(self.uc.mem_read(*PSRAM))
                       for start in (RAM[0], PSRAM[0])}

    def save(self):
        memory = [(start, bytes(self.uc.mem_read(start, length))) for start, length in self.runs]
        return self.uc.reg_read_batch(REGISTERS), memory, self.eeprom.state()

    def restore(self, saved):
        registers, memory, eeprom = saved
        for start, data in memory:
            self.uc.mem_write(start, data)
        for page in self.extra:
            base = RAM[0] if page < PSRAM[0] else PSRAM[0]
            self.uc.mem_write(page, self.before[base][page - base : page - base + PAGE])
            self.uc.mem_protect(page, PAGE, UC_PROT_READ | UC_PROT_EXEC)
        self.extra.clear()
        self.uc.reg_write_batch(list(zip(REGISTERS, registers)))
        self.eeprom.restore(eeprom)
        self.frame, self.handed = None, False

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

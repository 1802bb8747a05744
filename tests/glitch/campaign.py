"""One case, each fault once.

The clean run is walked one instruction at a time. At each, the state is saved, and for each fault restored, disturbed
and run to its end.
"""

from collections import Counter

import floor
from elf import it_length, size_of
from machine import PAGE, PC, PSRAM, RAM, SP, Machine
from memo import Part, Recorder

NOP = {2: b"\x00\xbf", 4: b"\xaf\xf3\x00\x80"}


# Parts of mangled names: arithmetic, copying and driving pins. They decide nothing about a model, and are sampled.
PRIMITIVES = ["curve25519", "4sha2", "6blake3", "4hkdf", "4hpke", "6cipher", "poly1305", "aes", "3mem6mem", "__aeabi_mem",
              "memcmp", "6digest", "_defmt_", "embedded_hal", "3i2c", "eeprom24x", "compiler_builtins"]


class Campaign:
    def __init__(self, image, case, known, plan, success):
        self.case, self.plan, self.counts, self.found = case, plan, Counter(), []
        if floor.stored(case.eeprom[: 2 * floor.LENGTH]) is None:
            raise SystemExit(f"{case.name}: no floor is found in its EEPROM")
        self.primitives = image.ranges_like(PRIMITIVES)
        # One steps through the clean run, the other runs to the end.
        self.walker, self.runner = Machine(image, case, success), Machine(image, case, success)
        for machine in (self.walker, self.runner):
            machine.to_entry()
            stack = machine.uc.reg_read(SP) & -PAGE
            # The stack of the boot path, the statics and the model.
            pages = set(range(stack - 8 * PAGE, RAM[0] + RAM[1] - 16 * PAGE, PAGE)) | {RAM[0]}
            machine.watch(pages | set(range(PSRAM[0], PSRAM[0] + PSRAM[1], PAGE)))
            machine.uc.ctl_flush_tb()
        machine, origin = self.runner, self.walker.save()
        recorded = Recorder(machine, known)
        self.trace = recorded.trace
        machine.know(known)
        self.check("the recorded run", recorded.verdict)
        marks, machine.clean = machine.clean, {}
        machine.restore(origin)
        self.check("the run with what was recorded", machine.run())
        machine.clean = marks

    def check(self, what, verdict):
        opened, machine = self.case.verdict == "opened", self.runner
        if verdict != self.case.verdict or machine.handed != opened or machine.plaintext() != opened:
            raise SystemExit(f"{self.case.name}: {what} gives {verdict}, not {self.case.verdict}")

    def run(self, part=0, parts=1):
        """Walks the clean run, and disturbs this part of it. What is met again and again is disturbed when `plan`
        says so."""
        blocks = [(self.units(*entry) if isinstance(entry, tuple) else entry) for entry in self.trace]
        of = Counter(at for block in blocks if isinstance(block, list) for at, _, __ in block)
        left = total = sum(len(block) for block in blocks if isinstance(block, list))
        calls = sum(not isinstance(block, list) for block in blocks)
        seen, begun, over, call = Counter(), 0, 0, 0
        for block in blocks:
            if not isinstance(block, list):
                self.primitive(block, call * parts // calls == part)
                call += 1
                continue
            for at, instructions, decides in block:
                if begun < at < over:
                    # The rest of an IT, which the walker didn't stop in.
                    continue
                begun, over = at, instructions[-1][0] + instructions[-1][1]
                if self.walker.pc() != at:
                    raise SystemExit(f"{self.case.name}: at {self.walker.pc():#x}, not {at:#x}")
                seen[at] += 1
                left -= 1
                if left * parts // total == part:
                    self.disturb(at, instructions, seen[at], of[at], left, decides)
                self.pass_by(at, instructions)
        if self.walker.run() != self.case.verdict:
            raise SystemExit(f"{self.case.name}: the walk ends with {self.walker.stop}, not {self.case.verdict}")

    def units(self, address, size, decides):
        """The instructions of a block; an IT together with those that it makes conditional."""
        # An IT may reach into the next block.
        code, at, units = self.walker.flash(address, size + 16), 0, []
        while at < size:
            parts = []
            first = code[at] | code[at + 1] << 8
            for _ in range(1 + it_length(first)):
                length = size_of(code[at] | code[at + 1] << 8)
                parts.append((address + at, length))
                at += length
            units.append((parts[0][0], parts, decides))
        return units

    def pass_by(self, at, parts):
        """The one unit, undisturbed."""
        walker, end = self.walker, parts[-1][0] + parts[-1][1]
        while at <= walker.pc() < end:
            before = walker.pc()
            stop = walker.step()
            if stop is not None or walker.pc() <= before:
                return

    # Faults.

    def disturb(self, at, parts, nth, of, left, decides):
        """`nth` of `of` times that it is executed, `left` instructions before the clean run ends."""
        inside = not decides and any(start <= at < end for start, end in self.primitives)
        skip, flip = self.plan.choose(at, nth, of, left, inside)
        self.counts["inside"] += inside
        self.counts["inside, skipped"] += inside and skip
        self.counts["decision"] += not inside
        self.counts["decision, skipped"] += not inside and skip
        if skip or flip:
            saved = self.walker.save()
            for i in range(len(parts)):
                self.faults(saved, parts, i, skip, flip)
            self.walker.restore(saved)

    def faults(self, saved, parts, i, skip, flip):
        address, size = parts[i]
        if skip:
            self.count("skips", self.skip(saved, parts, i), address, None)
        for bit in flip:
            if bit < 8 * size:
                changed = bytearray(self.walker.flash(address, size))
                changed[bit // 8] ^= 1 << bit % 8
                self.count("flips", self.changed(saved, parts, i, bytes(changed)), address, bit)

    def skip(self, saved, parts, i):
        address, size = parts[i]
        if i > 0:
            return self.changed(saved, parts, i, NOP[size])
        self.runner.restore(saved)
        self.runner.uc.reg_write(PC, address + size | 1)
        return self.runner.run()

    def changed(self, saved, parts, i, code):
        """Executes `code` in the place of the one instruction, once; within an IT, from there on."""
        walker, (address, size) = self.walker, parts[i]
        start, end = parts[0][0], parts[-1][0] + parts[-1][1]
        genuine = walker.flash(address, size)
        walker.restore(saved)
        walker.patch(address, code)
        stop, steps = walker.step(), 1
        while stop is None and len(parts) > steps and start < walker.pc() < end:
            stop, steps = walker.step(), steps + 1
        disturbed, handed = walker.save(), walker.handed
        # Only an engine that is sound forgets what it has translated.
        walker.restore(saved)
        walker.patch(address, genuine)
        self.runner.restore(disturbed)
        self.runner.handed = handed
        return self.runner.run() if stop is None else stop

    def count(self, kind, ended, address, bit):
        machine = self.runner
        if ended == "as before":
            self.counts[kind] += 1
            self.counts[f"{kind}: as before"] += 1
            return
        # What a fault's handler wipes is nobody's. Nor is what hangs while the payload is being decrypted, before the
        # tags or the root can refuse it: an undisturbed run, too, has plaintext there at that moment.
        transient = ended == "hung" and self.case.verdict in ("refused 335", "refused 336")
        plain = ended != "crashed" and not transient and machine.plaintext()
        if plain and ended.startswith("refused"):
            # The board goes on, and wipes all of its storage: here, to the end of what is mapped.
            machine.go_on()
            plain = machine.plaintext()
        lowered = self.lowered()
        if machine.handed or plain or lowered:
            self.found.append((kind, address, bit, ended, machine.handed, plain, lowered))
            ended = "opened"
        elif ended == "opened":
            ended = "false verdict"
        elif ended == self.case.verdict:
            ended = "as before"
        elif ended.startswith("refused"):
            ended = "otherwise"
        self.counts[kind] += 1
        self.counts[f"{kind}: {ended}"] += 1

    def lowered(self):
        """Whether boots that follow, which nothing disturbs, will open older versions."""
        before, after = (bytes(eeprom[: 2 * floor.LENGTH]) for eeprom in (self.case.eeprom, self.runner.eeprom.memory))
        if before == after:
            return False
        now = floor.stored(after)
        return now is not None and now < floor.stored(before)

    def primitive(self, call, sampled):
        """Passes a call by, or a part of one, of which the first is where the call is sampled."""
        until = None
        if isinstance(call, Part):
            call, sampled, start, until = call.call, sampled and call.start == 0, call.start, call.end
            if start > 0:
                return self.rest(call)
        if call.watched and not self.runner.memos.find(call.entry, self.walker, self.walker.called.read()):
            raise SystemExit(f"{self.case.name}: what goes into a primitive has changed")
        if sampled:
            self.inside(call)
        if until is not None:
            self.runner.bypass = call
            self.reach(call, self.walker.save(), until)
            self.runner.bypass = None
        elif call.watched:
            call.apply(self.walker, self.walker.called.read())
        else:
            self.rest(call)

    def rest(self, call):
        """To where it returns."""
        self.runner.restore(self.walker.save())
        self.runner.uc.ctl_flush_tb()
        clean, self.runner.clean = self.runner.clean, {}
        self.runner.run(until=call.back)
        self.runner.clean = clean
        self.walker.restore(self.runner.save())

    def reach(self, call, saved, n):
        """To the `n`th block of a call that begins here."""
        self.runner.restore(saved)
        if not self.runner.to_block(n):
            raise SystemExit(f"{self.case.name}: block {n} of a primitive isn't reached")
        self.walker.restore(self.runner.save())

    def inside(self, call):
        """Sampled: instructions inside a primitive, which is then really run."""
        saved = self.walker.save()
        targets = self.plan.inside(call)
        self.counts["inside"] += call.instructions()
        self.runner.bypass = call
        for n in targets:
            self.reach(call, saved, n)
            units = self.units(call.places[n], call.sizes[n], False)
            wanted = n * 7919 % len(units)
            for before in units[:wanted]:
                self.pass_by(*before[:2])
            here, parts = self.walker.save(), units[wanted][1]
            self.faults(here, parts, 0, True, [])
            self.counts["inside, skipped"] += 1
        self.runner.bypass = None
        self.walker.restore(saved)

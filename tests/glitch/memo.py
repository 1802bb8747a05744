"""Calls of primitives whose outcome is known.

What a function does depends on its arguments and on the memory that it reads, and on nothing else. While the clean run
is recorded, so is what each call of a primitive reads and writes. Where a later run comes to the same function with the
same arguments, and with the same bytes at every address that it read, what it did before is done again, without the
millions of instructions. Where anything differs, the function is really run.
"""

from array import array

from unicorn import UC_HOOK_BLOCK, UC_HOOK_MEM_READ, UC_HOOK_MEM_WRITE

from machine import ENDLESS, FLASH, I2C, PAGE, PC, RESULTS

# Parts of mangled names: signatures, key exchange, and the bus.
BUS = ["embedded_hal..i2c..I2c"]
# Ciphers. What one does between its authenticator and the keystream decides: it compares the tag.
AEAD = ["AeadInOut"]
AUTHENTICATORS = ["proc_block", "update_padded"]
KEYSTREAM = ["apply_keystream"]
LONG = ["4sign9Publisher10has_signed", "4sign9Publisher16has_signed_parts", "5decap17h", "blake36Hasher6update",
        "compress256"] + AEAD + BUS


class Memo:
    """One call: what went in, and what came out."""

    def __init__(self, machine, entry):
        *registers, self.sp, back = machine.called.read()
        self.entry, self.back, self.arguments = entry, back & ~1, registers[:4]
        self.key = (*self.arguments, self.sp)
        self.eeprom_before = machine.eeprom.state()
        self.reads, self.writes, self.bus, self.watched = {}, {}, False, False
        # Of its blocks, some hundred thousand.
        self.places, self.sizes = array("L"), array("H")

    def block(self, _, address, size, __):
        self.places.append(address)
        self.sizes.append(size)

    def finish(self, machine):
        self.results = [machine.uc.reg_read(register) for register in RESULTS]
        self.eeprom_after = machine.eeprom.state()

    def operations(self, machine, before, after):
        """For the bus, where watching goes wrong. It reads a list of operations and what they point to, and fills what
        they point to."""
        uc, pairs = machine.uc, zip(self.arguments, self.arguments[1:])
        at, count = next((a, b) for a, b in pairs if a >> 24 == 0x20 and 0 < b < 5)
        table = bytes(uc.mem_read(at, 12 * count))
        words = [int.from_bytes(table[i : i + 4], "little") for i in range(0, len(table), 4)]
        buffers = [(word, length) for word, length in zip(words, words[1:])
                   if word >> 24 == 0x20 and length < 4096]
        for start, length in [(at, len(table))] + buffers:
            self.reads.update((i, uc.mem_read(i, 1)[0]) for i in range(start, start + length))
        self.writes = {i: True for start, length in buffers for i in range(start, start + length)}
        for (start, old), (_, new) in zip(before[1], after[1]):
            self.writes.update((start + i, True) for i in range(len(old)) if old[i] != new[i])
        self.bus = True

    def collect(self, machine):
        uc = machine.uc
        # What it left below the caller's frame is nobody's.
        spans = _spans([at for at in self.writes if at >= self.sp or at < 0x2000_1000])
        self.effects = [(at, bytes(uc.mem_read(at, length))) for at, length in spans]
        inputs = _spans(list(self.reads))
        self.inputs = [(at, bytes(self.reads[i] for i in range(at, at + length))) for at, length in inputs]
        self.reads = self.writes = None

    def matches(self, machine):
        """Whether all else is the same, where it is called with the same."""
        if self.bus and not machine.eeprom.same(self.eeprom_before):
            return False
        return all(machine.uc.mem_read(at, len(data)) == data for at, data in self.inputs)

    def apply(self, machine, called):
        for at, data in self.effects:
            machine.write(at, data)
        if self.bus:
            machine.eeprom.restore(self.eeprom_after)
        machine.results.write((*self.results, called[-1] | 1))

    def instructions(self):
        """Roughly: three bytes each."""
        return sum(self.sizes) // 3


class Known:
    """Calls, by where they begin and what they are called with."""

    def __init__(self):
        self.calls, self.longest = {}, {}

    def add(self, memo):
        self.calls.setdefault(memo.entry, {}).setdefault(memo.key, []).append(memo)
        self.longest[memo.entry] = max(self.longest.get(memo.entry, 0), len(memo.places))

    def find(self, entry, machine, called, but=None):
        """`called`: the registers as they are now."""
        memos = self.calls.get(entry, {}).get((*called[:4], called[-2]), ())
        return next((memo for memo in memos if memo is not but and memo.matches(machine)), None)


class Part:
    """The blocks of a call from `start` up to `end`, or to where it returns."""

    def __init__(self, call, start, end):
        self.call, self.start, self.end = call, start, end


def _spans(addresses):
    spans = []
    for at in sorted(addresses):
        if spans and spans[-1][0] + spans[-1][1] == at:
            spans[-1][1] += 1
        else:
            spans.append([at, 1])
    return spans


class Recorder:
    """The clean run, as the blocks outside of primitives and the calls of primitives between them."""

    def __init__(self, machine, known):
        self.machine, self.known, self.trace = machine, known, []
        self.primitives = set(machine.image.functions_like(LONG))
        self.buses = set(machine.image.functions_like(BUS))
        self.ciphers = set(machine.image.functions_like(AEAD))
        self.authenticators = machine.image.ranges_like(AUTHENTICATORS)
        self.keystream = machine.image.ranges_like(KEYSTREAM)
        while True:
            verdict = self._outside()
            if verdict != "call":
                break
            memo = self._call()
            self.trace.extend(self._parts(memo) if memo.entry in self.ciphers else [memo])
        self.verdict = verdict

    def _parts(self, memo):
        """A cipher's call: before it compares the tag, each block while it does, and what follows."""
        places = memo.places
        start = 1 + max(n for n, at in enumerate(places) if _within(self.authenticators, at))
        after = (n for n in range(start, len(places)) if _within(self.keystream, places[n]))
        end = next(after, len(places))
        deciding = [(address, size, True) for address, size in zip(places[start:end], memo.sizes[start:end])]
        return [Part(memo, 0, start), *deciding, Part(memo, end, None)]

    def _outside(self):
        """To the next call of a primitive, or to the end."""
        def block(uc, address, size, _):
            if address in self.primitives:
                self.machine._end("call")
            elif address != self.machine.back:
                self.trace.append((address, size, False))

        return self._hooked([(UC_HOOK_BLOCK, block)], None)

    def _call(self):
        """One call: three times, for the engine is known to go wrong where reads are watched within an IT."""
        machine = self.machine
        memo = Memo(machine, machine.uc.reg_read(PC))
        machine.mark(memo.entry)
        known = self.known.find(memo.entry, machine, machine.called.read())
        if known:
            known.apply(machine, machine.called.read())
            return known
        saved, handed = machine.save(), machine.handed
        self._hooked([(UC_HOOK_BLOCK, memo.block)], memo.back)
        genuine = machine.save()
        memo.finish(machine)
        machine.restore(saved)
        if memo.entry in self.buses:
            memo.operations(machine, saved, genuine)
            machine.restore(genuine)
            memo.collect(machine)
            memo.watched = True
        else:
            self._watch(memo)
        machine.restore(saved)
        if memo.watched:
            memo.apply(machine, machine.called.read())
            memo.watched = _same(machine, machine.save(), genuine, memo.sp)
        machine.restore(genuine)
        machine.handed = handed
        if memo.watched:
            self.known.add(memo)
        return memo

    def _watch(self, memo):
        machine = self.machine

        def read(uc, _, address, size, *__):
            if I2C <= address < I2C + PAGE:
                memo.bus = True
            elif address >= FLASH[1]:
                for at in range(address, address + size):
                    if at not in memo.writes and at not in memo.reads:
                        memo.reads[at] = uc.mem_read(at, 1)[0]

        def write(_, __, address, size, *___):
            if I2C <= address < I2C + PAGE:
                memo.bus = True
            else:
                memo.writes.update((at, True) for at in range(address, address + size))

        ended = self._hooked([(UC_HOOK_MEM_READ, read), (UC_HOOK_MEM_WRITE, write)], memo.back)
        memo.watched = ended == "until"
        memo.collect(machine)

    def _hooked(self, hooks, until):
        uc = self.machine.uc
        hooks = [uc.hook_add(*hook) for hook in hooks]
        uc.ctl_flush_tb()
        ended = self.machine.run(ENDLESS) if until is None else self.machine.run(ENDLESS, until)
        for hook in hooks:
            uc.hook_del(hook)
        uc.ctl_flush_tb()
        return ended


def _within(ranges, address):
    return any(start <= address < end for start, end in ranges)


def _same(machine, a, b, sp):
    """Whether two states are the same but for what lies below the stack pointer."""
    for (start, one), (_, two) in zip(a[1], b[1]):
        differ = [i for i in range(len(one)) if one[i] != two[i]]
        if any(not start <= sp < start + len(one) or start + i >= sp for i in differ):
            return False
    return a[2] == b[2]

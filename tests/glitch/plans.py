"""Which faults are tried.

`choose` says so of one execution of one instruction: whether it is skipped, and which of its bits are flipped. It is the
`nth` of `of` executions, `left` instructions before the clean run ends. `inside` says which blocks of a long primitive's
call are begun, for one instruction in each to be skipped.
"""


class Short:
    """Near the refusal much; elsewhere a sample of the skips and of the flips of each address. Which one depends on the
    shard and the case."""

    NEAR, SKIPS, FLIPS, INSIDE, CALLS = 350, 8, 160, 1000, 2

    def __init__(self, name, shard):
        self.seed = shard % 65_536 + sum(name.encode())

    def choose(self, at, nth, of, left, inside):
        part = self.seed + at // 2 * 31 + nth * 17
        if inside:
            return part % self.INSIDE == 0, []
        near = left < self.NEAR
        first_bit = part // 2 % 4
        flips = range(first_bit, 32, 4) if near else [part // 8 % 16] if part % (self.FLIPS // 16) == 0 else []
        return near or part % self.SKIPS == 0, flips if nth in (1, of) else []

    def inside(self, call):
        if call.bus:
            return []
        step = max(1, len(call.places) // self.CALLS)
        return range(self.seed % step, len(call.places), step)


class Control:
    """Each instruction that decides, skipped each time that it is executed."""

    def __init__(self, *_):
        pass

    def choose(self, at, nth, of, left, inside):
        return not inside, []

    def inside(self, call):
        return []


class Long:
    """Every instruction that decides is skipped each time that it is executed. Each of its bits is flipped the first
    and the last time, and one bit in every 16th execution between them."""

    PARTS, CALLS = 2, 12

    def __init__(self, name, shard):
        self.seed = shard % 65_536 + sum(name.encode())

    def choose(self, at, nth, of, left, inside):
        if inside:
            return nth in (1, of) or nth % 97 == 0, []
        part = self.seed + at // 2 * 31 + nth * 17
        return True, range(32) if nth in (1, of) else [part // 16 % 16] if part % 16 == 0 else []

    def inside(self, call):
        """Of the blocks, each the first time that it is executed, every so manieth: others in each case."""
        first = {}
        for n, address in enumerate(call.places):
            first.setdefault(address, n)
        places = sorted(first.values())
        step = max(1, len(places) // self.CALLS)
        return places[self.seed % step :: step]

"""Section 8: the errors."""

from __future__ import annotations

from enum import IntEnum


class Error(IntEnum):
    """Section 8: every number and its name."""

    Truncated = 301
    Extended = 302
    ManifestLength = 303
    EnvelopeLength = 304
    ManifestEncoding = 305
    ChunkSize = 306
    Alignment = 307
    Line = 308
    Kind = 309
    Length = 310
    Claims = 311
    Padding = 312
    GrantLength = 313
    GrantEncoding = 314
    DeviceId = 315
    Validity = 316
    GrantForm = 317
    GrantPath = 318
    Key = 319
    ManifestSignature = 330
    GrantSignature = 331
    GrantKey = 332
    Commitment = 333
    Index = 334
    Chunk = 335
    Root = 336
    KeySlot = 337
    OtherModel = 401
    OtherLine = 402
    OtherSuite = 403
    OtherDevice = 404
    NoClock = 405
    NotYetValid = 406
    Expired = 407
    FloorAboveVersion = 408
    RolledBack = 409
    Storage = 601
    Memory = 602
    Floor = 603
    ForeignMagic = 701
    UnknownVersion = 702
    UnknownSuite = 703
    OldSlots = 704


class Refused(Exception):
    """A refusal of section 8."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.value} {error.name}")
        self.number: int = error.value
        self.name: str = error.name

    @property
    def exit_code(self) -> int:
        """The class: the hundreds of the number."""
        return self.number // 100


def require(condition: bool, error: Error) -> None:
    if not condition:
        raise Refused(error)

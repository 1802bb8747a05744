//! Every way in which reading can fail: one closed enum with stable numbers (FORMAT.md, section 8).

/// What was wrong, as a number that never changes its meaning.
///
/// The hundreds are the [`Class`], so a device that reports only the number says both. An error
/// carries no data: it is as safe to log as it is to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u16)]
pub enum Error {
    /// The data ends before the structure does.
    Truncated = 301,
    /// There is something after the end of the structure.
    Extended = 302,
    /// The manifest's length isn't within 1 ..= 1024.
    ManifestLength = 303,
    /// The envelope's length isn't 64 + 128 * slots with 1 ..= 16 slots.
    EnvelopeLength = 304,
    /// The manifest isn't the canonical postcard encoding of a manifest.
    ManifestEncoding = 305,
    /// The chunk size isn't within 2^10 ..= 2^20.
    ChunkSize = 306,
    /// The payload alignment isn't within 2^4 ..= 2^16.
    Alignment = 307,
    /// The line isn't 1 ..= 64 bytes of `[a-z0-9._-]`.
    Line = 308,
    /// The kind isn't 1 ..= 16 bytes of `[a-z0-9._-]`.
    Kind = 309,
    /// The model's length isn't within 1 ..= 2^48.
    Length = 310,
    /// The claims break a rule: keys out of order or badly spelt, or a value that is too long
    /// or has control characters or format controls.
    Claims = 311,
    /// A byte between index and payload isn't zero.
    Padding = 312,
    /// The grant's length field is out of bounds.
    GrantLength = 313,
    /// The grant isn't the canonical postcard encoding of a grant.
    GrantEncoding = 314,
    /// The device id isn't 1 ..= 64 bytes of `[A-Za-z0-9._-]`, or its first isn't a letter or digit.
    DeviceId = 315,
    /// `not_before` isn't before `not_after`.
    Validity = 316,
    /// A grant wrapped with HPKE has no signature, or one for a device key has one.
    GrantForm = 317,
    /// A bit of `sides` is set beyond the siblings.
    GrantPath = 318,
    /// Bytes that should be a key aren't a usable one.
    Key = 319,
    /// No trusted publisher key verifies the manifest.
    ManifestSignature = 330,
    /// No trusted publisher key verifies the grant.
    GrantSignature = 331,
    /// The grant doesn't open with this device's key.
    GrantKey = 332,
    /// The content key isn't the one that the manifest commits to.
    Commitment = 333,
    /// The index doesn't hash to the root.
    Index = 334,
    /// A chunk isn't the one that was sealed.
    Chunk = 335,
    /// The payload doesn't hash to the root.
    Root = 336,
    /// No key slot opens with this vault's master keys.
    KeySlot = 337,

    /// The grant is for another model.
    OtherModel = 401,
    /// The model is of another line.
    OtherLine = 402,
    /// The grant names another suite than the manifest.
    OtherSuite = 403,
    /// The grant is for another device.
    OtherDevice = 404,
    /// The grant is limited in time, and this device has no clock.
    NoClock = 405,
    /// The grant isn't valid yet.
    NotYetValid = 406,
    /// The grant is no longer valid.
    Expired = 407,
    /// The grant's floor is above the version that it grants.
    FloorAboveVersion = 408,
    /// The version is below the stored floor.
    RolledBack = 409,

    /// Storage can't be read.
    Storage = 601,
    /// The memory isn't of the length that is needed.
    Memory = 602,
    /// The stored floor is missing or corrupt.
    Floor = 603,

    /// The magic isn't modelseal's.
    ForeignMagic = 701,
    /// The format version isn't one that this reader knows.
    UnknownVersion = 702,
    /// The suite isn't one that this reader was built for.
    UnknownSuite = 703,
    /// The key slots are of 64 bytes, as they were before the first release.
    OldSlots = 704,
}

/// What kind of failure it was. The number is the exit code of every program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Changed, cut, extended, malformed, or made by or for somebody else.
    NotAuthentic = 3,
    /// Genuine, but not for this device, line, version or time.
    Refused = 4,
    /// Storage or memory.
    Storage = 6,
    /// Not this format, or not a part of it that this reader knows.
    Unsupported = 7,
}

impl Error {
    /// Every variant, by number.
    pub const ALL: [Self; 43] = [
        Self::Truncated,
        Self::Extended,
        Self::ManifestLength,
        Self::EnvelopeLength,
        Self::ManifestEncoding,
        Self::ChunkSize,
        Self::Alignment,
        Self::Line,
        Self::Kind,
        Self::Length,
        Self::Claims,
        Self::Padding,
        Self::GrantLength,
        Self::GrantEncoding,
        Self::DeviceId,
        Self::Validity,
        Self::GrantForm,
        Self::GrantPath,
        Self::Key,
        Self::ManifestSignature,
        Self::GrantSignature,
        Self::GrantKey,
        Self::Commitment,
        Self::Index,
        Self::Chunk,
        Self::Root,
        Self::KeySlot,
        Self::OtherModel,
        Self::OtherLine,
        Self::OtherSuite,
        Self::OtherDevice,
        Self::NoClock,
        Self::NotYetValid,
        Self::Expired,
        Self::FloorAboveVersion,
        Self::RolledBack,
        Self::Storage,
        Self::Memory,
        Self::Floor,
        Self::ForeignMagic,
        Self::UnknownVersion,
        Self::UnknownSuite,
        Self::OldSlots,
    ];

    /// The stable number.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The class, which is the hundreds of the number (8).
    pub const fn class(self) -> Class {
        match self.code() / 100 {
            3 => Class::NotAuthentic,
            4 => Class::Refused,
            6 => Class::Storage,
            _ => Class::Unsupported,
        }
    }

    /// One word for logs, the variant's name.
    pub const fn name(self) -> &'static str {
        self.words().0
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Truncated => ("Truncated", "it ends too early"),
            Self::Extended => ("Extended", "it has bytes after its end"),
            Self::ManifestLength => ("ManifestLength", "the manifest's length is out of bounds"),
            Self::EnvelopeLength => ("EnvelopeLength", "the envelope's length is out of bounds"),
            Self::ManifestEncoding => ("ManifestEncoding", "the manifest is malformed"),
            Self::ChunkSize => ("ChunkSize", "the chunk size is out of bounds"),
            Self::Alignment => ("Alignment", "the payload alignment is out of bounds"),
            Self::Line => ("Line", "the line isn't 1 to 64 of a-z 0-9 . _ -"),
            Self::Kind => ("Kind", "the kind isn't 1 to 16 of a-z 0-9 . _ -"),
            Self::Length => ("Length", "the model's length isn't between 1 byte and 2^48"),
            Self::Claims => ("Claims", "the claims break a rule"),
            Self::Padding => ("Padding", "the padding isn't zero"),
            Self::GrantLength => ("GrantLength", "the grant's length is out of bounds"),
            Self::GrantEncoding => ("GrantEncoding", "the grant is malformed"),
            Self::DeviceId => {
                ("DeviceId", "the device id isn't 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit")
            }
            Self::Validity => ("Validity", "the validity ends before it begins"),
            Self::GrantForm => ("GrantForm", "the grant's signature doesn't fit its wrapping"),
            Self::GrantPath => ("GrantPath", "the grant's path has stray bits"),
            Self::Key => ("Key", "the key isn't a usable one"),
            Self::ManifestSignature => ("ManifestSignature", "no trusted publisher signed the manifest"),
            Self::GrantSignature => ("GrantSignature", "no trusted publisher signed the grant"),
            Self::GrantKey => ("GrantKey", "the grant doesn't open with this device's key"),
            Self::Commitment => ("Commitment", "the content key isn't the manifest's"),
            Self::Index => ("Index", "the index isn't the one that was sealed"),
            Self::Chunk => ("Chunk", "a chunk isn't the one that was sealed"),
            Self::Root => ("Root", "the payload isn't the one that was sealed"),
            Self::KeySlot => ("KeySlot", "no key slot opens with this vault's master keys"),
            Self::OtherModel => ("OtherModel", "the grant is for another model"),
            Self::OtherLine => ("OtherLine", "the model is of another line"),
            Self::OtherSuite => ("OtherSuite", "the grant names another suite"),
            Self::OtherDevice => ("OtherDevice", "the grant is for another device"),
            Self::NoClock => ("NoClock", "the grant is limited in time and there is no clock"),
            Self::NotYetValid => ("NotYetValid", "the grant isn't valid yet"),
            Self::Expired => ("Expired", "the grant has expired"),
            Self::FloorAboveVersion => ("FloorAboveVersion", "the grant's floor is above the version"),
            Self::RolledBack => ("RolledBack", "the version is below the stored floor"),
            Self::Storage => ("Storage", "storage can't be read"),
            Self::Memory => ("Memory", "the memory isn't of the length that is needed"),
            Self::Floor => ("Floor", "the stored floor is missing or corrupt"),
            Self::ForeignMagic => ("ForeignMagic", "it isn't a modelseal file"),
            Self::UnknownVersion => ("UnknownVersion", "its format version is unknown"),
            Self::UnknownSuite => ("UnknownSuite", "its suite is unknown or not built in"),
            Self::OldSlots => ("OldSlots", "its key slots are from before the first release"),
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.words().1)
    }
}

impl core::error::Error for Error {}

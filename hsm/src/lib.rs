//! Vaults: the holders of one publisher's keys.
//!
//! ```text
//!                    ┌ software.rs  keys in one file, encrypted under a passphrase (the embedded default)
//!  vault.rs ─▶ roles ┤
//!                    └ pkcs11/      keys in a PKCS#11 token, which never gives them up
//! ```
//!
//! | key | may | never |
//! |---|---|---|
//! | master | encrypt and decrypt content keys | wrap, unwrap, derive, sign |
//! | fleet | make AES-CMACs, for device keys | encrypt, decrypt, wrap |
//! | publisher | sign manifests and grants | anything else |
//!
//! What never leaves a vault: any of the three. What leaves: content keys, only of models that this vault's
//! own publisher key signed; device keys; signatures; public keys.
//!
//! In reading order: [`vault`], the trait and what it promises; [`life`], how keys come and go; [`batch`], many grants
//! under one signature; [`location`], which vault; `software`, with `vault_file`, and `pkcs11`, the two kinds;
//! `exposed`, files that others may use; `observed`, what is told of each use of a key; `self_test`, what a check tries; `slow_hash`, of passphrases and PINs; [`mod@wiped`], what stays on the
//! stack; [`error`].

pub mod batch;
pub mod error;
mod exposed;
pub mod life;
pub mod location;
mod observed;
mod pkcs11;
mod self_test;
mod slow_hash;
mod software;
pub mod vault;
mod vault_file;
pub mod wiped;

pub use batch::{BATCH_MAX, GrantTree, SignedTree};
pub use error::Error;
pub use exposed::Exposed;
pub use life::{LifeCycle, OpenSlot};
pub use location::{Location, Passphrase};
pub use pkcs11::is_stuck;
#[doc(hidden)]
pub use pkcs11::modules;
pub use vault::{Algorithm, Finding, Key, Part, Role, Vault, backup, check_unopened, create, open, restore};

/// What `tests/fuzz` reaches besides the public API; it alone builds with `--cfg fuzzing`.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads a vault file and writes it again.
    pub fn rewrite(text: &[u8]) -> Option<Vec<u8>> {
        crate::vault_file::VaultFile::parse(text)?.encode().ok()
    }

    /// Decodes what a vault file of `format` keeps secret and encodes it again.
    pub fn recode(format: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let stock = crate::vault_file::Stock::decode(format, bytes)?;
        stock.encode().map(|bytes| bytes.to_vec())
    }
}

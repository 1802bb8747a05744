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
//! In reading order: [`vault`], the trait and what it promises; [`location`], which vault; `software`,
//! with `vault_file`, and `pkcs11`, the two kinds; `self_test`, what a check tries with either;
//! [`mod@wiped`], what stays on the stack; [`error`].

pub mod error;
pub mod location;
mod pkcs11;
mod self_test;
mod software;
pub mod vault;
mod vault_file;
pub mod wiped;

pub use error::Error;
pub use location::{Location, Passphrase};
pub use vault::{Algorithm, Finding, Key, Part, Role, Vault, create, open};

//! Sealed model + enrolled device -> grant.

use getrandom::SysRng;
use modelseal_core::grant::{
    DeviceId, GrantBytes, Terms, UnsignedGrant, Validity, wrap_for_device_key, wrap_for_x25519,
};
use modelseal_core::open::Unwrapped;
use modelseal_hsm::Vault;
use modelseal_hsm::wiped::wiped;
use rand_core::UnwrapErr;

use crate::error::{Code, Error, Result};
use crate::pem;
use crate::registry::{Device, DeviceKeyKind};

/// What a grant says besides the model and the device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// When it is good; always, if absent.
    pub validity: Option<Validity>,
    /// The lowest version that may open once it is confirmed; the model's own, if absent.
    pub floor: Option<u64>,
}

/// Grants the model, whose content key the vault has unwrapped, to a device.
pub fn grant(
    vault: &dyn Vault,
    content: &Unwrapped<'_>,
    id: DeviceId<'_>,
    device: &Device,
    limits: Limits,
) -> Result<GrantBytes> {
    require_enrolled(id, device, content.header().manifest().subject.line)?;
    let terms = terms(content, id, limits);
    wiped(|| match &device.key {
        DeviceKeyKind::Fleet(version) => {
            let key = vault.device_key(id, *version)?;
            Ok(wrap_for_device_key(content, &terms, &key, &mut UnwrapErr(SysRng))?)
        }
        DeviceKeyKind::X25519(text) => Ok(vault.sign_grant(&wrap_to(text, content, &terms)?)?),
    })
}

/// Refuses a device that isn't enrolled for `line`.
pub(crate) fn require_enrolled(id: DeviceId<'_>, device: &Device, line: &str) -> Result<()> {
    if device.is_for(line) {
        return Ok(());
    }
    let what = format!("the device {} isn't enrolled for the line {line}", id.as_str());
    Err(Error::new(Code::Refused, what, format!("it is for: {}", device.lines.join(", "))))
}

/// What the grant for a device will say.
pub(crate) fn terms<'a>(content: &Unwrapped<'_>, id: DeviceId<'a>, limits: Limits) -> Terms<'a> {
    let mut terms = Terms::new(content, id);
    terms.validity = limits.validity;
    terms.floor = limits.floor.unwrap_or(terms.floor);
    terms
}

/// Wraps to the public key that `pem` holds. Like everything that touches the content key, in [`wiped`].
pub(crate) fn wrap_to(pem: &str, content: &Unwrapped<'_>, terms: &Terms<'_>) -> Result<UnsignedGrant> {
    let public = pem::parse_x25519(pem).ok_or(modelseal_core::Error::Key)?;
    Ok(wrap_for_x25519(content, terms, &public, &mut UnwrapErr(SysRng))?)
}

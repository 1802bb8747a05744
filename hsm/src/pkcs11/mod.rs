use crate::error::Error;
use crate::location::Pkcs11Uri;
use crate::software::Software;
use crate::vault::{Algorithm, Ask};
pub(crate) fn open(_: &Pkcs11Uri, _: Ask<'_>) -> Result<Software, Error> {
    Err(Error::NoPassphrase)
}
pub(crate) fn create(_: &Pkcs11Uri, _: Option<Algorithm>, _: Ask<'_>) -> Result<Software, Error> {
    Err(Error::NoPassphrase)
}

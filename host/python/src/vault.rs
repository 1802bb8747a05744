//! Whose key it is done with: a vault, or a device's and what was granted to it.

use std::path::PathBuf;
use std::sync::Arc;

use modelseal::opener::{ByGrant, Opener, With};
use modelseal::{pem, vaults};
use modelseal_hsm::{Algorithm, Location, Passphrase, Vault as Keys};
use pyo3::prelude::*;
use zeroize::Zeroizing;

use crate::errors::{exception, usage};
use crate::work::work;

/// An open vault. It is thread-safe; a process that was forked has to open its own.
#[pyclass(frozen, module = "modelseal")]
pub(crate) struct Vault {
    location: Location,
    keys: Arc<dyn Keys>,
}

#[pymethods]
impl Vault {
    /// Opens the vault `location`, by default that of `MODELSEAL_VAULT` or the user's own. Without `passphrase`, it comes
    /// from where the command line looks for it; nobody is asked.
    #[new]
    #[pyo3(signature = (location=None, *, passphrase=None))]
    fn new(
        py: Python<'_>,
        location: Option<&Bound<'_, PyAny>>,
        passphrase: Option<String>,
    ) -> PyResult<Self> {
        let location = locate(py, location)?;
        let passphrase = passphrase.map(Zeroizing::new);
        let keys = work(py, None, 0, |_| {
            let ask = || obtain(&location, passphrase.as_ref());
            let opened = modelseal_hsm::open(&location, &ask).map_err(modelseal::Error::from);
            opened.map_err(|error| error.about(location.to_string().as_ref()))
        })?;
        Ok(Self { location, keys: keys.into() })
    }

    /// Makes a vault, and its registry of devices, where there is none.
    #[staticmethod]
    #[pyo3(signature = (location=None, *, passphrase=None, registry=None, algorithm=None))]
    fn create(
        py: Python<'_>,
        location: Option<&Bound<'_, PyAny>>,
        passphrase: Option<String>,
        registry: Option<PathBuf>,
        algorithm: Option<&str>,
    ) -> PyResult<Self> {
        let location = locate(py, location)?;
        let passphrase = passphrase.map(Zeroizing::new);
        let algorithm = algorithm.map(|name| publisher_algorithm(py, name)).transpose()?;
        let keys = work(py, None, 0, |_| {
            let registry = registry.map_or_else(|| vaults::default_registry(&location), Ok)?;
            let ask = || obtain(&location, passphrase.as_ref());
            vaults::create(&location, &registry, algorithm, &ask)
        })?;
        Ok(Self { location, keys: keys.into() })
    }

    /// Which vault it is. It never holds a secret.
    #[getter]
    fn location(&self) -> String {
        self.location.to_string()
    }

    /// The public keys that readers of this vault's models trust, as PEM.
    fn publisher(&self, py: Python<'_>) -> PyResult<String> {
        let publisher = work(py, None, 0, |_| Ok(self.keys.publisher()?))?;
        Ok(publisher.keys().iter().filter_map(pem::publisher).collect())
    }

    fn __repr__(&self) -> String {
        format!("<modelseal.Vault {}>", self.location)
    }
}

fn obtain(
    location: &Location,
    given: Option<&Zeroizing<String>>,
) -> Result<Passphrase, modelseal_hsm::Error> {
    match given {
        Some(text) => Ok(Passphrase::new(text.clone())),
        None => vaults::unattended(location),
    }
}

fn publisher_algorithm(py: Python<'_>, name: &str) -> PyResult<Algorithm> {
    [Algorithm::Ed25519, Algorithm::EcdsaP256].into_iter().find(|known| known.name() == name).ok_or_else(
        || usage(py, &format!("{name:?} isn't a publisher's algorithm"), "give ed25519 or ecdsa-p256"),
    )
}

/// A path is that of a vault file.
fn locate(py: Python<'_>, location: Option<&Bound<'_, PyAny>>) -> PyResult<Location> {
    let text = match location {
        None => std::env::var("MODELSEAL_VAULT").ok().filter(|text| !text.is_empty()),
        Some(given) => match given.extract::<String>() {
            Ok(text) => Some(text),
            Err(_) => return Ok(Location::File(given.extract()?)),
        },
    };
    let located = match text {
        Some(text) => text.parse().map_err(modelseal::Error::from),
        None => vaults::default_location(),
    };
    located.map_err(|error| exception(py, &error))
}

/// Where the vault is that an argument means.
pub(crate) fn vault_location(py: Python<'_>, vault: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Location>> {
    match vault.and_then(|vault| vault.cast::<Vault>().ok()) {
        Some(open) => Ok(Some(open.get().location.clone())),
        None => locate(py, vault).map(Some),
    }
}

/// The vault that an argument means: an open one, or one that is opened now.
pub(crate) fn keys(
    py: Python<'_>,
    vault: Option<&Bound<'_, PyAny>>,
    passphrase: Option<String>,
) -> PyResult<Arc<dyn Keys>> {
    let open = vault.and_then(|vault| vault.cast::<Vault>().ok());
    match (open, passphrase) {
        (Some(_), Some(_)) => Err(usage(py, "the vault is open already", "leave the passphrase out")),
        (Some(vault), None) => Ok(Arc::clone(&vault.get().keys)),
        (None, passphrase) => Ok(Vault::new(py, vault, passphrase)?.keys),
    }
}

/// What opens models, as the arguments of `modelseal.open` say it.
#[derive(FromPyObject)]
pub(crate) struct Credentials<'py> {
    vault: Option<Bound<'py, PyAny>>,
    passphrase: Option<String>,
    grant: Option<PathBuf>,
    identity: Option<PathBuf>,
    state: Option<PathBuf>,
    confirm: bool,
    line: Option<String>,
}

impl Credentials<'_> {
    pub(crate) fn opener(self, py: Python<'_>) -> PyResult<Opener> {
        let with = match (self.grant, self.identity) {
            (Some(grant), Some(identity)) => {
                if self.vault.is_some() || self.passphrase.is_some() {
                    return Err(usage(py, "a vault and a grant are two ways to open", "give one of them"));
                }
                let mut by = ByGrant::new(grant, identity);
                by.confirm = self.confirm;
                by.state = self.state.unwrap_or(by.state);
                With::Grant(by)
            }
            (None, None) if self.state.is_none() => {
                With::Vault(keys(py, self.vault.as_ref(), self.passphrase)?)
            }
            _ => return Err(usage(py, "grant and identity belong together", "give both, or neither")),
        };
        Ok(Opener::new(with, self.line))
    }
}

//! Which PKCS#11 library, where the URI names none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The environment's: ours, then the one that other programs look at, too.
const VARIABLES: [&str; 2] = ["MODELSEAL_PKCS11_MODULE", "PKCS11_MODULE_PATH"];

const RELATIVE_VARIABLE: &str = "MODELSEAL_PKCS11_MODULE, or PKCS11_MODULE_PATH, is the library's whole path, such as \
     /usr/lib/softhsm/libsofthsm2.so";

/// Where systems put libraries that have tokens of their own; `*` is one name. Proxies for other libraries don't count.
#[rustfmt::skip]
const PLACES: [&str; 27] = [
    // Debian and Ubuntu, of any architecture
    "usr/lib/softhsm/libsofthsm2.so",
    "usr/lib/*/softhsm/libsofthsm2.so",
    "usr/lib/*/pkcs11/opensc-pkcs11.so",
    "usr/lib/*/pkcs11/libtpm2_pkcs11.so",
    "usr/lib/*/pkcs11/libopencryptoki.so",
    "usr/lib/*/libykcs11.so",
    // Fedora, Red Hat, SUSE
    "usr/lib64/pkcs11/libsofthsm2.so",
    "usr/lib64/softhsm/libsofthsm2.so",
    "usr/lib64/pkcs11/opensc-pkcs11.so",
    "usr/lib64/pkcs11/libtpm2_pkcs11.so",
    "usr/lib64/pkcs11/libopencryptoki.so",
    "usr/lib64/libykcs11.so",
    "usr/lib64/pkcs11/libkryoptic_pkcs11.so",
    // Arch
    "usr/lib/pkcs11/libsofthsm2.so",
    "usr/lib/pkcs11/opensc-pkcs11.so",
    "usr/lib/pkcs11/libtpm2_pkcs11.so",
    "usr/lib/libykcs11.so",
    // Built by hand
    "usr/local/lib/softhsm/libsofthsm2.so",
    // macOS: Homebrew on ARM and on Intel, and OpenSC's own package
    "opt/homebrew/lib/softhsm/libsofthsm2.so",
    "opt/homebrew/lib/opensc-pkcs11.so",
    "opt/homebrew/lib/libykcs11.dylib",
    "usr/local/lib/opensc-pkcs11.so",
    "usr/local/lib/libykcs11.dylib",
    "Library/OpenSC/lib/opensc-pkcs11.so",
    // Windows
    "SoftHSM2/lib/softhsm2-x64.dll",
    "Program Files/SoftHSM2/lib/softhsm2-x64.dll",
    "Program Files/OpenSC Project/OpenSC/pkcs11/opensc-pkcs11.dll",
];

/// p11-kit's configuration, the more important first: a file hides one of the same name further down.
const CONFIGURATIONS: [&str; 2] = ["etc/pkcs11/modules", "usr/share/p11-kit/modules"];
const USERS: &str = ".config/pkcs11/modules";
/// Where p11-kit looks for libraries that are named without a folder.
const RELATIVE: [&str; 4] =
    ["usr/lib/*/pkcs11", "usr/lib64/pkcs11", "usr/lib/pkcs11", "opt/homebrew/lib/pkcs11"];

/// The environment's library, else the only one that is found.
pub(super) fn module() -> Result<PathBuf, Error> {
    let set = |name: &str| std::env::var_os(name).filter(|path: &OsString| !path.is_empty());
    if let Some(path) = VARIABLES.iter().find_map(|name| set(name)).map(PathBuf::from) {
        return if path.is_absolute() { Ok(path) } else { Err(Error::Location(RELATIVE_VARIABLE)) };
    }
    let home = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from);
    match modules(&roots(), home.as_deref()) {
        found if found.len() == 1 => found.into_iter().next().ok_or(Error::NoModule(Vec::new())),
        found => Err(Error::NoModule(found)),
    }
}

fn roots() -> Vec<PathBuf> {
    if cfg!(windows) { vec!["C:\\".into()] } else { vec!["/".into()] }
}

/// Every library at a usual place below `roots`, or that p11-kit is configured for there or in `home`. A library that
/// is reached in several ways is one.
pub fn modules(roots: &[PathBuf], home: Option<&Path>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for root in roots {
        found.extend(PLACES.iter().flat_map(|place| matching(root, place)));
        found.extend(configured(root, home));
    }
    let mut found: Vec<_> = found.iter().filter_map(|path| path.canonicalize().ok()).collect();
    found.retain(|path| path.is_file() && !is_proxy(path));
    found.sort();
    found.dedup();
    found
}

fn matching(root: &Path, place: &str) -> Vec<PathBuf> {
    let root = glob::Pattern::escape(&root.to_string_lossy());
    let pattern = format!("{}/{place}", root.trim_end_matches(['/', '\\']));
    glob::glob(&pattern).map(|paths| paths.flatten().collect()).unwrap_or_default()
}

/// It has the tokens of other libraries, and not all of their mechanisms.
fn is_proxy(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("p11-kit-") || name.starts_with("libp11-kit")
}

/// The libraries in p11-kit's `*.module` files.
fn configured(root: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    let folders = home.map(|home| home.join(USERS)).into_iter();
    for folder in folders.chain(CONFIGURATIONS.iter().map(|folder| root.join(folder))) {
        for path in matching(&folder, "*.module") {
            files.entry(path.file_name().unwrap_or_default().to_owned()).or_insert(path);
        }
    }
    let texts = files.values().filter_map(|path| std::fs::read_to_string(path).ok());
    texts.filter_map(|text| library(&text)).flat_map(|name| resolved(root, &name)).collect()
}

/// A module that another process or host has, or that isn't for every program, is nobody's first choice.
fn library(text: &str) -> Option<String> {
    let value = |wanted: &str| {
        let settings = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let mut settings = settings.filter_map(|line| line.split_once(':'));
        settings.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim().to_owned())
    };
    let programs = |list: Option<String>, otherwise: bool| {
        list.map_or(otherwise, |list| list.split([',', ' ']).any(|name| name == "modelseal"))
    };
    let is_off = value("enabled").is_some_and(|enabled| enabled == "no")
        || value("remote").is_some()
        || programs(value("disable-in"), false)
        || !programs(value("enable-in"), true);
    value("module").filter(|module| !module.is_empty() && !is_off)
}

fn resolved(root: &Path, name: &str) -> Vec<PathBuf> {
    match Path::new(name).is_absolute() {
        // Below the root that its configuration is in.
        true => vec![root.join(name.trim_start_matches(['/', '\\']))],
        false => RELATIVE
            .iter()
            .flat_map(|folder| matching(root, &format!("{folder}/{}", glob::Pattern::escape(name))))
            .collect(),
    }
}

//! A vault's location comes back however it is written, never has a PIN in it, and never shows where the PIN is.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use modelseal_hsm::Location;
use modelseal_hsm::location::Pkcs11Uri;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

fuzz_target!(|text: &str| {
    let Ok(location) = text.parse::<Location>() else { return };
    match &location {
        Location::File(path) => assert_eq!(format!("file:{}", path.display()), text),
        Location::Pkcs11(uri) => {
            assert!(!text.to_ascii_lowercase().contains("pin-value"));
            assert!(!text.contains(|c: char| c.is_control() || c.is_whitespace()), "it isn't a URI");
            assert_eq!(canonical(uri).parse::<Location>().unwrap(), location);
            let hidden = Location::Pkcs11(Pkcs11Uri { pin_source: None, ..uri.clone() });
            assert_eq!(location.to_string(), hidden.to_string());
        }
    }
});

fn canonical(uri: &Pkcs11Uri) -> String {
    let attribute =
        |name, value: Option<&str>| Some(format!("{name}={}", utf8_percent_encode(value?, NON_ALPHANUMERIC)));
    let path = |path: &Option<_>| path.as_deref().and_then(Path::to_str).map(str::to_owned);
    let labels = [("token", &uri.token), ("serial", &uri.serial), ("manufacturer", &uri.manufacturer)];
    let labels: Vec<_> =
        labels.into_iter().filter_map(|(name, label)| attribute(name, label.as_deref())).collect();
    let absolute = |source: String| if source.starts_with('/') { format!("file://{source}") } else { source };
    let source = path(&uri.pin_source).map(absolute);
    let files = [("module-path", path(&uri.module)), ("pin-source", source)];
    let files: Vec<_> = files.iter().filter_map(|(name, file)| attribute(name, file.as_deref())).collect();
    format!("pkcs11:{}?{}", labels.join(";"), files.join("&"))
}

//! The one place where a stranger's name becomes a file name.

use modelseal_core::grant::DeviceId;

use crate::error::{Error, Result};
use crate::list::problem_of_name;

/// The file name `ID` with `ending` behind it, if it is one on every system.
///
/// A device's id has no path in it by its own rules. Still, `con.grant` isn't a file on Windows, and this is asked again
/// of whatever comes out of a registry.
pub fn of_device(id: DeviceId<'_>, ending: &str) -> Result<String> {
    let name = format!("{}{ending}", id.as_str());
    let problem = [name.as_str(), id.as_str()].into_iter().find_map(problem_of_name);
    match problem {
        Some(problem) => {
            Err(Error::usage(format!("{name:?} {problem}"), "enrol the device under another id"))
        }
        None => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn ids_that_are_no_file_names_are_refused() {
        for id in ["con", "CON", "nul.1", "Aux", "com1", "a."] {
            assert!(of_device(DeviceId::new(id).unwrap(), "").is_err(), "{id}");
        }
        assert_eq!(of_device(DeviceId::new("kitchen-7").unwrap(), ".grant").unwrap(), "kitchen-7.grant");
    }
}

//! Does with secrets what a reader and a sealer do, with the secrets marked undefined: memcheck then reports every
//! branch, and every address, that depends on one.
//!
//! - `cases`: what is done, for either suite
//! - `scene`: the sealed model and the grants that it is done with
//! - `secret`: how a secret is marked, and how it is seen that a result still depends on it
//! - `controls`: what must be reported, so that no report means something
//!
//! Without an argument it names its cases and controls, one a line; with a name it does that one. `../run` has
//! valgrind look on.

mod cases;
mod controls;
mod scene;
mod secret;

use std::process::ExitCode;

use modelseal_core::manifest::Suite;
use scene::Scene;

const SUITES: [(&str, Suite); 2] =
    [("aes-256-gcm", Suite::Aes256Gcm), ("chacha20-poly1305", Suite::ChaCha20Poly1305)];

fn main() -> ExitCode {
    let Some(wanted) = std::env::args().nth(1) else {
        list();
        return ExitCode::SUCCESS;
    };
    secret::require_valgrind();
    for (suite_name, suite) in SUITES {
        for (name, case) in cases::ALL {
            if wanted == format!("{suite_name}/{name}") {
                case(&Scene::new(suite));
                return ExitCode::SUCCESS;
            }
        }
    }
    for (name, control) in controls::ALL {
        if wanted == format!("control/{name}") {
            control();
            return ExitCode::SUCCESS;
        }
    }
    eprintln!("there is no case {wanted}");
    ExitCode::from(2)
}

fn list() {
    for (suite, _) in SUITES {
        cases::ALL.iter().for_each(|(name, _)| println!("{suite}/{name}"));
    }
    controls::ALL.iter().for_each(|(name, _)| println!("control/{name}"));
}

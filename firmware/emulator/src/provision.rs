//! What a factory writes into a device.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use modelseal_firmware::eeprom::first_state;
use modelseal_firmware::provision::{PROVISIONED_MAX, Provisioned, Purpose, SURROUNDINGS_MAX, Surroundings};
use zeroize::Zeroizing;

use crate::chips::EEPROM_LEN;
use crate::failure::Failure;
use crate::options::{Options, line};

/// The device's own record, and then its surroundings in this run.
pub(crate) fn provision(options: &Options) -> Result<(), Failure> {
    let identity = options.identity()?;
    let provisioned = Provisioned {
        device: identity.device()?,
        line: line(&identity, options)?,
        publisher: identity.publisher()?,
        secret: identity.secret()?,
    };
    let now = options.number("time")?;
    let surroundings = Surroundings { now, purpose: purpose(options)? };
    let mut first = Zeroizing::new([0; PROVISIONED_MAX]);
    let mut second = [0; SURROUNDINGS_MAX];
    // Only the owner may read the secret in it.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(options.require("out")?)?;
    file.write_all(provisioned.encode(&mut first)?)?;
    file.write_all(surroundings.encode(&mut second)?)?;
    Ok(())
}

fn purpose(options: &Options) -> Result<Purpose, Failure> {
    match options.get("purpose") {
        None | Some("run") => Ok(Purpose::Run),
        Some("crash") => Ok(Purpose::Crash),
        Some("update") => Ok(Purpose::Update),
        Some(_) => Err("the purposes are run, crash and update".into()),
    }
}

/// An EEPROM as it leaves the factory: the first state, and otherwise blank.
pub(crate) fn eeprom(options: &Options) -> Result<(), Failure> {
    let first = first_state(options.identity()?.first_floor);
    let mut eeprom = vec![0xff; EEPROM_LEN];
    eeprom.splice(..first.len(), first);
    File::create_new(options.require("out")?)?.write_all(&eeprom)?;
    Ok(())
}

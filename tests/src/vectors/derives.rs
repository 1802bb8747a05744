//! Device keys, derived from a fleet key (3.3).

use aes::Aes256;
use cmac::{Cmac, KeyInit, Mac};

use super::{Case, Fleet};
use crate::forge;

pub(super) fn cases() -> Vec<Case> {
    let ids = [
        ("shortest", "a"),
        ("usual", "kitchen-7"),
        ("prefix", "kitchen-70"),
        ("case", "Kitchen-7"),
        ("dots", "9..-__..--."),
        ("31", "abcdefghijklmnopqrstuvwxyz01234"),
        ("longest", "abcdefghijklmnopqrstuvwxyz012345"),
    ];
    ids.map(|(name, id)| derived(name, id)).to_vec()
}

fn derived(name: &str, id: &str) -> Case {
    let mut case = Case::new(format!("device-key-{name}"), "a device's key", "derive-device-key");
    case.fleet = Some(Fleet { key: hex::encode(forge::FLEET_KEY), device: id.into() });
    let block = |i: u32| {
        let mut mac = Cmac::<Aes256>::new(&forge::FLEET_KEY.into());
        mac.update(&i.to_be_bytes());
        mac.update(b"modelseal/v1/device\0");
        mac.update(id.as_bytes());
        mac.update(&256u32.to_be_bytes());
        mac.finalize().into_bytes()
    };
    case.value("device_key", &[block(1), block(2)].concat())
}

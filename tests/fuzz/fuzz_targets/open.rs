//! Whatever is done to genuine files, what opens is the model that was sealed, and it opens where everything that the
//! reader looks at is genuine: a host looks at all but the key slots, a device at less, so that what opens on a host
//! opens on a device.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelseal_fuzz::edit::Attack;
use modelseal_fuzz::open::{as_device, as_host, truth_for_device, truth_for_host};

fuzz_target!(|attack: Attack| {
    let ((sealed, grant), wrap) = (attack.files(), attack.wrap());
    let device = as_device(&sealed, &grant, wrap);
    let host = as_host(&sealed, &grant, wrap);
    assert_eq!(device.as_deref().ok(), truth_for_device(&sealed, &grant, wrap), "{device:?}");
    assert_eq!(host.as_deref().ok(), truth_for_host(&sealed, &grant, wrap), "{host:?}");
    assert!(host.is_err() || device.is_ok());
});

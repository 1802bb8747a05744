//! A vault file comes back as it was, asks for no more than it may, and opens where its keys are the one encoding of
//! keys that make sense; one that was changed opens as what was written, or not at all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelseal_fuzz::vault::{FORMATS, cost, file, genuine_keys, keys_of, open};
use modelseal_hsm::fuzzing::{recode, rewrite};

fuzz_target!(|bytes: &[u8]| {
    as_file(bytes);
    for format in FORMATS {
        let keys = recode(format, bytes);
        assert!(keys.as_ref().is_none_or(|keys| keys == bytes));
        assert_eq!(open(&file(format, bytes)).is_ok(), keys.is_some());
    }
});

fn as_file(text: &[u8]) {
    let Some(written) = rewrite(text) else {
        return assert!(open(text).is_err());
    };
    assert_eq!(rewrite(&written).unwrap(), written);
    let [memory_kib, passes, lanes] = cost(text).unwrap();
    assert_eq!(cost(&written), Some([memory_kib, passes, lanes]));
    assert!(memory_kib <= 64 * 1024 && passes <= 16 && lanes <= 8);
    // Opening costs what the file asks for.
    if memory_kib * passes <= 128
        && let Ok(vault) = open(text)
    {
        assert_eq!(keys_of(&*vault), keys_of(&*open(&file(FORMATS[0], &genuine_keys())).unwrap()));
    }
}

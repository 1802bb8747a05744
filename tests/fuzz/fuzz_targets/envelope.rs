//! An envelope comes back as it was, but for empty slots, which come back as zeros.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelseal_core::sealed::Envelope;
use modelseal_fuzz::shape;

fuzz_target!(|bytes: &[u8]| {
    let envelope = Envelope::parse(bytes).ok();
    let written = envelope.as_ref().map(|envelope| envelope.encode().to_vec());
    assert_eq!(written, shape::envelope(bytes));
    let (Some(envelope), Some(written)) = (envelope, written) else { return };
    let again = Envelope::parse(&written).unwrap();
    assert_eq!(again, envelope);
    assert_eq!(*again.encode(), written);
    let slots = written[64..].chunks(128);
    assert_eq!(envelope.held().count(), slots.clone().filter(|slot| slot[..4] != [0; 4]).count());
    assert_eq!(envelope.slots().count(), slots.filter(|slot| shape::holds_a_key(slot)).count());
});

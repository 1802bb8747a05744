//! Whatever arrives beside a genuine sealed model, the board opens with a genuine grant alone, in time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelseal_core::grant::{Grant, Wrapping};
use modelseal_firmware::provision::{DELIVERY_MAX, Delivery, SURROUNDINGS_MAX, Surroundings};
use modelseal_fuzz_board::run;
use modelseal_fuzz_board::scene::{Genuine, VALIDITY, Wrap, models};

fuzz_target!(|bytes: &[u8]| {
    let Ok((surroundings, delivered)) = Surroundings::decode(bytes) else { return };
    let Ok((delivery, rest)) = Delivery::decode(delivered) else { return };
    let (mut first, mut second) = ([0; SURROUNDINGS_MAX], [0; DELIVERY_MAX]);
    let again = [surroundings.encode(&mut first).unwrap(), delivery.encode(&mut second).unwrap(), rest];
    assert_eq!(again.concat(), bytes);
    let grant = Grant::parse(delivery.grant).ok();
    let named = models()
        .iter()
        .find(|genuine| grant.as_ref().is_some_and(|grant| *grant.terms().model.as_bytes() == genuine.id));
    let genuine = named.unwrap_or(&models()[0]);
    let hpke = grant.is_some_and(|grant| matches!(grant.wrapping(), Wrapping::Hpke { .. }));
    let wrap = if hpke { Wrap::Hpke } else { Wrap::DeviceKey };

    let mut psram = [&genuine.sealed[..], &[0; 64]].concat();
    let opened = run(&surroundings, &delivery, wrap, &mut psram).ok();
    assert_eq!(opened, opens(surroundings.now, &delivery, genuine, wrap).then_some(genuine.plain.len()));
    let payload = genuine.parts.payload..genuine.sealed.len();
    let left = if opened.is_some() { &genuine.plain } else { &genuine.sealed[payload.clone()] };
    assert!(psram[payload.clone()] == *left || opened.is_none() && psram[payload] == vec![0; left.len()]);
});

fn opens(now: Option<u64>, delivery: &Delivery<'_>, genuine: &Genuine, wrap: Wrap) -> bool {
    let good = |now| VALIDITY.not_before <= now && now < VALIDITY.not_after;
    genuine.grants[wrap as usize] == delivery.grant
        && (wrap == Wrap::DeviceKey || now.is_some_and(good))
        && delivery.sealed_len == genuine.sealed.len() as u64
}

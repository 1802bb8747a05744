//! What an attacker can do to a grant, as a matrix. See `attacks.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use getrandom::SysRng;
use modelseal::grant::Limits;
use modelseal_core::grant::{DeviceId, Terms, Validity, wrap_for_x25519};
use modelseal_tests::bench::{
    Bench, By, LINE, Model, NO_LIMITS, NOW, SUITES, WRAPS, Wrap, extensions, flip, replaced,
};
use modelseal_tests::forge;
use rand_core::UnwrapErr;

#[test]
fn every_bit_of_a_grant() {
    for suite in SUITES {
        for wrap in WRAPS {
            let bench = Bench::new();
            let model = bench.seal(suite);
            let validity = Some(Validity { not_before: NOW - 1, not_after: NOW + 1 });
            let mut held = bench.grant(&model, "kitchen-7", wrap, Limits { validity, floor: Some(1) });
            bench.opens(&model.sealed, By::Grant(&held), &model.plain, "genuine");
            let grant = held.grant.clone();
            for bit in 0..grant.len() * 8 {
                held.grant = flip(&grant, bit);
                let refused = bench.open(&model.sealed, By::Grant(&held), &model.plain).unwrap_err();
                let code = if matches!(bit / 8, 0..10 | 12) { 7 } else { 3 };
                assert_eq!(refused.code, code, "{wrap:?} bit {bit}: {refused:?}");
            }
        }
    }
}

#[test]
fn every_truncation_and_extension_of_a_grant() {
    for suite in SUITES {
        for wrap in WRAPS {
            let bench = Bench::new();
            let model = bench.seal(suite);
            let mut held = bench.grant(&model, "kitchen-7", wrap, NO_LIMITS);
            let grant = held.grant.clone();
            for length in 0..grant.len() {
                held.grant = grant[..length].to_vec();
                bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (3, "Truncated"), "cut");
            }
            for extended in extensions(&grant) {
                held.grant = extended;
                bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (3, "Extended"), "extended");
            }
            // With the length field changed along.
            for delta in [-1i32, 1] {
                let length = (grant.len() as i32 - 12 + delta) as u16;
                let mut changed = replaced(&grant, 10, &length.to_le_bytes());
                changed.resize((grant.len() as i32 + delta) as usize, 0);
                held.grant = changed;
                bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (3, "GrantEncoding"), "resized");
            }
        }
    }
}

#[test]
fn a_grant_of_another_device_model_line_or_vault() {
    for suite in SUITES {
        for wrap in WRAPS {
            let (bench, stranger) = (Bench::new(), Bench::new());
            let model = bench.seal(suite);
            let give = |model: &Model, id: &str| bench.grant(model, id, wrap, NO_LIMITS);
            let mut held = give(&model, "kitchen-7");
            let own = held.grant.clone();
            let mut with = |grant: Vec<u8>, refusal, what: &str| {
                held.grant = grant;
                bench.refuses(&model.sealed, By::Grant(&held), &model.plain, refusal, what);
            };
            let shared = wrap == Wrap::DeviceKey;

            // That a device key doesn't fit says no more than that: another device, or a change.
            with(
                give(&model, "porch-2").grant,
                if shared { (3, "GrantKey") } else { (4, "OtherDevice") },
                "device",
            );
            with(give(&bench.seal_as(suite, LINE, 1, 2100), "kitchen-7").grant, (4, "OtherModel"), "older");
            with(give(&bench.seal_as(suite, LINE, 3, 2100), "kitchen-7").grant, (4, "OtherModel"), "newer");
            with(give(&bench.seal_as(suite, "other", 2, 2100), "kitchen-7").grant, (4, "OtherModel"), "line");
            let again = if shared { SUITES[1] } else { SUITES[0] };
            with(
                give(&bench.seal_as(again, LINE, 2, 2100), "kitchen-7").grant,
                (4, "OtherModel"),
                "sealed again",
            );
            let theirs = stranger.grant(&stranger.seal(suite), "kitchen-7", wrap, NO_LIMITS).grant;
            with(theirs, (3, if shared { "GrantKey" } else { "GrantSignature" }), "another vault's");
            let other = if shared { Wrap::Hpke } else { Wrap::DeviceKey };
            let otherwise = bench.grant(&model, "kitchen-7", other, NO_LIMITS).grant;
            with(otherwise, (3, "GrantKey"), "the other wrapping");
            with(model.sealed.clone(), (7, "ForeignMagic"), "no grant at all");
            held.grant = own;
            bench.opens(&model.sealed, By::Grant(&held), &model.plain, "genuine");
        }
    }
}

#[test]
fn a_model_of_another_line() {
    for wrap in WRAPS {
        let bench = Bench::new();
        let (model, other) = (bench.seal(SUITES[0]), bench.seal_as(SUITES[0], "other", 2, 2100));
        let refusal = (4, "OtherLine");
        bench.refuses(&other.sealed, By::Vault, &other.plain, refusal, "by vault");
        let mut held = bench.grant(&other, "kitchen-7", wrap, NO_LIMITS);
        bench.refuses(&other.sealed, By::Grant(&held), &other.plain, refusal, "the device serves another");
        held.line = "other";
        bench.opens(&other.sealed, By::Grant(&held), &other.plain, "genuine");
        let mut held = bench.grant(&model, "kitchen-7", wrap, NO_LIMITS);
        for line in ["other", "wake-wor", "wake-word2", "Wake-word", ""] {
            held.line = line;
            bench.refuses(&model.sealed, By::Grant(&held), &model.plain, refusal, line);
        }
    }
}

#[test]
fn a_grant_out_of_its_time_or_below_the_floor() {
    for suite in SUITES {
        for wrap in WRAPS {
            let bench = Bench::new();
            let model = bench.seal(suite);
            let validity = Some(Validity { not_before: NOW, not_after: NOW + 10 });
            let mut held = bench.grant(&model, "kitchen-7", wrap, Limits { validity, floor: None });
            let times = [
                (None, Some("NoClock")),
                (Some(0), Some("NotYetValid")),
                (Some(NOW - 1), Some("NotYetValid")),
                (Some(NOW), None),
                (Some(NOW + 9), None),
                (Some(NOW + 10), Some("Expired")),
                (Some(u64::MAX), Some("Expired")),
            ];
            for (now, refusal) in times {
                held.now = now;
                match refusal {
                    Some(name) => {
                        bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (4, name), name)
                    }
                    None => bench.opens(&model.sealed, By::Grant(&held), &model.plain, "in time"),
                }
            }
            let mut held = bench.grant(&model, "kitchen-7", wrap, NO_LIMITS);
            held.now = None;
            for (floor, opens) in [(0, true), (2, true), (3, false), (u64::MAX, false)] {
                held.floor = floor;
                match opens {
                    true => bench.opens(&model.sealed, By::Grant(&held), &model.plain, "not below the floor"),
                    false => {
                        let refusal = (4, "RolledBack");
                        bench.refuses(&model.sealed, By::Grant(&held), &model.plain, refusal, "rolled back");
                    }
                }
            }
        }
    }
}

/// Somebody who holds the device's own key, such as a careless operator, grants what the terms forbid.
#[test]
fn a_device_grant_forged_with_the_device_key() {
    for (suite, other) in [(1, 2), (2, 1)] {
        let bench = Bench::new();
        let model = bench.seal(SUITES[suite as usize - 1]);
        let mut held = bench.grant(&model, "kitchen-7", Wrap::DeviceKey, NO_LIMITS);
        let device = bench.vault.device_key(DeviceId::new("kitchen-7").unwrap(), 1).unwrap();
        let (device, key) = (*device.expose_to_factory(), bench.content_key(&model));
        let id = forge::model_id(&model.sealed, model.parts);
        let terms = |suite, device, floor, validity| forge::terms(suite, &id, device, floor, validity);
        let genuine = terms(suite, "kitchen-7", 2, None);
        // Postcard would take the same floor with a needless byte.
        let mut overlong = genuine[..genuine.len() - 2].to_vec();
        overlong.extend([0x82, 0, 0]);
        let mut lying = id;
        lying[0] ^= 1;
        /// What is forged: its name, terms and model id, and how it is refused.
        type Forged<'a> = (&'a str, Vec<u8>, [u8; 32], Option<(u8, &'a str)>);
        let cases: [Forged<'_>; 9] = [
            ("genuine", genuine.clone(), id, None),
            ("suite", terms(other, "kitchen-7", 2, None), id, Some((4, "OtherSuite"))),
            ("device", terms(suite, "porch-2", 2, None), id, Some((4, "OtherDevice"))),
            ("device spelt badly", terms(suite, "kitchen 7", 2, None), id, Some((3, "DeviceId"))),
            ("floor", terms(suite, "kitchen-7", 3, None), id, Some((4, "FloorAboveVersion"))),
            ("validity", terms(suite, "kitchen-7", 2, Some((5, 5))), id, Some((3, "Validity"))),
            ("overlong", overlong, id, Some((3, "GrantEncoding"))),
            (
                "id in the terms",
                forge::terms(suite, &lying, "kitchen-7", 2, None),
                id,
                Some((4, "OtherModel")),
            ),
            ("id in the key", genuine, lying, Some((3, "GrantKey"))),
        ];
        for (what, terms, id, refusal) in cases {
            held.grant = forge::device_grant(&device, &id, &terms, &key);
            match refusal {
                Some(refusal) => bench.refuses(&model.sealed, By::Grant(&held), &model.plain, refusal, what),
                None => bench.opens(&model.sealed, By::Grant(&held), &model.plain, what),
            }
        }
        held.grant =
            forge::device_grant(&device, &id, &forge::terms(suite, &id, "kitchen-7", 2, None), &[9; 32]);
        bench.refuses(
            &model.sealed,
            By::Grant(&held),
            &model.plain,
            (3, "Commitment"),
            "another content key",
        );
    }
}

/// Anybody can wrap a content key for a device whose public key he knows; the publisher's signature is what he
/// lacks.
#[test]
fn an_hpke_grant_signed_by_somebody_else() {
    for suite in SUITES {
        let (bench, attacker) = (Bench::new(), Bench::new());
        let model = bench.seal(suite);
        let mut held = bench.grant(&model, "kitchen-7", Wrap::Hpke, NO_LIMITS);
        let (grant, public) = (held.grant.clone(), held.identity.public_key().unwrap());
        let wrapped = bench.unwrapped(&model, |content| {
            let terms = Terms::new(content, DeviceId::new("kitchen-7").unwrap());
            wrap_for_x25519(content, &terms, &public, &mut UnwrapErr(SysRng)).unwrap()
        });
        let mut with = |grant: Vec<u8>, what: &str| {
            held.grant = grant;
            bench.refuses(&model.sealed, By::Grant(&held), &model.plain, (3, "GrantSignature"), what);
        };
        let theirs = attacker.vault.sign_grant(&wrapped).unwrap().to_vec();
        let genuine = bench.vault.sign_grant(&wrapped).unwrap().to_vec();
        assert_eq!(theirs.len(), grant.len());
        with(theirs.clone(), "signed by the attacker");
        // The signature is the 66 bytes before the last 0 siblings and sides.
        let signature = grant.len() - 66..grant.len() - 2;
        with(replaced(&theirs, signature.start, &grant[signature.clone()]), "the signature of another grant");
        let manifest = &model.sealed[model.parts.envelope..][..64];
        with(replaced(&genuine, signature.start, manifest), "the signature of the manifest");
        held.grant = genuine;
        bench.opens(&model.sealed, By::Grant(&held), &model.plain, "genuine");
    }
}

/// The hint of a refusal that can't say which it was names both ids.
#[test]
fn a_grant_that_does_not_fit_names_both_devices() {
    for wrap in WRAPS {
        let bench = Bench::new();
        let model = bench.seal(SUITES[0]);
        let mut held = bench.grant(&model, "kitchen-7", wrap, NO_LIMITS);
        held.grant = bench.grant(&model, "porch-2", wrap, NO_LIMITS).grant;
        let refused = bench.open(&model.sealed, By::Grant(&held), &model.plain).unwrap_err();
        assert!(refused.hint.contains("kitchen-7") && refused.hint.contains("porch-2"), "{}", refused.hint);
    }
}

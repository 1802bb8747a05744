//! What parses, and no trusted key signed it; and keys that nothing should be trusted for.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT as B, EIGHT_TORSION};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use sha2::{Digest, Sha512};

use super::make::{Model, Signer, Spec, bytes, varint};
use super::scene::{Scene, WRAPS, Wrap, grant_bytes, grants_message};
use super::{Case, Key};

pub(super) fn cases() -> Vec<Case> {
    [manifests(), headers(), grants(), paths(), keys(), mixed()].concat()
}

/// L, the order of the base point, and n, that of P-256's.
const L: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
/// y of the points of small order, canonical.
const SMALL_ORDER: [&str; 5] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
];

fn unhex(text: &str) -> [u8; 32] {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn join(r: &[u8], s: &[u8]) -> [u8; 64] {
    [r, s].concat().try_into().unwrap()
}

/// The s that goes with R, any 32 bytes, and r, its logarithm, as far as it has one.
fn answer(r_bytes: &[u8; 32], r: Scalar, message: &[u8]) -> [u8; 64] {
    let key = Signer::ed25519(1);
    let k = challenge(r_bytes, key.verifying_key().as_bytes(), message);
    join(r_bytes, (r + k * key.to_scalar()).as_bytes())
}

fn challenge(r: &[u8; 32], a: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(a).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

/// Signatures that aren't `signer`'s under key 1: name, what is wrong, the bytes.
fn wrong(signer: Signer, message: &[u8]) -> Vec<(&'static str, &'static str, [u8; 64])> {
    let good = signer.sign(message);
    let (r, s) = good.split_at(32);
    let flipped = |at: usize, bit: u8| {
        let mut flipped = good;
        flipped[at] ^= bit;
        flipped
    };
    let mut all = vec![
        ("zero", "64 zeros", [0; 64]),
        ("ones", "64 times ff", [0xff; 64]),
        ("r-flipped", "a bit of R or r", flipped(3, 4)),
        ("s-flipped", "a bit of s", flipped(40, 1)),
        ("halves-swapped", "s || R", join(s, r)),
        ("r-zero", "R or r is 0", join(&[0; 32], s)),
        ("s-zero", "s is 0", join(r, &[0; 32])),
        ("nothing", "signed the empty message", signer.sign(b"")),
        ("hash", "signed the BLAKE3 of the message", signer.sign(blake3::hash(message).as_bytes())),
    ];
    match signer {
        Signer::Ed25519(_) => {
            all.push(("other-key", "another key's", Signer::Ed25519(9).sign(message)));
            all.push(("s-plus-l", "s + L", join(r, &add(s, &unhex(L)))));
            all.push(("s-is-l", "s = L", join(r, &unhex(L))));
            all.push(("s-top-bit", "the top bit of s", flipped(63, 0x80)));
            let identity = unhex(SMALL_ORDER[1]);
            let small = answer(&identity, Scalar::ZERO, message);
            all.push(("small-order-r", "R is the neutral element, and the equation holds", small));
            let mut signed_zero = identity;
            signed_zero[31] = 0x80;
            let signed_zero = answer(&signed_zero, Scalar::ZERO, message);
            all.push(("negative-zero-r", "R is the neutral element with the sign of x set", signed_zero));
            let mut other = [0xff; 32];
            (other[0], other[31]) = (0xee, 0x7f);
            let unreduced = answer(&other, Scalar::ZERO, message);
            all.push(("non-canonical-r", "R is the neutral element with y = p + 1", unreduced));
            let nonce = Scalar::from_bytes_mod_order(bytes("nonce"));
            let torsion = (nonce * B + EIGHT_TORSION[1]).compress().to_bytes();
            let cofactored = answer(&torsion, nonce, message);
            all.push(("cofactor", "it holds only if multiplied by the cofactor", cofactored));
        }
        Signer::P256(_) => {
            all.push(("other-key", "another key's", Signer::P256(9).sign(message)));
            let signature = p256::ecdsa::Signature::from_slice(&good).unwrap();
            let high = (-*signature.s()).to_bytes();
            all.push(("high-s", "n - s, in the upper half", join(r, &high)));
            all.push(("r-is-n", "r = n", join(&unhex(N), s)));
            all.push(("s-is-n", "s = n", join(r, &unhex(N))));
            let reversed = |half: &[u8]| half.iter().rev().copied().collect::<Vec<u8>>();
            all.push(("little-endian", "r and s little-endian", join(&reversed(r), &reversed(s))));
        }
    }
    all
}

/// Little-endian.
fn add(a: &[u8], b: &[u8; 32]) -> [u8; 32] {
    let mut carry = 0;
    std::array::from_fn(|i| {
        carry = (carry >> 8) + u16::from(a[i]) + u16::from(b[i]);
        carry as u8
    })
}

fn refused(case: Case) -> Case {
    case.refused("signature", 330)
}

fn spec(signer: Signer) -> Spec {
    Spec { signer, ..Spec::default() }
}

fn manifests() -> Vec<Case> {
    let mut cases = Vec::new();
    for (signer, algorithm) in [(Signer::Ed25519(1), "ed25519"), (Signer::P256(1), "p256")] {
        let model = spec(signer).seal();
        for (name, comment, signature) in wrong(signer, &model.signed_bytes()) {
            let model = Model { signature, ..model.clone() };
            cases.push(refused(model.verified(&format!("signature-{algorithm}-{name}"), comment)));
        }
        let unlabelled = Model { signature: signer.sign(&model.header()), ..model.clone() };
        cases.push(refused(
            unlabelled.verified(&format!("signature-{algorithm}-no-label"), "without the label"),
        ));
        let label = [&b"modelseal/v1/grants\0"[..], &model.header()].concat();
        let grants = Model { signature: signer.sign(&label), ..model.clone() };
        cases.push(refused(
            grants.verified(&format!("signature-{algorithm}-label"), "with the label of grants"),
        ));
        let name = format!("trust-another-{algorithm}");
        let others = [Signer::Ed25519(2), Signer::P256(2), Signer::Ed25519(3)].map(Signer::key);
        let case = model.verified(&name, "none of three trusted keys signed").trust(&others);
        cases.push(refused(case));
        let case = model.by_vault(&format!("vault-{name}"), "another vault's publisher", &[1], None);
        cases.push(refused(case.trust(&others)));
    }
    let model = Spec::default().seal();
    cases.push(refused(model.verified("trust-none", "a reader without a key").trust(&[])));
    let other = Spec { version: 8, ..Spec::default() }.seal();
    let swapped = Model { signature: other.signature, slots: other.slots, ..model.clone() };
    cases.push(refused(swapped.verified("envelope-of-another", "the envelope of another version")));
    cases.push(refused(swapped.by_vault("vault-envelope-of-another", "the same", &[1], None)));
    for wrap in WRAPS {
        let mut scene = Scene::of(model.clone(), wrap);
        scene.model.signature = swapped.signature;
        let name = format!("host-envelope-of-another-{}", wrap.name());
        cases.push(refused(scene.case(name, "a host verifies the manifest's signature, too")));
    }
    cases
}

/// A header with one field changed, and the old signature.
fn headers() -> Vec<Case> {
    let model = Spec::default().seal();
    let fields = model.spec.subject();
    let mut cases = Vec::new();
    for (field, value) in [
        ("suite", vec![2]),
        ("line", b"wake-wore".to_vec()),
        ("version", vec![8]),
        ("kind", b"tflitf".to_vec()),
        ("created", varint(1_767_225_601)),
        ("claim key", b"licencf".to_vec()),
        ("claim value", b"MIU".to_vec()),
    ] {
        let subject = fields.clone().with(field, value).concat();
        let changed = Model { signature: model.signature, ..model.with_subject(&subject) };
        let name = format!("header-{}", field.replace(' ', "-"));
        cases.push(refused(changed.verified(&name, "changed after signing")));
        let mut scene = Scene::of(model.clone(), Wrap::DeviceKey).on_device();
        scene.model = changed.clone();
        let case =
            scene.case(format!("device-{name}"), "the grant names the genuine header, and no key is trusted");
        cases.push(refused(case));
    }
    for (name, from_end) in [("commitment", 64), ("root", 1)] {
        let mut manifest = model.manifest.clone();
        let at = manifest.len() - from_end;
        manifest[at] ^= 1;
        let changed = Model { signature: model.signature, ..model.with_manifest(&manifest) };
        cases.push(refused(changed.verified(&format!("header-{name}"), "changed after signing")));
        let mut scene = Scene::of(model.clone(), Wrap::Hpke).on_device();
        scene.model = changed;
        let case = scene.case(format!("device-header-{name}"), "the grant names the genuine header");
        cases.push(refused(case));
    }
    for (name, slots) in [("less", 1), ("more", 3)] {
        let changed = Model { slots: vec![[0; 128]; slots], ..model.clone() };
        cases
            .push(refused(changed.verified(&format!("header-slot-{name}"), "the number of slots is signed")));
    }
    cases
}

fn grants() -> Vec<Case> {
    let mut cases = Vec::new();
    for (signer, algorithm) in [(Signer::Ed25519(1), "ed25519"), (Signer::P256(1), "p256")] {
        let scene = Scene::new(&spec(signer), Wrap::Hpke);
        let wrapping = scene.wrapping();
        let message = grants_message(&scene.leaf(&wrapping));
        let mut refuse = |name: &str, comment: &str, signature| {
            let grant = grant_bytes(&scene.with_signature(wrapping.clone(), signature).concat());
            let name = format!("grant-signature-{algorithm}-{name}");
            let case = scene.case_with(name, comment, &scene.model.bytes(), &grant);
            cases.push(case.refused("signature", 331));
        };
        for (name, comment, signature) in wrong(signer, &message) {
            refuse(name, comment, signature);
        }
        refuse("no-label", "without the label", signer.sign(&scene.leaf(&wrapping)));
        let label = [&b"modelseal/v1/manifest\0"[..], &scene.leaf(&wrapping)].concat();
        refuse("label", "with the label of manifests", signer.sign(&label));
        refuse("manifest", "the manifest's", scene.model.signature);
        let unprefixed = blake3::hash(&[scene.terms.concat(), wrapping.concat()].concat());
        refuse(
            "leaf-without-0",
            "a leaf without its first byte",
            signer.sign(&grants_message(unprefixed.as_bytes())),
        );
    }
    cases
}

fn paths() -> Vec<Case> {
    let mut scene = Scene::new(&Spec::default(), Wrap::Hpke);
    scene.siblings = (0..5).map(|i| bytes(&format!("sibling {i}"))).collect();
    scene.sides = 0b01101;
    let good = scene.grant();
    let sibling = |order: [usize; 5]| order.map(|i| scene.siblings[i]).concat();
    let flipped = |field: &str, at: usize| {
        let mut bytes = good.get(field).to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let mut cases = Vec::new();
    for (name, comment, field, value) in [
        ("sides", "a sibling on the other side", "sides", vec![0b01100]),
        ("order", "two siblings swapped", "siblings", sibling([1, 0, 2, 3, 4])),
        ("reversed", "siblings from the root downward", "siblings", sibling([4, 3, 2, 1, 0])),
        ("sibling", "a bit of a sibling", "siblings", flipped("siblings", 159)),
        ("floor", "another floor", "floor", vec![6]),
        ("device", "another device id", "device", b"Kitchen-8".to_vec()),
        ("model", "another model id", "model", flipped("model", 0)),
        ("suite", "another suite", "suite", vec![2]),
        ("encapsulated", "another encapsulated key", "first", flipped("first", 5)),
        ("ciphertext", "another ciphertext", "ciphertext", flipped("ciphertext", 0)),
        ("tag", "another tag", "tag", flipped("tag", 15)),
        ("validity", "a validity", "validity", [&[1, 0][..], &varint(u64::MAX)].concat()),
    ] {
        let grant = grant_bytes(&good.clone().with(field, value).concat());
        let case = scene.case_with(format!("path-changed-{name}"), comment, &scene.model.bytes(), &grant);
        cases.push(case.refused("signature", 331));
    }
    let mut none = scene.clone().on_device();
    none.trust.clear();
    cases.push(none.case("grant-trust-none", "a device without a key").refused("signature", 331));
    cases
}

fn check(name: String, comment: &str, keys: &[Key]) -> Case {
    Case::new(name, comment, "check-publisher-key").trust(keys).refused("signature", 319)
}

fn keys() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut ed25519 = |name: String, comment: &str, key: &[u8]| {
        cases.push(check(format!("key-ed25519-{name}"), comment, &[Key::Ed25519 { key: hex::encode(key) }]));
    };
    for (i, key) in SMALL_ORDER.iter().enumerate() {
        let mut key = unhex(key);
        ed25519(format!("small-order-{i}"), "a point of small order", &key);
        key[31] ^= 0x80;
        ed25519(format!("small-order-{i}-negative"), "the same with the top bit", &key);
    }
    let mut unreduced = [0xff; 32];
    for (name, low, top) in
        [("p", 0xed, 0x7f), ("p-plus-1", 0xee, 0x7f), ("p-plus-3", 0xf0, 0x7f), ("max", 0xff, 0xff)]
    {
        (unreduced[0], unreduced[31]) = (low, top);
        ed25519(format!("y-is-{name}"), "y isn't below the prime", &unreduced);
    }
    let mut off = [0; 32];
    off[0] = 2;
    ed25519("off-curve".into(), "no point has y = 2", &off);
    ed25519("31-bytes".into(), "too short", &[9; 31]);
    ed25519("33-bytes".into(), "too long", &[9; 33]);
    let Key::P256 { x, y } = Signer::P256(1).key() else { panic!("it is") };
    let p = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
    // x = 5 is on the curve; so x = p + 5, were it allowed.
    let p_plus_5 = "ffffffff00000001000000000000000000000001000000000000000000000004";
    let zero = hex::encode([0; 32]);
    let five_y = "459243b9aa581806fe913bce99817ade11ca503c64d9a3c533415c083248fbcc";
    let mut changed = hex::decode(&y).unwrap();
    changed[31] ^= 1;
    for (name, comment, x, y) in [
        ("off-curve", "a bit of y", x.clone(), hex::encode(changed)),
        ("swapped", "y, x", y.clone(), x.clone()),
        ("zero", "0, 0 isn't on the curve", zero.clone(), zero.clone()),
        ("x-is-p", "x isn't below the prime", p.into(), y.clone()),
        ("x-is-p-plus-5", "x isn't below the prime", p_plus_5.into(), five_y.into()),
        ("y-max", "y isn't below the prime", x.clone(), "ff".repeat(32)),
        ("short", "x of 31 bytes", x[2..].into(), y.clone()),
    ] {
        cases.push(check(format!("key-p256-{name}"), comment, &[Key::P256 { x, y }]));
    }
    let five = [1, 2, 3, 4, 5].map(|i| Signer::Ed25519(i).key());
    cases.push(check("key-five".into(), "at most four keys are trusted", &five));
    let one_bad = [Signer::Ed25519(1).key(), Key::Ed25519 { key: SMALL_ORDER[1].into() }];
    cases.push(check("key-one-of-two".into(), "each key must be usable", &one_bad));
    for (i, key) in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ]
    .iter()
    .enumerate()
    {
        for top in [0, 0x80] {
            let mut key = unhex(key);
            key[31] |= top;
            let name = format!("x25519-small-order-{i}{}", if top == 0 { "" } else { "-top-bit" });
            let mut case =
                Case::new(name, "X25519 ignores the top bit", "check-x25519").refused("grant", 319);
            case.key = Some(hex::encode(key));
            cases.push(case);
        }
    }
    for (name, key) in [
        ("top-bit", "0900000000000000000000000000000000000000000000000000000000000080"),
        ("p-plus-9", "f6ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        ("p-plus-18", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        ("all-ones", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
    ] {
        let comment = "a second encoding of a key, by which it could be enrolled twice";
        let mut case = Case::new(format!("x25519-second-{name}"), comment, "check-x25519");
        case.key = Some(key.into());
        cases.push(case.refused("grant", 319));
    }
    cases
}

/// A public key with a part of small order: the check without the cofactor accepts one signature in eight.
fn mixed() -> Vec<Case> {
    let secret = Scalar::from_bytes_mod_order(bytes("mixed"));
    let public: EdwardsPoint = secret * B + EIGHT_TORSION[1];
    let public = public.compress().to_bytes();
    let model = Spec::default().seal();
    let sign = |accepted: bool| {
        (0..)
            .find_map(|i| {
                let nonce = Scalar::from_bytes_mod_order(bytes(&format!("nonce {i}")));
                let r = (nonce * B).compress().to_bytes();
                let k = challenge(&r, &public, &model.signed_bytes());
                let s = nonce + k * secret;
                (k.as_bytes()[0].is_multiple_of(8) == accepted).then(|| join(&r, s.as_bytes()))
            })
            .unwrap()
    };
    let keys = [Key::Ed25519 { key: hex::encode(public) }];
    let case = |name: &str, comment: &str, accepted| {
        Model { signature: sign(accepted), ..model.clone() }.verified(name, comment).trust(&keys)
    };
    vec![
        case("signature-ed25519-mixed-key", "a key of mixed order, and the equation holds", true),
        refused(case("signature-ed25519-mixed-key-cofactor", "it holds only with the cofactor", false)),
    ]
}

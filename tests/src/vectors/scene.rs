//! Grants, field by field, from the specification; and a device that opens with one. What has a genuine
//! counterpart is compared with `modelseal-core`'s, byte for byte.

use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use modelseal_core::grant::{DeviceId, Terms, Validity, wrap_for_device_key, wrap_for_x25519};
use modelseal_core::keys::DeviceKey;
use modelseal_core::manifest::{Claim, Subject, Suite};
use modelseal_core::open::Unwrapped;
use modelseal_core::seal::Sealing;
use modelseal_core::sealed::Header;
use modelseal_core::sign::{Publisher, Signature};
use sha2::{Digest, Sha256};

use super::make::{DEVICE, Fields, Model, NOW, Rng, Signer, Spec, bytes, varint};
use super::{Case, Device, Key, Number};
use crate::forge;

/// How the content key is wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wrap {
    DeviceKey,
    Hpke,
}

pub(super) const WRAPS: [Wrap; 2] = [Wrap::DeviceKey, Wrap::Hpke];

impl Wrap {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DeviceKey => "device-key",
            Self::Hpke => "hpke",
        }
    }
}

/// A model, a grant and a device: genuine, until something is changed.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) model: Model,
    pub(super) wrap: Wrap,
    /// The device's secret, and the one that was wrapped for.
    pub(super) secret: [u8; 32],
    pub(super) wrapped_for: [u8; 32],
    /// What is wrapped, and the id that flows into the wrapping.
    pub(super) content: [u8; 32],
    pub(super) id: [u8; 32],
    pub(super) terms: Fields,
    pub(super) signer: Signer,
    pub(super) siblings: Vec<[u8; 32]>,
    pub(super) sides: u16,
    pub(super) trust: Vec<Key>,
    pub(super) device: Device,
    pub(super) profile: &'static str,
}

pub(super) fn terms(
    suite: u8,
    id: &[u8; 32],
    device: &str,
    floor: u64,
    validity: Option<(u64, u64)>,
) -> Fields {
    let mut fields = Fields(vec![("suite", vec![suite]), ("model", id.to_vec())]);
    fields.str("device length", "device", device);
    fields.push("floor", varint(floor));
    fields.push("validity", [u8::from(validity.is_some())]);
    if let Some((not_before, not_after)) = validity {
        fields.push("not_before", varint(not_before));
        fields.push("not_after", varint(not_after));
    }
    fields
}

impl Scene {
    pub(super) fn new(spec: &Spec, wrap: Wrap) -> Self {
        Self::of(spec.seal(), wrap)
    }

    pub(super) fn of(model: Model, wrap: Wrap) -> Self {
        let secret: [u8; 32] = bytes(wrap.name());
        let hex = Some(hex::encode(secret));
        let (device_key, x25519) = if wrap == Wrap::DeviceKey { (hex, None) } else { (None, hex) };
        let (floor, now) = (Some(Number(0)), Some(Number(NOW)));
        let device =
            Device { id: DEVICE.into(), line: model.spec.line.clone(), device_key, x25519, floor, now };
        let id = model.id();
        Self {
            wrap,
            secret,
            wrapped_for: secret,
            content: model.content,
            id,
            terms: terms(model.spec.suite, &id, DEVICE, model.spec.version, None),
            signer: model.spec.signer,
            siblings: Vec::new(),
            sides: 0,
            trust: vec![model.spec.signer.key()],
            device,
            profile: "host",
            model,
        }
    }

    /// As a device: it looks at neither manifest signature nor chaining values, and with a device key trusts none.
    pub(super) fn on_device(mut self) -> Self {
        self.profile = "device";
        if self.wrap == Wrap::DeviceKey {
            self.trust.clear();
        }
        self
    }

    /// With other terms: device, floor, validity.
    pub(super) fn terms(mut self, device: &str, floor: u64, validity: Option<(u64, u64)>) -> Self {
        self.terms = terms(self.model.spec.suite, &self.model.id(), device, floor, validity);
        self
    }

    pub(super) fn at(mut self, now: Option<u64>) -> Self {
        self.device.now = now.map(Number);
        self
    }

    pub(super) fn wrapping(&self) -> Fields {
        let terms = self.terms.concat();
        let suite = self.terms.get("suite")[0];
        let mut ciphertext = self.content;
        let (number, first, tag) = match self.wrap {
            Wrap::DeviceKey => {
                let salt: [u8; 32] = bytes("salt");
                let okm = grant_okm(&self.wrapped_for, &salt, &terms, &self.id);
                let nonce = okm[32..].try_into().unwrap();
                (0, salt, forge::encrypt(suite, &okm[..32], &nonce, &mut ciphertext))
            }
            Wrap::Hpke => {
                let public = x25519_public(&self.wrapped_for);
                let rng = &mut Rng::new("hpke");
                let (first, tag) = forge::hpke_seal(suite, &public, &self.id, &terms, &mut ciphertext, rng);
                (1, first, tag)
            }
        };
        let fields = [("wrapping", vec![number]), ("first", first.to_vec())];
        Fields([&fields[..], &[("ciphertext", ciphertext.to_vec()), ("tag", tag.to_vec())]].concat())
    }

    pub(super) fn leaf(&self, wrapping: &Fields) -> [u8; 32] {
        *blake3::hash(&[&[0][..], &self.terms.concat(), &wrapping.concat()].concat()).as_bytes()
    }

    pub(super) fn root(&self, leaf: [u8; 32]) -> [u8; 32] {
        self.siblings.iter().enumerate().fold(leaf, |node, (i, sibling)| {
            let pair = if u32::from(self.sides) >> i & 1 == 1 { [*sibling, node] } else { [node, *sibling] };
            *blake3::hash(&[&[1][..], &pair.concat()].concat()).as_bytes()
        })
    }

    pub(super) fn path(&self, signature: [u8; 64]) -> Fields {
        Fields(vec![
            ("path", vec![1]),
            ("signature", signature.to_vec()),
            ("siblings length", varint(self.siblings.len() as u64)),
            ("siblings", self.siblings.concat()),
            ("sides", varint(self.sides.into())),
        ])
    }

    /// All fields of the grant, with this wrapping, which is signed.
    pub(super) fn signed(&self, wrapping: Fields) -> Fields {
        let signature = self.signer.sign(&grants_message(&self.root(self.leaf(&wrapping))));
        self.with_signature(wrapping, signature)
    }

    pub(super) fn with_signature(&self, wrapping: Fields, signature: [u8; 64]) -> Fields {
        let path = match self.wrap {
            Wrap::DeviceKey => Fields(vec![("path", vec![0])]),
            Wrap::Hpke => self.path(signature),
        };
        Fields([self.terms.0.clone(), wrapping.0, path.0].concat())
    }

    pub(super) fn grant(&self) -> Fields {
        self.signed(self.wrapping())
    }

    pub(super) fn case(&self, name: impl Into<String>, comment: impl Into<String>) -> Case {
        self.case_with(name, comment, &self.model.bytes(), &grant_bytes(&self.grant().concat()))
    }

    /// With these bytes.
    pub(super) fn case_with(
        &self,
        name: impl Into<String>,
        comment: impl Into<String>,
        sealed: &[u8],
        grant: &[u8],
    ) -> Case {
        let mut case = Case::new(name, comment, "open-grant").sealed(sealed).grant(grant);
        case.device = Some(self.device.clone());
        case.trust(&self.trust).profile(self.profile)
    }

    /// Opens. The model and the grant are those that `modelseal-core` makes.
    pub(super) fn opens(&self, name: impl Into<String>, comment: impl Into<String>) -> Case {
        let (wrapping, terms) = (self.wrapping(), self.terms.concat());
        self.compare_with_core(&wrapping);
        let mut case = self.case(name, comment).value("terms", &terms).value("leaf", &self.leaf(&wrapping));
        case = self.model.content_values(self.model.header_values(case));
        case = case.value("terms_hash", &Sha256::digest(&terms));
        case = match self.wrap {
            Wrap::DeviceKey => {
                let okm = grant_okm(&self.secret, &bytes("salt"), &terms, &self.id);
                case.value("grant_key", &okm[..32]).value("grant_nonce", &okm[32..])
            }
            Wrap::Hpke => self
                .hpke_values(case, &wrapping)
                .value("info", &info(&self.id))
                .value("grants_signed_bytes", &grants_message(&self.root(self.leaf(&wrapping)))),
        };
        let floor: u64 = postcard::from_bytes(self.terms.get("floor")).unwrap();
        case.opened(&self.model.plain, Some(floor.max(self.device.floor.unwrap().0)))
    }

    fn hpke_values(&self, case: Case, wrapping: &Fields) -> Case {
        let encapsulated = wrapping.get("first").try_into().unwrap();
        let keys = forge::hpke_keys(self.model.spec.suite, &self.secret, encapsulated, &self.id);
        case.value("shared_secret", &keys.shared)
            .value("hpke_key", &keys.key)
            .value("hpke_nonce", &keys.nonce)
    }

    fn compare_with_core(&self, wrapping: &Fields) {
        let spec = &self.model.spec;
        let subject = Subject {
            suite: Suite::try_from(spec.suite).unwrap(),
            chunk_log2: spec.chunk_log2,
            align_log2: spec.align_log2,
            line: &spec.line,
            version: spec.version,
            kind: &spec.kind,
            length: spec.length as u64,
            created: spec.created,
            claims: spec.claims.iter().map(|(key, value)| Claim { key, value }).collect(),
        };
        let (slots, mut payload) = (u8::try_from(spec.slots).unwrap(), self.model.plain.clone());
        let mut sealing: Sealing<'_> = Sealing::new(subject, slots, &mut Rng::new("content key")).unwrap();
        let chunks = payload.chunks_mut(1 << spec.chunk_log2);
        let index: Vec<u8> = chunks.flat_map(|chunk| sealing.seal_next(chunk).unwrap().encode()).collect();
        let unsigned = sealing.finish().unwrap();
        assert_eq!(unsigned.header_bytes(), self.model.header());
        assert!(index == self.model.index && payload == self.model.payload);

        let publisher = Publisher::new(&[spec.signer.public()]).unwrap();
        let header = self.model.header();
        let header = Header::parse(&header).unwrap();
        let verified = header.verify(&Signature::from_bytes(&self.model.signature), &publisher).unwrap();
        let unwrapped = Unwrapped::by_vault(verified, &self.model.content).unwrap();
        let mut terms = Terms::new(&unwrapped, DeviceId::new(&self.device.id).unwrap());
        terms.floor = postcard::from_bytes(self.terms.get("floor")).unwrap();
        let number = |field: &[u8]| postcard::from_bytes::<u64>(field).unwrap();
        terms.validity = (self.terms.get("validity") == [1]).then(|| Validity {
            not_before: number(self.terms.get("not_before")),
            not_after: number(self.terms.get("not_after")),
        });
        match self.wrap {
            Wrap::DeviceKey => {
                let key = DeviceKey::from_bytes(&self.secret);
                let grant = wrap_for_device_key(&unwrapped, &terms, &key, &mut Rng::new("salt")).unwrap();
                assert_eq!(*grant, grant_bytes(&self.grant().concat()));
            }
            Wrap::Hpke => {
                let public = x25519_public(&self.secret);
                let grant = wrap_for_x25519(&unwrapped, &terms, &public, &mut Rng::new("hpke")).unwrap();
                assert_eq!(grant.leaf(), self.leaf(wrapping));
            }
        }
    }
}

fn grant_okm(key: &[u8; 32], salt: &[u8; 32], terms: &[u8], id: &[u8; 32]) -> [u8; 44] {
    let label = &b"modelseal/v1/device-grant\0"[..];
    forge::expand(key, &[label, salt, &Sha256::digest(terms), id].concat())
}

pub(super) fn grants_message(root: &[u8; 32]) -> Vec<u8> {
    [&b"modelseal/v1/grants\0"[..], root].concat()
}

fn info(id: &[u8; 32]) -> Vec<u8> {
    [&b"modelseal/v1/hpke-grant\0"[..], id].concat()
}

/// With the prefix.
pub(super) fn grant_bytes(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_le_bytes();
    [b"\x89MSGRT\x1a\n\x01\0", &length[..], body].concat()
}

pub(super) fn x25519_public(secret: &[u8; 32]) -> [u8; 32] {
    let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(secret).unwrap();
    let mut public = [0; 32];
    X25519HkdfSha256::sk_to_pk(&secret).write_exact(&mut public);
    public
}

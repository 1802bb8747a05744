//! The conformance vectors, by modelseal: as a host through its own reader of files, as a device through the core
//! alone. Both must say what the specification says, and the files must be those that are generated.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::array::ArraySize;
use aes_gcm::aead::consts::{U12, U13, U14, U15, U16};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, KeyInit};
use getrandom::SysRng;
use modelseal::cipher::Backend;
use modelseal::list::{Entry, List};
use modelseal::open::SealedFile;
use modelseal_core::Error;
use modelseal_core::grant::{DeviceId, Grant, check_x25519};
use modelseal_core::keys::{DeviceKey, Secret, X25519Secret, content_key_aad};
use modelseal_core::open::{Conditions, Confirmation, FloorStore, Request, Unwrapped};
use modelseal_core::sealed::{Envelope, Header, PREFIX_LEN, Prefix, Slot};
use modelseal_core::sign::{Publisher, PublisherKey};
use modelseal_hsm::{Location, Passphrase};
use modelseal_tests::vectors::{Case, ERRORS, Expect, File, Key, LAYERS, Number, Opened, all, unbase64};
use modelseal_tests::workspace::PASSPHRASE;
use modelseal_tests::{counted, forge};
use rand_core::UnwrapErr;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/cases");

#[test]
fn modelseal_agrees_with_every_vector() {
    let dir = modelseal_tests::scratch();
    let (mut opened, mut refused, mut wrong) = (0, BTreeMap::new(), Vec::new());
    let mut codes = BTreeSet::new();
    for entry in std::fs::read_dir(CASES).unwrap() {
        let path = entry.unwrap().path();
        let case: Case = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(path.file_stem().unwrap().to_str(), Some(case.name.as_str()));
        match &case.expect {
            Expect::Refused { code, .. } => {
                *refused.entry(case.layer.clone().expect("a layer")).or_insert(0) += 1;
                codes.insert(*code);
            }
            Expect::Class(_) => *refused.entry(case.layer.clone().expect("a layer")).or_insert(0) += 1,
            _ => {
                assert_eq!(case.layer, None, "{}", case.name);
                opened += 1;
            }
        }
        let mut run = Run { case: &case, values: BTreeMap::new(), file: dir.path().join("sealed") };
        let outcome = run.outcome();
        if outcome != case.expect {
            wrong.push(format!("{}: expected {:?}, got {outcome:?}", case.name, case.expect));
        }
        for (name, expected) in &case.values {
            match run.values.get(name.as_str()) {
                Some(value) if value != expected => wrong.push(format!("{}: {name} is {value}", case.name)),
                None if (opens(&case) || case.fleet.is_some()) && !PRIVATE.contains(&name.as_str()) => {
                    wrong.push(format!("{}: {name} isn't computed", case.name));
                }
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let count: usize = refused.values().sum();
    counted(&format!("vectors: {opened} positive, {count} negative: {refused:?}"));
    assert!(opened >= 60, "{opened} positive vectors are too few");
    assert!(count >= 120, "{count} negative vectors are too few");
    assert!(LAYERS.iter().all(|layer| refused.contains_key(*layer)), "{refused:?}");
    // Storage that fails and memory of another length are no matter of files.
    let all: BTreeSet<u16> =
        ERRORS.iter().map(|error| error.0).filter(|code| !matches!(code, 601 | 602)).collect();
    assert_eq!(codes, all, "every error has a vector");
}

/// In a process for each back end, for the environment chooses it.
#[test]
fn every_back_end_agrees_with_every_vector() {
    for backend in Backend::ALL {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "modelseal_agrees_with_every_vector"]).env_remove("MODELSEAL_EVIDENCE");
        let ran = again.env("MODELSEAL_BACKEND", backend.name()).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{backend:?}: {said}");
        counted(&format!("vectors: all, with the back end {}", backend.name()));
    }
    let mut none = std::process::Command::new(modelseal_tests::workspace::program());
    let none = none.args(["open", "x", "-o", "y"]).env("MODELSEAL_BACKEND", "other").output().unwrap();
    assert_eq!(none.status.code(), Some(2), "{}", String::from_utf8_lossy(&none.stderr));
}

#[test]
fn the_files_are_those_that_are_generated() {
    let cases = all();
    let names: BTreeSet<String> = cases.iter().map(|case| format!("{}.json", case.name)).collect();
    assert_eq!(names.len(), cases.len(), "names are unique");
    let files: BTreeSet<String> = std::fs::read_dir(CASES)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, names);
    for case in cases {
        let file = std::fs::read_to_string(Path::new(CASES).join(format!("{}.json", case.name))).unwrap();
        assert!(file == case.to_json(), "{} isn't what the generator writes", case.name);
    }
}

/// What core keeps to itself. If it computed one of these otherwise, nothing would open.
const PRIVATE: [&str; 15] = [
    "subject",
    "terms",
    "leaf",
    "grants_signed_bytes",
    "info",
    "grant_key",
    "grant_nonce",
    "payload_key",
    "base_nonce",
    "subject_hash",
    "last_nonce",
    "terms_hash",
    "shared_secret",
    "hpke_key",
    "hpke_nonce",
];

fn opens(case: &Case) -> bool {
    matches!(case.expect, Expect::Opened(_))
}

struct Run<'a> {
    case: &'a Case,
    values: BTreeMap<&'static str, String>,
    file: std::path::PathBuf,
}

/// The name of what was wrong, as either library says it.
type Refusal = &'static str;

impl Run<'_> {
    fn outcome(&mut self) -> Expect {
        if let Some(list) = &self.case.list {
            return self.parse_list(&unbase64(list));
        }
        match self.operate() {
            Ok(None) => Expect::Accepted(true),
            Ok(Some(opened)) => Expect::Opened(opened),
            Err(name) => {
                let code = ERRORS.iter().find(|error| error.1 == name).expect("a name of section 8").0;
                Expect::Refused { code, name: name.into() }
            }
        }
    }

    fn parse_list(&self, bytes: &[u8]) -> Expect {
        let list = match List::parse(bytes) {
            Ok(list) => list,
            Err(error) => return Expect::Class(u16::from(error.code() as u8)),
        };
        let file = |entry: &Entry| File {
            path: entry.path.clone(),
            id: hex::encode(entry.id),
            length: Number(entry.length),
        };
        let files: Vec<_> = list.files().iter().map(file).collect();
        assert_eq!(self.case.files.as_ref(), Some(&files), "{}", self.case.name);
        Expect::Accepted(true)
    }

    fn operate(&mut self) -> Result<Option<Opened>, Refusal> {
        let host = self.case.profile.as_deref() != Some("device");
        match self.case.operation.as_str() {
            "open-grant" if host => self.open_as_host(Self::by_grant).map(Some),
            "open-grant" => self.open_as_device().map(Some).map_err(Error::name),
            "open-vault" => self.open_as_host(Self::by_vault).map(Some),
            "verify" => self
                .sealed_file()?
                .verify(&self.publisher().map_err(Error::name)?, &mut |_| ())
                .map_err(name)
                .map(|()| None),
            "parse-sealed" => self.sealed_file().map(|_| None),
            "parse-grant" => Grant::parse(&self.grant()).map(|_| None).map_err(Error::name),
            "check-x25519" => {
                let key = bytes(self.case.key.as_ref().unwrap()).map_err(Error::name)?;
                check_x25519(&key, &mut UnwrapErr(SysRng)).map(|()| None).map_err(Error::name)
            }
            "derive-device-key" => {
                self.derive();
                Ok(None)
            }
            "check-publisher-key" => self.publisher().map(|_| None).map_err(Error::name),
            operation => panic!("{operation}"),
        }
    }

    /// By a vault that has the forge's fleet key.
    fn derive(&mut self) {
        let fleet = self.case.fleet.as_ref().unwrap();
        assert_eq!(fleet.key, hex::encode(forge::FLEET_KEY));
        std::fs::write(&self.file, forge::vault_file(PASSPHRASE, &[1])).unwrap();
        let passphrase = || Ok(Passphrase::new(String::from(PASSPHRASE).into()));
        let vault = modelseal_hsm::open(&Location::File(self.file.clone()), &passphrase).unwrap();
        let key = vault.device_key(DeviceId::new(&fleet.device).unwrap(), 1).unwrap();
        self.values = BTreeMap::from([("device_key", hex::encode(key.expose_to_factory()))]);
    }

    fn sealed(&self) -> Vec<u8> {
        unbase64(self.case.sealed.as_ref().unwrap())
    }

    fn grant(&self) -> Vec<u8> {
        unbase64(self.case.grant.as_ref().unwrap())
    }

    fn sealed_file(&self) -> Result<SealedFile, Refusal> {
        std::fs::write(&self.file, self.sealed()).unwrap();
        SealedFile::open(&self.file).map_err(name)
    }

    fn publisher(&self) -> Result<Publisher, Error> {
        let keys: Result<Vec<PublisherKey>, Error> =
            self.case.publisher.iter().flatten().map(publisher_key).collect();
        Publisher::new(&keys?)
    }

    fn secret(&self) -> Secret {
        let device = self.case.device.as_ref().unwrap();
        match (&device.device_key, &device.x25519) {
            (Some(key), None) => Secret::DeviceKey(DeviceKey::from_bytes(&bytes(key).unwrap())),
            (None, Some(key)) => Secret::X25519(X25519Secret::from_bytes(&bytes(key).unwrap())),
            _ => panic!("{}: one key", self.case.name),
        }
    }

    /// Steps 2 to 6.
    fn admit<'h>(&self, request: Request<'h, '_>) -> Result<Unwrapped<'h>, Error> {
        let (device, secret) = (self.case.device.as_ref().unwrap(), self.secret());
        let floor = device.floor.ok_or(Error::Floor)?.0;
        let (id, now) = (DeviceId::new(&device.id)?, device.now.map(|now| now.0));
        let conditions = Conditions { line: &device.line, device: id, now, floor };
        let named = request.authenticate(&secret, &self.publisher()?)?.name(&device.line)?;
        named.admit(&conditions)?.unwrap(&secret, &conditions)
    }

    fn by_grant<'h>(&self, header: Header<'h>, envelope: &Envelope) -> Result<Unwrapped<'h>, Error> {
        let grant = self.grant();
        let request = Request::new(header, *envelope.signature(), Grant::parse(&grant)?);
        request.verify_manifest(&self.publisher()?)?;
        self.admit(request)
    }

    fn by_vault<'h>(&self, header: Header<'h>, envelope: &Envelope) -> Result<Unwrapped<'h>, Error> {
        let vault = self.case.vault.as_ref().unwrap();
        let header = header.verify(envelope.signature(), &self.publisher()?)?;
        let aad = content_key_aad(&header.id());
        let content = envelope.slots().find_map(|slot| {
            let master: [u8; 32] = bytes(vault.master.get(&slot.version.to_string())?).unwrap();
            match slot.nonce.as_bytes().len() {
                12 => open_slot::<U12>(&master, &slot, &aad),
                13 => open_slot::<U13>(&master, &slot, &aad),
                14 => open_slot::<U14>(&master, &slot, &aad),
                15 => open_slot::<U15>(&master, &slot, &aad),
                _ => open_slot::<U16>(&master, &slot, &aad),
            }
        });
        let unwrapped = Unwrapped::by_vault(header, &content.ok_or_else(|| envelope.unopened())?)?;
        vault.line.as_ref().map_or(Ok(()), |line| unwrapped.header().require_line(line))?;
        Ok(unwrapped)
    }

    fn open_as_host(
        &mut self,
        unwrap: for<'h> fn(&Self, Header<'h>, &Envelope) -> Result<Unwrapped<'h>, Error>,
    ) -> Result<Opened, Refusal> {
        let (mut model, mut values) = (Vec::new(), BTreeMap::new());
        let mut out = |bytes: &[u8]| {
            model.extend_from_slice(bytes);
            Ok(())
        };
        let confirmation = self.sealed_file()?.copy_to(
            |sealed| {
                let unwrapped = unwrap(self, sealed.header()?, sealed.envelope())?;
                values = values_of(&unwrapped);
                Ok(unwrapped)
            },
            &mut out,
            &mut |_| (),
        );
        let confirmation = confirmation.map_err(name)?;
        self.values = values;
        Ok(self.opened(&model, confirmation))
    }

    /// From storage, which nobody said the length of: what isn't there is found missing where it is read.
    fn open_as_device(&mut self) -> Result<Opened, Error> {
        let (sealed, grant) = (self.sealed(), self.grant());
        let prefix = Prefix::parse(sealed.first_chunk::<PREFIX_LEN>().ok_or(Error::Truncated)?)?;
        let header = Header::parse(sealed.get(..prefix.header_len()).ok_or(Error::Truncated)?)?;
        let layout = header.layout();
        let signature = sealed.get(layout.envelope as usize..).and_then(<[u8]>::first_chunk);
        let signature = modelseal_core::sign::Signature::from_bytes(signature.ok_or(Error::Truncated)?);
        let unwrapped = self.admit(Request::new(header, signature, Grant::parse(&grant)?))?;
        self.values = values_of(&unwrapped);
        let payload = sealed.get(layout.payload as usize..layout.end as usize).ok_or(Error::Truncated)?;
        let mut memory = payload.to_vec();
        let tag = |i| Ok(*sealed[(layout.index + 48 * i) as usize..].first_chunk().unwrap());
        let opened = unwrapped.open_in_place(&mut memory, tag)?;
        let mut store = Store(self.case.device.as_ref().unwrap().floor.unwrap().0);
        let model = opened.confirm(&mut store)?;
        Ok(opened_model(model, Some(store.0)))
    }

    fn opened(&self, model: &[u8], confirmation: Confirmation) -> Opened {
        let floor = self.case.device.as_ref().map(|device| {
            let mut store = Store(device.floor.unwrap().0);
            confirmation.confirm(&mut store).unwrap();
            store.0
        });
        opened_model(model, floor)
    }
}

fn opened_model(model: &[u8], floor: Option<u64>) -> Opened {
    let model_blake3 = blake3::hash(model).to_hex().to_string();
    Opened { model_blake3, length: Number(model.len() as u64), floor: floor.map(Number) }
}

fn values_of(unwrapped: &Unwrapped<'_>) -> BTreeMap<&'static str, String> {
    let header = unwrapped.header();
    BTreeMap::from([
        ("content_key", hex::encode(unwrapped.content_key().expose_to_vault())),
        ("model_id", header.id().to_string()),
        ("signed_bytes", hex::encode(header.signed_bytes())),
        ("root", hex::encode(header.manifest().root)),
        ("commitment", hex::encode(header.manifest().commitment)),
    ])
}

fn name(error: modelseal::Error) -> Refusal {
    error.name().unwrap_or_else(|| panic!("{error:?}"))
}

fn publisher_key(key: &Key) -> Result<PublisherKey, Error> {
    Ok(match key {
        Key::Ed25519 { key } => PublisherKey::Ed25519(bytes(key)?),
        Key::P256 { x, y } => PublisherKey::EcdsaP256 { x: bytes(x)?, y: bytes(y)? },
    })
}

fn bytes(hex: &str) -> Result<[u8; 32], Error> {
    hex::decode(hex).unwrap().try_into().map_err(|_| Error::Key)
}

/// A stored floor.
struct Store(u64);

impl FloorStore for Store {
    fn floor(&mut self) -> Result<u64, Error> {
        Ok(self.0)
    }

    fn raise(&mut self, floor: u64) -> Result<(), Error> {
        self.0 = floor;
        Ok(())
    }
}

fn open_slot<N: ArraySize>(master: &[u8; 32], slot: &Slot, aad: &[u8]) -> Option<[u8; 32]> {
    let mut content = slot.ciphertext;
    let (cipher, nonce) = (AesGcm::<Aes256, N>::new(master.into()), slot.nonce.as_bytes().try_into().ok()?);
    cipher.decrypt_inout_detached(nonce, aad, (&mut content[..]).into(), &slot.tag.into()).ok()?;
    Some(content)
}

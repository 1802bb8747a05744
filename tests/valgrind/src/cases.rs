//! What is done with secrets: the paths of FORMAT.md, section 7, that a reader takes, with the right key and with a
//! wrong one, and the way back, which a sealer and a vault take.

use modelseal_core::Error;
use modelseal_core::chunk::Portable;
use modelseal_core::grant::{DeviceId, Grant, wrap_for_device_key, wrap_for_x25519};
use modelseal_core::keys::{DeviceKey, Secret, X25519Secret};
use modelseal_core::lazy::{IndexCheck, Lazy};
use modelseal_core::open::{Conditions, Request, Unwrapped};
use modelseal_core::seal::Sealing;

use crate::scene::{DEVICE, DEVICE_KEY, LINE, Scene, X25519, subject, terms};
use crate::secret::{Random, hide, is_secret, public, secret};

/// Its name, and what it does.
type Case = (&'static str, fn(&Scene));

pub(crate) const ALL: [Case; 14] = [
    ("derivation and commitment", vault),
    ("derivation and commitment, wrong content key", vault_wrong),
    ("unwrap with a device key", device_key),
    ("unwrap with a device key, wrong", device_key_wrong),
    ("unwrap with an x25519 key", x25519),
    ("unwrap with an x25519 key, wrong", x25519_wrong),
    ("public half of an x25519 key", x25519_public),
    ("open in place", in_place),
    ("open in place, wrong tag", in_place_wrong),
    ("open one chunk", one_chunk),
    ("open one chunk, wrong tag", one_chunk_wrong),
    ("seal", seal),
    ("wrap for a device key", wrap_device_key),
    ("wrap for an x25519 key", wrap_x25519),
];

fn vault(scene: &Scene) {
    let unwrapped = Unwrapped::by_vault(scene.verified(), &secret(scene.content)).unwrap();
    assert!(is_secret(unwrapped.content_key().expose_to_vault()));
}

fn vault_wrong(scene: &Scene) {
    let refused = Unwrapped::by_vault(scene.verified(), &secret([1; 32]));
    assert!(matches!(refused, Err(Error::Commitment)));
}

fn device_key(scene: &Scene) {
    unwraps(scene, &scene.device_grant, &as_device_key(DEVICE_KEY));
}

fn device_key_wrong(scene: &Scene) {
    refuses(scene, &scene.device_grant, &as_device_key([1; 32]));
}

fn x25519(scene: &Scene) {
    unwraps(scene, &scene.hpke_grant, &as_x25519(X25519));
}

fn x25519_wrong(scene: &Scene) {
    refuses(scene, &scene.hpke_grant, &as_x25519([1; 32]));
}

fn as_device_key(bytes: [u8; 32]) -> Secret {
    Secret::DeviceKey(DeviceKey::from_bytes(&secret(bytes)))
}

fn as_x25519(bytes: [u8; 32]) -> Secret {
    Secret::X25519(X25519Secret::from_bytes(&secret(bytes)))
}

fn unwraps(scene: &Scene, grant: &[u8], key: &Secret) {
    let unwrapped = unwrap(scene, grant, key).unwrap();
    assert!(is_secret(unwrapped.content_key().expose_to_vault()));
}

fn refuses(scene: &Scene, grant: &[u8], key: &Secret) {
    assert!(matches!(unwrap(scene, grant, key), Err(Error::GrantKey)));
}

/// Steps 1 to 6.
fn unwrap<'a>(scene: &'a Scene, grant: &[u8], key: &Secret) -> Result<Unwrapped<'a>, Error> {
    let request = Request::new(scene.header(), scene.signature, Grant::parse(grant)?);
    let named = request.authenticate(key, &scene.publisher)?.name(LINE)?;
    let conditions = Conditions { line: LINE, device: DeviceId::new(DEVICE)?, now: None, floor: 0 };
    named.admit(&conditions)?.unwrap(key, &conditions)
}

fn x25519_public(_: &Scene) {
    let public = X25519Secret::from_bytes(&secret(X25519)).public().unwrap();
    assert!(is_secret(&public));
}

fn in_place(scene: &Scene) {
    let mut memory = scene.payload.clone();
    let unwrapped = Unwrapped::by_vault(scene.verified(), &secret(scene.content)).unwrap();
    let opened = unwrapped.open_in_place(&mut memory, |i| Ok(scene.entries[i as usize].tag)).unwrap();
    assert!(is_secret(opened.model()));
}

fn in_place_wrong(scene: &Scene) {
    let mut memory = scene.payload.clone();
    let unwrapped = Unwrapped::by_vault(scene.verified(), &secret(scene.content)).unwrap();
    let refused = unwrapped.open_in_place(&mut memory, |_| Ok([0; 16]));
    assert!(matches!(public(refused), Err(Error::Chunk)));
}

fn one_chunk(scene: &Scene) {
    let mut chunk = scene.payload[1024..2048].to_vec();
    lazy(scene).keyed::<Portable>().unwrap().open_chunk(1, &scene.entries[1], &mut chunk).unwrap();
    assert!(is_secret(&chunk));
}

fn one_chunk_wrong(scene: &Scene) {
    let mut chunk = scene.payload[1024..2048].to_vec();
    let mut entry = scene.entries[1];
    entry.tag = [0; 16];
    let refused = lazy(scene).keyed::<Portable>().unwrap().open_chunk(1, &entry, &mut chunk);
    assert_eq!(public(refused), Err(Error::Chunk));
}

fn lazy(scene: &Scene) -> Lazy {
    let mut check = IndexCheck::new(&scene.header());
    scene.entries.iter().try_for_each(|entry| check.push(entry)).unwrap();
    let unwrapped = Unwrapped::by_vault(scene.verified(), &secret(scene.content)).unwrap();
    unwrapped.into_lazy(check.finish().unwrap()).unwrap()
}

/// A content key that memcheck takes for undefined from the moment it is made, and a model likewise.
fn seal(scene: &Scene) {
    let mut sealing: Sealing<'_> = Sealing::new(subject(scene.suite), 1, &mut Random::secret()).unwrap();
    let mut model = vec![7; 2500];
    hide(&mut model);
    for chunk in model.chunks_mut(1024) {
        sealing.seal_next(chunk).unwrap();
    }
    assert!(is_secret(&model));
    let unsigned = sealing.finish().unwrap();
    assert!(is_secret(unsigned.content_key().expose_to_vault()));
}

fn wrap_device_key(scene: &Scene) {
    let unwrapped = Unwrapped::by_vault(scene.verified(), &secret(scene.content)).unwrap();
    let key = DeviceKey::from_bytes(&secret(DEVICE_KEY));
    let grant = wrap_for_device_key(&unwrapped, &terms(&unwrapped), &key, &mut Random::public()).unwrap();
    assert_eq!(grant.len(), scene.device_grant.len());
}

/// The ephemeral key is a secret, too.
fn wrap_x25519(scene: &Scene) {
    let unwrapped = Unwrapped::by_vault(scene.verified(), &secret(scene.content)).unwrap();
    let public = X25519Secret::from_bytes(&X25519).public().unwrap();
    let grant = wrap_for_x25519(&unwrapped, &terms(&unwrapped), &public, &mut Random::secret()).unwrap();
    assert!(is_secret(&grant.leaf()));
}

//! The life of a vault's keys, told once for every kind of vault.

use std::collections::BTreeSet;

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use modelseal_core::grant::DeviceId;
use modelseal_core::manifest::{Subject, Suite};
use modelseal_core::seal::{Sealing, Unsigned};
use modelseal_core::sealed::{Envelope, Header, Slot};
use modelseal_core::sign::PublisherKey;
use modelseal_hsm::{Algorithm, Error, Role, Vault};

/// A model of one chunk, sealed but for its envelope.
fn sealed() -> Unsigned {
    let subject = Subject {
        suite: Suite::Aes256Gcm,
        chunk_log2: 10,
        align_log2: 4,
        line: "wake-word",
        version: 1,
        kind: "onnx",
        length: 100,
        created: 1_750_000_000,
        claims: Default::default(),
    };
    let mut sealing: Sealing<'_> = Sealing::new(subject, 4, &mut UnwrapErr(SysRng)).unwrap();
    sealing.seal_next(&mut [7; 100]).unwrap();
    sealing.finish().unwrap()
}

/// The content key that the vault gets out of the envelope.
fn unwrap(vault: &dyn Vault, model: &Unsigned, envelope: &Envelope) -> Result<[u8; 32], Error> {
    let unwrapped = vault.unwrap(model.header().unwrap(), envelope)?;
    Ok(*unwrapped.content_key().expose_to_vault())
}

fn versions(vault: &dyn Vault, role: Role) -> Vec<u32> {
    vault.keys().unwrap().iter().filter(|key| key.role == role).map(|key| key.version).collect()
}

/// An envelope with these slots and the signature of another.
fn with_slots(envelope: &Envelope, slots: &[Option<Slot>]) -> Envelope {
    let signature = envelope.signature().to_bytes();
    let slots = slots.iter().map(|slot| slot.map_or(Slot::EMPTY, |slot| slot.encode()));
    Envelope::parse(&[&signature[..], slots.collect::<Vec<_>>().as_flattened()].concat()).unwrap()
}

/// All chapters, for a vault that was just made. `reopen` opens it once more, as another process would.
pub(crate) fn tell(vault: &dyn Vault, reopen: &dyn Fn() -> Box<dyn Vault>) {
    a_new_master_key_wraps_and_the_old_one_still_opens(vault, reopen);
    a_retired_master_key_opens_nothing_until_it_is_reinstated(vault, reopen);
    a_destroyed_master_key_takes_what_only_it_wrapped_along(vault, reopen);
    a_retired_fleet_key_makes_no_device_keys(vault);
    a_retired_publisher_key_is_not_trusted(vault, reopen);
    only_what_is_there_and_older_can_be_retired(vault);
    what_another_process_changes_counts_at_once(vault, reopen);
}

fn a_new_master_key_wraps_and_the_old_one_still_opens(
    vault: &dyn Vault,
    reopen: &dyn Fn() -> Box<dyn Vault>,
) {
    let model = sealed();
    let content = *model.content_key().expose_to_vault();
    let old = vault.publish(&model).unwrap();
    let header = || Header::parse(model.header_bytes()).unwrap();
    assert_eq!(vault.rewrap(header(), &old).unwrap(), None, "it is the newest already");

    assert_eq!(vault.rotate(Role::Master, None).unwrap(), 2);
    for vault in [vault, &*reopen()] {
        assert_eq!((versions(vault, Role::Master), vault.newest(Role::Master).unwrap()), (vec![1, 2], 2));
        assert_eq!(unwrap(vault, &model, &old).unwrap(), content);
        assert_eq!(vault.publish(&sealed()).unwrap().slots().next().unwrap().version, 2);
    }
    let slot = vault.rewrap(header(), &old).unwrap().unwrap();
    assert_eq!(slot.version, 2);
    let first = *old.slots().next().unwrap();
    let both = with_slots(&old, &[Some(first), None, Some(slot)]);
    let open: Vec<_> =
        vault.open_slots(header(), &both).unwrap().iter().map(|slot| (slot.number, slot.version)).collect();
    assert_eq!(open, [(0, 1), (2, 2)]);
    assert_eq!(vault.rewrap(header(), &both).unwrap(), None, "one that opens has it already");
    assert_eq!(unwrap(vault, &model, &with_slots(&old, &[Some(slot)])).unwrap(), content);

    // A slot of the newest version that doesn't open, as a torn write leaves it, isn't taken for one that does.
    let torn = Slot { tag: [0; 16], ..slot };
    let torn = with_slots(&old, &[Some(first), Some(torn)]);
    assert_eq!(vault.open_slots(header(), &torn).unwrap().len(), 1);
    assert_eq!(vault.rewrap(header(), &torn).unwrap().unwrap().version, 2);
    // Nor is anything rewrapped that this vault's publisher didn't sign.
    let mut signature = old.encode();
    signature[0] ^= 1;
    let forged = Envelope::parse(&signature).unwrap();
    let refused = vault.rewrap(header(), &forged).err();
    assert!(matches!(refused, Some(Error::Core(modelseal_core::Error::ManifestSignature))), "{refused:?}");
}

fn a_retired_master_key_opens_nothing_until_it_is_reinstated(
    vault: &dyn Vault,
    reopen: &dyn Fn() -> Box<dyn Vault>,
) {
    // Version 3 is the newest, so 2 is as old as 1.
    let model = sealed();
    let envelope = vault.publish(&model).unwrap();
    vault.rotate(Role::Master, None).unwrap();
    vault.retire(Role::Master, 2).unwrap();
    vault.retire(Role::Master, 2).unwrap();
    for vault in [vault, &*reopen()] {
        assert_eq!(vault.retired().unwrap(), [(Role::Master, 2)]);
        let refused = unwrap(vault, &model, &envelope).err();
        assert!(matches!(refused, Some(Error::Retired(Role::Master, 2))), "{refused:?}");
        assert!(vault.open_slots(model.header().unwrap(), &envelope).unwrap().is_empty());
        assert!(vault.rewrap(model.header().unwrap(), &envelope).is_err());
    }
    vault.reinstate(Role::Master, 2).unwrap();
    assert_eq!(*model.content_key().expose_to_vault(), unwrap(&*reopen(), &model, &envelope).unwrap());
    assert!(reopen().retired().unwrap().is_empty());
}

fn a_destroyed_master_key_takes_what_only_it_wrapped_along(
    vault: &dyn Vault,
    reopen: &dyn Fn() -> Box<dyn Vault>,
) {
    let (lost, moved) = (sealed(), sealed());
    let [old, rewrapped] = [&lost, &moved].map(|model| vault.publish(model).unwrap());
    vault.rotate(Role::Master, None).unwrap();
    let slot = vault.rewrap(moved.header().unwrap(), &rewrapped).unwrap();
    let rewrapped = with_slots(&rewrapped, &[slot]);
    let refused = vault.destroy(Role::Master, 3).err();
    assert!(matches!(refused, Some(Error::NotRetired(Role::Master, 3))), "{refused:?}");
    vault.retire(Role::Master, 3).unwrap();
    vault.destroy(Role::Master, 3).unwrap();
    for vault in [vault, &*reopen()] {
        assert_eq!(versions(vault, Role::Master), [1, 2, 4]);
        assert!(vault.retired().unwrap().is_empty());
        let refused = unwrap(vault, &lost, &old).err();
        assert!(matches!(refused, Some(Error::Core(modelseal_core::Error::KeySlot))), "{refused:?}");
        assert_eq!(unwrap(vault, &moved, &rewrapped).unwrap(), *moved.content_key().expose_to_vault());
    }
    // Its version isn't given to another key.
    assert_eq!(vault.rotate(Role::Master, None).unwrap(), 5);
    let gone = [vault.reinstate(Role::Master, 3), vault.destroy(Role::Master, 3)];
    assert!(gone.iter().all(|gone| matches!(gone, Err(Error::NoVersion(Role::Master, 3)))), "{gone:?}");
}

fn a_retired_fleet_key_makes_no_device_keys(vault: &dyn Vault) {
    let id = DeviceId::new("kitchen-7").unwrap();
    let key = |version| vault.device_key(id, version).map(|key| *key.expose_to_factory());
    let first = key(1).unwrap();
    assert_eq!(vault.rotate(Role::Fleet, None).unwrap(), 2);
    assert_eq!(key(1).unwrap(), first);
    assert_ne!(key(2).unwrap(), first);
    vault.retire(Role::Fleet, 1).unwrap();
    assert!(matches!(key(1), Err(Error::Retired(Role::Fleet, 1))));
    vault.reinstate(Role::Fleet, 1).unwrap();
    assert_eq!(key(1).unwrap(), first);
}

fn a_retired_publisher_key_is_not_trusted(vault: &dyn Vault, reopen: &dyn Fn() -> Box<dyn Vault>) {
    let old = sealed();
    let signed_by_old = vault.publish(&old).unwrap();
    let first = vault.publisher_key(1).unwrap();
    assert_eq!(vault.rotate(Role::Publisher, Some(Algorithm::EcdsaP256)).unwrap(), 2);
    let second = vault.publisher_key(2).unwrap();
    assert!(matches!(second, PublisherKey::EcdsaP256 { .. }), "{second:?}");
    assert_eq!(vault.publisher().unwrap().keys(), [second, first]);
    unwrap(vault, &old, &signed_by_old).unwrap();
    let (new, refused) = (sealed(), vault.rotate(Role::Publisher, Some(Algorithm::Aes256)));
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    let signed_by_new = vault.publish(&new).unwrap();

    vault.retire(Role::Publisher, 1).unwrap();
    for vault in [vault, &*reopen()] {
        assert_eq!(vault.publisher().unwrap().keys(), [second]);
        let refused = unwrap(vault, &old, &signed_by_old).err();
        assert!(
            matches!(refused, Some(Error::Core(modelseal_core::Error::ManifestSignature))),
            "{refused:?}"
        );
        // It isn't opened, but what it depends on can be told.
        let slots = |model: &Unsigned, envelope| vault.open_slots(model.header().unwrap(), envelope).unwrap();
        assert_eq!((slots(&old, &signed_by_old).len(), slots(&new, &signed_by_new).len()), (1, 1));
        unwrap(vault, &new, &signed_by_new).unwrap();
    }
    // Without being told otherwise, the algorithm stays.
    assert_eq!(vault.rotate(Role::Publisher, None).unwrap(), 3);
    assert!(matches!(vault.publisher_key(3).unwrap(), PublisherKey::EcdsaP256 { .. }));
    vault.destroy(Role::Publisher, 1).unwrap();
    assert_eq!(versions(&*reopen(), Role::Publisher), [2, 3]);
    assert!(matches!(vault.publisher_key(1), Err(Error::NoVersion(Role::Publisher, 1))));
    assert!(vault.open_slots(old.header().unwrap(), &signed_by_old).is_err());
    // Readers get four keys; the vault itself knows its older ones, too.
    for version in 4..=6 {
        assert_eq!(vault.rotate(Role::Publisher, None).unwrap(), version);
    }
    for vault in [vault, &*reopen()] {
        assert!(!vault.publisher().unwrap().keys().contains(&second));
        unwrap(vault, &new, &signed_by_new).unwrap();
        assert_eq!(vault.open_slots(new.header().unwrap(), &signed_by_new).unwrap().len(), 1);
    }
}

fn only_what_is_there_and_older_can_be_retired(vault: &dyn Vault) {
    for role in Role::ALL {
        let newest = vault.newest(role).unwrap();
        assert!(matches!(vault.retire(role, newest), Err(Error::Newest(_, _))));
        assert!(matches!(vault.retire(role, newest + 1), Err(Error::NoVersion(_, _))));
        assert!(matches!(vault.destroy(role, newest), Err(Error::NotRetired(_, _))));
    }
}

/// What is sealed with a key that is gone could never be opened.
fn what_another_process_changes_counts_at_once(vault: &dyn Vault, reopen: &dyn Fn() -> Box<dyn Vault>) {
    let (other, model) = (reopen(), sealed());
    let envelope = vault.publish(&model).unwrap();
    let id = DeviceId::new("kitchen-7").unwrap();
    let derive = |fleet| vault.device_keys(&[(id, fleet)]).map(|keys| *keys[0].expose_to_factory());
    let old = Role::ALL.map(|role| vault.newest(role).unwrap());
    let [master, fleet, publisher] = old;
    let (device_key, trusted) = (derive(fleet).unwrap(), vault.publisher_key(publisher).unwrap());
    for (role, version) in Role::ALL.into_iter().zip(old) {
        other.rotate(role, None).unwrap();
        other.retire(role, version).unwrap();
    }
    let refused = unwrap(vault, &model, &envelope).err();
    // Its publisher key is retired, too.
    assert!(matches!(refused, Some(Error::Core(modelseal_core::Error::ManifestSignature))), "{refused:?}");
    assert!(matches!(derive(fleet), Err(Error::Retired(Role::Fleet, v)) if v == fleet));
    assert!(!vault.publisher().unwrap().keys().contains(&trusted));
    other.reinstate(Role::Publisher, publisher).unwrap();
    let refused = unwrap(vault, &model, &envelope).err();
    assert!(matches!(refused, Some(Error::Retired(Role::Master, v)) if v == master), "{refused:?}");
    other.reinstate(Role::Master, master).unwrap();
    other.reinstate(Role::Fleet, fleet).unwrap();
    assert_eq!(unwrap(vault, &model, &envelope).unwrap(), *model.content_key().expose_to_vault());
    assert_eq!(derive(fleet).unwrap(), device_key);

    for (role, version) in Role::ALL.into_iter().zip(old) {
        other.retire(role, version).unwrap();
        other.destroy(role, version).unwrap();
    }
    assert!(matches!(derive(fleet), Err(Error::NoVersion(Role::Fleet, v)) if v == fleet));
    let gone = vault.publisher_key(publisher);
    assert!(matches!(gone, Err(Error::NoVersion(Role::Publisher, v)) if v == publisher), "{gone:?}");
    let sealed = vault.publish(&model).unwrap();
    assert_eq!(sealed.slots().next().unwrap().version, other.newest(Role::Master).unwrap());
    assert_eq!(unwrap(&*other, &model, &sealed).unwrap(), *model.content_key().expose_to_vault());
}

/// Rotations at the same time, each through a vault of its own, all succeed and make different versions.
pub(crate) fn rotate_at_once(open: &(dyn Fn() -> Box<dyn Vault> + Sync), times: usize) {
    let made: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..times).map(|_| scope.spawn(|| open().rotate(Role::Master, None).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: BTreeSet<_> = made.iter().copied().collect();
    assert_eq!(distinct.len(), times, "{made:?}");
    let keys = versions(&*open(), Role::Master);
    assert!(distinct.iter().all(|version| keys.contains(version)), "{made:?} of {keys:?}");
    assert!(open().check().unwrap().iter().all(|finding| finding.ok));
}

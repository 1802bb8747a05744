//! `device`.

use std::path::Path;

use getrandom::SysRng;
use modelseal_core::grant::{DeviceId, check_x25519};
use modelseal_core::keys::X25519Secret;
use modelseal_core::manifest::is_line;
use modelseal_hsm::Role;
use modelseal_hsm::wiped::wiped;
use rand_core::UnwrapErr;
use serde_json::{Value, json};

use super::args::{DeviceCommand, EnrollArgs};
use super::context::{Context, time};
use super::fingerprints::Keys;
use super::models::read_trusted;
use super::terminal::name;
use crate::error::{Code, Error, Result};
use crate::files::{self, Access, Existing, Output};
use crate::fingerprint::{Fingerprint, require};
use crate::identity::{Enrolment, Identity};
use crate::opener::now;
use crate::pem;
use crate::registry::{Device, DeviceKeyKind, Locked, Registry};
use crate::update::Brought;

const PUBLIC_KEY_MAX: u64 = 64 * 1024;
const LINES_MAX: usize = 64;

pub(super) fn run(command: DeviceCommand, context: &Context<'_>) -> Result<()> {
    match command {
        DeviceCommand::Keygen { id, identity_out, public_out } => {
            keygen(&id, &identity_out, &public_out, context)
        }
        DeviceCommand::Enroll(args) => enroll(&args, context),
        DeviceCommand::Complete { identity, public_part, fingerprints } => {
            complete(&identity, &public_part, &fingerprints, context)
        }
        DeviceCommand::Trust { identity, publisher, fingerprints } => {
            trust(&identity, &publisher, &fingerprints, context)
        }
        DeviceCommand::Update { sealed, grant, port, baud } => {
            update(sealed.as_deref(), &grant, &port, baud, context)
        }
        DeviceCommand::Adopt => adopt(context),
        DeviceCommand::List => list(context),
        DeviceCommand::Show { id } => show(&id, context),
    }
}

fn device_id(id: &str) -> Result<DeviceId<'_>> {
    DeviceId::new(id).map_err(|error| Error::from(error).as_usage().with_hint("choose another id"))
}

fn keygen(id: &str, identity_out: &Path, public_out: &Path, context: &Context<'_>) -> Result<()> {
    let id = device_id(id)?;
    context.protect(public_out, &[identity_out])?;
    let (identity, public) = wiped(|| new_identity(id))?;
    // Both can be written, or neither is.
    let mut output = Output::create(public_out, Access::Public, Existing::Replace)?;
    output.write(public.as_bytes())?;
    identity.write_new(identity_out)?;
    output.commit()?;
    let keys = Keys::of(identity.public_key(), &[]);
    let object = json!({
        "device": id.as_str(),
        "identity": name(identity_out),
        "public": name(public_out),
        "fingerprint": keys.device(),
    });
    let text = format!(
        "made {}, the secret of {}, and {}, its public key",
        identity_out.display(),
        id.as_str(),
        public_out.display()
    );
    context.show(&object, &keys.below(text))
}

/// An identity and its public key.
fn new_identity(id: DeviceId<'_>) -> Result<(Identity, String)> {
    let secret = X25519Secret::generate(&mut UnwrapErr(SysRng));
    let public = pem::x25519(&secret.public()?).ok_or(modelseal_core::Error::Key)?;
    Ok((Identity::keygen(id, &secret)?, public))
}

fn enroll(args: &EnrollArgs, context: &Context<'_>) -> Result<()> {
    let id = device_id(&args.id)?;
    let lines = lines(&args.lines)?;
    let public = args.public_key.as_deref().map(|path| read_public(path, args.fingerprint)).transpose()?;
    let registry = context.registry()?;
    let vault = context.vault()?;
    let publisher = vault.publisher()?;
    let mut locked = Locked::open(&registry, &*vault)?;
    let enrolment =
        Enrolment { device: id, lines: &lines, publisher: &publisher, first_floor: args.first_floor };
    let (key, identity) = match public {
        Some(public) => {
            let text = pem::x25519(&public).ok_or(modelseal_core::Error::Key)?;
            (DeviceKeyKind::X25519(text), Identity::public_part(&enrolment, &public)?)
        }
        None => {
            let version = vault.newest(Role::Fleet)?;
            let identity = wiped(|| Identity::derived(&enrolment, &vault.device_key(id, version)?))?;
            (DeviceKeyKind::Fleet(version), identity)
        }
    };
    locked.add(id.as_str(), Device { lines: lines.clone(), key, enrolled: now().unwrap_or(0) })?;
    // The registry last: a device that is listed has been given what it needs.
    if let Some(out) = &args.identity_out {
        hand_over(&identity, out, public.as_ref(), &enrolment)?;
    }
    locked.commit()?;
    let keys = Keys::of(public, publisher.keys());
    let object = json!({
        "device": id.as_str(),
        "lines": lines,
        "identity": args.identity_out.as_ref().map(name),
        "fingerprint": keys.device(),
        "publisher_fingerprints": keys.publisher(),
    });
    context.show(&object, &keys.below(format!("enrolled {} for {}", id.as_str(), lines.join(", "))))
}

/// Writes the identity where there is none, or completes the one that `device keygen` made of the same key.
fn hand_over(
    identity: &Identity,
    out: &Path,
    public: Option<&[u8; 32]>,
    enrolment: &Enrolment<'_>,
) -> Result<()> {
    let made_of = |own: &Identity| {
        own.lines().is_empty() && own.public_key().as_ref().is_some_and(|key| Some(key) == public)
    };
    if public.is_none() || !Identity::read(out).is_ok_and(|own| made_of(&own)) {
        return identity.write_new(out);
    }
    let complete = |own: &mut Identity| {
        // It may have been completed meanwhile.
        if made_of(own) { own.complete(enrolment) } else { Err(enrolled(out)) }
    };
    Identity::update(out, complete).map(drop)
}

fn lines(lines: &[String]) -> Result<Vec<String>> {
    let mut unique: Vec<String> = Vec::new();
    for line in lines {
        if !unique.contains(line) {
            unique.push(line.clone());
        }
    }
    if unique.len() > LINES_MAX {
        return Err(Error::usage(format!("{} lines are too many", unique.len()), "give at most 64"));
    }
    for line in &unique {
        if !is_line(line) {
            let error = Error::from(modelseal_core::Error::Line).as_usage();
            return Err(error.with_hint(format!("choose another name than {line:?}")));
        }
    }
    Ok(unique)
}

/// A device's public key, which is the one with this fingerprint, if one was given.
fn read_public(path: &Path, given: Option<Fingerprint>) -> Result<[u8; 32]> {
    let text = String::from_utf8(files::read(path, PUBLIC_KEY_MAX)?).unwrap_or_default();
    let public =
        pem::parse_x25519(&text).ok_or_else(|| Error::malformed(path, "an X25519 public key in PEM"))?;
    check_x25519(&public, &mut UnwrapErr(SysRng)).map_err(|error| Error::from(error).about(path))?;
    require(given.as_slice(), Fingerprint::of_x25519(&public).as_slice())
        .map_err(|error| error.about(path))?;
    Ok(public)
}

fn complete(identity: &Path, public_part: &Path, given: &[Fingerprint], context: &Context<'_>) -> Result<()> {
    let part = Identity::read(public_part)?;
    Identity::read_file(identity)?;
    part.require_enrolled()?;
    let publisher = part.publisher()?;
    require(given, &Fingerprint::of_publisher(&publisher)).map_err(|error| error.about(public_part))?;
    let (own, ()) = Identity::update(identity, |own| complete_by(own, identity, &part, public_part))?;
    let keys = Keys::of(own.public_key(), publisher.keys());
    let object = json!({
        "device": own.device(),
        "lines": own.lines(),
        "identity": name(identity),
        "fingerprint": keys.device(),
        "publisher_fingerprints": keys.publisher(),
    });
    context.show(&object, &keys.below(format!("{} can open: {}", own.device(), own.lines().join(", "))))
}

fn enrolled(identity: &Path) -> Error {
    let what = format!("{} is enrolled already", identity.display());
    Error::new(Code::Refused, what, "a device that changes its publisher gets a new identity")
}

fn complete_by(own: &mut Identity, identity: &Path, part: &Identity, public_part: &Path) -> Result<()> {
    if !own.lines().is_empty() {
        return Err(enrolled(identity));
    }
    wiped(|| own.secret().map(drop))?;
    if own.public_key().is_none() || own.public_key() != part.public_key() {
        let what = format!("{} and {} have different keys", identity.display(), public_part.display());
        return Err(Error::new(
            Code::NotAuthentic,
            what,
            "use the public part that was written for this device",
        ));
    }
    let publisher = part.publisher()?;
    let device = device_id(part.device())?;
    own.complete(&Enrolment {
        device,
        lines: part.lines(),
        publisher: &publisher,
        first_floor: part.first_floor(),
    })
}

fn trust(path: &Path, publisher: &Path, given: &[Fingerprint], context: &Context<'_>) -> Result<()> {
    let publisher = read_trusted(publisher, given)?;
    Identity::read_file(path)?.require_enrolled()?;
    let (identity, ()) = Identity::update(path, |identity| {
        identity.require_enrolled()?;
        identity.trust(&publisher);
        Ok(())
    })?;
    let (count, keys) = (publisher.keys().len(), Keys::of(None, publisher.keys()));
    let object = json!({
        "device": identity.device(),
        "identity": name(path),
        "keys": count,
        "publisher_fingerprints": keys.publisher(),
    });
    context.show(&object, &keys.below(format!("{} trusts {count} publisher keys now", identity.device())))
}

/// There is nothing to check it by: whoever runs this says that the registry is the vault's.
fn update(sealed: Option<&Path>, grant: &Path, port: &Path, baud: u32, context: &Context<'_>) -> Result<()> {
    let brought = Brought::read(sealed, grant)?;
    let bar = context.progress("sending", brought.len());
    let version = brought.send(port, baud, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    let object = json!({ "port": name(port), "version": version });
    context
        .show(&object, &format!("the device has verified version {version}, and tries it at its next boot"))
}

fn adopt(context: &Context<'_>) -> Result<()> {
    let path = context.registry()?;
    // Nobody is asked for the passphrase because of a registry that isn't there.
    let devices = Registry::require(&path)?.devices().len();
    let vault = context.vault()?;
    Locked::adopt(&path, &*vault)?.commit()?;
    let text = format!("the registry {} with {devices} devices is this vault's now", path.display());
    context.show(&json!({ "registry": name(&path), "devices": devices }), &text)
}

fn registry(context: &Context<'_>) -> Result<Registry> {
    Registry::require(&context.registry()?)
}

fn list(context: &Context<'_>) -> Result<()> {
    let registry = registry(context)?;
    let objects: Vec<_> = registry.devices().iter().map(|(id, device)| object(id, device)).collect();
    let width = registry.devices().keys().map(String::len).max().unwrap_or(0);
    let line = |(id, device): (&String, &Device)| {
        format!("{id:width$}  {}  {}", kind(device), device.lines.join(","))
    };
    let lines: Vec<_> = registry.devices().iter().map(line).collect();
    let lines = if lines.is_empty() { vec!["no device is enrolled".into()] } else { lines };
    context.answer(&json!({ "devices": objects }), &lines)
}

fn show(id: &str, context: &Context<'_>) -> Result<()> {
    let registry = registry(context)?;
    let device = registry.device(id)?;
    let mut text = vec![
        format!("device    {id}"),
        format!("lines     {}", device.lines.join(", ")),
        format!("key       {}", kind(device)),
        format!("enrolled  {}", time(device.enrolled)),
    ];
    let public = public_key(device);
    let pem = public.as_ref().and_then(pem::x25519).unwrap_or_default();
    text.extend(pem.lines().map(str::to_owned));
    let keys = Keys::of(public, &registry.publisher_keys());
    text.extend(keys.lines());
    let mut object = object(id, device);
    if let Some(object) = object.as_object_mut() {
        object.insert("publisher_fingerprints".into(), keys.publisher().into());
    }
    context.answer(&object, &text)
}

fn kind(device: &Device) -> String {
    match &device.key {
        DeviceKeyKind::Fleet(version) => format!("fleet/{version}"),
        DeviceKeyKind::X25519(_) => "x25519".into(),
    }
}

fn public_key(device: &Device) -> Option<[u8; 32]> {
    match &device.key {
        DeviceKeyKind::Fleet(_) => None,
        DeviceKeyKind::X25519(text) => pem::parse_x25519(text),
    }
}

fn object(id: &str, device: &Device) -> Value {
    let print = public_key(device).and_then(|public| Fingerprint::of_x25519(&public));
    json!({
        "device": id,
        "lines": device.lines,
        "key": device.key,
        "enrolled": device.enrolled,
        "fingerprint": print.map(|print| print.hex()),
    })
}

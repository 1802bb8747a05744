//! `seal`, `verify`, `open` and `grant`.

use std::path::{Path, PathBuf};

use modelseal_core::grant::{DeviceId, Validity};
use modelseal_core::manifest::{Claim, Claims, Subject};
use modelseal_core::sign::Publisher;
use modelseal_hsm::wiped::wiped;
use modelseal_hsm::{Role, Vault};
use serde_json::json;

use super::args::{GrantArgs, OpenArgs, OpenBy, ResealArgs, Said, SealArgs, VerifyArgs};
use super::context::Context;
use super::terminal::name;
use super::{fleet, folders, parts};
use crate::error::{Code, Error, Result};
use crate::files::{self, Access, Existing, Output};
use crate::fingerprint::{self, Fingerprint};
use crate::grant::Limits;
use crate::io::Input;
use crate::open::{SealedFile, SealedInput, to_stdout};
use crate::opener::{ByGrant, OpenedHeader, Opener, Opening, With, now};
use crate::profile::Profile;
use crate::registry::Registry;
use crate::seal::Model;
use crate::state;
use crate::{grant as granting, pem, seal as sealing};

const PEM_MAX: u64 = 64 * 1024;

pub(super) fn seal(args: &SealArgs, context: &Context<'_>) -> Result<()> {
    let input = match Input::open_at_once(&args.model)? {
        Input::Folder(folder) => return folders::seal(args, &folder, context),
        Input::File(file) => Model::of(file, &args.model, &context.protected(&[]))?.require_bytes()?,
        Input::Stream(_) => return Err(Model::not_a_file(&args.model)),
    };
    let length = input.length();
    let kind = kind_of(&args.said, || input.kind())?;
    let subject = subject(&args.said, &kind, length)?;
    context.protect(&args.output, &[&args.model])?;
    let vault = context.vault()?;
    let bar = context.progress("sealing", length);
    let sealed = sealing::seal(&*vault, &input, subject, &args.output, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    report_sealed(&args.said, &kind, length, &args.output, &sealed, context)
}

pub(super) fn kind_of(said: &Said, guess: impl FnOnce() -> Result<&'static str>) -> Result<String> {
    match &said.kind {
        Some(kind) => Ok(kind.clone()),
        None => Ok(guess()?.into()),
    }
}

pub(super) fn subject<'a>(said: &'a Said, kind: &'a str, length: u64) -> Result<Subject<'a>> {
    let (chunk_log2, align_log2) = Profile::from(said.profile).logs(length);
    let subject = Subject {
        suite: said.suite.into(),
        chunk_log2,
        align_log2,
        line: &said.line,
        version: said.model_version,
        kind,
        length,
        created: now().unwrap_or(0),
        claims: claims(&said.claims)?,
    };
    sealing::check(&subject)?;
    Ok(subject)
}

pub(super) fn report_sealed(
    said: &Said,
    kind: &str,
    length: u64,
    output: &Path,
    sealed: &sealing::Sealed,
    context: &Context<'_>,
) -> Result<()> {
    let object = json!({
        "sealed": name(output),
        "id": sealed.id.to_string(),
        "line": said.line,
        "version": said.model_version,
        "kind": kind,
        "length": length,
        "sealed_length": sealed.length,
    });
    let text = format!(
        "sealed {} version {} ({kind}, {length} bytes) as {}",
        said.line,
        said.model_version,
        output.display()
    );
    context.show(&object, &text)
}

pub(super) fn reseal(args: &ResealArgs, context: &Context<'_>) -> Result<()> {
    context.protect(&args.output, &[&args.sealed])?;
    let SealedInput::Model(mut sealed) = SealedInput::open(&args.sealed)? else {
        let what = format!("{} is a folder, whose files and list belong together", args.sealed.display());
        return Err(Error::usage(what, "open it, and seal what was in it as a new version"));
    };
    let (line, old, length) = {
        let header = sealed.header()?;
        let subject = &header.manifest().subject;
        (subject.line.to_owned(), subject.version, subject.length)
    };
    if args.model_version <= old {
        let what = format!("{line} version {old} was released, and a version is released once");
        return Err(Error::usage(what, format!("give --model-version at least {}", old.saturating_add(1))));
    }
    let changes = sealing::Changes {
        version: args.model_version,
        suite: args.suite.map(Into::into),
        logs: args.profile.map(|profile| Profile::from(profile).logs(length)),
        created: now().unwrap_or(0),
    };
    let vault = context.vault()?;
    let bar = context.progress("resealing", length);
    let resealed =
        sealing::reseal(&*vault, &mut sealed, changes, &args.output, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    let object = json!({
        "sealed": name(&args.output),
        "id": resealed.id.to_string(),
        "line": line,
        "version": args.model_version,
        "from_version": old,
        "length": length,
        "sealed_length": resealed.length,
    });
    let text = format!(
        "sealed {line} version {old} anew as version {} in {}; devices need new grants",
        args.model_version,
        args.output.display()
    );
    context.show(&object, &text)
}

pub(super) fn claims(claims: &[String]) -> Result<Claims<'_>> {
    let mut parsed = Vec::new();
    for claim in claims {
        let (key, value) = claim
            .split_once('=')
            .ok_or_else(|| Error::usage(format!("the claim {claim:?} has no ="), "write it as KEY=VALUE"))?;
        parsed.push(Claim { key, value });
    }
    parsed.sort_by_key(|claim| claim.key);
    let too_many = || Error::usage(format!("{} claims are too many", claims.len()), "make at most 8");
    Claims::from_slice(&parsed).map_err(|_| too_many())
}

pub(super) fn verify(args: &VerifyArgs, context: &Context<'_>) -> Result<()> {
    let given = args.publisher.as_deref().map(|path| read_trusted(path, &args.fingerprints)).transpose()?;
    let mut sealed = match SealedInput::open(&args.sealed)? {
        SealedInput::Folder(folder) => return folders::verify(folder, given.as_ref(), context),
        SealedInput::Model(sealed) => sealed,
    };
    let vault = if given.is_none() { Some(context.vault()?) } else { None };
    let publisher = match vault {
        Some(vault) => own_publisher(&*vault, &sealed)?,
        None => given.unwrap_or_default(),
    };
    let bar = context.progress("verifying", sealed.header()?.layout().length);
    sealed.verify(&publisher, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    let header = sealed.header()?;
    let subject = &header.manifest().subject;
    let object = json!({
        "verified": true,
        "id": header.id().to_string(),
        "line": subject.line,
        "version": subject.version,
        "length": subject.length,
    });
    context
        .show(&object, &format!("genuine: {} version {}, id {}", subject.line, subject.version, header.id()))
}

/// Of the vault's keys that aren't retired, the one that signed the model: it may be older than those that readers get.
pub(super) fn own_publisher(vault: &dyn Vault, sealed: &SealedFile) -> Result<Publisher> {
    let retired = vault.retired()?;
    let mut keys = vault.keys()?;
    keys.retain(|key| key.role == Role::Publisher && !retired.contains(&(key.role, key.version)));
    for key in keys.iter().rev() {
        let publisher = Publisher::new(&[vault.publisher_key(key.version)?])?;
        if sealed.header()?.verify(sealed.envelope().signature(), &publisher).is_ok() {
            return Ok(publisher);
        }
    }
    Ok(vault.publisher()?)
}

/// A publisher's keys, which are exactly those with these fingerprints, if any were given.
pub(super) fn read_trusted(path: &Path, given: &[Fingerprint]) -> Result<Publisher> {
    let publisher = read_publisher(path)?;
    fingerprint::require(given, &Fingerprint::of_publisher(&publisher)).map_err(|error| error.about(path))?;
    Ok(publisher)
}

fn read_publisher(path: &Path) -> Result<Publisher> {
    let text = String::from_utf8(files::read(path, PEM_MAX)?).unwrap_or_default();
    let keys = pem::parse_publisher(&text)
        .ok_or_else(|| Error::malformed(path, "a publisher's public key in PEM"))?;
    Publisher::new(&keys)
        .map_err(|error| Error::from(error).about(path).with_hint("give at most 4 usable keys"))
}

pub(super) fn open(args: &OpenArgs, context: &Context<'_>) -> Result<()> {
    if args.tensor.is_some() || args.range.is_some() {
        protect(args, context)?;
        return parts::write(args, context);
    }
    match SealedInput::open(&args.sealed)? {
        SealedInput::Folder(folder) => folders::open(args, folder, context),
        SealedInput::Model(sealed) => {
            protect(args, context)?;
            let opener = opener(&args.by, args.grant.as_deref(), context)?;
            write_model(args, context, opener.open(sealed)?)
        }
    }
}

/// What the options for opening name: a grant, or else the vault.
pub(super) fn opener(by: &OpenBy, grant: Option<&Path>, context: &Context<'_>) -> Result<Opener> {
    let with = match (grant, &by.identity) {
        (Some(grant), Some(identity)) => {
            let state = state_path(by, identity);
            let confirm = !by.no_confirm;
            With::Grant(ByGrant { grant: grant.to_owned(), identity: identity.clone(), state, confirm })
        }
        _ => With::Vault(context.vault()?.into()),
    };
    Ok(Opener::new(with, by.line.clone()))
}

pub(super) fn protect(args: &OpenArgs, context: &Context<'_>) -> Result<()> {
    if args.output.as_os_str() == "-" {
        return Ok(());
    }
    let by = &args.by;
    let state = by.identity.as_ref().map(|identity| state_path(by, identity));
    let inputs = [Some(&args.sealed), args.grant.as_ref(), by.identity.as_ref(), state.as_ref()];
    let inputs: Vec<_> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
    context.protect(&args.output, &inputs)
}

fn state_path(by: &OpenBy, identity: &Path) -> PathBuf {
    by.state.clone().unwrap_or_else(|| state::default_path(identity))
}

/// Opens into the output, which appears only if everything passed; to a pipe go chunks that passed. The floor
/// is stored before the output appears: what can't be confirmed isn't handed out.
fn write_model(args: &OpenArgs, context: &Context<'_>, opening: Opening) -> Result<()> {
    let bar = context.progress("opening", opening.claimed_length()?);
    let progress: sealing::Progress<'_> = &mut |done| bar.set_position(done);
    let opened = if args.output.as_os_str() == "-" {
        opening.into_pipe(&mut to_stdout, progress)?
    } else if is_stream(&args.output) {
        let mut stream = open_stream(&args.output)?;
        opening.into_pipe(&mut |bytes| write_stream(&mut stream, &args.output, bytes), progress)?
    } else {
        opening.into_file(Output::create(&args.output, Access::Private, Existing::Replace)?, progress)?
    };
    bar.finish_and_clear();
    report_opened(args, context, &opened)
}

fn report_opened(args: &OpenArgs, context: &Context<'_>, opened: &OpenedHeader) -> Result<()> {
    let header = opened.header()?;
    let subject = &header.manifest().subject;
    let object = json!({
        "opened": name(&args.output),
        "line": subject.line,
        "version": subject.version,
        "kind": subject.kind,
        "length": subject.length,
    });
    let text = format!("opened {} version {} into {}", subject.line, subject.version, args.output.display());
    if args.output.as_os_str() == "-" {
        context.note(&object, &text);
        return Ok(());
    }
    context.show(&object, &text)
}

/// A pipe or a device can't be replaced by a file.
pub(super) fn is_stream(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

pub(super) fn open_stream(path: &Path) -> Result<std::fs::File> {
    let io = |error: std::io::Error| Error::io(path, &error);
    let stream = std::fs::File::options().write(true).open(path).map_err(io)?;
    // It was looked at by its path, where something else may be by now.
    if stream.metadata().map_err(io)?.is_file() {
        let what = format!("{} has become a file meanwhile", path.display());
        return Err(Error::new(Code::Io, what, "name a file or a pipe that nobody else changes"));
    }
    Ok(stream)
}

pub(super) fn write_stream(stream: &mut std::fs::File, path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    stream.write_all(bytes).map_err(|error| Error::io(path, &error))
}

pub(super) fn grant(args: &GrantArgs, context: &Context<'_>) -> Result<()> {
    let limits = Limits { validity: validity(args)?, floor: args.floor };
    match (&args.device, SealedInput::open(&args.sealed)?) {
        (Some(device), SealedInput::Folder(folder)) => {
            folders::grant_to_one(args, folder, device, limits, context)
        }
        (Some(device), SealedInput::Model(sealed)) => grant_to_one(args, &sealed, device, limits, context),
        (None, sealed) => fleet::grant(args, sealed, limits, context),
    }
}

fn grant_to_one(
    args: &GrantArgs,
    sealed: &SealedFile,
    device: &str,
    limits: Limits,
    context: &Context<'_>,
) -> Result<()> {
    let id = DeviceId::new(device).map_err(|error| Error::from(error).as_usage())?;
    context.protect(&args.output, &[&args.sealed])?;
    let path = context.registry()?;
    let registry = Registry::require(&path)?;
    let device = registry.device(id.as_str())?;
    let vault = context.vault()?;
    registry.require_vault(&path, &*vault)?;
    let bytes = wiped(|| {
        let content = sealed.unwrap_by_vault(&*vault, None)?;
        granting::grant(&*vault, &content, id, device, limits)
    });
    let header = sealed.header()?;
    let subject = &header.manifest().subject;
    let bytes = bytes.map_err(|error| explain_floor(error, subject.version))?;
    files::write(&args.output, &bytes, Access::Public, Existing::Replace)?;
    let object = json!({
        "grant": name(&args.output),
        "device": id.as_str(),
        "model": header.id().to_string(),
        "line": subject.line,
        "version": subject.version,
        "floor": args.floor.unwrap_or(subject.version),
    });
    let text = format!(
        "granted {} version {} to {} in {}",
        subject.line,
        subject.version,
        id.as_str(),
        args.output.display()
    );
    context.show(&object, &text)
}

/// The floor came from the command line.
pub(super) fn explain_floor(error: Error, version: u64) -> Error {
    match error.name() {
        Some("FloorAboveVersion") => Error::usage(error.what(), format!("give --floor at most {version}")),
        _ => error,
    }
}

fn validity(args: &GrantArgs) -> Result<Option<Validity>> {
    let (Some(not_before), Some(not_after)) = (&args.not_before, &args.not_after) else { return Ok(None) };
    let validity = Validity { not_before: moment(not_before)?, not_after: moment(not_after)? };
    if validity.not_before >= validity.not_after {
        return Err(Error::usage("the validity ends before it begins", "give --not-after a later time"));
    }
    Ok(Some(validity))
}

/// RFC 3339, or seconds since 1970.
fn moment(text: &str) -> Result<u64> {
    let wrong = || {
        Error::usage(format!("{text:?} isn't a time"), "write 2026-01-31T12:00:00Z, or seconds since 1970")
    };
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    u64::try_from(time.as_second()).map_err(|_| wrong())
}

//! The smallest example of FORMAT.md, opened as the smallest device would: no public-key code runs, so that miri, to
//! which signatures take minutes, can look on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use modelseal_core::Error;
use modelseal_core::grant::{DeviceId, Grant};
use modelseal_core::keys::{DeviceKey, Secret};
use modelseal_core::open::{Conditions, Opened, Request};
use modelseal_core::sealed::{Header, PREFIX_LEN, Prefix};
use modelseal_core::sign::{Publisher, Signature};

const FORMAT: &str = include_str!("../../docs/FORMAT.md");

/// What stands below `name` in section `number`.
fn value(number: &str, name: &str) -> Vec<u8> {
    let section = FORMAT.split(&format!("\n### {number} ")).nth(1).unwrap().split("\n### ").next().unwrap();
    let below = section.split(&format!("\n{name}\n")).nth(1).unwrap();
    let lines = below.lines().map_while(|line| line.strip_prefix("    "));
    hex::decode(lines.collect::<String>()).unwrap()
}

fn open<'m>(sealed: &'m mut [u8], grant: &[u8]) -> Result<Opened<'m>, Error> {
    let prefix = Prefix::parse(sealed.first_chunk::<PREFIX_LEN>().unwrap())?;
    let front = sealed.to_vec();
    let header = Header::parse(&front[..prefix.header_len()])?;
    let layout = header.layout();
    let signature = Signature::from_bytes(front[layout.envelope as usize..].first_chunk().unwrap());
    let (none, secret) = (Publisher::default(), secret());
    let request = Request::new(header, signature, Grant::parse(grant)?);
    let named = request.authenticate(&secret, &none)?.name("greeting")?;
    let device = DeviceId::new("kitchen-7")?;
    let conditions = Conditions { line: "greeting", device, now: None, floor: 0 };
    let tag = |i| Ok(*front[(layout.index + 48 * i) as usize..].first_chunk().unwrap());
    let unwrapped = named.admit(&conditions)?.unwrap(&secret, &conditions)?;
    unwrapped.open_in_place(&mut sealed[layout.payload as usize..], tag)
}

fn secret() -> Secret {
    Secret::DeviceKey(DeviceKey::from_bytes(&value("11.3", "device key").try_into().unwrap()))
}

#[test]
fn it_opens() {
    let (mut sealed, grant) = (value("11.6", "sealed model"), value("11.6", "device-key grant, as in 11.3"));
    assert_eq!(open(&mut sealed, &grant).unwrap().model(), value("11.6", "model"));
}

#[test]
fn changed_it_is_refused_and_wiped() {
    let (sealed, grant) = (value("11.6", "sealed model"), value("11.6", "device-key grant, as in 11.3"));
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(open(&mut changed, &grant).map(drop), Err(Error::Chunk));
    assert!(changed.ends_with(&[0; 13]));
    let mut other = grant.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(open(&mut sealed.clone(), &other).map(drop), Err(Error::GrantEncoding));
    other = grant;
    let ciphertext = other.len() - 30;
    *other.get_mut(ciphertext).unwrap() ^= 1;
    assert_eq!(open(&mut sealed.clone(), &other).map(drop), Err(Error::GrantKey));
}

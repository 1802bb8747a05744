//! Searches the memory of another process for what should be gone.
//!
//! The searched process stands still: it has stopped itself. Every mapping that it could have written is read, with
//! its heap, its stacks and what it gave back without the system taking it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::process::Pid;

/// What is searched for, in pieces, at every address: a piece is as telling as the whole.
#[derive(Default)]
pub struct Secrets {
    names: Vec<String>,
    pieces: HashMap<[u8; PIECE], Vec<(usize, Vec<u8>)>>,
    starts: HashSet<[u8; 2]>,
}

/// The shortest piece: of random bytes, none is found by chance.
const PIECE: usize = 8;
/// Of text and of a model more is needed, for they have less to tell.
const LONG_PIECE: usize = 16;

impl Secrets {
    /// Random bytes, such as a key.
    pub fn add(&mut self, name: &str, secret: &[u8]) {
        self.insert(name, secret, PIECE);
    }

    /// The same as text.
    pub fn add_hex(&mut self, name: &str, secret: &[u8]) {
        self.insert(&format!("{name}, as hex"), hex::encode(secret).as_bytes(), LONG_PIECE);
    }

    /// A model.
    pub fn add_model(&mut self, name: &str, model: &[u8]) {
        self.insert(name, model, LONG_PIECE);
    }

    fn insert(&mut self, name: &str, secret: &[u8], piece: usize) {
        assert!(secret.len() >= piece, "{name} is too short to be found");
        let index = self.names.len();
        self.names.push(name.to_owned());
        for piece in secret.windows(piece) {
            let (start, rest) = piece.split_first_chunk::<PIECE>().unwrap();
            self.pieces.entry(*start).or_default().push((index, rest.to_vec()));
            self.starts.insert([start[0], start[1]]);
        }
    }
}

/// A secret and where it was found, [`LEFT_OUT`] or otherwise: how many pieces of it.
pub type Remains = BTreeMap<(String, &'static str), usize>;

/// Where core dumps don't look.
pub const LEFT_OUT: &str = "left out of core dumps";

/// Every secret of which a piece is in the memory of `process`, and how many bytes were searched.
pub fn search(process: Pid, secrets: &Secrets) -> (Remains, usize) {
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps", process.as_raw_nonzero())).unwrap();
    let memory = File::open(format!("/proc/{}/mem", process.as_raw_nonzero())).unwrap();
    let (mut remains, mut searched) = (Remains::new(), 0);
    for map in Map::writable(&maps) {
        let mut bytes = vec![0; map.end - map.start];
        memory.read_exact_at(&mut bytes, map.start as u64).unwrap_or_else(|error| panic!("{map:?}: {error}"));
        searched += bytes.len();
        for name in found(&bytes, secrets) {
            *remains.entry((name.to_owned(), map.kind)).or_default() += 1;
        }
    }
    (remains, searched)
}

fn found<'a>(bytes: &'a [u8], secrets: &'a Secrets) -> impl Iterator<Item = &'a str> {
    let mut starts = vec![false; 1 << 16];
    secrets.starts.iter().for_each(|start| starts[usize::from(u16::from_le_bytes(*start))] = true);
    let likely = move |at: &usize| starts[usize::from(u16::from_le_bytes([bytes[*at], bytes[*at + 1]]))];
    (0..bytes.len().saturating_sub(PIECE - 1)).filter(likely).flat_map(|at| {
        let (start, rest) = bytes[at..].split_first_chunk::<PIECE>().unwrap();
        let pieces = secrets.pieces.get(start).into_iter().flatten();
        pieces.filter(|(_, piece)| rest.starts_with(piece)).map(|(index, _)| secrets.names[*index].as_str())
    })
}

/// One mapping of `/proc/PID/smaps`.
#[derive(Debug)]
struct Map {
    start: usize,
    end: usize,
    kind: &'static str,
}

impl Map {
    fn writable(maps: &str) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let mut is_writable = false;
        for line in maps.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if let Some(range) = words[0].split_once('-').filter(|_| !words[0].ends_with(':')) {
                is_writable = words[1].starts_with("rw");
                found.extend(is_writable.then(|| Self::new(range, words.get(5).copied())));
            }
            if is_writable && words[0] == "VmFlags:" && words.contains(&"dd") {
                found.last_mut().unwrap().kind = LEFT_OUT;
            }
        }
        found
    }

    fn new((start, end): (&str, &str), path: Option<&str>) -> Self {
        let kind = match path {
            Some("[heap]") => "heap",
            Some("[stack]") => "stack",
            Some(path) if path.starts_with('/') => "data",
            // Large pieces of the heap, and the stacks of threads.
            _ => "mapped",
        };
        let address = |text| usize::from_str_radix(text, 16).unwrap();
        Self { start: address(start), end: address(end), kind }
    }
}

//! An image: built, read and run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use modelseal_tests::scratch;
use object::elf::{FileHeader32, SHF_ALLOC, SHF_WRITE, SHT_NOBITS};
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, Object, ObjectSymbol};

use crate::material::Case;
use crate::parts::{PARTS, parts};
use crate::profile::Build;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const TARGET: &str = "thumbv7em-none-eabihf";
/// Under `-icount shift=0` an instruction takes 1 ns, and SysTick runs at 25 MHz.
const INSTRUCTIONS_PER_TICK: u64 = 40;

/// An image, of which nothing is estimated.
pub(crate) struct Image {
    path: PathBuf,
    elf: Vec<u8>,
    /// Bytes that are stored: code, constants, and what statics begin with.
    pub(crate) flash: u64,
    /// Bytes of statics.
    pub(crate) statics: u64,
}

/// What a run took.
pub(crate) struct Ran {
    /// Instructions until the signatures were checked.
    pub(crate) checking: u64,
    /// Those from then on: unwrapping, opening, confirming.
    pub(crate) opening: u64,
    /// Bytes of stack at the peak.
    pub(crate) stack: u64,
}

impl Image {
    /// With these features and no others.
    pub(crate) fn build(build: &Build, features: &[&str]) -> Self {
        let folder = format!("target/cost/{}", build.name);
        let status = Command::new("cargo")
            .args(["build", "--quiet", "--package", "modelseal-cost", "--profile", "device"])
            .args(["--target", TARGET, "--target-dir", &folder, "--features", &features.join(",")])
            .current_dir(ROOT)
            .env("CARGO_PROFILE_DEVICE_OPT_LEVEL", build.opt_level)
            .env("RUSTFLAGS", build.flags)
            // A log is the product's choice, and takes flash for its own.
            .env("DEFMT_LOG", "off")
            .status();
        assert!(status.unwrap().success(), "building the image failed: rustup target add {TARGET}");
        // The next one takes its place.
        let built = Path::new(ROOT).join(folder).join(TARGET).join("device/modelseal-cost");
        let path = built.with_file_name(format!(
            "cost-{}",
            if features.is_empty() { "empty".into() } else { features.join("-") }
        ));
        std::fs::copy(built, &path).unwrap();
        let elf = std::fs::read(&path).unwrap();
        let (flash, statics) = sizes(&elf);
        Self { path, elf, flash, statics }
    }

    /// Without an allocator nothing that allocates links. That none has slipped in is all there is to check.
    pub(crate) fn assert_no_heap(&self) {
        let elf = object::File::parse(&*self.elf).unwrap();
        let allocates = |name: &str| {
            ["__rust_alloc", "__rg_alloc", "__rdl_alloc", "malloc"].iter().any(|a| name.contains(a))
        };
        let found = elf.symbols().find(|symbol| symbol.name().is_ok_and(allocates));
        assert!(found.is_none(), "{} allocates: {:?}", self.path.display(), found.map(|found| found.name()));
    }

    /// Whose code it is.
    pub(crate) fn parts(&self) -> [u64; PARTS.len()] {
        parts(&self.elf)
    }

    /// Opens the model, which must succeed.
    pub(crate) fn run(&self, case: &Case) -> Ran {
        let dir = scratch();
        let loader = |name: &str, bytes: &[u8], address: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            format!("loader,file={},addr={address:#x},force-raw=on", path.display())
        };
        let given = loader("given", &case.given, 0x203f_0000);
        let sealed = loader("sealed", &case.sealed, 0x2100_0000);
        let [outcome, checking, all, stack] = self.run_with(&["-device", &given, "-device", &sealed]);
        assert_eq!(outcome, 0, "{} refused the model", self.path.display());
        let instructions = |ticks: u32| u64::from(ticks) * INSTRUCTIONS_PER_TICK;
        Ran { checking: instructions(checking), opening: instructions(all - checking), stack: stack.into() }
    }

    /// The empty image does nothing, and says so.
    pub(crate) fn run_empty(&self) {
        let [outcome, _, all, stack] = self.run_with(&[]);
        assert!(
            outcome == 0 && all < 10 && stack < 512,
            "the empty image isn't: {all} ticks, {stack} bytes of stack"
        );
    }

    fn run_with(&self, devices: &[&str]) -> [u32; 4] {
        let output = Command::new("timeout")
            .args(["120", "qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-monitor", "none"])
            .args(["-serial", "none", "-icount", "shift=0"])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
            .arg(&self.path)
            .args(devices)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("qemu-system-arm: {error}"));
        let noise = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {}: {noise}", self.path.display(), output.status);
        let (words, []) = output.stdout.as_chunks() else { panic!("{:?}", output.stdout) };
        let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        words.try_into().unwrap()
    }
}

/// Flash and statics, by the sections that are loaded.
fn sizes(elf: &[u8]) -> (u64, u64) {
    let header = FileHeader32::<Endianness>::parse(elf).unwrap();
    let endian = header.endian().unwrap();
    let sections = header.sections(endian, elf).unwrap();
    let loaded = sections.iter().filter(|section| section.sh_flags(endian) & SHF_ALLOC != 0);
    loaded.fold((0, 0), |(flash, statics), section| {
        let size = u64::from(section.sh_size(endian));
        let stored = if section.sh_type(endian) == SHT_NOBITS { 0 } else { size };
        let written = if section.sh_flags(endian) & SHF_WRITE == 0 { 0 } else { size };
        (flash + stored, statics + written)
    })
}

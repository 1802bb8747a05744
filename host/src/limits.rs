//! How much memory the control group of this process leaves it.

use std::path::{Path, PathBuf};

/// A limit on memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// What the group may have.
    pub(crate) max: u64,
    /// What of that is still to be had, with pages of files that the system would give up.
    pub(crate) free: u64,
}

/// The narrowest limit of the groups that this process is in; `None` if there is none.
pub(crate) fn group() -> Option<Limit> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    narrowest(Path::new("/sys/fs/cgroup"), &groups)
}

/// `groups` is `/proc/self/cgroup`: `0::/PATH` in version 2, `NUMBER:CONTROLLERS:/PATH` in version 1.
fn narrowest(root: &Path, groups: &str) -> Option<Limit> {
    let limits = groups.lines().flat_map(|line| {
        let mut words = line.splitn(3, ':').skip(1);
        let (controllers, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if controllers.is_empty() {
            above(root, path).filter_map(|dir| limit(&dir, &V2)).collect::<Vec<_>>()
        } else if controllers.split(',').any(|controller| controller == "memory") {
            above(&root.join("memory"), path).filter_map(|dir| limit(&dir, &V1)).collect()
        } else {
            Vec::new()
        }
    });
    limits.min_by_key(|limit| limit.free)
}

/// The group's folder and all above it. In a container the path may be one outside: then only the root is there.
fn above(root: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
    let path = Path::new(path.trim_start_matches('/')).to_owned();
    let root = root.to_owned();
    let parts: Vec<PathBuf> = path.ancestors().map(|part| root.join(part)).collect();
    parts.into_iter()
}

struct Names {
    max: &'static str,
    current: &'static str,
    /// In `memory.stat`.
    files: [&'static str; 2],
}

const V2: Names =
    Names { max: "memory.max", current: "memory.current", files: ["inactive_file", "active_file"] };
const V1: Names = Names {
    max: "memory.limit_in_bytes",
    current: "memory.usage_in_bytes",
    files: ["total_inactive_file", "total_active_file"],
};

fn limit(dir: &Path, names: &Names) -> Option<Limit> {
    let number =
        |name: &str| -> Option<u64> { std::fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok() };
    let max = number(names.max)?;
    let current = number(names.current).unwrap_or(0);
    let files = std::fs::read_to_string(dir.join("memory.stat")).map_or(0, |stat| files(&stat, names));
    Some(Limit { max, free: max.saturating_sub(current.saturating_sub(files)) })
}

fn files(stat: &str, names: &Names) -> u64 {
    let pairs = stat.lines().filter_map(|line| line.split_once(' '));
    let files = pairs.filter(|(name, _)| names.files.contains(name));
    files.filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(dir).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(dir.join(name), text).unwrap());
    }

    #[test]
    fn version_2_counts_what_is_above() {
        let root = tempfile::tempdir().unwrap();
        let stat = "anon 700\nfile 900\ninactive_file 300\nactive_file 200\n";
        let own = [("memory.max", "max\n"), ("memory.current", "100\n")];
        write(&root.path().join("a/b"), &own);
        assert_eq!(narrowest(root.path(), "0::/a/b\n"), None);
        let above = [("memory.max", "2000\n"), ("memory.current", "1600\n"), ("memory.stat", stat)];
        write(&root.path().join("a"), &above);
        assert_eq!(narrowest(root.path(), "0::/a/b\n"), Some(Limit { max: 2000, free: 900 }));
        write(&root.path().join("a/b"), &[("memory.max", "800\n")]);
        assert_eq!(narrowest(root.path(), "0::/a/b\n"), Some(Limit { max: 800, free: 700 }));
        // More is used than may be, as after the limit was lowered.
        write(&root.path().join("a/b"), &[("memory.current", "900\n")]);
        assert_eq!(narrowest(root.path(), "0::/a/b\n"), Some(Limit { max: 800, free: 0 }));
    }

    #[test]
    fn a_path_that_isnt_there_means_the_root() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("memory.max", "5000"), ("memory.current", "1")]);
        assert_eq!(narrowest(root.path(), "0::/outside/of/it\n"), Some(Limit { max: 5000, free: 4999 }));
    }

    #[test]
    fn version_1_has_a_folder_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("memory.limit_in_bytes", "4096\n"),
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.stat", "inactive_file 9\ntotal_inactive_file 96\ntotal_active_file 4\n"),
        ];
        write(&root.path().join("memory/a"), &files);
        let groups = "3:cpu,cpuacct:/b\n2:memory:/a\n1:name=systemd:/\n";
        assert_eq!(narrowest(root.path(), groups), Some(Limit { max: 4096, free: 3196 }));
        assert_eq!(narrowest(root.path(), "2:cpu:/a\n"), None);
        assert_eq!(narrowest(root.path(), "nonsense"), None);
    }
}

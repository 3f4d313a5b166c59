//! How many CPUs the cgroup of this process grants it.
//!
//! Both generations are asked: `cpu.max` of v2, `cpu.cfs_quota_us` over `cpu.cfs_period_us` of v1;
//! in each the process's own group and all above it, of which the tightest binds.

use std::cell::LazyCell;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// A quota, and where the kernel tells how often it was used up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quota {
    /// CPUs.
    pub(crate) cpus: f64,
    stat: PathBuf,
}

impl Quota {
    /// How often the group was stopped because it had used up its quota.
    pub(crate) fn throttled(&self) -> Option<u64> {
        let stat = fs::read_to_string(&self.stat).ok()?;
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "))?;
        line.trim().parse().ok()
    }
}

/// The tightest quota that holds for the process whose `/proc` lies under `root`.
pub(crate) fn read(root: &Path) -> Option<Quota> {
    let groups = text(&root.join("proc/self/cgroup"))?;
    let mounts = LazyCell::new(|| text(&root.join("proc/self/mountinfo")).unwrap_or_default());
    let mut tightest: Option<Quota> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let quota_of: fn(&Path) -> Option<f64> = match controllers {
            "" => quota_v2,
            _ if controllers.split(',').any(|controller| controller == "cpu") => quota_v1,
            _ => continue,
        };
        let v2 = controllers.is_empty();
        let usual = usual_folder(root, v2, group);
        let Some((mount, folder)) = usual.or_else(|| folder_of(&mounts, v2, group)) else {
            continue;
        };
        let (mount, folder) = (under(root, &mount), under(root, &folder));
        for ancestor in folder
            .ancestors()
            .take_while(|path| path.starts_with(&mount))
        {
            if let Some(quota) = quota_of(ancestor) {
                let is_tighter = tightest.as_ref().is_none_or(|least| quota < least.cpus);
                if is_tighter {
                    tightest = Some(Quota {
                        cpus: quota,
                        stat: ancestor.join("cpu.stat"),
                    });
                }
            }
        }
    }
    tightest
}

/// As [`folder_of`], where hierarchies are mounted by custom and the group's own folder is there too: that
/// the list of mounts is not read saves some 80 µs of an engine's start.
fn usual_folder(root: &Path, v2: bool, group: &str) -> Option<(PathBuf, PathBuf)> {
    let (mounts, marker): (&[&str], &str) = match v2 {
        true => (
            &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
            "cgroup.controllers",
        ),
        false => (&["/sys/fs/cgroup/cpu"], "cpu.cfs_quota_us"),
    };
    let below = Path::new(group).strip_prefix("/").ok()?;
    if below
        .components()
        .any(|part| !matches!(part, Component::Normal(_)))
    {
        return None;
    }
    let places = mounts
        .iter()
        .map(|mount| (PathBuf::from(mount), Path::new(mount).join(below)));
    let mut there = places.filter(|(_, folder)| under(root, folder).join(marker).exists());
    there.next()
}

/// Where the hierarchy is mounted, and where in it the group's own folder is.
fn folder_of(mounts: &str, v2: bool, group: &str) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        // id parent major:minor root mount-point options [optional ...] - type source options
        let (own, file_system) = line.split_once(" - ")?;
        let mut own = own.split(' ').skip(3);
        let (root, mount) = (own.next()?, own.next()?);
        let mut file_system = file_system.split(' ');
        let (kind, options) = (file_system.next()?, file_system.nth(1)?);
        let fits = if v2 {
            kind == "cgroup2"
        } else {
            kind == "cgroup" && options.split(',').any(|option| option == "cpu")
        };
        let below = Path::new(group).strip_prefix(root).or_else(|_| {
            // In a container the group may be named from outside the part that is mounted.
            Path::new(group).strip_prefix("/").map(|_| Path::new(""))
        });
        fits.then(|| {
            below
                .ok()
                .map(|below| (PathBuf::from(mount), Path::new(mount).join(below)))
        })?
    })
}

fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn quota_v2(folder: &Path) -> Option<f64> {
    let max = text(&folder.join("cpu.max"))?;
    let (quota, period) = max.trim().split_once(' ')?;
    ratio(quota, period)
}

fn quota_v1(folder: &Path) -> Option<f64> {
    let quota = text(&folder.join("cpu.cfs_quota_us"))?;
    if quota.trim() == "-1" {
        return None;
    }
    ratio(&quota, &text(&folder.join("cpu.cfs_period_us"))?)
}

/// The text of a file that the kernel writes while it is read: in few pieces, for each costs some 2 µs.
fn text(path: &Path) -> Option<String> {
    let mut text = String::with_capacity(8 << 10);
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

/// `None` where there is no limit (`max`, `-1`).
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(files: &[(&str, &str)]) -> Option<f64> {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        read(root.path()).map(|quota| quota.cpus)
    }

    #[test]
    fn how_often_it_was_used_up_is_told_by_the_group_that_binds() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let files = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/cpu.stat", "nr_periods 9\nnr_throttled 7\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "200000 100000\n"),
            (
                "sys/fs/cgroup/a/b/cpu.stat",
                "nr_periods 9\nnr_throttled 8\n",
            ),
        ];
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let quota = read(root.path()).expect("there is one");
        assert_eq!((quota.cpus, quota.throttled()), (1.5, Some(7)));
    }

    const V2: &str = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
    const V1: &str = "31 20 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";

    #[test]
    fn the_tightest_group_on_the_way_up_binds() {
        let files = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ];
        assert_eq!(quota(&files), Some(1.5));
    }

    #[test]
    fn the_first_generation_counts_too() {
        let files = [
            ("proc/self/cgroup", "4:cpu,cpuacct:/x\n3:memory:/y\n"),
            ("proc/self/mountinfo", V1),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota(&files), Some(2.0));
    }

    #[test]
    fn where_groups_are_by_custom_the_list_of_mounts_is_not_needed() {
        let newer = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/cgroup.controllers", ""),
        ];
        assert_eq!(quota(&newer), Some(1.5));
        let both = [
            ("proc/self/cgroup", "4:cpu,cpuacct:/x\n0::/y\n"),
            ("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/unified/y/cgroup.controllers", ""),
            ("sys/fs/cgroup/unified/cpu.max", "300000 100000\n"),
        ];
        assert_eq!(quota(&both), Some(2.0));
        // Whoever left the part that is seen is not looked for above it.
        let outside = [
            ("proc/self/cgroup", "0::/../a\n"),
            ("sys/fs/a/cgroup.controllers", ""),
            ("sys/fs/a/cpu.max", "150000 100000\n"),
        ];
        assert_eq!(quota(&outside), None);
    }

    #[test]
    fn a_container_that_sees_only_its_own_part_is_understood() {
        let files = [
            ("proc/self/cgroup", "0::/docker/abc\n"),
            (
                "proc/self/mountinfo",
                "30 20 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 c rw\n",
            ),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ];
        assert_eq!(quota(&files), Some(0.5));
    }

    #[test]
    fn no_limit_and_no_cgroup_are_the_same() {
        assert_eq!(quota(&[]), None);
        assert_eq!(
            quota(&[("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", "x")]),
            None
        );
    }
}

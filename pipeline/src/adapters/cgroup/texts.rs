//! What the kernel's texts about cgroups say, and whether they let this process divide its own. Pure: texts in, a word out.

use std::path::{Path, PathBuf};

/// Begins the name of every cgroup that Trommel makes.
const PREFIX: &str = "trommel-";

/// Digits behind a process's number: two processes of one number, one long dead, have names of their own.
const SALT_DIGITS: usize = 8;

/// Why a process's memory cannot be bounded by a cgroup here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("this process is in no cgroup of version 2 that can be seen here")]
    NotSeen,
    #[error("its cgroup file system may only be read")]
    ReadOnly,
    #[error("it is in the root cgroup, which is the whole machine's")]
    WholeMachine,
    #[error("its cgroup is {0:?}, and only a domain can be divided")]
    NoDomain(String),
    #[error("the memory controller is not handed down to its cgroup")]
    NoMemory,
    #[error("its cgroup belongs to another user")]
    NotOurs,
    #[error(
        "it is root, who may write to any cgroup, and its cgroup is not the root of a namespace"
    )]
    OnlyRoot,
    #[error("{0} other processes are in its cgroup")]
    NotAlone(usize),
    #[error("{0}: {1}")]
    Failed(&'static str, std::io::Error),
}

/// The path of a process's cgroup of version 2: the line whose hierarchy is 0 (cgroups(7), "/proc/pid/cgroup").
pub(super) fn own_path(cgroup: &str) -> Option<&str> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    // Outside of our namespace: its path is told from there upwards (cgroup_namespaces(7)).
    let is_inside = path.starts_with('/') && !path.split('/').any(|part| part == "..");
    is_inside.then_some(path)
}

/// The folder in which a cgroup of this path is seen (proc_pid_mountinfo(5)). Of several mounts the last, which lies on top.
///
/// # Errors
/// It is seen nowhere, or may only be read there.
pub(super) fn folder(mountinfo: &str, path: &str) -> Result<PathBuf, Refusal> {
    let mut found = Err(Refusal::NotSeen);
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let mut before = before.split(' ').skip(3);
        let (Some(root), Some(point), Some(options)) =
            (before.next(), before.next(), before.next())
        else {
            continue;
        };
        let mut after = after.split(' ');
        let (kind, super_options) = (after.next(), after.nth(1).unwrap_or_default());
        if kind != Some("cgroup2") {
            continue;
        }
        let root = unescape(root);
        let Ok(below) = Path::new(path).strip_prefix(&root) else {
            continue;
        };
        let is_writable = [options, super_options]
            .iter()
            .all(|options| options.split(',').any(|option| option == "rw"));
        found = if is_writable {
            Ok(PathBuf::from(unescape(point)).join(below))
        } else {
            Err(Refusal::ReadOnly)
        };
    }
    found
}

/// Blanks, line ends and backslashes stand there as three octal digits.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (octal, plain)| {
        text.replace(octal, plain)
    })
}

/// What was seen of this process's own cgroup.
pub(super) struct Sight<'a> {
    /// Its path, as this process is told it.
    pub(super) path: &'a str,
    /// `cgroup.type`, which the root has not.
    pub(super) kind: Option<&'a str>,
    /// `cgroup.controllers`.
    pub(super) controllers: &'a str,
    /// Who owns the folder, and the files in it that are handed over with it.
    pub(super) owners: &'a [u32],
    /// Whose this process is.
    pub(super) user: u32,
    /// `cgroup.procs`.
    pub(super) processes: &'a str,
    /// The processes that go where this one goes.
    pub(super) ours: &'a [u32],
}

/// Whether the cgroup was handed over to this process. "A cgroup can be delegated in two ways": to a user who owns it, or to the
/// cgroup namespace whose root it is (the kernel's cgroup-v2, "Model of Delegation"). Root owns all of them, so its own
/// says nothing; there only the second counts. Where others are, nothing can be divided ("No Internal Process Constraint").
pub(super) fn judge(sight: &Sight<'_>) -> Result<(), Refusal> {
    let kind = sight.kind.ok_or(Refusal::WholeMachine)?.trim();
    if kind != "domain" {
        return Err(Refusal::NoDomain(kind.to_owned()));
    }
    if !sight
        .controllers
        .split_ascii_whitespace()
        .any(|controller| controller == "memory")
    {
        return Err(Refusal::NoMemory);
    }
    if sight.owners.iter().any(|owner| *owner != sight.user) {
        return Err(Refusal::NotOurs);
    }
    if sight.user == 0 && sight.path != "/" {
        return Err(Refusal::OnlyRoot);
    }
    // Processes of another namespace of numbers are told as 0, which is none of ours.
    let is_ours = |line: &&str| {
        line.parse()
            .is_ok_and(|process| sight.ours.contains(&process))
    };
    match sight
        .processes
        .lines()
        .filter(|line| !is_ours(line))
        .count()
    {
        0 => Ok(()),
        others => Err(Refusal::NotAlone(others)),
    }
}

/// Why the kernel ended processes of a cgroup for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters) enum Want {
    /// It wanted more than it may have.
    OverItsBound,
    /// It held no more than it may, and there was none left: of a group around it, or of the machine.
    NoneLeft,
}

/// What `memory.events` says of the dead. `oom_kill` counts those of any want; `oom` counts allocations that
/// failed at this cgroup's own bound (the kernel's cgroup-v2, "Memory Interface Files").
pub(super) fn want(events: &str) -> Option<Want> {
    let count = |name: &str| {
        let mut lines = events.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(key, _)| *key == name);
        found.and_then(|(_, count)| count.trim().parse::<u64>().ok())
    };
    let dead = count("oom_kill").unwrap_or(0) + count("oom_group_kill").unwrap_or(0);
    if dead == 0 {
        return None;
    }
    Some(match count("oom") {
        Some(1..) => Want::OverItsBound,
        Some(0) | None => Want::NoneLeft,
    })
}

/// The cgroups of one process that divided its own: a leaf that it moved into, and one for each process it bounds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Session(String);

impl Session {
    pub(super) fn new(process: u32, salt: u32) -> Self {
        Self(format!("{process}x{salt:0SALT_DIGITS$x}"))
    }

    pub(super) fn leaf(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }

    pub(super) fn bounded(&self, number: u64) -> String {
        format!("{PREFIX}{}.{number}", self.0)
    }

    /// Whose leaf it is that has this name.
    pub(super) fn of_leaf(name: &str) -> Option<Self> {
        let session = name.strip_prefix(PREFIX)?;
        let (process, salt) = session.split_once('x')?;
        let is_ours = process.parse::<u32>().is_ok()
            && salt.len() == SALT_DIGITS
            && salt.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_ours.then(|| Self(session.to_owned()))
    }

    /// Whose cgroup it is that has this name, be it a leaf or one for a bounded process.
    pub(super) fn of(name: &str) -> Option<Self> {
        let Some((leaf, number)) = name.split_once('.') else {
            return Self::of_leaf(name);
        };
        number.parse::<u64>().ok()?;
        Self::of_leaf(leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELEGATED: Sight<'_> = Sight {
        path: "/user.slice/run-1.scope",
        kind: Some("domain\n"),
        controllers: "cpu memory pids\n",
        owners: &[1000, 1000, 1000],
        user: 1000,
        processes: "41\n",
        ours: &[41],
    };

    fn refused(sight: Sight<'_>) -> String {
        judge(&sight)
            .expect_err("it is not to be divided")
            .to_string()
    }

    #[test]
    fn the_path_is_that_of_version_2_beside_whatever_there_is_of_version_1() {
        let both = "9:name=systemd:/\n4:memory:/a/b\n0::/c/d e\n";
        assert_eq!(own_path(both), Some("/c/d e"));
        assert_eq!(own_path("4:memory:/a/b\n"), None);
        assert_eq!(own_path("0::/../outside\n"), None);
    }

    #[test]
    fn the_folder_is_below_the_mount_that_shows_it() {
        let whole = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                     41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = folder(whole, "/a/b").expect("it is seen");
        assert_eq!(found, Path::new("/sys/fs/cgroup/unified/a/b"));
        // A container without a namespace of its own sees its part only.
        let part = "41 31 0:38 /box/1 /a\\040mount rw - cgroup2 cgroup rw\n";
        let found = folder(part, "/box/1/x").expect("it is seen");
        assert_eq!(found, Path::new("/a mount/x"));
        assert!(matches!(folder(part, "/box/11"), Err(Refusal::NotSeen)));
        let only_read = "41 31 0:38 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n";
        assert!(matches!(folder(only_read, "/"), Err(Refusal::ReadOnly)));
    }

    #[test]
    fn a_cgroup_is_divided_if_it_belongs_to_the_user_and_nobody_else_is_in_it() {
        assert!(judge(&DELEGATED).is_ok());
        let helper_too = Sight {
            processes: "41\n42\n",
            ours: &[41, 42],
            ..DELEGATED
        };
        assert!(judge(&helper_too).is_ok());
        let not_alone = Sight {
            processes: "7\n41\n0\n",
            ..DELEGATED
        };
        assert_eq!(refused(not_alone), "2 other processes are in its cgroup");
        let foreign = Sight {
            owners: &[1000, 0, 1000],
            ..DELEGATED
        };
        assert_eq!(refused(foreign), "its cgroup belongs to another user");
    }

    #[test]
    fn root_divides_the_root_of_a_namespace_and_nothing_else() {
        let root = Sight {
            owners: &[0, 0, 0],
            user: 0,
            ..DELEGATED
        };
        assert!(refused(root).starts_with("it is root"));
        let root_of_namespace = Sight {
            path: "/",
            owners: &[0, 0, 0],
            user: 0,
            ..DELEGATED
        };
        assert!(judge(&root_of_namespace).is_ok());
        let whole_machine = Sight {
            kind: None,
            path: "/",
            owners: &[0, 0, 0],
            user: 0,
            ..DELEGATED
        };
        assert!(refused(whole_machine).contains("the whole machine's"));
    }

    #[test]
    fn without_the_memory_controller_or_among_threads_nothing_is_divided() {
        let no_memory = Sight {
            controllers: "cpu pids\n",
            ..DELEGATED
        };
        assert!(refused(no_memory).contains("memory controller"));
        let threads = Sight {
            kind: Some("threaded\n"),
            ..DELEGATED
        };
        assert!(refused(threads).contains("\"threaded\""));
    }

    #[test]
    fn the_dead_are_told_by_their_want() {
        let events = |oom, oom_kill| {
            format!("low 0\nhigh 0\nmax 97\noom {oom}\noom_kill {oom_kill}\noom_group_kill {oom}\n")
        };
        assert_eq!(want(&events(0, 0)), None);
        assert_eq!(want(&events(1, 2)), Some(Want::OverItsBound));
        assert_eq!(want(&events(0, 1)), Some(Want::NoneLeft));
        assert_eq!(want(""), None);
        // Linux before 5.17 has no word of groups.
        assert_eq!(want("oom 1\noom_kill 1\n"), Some(Want::OverItsBound));
    }

    #[test]
    fn only_names_of_our_own_making_are_ours() {
        let session = Session::new(41, 0xbeef);
        assert_eq!(session.leaf(), "trommel-41x0000beef");
        assert_eq!(session.bounded(7), "trommel-41x0000beef.7");
        for name in [session.leaf(), session.bounded(7)] {
            assert_eq!(Session::of(&name), Some(session.clone()), "{name}");
        }
        assert_eq!(Session::of_leaf(&session.bounded(7)), None);
        for name in [
            "trommel-batch",
            "trommel-41x00beef",
            "trommel-41x0000beef.a",
            "trommel-x0000beef",
            "other",
        ] {
            assert_eq!(Session::of(name), None, "{name}");
        }
    }
}

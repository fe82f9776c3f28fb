//! What is done to a cgroup file system that a test plays: its rules are those of the kernel's cgroup-v2 that matter here.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// ErrorKind::ResourceBusy, as the kernel says it.
fn busy() -> io::Error {
    io::ErrorKind::ResourceBusy.into()
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    processes: BTreeSet<u32>,
    hands_down: bool,
    settings: BTreeMap<String, String>,
}

/// A kernel: clones share its groups.
#[derive(Clone, Default)]
struct Played(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    groups: BTreeMap<PathBuf, Group>,
    /// Killed, but not dead before this many looks.
    looks_until_dead: u32,
    kills: BTreeSet<PathBuf>,
}

impl Played {
    /// Our cgroup with us (41) and our helper (42) in it.
    fn handed_over() -> Self {
        let kernel = Self::default();
        let own = Group {
            processes: [41, 42].into(),
            ..Group::default()
        };
        kernel.state().groups.insert(PathBuf::from("/own"), own);
        kernel
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds this")
    }

    fn add(&self, folder: &str, processes: &[u32]) {
        let group = Group {
            processes: processes.iter().copied().collect(),
            ..Group::default()
        };
        self.state().groups.insert(PathBuf::from(folder), group);
    }

    /// Every group and who is in it.
    fn told(&self) -> Vec<String> {
        let state = self.state();
        let groups = state.groups.iter();
        groups
            .map(|(folder, group)| {
                let hands_down = if group.hands_down { " hands down" } else { "" };
                format!("{} {:?}{hands_down}", folder.display(), group.processes)
            })
            .collect()
    }

    fn setting(&self, folder: &str, file: &str) -> Option<String> {
        let state = self.state();
        state.groups[Path::new(folder)].settings.get(file).cloned()
    }

    fn divide(&self) -> Result<Arc<Divided>, Refusal> {
        let divided = Divided::new(Box::new(self.clone()), ground(0xa), &[41, 42])?;
        Ok(Arc::new(divided))
    }
}

fn ground(salt: u32) -> Ground {
    Ground {
        folder: PathBuf::from("/own"),
        session: Session::new(41, salt),
    }
}

impl Tree for Played {
    fn read(&self, file: &Path) -> io::Result<String> {
        let state = self.state();
        let (folder, name) = (file.parent().expect("absolute"), file.file_name());
        let group = state.groups.get(folder).ok_or(io::ErrorKind::NotFound)?;
        match name.and_then(|name| name.to_str()).expect("UTF-8") {
            "cgroup.procs" => {
                let lines = group.processes.iter().map(u32::to_string);
                Ok(lines.collect::<Vec<_>>().join("\n"))
            }
            name => Ok(group
                .settings
                .get(name)
                .ok_or(io::ErrorKind::NotFound)?
                .clone()),
        }
    }

    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        let mut state = self.state();
        let folder = file.parent().expect("absolute").to_owned();
        let above = folder.parent().and_then(|above| state.groups.get(above));
        let has_memory = above.is_some_and(|above| above.hands_down);
        let group = state.groups.get(&folder).ok_or(io::ErrorKind::NotFound)?;
        let name = file.file_name().and_then(|name| name.to_str());
        match (name.expect("UTF-8"), text) {
            ("cgroup.procs", _) if group.hands_down => return Err(busy()),
            ("cgroup.procs", process) => {
                let process = process.parse().expect("a number");
                for group in state.groups.values_mut() {
                    group.processes.remove(&process);
                }
                let group = state.groups.get_mut(&folder).expect("it is there");
                group.processes.insert(process);
            }
            ("cgroup.subtree_control", "+memory") if !group.processes.is_empty() => {
                return Err(busy());
            }
            ("cgroup.subtree_control", sign) => {
                let group = state.groups.get_mut(&folder).expect("it is there");
                group.hands_down = sign == "+memory";
            }
            ("cgroup.kill", _) => {
                state.kills.insert(folder);
            }
            ("memory.swap.max", _) => return Err(io::ErrorKind::NotFound.into()),
            (_, _) if !has_memory => return Err(io::ErrorKind::NotFound.into()),
            (name, text) => {
                let name = name.to_owned();
                let group = state.groups.get_mut(&folder).expect("it is there");
                group.settings.insert(name, text.to_owned());
            }
        }
        Ok(())
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.groups.insert(folder.to_owned(), Group::default());
        Ok(())
    }

    fn remove(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.kills.contains(folder) {
            match state.looks_until_dead.checked_sub(1) {
                Some(left) => state.looks_until_dead = left,
                None => {
                    let group = state.groups.get_mut(folder).expect("it is there");
                    group.processes.clear();
                }
            }
        }
        let group = state.groups.get(folder).ok_or(io::ErrorKind::NotFound)?;
        let has_children = state
            .groups
            .keys()
            .any(|other| other.parent() == Some(folder));
        if has_children || !group.processes.is_empty() {
            return Err(busy());
        }
        state.groups.remove(folder);
        Ok(())
    }

    fn children(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let children = state
            .groups
            .keys()
            .filter(|child| child.parent() == Some(folder));
        let names = children.filter_map(|child| child.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn owner(&self, _: &Path) -> io::Result<u32> {
        Ok(1000)
    }
}

#[test]
fn a_process_is_bounded_and_afterwards_all_is_as_it_was() {
    let kernel = Played::handed_over();
    let before = kernel.told();
    let divided = kernel.divide().expect("it is ours");
    let held = divided.hold(77, 1 << 20).expect("it can be bounded");
    assert_eq!(
        kernel.told(),
        [
            "/own {} hands down",
            "/own/trommel-41x0000000a {41, 42}",
            "/own/trommel-41x0000000a.0 {77}",
        ]
    );
    let setting = |file| kernel.setting("/own/trommel-41x0000000a.0", file);
    assert_eq!(setting("memory.max").as_deref(), Some("1048576"));
    assert_eq!(setting("memory.oom.group").as_deref(), Some("1"));
    drop(held);
    assert_eq!(
        kernel.told(),
        ["/own {} hands down", "/own/trommel-41x0000000a {41, 42}"]
    );
    drop(divided);
    assert_eq!(kernel.told(), before);
}

#[test]
fn whoever_comes_in_between_is_left_alone_and_nothing_is_divided() {
    let kernel = Played::handed_over();
    kernel.add("/own", &[41, 42, 7]);
    let before = kernel.told();
    let refusal = kernel.divide().err().expect("it is not alone");
    assert!(
        refusal.to_string().contains("cannot be handed down"),
        "{refusal}"
    );
    assert_eq!(kernel.told(), before);
}

#[test]
fn what_takes_time_to_die_is_removed_when_it_is_dead() {
    let kernel = Played::handed_over();
    let before = kernel.told();
    let divided = kernel.divide().expect("it is ours");
    let held = divided.hold(77, 1 << 20).expect("it can be bounded");
    kernel.state().looks_until_dead = 3;
    drop(held);
    assert_eq!(kernel.told().len(), 3, "it lives");
    drop(divided);
    assert_eq!(kernel.told(), before);
}

#[test]
fn cgroups_that_a_bounded_process_made_go_with_its_own() {
    let kernel = Played::handed_over();
    let before = kernel.told();
    let divided = kernel.divide().expect("it is ours");
    let held = divided.hold(77, 1 << 20).expect("it can be bounded");
    kernel.add("/own/trommel-41x0000000a.0/inner", &[]);
    kernel.add("/own/trommel-41x0000000a.0/inner/most", &[]);
    drop(held);
    drop(divided);
    assert_eq!(kernel.told(), before);
}

#[test]
fn what_the_dead_left_is_removed_and_the_living_and_strangers_keep_theirs() {
    let kernel = Played::handed_over();
    for (folder, processes) in [
        // Dead, with a part of which nobody is left and one in which somebody lives on.
        ("/own/trommel-9x00000001", &[] as &[u32]),
        ("/own/trommel-9x00000001.0", &[]),
        ("/own/trommel-9x00000001.1", &[98]),
        // Dead, and its leaf was removed already.
        ("/own/trommel-10x00000002.4", &[]),
        // Alive, with a part that nobody is in yet.
        ("/own/trommel-11x00000003", &[11]),
        ("/own/trommel-11x00000003.0", &[]),
        // Somebody else's.
        ("/own/trommel-batch", &[]),
    ] {
        kernel.add(folder, processes);
    }
    let divided = kernel.divide().expect("it is ours");
    let left = [
        "/own {} hands down",
        "/own/trommel-11x00000003 {11}",
        "/own/trommel-11x00000003.0 {}",
        "/own/trommel-41x0000000a {41, 42}",
        "/own/trommel-9x00000001.1 {98}",
        "/own/trommel-batch {}",
    ];
    assert_eq!(kernel.told(), left);
    // They need what is handed down.
    drop(divided);
    assert_eq!(kernel.told(), left);
}

#[test]
fn the_helper_of_a_dead_process_leaves_nothing_behind() {
    let kernel = Played::handed_over();
    let before = "/own {42}";
    let divided = kernel.divide().expect("it is ours");
    for process in [77, 78] {
        let held = divided.hold(process, 1 << 20).expect("it can be bounded");
        // As if this process were killed: nothing of it runs any more.
        std::mem::forget(held);
    }
    std::mem::forget(divided);
    for group in kernel.state().groups.values_mut() {
        group.processes.retain(|process| *process == 42);
    }
    let ground = Ground::of_leaf(Path::new("/own/trommel-41x0000000a")).expect("a leaf");
    assert!(ground.remove_parts(&kernel));
    ground.join(&kernel);
    assert_eq!(kernel.told(), [before]);
    assert!(Ground::of_leaf(Path::new("/own")).is_none());
}

#[test]
fn how_a_bounded_process_died_is_read_from_its_events() {
    let kernel = Played::handed_over();
    let divided = kernel.divide().expect("it is ours");
    let held = divided.hold(77, 1 << 20).expect("it can be bounded");
    assert_eq!(held.want(), None);
    let events = "oom 1\noom_kill 2\noom_group_kill 1\n";
    held.write("memory.events", events).expect("it is played");
    assert_eq!(held.want(), Some(Want::OverItsBound));
}

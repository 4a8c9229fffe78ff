//! Describes the resources that tasks wait for, their holders, and cycles of waiting tasks.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    time::Duration,
};

use super::{
    chain::{Hold, Wait, What},
    dump::{Dump, Is, Task},
    layout::{GuardKind, ResourceKind, Shape},
};
use crate::{
    inspect::{generic_arguments, type_name},
    symbols::{Origin, file_origin},
};

/// Descriptors that are examined.
const MOST_FDS: usize = 256 << 10;
/// Bytes of one table of sockets, or of descriptors, that are read.
const MOST_SOCKETS: u64 = 16 << 20;
/// Holders of one resource that are reported.
const MOST_HOLDERS: usize = 32;
/// The kind of resource that is a semaphore itself, and not part of a lock or channel.
pub(super) const SEMAPHORE: &str = "semaphore";
const TASK_OF_A_SET: &str = "the end of a task of a JoinSet";
/// Permits of a tokio `RwLock`, all of which a writer takes (tokio/src/sync/rwlock.rs).
const MOST_READERS: u64 = (u32::MAX >> 3) as u64;

/// Facts about resources beyond the tasks' own memory.
pub(super) struct Resources<'a> {
    dump: &'a Dump,
    /// Tasks by the address of their header.
    tasks: HashMap<u64, usize>,
    /// Tasks that hold a semaphore, by its address.
    holders: HashMap<u64, Vec<(usize, &'a Hold)>>,
    /// File descriptors by the address with which tokio registered them, once one is needed.
    fds: OnceCell<HashMap<u64, u32>>,
    /// Addresses of sockets, by inode, once one is needed.
    sockets: OnceCell<HashMap<u64, String>>,
    /// CLOCK_MONOTONIC (ns) when the tasks were read.
    now: u64,
}

/// A holder of a task's resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Index of the task.
    pub(super) task: usize,
    /// The local that holds it.
    pub(super) local: Option<String>,
    /// Where the holder awaits meanwhile: function, file and line.
    pub(super) at: Option<(String, String, u32)>,
    /// Whether it is certain.
    pub(super) is_certain: bool,
    pub(super) kind: GuardKind,
}

impl<'a> Resources<'a> {
    pub(super) fn of(dump: &'a Dump) -> Self {
        let mut holders: HashMap<u64, Vec<(usize, &Hold)>> = HashMap::new();
        for (index, task) in dump.tasks.iter().enumerate() {
            let Some(chain) = &task.chain else { continue };
            for hold in &chain.holds {
                holders.entry(hold.at).or_default().push((index, hold));
            }
        }
        Resources {
            dump,
            tasks: dump.tasks.iter().map(|t| t.at).zip(0..).filter(|(at, _)| *at != 0).collect(),
            holders,
            fds: OnceCell::new(),
            sockets: OnceCell::new(),
            now: dump.read_at,
        }
    }

    /// The remaining time of the earliest and the latest of some timers, as text.
    pub(super) fn timers(&self, waits: impl Iterator<Item = Wait>) -> Option<String> {
        let (mut first, mut last) = (u64::MAX, 0);
        for wait in waits {
            if wait.kind != ResourceKind::Timer {
                return None;
            }
            (first, last) = (first.min(wait.at), last.max(wait.at));
        }
        let (first, last) = (self.left(first), self.left(last));
        Some(if first == last { format!("a timer, {first}") } else { format!("a timer, {first} to {last}") })
    }

    fn left(&self, deadline: u64) -> String {
        match deadline.checked_sub(self.now).map(Duration::from_nanos) {
            Some(left) => format!("{} left", seconds(left)),
            None => format!("due {} ago", seconds(Duration::from_nanos(self.now - deadline))),
        }
    }

    /// The resource that a task waits for, as text. Tasks with equal texts wait for the same one.
    pub(super) fn words(&self, task: &Task, wait: &Wait) -> String {
        match wait.kind {
            ResourceKind::Timer => format!("a timer, {}", self.left(wait.at)),
            ResourceKind::Semaphore => {
                let (_, what) = self.lock(task, wait);
                format!("{what} at {:#x}", wait.at)
            }
            ResourceKind::Notify => format!("a notification (Notify at {:#x})", wait.at),
            ResourceKind::Oneshot => format!("a value (oneshot at {:#x})", wait.at),
            ResourceKind::Channel => format!("a message (mpsc channel at {:#x})", wait.at),
            ResourceKind::Broadcast => format!("a message (broadcast channel at {:#x})", wait.at),
            ResourceKind::Task => self.end_of(wait).unwrap_or_else(|| format!("the end of the task at {:#x}", wait.at)),
            ResourceKind::TaskSet => TASK_OF_A_SET.into(),
            ResourceKind::Io => self.io(wait).unwrap_or_else(|| format!("I/O (registered at {:#x})", wait.at)),
        }
    }

    /// The kind of the resource that a task waits for, as the session names it.
    pub(super) fn kind(&self, task: &Task, wait: &Wait) -> &'static str {
        match wait.kind {
            ResourceKind::Timer => "timer",
            ResourceKind::Semaphore => self.lock(task, wait).0,
            ResourceKind::Notify => "notify",
            ResourceKind::Oneshot => "oneshot",
            ResourceKind::Channel => "mpsc_receive",
            ResourceKind::Broadcast => "broadcast",
            ResourceKind::Task => "task",
            ResourceKind::TaskSet => "join_set",
            ResourceKind::Io => "io",
        }
    }

    /// The resource as text, without its address and without what changes as time passes.
    pub(super) fn detail(&self, task: &Task, wait: &Wait) -> Option<String> {
        match wait.kind {
            ResourceKind::Timer | ResourceKind::Notify | ResourceKind::Oneshot => None,
            ResourceKind::Channel | ResourceKind::Broadcast => None,
            ResourceKind::Semaphore => Some(self.lock(task, wait).1),
            ResourceKind::Task => self.end_of(wait),
            ResourceKind::TaskSet => Some(TASK_OF_A_SET.into()),
            ResourceKind::Io => self.io(wait),
        }
    }

    fn end_of(&self, wait: &Wait) -> Option<String> {
        let task = self.dump.tasks.get(self.awaited(wait)?)?;
        Some(format!("the end of task {} {}", task.id, self.type_of(task)))
    }

    fn io(&self, wait: &Wait) -> Option<String> {
        let fds = self.fds.get_or_init(|| fds(self.dump.process.pid).unwrap_or_default());
        let fd = fds.get(&wait.at)?;
        Some(format!("I/O on fd {fd}{}", self.about(*fd)))
    }

    /// The task whose end a task waits for.
    pub(super) fn awaited(&self, wait: &Wait) -> Option<usize> {
        (wait.kind == ResourceKind::Task).then(|| self.tasks.get(&wait.at).copied())?
    }

    fn type_of(&self, task: &Task) -> &str {
        self.dump.types.get(task.of).map_or("", |t| t.name.as_str())
    }

    /// The lock or channel that contains the semaphore, by the function that waits for it: its kind, and as text.
    fn lock(&self, task: &Task, wait: &Wait) -> (&'static str, String) {
        let steps = task.chain.as_ref().and_then(|c| c.steps.get(..wait.step)).unwrap_or_default();
        let names = steps.iter().rev().map_while(|step| match step.what {
            What::Await(of, _) => self.dump.layouts.get(of)?.name.strip_prefix("tokio::sync::"),
            _ => None,
        });
        // The outermost of tokio's functions: a `OnceCell` takes a permit of a semaphore.
        let named = names.last().and_then(|rest| {
            let (module, _) = rest.split_once("::").filter(|(module, _)| *module != "batch_semaphore")?;
            let content = generic_arguments(rest).first().map(|content| type_name(content));
            let of = |what: &str| match &content {
                Some(content) => format!("{what}<{content}>"),
                None => what.into(),
            };
            Some(match module {
                "mutex" => ("mutex", of("Mutex")),
                "rwlock" if rest.contains("read") => ("rwlock_read", format!("{} (to read)", of("RwLock"))),
                "rwlock" => ("rwlock_write", format!("{} (to write)", of("RwLock"))),
                "semaphore" => (SEMAPHORE, "permits of a Semaphore".into()),
                "mpsc" => ("mpsc_send", format!("room in {}", of("a bounded mpsc channel"))),
                "once_cell" | "set_once" => ("once_cell", of("OnceCell")),
                other => (SEMAPHORE, format!("a semaphore of tokio::sync::{other}")),
            })
        });
        named.unwrap_or_else(|| (SEMAPHORE, "a semaphore".into()))
    }

    /// Whether a single holder leaves nothing free.
    fn is_exclusive(hold: &Hold) -> bool {
        matches!(hold.kind, GuardKind::Mutex | GuardKind::Write | GuardKind::Receiver)
    }

    /// The holders of a task's resource; none if it is free.
    pub(super) fn holders(&self, wait: &Wait) -> Vec<Holder> {
        if wait.kind != ResourceKind::Semaphore {
            return Vec::new();
        }
        let free = self.dump.free.get(&wait.at).copied();
        let mut found = Vec::new();
        for &(index, hold) in self.holders.get(&wait.at).into_iter().flatten() {
            if found.len() >= MOST_HOLDERS {
                break;
            }
            let held = match hold.kind {
                GuardKind::Write => hold.count.unwrap_or(MOST_READERS),
                _ => hold.count.unwrap_or(1),
            };
            // A free resource is not held. That says nothing for one of many permits.
            if (Self::is_exclusive(hold) && free.is_some_and(|free| free >= held)) || held == 0 {
                continue;
            }
            let Some(task) = self.dump.tasks.get(index) else { continue };
            let steps = task.chain.as_ref().and_then(|c| c.steps.get(..=hold.step)).unwrap_or_default();
            let mut states = steps.iter().rev().map_while(|step| self.dump.await_point(step)).peekable();
            let local = states.peek().and_then(|(_, state)| match hold.kind {
                GuardKind::Unpolled => state.futures.get(hold.local).map(|future| future.name.as_str()),
                _ => state.guards.get(hold.local)?.name.as_deref(),
            });
            let local = local.map(hud_common::clean_name);
            // For a guard inside a library, where the program's own code called it.
            let at = states.find_map(|(name, state)| {
                let line = state.at.as_ref().filter(|l| is_own(&l.file))?;
                Some((type_name(name), line.file.clone(), line.line))
            });
            found.push(Holder { task: index, local, at, is_certain: hold.is_certain, kind: hold.kind });
        }
        found
    }

    /// Whether all permits of a task's resource are taken.
    pub(super) fn is_held(&self, wait: &Wait) -> bool {
        wait.kind == ResourceKind::Semaphore && self.dump.free.get(&wait.at) == Some(&0)
    }

    /// The tasks that certainly keep a task from its resource, each of them alone.
    pub(super) fn blockers(&self, task: &Task, wait: &Wait) -> Vec<usize> {
        let is_lock = matches!(self.kind(task, wait), "mutex" | "rwlock_read" | "rwlock_write");
        let of_lock = |h: &Holder| h.kind != GuardKind::Unpolled || is_lock;
        let certain = |h: &Holder| h.is_certain && h.kind != GuardKind::Permits && of_lock(h);
        self.holders(wait).into_iter().filter(certain).map(|h| h.task).collect()
    }

    /// Whether a task waits for further permits of a semaphore of which it certainly holds some, while none is free. It may
    /// go on only if another task returns permits.
    pub(super) fn wants_more(&self, task: &Task, wait: &Wait) -> bool {
        let is_own = |h: &Hold| h.at == wait.at && h.kind == GuardKind::Permits && h.is_certain && h.count != Some(0);
        self.is_held(wait)
            && task.chain.as_ref().is_some_and(|chain| chain.holds.iter().any(is_own))
            && self.kind(task, wait) == SEMAPHORE
    }

    /// Cycles of tasks that each wait for the next one, and so never end. Only certain holders count: a lock is free
    /// once all have released it, so one waiting holder suffices; permits may come from other, unknown tasks.
    pub(super) fn cycles(&self) -> Vec<Vec<usize>> {
        let mut next: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut known: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, task) in self.dump.tasks.iter().enumerate().filter(|(_, t)| t.is == Is::Suspended) {
            // With several branches, another one may proceed.
            let Some(chain) = task.chain.as_ref().filter(|c| c.waits.len() == 1 && self.leaves(c) == 1) else {
                continue;
            };
            for wait in &chain.waits {
                let certain = known.entry(wait.at).or_insert_with(|| self.blockers(task, wait));
                next.entry(index).or_default().extend(certain.iter().copied().chain(self.awaited(wait)));
            }
        }
        cycles(next)
    }

    fn leaves(&self, chain: &super::chain::Chain) -> usize {
        chain.steps.iter().filter(|s| !matches!(s.what, What::Await(..))).count()
    }

    /// A descriptor's target.
    fn about(&self, fd: u32) -> String {
        let Ok(link) = fs::read_link(format!("/proc/{}/fd/{fd}", self.dump.process.pid)) else { return String::new() };
        let link = link.to_string_lossy();
        let socket = link.strip_prefix("socket:[").and_then(|i| i.strip_suffix(']')).and_then(|i| i.parse().ok());
        let sockets = || self.sockets.get_or_init(|| sockets(self.dump.process.pid));
        let known: Option<&String> = socket.and_then(|inode: u64| sockets().get(&inode));
        match known {
            Some(known) => format!(", {known}"),
            None => format!(", {}", hud_common::clean_name(&link)),
        }
    }
}

impl Dump {
    /// The coroutine's name and state of a step at an `.await`.
    pub(super) fn await_point(&self, step: &super::chain::Step) -> Option<(&str, &super::layout::CoroutineState)> {
        let What::Await(of, index) = step.what else { return None };
        let of = self.layouts.get(of)?;
        match &of.shape {
            Shape::Coroutine { states, .. } => Some((&of.name, states.get(index)?)),
            _ => None,
        }
    }
}

/// The cycles in a graph given by successors. Each node is in at most one.
fn cycles(mut next: BTreeMap<usize, BTreeSet<usize>>) -> Vec<Vec<usize>> {
    // Nodes without successor are removed repeatedly: all that remain lead into a cycle.
    let mut before: HashMap<usize, Vec<usize>> = HashMap::new();
    for (&node, to) in &next {
        for &to in to {
            before.entry(to).or_default().push(node);
        }
    }
    let ends = |next: &BTreeMap<usize, BTreeSet<usize>>, node: usize| next.get(&node).is_none_or(BTreeSet::is_empty);
    let mut gone: Vec<usize> = before.keys().chain(next.keys()).copied().filter(|&node| ends(&next, node)).collect();
    let mut seen: BTreeSet<usize> = gone.iter().copied().collect();
    while let Some(node) = gone.pop() {
        next.remove(&node);
        for &from in before.get(&node).into_iter().flatten() {
            if let Some(to) = next.get_mut(&from) {
                to.remove(&node);
            }
            if ends(&next, from) && seen.insert(from) {
                gone.push(from);
            }
        }
    }
    let (mut cycles, mut done) = (Vec::new(), BTreeSet::new());
    for &start in next.keys() {
        let (mut way, mut at) = (Vec::new(), start);
        let mut on_way = BTreeSet::new();
        while !done.contains(&at) && on_way.insert(at) {
            way.push(at);
            let Some(&to) = next.get(&at).and_then(BTreeSet::first) else { break };
            at = to;
        }
        if let Some(begin) = way.iter().position(|&w| w == at).filter(|_| !done.contains(&at)) {
            cycles.push(way.get(begin..).unwrap_or_default().to_vec());
        }
        done.extend(way);
    }
    cycles
}

/// Whether a source file is the program's own.
pub(super) fn is_own(file: &str) -> bool {
    !matches!(file_origin(file), Some(origin) if origin != Origin::Own)
}

/// A duration with three digits.
fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match () {
        () if seconds >= 100.0 => format!("{seconds:.0} s"),
        () if seconds >= 10.0 => format!("{seconds:.1} s"),
        () if seconds >= 1.0 => format!("{seconds:.2} s"),
        () => format!("{:.0} ms", seconds * 1e3),
    }
}

/// Descriptors by the number registered in an epoll: tokio passes the address of its `ScheduledIo`.
fn fds(pid: u32) -> io::Result<HashMap<u64, u32>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().take(MOST_FDS) {
        if !fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy() == "anon_inode:[eventpoll]") {
            continue;
        }
        let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // `tfd:       11 events:     201d data:     55c93cf36e00  pos:0 …`
        let mut text = String::new();
        io::Read::read_to_string(
            &mut io::Read::take(fs::File::open(format!("/proc/{pid}/fdinfo/{fd}"))?, MOST_SOCKETS),
            &mut text,
        )?;
        for line in text.lines().take(MOST_FDS) {
            let mut words = line.split_ascii_whitespace();
            if words.next() == Some("tfd:")
                && let Some(fd) = words.next().and_then(|n| n.parse().ok())
                && let Some(data) = words.skip_while(|w| *w != "data:").nth(1)
                && let Ok(data) = u64::from_str_radix(data, 16)
            {
                found.insert(data, fd);
            }
        }
    }
    Ok(found)
}

/// Descriptions of sockets, by inode: `TCP 127.0.0.1:80 to 10.0.0.7:443`.
fn sockets(pid: u32) -> HashMap<u64, String> {
    let mut found = HashMap::new();
    for (table, name) in [("tcp", "TCP"), ("tcp6", "TCP"), ("udp", "UDP"), ("udp6", "UDP")] {
        let Ok(file) = fs::File::open(format!("/proc/{pid}/net/{table}")) else { continue };
        let mut text = String::new();
        if io::Read::read_to_string(&mut io::Read::take(file, MOST_SOCKETS), &mut text).is_err() {
            continue;
        }
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(remote), Some(state), Some(inode)) =
                (words.get(1), words.get(2), words.get(3), words.get(9))
            else {
                continue;
            };
            let (Some(local), Some(remote), Ok(inode)) = (address(local), address(remote), inode.parse()) else {
                continue;
            };
            // TCP_LISTEN.
            let words = if name == "TCP" && *state == "0A" {
                format!("TCP {local}, listening")
            } else if remote.ends_with(":0") {
                format!("{name} {local}")
            } else {
                format!("{name} {local}, peer {remote}")
            };
            found.insert(inode, words);
        }
    }
    found
}

/// `0100007F:1F90`: words in the machine's byte order, and a port.
fn address(text: &str) -> Option<String> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(host.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match host.len() {
        8 => Some(format!("{}:{port}", std::net::Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (to, at) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(0..) {
                *to = word(at)?;
            }
            Some(std::net::SocketAddr::from((std::net::Ipv6Addr::from(bytes), port)).to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_cycles_only() {
        let graph = |edges: &[(usize, usize)]| {
            let mut next: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
            for &(from, to) in edges {
                next.entry(from).or_default().insert(to);
            }
            cycles(next)
        };
        assert_eq!(graph(&[(1, 2), (2, 3)]), Vec::<Vec<usize>>::new());
        assert_eq!(graph(&[(1, 2), (2, 1)]), [[1, 2]]);
        assert_eq!(graph(&[(5, 5)]), [[5]]);
        // One task that waits for the cycle, and another holder that proceeds.
        assert_eq!(graph(&[(0, 1), (1, 2), (2, 1), (1, 9), (7, 2), (9, 10)]), [[1, 2]]);
        assert_eq!(graph(&[(1, 2), (2, 1), (3, 4), (4, 3), (2, 3)]).len(), 2);
        // A long one takes linear time.
        let long: Vec<(usize, usize)> = (0..100_000).map(|n| (n, (n + 1) % 100_000)).collect();
        assert_eq!(graph(&long)[0].len(), 100_000);
    }

    #[test]
    fn formats_socket_addresses() {
        assert_eq!(address("0100007F:1F90").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(address("00000000000000000000000001000000:0050").as_deref(), Some("[::1]:80"));
        assert_eq!(address("ä:0050"), None);
        assert_eq!(address("0100007F"), None);
    }
}

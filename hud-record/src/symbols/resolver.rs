//! From offsets in mapped files to functions, by the sandboxed child and the cache of earlier sessions.
//!
//! This is the recorder's half. It opens files and passes their descriptors, checks the answers, and gives up a file
//! that has ended two children.

use std::{
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    cache::{Cache, Entry},
    debug_files::{self, Roots},
    frame::{MOST_FRAMES, ResolvedAddress, ResolvedFrame},
    module_info::{ModuleId, ModuleInfo, Role, WantedObject},
};
use crate::{
    inspect::TokioDebug,
    sandbox::{
        AskError, Generation, Sandbox,
        protocol::{Answer, MOST_ADDRESSES, Request},
    },
    tasks::Layouts,
};

/// Children that a file may end before hud gives it up.
const MOST_FAILURES: u32 = 2;
/// Attempts of a request after another file ended the child.
const MOST_RESTARTS: u32 = 20;
/// Objects of split debug information that are opened for one request.
const MOST_OBJECTS: u32 = 4096;

/// A binary whose symbols are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryId(usize);

/// The sandboxed child and the cache, for all sessions of one target.
pub struct Sources {
    sandbox: Sandbox,
    cache: Cache,
}

impl Sources {
    /// Combines a child and a cache.
    pub fn new(sandbox: Sandbox, cache: Cache) -> Self {
        Sources { sandbox, cache }
    }

    /// The child.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }
}

/// Resolves addresses to functions.
pub struct Resolver {
    sources: Arc<Sources>,
    roots: Roots,
    binaries: Vec<Binary>,
    /// No more requests after this instant: addresses not known by then stay without function.
    deadline: Option<Instant>,
    notes: Vec<String>,
}

struct Binary {
    file: File,
    identity: [i64; 6],
    /// Its path as the target sees it.
    path: PathBuf,
    build_id: Option<Vec<u8>>,
    known: Arc<Mutex<Entry>>,
    state: State,
    failures: u32,
}

enum State {
    /// Opened in a child that may have ended since.
    Open(Generation, ModuleId),
    /// Not opened yet, or the child has ended.
    Closed,
    /// Cannot be read.
    GivenUp,
}

/// Why a request failed.
enum Failed {
    /// To be sent again.
    Again,
    /// Because of the file.
    File(String),
    /// There is no child.
    All(String),
}

impl From<AskError> for Failed {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Restarted => Failed::Again,
            AskError::Crashed(how) => Failed::File(how),
            AskError::Unavailable(why) => Failed::All(why),
        }
    }
}

impl Resolver {
    /// For the files of a process, or those of the system.
    pub fn new(sources: Arc<Sources>, pid: Option<u32>) -> Self {
        Resolver { sources, roots: Roots::of(pid), binaries: Vec::new(), deadline: None, notes: Vec::new() }
    }

    /// Sends no more requests after this instant.
    pub fn give_up_at(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Opens the binary at `place`; `shown` is its path, from which debug files are searched.
    pub fn open(&mut self, place: &Path, shown: &Path) -> Option<BinaryId> {
        self.open_file(debug_files::open(place).ok()?, shown)
    }

    /// Opens a binary by its file.
    pub fn open_file(&mut self, file: File, shown: &Path) -> Option<BinaryId> {
        let identity = debug_files::identity(&file).ok()?;
        if let Some(known) = self.binaries.iter().position(|b| b.identity == identity) {
            return Some(BinaryId(known));
        }
        let known = Arc::default();
        let path = shown.to_path_buf();
        let state = State::Closed;
        let id = BinaryId(self.binaries.len());
        self.binaries.push(Binary { file, identity, path, build_id: None, known, state, failures: 0 });
        self.ask_about(id, |this| this.opened(id).map(|_| ()));
        Some(id)
    }

    /// The GNU build id of a binary.
    pub fn build_id(&self, binary: BinaryId) -> Option<&[u8]> {
        self.binaries.get(binary.0)?.build_id.as_deref()
    }

    /// Messages about files that could not be read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Saves new symbols for later sessions.
    pub fn save(&self) {
        self.sources.cache.save();
    }

    /// The functions at offsets of a binary, in the order requested. An unknown offset has no frames.
    pub fn resolve(&mut self, binary: BinaryId, offsets: &[u64]) -> Vec<ResolvedAddress> {
        let missing: Vec<u64> = {
            let Some(known) = self.known(binary) else { return unknown(offsets) };
            offsets.iter().copied().filter(|&offset| known.get(offset).is_none()).collect()
        };
        for mut some in missing.chunks(MOST_ADDRESSES) {
            while !some.is_empty() {
                let Some(found) = self.ask_about(binary, |this| this.frames(binary, some)) else { break };
                let Some(mut known) = self.known(binary) else { break };
                let answered = found.len();
                for (&offset, located) in some.iter().zip(found) {
                    known.insert(offset, located);
                }
                drop(known);
                some = some.get(answered..).unwrap_or_default();
            }
        }
        let Some(known) = self.known(binary) else { return unknown(offsets) };
        let get = |&offset: &u64| known.get(offset).map_or_else(|| nowhere(offset), believed);
        offsets.iter().map(get).collect()
    }

    /// Debug information about tokio in a binary, or why it is not available. Requested once, even if that fails.
    pub(crate) fn tokio(&mut self, binary: BinaryId, polls: Vec<u64>) -> Result<TokioDebug, String> {
        let answer = self.opened(binary).and_then(|(generation, module)| {
            let request = Request::Tokio { module, polls };
            Ok(self.sources.sandbox.ask(Some(generation), request, Vec::new())?.1)
        });
        match answer {
            Ok(Answer::Tokio(mut answer)) => {
                for place in answer.polls.values_mut().filter_map(|poll| poll.place.as_mut()) {
                    place.file = hud_common::clean_name(&place.file);
                }
                Ok(answer)
            }
            Ok(_) => Err("gave an unexpected answer".into()),
            Err(Failed::Again) => Err("cannot read the file".into()),
            Err(Failed::File(how) | Failed::All(how)) => Err(how),
        }
    }

    /// The memory layouts of task types, of trait objects and of the futures that `block_on` runs at return addresses,
    /// or why they are not available.
    pub(crate) fn layouts(
        &mut self,
        binary: BinaryId,
        polls: Vec<(u64, u64)>,
        objects: Vec<u64>,
        callers: Vec<u64>,
    ) -> Result<Layouts, String> {
        // A child with a large heap is replaced after its answer: then the next one opens the file again.
        let mut answer = Err(Failed::Again);
        for _ in 0..2 {
            answer = self.opened(binary).and_then(|(generation, module)| {
                let (polls, objects, callers) = (polls.clone(), objects.clone(), callers.clone());
                let request = Request::Layouts { module, polls, objects, callers };
                Ok(self.sources.sandbox.ask(Some(generation), request, Vec::new())?.1)
            });
            if !matches!(answer, Err(Failed::Again)) {
                break;
            }
            if let Some(binary) = self.binaries.get_mut(binary.0)
                && !matches!(binary.state, State::GivenUp)
            {
                binary.state = State::Closed;
            }
        }
        match answer {
            Ok(Answer::Layouts(layouts)) => Ok(layouts),
            Ok(_) => Err("gave an unexpected answer".into()),
            Err(Failed::Again) => Err("cannot read the file".into()),
            Err(Failed::File(how) | Failed::All(how)) => Err(how),
        }
    }

    fn known(&self, binary: BinaryId) -> Option<MutexGuard<'_, Entry>> {
        Some(self.binaries.get(binary.0)?.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends requests until there is an answer, or there can be none.
    fn ask_about<T>(&mut self, id: BinaryId, mut ask: impl FnMut(&mut Self) -> Result<T, Failed>) -> Option<T> {
        for _ in 0..MOST_RESTARTS {
            if self.deadline.is_some_and(|at| Instant::now() >= at) {
                return None;
            }
            let failed = match ask(self) {
                Ok(answer) => return Some(answer),
                Err(failed) => failed,
            };
            let binary = self.binaries.get_mut(id.0)?;
            if matches!(binary.state, State::GivenUp) {
                return None;
            }
            binary.state = State::Closed;
            let note = match failed {
                Failed::Again => continue,
                Failed::File(how) => {
                    binary.failures += 1;
                    if binary.failures < MOST_FAILURES {
                        continue;
                    }
                    let path = hud_common::clean_name(&binary.path.to_string_lossy());
                    format!("the functions of {path} have no names: the sandboxed child {how}, twice")
                }
                Failed::All(why) => format!("functions have no names: {why}"),
            };
            binary.state = State::GivenUp;
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
            return None;
        }
        None
    }

    /// Opens the binary in the child, if it is not open.
    fn opened(&mut self, id: BinaryId) -> Result<(Generation, ModuleId), Failed> {
        let lost = || Failed::All("no such binary".into());
        let binary = self.binaries.get_mut(id.0).ok_or_else(lost)?;
        match binary.state {
            State::Open(generation, module) => return Ok((generation, module)),
            State::GivenUp => return Err(Failed::Again),
            State::Closed => {}
        }
        let file = duplicate(&binary.file)?;
        let (generation, answer) = self.sources.sandbox.ask(None, Request::Open, vec![file])?;
        let opened = match answer {
            Answer::Opened(opened) => opened,
            // Not a binary that hud reads.
            _ => {
                binary.state = State::GivenUp;
                return Err(Failed::Again);
            }
        };
        let debug_files = debug_files(&self.roots, &binary.path, &opened);
        let tag = tag(&debug_files);
        binary.build_id = opened.build_id.clone().filter(|id| !id.is_empty() && id.len() <= 64);
        binary.known = self.sources.cache.entry(&key(binary), tag);
        let generation = self.give_all(generation, opened, debug_files, id)?;
        let binary = self.binaries.get_mut(id.0).ok_or_else(lost)?;
        binary.state = State::Open(generation.0, generation.1);
        Ok(generation)
    }

    /// Passes the files that belong to it to the child.
    fn give_all(
        &self,
        generation: Generation,
        opened: ModuleInfo,
        debug_files: Vec<(Role, File)>,
        id: BinaryId,
    ) -> Result<(Generation, ModuleId), Failed> {
        let module = opened.module;
        let path = self.binaries.get(id.0).map(|b| b.path.clone()).unwrap_or_default();
        let mut now = opened;
        for (role, file) in debug_files {
            let wanted = match role {
                Role::Package => now.has_debug,
                _ => !now.has_debug,
            };
            if wanted && let Some(after) = self.give(generation, module, role, Some(file.into()))? {
                now = after;
            }
        }
        if let Some((name, build_id)) = now.supplement.take() {
            for place in debug_files::supplements(&path, &name, &build_id) {
                for file in self.roots.open(&place) {
                    if let Some(after) = self.give(generation, module, Role::Supplement, Some(file.into()))?
                        && after.supplement.is_none()
                    {
                        return Ok((generation, module));
                    }
                }
            }
        }
        Ok((generation, module))
    }

    /// Passes a file to the child. `None` if it was not the right one.
    fn give(
        &self,
        generation: Generation,
        module: ModuleId,
        role: Role,
        file: Option<OwnedFd>,
    ) -> Result<Option<ModuleInfo>, Failed> {
        let request = Request::Give { module, role };
        let files = file.into_iter().collect();
        match self.sources.sandbox.ask(Some(generation), request, files)?.1 {
            Answer::Opened(opened) => Ok(Some(opened)),
            Answer::Refused(_) => Ok(None),
            _ => Err(Failed::File("gave an unexpected answer".into())),
        }
    }

    /// The functions at the first of the offsets.
    fn frames(&mut self, id: BinaryId, offsets: &[u64]) -> Result<Vec<ResolvedAddress>, Failed> {
        let odd = || Failed::File("gave an unexpected answer".into());
        for _ in 0..MOST_OBJECTS {
            let (generation, module) = self.opened(id)?;
            let request = Request::Frames { module, offsets: offsets.to_vec() };
            match self.sources.sandbox.ask(Some(generation), request, Vec::new())?.1 {
                Answer::Frames(found) if !found.is_empty() && found.len() <= offsets.len() => {
                    return Ok(found.iter().map(believed).collect());
                }
                Answer::Wants(object) => {
                    let file = self.object(id, &object);
                    let role = Role::Object(object.id);
                    let is_there = file.is_some();
                    let taken = self.give(generation, module, role, file)?;
                    if is_there && taken.is_none() {
                        self.give(generation, module, role, None)?;
                    }
                }
                _ => return Err(odd()),
            }
        }
        Err(odd())
    }

    fn object(&self, id: BinaryId, object: &WantedObject) -> Option<OwnedFd> {
        let binary = self.binaries.get(id.0)?;
        let places = debug_files::objects(&binary.path, &object.folder, &object.path);
        places.iter().find_map(|place| self.roots.open(place).next()).map(Into::into)
    }
}

fn duplicate(file: &File) -> Result<OwnedFd, Failed> {
    // It shares the file position, which does not matter: both sides read by mapping.
    file.try_clone().map(Into::into).map_err(|e| Failed::All(e.to_string()))
}

/// Opens the existing debug files of a binary.
fn debug_files(roots: &Roots, path: &Path, opened: &ModuleInfo) -> Vec<(Role, File)> {
    let mut places = Vec::new();
    if !opened.has_debug {
        let link = opened.debug_link.as_ref().map(|(name, _)| name.as_slice());
        places = debug_files::debug_files(path, opened.build_id.as_deref(), link);
    }
    places.push((Role::Package, debug_files::package(path)));
    places.iter().flat_map(|(role, place)| roots.open(place).map(|file| (*role, file)).collect::<Vec<_>>()).collect()
}

/// Distinguishes sets of debug files; 0 if there are none.
fn tag(debug_files: &[(Role, File)]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    for (_, file) in debug_files {
        for field in debug_files::identity(file).unwrap_or_default() {
            hash.update(&field.to_le_bytes());
        }
    }
    hash.finalize()
}

/// The cache key of a binary.
fn key(binary: &Binary) -> String {
    let [dev, ino, size, uid, mtime, ctime] = binary.identity;
    match &binary.build_id {
        Some(id) => {
            let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
            format!("{id}-{size:x}-{uid}")
        }
        None => format!("file-{dev:x}-{ino:x}-{mtime:x}-{ctime:x}-{size:x}-{uid}"),
    }
}

/// Sanitises and bounds an answer.
fn believed(located: &ResolvedAddress) -> ResolvedAddress {
    let clean = |name: &Option<String>| name.as_deref().filter(|n| !n.is_empty()).map(hud_common::clean_name);
    let frame = |f: &ResolvedFrame| ResolvedFrame {
        function: clean(&f.function),
        file: clean(&f.file),
        line: f.line,
        column: f.column,
        origin: f.origin,
    };
    let frames = located.frames.iter().take(MOST_FRAMES).map(frame).collect();
    ResolvedAddress { address: located.address, is_signal_return: located.is_signal_return, frames }
}

fn nowhere(offset: u64) -> ResolvedAddress {
    ResolvedAddress { address: offset, ..ResolvedAddress::default() }
}

fn unknown(offsets: &[u64]) -> Vec<ResolvedAddress> {
    offsets.iter().copied().map(nowhere).collect()
}

//! Probes in the target's code, attached and detached as a whole.
//!
//! One `uprobe_multi` link (Linux 6.6) holds all the places of a program, so detaching costs one grace period instead
//! of one per place (0.1 s each, one after the other even from several threads). aya 0.14 lacks such links: the program
//! is loaded here, by aya-obj and [`bpf`].

use std::{
    collections::HashSet,
    ffi::CString,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
};

use aya::{Ebpf, maps::Map};
use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_map_type, bpf_prog_info, bpf_prog_type};
use rustix::io::Errno;

use super::{refusal::verdict, switch::Attach};
use crate::{bpf, privilege};

/// `BPF_F_UPROBE_MULTI_RETURN` (include/uapi/linux/bpf.h).
const RETURN: u32 = 1;

/// The places of one program.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The program, by its name in the object.
    pub(crate) program: &'static str,
    /// Whether it runs at the functions' returns.
    pub(crate) is_return: bool,
    /// File offsets, each with its `bpf_get_attach_cookie`.
    pub(crate) at: Vec<(u64, u64)>,
}

/// The object's code, bound to its maps and ready to be loaded.
pub(crate) struct Relocated {
    object: aya_obj::Object,
    /// The code refers to its descriptor.
    _own_array: OwnedFd,
}

impl Relocated {
    /// Binds `object` to the maps of `bpf`.
    pub(crate) fn new(bpf: &Ebpf, object: &[u8]) -> io::Result<Self> {
        let mut object = aya_obj::Object::parse(object).map_err(io::Error::other)?;
        let code: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let maps = std::mem::take(&mut object.maps);
        let own_array = program_array()?;
        let mut fds = Vec::new();
        for (name, map) in &maps {
            // aya-obj asserts that every map exists.
            let fd = match name.as_str() {
                NO_PROGRAM => Some(own_array.as_raw_fd()),
                _ => bpf.map(name).and_then(map_fd),
            };
            fds.push((name.as_str(), fd.ok_or_else(|| io::Error::other(format!("no map {name}")))?, map));
        }
        object.relocate_maps(fds.into_iter(), &code).map_err(io::Error::other)?;
        object.relocate_calls(&code).map_err(io::Error::other)?;
        Ok(Relocated { object, _own_array: own_array })
    }

    /// Loads the programs `names`. Also returns rejected ones, with the verifier's reason.
    ///
    /// # Errors
    ///
    /// Linux before 6.6 has no such links, and some later versions have unreliable ones: see
    /// [`super::trap_cost::test`].
    pub(crate) fn load(&self, names: &[&'static str]) -> io::Result<(Programs, Vec<(&'static str, String)>)> {
        let (mut programs, mut rejected) = (Vec::new(), Vec::new());
        for &name in names {
            let program = self.object.programs.get(name);
            let function = program.and_then(|p| self.object.functions.get(&p.function_key()));
            let (Some(program), Some(function)) = (program, function) else {
                return Err(io::Error::other(format!("the kernel object has no {name}")));
            };
            match load(name, program, &function.instructions) {
                Ok(fd) => programs.push((name, fd)),
                Err((_, why)) if !why.is_empty() => rejected.push((name, why)),
                Err((e, _)) => return Err(e),
            }
        }
        Ok((Programs(programs.into()), rejected))
    }
}

/// The loaded programs. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Programs(Arc<[(&'static str, OwnedFd)]>);

impl Programs {
    /// How often a program has run, where the kernel counts it.
    pub(super) fn runs(&self, name: &str) -> io::Result<u64> {
        Ok(info(self.get(name)?)?.run_cnt)
    }

    /// Whether a program is loaded.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_ok()
    }

    fn get(&self, name: &str) -> io::Result<&OwnedFd> {
        let found = self.0.iter().find(|(n, _)| *n == name);
        found.map(|(_, fd)| fd).ok_or_else(|| io::Error::other(format!("{name} is not loaded")))
    }

    /// Run time of the programs so far (ns), while the kernel counts it.
    pub(crate) fn run_time(&self) -> u64 {
        self.0.iter().filter_map(|(_, fd)| info(fd).ok()).map(|i| i.run_time_ns).sum()
    }

    /// Name and verified instructions of each program.
    pub(crate) fn verified_instructions(&self) -> Vec<(String, u32)> {
        self.0.iter().filter_map(|(name, fd)| Some((name.to_string(), info(fd).ok()?.verified_insns))).collect()
    }
}

/// Refusals while the places that the kernel cannot probe are isolated.
const MOST_REFUSALS: usize = 48;
/// `ENOTSUPP` (include/linux/errno.h), normally internal to the kernel: an instruction that cannot be executed out of
/// line, such as one with a `lock` prefix (`uprobe_init_insn`, arch/x86/kernel/uprobes.c).
const NOT_SUPPORTED: i32 = 524;

/// Whether the kernel refused this place, rather than the program or the process.
pub(crate) fn is_of_the_place(errno: i32) -> bool {
    let known = [Errno::INVAL, Errno::IO, Errno::OPNOTSUPP].map(Errno::raw_os_error);
    errno == NOT_SUPPORTED || known.contains(&errno)
}

/// Places that the kernel cannot probe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused {
    /// Offsets in the file.
    pub(crate) places: HashSet<u64>,
    /// The kernel's error for the first.
    pub(crate) why: String,
}

impl Refused {
    pub(crate) fn add(&mut self, places: impl IntoIterator<Item = u64>, why: &io::Error) {
        if self.places.is_empty() {
            self.why = why.to_string();
        }
        self.places.extend(places);
    }
}

/// The probes of one process.
#[derive(Debug)]
pub(crate) struct Uprobes {
    programs: Programs,
    places: Vec<Places>,
    file: CString,
    pid: u32,
    /// How many of `places` are attached.
    on: usize,
    /// One per entry of `places`, more if some places are refused.
    links: Vec<OwnedFd>,
    refused: Refused,
}

impl Uprobes {
    /// Probes of process `pid` at `places` of `file`, detached. They are attached in the order of `places`.
    pub(crate) fn new(programs: Programs, places: Vec<Places>, file: &str, pid: u32) -> io::Result<Self> {
        let file = CString::new(file).map_err(io::Error::other)?;
        let places = places.into_iter().filter(|p| !p.at.is_empty()).collect();
        Ok(Uprobes { programs, places, file, pid, on: 0, links: Vec::new(), refused: Refused::default() })
    }

    /// Adds places, to be attached after the others.
    pub(super) fn add(&mut self, places: Places) {
        self.places.push(places);
    }

    /// Detaches all links, each on a thread of its own, which are returned.
    pub(super) fn release(&mut self) -> Vec<JoinHandle<()>> {
        release(&mut self.links)
    }

    /// The places that are left out because the kernel refused them.
    pub(crate) fn refused(&self) -> &Refused {
        &self.refused
    }

    /// Attaches a program at its places, without those that the kernel refuses. The kernel does not say which they are,
    /// so a refused list is halved until they are found. After too many refusals the rest is left out as well.
    fn attach_at(&mut self, places: &Places) -> io::Result<()> {
        let program = self.programs.get(places.program)?;
        let at = places.at.iter().copied().filter(|(place, _)| !self.refused.places.contains(place)).collect();
        let mut parts: Vec<Vec<(u64, u64)>> = vec![at];
        let mut refusals = 0;
        while let Some(mut at) = parts.pop() {
            if at.is_empty() {
                continue;
            }
            match link(program, &at, places.is_return, &self.file, self.pid) {
                Ok(link) => self.links.push(link),
                Err(e) if !e.raw_os_error().is_some_and(is_of_the_place) => return Err(e),
                Err(e) => {
                    refusals += 1;
                    if at.len() == 1 || refusals > MOST_REFUSALS {
                        self.refused.add(at.iter().map(|(place, _)| *place), &e);
                    } else {
                        let second = at.split_off(at.len() / 2);
                        parts.extend([second, at]);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Attach for Uprobes {
    /// In the order of their places.
    fn attach(&mut self) -> io::Result<()> {
        let places = std::mem::take(&mut self.places);
        let done = places.iter().skip(self.on).try_for_each(|places| {
            self.attach_at(places)?;
            self.on += 1;
            Ok(())
        });
        self.places = places;
        done
    }

    /// Detaches all of them in parallel: each waits for a grace period of the kernel, and those still attached cost the
    /// target a trap per hit. The order does not matter, as none of them counts any more (`PROBES_SINCE`).
    fn detach(&mut self) {
        self.on = 0;
        for thread in self.release() {
            let _ = thread.join();
        }
    }

    fn is_attached(&self) -> bool {
        self.on > 0
    }
}

/// Detaches links in parallel, each on a thread of its own.
fn release(links: &mut Vec<OwnedFd>) -> Vec<JoinHandle<()>> {
    let threads = links.drain(..).map(|link| {
        // If no thread can be started, dropping the closure detaches here.
        thread::Builder::new().name("hud-detacher".into()).spawn(move || {
            privilege::enter_unprivileged();
            drop(link);
        })
    });
    threads.flatten().collect()
}

/// The object's array of programs that is always empty (hud-ebpf, `maps::on_own_stack`).
const NO_PROGRAM: &str = "NO_PROGRAM";

/// Creates another one. A program array belongs to the first program that uses it and to its attach type
/// (`bpf_prog_map_compatible`, kernel/bpf/core.c), so programs that are attached one by one cannot share it.
fn program_array() -> io::Result<OwnedFd> {
    let mut attr = bpf::zeroed();
    {
        // SAFETY: all members are plain integers; this is the one of BPF_MAP_CREATE.
        let create = unsafe { &mut attr.__bindgen_anon_1 };
        create.map_type = bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY as u32;
        (create.key_size, create.value_size, create.max_entries) = (4, 4, 1);
    }
    bpf::open(bpf_cmd::BPF_MAP_CREATE, &mut attr)
}

fn map_fd(map: &Map) -> Option<i32> {
    let data = match map {
        Map::Array(d) | Map::HashMap(d) | Map::LruHashMap(d) | Map::PerCpuArray(d) | Map::RingBuf(d) => d,
        _ => return None,
    };
    Some(data.fd().as_fd().as_raw_fd())
}

/// Loads a program. An error has the verifier's reason, empty if it is another error.
fn load(
    name: &str,
    program: &aya_obj::Program,
    code: &[aya_obj::generated::bpf_insn],
) -> Result<OwnedFd, (io::Error, String)> {
    /// Size of the verifier's log. Linux before 6.4 keeps the beginning of a longer one, later versions the end.
    const LOG: usize = 8 << 20;
    let count = u32::try_from(code.len()).map_err(|e| (io::Error::other(e), String::new()))?;
    let mut attr = bpf::zeroed();
    let set = |attr: &mut aya_obj::generated::bpf_attr, log: &mut [u8]| {
        // SAFETY: all members are plain integers; this is the one of BPF_PROG_LOAD.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
        load.expected_attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
        load.insns = code.as_ptr() as u64;
        load.insn_cnt = count;
        load.license = program.license.as_ptr() as u64;
        if !log.is_empty() {
            (load.log_level, load.log_buf) = (1, log.as_mut_ptr() as u64);
            load.log_size = u32::try_from(log.len()).unwrap_or(0);
        }
        // 15 bytes and a NUL, of the characters that the kernel accepts.
        for (to, from) in load.prog_name.iter_mut().take(15).zip(name.bytes()) {
            *to = from.cast_signed();
        }
    };
    set(&mut attr, &mut []);
    match bpf::open(bpf_cmd::BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => Ok(fd),
        Err(e) => {
            let mut log = vec![0; LOG];
            set(&mut attr, &mut log);
            let again = bpf::open(bpf_cmd::BPF_PROG_LOAD, &mut attr);
            let text = log.split(|b| *b == 0).next().map(String::from_utf8_lossy).unwrap_or_default();
            again.map_err(|_| (e, verdict(&text).to_string()))
        }
    }
}

fn link(program: &OwnedFd, at: &[(u64, u64)], is_return: bool, file: &CString, pid: u32) -> io::Result<OwnedFd> {
    let (offsets, cookies): (Vec<u64>, Vec<u64>) = at.iter().copied().unzip();
    let mut attr = bpf::zeroed();
    {
        // SAFETY: all members are plain integers; these are the ones of BPF_LINK_CREATE.
        unsafe {
            attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
            attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
            let multi = &mut attr.link_create.__bindgen_anon_3.uprobe_multi;
            multi.path = file.as_ptr() as u64;
            multi.offsets = offsets.as_ptr() as u64;
            multi.cookies = cookies.as_ptr() as u64;
            multi.cnt = u32::try_from(offsets.len()).map_err(io::Error::other)?;
            multi.flags = if is_return { RETURN } else { 0 };
            multi.pid = pid;
        }
    }
    bpf::open(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

fn info(program: &OwnedFd) -> io::Result<bpf_prog_info> {
    // SAFETY: plain integers.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attr = bpf::zeroed();
    attr.info.bpf_fd = program.as_raw_fd().cast_unsigned();
    attr.info.info_len = u32::try_from(size_of::<bpf_prog_info>()).map_err(io::Error::other)?;
    attr.info.info = (&raw mut info) as u64;
    bpf::call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

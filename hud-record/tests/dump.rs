//! `hud dump` against programs that know what their tasks wait for.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use support::{Target, program, text};

fn hud(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hud")).arg("dump").args(arguments).output().unwrap()
}

fn dump(pid: u32) -> Value {
    let output = hud(&["--pid", &pid.to_string(), "--format", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Starts a program, and returns its second line.
fn start(program: &Path, arguments: &[&str]) -> (Target, Value) {
    let mut target = Target::start(program, arguments);
    let truth = serde_json::from_str(&target.line()).unwrap();
    (target, truth)
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

/// Spawned futures, by their id.
fn futures(dump: &Value) -> BTreeMap<u64, &Value> {
    let tasks = list(&dump["tasks"]).iter().filter(|t| t["kind"] == "task");
    let by_id: BTreeMap<u64, &Value> = tasks.clone().map(|t| (t["id"].as_u64().unwrap(), t)).collect();
    assert_eq!(by_id.len(), tasks.count(), "two tasks have one id");
    by_id
}

/// The lines of the program's own code at which a task waits.
fn own_lines(task: &Value) -> Vec<u64> {
    let own = list(&task["stack"]).iter().filter(|f| f["own"] == true && f["kind"] == "await");
    own.map(|f| f["line"].as_u64().unwrap()).collect()
}

#[test]
fn every_task_is_found_with_the_lines_at_which_it_waits_and_what_for() {
    let (target, truth) = start(&program("zoo"), &[]);
    let dump = dump(target.pid());
    let found = futures(&dump);
    let expected: BTreeMap<u64, &Value> =
        list(&truth["tasks"]).iter().map(|t| (t["id"].as_u64().unwrap(), t)).collect();
    assert!(expected.len() >= 70, "{}", expected.len());
    for (id, own) in &expected {
        let task = found.get(id).unwrap_or_else(|| panic!("missing: {own}"));
        let context = format!("{own}\nis shown as\n{task:#}");
        assert_eq!(task["state"], "suspended", "{context}");
        let lines = |lines: Vec<u64>| -> Vec<u64> {
            let mut lines = lines;
            lines.sort_unstable();
            lines
        };
        let wanted = list(&own["lines"]).iter().map(|l| l.as_u64().unwrap()).collect();
        assert_eq!(lines(own_lines(task)), lines(wanted), "{context}");
        let first = list(&task["stack"]).iter().find(|f| f["own"] == true);
        if let Some(first) = first {
            let (function, wanted) = (first["function"].as_str().unwrap(), own["function"].as_str().unwrap());
            assert!(function.starts_with(wanted), "{context}");
            assert!(first["file"].as_str().unwrap().ends_with("examples/zoo.rs"), "{context}");
        }
        let waits = list(&task["waits"]).iter().map(|w| w["for"].as_str().unwrap());
        let leaves =
            list(&task["stack"]).iter().filter(|f| f["kind"] == "leaf").map(|f| f["function"].as_str().unwrap());
        let said: Vec<&str> = waits.chain(leaves).collect();
        for wanted in list(&own["waits_for"]) {
            let wanted = wanted.as_str().unwrap();
            assert!(said.iter().any(|s| s.contains(wanted)), "{wanted:?} is not in {said:?}: {context}");
        }
        let held: BTreeSet<u64> = list(&task["waits"])
            .iter()
            .flat_map(|w| list(&w["held_by"]))
            .map(|h| h["task"].as_u64().unwrap())
            .collect();
        if let Some(name) = own["held"].as_str() {
            let holder = truth["holders"][name].as_u64().unwrap();
            assert_eq!(held, BTreeSet::from([holder]), "{context}");
        } else {
            assert!(held.is_empty() || task["type"] == "zoo::waits_for_cell", "{context}");
        }
    }
    // All of them and no other: four belong to a runtime that does not run.
    let others = found.iter().filter(|(id, _)| !expected.contains_key(id));
    let mut others: Vec<&str> = others.map(|(_, task)| task["state"].as_str().unwrap()).collect();
    others.sort_unstable();
    assert_eq!(others, ["cancelled", "finished, not joined", "never polled", "never polled"]);
    // By tokio's own count for the first runtime.
    let alive = |owner: u64| {
        found.values().filter(|t| t["owner"] == owner && t["state"] != "finished, not joined").count() as u64
    };
    let owner = found[&expected.keys().next().copied().unwrap()]["owner"].as_u64().unwrap();
    assert_eq!(alive(owner), truth["alive"].as_u64().unwrap());
    // Those that wait for each other for ever, and no others: a task whose holder sleeps will continue.
    let cycles = list(&dump["deadlocks"]).iter();
    let cycles: BTreeSet<BTreeSet<u64>> =
        cycles.map(|cycle| list(cycle).iter().map(|id| id.as_u64().unwrap()).collect()).collect();
    let of = |locks: &[&str]| locks.iter().map(|lock| truth["holders"][lock].as_u64().unwrap()).collect();
    assert_eq!(
        cycles,
        BTreeSet::from([of(&["a", "b"]), of(&["actor", "other actor"]), of(&["twice"]), of(&["futurelock"])])
    );
}

#[test]
fn block_on_futures_are_found_on_the_threads_stacks() {
    let (target, truth) = start(&program("zoo"), &[]);
    let lines = |function: &str| -> Vec<u64> {
        let of = list(&truth["tasks"]).iter().find(|t| t["function"] == function).unwrap();
        list(&of["lines"]).iter().map(|l| l.as_u64().unwrap()).collect()
    };
    let dump = dump(target.pid());
    let roots: Vec<&Value> = list(&dump["tasks"]).iter().filter(|t| t["kind"] == "block_on").collect();
    let mut found: Vec<Vec<u64>> = roots.iter().map(|t| own_lines(t)).collect();
    found.sort_unstable();
    // By a `LocalSet` on a runtime with one thread, and two by a runtime with several. The first is being polled.
    let mut wanted = vec![Vec::new(), lines("zoo::asleep"), lines("zoo::asleep"), lines("zoo::nested")];
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{roots:#?}");
    assert!(roots.iter().all(|t| t["thread"]["tid"].as_u64().is_some() && t["id"].is_null()), "{roots:#?}");
}

#[test]
fn a_deadlock_is_reported_first_and_equal_tasks_are_grouped() {
    let (target, truth) = start(&program("zoo"), &[]);
    let output = hud(&["--pid", &target.pid().to_string()]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let id = |lock: &str| truth["holders"][lock].as_u64().unwrap();
    let (one, other) = (id("a"), id("b"));
    let deadlock = shown.find("DEADLOCK of 2 tasks").expect(&shown);
    assert!(deadlock < shown.find("\n\n1 task:").unwrap(), "{shown}");
    for line in [
        format!("  task {one} zoo::transfer_ab at hud-record/examples/zoo.rs:"),
        format!(
            "    held by task {other} zoo::transfer_ba (`from` of zoo::transfer_ba, at hud-record/examples/zoo.rs:"
        ),
    ] {
        assert!(shown.contains(&line), "{line} is not in {shown}");
    }
    assert!(
        shown.contains("(`future`, a future that is not polled and was given the lock, of zoo::futurelock"),
        "{shown}"
    );
    assert!(shown.contains("40 times:"), "{shown}");
    assert!(shown.contains("2 tasks: zoo::mutex_waiter, suspended"), "{shown}");
    // Only its own code, unless requested.
    assert!(!shown.contains("/registry/"), "{shown}");
    let all = text(&hud(&["--pid", &target.pid().to_string(), "--all-frames", "--type", "mutex_waiter"]).stdout);
    assert!(all.contains("/src/sync/mutex.rs:") && !all.contains("zoo::asleep, suspended"), "{all}");
    let alone = text(&hud(&["--pid", &target.pid().to_string(), "--task", &one.to_string()]).stdout);
    assert!(alone.contains(&format!("  id {one}\n")) && !alone.contains(&format!("  id {other}\n")), "{alone}");
}

#[test]
fn a_stripped_program_shows_as_many_tasks_by_their_futures_locations() {
    let folder = tempfile::tempdir().unwrap();
    let stripped = folder.path().join("zoo");
    assert!(Command::new("strip").arg("-s").arg("-o").arg(&stripped).arg(program("zoo")).status().unwrap().success());
    let (target, truth) = start(&stripped, &[]);
    // Also after the file has been removed.
    fs::remove_file(&stripped).unwrap();
    let dump = dump(target.pid());
    let found = futures(&dump);
    assert_eq!(found.len(), list(&truth["tasks"]).len() + 4);
    for task in list(&truth["tasks"]) {
        let shown = found[&task["id"].as_u64().unwrap()];
        assert_eq!(shown["state"], "suspended", "{shown}");
        assert!(list(&shown["stack"]).is_empty(), "{shown}");
    }
    let placed =
        found.values().filter(|t| t["type"].as_str().unwrap().starts_with("future at hud-record/examples/zoo.rs:"));
    assert!(placed.count() > 50, "{dump:#}");
    assert_eq!(dump["detail"], "types");
    let said = text(&hud(&["--pid", &target.pid().to_string()]).stdout);
    assert!(said.contains("debug = true"), "{said}");
}

/// Waits until the main thread waits for input: until then it may touch new memory.
fn settle(pid: u32) {
    let blocked = format!("/proc/{pid}/syscall");
    support::until("it to wait for its input", || fs::read_to_string(&blocked).is_ok_and(|s| s.starts_with("0 0x0 ")));
}

/// A process's memory according to the kernel: resident memory and page tables in kB.
fn footprint(pid: u32) -> BTreeMap<String, u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let sizes = status.lines().filter_map(|line| line.split_once(':'));
    let sizes = sizes.filter(|(name, _)| ["VmRSS", "VmPTE", "RssAnon", "RssFile"].contains(name));
    sizes.map(|(name, size)| (name.into(), size.trim().trim_end_matches(" kB").parse().unwrap())).collect()
}

/// Asserts that it has not grown. (The kernel may have reclaimed pages of files meanwhile.)
fn assert_no_larger(pid: u32, before: &BTreeMap<String, u64>) {
    let after = footprint(pid);
    assert!(after.iter().all(|(name, size)| *size <= before[name]), "{before:?} became {after:?}");
}

#[test]
fn a_dump_leaves_no_trace_in_the_memory_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let stripped = folder.path().join("zoo");
    assert!(Command::new("strip").arg("-s").arg("-o").arg(&stripped).arg(program("zoo")).status().unwrap().success());
    for program in [program("zoo"), stripped] {
        let (target, _) = start(&program, &[]);
        settle(target.pid());
        let before = footprint(target.pid());
        for _ in 0..3 {
            dump(target.pid());
        }
        assert_no_larger(target.pid(), &before);
    }
}

#[test]
fn tasks_that_wake_each_other_all_the_time_are_never_shown_where_they_cannot_be() {
    let (target, truth) = start(&program("zoo"), &["storm", "100"]);
    let legal: BTreeSet<Vec<u64>> = list(&truth["lines"])
        .iter()
        .map(|pair| list(pair).iter().map(|line| line.as_u64().unwrap()).collect())
        .collect();
    let (mut seen, mut states) = (BTreeMap::<Vec<u64>, usize>::new(), BTreeMap::<String, usize>::new());
    for _ in 0..10 {
        let dump = dump(target.pid());
        let found = futures(&dump);
        assert_eq!(found.len(), 200);
        for task in found.values() {
            *states.entry(task["state"].as_str().unwrap().into()).or_default() += 1;
            let lines = own_lines(task);
            // Before its first poll, and while it is polled, a task has no position.
            if lines.is_empty() {
                assert!(["running", "never polled"].contains(&task["state"].as_str().unwrap()), "{task:#}");
                continue;
            }
            assert!(legal.contains(&lines), "{lines:?} is not in {legal:?}: {task:#}");
            *seen.entry(lines).or_default() += 1;
        }
    }
    assert!(seen.values().sum::<usize>() > 1000, "{seen:?} {states:?}");
    eprintln!("{seen:?} {states:?}");
}

#[test]
fn an_unreadable_target_is_reported_with_the_next_step() {
    let output = hud(&["--pid", "1999999999"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr).lines().next(), Some("hud: no process has pid 1999999999"));
    let output = hud(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("help: name a running process"));
    // One without tokio.
    let mut sleep = Command::new("sleep").arg("60").spawn().unwrap();
    support::until("sleep to run", || {
        fs::read_link(format!("/proc/{}/exe", sleep.id())).is_ok_and(|p| p.ends_with("sleep"))
    });
    let output = hud(&["--pid", &sleep.id().to_string()]);
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("tokio"), "{}", text(&output.stderr));
}

#[test]
fn own_programs_need_no_rights() {
    let nobody = 65_534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, to become another user");
        return;
    }
    use std::os::unix::process::CommandExt as _;
    let (mut target, _) = {
        let mut child = Command::new(program("zoo"));
        let mut child = child.uid(nobody).gid(nobody).stdin(std::process::Stdio::piped());
        child = child.stdout(std::process::Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        for _ in 0..2 {
            std::io::BufRead::read_line(&mut out, &mut String::new()).unwrap();
        }
        (child, out)
    };
    let dump = |pid: u32, uid: u32| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hud"));
        command.args(["dump", "--pid", &pid.to_string()]).uid(uid).gid(uid).output().unwrap()
    };
    let own = dump(target.id(), nobody);
    let other = dump(target.id(), nobody - 1);
    target.kill().unwrap();
    target.wait().unwrap();
    let shown = text(&own.stdout);
    assert!(own.status.success() && shown.contains("DEADLOCK of 2 tasks"), "{shown}{}", text(&own.stderr));
    assert_eq!(other.status.code(), Some(77));
    assert!(text(&other.stderr).contains("no permission to read the memory of pid"), "{}", text(&other.stderr));
}

#[test]
fn many_tasks_in_much_memory_are_all_found_and_shown_as_two_groups() {
    let (target, truth) = start(&program("zoo"), &["many", "20000", "200"]);
    let count = truth["tasks"].as_u64().unwrap();
    settle(target.pid());
    let before = footprint(target.pid());
    let shown = text(&hud(&["--pid", &target.pid().to_string()]).stdout);
    assert_no_larger(target.pid(), &before);
    assert!(shown.contains(&format!(": {count} tasks: {count} suspended")), "{shown}");
    // The task that has the lock sleeps.
    assert!(shown.contains("10000 tasks: zoo::one_of_many, suspended"), "{shown}");
    assert!(shown.contains("9999 tasks: zoo::queues, suspended"), "{shown}");
    assert!(shown.contains("waits for Mutex<u64>") && shown.contains("(9999 tasks)"), "{shown}");
    assert_eq!(shown.matches("held by task").count(), 1, "{shown}");
    assert!(shown.lines().count() < 40, "{shown}");
}

/// Flips bytes of debug information, which the target controls.
#[test]
fn damaged_debug_information_costs_stacks_only() {
    use object::{Object as _, ObjectSection as _};
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(program("zoo")).unwrap();
    let elf = object::File::parse(&*whole).unwrap();
    let mut seed = 7_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for (name, share) in [
        (".debug_info", 2000),
        (".debug_info", 50),
        (".debug_abbrev", 100),
        (".debug_str", 100),
        (".debug_aranges", 20),
    ] {
        let (at, size) = elf.section_by_name(name).unwrap().file_range().unwrap();
        let mut damaged = whole.clone();
        for _ in 0..size / share {
            damaged[usize::try_from(at + random() % size).unwrap()] = random().to_le_bytes()[0];
        }
        let path = folder.path().join(format!("zoo{name}{share}"));
        fs::write(&path, damaged).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (target, truth) = start(&path, &[]);
        let dump = dump(target.pid());
        let found = futures(&dump);
        assert_eq!(found.len(), list(&truth["tasks"]).len() + 4, "{name}: {}", dump["notes"]);
        assert!(found.values().all(|t| !t["type"].as_str().unwrap().chars().any(char::is_control)), "{name}");
    }
}

#[test]
fn await_stacks_are_whole_in_every_version_of_tokio_and_every_way_to_link() {
    for build in
        ["tokio-1.38.2", "tokio-1.43.4", "tokio-1.47.1", "tokio-1.50.0", "fat-lto", "v0", "static", "non-pie", "relr"]
    {
        let target = Target::start(&program(build).join("test-async-app"), &["--with-stdin"]);
        // Its first line says that it runs, not that all of its tasks wait.
        let mut waiting = Vec::new();
        support::until("16 tasks to wait", || {
            let dump = dump(target.pid());
            assert_eq!(dump["detail"], "await stacks", "{build}");
            waiting = futures(&dump).into_values().filter(|t| t["state"] == "suspended").cloned().collect();
            waiting.iter().filter(|t| t["type"] == "test_async_app::good_citizen").count() == 16
        });
        for task in &waiting {
            let (first, last) = (&task["stack"][0], list(&task["stack"]).last().unwrap());
            assert_eq!(first["function"], task["type"], "{build}: {task:#}");
            assert!(first["file"].as_str().unwrap().ends_with("test-async-app.rs"), "{build}: {task:#}");
            assert_eq!(last["kind"], "leaf", "{build}: {task:#}");
            // A task that yields waits for its turn.
            let is_yield = last["function"].as_str().unwrap().contains("yield_now");
            assert!(is_yield || !list(&task["waits"]).is_empty(), "{build}: {task:#}");
        }
    }
}

#[test]
fn without_type_information_tasks_are_counted_by_type() {
    for (build, name) in [
        ("lines", "test_async_app::good_citizen"),
        ("plain", "test_async_app::good_citizen"),
        ("stripped/plain", "test-async-app.rs:"),
        ("stripped/non-pie", "test-async-app.rs:"),
        ("stripped/static", "test-async-app.rs:"),
        ("stripped/tokio-1.38.2", "test-async-app.rs:"),
    ] {
        let target = Target::start(&program(build).join("test-async-app"), &["--with-stdin"]);
        support::until("16 tasks of one type", || {
            let dump = dump(target.pid());
            assert_eq!(dump["detail"], "types", "{build}");
            let mut types: BTreeMap<String, usize> = BTreeMap::new();
            for task in futures(&dump).values() {
                *types.entry(task["type"].as_str().unwrap().into()).or_default() += 1;
            }
            types.iter().any(|(of, count)| of.contains(name) && *count == 16)
        });
    }
}

#[test]
fn layouts_of_the_fuzzers_corpus_are_read_without_a_panic() {
    use hud_record::inspect::{Binary, Image, Tokio};
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/binary");
    let mut read = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let file = fs::File::open(entry.unwrap().path()).unwrap();
        if let Ok(binary) = Binary::read(&file)
            && let Ok(mut tokio) = Tokio::find(&binary, || Image::of_file(&binary))
        {
            hud_record::symbols::learn_tokio(&file, &mut tokio);
            read += 1;
        }
    }
    assert!(read > 0, "none of them has tokio");
}

#[test]
fn a_deadlock_is_a_red_cycle_in_the_graph() {
    let (target, _) = start(&program("zoo"), &[]);
    let output = hud(&["--pid", &target.pid().to_string(), "--format", "dot"]);
    target.stop();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let graph = text(&output.stdout);
    let node = |name: &str| {
        let line = graph.lines().find(|l| !l.contains("->") && l.contains(name) && l.contains("color=red"));
        line.and_then(|l| l.split_whitespace().next()).unwrap_or_else(|| panic!("{name}: {graph}")).to_string()
    };
    let (ab, ba) = (node("zoo::transfer_ab"), node("zoo::transfer_ba"));
    for edge in [format!("{ab} -> {ba} "), format!("{ba} -> {ab} ")] {
        assert!(graph.lines().any(|l| l.contains(&edge) && l.contains("color=red")), "{edge}: {graph}");
    }
}

/// Each dump shows the program as it is then, and the end of the program ends it.
#[test]
fn watching_repeats_the_dump_until_the_program_exits() {
    let (target, _) = start(&program("zoo"), &[]);
    let pid = target.pid().to_string();
    let mut watching = Command::new(env!("CARGO_BIN_EXE_hud"))
        .args(["dump", "--pid", &pid, "--watch", "100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let heads = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(heads.filter(|l| l.contains(&format!("(pid {pid}): "))).take(3).count(), 3);
    target.stop();
    let output = watching.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Two workers wait for each other's mutexes: their tasks are running, and only their threads show where.
#[test]
fn threads_are_shown_with_their_stacks() {
    let target = Target::start(&program("stuck"), &["deadlock"]);
    let lines: BTreeSet<u64> =
        target.first.trim().rsplit_once("lines=").unwrap().1.split(',').map(|line| line.parse().unwrap()).collect();
    let pid = target.pid().to_string();
    let output = hud(&["--pid", &pid, "--threads", "--format", "json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let dump: Value = serde_json::from_slice(&output.stdout).unwrap();
    let threads = list(&dump["threads"]);
    let tids: BTreeSet<u64> = threads.iter().map(|t| t["tid"].as_u64().unwrap()).collect();
    let truth: BTreeSet<u64> = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(tids, truth);
    assert!(threads.iter().all(|t| t["complete"] == true && t["state"] == "asleep"), "{threads:#?}");
    let workers: Vec<&Value> = threads.iter().filter(|t| t["role"] == "worker").collect();
    let numbers: BTreeSet<u64> = workers.iter().map(|t| t["worker"].as_u64().unwrap()).collect();
    assert_eq!((workers.len(), numbers), (2, BTreeSet::from([0, 1])), "{threads:#?}");
    let own = |thread: &Value| list(&thread["stack"]).iter().find(|f| f["origin"] == "own").cloned().unwrap();
    let at: BTreeSet<u64> = workers.iter().map(|t| own(t)["line"].as_u64().unwrap()).collect();
    assert_eq!(at, lines, "{workers:#?}");
    let types: BTreeMap<u64, &Value> = futures(&dump).into_iter().map(|(id, task)| (id, &task["type"])).collect();
    for worker in &workers {
        let function = own(worker)["function"].as_str().unwrap().to_string();
        let task = types[&worker["task"].as_u64().unwrap()].as_str().unwrap();
        assert!(function.starts_with(task), "{function} in {task}");
    }
    // The main thread waits for a signal, in no task.
    let main = threads.iter().find(|t| t["tid"].as_u64() == pid.parse().ok()).unwrap();
    assert_eq!((&main["role"], &main["task"]), (&"other".into(), &Value::Null), "{main:#}");

    let output = hud(&["--pid", &pid, "--threads"]);
    let said = text(&output.stdout);
    assert!(said.contains(&format!("\nThreads: {}\n", threads.len())), "{said}");
    for line in lines {
        assert!(said.contains(&format!("stuck.rs:{line}\n")), "{said}");
    }
    assert!(said.contains(", worker 0, polling task ") && said.contains(", worker 1, polling task "), "{said}");
    // One task's thread only, and no threads unless they are asked for.
    let id = workers[0]["task"].to_string();
    let output = hud(&["--pid", &pid, "--threads", "--task", &id]);
    assert!(text(&output.stdout).contains("\nThreads: 1\n"), "{}", text(&output.stdout));
    assert!(!text(&hud(&["--pid", &pid]).stdout).contains("Threads"));
}

#[test]
fn threads_of_the_pool_and_idle_workers_are_told_apart() {
    let target = Target::start(&program("stuck"), &["waiting"]);
    let output = hud(&["--pid", &target.pid().to_string(), "--threads", "--format", "json"]);
    let dump: Value = serde_json::from_slice(&output.stdout).unwrap();
    let threads = list(&dump["threads"]);
    let of = |role: &str| threads.iter().filter(|t| t["role"] == role).count();
    // The task in `block_in_place` has passed its core on, and its thread still runs the loop that it left.
    assert!(of("blocking") >= 1 && of("worker") >= 2, "{threads:#?}");
    let in_tasks: Vec<&Value> = threads.iter().filter(|t| !t["task"].is_null()).collect();
    let types = futures(&dump);
    let names: Vec<&str> = in_tasks.iter().filter_map(|t| types.get(&t["task"].as_u64()?)?["type"].as_str()).collect();
    assert_eq!(names, ["stuck::in_place"], "{in_tasks:#?}");
}

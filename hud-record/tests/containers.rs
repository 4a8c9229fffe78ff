//! Programs in containers: hud in the same pid namespace, or outside of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use hud_common::session::Table;
use support::{Recording, assert_both_culprits, assert_polls_agree, may_trace, program, text, truth, verify};

const TASKS: [&str; 6] =
    ["good_citizen", "yielding_worker", "cpu_hog", "blocking_sleeper", "lock_contender", "file_reader"];

/// As in a sidecar that shares its pod's pid namespace: with the five capabilities, and no user that is root.
#[test]
fn a_neighbour_in_the_same_pid_namespace_is_recorded() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (session, log) = (dir.path().join("session"), dir.path().join("polls.csv"));
    let capabilities = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search,+checkpoint_restore";
    let script = format!(
        "{app} --poll-log {log} > /dev/null & app=$!
         # A process that has the same id in another namespace is no neighbour.
         unshare --pid --fork --mount-proc sleep 30 & other=$!
         sleep 0.3
         setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps={capabilities} --ambient-caps={capabilities} \
           --bounding-set={capabilities} \
           {hud} --pid $app --headless --duration 8 --polls exact --export {session}; code=$?
         kill $other; kill -TERM $app; wait $app; exit $code",
        app = program("test-async-app").display(),
        hud = env!("CARGO_BIN_EXE_hud-record"),
        log = log.display(),
        session = session.display(),
    );
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", &script])
        .env("HUD_CACHE_DIR", "")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let recording = Recording::open(&session);
    verify(&session);
    assert_polls_agree(&recording, &truth(&log), "test_async_app", &TASKS);
    assert_both_culprits(&session, "in a pid namespace");
    // All ids are those of the namespace: it has few processes.
    assert!(recording.manifest.pid < 100, "{}", recording.manifest.pid);
    let tids = recording.integers(Table::Threads, "tid");
    assert!(!tids.is_empty() && tids.iter().all(|tid| tid.is_some_and(|tid| tid < 1000)), "{tids:?}");
    let off_cpu = recording.integers(Table::OffCpu, "tid");
    assert!(off_cpu.iter().flatten().all(|tid| tids.contains(&Some(*tid))));
    let wakers = recording.integers(Table::OffCpu, "waker_tid");
    assert!(wakers.iter().flatten().any(|tid| tids.contains(&Some(*tid))), "no thread woke another");
}

/// A process whose pid namespace is not hud's has other ids than hud would see.
#[test]
fn a_process_in_a_namespace_below_hud_s_own_is_refused() {
    if !may_trace() {
        return;
    }
    let script = format!(
        "unshare --pid --fork --mount-proc --kill-child {app} --duration 20 > /dev/null & unshare=$!
         until app=$(pgrep -P $unshare test-async-app); do sleep 0.05; done
         {hud} --pid $app --headless --duration 1 --export /nonexistent/session; code=$?
         kill -KILL $unshare; exit $code",
        app = program("test-async-app").display(),
        hud = env!("CARGO_BIN_EXE_hud-record"),
    );
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", &script])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("it has a pid namespace of its own") && said.contains("--pid=host"), "{said}");
}

/// In another mount namespace and root folder, with files that exist there only.
#[test]
fn a_program_in_another_root_folder_is_recorded_from_outside() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (session, log) = (dir.path().join("session"), dir.path().join("polls.csv"));
    let root = dir.path().join("root");
    let script = format!(
        "mount -t tmpfs none {root} && mkdir -p {root}/lower {root}/upper {root}/work {root}/merged &&
         cp {app} {root}/lower/app && mount -t overlay overlay \
           -o lowerdir={root}/lower,upperdir={root}/upper,workdir={root}/work {root}/merged &&
         mkdir {root}/merged/log {root}/merged/proc && mount --bind {dir} {root}/merged/log &&
         mount -t proc proc {root}/merged/proc &&
         exec chroot {root}/merged /app --poll-log /log/polls.csv",
        root = root.display(),
        dir = dir.path().display(),
        app = program("static/test-async-app").display(),
    );
    fs::create_dir(&root).unwrap();
    let mut target = Command::new("unshare");
    target.args(["--mount", "sh", "-c", &script]);
    // Each executes the next: its pid is the program's.
    let mut target = target.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(target.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert!(line.starts_with("test-async-app"), "{line:?}");
    let pid = target.id();
    let recording = support::record(pid, &session, &["--duration", "5", "--polls", "exact"]);
    support::signal_process(pid, rustix::process::Signal::TERM);
    target.wait().unwrap();
    assert!(recording.manifest.exe.ends_with("/app"), "{}", recording.manifest.exe);
    assert_polls_agree(&recording, &truth(&log), "test_async_app", &TASKS);
    assert_both_culprits(&session, "in another root folder");
}

/// By its control group, as container runtimes name it, and by its environment.
#[test]
fn the_pod_of_a_program_is_named() {
    if !may_trace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let session = dir.path().join("session");
    // A hierarchy of version 2 or 1.
    let hierarchies = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"];
    let hierarchy = hierarchies.iter().map(Path::new).find(|h| h.join("cgroup.procs").exists()).unwrap();
    let id = format!("{:064x}", std::process::id());
    let slice = hierarchy.join(format!("hud-test-{}.slice", std::process::id()));
    let pod = slice.join("kubepods-pod0ab1c2d3_1111_2222_3333_444455556666.slice");
    let group = pod.join(format!("cri-containerd-{id}.scope"));
    fs::create_dir_all(&group).unwrap();
    let script = format!(
        "echo $$ > {}/cgroup.procs; HOSTNAME=api-0 POD_NAMESPACE=shop exec {} --duration 1",
        group.display(),
        program("test-async-app").display()
    );
    let output = support::hud_record()
        .args(["--headless", "--export"])
        .arg(&session)
        .args(["--", "sh", "-c", &script])
        .output()
        .unwrap();
    for folder in [&group, &pod, &slice] {
        fs::remove_dir(folder).unwrap();
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
    let container = Recording::open(&session).manifest.container.unwrap();
    assert_eq!((container.id, container.runtime.as_deref()), (id.clone(), Some("cri-containerd")));
    assert_eq!(container.pod_uid.as_deref(), Some("0ab1c2d3-1111-2222-3333-444455556666"));
    assert_eq!((container.pod.as_deref(), container.namespace.as_deref()), (Some("api-0"), Some("shop")));
    let info = Command::new(Path::new(env!("CARGO_BIN_EXE_hud-record")).with_file_name("hud-analyze"))
        .arg("info")
        .arg(&session)
        .output()
        .unwrap();
    let info = text(&info.stdout);
    assert!(info.contains(&format!("pod shop/api-0, container {id} (cri-containerd)")), "{info}");
}

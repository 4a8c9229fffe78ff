//! The container and the Kubernetes pod that a process runs in, by its control group and environment.

use std::{fs::File, io::Read as _};

use hud_common::session::Container;

use super::{demangle::clean, process::read_text};

/// Bytes of an environment that are read.
const MOST_BYTES: u64 = 1 << 20;
/// Characters of a name that are kept: Kubernetes allows 253.
const MOST_NAME: usize = 253;
/// Characters of a container's id (OCI runtimes), and of a pod's (a UUID).
const ID: usize = 64;
const UUID: usize = 36;
/// Variables that name the pod and its namespace by convention (the downward API sets what the pod's author chose).
const POD_NAMES: [&str; 3] = ["POD_NAME", "K8S_POD_NAME", "MY_POD_NAME"];
const NAMESPACES: [&str; 3] = ["POD_NAMESPACE", "K8S_NAMESPACE", "MY_POD_NAMESPACE"];
/// In a pod, the host name is the pod's name, unless its author chose another.
const HOST_NAME: &str = "HOSTNAME";

/// The container of a process; `None` if its control group is no container's.
pub(crate) fn of(pid: u32) -> Option<Container> {
    let groups = read_text(format!("/proc/{pid}/cgroup")).ok()?;
    let container = groups.lines().find_map(|line| in_path(line.splitn(3, ':').nth(2)?))?;
    let mut environment = Vec::new();
    if let Ok(file) = File::open(format!("/proc/{pid}/environ")) {
        // What was read before an error counts.
        let _ = file.take(MOST_BYTES).read_to_end(&mut environment);
    }
    Some(with_names(container, &environment))
}

/// The container of a control group, such as
/// `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0ab1….slice/cri-containerd-4f5e….scope`,
/// `/kubepods/besteffort/pod0ab1-…/4f5e…` or `/system.slice/docker-4f5e….scope`.
fn in_path(path: &str) -> Option<Container> {
    let mut container = None;
    let mut pod_uid = None;
    for part in path.split('/') {
        let name = part.strip_suffix(".scope").or_else(|| part.strip_suffix(".slice")).unwrap_or(part);
        if let Some((_, uid)) = name.rsplit_once("pod")
            && is_uuid(uid)
        {
            pod_uid = Some(uid.replace('_', "-"));
        }
        let (runtime, id) = name.rsplit_once('-').map_or((None, name), |(runtime, id)| (Some(runtime), id));
        if id.len() == ID && id.bytes().all(|b| b.is_ascii_hexdigit()) {
            container = Some((id.to_string(), runtime.map(clean)));
        }
    }
    let (id, runtime) = container?;
    let runtime = runtime.or_else(|| path.starts_with("/docker/").then(|| "docker".into()));
    Some(Container { id, runtime, pod_uid, pod: None, namespace: None })
}

/// A UUID, with dashes, or with underscores as systemd's units have it.
fn is_uuid(text: &str) -> bool {
    text.len() == UUID && text.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b'_'))
}

/// Adds the names of the pod and its namespace by the environment, which the program's own code may have set.
fn with_names(container: Container, environment: &[u8]) -> Container {
    let value = |name: &str| {
        environment.split(|b| *b == 0).find_map(|entry| {
            let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            let value = std::str::from_utf8(value).ok().filter(|v| !v.is_empty() && v.len() <= MOST_NAME)?;
            Some(clean(value))
        })
    };
    let first = |names: &[&str]| names.iter().find_map(|name| value(name));
    if container.pod_uid.is_none() {
        return container;
    }
    Container { pod: first(&POD_NAMES).or_else(|| value(HOST_NAME)), namespace: first(&NAMESPACES), ..container }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn control_groups_name_containers_and_pods() {
        let id = "4f5e".repeat(16);
        let pod = "0ab1c2d3-1111-2222-3333-444455556666";
        let in_systemd = pod.replace('-', "_");
        let of = |path: &str| in_path(path).map(|c| (c.runtime, c.pod_uid));
        let named = |runtime: &str, pod: Option<&str>| Some((Some(runtime.to_string()), pod.map(str::to_string)));
        let path = format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{in_systemd}.slice/cri-containerd-{id}.scope"
        );
        assert_eq!(of(&path), named("cri-containerd", Some(pod)));
        assert_eq!(in_path(&path).unwrap().id, id);
        assert_eq!(of(&format!("/kubepods/besteffort/pod{pod}/{id}")), Some((None, Some(pod.into()))));
        assert_eq!(of(&format!("/system.slice/docker-{id}.scope")), named("docker", None));
        assert_eq!(of(&format!("/docker/{id}")), named("docker", None));
        assert_eq!(of(&format!("/machine.slice/libpod-{id}.scope/container")), named("libpod", None));
        for path in ["/", "/system.slice/app.service", "/user.slice/user-1000.slice/session-2.scope", "/docker/short"] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn names_of_pods_come_from_the_environment() {
        let container =
            in_path(&format!("/kubepods/pod0ab1c2d3-1111-2222-3333-444455556666/{}", "0".repeat(ID))).unwrap();
        let names = |environment: &str| {
            let named = with_names(container.clone(), environment.replace(' ', "\0").as_bytes());
            (named.pod, named.namespace)
        };
        let (pod, space) = (Some("api-0".to_string()), Some("shop".to_string()));
        assert_eq!(names("A=1 HOSTNAME=api-0 POD_NAMESPACE=shop"), (pod.clone(), space));
        assert_eq!(names("HOSTNAME=node POD_NAME=api-0 NOT_POD_NAMESPACE=x"), (pod, None));
        assert_eq!(names(&format!("HOSTNAME={}", "x".repeat(254))), (None, None));
        // Outside of Kubernetes a host name is no pod.
        let alone = Container { pod_uid: None, ..container };
        assert_eq!(with_names(alone, b"HOSTNAME=web\0").pod, None);
    }
}

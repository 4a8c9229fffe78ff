//! QEMU and kernels from Debian packages, downloaded once and never installed.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::versions::{Package, Wanted, pick, pick_next_newer};
use crate::debian::{self, Apt, Mirror, entries};
use crate::sh::{command, output, root, target_dir};

/// Suites in which kernels are searched, after the suite that is known to have one.
const SUITES: [&str; 4] = ["trixie-backports", "trixie", "bookworm", "sid"];

/// The kernels that are booted by default, each with the suite that has it: Debian 12's, Debian 13's, and from its
/// backports the one whose verifier walks the most instructions (four times as many as 6.12's), and the newest.
const DEFAULTS: [(&str, &str); 4] =
    [("6.1", "bookworm"), ("6.12", "trixie"), ("6.19", "trixie-backports"), ("newest", "trixie-backports")];

/// The packages of QEMU on Debian.
const QEMU_PACKAGES: [&str; 5] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios", "ipxe-qemu"];

pub(crate) fn defaults() -> Result<Vec<Wanted>> {
    DEFAULTS.iter().map(|(version, _)| version.parse().map_err(anyhow::Error::msg)).collect()
}

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) wanted: Wanted,
    pub(crate) package: Package,
    /// Whether it is the next newer one, because no suite has the requested one.
    pub(crate) is_substitute: bool,
    pub(crate) image: PathBuf,
}

impl Kernel {
    /// Whether it is the requested one, or taken in its place.
    pub(crate) fn is(&self, wanted: &Wanted) -> bool {
        self.wanted == *wanted || pick(wanted, std::slice::from_ref(&self.package)).is_some()
    }
}

/// QEMU, unpacked but not installed.
pub(crate) struct Qemu(PathBuf);

impl Qemu {
    pub(crate) fn program(&self) -> PathBuf {
        self.0.join("usr/bin/qemu-system-x86_64")
    }

    /// The folders of its firmware.
    pub(crate) fn firmware(&self) -> [PathBuf; 2] {
        ["qemu", "seabios"].map(|name| self.0.join("usr/share").join(name))
    }

    pub(crate) fn version(&self) -> Result<String> {
        let text = output(command(self.program()).arg("--version"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

/// A folder that keeps packages (`debs`), what they contain (`qemu`, `unpacked`), apt's state (`apt`) and consoles
/// (`logs`).
pub(crate) struct Cache {
    folder: PathBuf,
    /// Locked as long as it is open: two runs would write the same initramfs and logs.
    _lock: fs::File,
    /// The kernels of each suite queried so far; none if the suite was unreachable.
    suites: BTreeMap<&'static str, (Option<Apt>, Vec<Package>)>,
}

impl Cache {
    /// In `HUD_KERNELS`, or beside cargo's builds.
    pub(crate) fn open() -> Result<Self> {
        ensure!(cfg!(target_arch = "x86_64"), "kernels are booted for x86_64 only, on an x86_64 machine");
        ensure!(
            Path::new("/usr/bin/apt-get").exists(),
            "QEMU and the kernels come from Debian packages, and this is no Debian"
        );
        let folder = match env::var_os("HUD_KERNELS") {
            Some(folder) => root().join(folder),
            None => target_dir().join("kernels"),
        };
        for name in ["debs", "qemu", "unpacked", "logs"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("failed to write {}", folder.display()))?;
        }
        let path = folder.join("lock");
        let lock = fs::File::create(&path).with_context(|| format!("failed to write {}", path.display()))?;
        if lock.try_lock().is_err() {
            println!("waiting for another run to end, which holds {}", path.display());
            lock.lock().with_context(|| format!("failed to lock {}", path.display()))?;
        }
        Ok(Self { folder, _lock: lock, suites: BTreeMap::new() })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// QEMU of this machine's own Debian release, as it uses this machine's libraries.
    pub(crate) fn qemu(&self) -> Result<Qemu> {
        let qemu = Qemu(self.folder.join("qemu"));
        if !qemu.program().exists() {
            println!("downloading QEMU");
            let suite = codename(&fs::read_to_string("/etc/os-release")?).context("/etc/os-release has no codename")?;
            let apt = Apt::update(&self.folder.join("apt").join(&suite), &Mirror::of_this_machine()?, &suite)?;
            // The program itself is last: its presence shows that everything is there.
            for name in QEMU_PACKAGES.iter().rev() {
                debian::unpack(&apt.download(name, &self.folder.join("debs"))?, &qemu.0)?;
            }
        }
        if !missing_libraries(&qemu)?.is_empty() {
            debian::install(&self.qemu_libraries()?)?;
        }
        let missing = missing_libraries(&qemu)?;
        ensure!(missing.is_empty(), "QEMU needs libraries that are not installed: {}", missing.join(", "));
        Ok(qemu)
    }

    /// The packages of the libraries that QEMU is linked to.
    fn qemu_libraries(&self) -> Result<Vec<String>> {
        let package = entries(&self.folder.join("debs"))?
            .into_iter()
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("qemu-system-x86_")))
            .context("the package qemu-system-x86 is not in the cache")?;
        Ok(libraries(&debian::field(&package, "Depends")?))
    }

    /// Provides a kernel: from the cache, from the suite that is known to have it, or from any other; if none has it,
    /// the next newer one.
    pub(crate) fn kernel(&mut self, wanted: &Wanted) -> Result<Kernel> {
        if let Some(package) = self.cached_version(wanted)? {
            return self.unpacked(wanted, package, false);
        }
        let known = DEFAULTS.iter().find(|(version, _)| *version == wanted.to_string()).map(|(_, suite)| *suite);
        let suites: Vec<_> =
            known.into_iter().chain(SUITES.into_iter().filter(|suite| Some(*suite) != known)).collect();
        for suite in &suites {
            if let Some(package) = pick(wanted, self.suite(suite)?).cloned() {
                return self.downloaded(wanted, package, suite, false);
            }
        }
        // No suite was reached, or none has it any more.
        if let (Wanted::Newest, Some(package)) = (wanted, pick(wanted, &self.cached()?)) {
            println!("no suite is reachable for its newest kernel: taking the newest of the cache");
            return self.unpacked(wanted, package.clone(), false);
        }
        let mut all = Vec::new();
        for suite in &suites {
            all.extend(self.suite(suite)?.iter().map(|package| (package.clone(), *suite)));
        }
        let packages: Vec<_> = all.iter().map(|(package, _)| package.clone()).collect();
        let Some(package) = pick_next_newer(wanted, &packages) else {
            bail!("none of {} has a kernel {wanted} or a newer one", suites.join(", "));
        };
        let suite = all.iter().find(|(candidate, _)| candidate == package).map_or("", |(_, suite)| suite);
        println!("no suite has a kernel {wanted}: taking {} of {suite}", package.version);
        self.downloaded(wanted, package.clone(), suite, true)
    }

    /// A cached kernel of the version. Only a suite knows which is the newest.
    fn cached_version(&self, wanted: &Wanted) -> Result<Option<Package>> {
        match wanted {
            Wanted::Version(_) => Ok(pick(wanted, &self.cached()?).cloned()),
            Wanted::Newest => Ok(None),
        }
    }

    fn cached(&self) -> Result<Vec<Package>> {
        let names = entries(&self.folder.join("debs"))?;
        let names = names.iter().filter_map(|path| path.file_name()?.to_str());
        Ok(names.filter_map(Package::from_file_name).collect())
    }

    /// The kernels of a suite.
    fn suite(&mut self, suite: &'static str) -> Result<&[Package]> {
        if !self.suites.contains_key(suite) {
            println!("looking for kernels in {suite}");
            let found = match self.query(suite) {
                Ok((apt, packages)) => (Some(apt), packages),
                // It may have moved to an archive; another suite may have it.
                Err(error) => {
                    println!("{suite} is left out: {error:#}");
                    (None, Vec::new())
                }
            };
            self.suites.insert(suite, found);
        }
        Ok(self.suites.get(suite).map_or(&[], |(_, packages)| packages))
    }

    fn query(&self, suite: &str) -> Result<(Apt, Vec<Package>)> {
        let apt = Apt::update(&self.folder.join("apt").join(suite), &Mirror::of_this_machine()?, suite)?;
        let names: Vec<_> = apt.names("linux-")?.into_iter().filter(|name| name.ends_with("-cloud-amd64")).collect();
        let versions = apt.versions(&names)?;
        let packages = versions.iter().filter_map(|(name, version)| Package::new(name, version)).collect();
        Ok((apt, packages))
    }

    fn downloaded(&self, wanted: &Wanted, package: Package, suite: &str, is_substitute: bool) -> Result<Kernel> {
        let debs = self.folder.join("debs");
        if !debs.join(package.file_name()).exists() {
            println!("downloading Linux {} from {suite}", package.version);
            let (apt, _) = self.suites.get(suite).context("a suite that was not queried")?;
            apt.as_ref().context("a suite that was not reached")?.download(&package.specification(), &debs)?;
        }
        self.unpacked(wanted, package, is_substitute)
    }

    fn unpacked(&self, wanted: &Wanted, package: Package, is_substitute: bool) -> Result<Kernel> {
        let name = package.file_name();
        let folder = self.folder.join("unpacked").join(name.trim_end_matches(".deb"));
        if !folder.exists() {
            // Under another name first: a partly unpacked package would be mistaken for a complete one.
            let part = folder.with_file_name(format!("{name}.part"));
            let _ = fs::remove_dir_all(&part);
            debian::unpack(&self.folder.join("debs").join(&name), &part)?;
            fs::rename(&part, &folder).with_context(|| format!("failed to write {}", folder.display()))?;
        }
        let image = find_image(&folder)?.with_context(|| format!("{name} contains no kernel image"))?;
        Ok(Kernel { wanted: wanted.clone(), package, is_substitute, image })
    }
}

/// `vmlinuz-RELEASE` in /boot, or `vmlinuz` in a folder of its own.
fn find_image(folder: &Path) -> Result<Option<PathBuf>> {
    for path in entries(folder)? {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            if let Some(image) = find_image(&path)? {
                return Ok(Some(image));
            }
        } else if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// `bookworm`, of /etc/os-release.
fn codename(os_release: &str) -> Option<String> {
    let line = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_owned())
}

fn missing_libraries(qemu: &Qemu) -> Result<Vec<String>> {
    let libraries = output(command("ldd").arg(qemu.program()))?;
    let missing = libraries.lines().filter_map(|line| line.trim().strip_suffix(" => not found"));
    Ok(missing.map(str::to_owned).collect())
}

/// The libraries among the packages of a `Depends` field; of alternatives the first.
fn libraries(depends: &str) -> Vec<String> {
    let names = depends.split(',').filter_map(|one| one.split('|').next()?.split_whitespace().next());
    names.filter(|name| name.starts_with("lib") || name.starts_with("zlib")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_libraries_from_a_depends_field() {
        let depends = "libaio1 (>= 0.3.93), libc6 (>= 2.34) | libc6.1, zlib1g (>= 1:1.2.0), qemu-system-common (= 1:7.2), seabios";
        assert_eq!(libraries(depends), ["libaio1", "libc6", "zlib1g"]);
    }

    #[test]
    fn reads_the_codename_of_the_release() {
        assert_eq!(codename("NAME=\"Debian\"\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(codename("NAME=\"Debian\"\n"), None);
    }

    #[test]
    fn every_default_is_a_version_of_a_known_suite() {
        assert_eq!(defaults().unwrap().len(), DEFAULTS.len());
        assert!(DEFAULTS.iter().all(|(_, suite)| SUITES.contains(suite)));
    }
}

//! Debian packages of any suite from the machine's mirror. They are downloaded and never installed; apt's own state
//! does not change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::sh::{command, output, run as sh};

/// The machine's package mirror, and the key that signs it.
pub(crate) struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

impl Mirror {
    pub(crate) fn of_this_machine() -> Result<Self> {
        const DEB822: &str = "/etc/apt/sources.list.d/debian.sources";
        const ONE_LINE: &str = "/etc/apt/sources.list";
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::from_deb822(&read(DEB822))
            .or_else(|| Self::from_one_line(&read(ONE_LINE)))
            .with_context(|| format!("neither {DEB822} nor {ONE_LINE} names a Debian mirror"))
    }

    /// Of the first stanza: the security archive, which lacks these suites, comes later.
    fn from_deb822(text: &str) -> Option<Self> {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| {
                let value = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
                value.split_whitespace().next().map(str::to_owned)
            };
            Some(Self { uri: field("URIs")?, signed_by: field("Signed-By") })
        })
    }

    fn from_one_line(text: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let rest = line.strip_prefix("deb ")?.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(rest) => rest.split_once(']')?,
                None => ("", rest),
            };
            let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
            Some(Self { uri: rest.split_whitespace().next()?.to_owned(), signed_by: signed_by.map(str::to_owned) })
        })
    }
}

/// apt for one suite, with its own lists, cache and sources file.
pub(crate) struct Apt {
    work: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// Keeps its state in `work`, and fetches the suite's package lists into it.
    pub(crate) fn update(work: &Path, mirror: &Mirror, suite: &str) -> Result<Self> {
        for folder in ["parts.d", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(work.join(folder))?;
        }
        let signed_by = mirror.signed_by.iter().map(|key| format!("Signed-By: {key}\n")).collect::<String>();
        let source = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{signed_by}", mirror.uri);
        fs::write(work.join("parts.d/debian.sources"), source)?;
        let at = |name: &str| work.join(name).display().to_string();
        let options = [
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={}", at("parts.d")),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "Acquire::Languages=none".to_owned(),
            // apt's own user cannot write here.
            "APT::Sandbox::User=root".to_owned(),
        ];
        let apt = Self { work: work.to_owned(), options: options.into() };
        sh(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(program);
        command.current_dir(&self.work);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// Names of the packages that start with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The versions of these packages in the suite, each with the package's name.
    pub(crate) fn versions<S: AsRef<str>>(&self, packages: &[S]) -> Result<Vec<(String, String)>> {
        if packages.is_empty() {
            return Ok(Vec::new());
        }
        let table = output(self.command("apt-cache").arg("madison").args(packages.iter().map(AsRef::as_ref)))?;
        Ok(table.lines().filter_map(madison_line).collect())
    }

    /// Downloads a package into `folder`. `package` is a name, or `NAME=VERSION`; a name alone means the newest
    /// version.
    pub(crate) fn download(&self, package: &str, folder: &Path) -> Result<PathBuf> {
        let part = self.work.join("download");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        sh(self.command("apt-get").args(["-qq", "download", package]).current_dir(&part))?;
        let packages = entries(&part)?.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
        let downloaded = packages.with_context(|| format!("apt-get left no package {package}"))?;
        let name = downloaded.file_name().context("a package without a name")?;
        fs::create_dir_all(folder)?;
        let package = folder.join(name);
        // The cache may lie on another file system than apt's state.
        fs::copy(&downloaded, &package).with_context(|| format!("failed to write {}", package.display()))?;
        fs::remove_dir_all(&part)?;
        Ok(package)
    }
}

/// `package | version | source`.
fn madison_line(line: &str) -> Option<(String, String)> {
    let mut columns = line.split('|').map(str::trim);
    Some((columns.next()?.to_owned(), columns.next()?.to_owned()))
}

/// Unpacks a package's files into `folder`, which may contain others.
pub(crate) fn unpack(package: &Path, folder: &Path) -> Result<()> {
    sh(command("dpkg-deb").arg("-x").arg(package).arg(folder))
}

/// A field of a package's control file, such as `Depends`.
pub(crate) fn field(package: &Path, name: &str) -> Result<String> {
    Ok(output(command("dpkg-deb").arg("-f").arg(package).arg(name))?.trim().to_owned())
}

/// Installs packages on this machine, from its own sources.
pub(crate) fn install<S: AsRef<str>>(packages: &[S]) -> Result<()> {
    let names: Vec<_> = packages.iter().map(AsRef::as_ref).collect();
    ensure!(
        rustix::process::geteuid().is_root(),
        "these Debian packages are missing: {}. Install them, or run this as root",
        names.join(" ")
    );
    println!("installing {}", names.join(" "));
    let apt_get = |arguments: &[&str]| {
        let mut command = command("apt-get");
        command.arg("-qq").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        sh(command.stdin(Stdio::null()).stdout(Stdio::null()))
    };
    apt_get(&["update"])?;
    apt_get(&[["install", "--yes", "--no-install-recommends"].as_slice(), &names].concat())
}

/// The paths of a folder's entries.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>();
    read().with_context(|| format!("failed to read {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mirror_from_both_formats_of_sources() {
        let deb822 = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: a b\nSigned-By: /key.gpg\n";
        let mirror = Mirror::from_deb822(deb822).unwrap();
        assert_eq!(
            (mirror.uri.as_str(), mirror.signed_by.as_deref()),
            ("http://mirror.example/debian", Some("/key.gpg"))
        );
        let one_line = "# deb x\ndeb [arch=amd64 signed-by=/key.gpg] http://mirror.example/debian a main\n";
        let mirror = Mirror::from_one_line(one_line).unwrap();
        assert_eq!(
            (mirror.uri.as_str(), mirror.signed_by.as_deref()),
            ("http://mirror.example/debian", Some("/key.gpg"))
        );
        assert!(Mirror::from_one_line("deb-src http://mirror.example/debian a main").is_none());
    }

    #[test]
    fn reads_a_line_of_apt_cache_madison() {
        let line = " linux-image-6.12.117+deb13-cloud-amd64 | 6.12.117-1 | http://mirror.example/debian a/main amd64";
        let expected = ("linux-image-6.12.117+deb13-cloud-amd64".to_owned(), "6.12.117-1".to_owned());
        assert_eq!(madison_line(line), Some(expected));
        assert_eq!(madison_line("nothing of the kind"), None);
    }
}

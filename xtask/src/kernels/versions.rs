//! Versions of Debian's kernel packages, and the selection of the one to boot.

use std::fmt;
use std::str::FromStr;

/// An upstream version such as 6.12.117, or the first part of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(Vec<u32>);

impl Version {
    fn starts_with(&self, prefix: &Self) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// Whether it is of this series or of a newer one.
    pub(crate) fn is_at_least(&self, series: [u32; 2]) -> bool {
        self.series() >= series.as_slice()
    }

    /// The first two numbers: 6.12 of 6.12.117.
    fn series(&self) -> &[u32] {
        self.0.get(..2).unwrap_or(&self.0)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>();
        numbers.map(Self).map_err(|_| format!("{text:?} is no version: expected numbers, such as 6.1"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

/// The requested kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The newest patch release of this version.
    Version(Version),
    /// The newest that a stable Debian can install.
    Newest,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "newest" { Ok(Self::Newest) } else { text.parse().map(Self::Version) }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            Self::Newest => f.write_str("newest"),
        }
    }
}

/// A Debian package that has a kernel for virtual machines (Debian's flavour `cloud`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    pub(crate) version: Version,
    /// From Linux 6.19 on, `linux-binary-…` has the image, and `linux-image-…` depends on it.
    is_binary: bool,
    debian_version: String,
    name: String,
}

impl Package {
    pub(crate) fn new(name: &str, debian_version: &str) -> Option<Self> {
        let is_binary = name.starts_with("linux-binary-");
        let release = name.strip_prefix("linux-image-").or_else(|| name.strip_prefix("linux-binary-"))?;
        let release = release.strip_suffix("-cloud-amd64")?;
        // Without a number it is a metapackage, or one for Debian's own signing (`linux-image-6.1-unsigned…`).
        if !release.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        let (upstream, _revision) = debian_version.split_once('-')?;
        let version = upstream.parse().ok()?;
        Some(Self { version, is_binary, debian_version: debian_version.to_owned(), name: name.to_owned() })
    }

    /// Reads the file name that `apt-get download` gives: `NAME_VERSION_amd64.deb`.
    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix("_amd64.deb")?.split('_');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(version), None) => Self::new(name, version),
            _ => None,
        }
    }

    pub(crate) fn file_name(&self) -> String {
        format!("{}_{}_amd64.deb", self.name, self.debian_version)
    }

    /// The package's specification for apt-get.
    pub(crate) fn specification(&self) -> String {
        format!("{}={}", self.name, self.debian_version)
    }
}

/// The newest package that matches.
pub(crate) fn pick<'a>(wanted: &Wanted, packages: &'a [Package]) -> Option<&'a Package> {
    match wanted {
        Wanted::Newest => packages.iter().max(),
        Wanted::Version(prefix) => packages.iter().filter(|package| package.version.starts_with(prefix)).max(),
    }
}

/// The newest package of the next series after the requested one.
pub(crate) fn pick_next_newer<'a>(wanted: &Wanted, packages: &'a [Package]) -> Option<&'a Package> {
    let Wanted::Version(version) = wanted else { return None };
    let newer = || packages.iter().filter(|package| package.version > *version);
    let next = newer().map(|package| package.version.series()).min()?;
    newer().filter(|package| package.version.series() == next).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages() -> Vec<Package> {
        [
            ("linux-image-6.1.0-47-cloud-amd64", "6.1.170-3"),
            ("linux-image-6.1.0-50-cloud-amd64", "6.1.176-1"),
            ("linux-image-6.12.9+deb13-cloud-amd64", "6.12.9-1"),
            ("linux-image-6.12.117+deb13-cloud-amd64", "6.12.117-1"),
            ("linux-image-6.19.14+deb13-cloud-amd64", "6.19.14-1~bpo13+1"),
            ("linux-binary-6.19.14+deb13-cloud-amd64", "6.19.14-1~bpo13+1"),
            ("linux-binary-7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1"),
        ]
        .iter()
        .map(|(name, version)| Package::new(name, version).unwrap())
        .collect()
    }

    fn picked(wanted: &str) -> Option<String> {
        pick(&wanted.parse().unwrap(), &packages()).map(Package::specification)
    }

    #[test]
    fn takes_the_newest_patch_release_of_a_version() {
        assert_eq!(picked("6.1").as_deref(), Some("linux-image-6.1.0-50-cloud-amd64=6.1.176-1"));
        assert_eq!(picked("6.12").as_deref(), Some("linux-image-6.12.117+deb13-cloud-amd64=6.12.117-1"));
        assert_eq!(picked("6.12.9").as_deref(), Some("linux-image-6.12.9+deb13-cloud-amd64=6.12.9-1"));
        assert_eq!(picked("newest").as_deref(), Some("linux-binary-7.3.4+deb13-cloud-amd64=7.3.4-1~bpo13+1"));
        assert_eq!(picked("6.18"), None);
    }

    #[test]
    fn takes_the_package_that_has_the_image() {
        assert_eq!(picked("6.19").as_deref(), Some("linux-binary-6.19.14+deb13-cloud-amd64=6.19.14-1~bpo13+1"));
    }

    #[test]
    fn takes_the_next_newer_series_where_a_version_is_gone() {
        let next = |wanted: &str| {
            pick_next_newer(&wanted.parse().unwrap(), &packages()).map(|package| package.version.to_string())
        };
        assert_eq!(next("6.2").as_deref(), Some("6.12.117"));
        assert_eq!(next("6.18").as_deref(), Some("6.19.14"));
        assert_eq!(next("7.4"), None);
    }

    #[test]
    fn leaves_out_packages_without_a_bootable_image() {
        assert_eq!(Package::new("linux-image-cloud-amd64", "6.12.117-1"), None);
        assert_eq!(Package::new("linux-binary-unsigned-7.3.4+deb13-cloud-amd64", "7.3.4-1"), None);
        assert_eq!(Package::new("linux-image-6.1.0-50-amd64", "6.1.176-1"), None);
        assert_eq!(Package::from_file_name("seabios_1.16.2-1_all.deb"), None);
    }

    #[test]
    fn reads_the_file_name_that_it_writes() {
        for package in packages() {
            assert_eq!(Package::from_file_name(&package.file_name()), Some(package));
        }
    }

    #[test]
    fn rejects_what_is_no_version() {
        assert!("6.x".parse::<Wanted>().is_err());
        assert!("".parse::<Wanted>().is_err());
    }
}

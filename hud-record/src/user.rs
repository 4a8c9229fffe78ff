//! The system's user database.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    mem::MaybeUninit,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
    ptr,
};

use rustix::process::{Gid, Uid};

/// A user.
pub(crate) struct User {
    pub(crate) name: OsString,
    pub(crate) gid: Gid,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

impl User {
    /// Longest entry that is read.
    const MOST: usize = 1 << 20;
    /// Most groups of a user: `NGROUPS_MAX`.
    const MOST_GROUPS: usize = 1 << 16;

    /// The user with this id.
    pub(crate) fn of(uid: Uid) -> Option<Self> {
        let mut strings = vec![0_u8; 1024];
        loop {
            let mut entry = MaybeUninit::uninit();
            let mut found: *mut libc::passwd = ptr::null_mut();
            let (at, len) = (strings.as_mut_ptr().cast(), strings.len());
            // SAFETY: the call writes an entry, its strings within `strings`, and a pointer to the entry or null.
            match unsafe { libc::getpwuid_r(uid.as_raw(), entry.as_mut_ptr(), at, len, &raw mut found) } {
                0 if !found.is_null() => {
                    // SAFETY: the entry was found, so all of it is written.
                    let entry = unsafe { entry.assume_init() };
                    // SAFETY: the strings end with 0 and lie in `strings`.
                    let text = |at| OsStr::from_bytes(unsafe { CStr::from_ptr(at) }.to_bytes()).to_os_string();
                    return Some(User {
                        name: text(entry.pw_name),
                        gid: Gid::from_raw(entry.pw_gid),
                        home: text(entry.pw_dir).into(),
                        shell: text(entry.pw_shell).into(),
                    });
                }
                libc::ERANGE if len < Self::MOST => strings.resize(len * 2, 0),
                _ => return None,
            }
        }
    }

    /// All groups that they are in.
    pub(crate) fn groups(&self) -> Vec<Gid> {
        let mut groups = vec![0; 64];
        let Ok(name) = CString::new(self.name.clone().into_vec()) else { return vec![self.gid] };
        loop {
            let mut count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
            // SAFETY: the call reads the name and writes at most `count` groups, and their number.
            let done =
                unsafe { libc::getgrouplist(name.as_ptr(), self.gid.as_raw(), groups.as_mut_ptr(), &raw mut count) };
            match usize::try_from(count) {
                Ok(count) if done >= 0 => {
                    groups.truncate(count);
                    return groups.into_iter().map(Gid::from_raw).collect();
                }
                _ if groups.len() < Self::MOST_GROUPS => groups.resize(groups.len() * 4, 0),
                _ => return vec![self.gid],
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn users_are_found_by_their_id() {
        let root = User::of(Uid::ROOT).unwrap();
        assert!(root.gid.is_root() && root.home.is_absolute() && root.name == "root");
        assert!(root.groups().contains(&Gid::ROOT));
        assert!(User::of(Uid::from_raw(4_000_000_000)).is_none());
    }
}

//! Waits until a session's files change: by inotify, or by polling if there is none.

use std::{
    collections::BTreeSet,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use hud_common::session::Table;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

/// Polling interval without inotify.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// A recorder writes all tables within this time; one read then suffices.
const SETTLE: Duration = Duration::from_millis(4);

/// Watches a session's folder and those of its tables.
pub(super) struct Watch {
    inotify: Option<OwnedFd>,
    root: PathBuf,
    watched: BTreeSet<PathBuf>,
}

impl Watch {
    pub(super) fn new(root: &Path) -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let inotify = inotify.inspect_err(|e| tracing::debug!("no inotify, looking each {LOOK_EVERY:?}: {e}")).ok();
        let mut watch = Watch { inotify, root: root.into(), watched: BTreeSet::new() };
        watch.add_tables();
        watch
    }

    /// Watches new folders.
    pub(super) fn add_tables(&mut self) {
        let tables = Table::ALL.iter().map(|table| self.root.join(table.name()));
        let folders: Vec<_> = std::iter::once(self.root.clone()).chain(tables).collect();
        for folder in folders {
            let Some(inotify) = &self.inotify else { return };
            if self.watched.contains(&folder) {
                continue;
            }
            let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            match inotify::add_watch(inotify, &folder, flags) {
                Ok(_) => drop(self.watched.insert(folder)),
                Err(Errno::NOENT) => {}
                // Too many watches, or an unsuitable file system: polling is used.
                Err(e) => {
                    tracing::debug!("cannot watch {}: {e}", folder.display());
                    self.inotify = None;
                }
            }
        }
    }

    /// Waits for a change, at most this long.
    pub(super) fn wait(&mut self, most: Duration) {
        let since = Instant::now();
        let Some(inotify) = &self.inotify else {
            thread::sleep(most.min(LOOK_EVERY));
            return;
        };
        let timeout =
            Timespec { tv_sec: most.as_secs().min(3600).cast_signed(), tv_nsec: i64::from(most.subsec_nanos()) };
        let changed = poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&timeout)).is_ok_and(|n| n > 0);
        if !changed {
            return;
        }
        thread::sleep(SETTLE.min(most.saturating_sub(since.elapsed())));
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        // All files are read, whichever changed: distinguishing them would cost more. An overflow needs no handling
        // either.
        let mut has_new_folder = false;
        while let Ok(event) = reader.next() {
            has_new_folder |= event.events().contains(inotify::ReadFlags::ISDIR);
        }
        if has_new_folder {
            self.add_tables();
        }
    }
}

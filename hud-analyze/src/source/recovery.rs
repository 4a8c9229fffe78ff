//! The state of a session, and recovery of one whose recorder was killed.

use std::io;

use hud_common::session::{self, Manifest, Recovery, SessionDir, recover};

use crate::{
    error::Result,
    human::{self, many},
};

/// State of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The recorder closed it.
    Complete,
    /// A recorder is writing it.
    Recording,
    /// Its recorder was killed, and it was recovered.
    Recovered,
    /// Its recorder was killed, and it cannot be recovered. Its logs are read nevertheless.
    Killed,
}

impl State {
    /// One word for programs.
    pub const fn name(self) -> &'static str {
        match self {
            State::Complete => "complete",
            State::Recording => "recording",
            State::Recovered => "recovered",
            State::Killed => "killed",
        }
    }
}

/// Determines the state of a session; recovers it if its recorder was killed.
pub(crate) fn open_state(dir: &SessionDir, manifest: &mut Manifest, notices: &mut Vec<String>) -> Result<State> {
    if manifest.complete {
        return Ok(State::Complete);
    }
    if !dir.is_folder() {
        notices.push("it was copied while it was recorded: rows that were not sealed then are missing".into());
        return Ok(State::Killed);
    }
    // A user who may not open the lock file cannot recover the session either.
    if dir.is_locked().unwrap_or(false) {
        return Ok(State::Recording);
    }
    let recovered = recover(dir);
    *manifest = Manifest::read(dir.path())?;
    match recovered {
        Ok(Some(recovery)) => {
            notices.push(format!("its recorder was killed; {}", recovery_in_words(&recovery)));
            Ok(State::Recovered)
        }
        // The recorder closed it in the meantime.
        Ok(None) if manifest.complete => Ok(State::Complete),
        Ok(None) => Ok(State::Recovered),
        Err(session::Error::InUse(_)) => Ok(State::Recording),
        Err(error) => {
            let why = if is_read_only(&error) { "no permission to write it".into() } else { error.to_string() };
            notices.push(format!("its recorder was killed; it is read without recovery, which is not possible: {why}"));
            Ok(State::Killed)
        }
    }
}

/// Whether recovery failed only because the session may not be written.
fn is_read_only(error: &session::Error) -> bool {
    matches!(error, session::Error::Io { source, .. }
        if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem))
}

/// The result of a recovery, as one line of text.
pub(crate) fn recovery_in_words(recovery: &Recovery) -> String {
    let mut words = format!("{} salvaged from its logs", many(recovery.rows_salvaged, "row"));
    if recovery.bytes_cut > 0 {
        words += &format!(", {} cut", many(recovery.bytes_cut, "byte"));
    }
    let unnamed = recovery.unnamed_stacks.saturating_add(recovery.unnamed_others);
    if unnamed > 0 {
        words += &format!(", {} without a name", many(unnamed, "stack"));
    }
    if !recovery.foreign_files.is_empty() {
        words += &format!(
            ", {} of another session, table or number set aside",
            many(recovery.foreign_files.len() as u64, "file")
        );
    }
    for (stream, lost) in &recovery.lost {
        words += &format!(", at least {} of {stream} lost", many(*lost, "event"));
    }
    words + &format!("; events that ended after {} may be missing", human::instant(recovery.lost_after))
}

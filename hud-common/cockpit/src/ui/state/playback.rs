//! The instant, the window that ends there, and how time runs.

use crate::Bucket;

use super::input::Scene;

const SECOND: i64 = 1_000_000_000;
/// Lengths of the window (ns) between which `+` and `-` switch.
const WINDOWS: [i64; 13] = [
    Bucket::NANOS,
    200_000_000,
    500_000_000,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    20 * SECOND,
    30 * SECOND,
    60 * SECOND,
    120 * SECOND,
    300 * SECOND,
    600 * SECOND,
];
const MAX_WINDOW: i64 = 3_600 * SECOND;
/// Speeds of replay in tenths.
const SPEEDS: [i64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000];
const NORMAL_SPEED: usize = 3;
const MAX_BOOKMARKS: usize = 64;

/// The position in time.
#[derive(Clone, Debug)]
pub(super) struct Playback {
    /// `None` is now, or the session's end.
    at: Option<i64>,
    window: i64,
    is_playing: bool,
    /// Index in [`SPEEDS`].
    speed: usize,
    bookmarks: Vec<i64>,
}

impl Playback {
    pub(super) fn new(at: Option<i64>, window: i64) -> Self {
        let window = window.clamp(Bucket::NANOS, MAX_WINDOW);
        Playback { at, window, is_playing: false, speed: NORMAL_SPEED, bookmarks: Vec::new() }
    }

    pub(super) fn at(&self) -> Option<i64> {
        self.at
    }

    pub(super) fn window(&self) -> i64 {
        self.window
    }

    pub(super) fn is_playing(&self) -> bool {
        self.is_playing
    }

    /// In tenths.
    pub(super) fn speed(&self) -> i64 {
        SPEEDS.get(self.speed).copied().unwrap_or(10)
    }

    pub(super) fn bookmarks(&self) -> &[i64] {
        &self.bookmarks
    }

    /// The instant that was chosen, although it may not be drawn yet.
    pub(super) fn now(&self, scene: &Scene<'_>) -> i64 {
        self.at.unwrap_or(scene.snapshot.at)
    }

    /// Lets replay advance. Returns whether it did.
    pub(super) fn tick(&mut self, passed: i64, scene: &Scene<'_>) -> bool {
        if !self.is_playing {
            return false;
        }
        let by = passed.clamp(0, SECOND).saturating_mul(self.speed()) / 10;
        let at = self.at.unwrap_or(scene.range.1).saturating_add(by);
        if at >= scene.range.1 {
            self.is_playing = false;
            self.at = if scene.is_live() { None } else { Some(scene.range.1) };
        } else {
            self.at = Some(at.max(scene.range.0));
        }
        true
    }

    /// Plays or pauses a recorded session; holds a live one, or returns to now.
    pub(super) fn toggle(&mut self, scene: &Scene<'_>) {
        if scene.is_live() {
            self.is_playing = false;
            self.at = if self.at.is_none() { Some(scene.snapshot.at) } else { None };
            return;
        }
        self.is_playing = !self.is_playing;
        if self.is_playing && self.at.unwrap_or(scene.range.1) >= scene.range.1 {
            self.at = Some(scene.range.0);
        }
    }

    pub(super) fn slow_down(&mut self) {
        self.speed = self.speed.saturating_sub(1);
    }

    pub(super) fn speed_up(&mut self) {
        self.speed = (self.speed + 1).min(SPEEDS.len() - 1);
    }

    pub(super) fn pause(&mut self) {
        self.is_playing = false;
    }

    /// Stops at the chosen instant.
    pub(super) fn hold(&mut self, scene: &Scene<'_>) {
        self.at = Some(self.now(scene));
        self.is_playing = false;
    }

    /// To an instant that the source can show; past the end of a live session is now.
    pub(super) fn go_to(&mut self, at: i64, scene: &Scene<'_>) {
        let (from, to) = scene.range;
        if scene.is_live() && at >= to {
            self.go_to_end();
        } else {
            self.at = Some(at.min(to).max(from));
        }
    }

    /// To now, or to the session's end.
    pub(super) fn go_to_end(&mut self) {
        self.at = None;
        self.is_playing = false;
    }

    /// The window's next shorter or longer length.
    pub(super) fn resize(&mut self, is_shorter: bool) {
        let next = if is_shorter {
            WINDOWS.iter().rev().find(|length| **length < self.window)
        } else {
            WINDOWS.iter().find(|length| **length > self.window)
        };
        self.window = next.copied().unwrap_or(self.window);
    }

    /// Sets or removes a bookmark. Returns a message.
    pub(super) fn toggle_bookmark(&mut self, at: i64) -> String {
        match self.bookmarks.binary_search(&at) {
            Ok(place) => {
                self.bookmarks.remove(place);
                "bookmark removed".into()
            }
            Err(_) if self.bookmarks.len() >= MAX_BOOKMARKS => format!("no more than {MAX_BOOKMARKS} bookmarks"),
            Err(place) => {
                self.bookmarks.insert(place, at);
                "bookmark set".into()
            }
        }
    }

    /// The first bookmark after an instant, else the first of all.
    pub(super) fn next_bookmark(&self, after: i64) -> Option<i64> {
        self.bookmarks.iter().find(|ts| **ts > after).or(self.bookmarks.first()).copied()
    }

    /// Shows another session's position in time, shifted by `by` (ns).
    pub(super) fn follow(&mut self, leader: &Playback, by: i64) {
        let Playback { at, window, is_playing, speed, ref bookmarks } = *leader;
        (self.window, self.is_playing, self.speed) = (window, is_playing, speed);
        self.at = at.map(|at| at.saturating_add(by));
        self.bookmarks = bookmarks.iter().map(|at| at.saturating_add(by)).collect();
    }

    /// Shifts the instant by `by` (ns).
    pub(super) fn shift(&mut self, by: i64) {
        self.at = self.at.map(|at| at.saturating_add(by));
    }

    /// Replaces "the session's end" by an instant.
    pub(super) fn hold_at_end(&mut self, end: i64) {
        self.at.get_or_insert(end);
    }
}

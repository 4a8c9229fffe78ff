//! An input, and the frame that it refers to.

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::layout::Rect;

use crate::{Mode, Snapshot};

use super::{
    screen::{List, Screen},
    strip::Strip,
};

/// An input.
#[derive(Clone, Debug)]
pub enum Input {
    /// A key.
    Key(KeyEvent),
    /// The mouse.
    Mouse(MouseEvent),
    /// Pasted text.
    Paste(String),
    /// Time since the last tick (ns).
    Tick(i64),
}

/// What an area of the screen shows, for the mouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ui) enum Hit {
    Tab(Screen),
    Row(List, usize),
    Pane(List),
    /// The heading of a column.
    Head(List, &'static str),
    Node(usize),
    Lane(usize),
    Scrubber,
    Help,
}

/// Positions of what a frame shows.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    pub(in crate::ui) hits: Vec<(Rect, Hit)>,
    /// First row shown, and rows shown, of each list.
    pub(in crate::ui) scrolls: [(usize, usize); List::COUNT],
    /// Position of the scrubber, and its time range.
    pub(in crate::ui) scrubber: Option<(Rect, i64, i64)>,
    /// Position of the timeline's lanes, and their time range.
    pub(in crate::ui) lanes: Option<(Rect, i64, i64)>,
}

/// The last frame, and the data behind it.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The data that is shown.
    pub snapshot: &'a Snapshot,
    /// Positions.
    pub drawn: &'a Drawn,
    /// The first and the last instant that the source can show (ns since the epoch).
    pub range: (i64, i64),
    /// The whole session, as far as it is known.
    pub strip: &'a Strip,
}

impl Scene<'_> {
    pub(super) fn is_live(&self) -> bool {
        matches!(self.snapshot.mode, Mode::Live { .. } | Mode::Starting { .. })
    }
}

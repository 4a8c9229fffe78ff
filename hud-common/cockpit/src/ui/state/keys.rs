//! The function of each key: the list from which the help screen is drawn; [`super::State`] acts on them.

/// A group of keys.
pub(in crate::ui) struct Group {
    pub(in crate::ui) title: &'static str,
    pub(in crate::ui) keys: &'static [(&'static str, &'static str)],
}

/// All groups.
pub(in crate::ui) const GROUPS: &[Group] = &[
    Group {
        title: "Move",
        keys: &[
            ("1 to 9, 0, w", "the screens in the third line"),
            ("Tab, Shift-Tab", "next, previous list of the screen"),
            ("arrows, hjkl", "row up and down; next list, or pan the timeline"),
            ("PgUp PgDn Home", "a page up, a page down, to the first row"),
            ("Enter", "open the row: a task's page, a lane, a flame graph"),
            ("Backspace", "back to the previous screen"),
            ("Esc", "close prompt or help; else clear the filter; else back"),
            ("q, Ctrl-C", "quit"),
            ("Ctrl-Z", "suspend (fg resumes)"),
        ],
    },
    Group {
        title: "View",
        keys: &[
            ("/", "filter by name, !text excludes; Enter keeps it, Esc discards it"),
            ("s S", "sort the list in focus by the next column; reverse it"),
            ("t", "flame graph: all tasks, or the next type of task"),
            ("o f", "flame graph: CPU time or time asleep; fold or unfold the runtime"),
            ("+ -", "shorter, longer window; in the timeline zoom in, out"),
            ("c", "the finding in the status line"),
            ("a A", "acknowledge the finding: it is dim until it gets worse; show all again"),
            ("? ?", "keys; what the figures of this screen mean"),
            ("} {", "next, previous session, if several are open"),
        ],
    },
    Group {
        title: "Time",
        keys: &[
            ("space", "live: hold, return to now; replay: play, pause"),
            ("[ ]", "slower, faster: 0.1x to 100x"),
            (", .", "to the previous, next event"),
            ("< >", "back, forward by a window"),
            ("T", "times since the session's start, of day in UTC, or local"),
            ("n N", "next, previous anomaly"),
            ("g", "go to a time: +12.5s, -30s, 14:03:20"),
            ("G, End", "to now, or to the session's end"),
            ("b B", "set or remove a bookmark here; go to the next one"),
        ],
    },
    Group {
        title: "Mouse",
        keys: &[
            ("click", "select a row; again, or on the overview: open it; a heading: sort by it"),
            ("wheel", "scroll; over the scrubber or timeline: move in time"),
            ("drag", "the scrubber's position"),
        ],
    },
];

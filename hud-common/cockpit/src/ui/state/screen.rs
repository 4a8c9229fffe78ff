//! The screens, and the lists on each.

/// A screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// The most important rows of all others.
    Overview,
    /// CPU time by code.
    Hotspots,
    /// Polls and sleeps that kept workers from other tasks.
    Blocking,
    /// Tasks.
    Tasks,
    /// Lanes of workers.
    Timeline,
    /// The flame graph.
    Flame,
    /// Histograms.
    Latency,
    /// Workers and the blocking pool.
    Workers,
    /// Detected problems.
    Findings,
    /// The session: coverage, drops, overhead.
    Session,
    /// A task's page.
    Task,
}

impl Screen {
    /// Those with a digit, in the order of digits: 1 to 9, then 0.
    pub const ALL: [Screen; 10] = [
        Screen::Overview,
        Screen::Hotspots,
        Screen::Blocking,
        Screen::Tasks,
        Screen::Timeline,
        Screen::Flame,
        Screen::Latency,
        Screen::Workers,
        Screen::Findings,
        Screen::Session,
    ];

    /// Its name where there is little room.
    pub(in crate::ui) const fn short(self) -> &'static str {
        match self {
            Screen::Overview => "main",
            Screen::Hotspots => "hot",
            Screen::Blocking => "block",
            Screen::Timeline => "time",
            Screen::Latency => "delay",
            Screen::Workers => "work",
            Screen::Findings => "find",
            Screen::Session => "sess",
            Screen::Tasks | Screen::Flame | Screen::Task => self.name(),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Screen::Overview => "overview",
            Screen::Hotspots => "hotspots",
            Screen::Blocking => "blocking",
            Screen::Tasks => "tasks",
            Screen::Timeline => "timeline",
            Screen::Flame => "flame",
            Screen::Latency => "latency",
            Screen::Workers => "workers",
            Screen::Findings => "findings",
            Screen::Session => "session",
            Screen::Task => "task",
        }
    }

    /// Its lists, in the order of Tab.
    pub(in crate::ui) const fn lists(self) -> &'static [List] {
        match self {
            Screen::Overview => &[List::Findings, List::Culprits, List::Functions, List::Workers],
            Screen::Hotspots => &[List::Functions, List::Lines, List::TypeSpots],
            Screen::Blocking => &[List::Culprits, List::Newest, List::Worst],
            Screen::Tasks => &[List::Types, List::Tasks],
            Screen::Timeline => &[List::Lanes],
            Screen::Flame => &[],
            Screen::Latency => &[List::Types],
            Screen::Workers => &[List::Workers, List::Pool],
            Screen::Findings => &[List::Findings],
            Screen::Session => &[List::Streams],
            Screen::Task => &[List::LastPolls, List::Wakers, List::Intervals],
        }
    }
}

/// A list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ui) enum List {
    Findings,
    Culprits,
    Newest,
    Worst,
    Functions,
    Lines,
    TypeSpots,
    Tasks,
    Lanes,
    Types,
    Workers,
    Pool,
    LastPolls,
    Wakers,
    Intervals,
    Streams,
}

impl List {
    /// Number of lists.
    pub(in crate::ui) const COUNT: usize = 16;

    /// Its index in an array of all.
    pub(in crate::ui) const fn index(self) -> usize {
        match self {
            List::Findings => 0,
            List::Culprits => 1,
            List::Newest => 2,
            List::Worst => 3,
            List::Functions => 4,
            List::Lines => 5,
            List::TypeSpots => 6,
            List::Tasks => 7,
            List::Lanes => 8,
            List::Types => 9,
            List::Workers => 10,
            List::Pool => 11,
            List::LastPolls => 12,
            List::Wakers => 13,
            List::Intervals => 14,
            List::Streams => 15,
        }
    }
}

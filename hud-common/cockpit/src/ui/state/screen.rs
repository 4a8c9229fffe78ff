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
    /// Where tasks wait.
    Waiting,
    /// A task's page.
    Task,
}

impl Screen {
    /// Those with a key of their own, in the order of their tabs.
    pub const ALL: [Screen; 11] = [
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
        Screen::Waiting,
    ];

    /// Its key.
    pub(in crate::ui) const fn key(self) -> char {
        match self {
            Screen::Overview => '1',
            Screen::Hotspots => '2',
            Screen::Blocking => '3',
            Screen::Tasks | Screen::Task => '4',
            Screen::Timeline => '5',
            Screen::Flame => '6',
            Screen::Latency => '7',
            Screen::Workers => '8',
            Screen::Findings => '9',
            Screen::Session => '0',
            Screen::Waiting => 'w',
        }
    }

    /// Its name where there is little room.
    pub(in crate::ui) const fn short(self) -> &'static str {
        match self {
            Screen::Overview => "main",
            Screen::Hotspots => "hot",
            Screen::Blocking => "block",
            Screen::Timeline => "time",
            Screen::Latency => "lat",
            Screen::Workers => "work",
            Screen::Findings => "find",
            Screen::Session => "sess",
            Screen::Waiting => "wait",
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
            Screen::Waiting => "waiting",
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
            Screen::Waiting => &[List::Places, List::Waiters],
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
    Places,
    Waiters,
}

impl List {
    /// Number of lists.
    pub(in crate::ui) const COUNT: usize = 18;

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
            List::Places => 16,
            List::Waiters => 17,
        }
    }
}

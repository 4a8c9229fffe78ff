//! The open screen, the way back, the focused list and the selected row of each list.

use crate::TaskId;

use super::screen::{List, Screen};

/// Screens that Backspace returns through, at most.
const MAX_BACK: usize = 32;

/// The open screen and the selections on all screens.
#[derive(Clone, Debug)]
pub(super) struct Navigation {
    screen: Screen,
    /// Index of the focused list among the screen's.
    focus: usize,
    /// The task of the task page.
    task: Option<TaskId>,
    back: Vec<(Screen, usize, Option<TaskId>)>,
    cursors: [usize; List::COUNT],
}

impl Navigation {
    pub(super) fn new() -> Self {
        Navigation { screen: Screen::Overview, focus: 0, task: None, back: Vec::new(), cursors: [0; List::COUNT] }
    }

    pub(super) fn screen(&self) -> Screen {
        self.screen
    }

    pub(super) fn task(&self) -> Option<TaskId> {
        self.task
    }

    pub(super) fn show(&mut self, screen: Screen) {
        if self.screen != screen {
            self.back.push((self.screen, self.focus, self.task));
            if self.back.len() > MAX_BACK {
                self.back.remove(0);
            }
            self.screen = screen;
            self.focus = 0;
        }
    }

    pub(super) fn show_task(&mut self, task: TaskId) {
        if self.screen == Screen::Task && self.task != Some(task) {
            self.back.push((Screen::Task, self.focus, self.task));
        }
        self.show(Screen::Task);
        self.task = Some(task);
        for list in [List::LastPolls, List::Wakers, List::Intervals] {
            self.set_cursor(list, 0);
        }
    }

    pub(super) fn go_back(&mut self) {
        match self.back.pop() {
            Some((screen, focus, task)) => (self.screen, self.focus, self.task) = (screen, focus, task),
            None => (self.screen, self.focus) = (Screen::Overview, 0),
        }
    }

    /// The list that keys act on.
    pub(super) fn focused(&self) -> Option<List> {
        self.screen.lists().get(self.focus).or(self.screen.lists().first()).copied()
    }

    pub(super) fn next_list(&mut self, by: isize) {
        let count = self.screen.lists().len();
        if count > 0 {
            self.focus = self.focus.min(count - 1).saturating_add(count).saturating_add_signed(by) % count;
        }
    }

    /// Focuses a list of the screen. Returns whether it was focused before.
    pub(super) fn focus_on(&mut self, list: List) -> bool {
        let Some(at) = self.screen.lists().iter().position(|of| *of == list) else { return false };
        std::mem::replace(&mut self.focus, at) == at
    }

    /// Shows a screen with one of its lists focused.
    pub(super) fn show_list(&mut self, screen: Screen, list: List) {
        self.show(screen);
        self.focus = screen.lists().iter().position(|of| *of == list).unwrap_or(0);
    }

    pub(super) fn cursor(&self, list: List) -> usize {
        self.cursors.get(list.index()).copied().unwrap_or(0)
    }

    pub(super) fn set_cursor(&mut self, list: List, to: usize) {
        if let Some(cursor) = self.cursors.get_mut(list.index()) {
            *cursor = to;
        }
    }

    /// Shows the screen that another session's cockpit shows. A task is a session's own: its page is not followed.
    pub(super) fn follow(&mut self, leader: &Navigation) {
        if leader.screen == Screen::Task {
            return;
        }
        if self.screen == Screen::Task {
            self.task = None;
        }
        (self.screen, self.focus) = (leader.screen, leader.focus);
        self.back = leader.back.iter().filter(|(screen, ..)| *screen != Screen::Task).copied().collect();
    }
}

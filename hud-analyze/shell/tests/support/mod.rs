//! The example shell, where the tests find it, and in a terminal.

#![allow(clippy::unwrap_used, dead_code, reason = "helpers, each used by some tests")]

use std::{
    ops::{Deref, DerefMut},
    process::{Command, ExitStatus},
};

use tempfile::TempDir;

/// The example, without an environment that changes its behaviour.
pub(crate) fn planets(home: &TempDir) -> Command {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/planets");
    assert!(program.exists(), "it is not built: cargo build -p hud-shell --examples");
    let mut command = Command::new(program);
    for name in ["PAGER", "LESS", "VISUAL", "EDITOR", "NO_COLOR", "HUD_HISTORY"] {
        command.env_remove(name);
    }
    command.env("HOME", home.path()).env("XDG_STATE_HOME", home.path().join("state")).env("TERM", "xterm-256color");
    command
}

/// The example in a terminal.
pub(crate) struct Terminal {
    terminal: hud_testkit::Terminal,
    _home: Option<TempDir>,
}

impl Terminal {
    /// 24 rows of 80 columns, and a home of its own.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut started = Terminal::start_in(&home, variables);
        started._home = Some(home);
        started.prompt();
        started
    }

    pub(crate) fn start_in(home: &TempDir, variables: &[(&str, &str)]) -> Self {
        let mut command = planets(home);
        command.envs(variables.iter().copied()).current_dir(home.path());
        Terminal::run(command)
    }

    pub(crate) fn run(command: Command) -> Self {
        Terminal { terminal: hud_testkit::Terminal::start(command, (80, 24)), _home: None }
    }

    /// Waits for an empty prompt.
    pub(crate) fn prompt(&mut self) {
        self.until("the prompt", |t| t.line() == "hud>" && t.screen().cursor_position().1 == 5);
    }

    /// Types a line at the prompt, and waits for the next prompt.
    pub(crate) fn enter(&mut self, text: &str) {
        self.submit(text);
        self.prompt();
    }

    /// Types a line and Enter.
    pub(crate) fn submit(&mut self, text: &str) {
        self.press(text);
        self.until(&format!("the echo of {text}"), |t| t.line().contains(text));
        self.press("\r");
    }

    /// Waits for its end, which must restore the terminal.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let status = self.wait();
        assert!(!self.is_raw(), "the terminal is still raw");
        assert!(!self.screen().bracketed_paste(), "pastes are still bracketed");
        assert!(!self.screen().hide_cursor(), "the cursor is hidden");
        status
    }
}

impl Deref for Terminal {
    type Target = hud_testkit::Terminal;

    fn deref(&self) -> &Self::Target {
        &self.terminal
    }
}

impl DerefMut for Terminal {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.terminal
    }
}

//! The line editor: prompt, keys, history, completion and colours.

use std::{
    borrow::Cow,
    env,
    io::{self, IsTerminal as _},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use nu_ansi_term::Style;
use reedline::{
    ColumnarMenu, Completer, DefaultHinter, Emacs, KeyCode, KeyModifiers, MenuBuilder as _, Prompt, PromptEditMode,
    PromptHistorySearch, PromptHistorySearchStatus, Reedline, ReedlineEvent, ReedlineMenu, Suggestion,
    ValidationResult, Validator, default_emacs_keybindings,
};

use crate::{
    complete::complete,
    control::lock,
    database::Catalogue,
    highlight::SqlHighlighter,
    history::{self, BoundedHistory},
    note::note,
    splitter,
};

const MENU: &str = "completion";

/// Whether input can be edited: reedline draws on standard error, and queries the cursor's position on standard output.
pub(crate) fn is_possible() -> bool {
    io::stdin().is_terminal()
        && io::stdout().is_terminal()
        && io::stderr().is_terminal()
        && env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// An editor on the process's terminal, which returns when `leave` is set.
pub(crate) fn open(catalogue: &Arc<Mutex<Catalogue>>, leave: Arc<AtomicBool>) -> Reedline {
    // https://no-color.org
    let colour = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut keys = default_emacs_keybindings();
    let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.into()), ReedlineEvent::MenuNext]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    // The marker replaces the prompt's `> `.
    let menu = ColumnarMenu::default()
        .with_name(MENU)
        .with_marker("> ")
        .with_text_style(Style::new())
        .with_match_text_style(Style::new())
        .with_selected_text_style(Style::new().reverse())
        .with_selected_match_text_style(Style::new().reverse())
        .with_description_text_style(Style::new().dimmed());
    let history = history::path().map(|path| BoundedHistory::open(&path)).transpose().unwrap_or_else(|error| {
        note(&format!("no history: {}", error.line()));
        None
    });
    let editor = Reedline::create()
        .with_ansi_colors(colour)
        .use_bracketed_paste(true)
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_validator(Box::new(Complete))
        .with_highlighter(Box::new(SqlHighlighter { colour }))
        .with_completer(Box::new(SqlCompleter { catalogue: Arc::clone(catalogue) }))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_history(Box::new(history.unwrap_or_default()))
        .with_break_signal(leave);
    // Without colours a hint would look like input.
    let hinter = colour.then(|| DefaultHinter::default().with_style(Style::new().dimmed()).with_min_chars(3));
    match hinter {
        Some(hinter) => editor.with_hinter(Box::new(hinter)),
        None => editor,
    }
}

/// The prompt: `hud> `, or `hud-> ` if a statement continues.
pub(crate) struct ShellPrompt {
    pub(crate) is_continued: bool,
}

impl Prompt for ShellPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        "hud".into()
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        if self.is_continued { "-> " } else { "> " }.into()
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        "hud-> ".into()
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let failing = matches!(search.status, PromptHistorySearchStatus::Failing);
        let what = if failing { "not found" } else { "search" };
        format!(" ({what} {}) ", hud_common::clean(&search.term)).into()
    }
}

/// Enter inserts a new line until the statement is complete.
struct Complete;

impl Validator for Complete {
    fn validate(&self, text: &str) -> ValidationResult {
        if splitter::is_complete(text) { ValidationResult::Complete } else { ValidationResult::Incomplete }
    }
}

struct SqlCompleter {
    catalogue: Arc<Mutex<Catalogue>>,
}

impl Completer for SqlCompleter {
    fn complete(&mut self, text: &str, cursor: usize) -> Vec<Suggestion> {
        complete(&lock(&self.catalogue), text, cursor)
    }
}

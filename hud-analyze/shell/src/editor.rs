//! Input at the prompt: with editing, history, completion and colours if the terminal supports it, else plain lines.

use std::{
    borrow::Cow,
    env,
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use crossterm::style::Color;
use nu_ansi_term::Style;
use reedline::{
    ColumnarMenu, Completer, DefaultHinter, EditCommand, Emacs, HistoryItem, KeyCode, KeyModifiers, MenuBuilder as _,
    Prompt, PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus, Reedline, ReedlineEvent, ReedlineMenu,
    Signal, Span, Suggestion, ValidationResult, Validator, default_emacs_keybindings,
};

use crate::{
    complete,
    control::lock,
    database::Catalogue,
    error::{Result, ShellError},
    highlight::SqlHighlighter,
    history::{self, Kept},
    run::note,
    script::LONGEST_LINE,
    splitter,
};

const MENU: &str = "completion";

/// The result of a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// Text: statements and commands, or a line of one.
    Text(String),
    /// The text so far is to be edited elsewhere.
    Edit(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the end of the input.
    End,
    /// The shell was asked to exit.
    Left,
}

/// Reads input.
pub(crate) struct Editor {
    name: String,
    /// None if lines are read as they come.
    line_editor: Option<Box<Reedline>>,
}

impl Editor {
    /// For the process's terminal.
    pub(crate) fn new(name: &str, catalogue: &Arc<Mutex<Catalogue>>, leave: Arc<AtomicBool>) -> Self {
        // The line editor draws on standard error and queries the cursor's position through standard output.
        let can_edit = io::stdin().is_terminal()
            && io::stdout().is_terminal()
            && io::stderr().is_terminal()
            && env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        let line_editor = can_edit.then(|| Box::new(line_editor(catalogue, leave)));
        Editor { name: name.to_owned(), line_editor }
    }

    /// Reads a statement, a command or a line of one; `goes_on` if it continues the previous input.
    pub(crate) fn read(&mut self, goes_on: bool) -> Result<Entered> {
        let prompt = ShellPrompt { name: self.name.clone(), goes_on };
        let Some(editor) = &mut self.line_editor else { return read_plain(&prompt) };
        let signal = match editor.read_line(&prompt) {
            Ok(signal) => signal,
            Err(error) => {
                // A terminal that does not report its cursor's position.
                note(&format!("no line editing here ({error}); lines are read as they are"));
                self.line_editor = None;
                return read_plain(&prompt);
            }
        };
        Ok(match signal {
            Signal::Success(text) => {
                // Saved at once: a shell that is killed loses nothing. If that fails, it is kept until the end.
                let _ = editor.sync_history();
                // The validator has checked the text; with a line end, its last comment is closed.
                Entered::Text(text + "\n")
            }
            Signal::HostCommand(_) => Entered::Edit(editor.current_buffer_contents().to_owned()),
            Signal::CtrlC => Entered::Interrupted,
            Signal::CtrlD => Entered::End,
            _ => Entered::Left,
        })
    }

    /// Puts `text` on the next prompt, to be edited or entered. Returns whether that is possible.
    pub(crate) fn prefill(&mut self, text: &str) -> bool {
        let Some(editor) = &mut self.line_editor else { return false };
        editor.run_edit_commands(&[EditCommand::Clear, EditCommand::InsertString(text.to_owned())]);
        true
    }

    /// Adds `text` to the history as if typed.
    pub(crate) fn remember(&mut self, text: &str) {
        if let Some(editor) = &mut self.line_editor {
            let _ = editor.history_mut().save(HistoryItem::from_command_line(text.trim()));
        }
    }
}

/// Whether colours are wanted (<https://no-color.org>).
fn has_colour() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn line_editor(catalogue: &Arc<Mutex<Catalogue>>, leave: Arc<AtomicBool>) -> Reedline {
    let colour = has_colour();
    let mut keys = default_emacs_keybindings();
    let menu = || ReedlineEvent::Menu(MENU.into());
    keys.add_binding(
        KeyModifiers::NONE,
        KeyCode::Tab,
        ReedlineEvent::UntilFound(vec![menu(), ReedlineEvent::MenuNext]),
    );
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    keys.add_binding(KeyModifiers::CONTROL, KeyCode::Char('o'), ReedlineEvent::ExecuteHostCommand("\\e".into()));

    let completer = SqlCompleter { catalogue: Arc::clone(catalogue) };
    // The marker takes the place of the prompt's own `> `.
    let mut menu = ColumnarMenu::default().with_name(MENU).with_marker("> ");
    menu = menu
        .with_text_style(Style::new())
        .with_match_text_style(Style::new())
        .with_selected_text_style(Style::new().reverse())
        .with_selected_match_text_style(Style::new().reverse())
        .with_description_text_style(Style::new().dimmed());
    let mut editor = Reedline::create()
        .with_ansi_colors(colour)
        .use_bracketed_paste(true)
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_validator(Box::new(Complete))
        .with_highlighter(Box::new(SqlHighlighter { colour }))
        .with_completer(Box::new(completer))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_break_signal(leave);
    if colour {
        // Without colours a hint would look like typed text.
        editor =
            editor.with_hinter(Box::new(DefaultHinter::default().with_style(Style::new().dimmed()).with_min_chars(3)));
    }
    let opened = history::place().map(|path| Kept::open(&path)).transpose();
    let history = opened.unwrap_or_else(|error| {
        note(&format!("no history: {}", error.line()));
        None
    });
    editor.with_history(Box::new(history.unwrap_or_default()))
}

fn read_plain(prompt: &ShellPrompt) -> Result<Entered> {
    let _ = write!(io::stderr(), "{}{}", prompt.name, prompt.indicator()).and_then(|()| io::stderr().flush());
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(LONGEST_LINE).read_until(b'\n', &mut bytes);
    Ok(match read.map_err(ShellError::io("read standard input"))? {
        0 => {
            let _ = writeln!(io::stderr());
            Entered::End
        }
        _ => Entered::Text(String::from_utf8_lossy(&bytes).into_owned()),
    })
}

/// The prompt: `hud> `, or `hud-> ` if a statement continues.
struct ShellPrompt {
    name: String,
    goes_on: bool,
}

impl ShellPrompt {
    fn indicator(&self) -> &'static str {
        if self.goes_on { "-> " } else { "> " }
    }
}

impl Prompt for ShellPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.name)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed(self.indicator())
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{}-> ", self.name))
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let failing = matches!(search.status, PromptHistorySearchStatus::Failing);
        let what = if failing { "nothing like" } else { "search" };
        Cow::Owned(format!(" ({what} {}) ", hud_common::clean(&search.term)))
    }

    fn get_prompt_color(&self) -> Color {
        Color::Reset
    }

    fn get_prompt_multiline_color(&self) -> nu_ansi_term::Color {
        nu_ansi_term::Color::DarkGray
    }

    fn get_indicator_color(&self) -> Color {
        Color::Reset
    }
}

/// Enter begins a new line until the statement is complete.
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
        let found = complete::complete(&lock(&self.catalogue), text, cursor);
        let suggestion = |candidate: complete::Candidate| Suggestion {
            value: candidate.value,
            description: Some(candidate.about).filter(|about| !about.is_empty()),
            span: Span { start: candidate.start, end: cursor },
            append_whitespace: candidate.space,
            ..Suggestion::default()
        };
        found.into_iter().map(suggestion).collect()
    }
}

//! The filter, and the line in which it or a time is typed.

/// Maximum length of a filter or a time, in characters.
const MAX_LENGTH: usize = 200;

/// What the prompt asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ui) enum Prompt {
    /// A filter; Esc restores the one before.
    Filter { before: String },
    /// A time to show.
    Jump { text: String },
}

/// The filter and the prompt.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    filter: String,
    prompt: Option<Prompt>,
}

impl Entry {
    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    pub(super) fn prompt(&self) -> Option<&Prompt> {
        self.prompt.as_ref()
    }

    pub(super) fn set_filter(&mut self, filter: &str) {
        self.filter = filter.chars().filter(|c| !c.is_control()).take(MAX_LENGTH).collect();
    }

    /// Adopts another filter as it is.
    pub(super) fn copy_filter(&mut self, from: &Entry) {
        self.filter.clone_from(&from.filter);
    }

    pub(super) fn ask_filter(&mut self) {
        self.prompt = Some(Prompt::Filter { before: self.filter.clone() });
    }

    pub(super) fn ask_time(&mut self) {
        self.prompt = Some(Prompt::Jump { text: String::new() });
    }

    /// Closes the prompt and discards its text.
    pub(super) fn cancel(&mut self) {
        if let Some(Prompt::Filter { before }) = self.prompt.take() {
            self.filter = before;
        }
    }

    /// The text of a prompt for a time.
    pub(super) fn typed_time(&self) -> Option<&str> {
        match &self.prompt {
            Some(Prompt::Jump { text }) => Some(text),
            _ => None,
        }
    }

    /// Closes the prompt and keeps its text.
    pub(super) fn accept(&mut self) {
        self.prompt = None;
    }

    pub(super) fn push(&mut self, c: char) {
        if let Some(text) = self.text()
            && text.chars().count() < MAX_LENGTH
        {
            text.push(c);
        }
    }

    pub(super) fn pop(&mut self) {
        if let Some(text) = self.text() {
            text.pop();
        }
    }

    pub(super) fn clear(&mut self) {
        if let Some(text) = self.text() {
            text.clear();
        }
    }

    fn text(&mut self) -> Option<&mut String> {
        match &mut self.prompt {
            Some(Prompt::Jump { text }) => Some(text),
            Some(Prompt::Filter { .. }) => Some(&mut self.filter),
            None => None,
        }
    }
}

//! The interactive shell: a prompt, an answer, the next prompt.

use crate::{
    commands::edit_text,
    describe,
    editor::{Editor, Entered},
    error::Result,
    run::{Flow, Runner, note},
    script::Place,
    splitter::{self, Splitter},
    text,
};

const HINT: &str = "SQL, ended by `;`.  \\d lists tables and views, \\? commands, Tab completes, Ctrl-D leaves.";

/// Prompts until the user leaves.
pub(crate) fn run(runner: &mut Runner<'_>, name: &str, greeting: &str) -> Result<Flow> {
    runner.is_interactive = true;
    let mut editor = Editor::new(name, &runner.catalogue, runner.signals.leave());
    for line in greeting.lines() {
        note(&hud_common::clean(line));
    }
    note(HINT);
    let mut splitter = Splitter::default();
    loop {
        runner.look();
        if let Some(text) = runner.unfinished.take()
            && !editor.prefill(&text)
        {
            splitter.push(&format!("{text}\n"));
            report(runner, &mut splitter);
        }
        let entered = editor.read(!splitter.pending().is_empty());
        if runner.signals.ended_by().is_some() {
            return Ok(Flow::Left);
        }
        // A Ctrl-C that arrived while nothing ran is discarded.
        runner.signals.take_interrupt();
        match entered? {
            Entered::End => return Ok(Flow::Quit),
            Entered::Left => return Ok(Flow::Left),
            Entered::Interrupted => splitter.clear(),
            Entered::Edit(text) => match edit_text(&text) {
                Ok(text) => runner.unfinished = Some(text.trim_end().to_owned()),
                Err(error) => note(&format!("error: {}", error.line())),
            },
            Entered::Text(text) if splitter.pending().is_empty() && splitter::is_plain_word(&text) => {
                if !text.trim().to_ascii_lowercase().starts_with("help") {
                    return Ok(Flow::Quit);
                }
                runner.show(&describe::help(runner.width()))?;
            }
            Entered::Text(text) => {
                splitter.push(&text);
                match report(runner, &mut splitter) {
                    Flow::On => {}
                    other => return Ok(other),
                }
            }
        }
        if let Some(text) = runner.edited.take() {
            editor.remember(&text);
        }
    }
}

/// Runs the input. An error is printed, and the rest of that input is discarded.
fn report(runner: &mut Runner<'_>, splitter: &mut Splitter) -> Flow {
    let error = match runner.drain(splitter, &Place::default()) {
        Ok(flow) => return flow,
        Err(error) => error,
    };
    if runner.signals.ended_by().is_some() {
        return Flow::Left;
    }
    splitter.clear();
    if error.is_cancelled() {
        note(&format!("cancelled after {}", text::duration(runner.took)));
    } else {
        note(&format!("error: {}", error.line()));
    }
    Flow::On
}

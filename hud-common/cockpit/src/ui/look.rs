//! Command line options of all cockpits: screen, theme and thresholds.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use crate::Thresholds;

use super::{run::Options, state::Screen, theme::Theme, warn::Warn};

/// Screen, theme and thresholds.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Screen")]
pub struct LookArgs {
    /// Length of the window at the start
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = hud_units::parse_positive)]
    pub window: i64,
    /// First screen
    #[arg(long, value_name = "NAME", default_value = "overview", value_parser = screen())]
    pub screen: Screen,
    /// Colours: `colorblind` is blue and orange, `mono` is none
    #[arg(long, value_name = "NAME", default_value = "hud", value_parser = PossibleValuesParser::new(Theme::NAMES))]
    pub theme: String,
    /// Draw with ASCII characters only, the default if the locale is not UTF-8
    #[arg(long)]
    pub ascii: bool,
    /// Do not capture the mouse, so that the terminal can select text
    #[arg(long)]
    pub no_mouse: bool,
    /// Limits of the rules, see [`Warn`]
    #[arg(long, value_name = "WHAT=LIMIT", value_delimiter = ',', help = warn_help())]
    pub warn: Vec<Warn>,
}

impl LookArgs {
    /// These options.
    pub fn options(&self) -> Options {
        Options {
            theme: Some(self.theme.clone()),
            is_ascii: self.ascii,
            has_mouse: !self.no_mouse,
            window: self.window,
            thresholds: self.thresholds(),
            screen: self.screen,
            ..Options::default()
        }
    }

    /// Thresholds of the rules.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds::default().with(&self.warn)
    }
}

fn screen() -> impl clap::builder::TypedValueParser<Value = Screen> {
    PossibleValuesParser::new(Screen::ALL.map(Screen::name))
        .map(|name| Screen::ALL.into_iter().find(|screen| screen.name() == name).unwrap_or(Screen::Overview))
}

fn warn_help() -> String {
    ["Thresholds of findings and status, separated by commas [default: ", &Warn::defaults(), "]"].concat()
}

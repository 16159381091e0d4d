//! Where words go: answers to stdout, remarks and progress to stderr.
//!
//! Always holds: with `--json`, stdout bears JSON and nothing else; without a terminal there are no
//! colours, no borders and no progress. `NO_COLOR` is honoured. Nothing else in this crate writes to
//! the terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use comfy_table::{Cell, Color, ContentArrangement, LineStyle, Table, TableStyle, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;

/// A line under the headings, and no other.
const TERMINAL: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

type Sink = Arc<Mutex<Box<dyn Write + Send>>>;

/// The two ends of one command's words.
#[derive(Clone)]
pub struct Output {
    json: bool,
    out: Sink,
    err: Sink,
    out_is_terminal: bool,
    err_is_terminal: bool,
    colour: bool,
}

/// How a cell is to be read, not which colour it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Passing,
    Bad,
    Faint,
}

/// A table's cell.
#[derive(Debug, Clone)]
pub struct Field {
    text: String,
    tone: Tone,
}

impl<T: Into<String>> From<T> for Field {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

impl Field {
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl Output {
    /// The process's own stdout and stderr.
    #[must_use]
    pub fn stdio(json: bool) -> Self {
        let colour = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        Self {
            json,
            out: Arc::new(Mutex::new(Box::new(io::stdout()))),
            err: Arc::new(Mutex::new(Box::new(io::stderr()))),
            out_is_terminal: io::stdout().is_terminal(),
            err_is_terminal: io::stderr().is_terminal(),
            colour,
        }
    }

    /// Into the two writers, as if `terminal` were one without colours.
    #[must_use]
    pub fn to_writers(
        json: bool,
        terminal: bool,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
    ) -> Self {
        Self {
            json,
            out: Arc::new(Mutex::new(out)),
            err: Arc::new(Mutex::new(err)),
            out_is_terminal: terminal,
            err_is_terminal: false,
            colour: false,
        }
    }

    /// Whether `--json` was asked for.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person is there to answer a question.
    #[must_use]
    pub fn can_ask(&self) -> bool {
        !self.json && self.err_is_terminal && io::stdin().is_terminal()
    }

    fn write(sink: &Sink, bytes: &[u8]) -> Result<(), Failure> {
        let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
        sink.write_all(bytes)?;
        sink.flush()?;
        Ok(())
    }

    /// A line of the answer.
    ///
    /// # Errors
    /// Where stdout can't be written; so with the following ones.
    pub fn line(&self, line: &str) -> Result<(), Failure> {
        Self::write(&self.out, format!("{line}\n").as_bytes())
    }

    /// Bytes of the answer, as they are.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        Self::write(&self.out, bytes)
    }

    /// Bytes of a command's stderr, as they are.
    pub fn error_bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        Self::write(&self.err, bytes)
    }

    /// The whole answer as one JSON document.
    pub fn document(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = if self.out_is_terminal {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string(value)
        };
        self.line(&text.map_err(|error| Failure::other(format!("can't write the answer as JSON: {error}")))?)
    }

    /// One answer of many, as one line of JSON.
    pub fn record(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::other(format!("can't write the answer as JSON: {error}")))?;
        self.line(&text)
    }

    /// A remark to the person, on stderr. Nothing that a script needs.
    pub fn note(&self, note: &str) {
        // A remark that can't be said is no reason to fail.
        let _ = Self::write(&self.err, format!("{note}\n").as_bytes());
    }

    /// What went wrong, on stderr.
    pub fn failure(&self, failure: &Failure) {
        if failure.quiet {
            return;
        }
        let text = if self.json {
            failure.json().to_string()
        } else if self.err_is_terminal && self.colour {
            failure.text().replacen("error:", "\u{1b}[1;31merror:\u{1b}[0m", 1)
        } else {
            failure.text()
        };
        self.note(&text);
    }

    /// Rows under headings: a table on a terminal, aligned columns elsewhere.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<Field>>) -> Result<(), Failure> {
        let text = self.render(header, rows);
        if text.is_empty() { Ok(()) } else { self.line(&text) }
    }

    fn render(&self, header: &[&str], rows: Vec<Vec<Field>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        // Nothing is broken over lines, however narrow the terminal: ids and addresses are there to be copied.
        table.set_content_arrangement(ContentArrangement::Disabled);
        if self.out_is_terminal {
            table.load_style(TERMINAL);
        } else {
            table.force_no_tty();
        }
        if self.colour {
            table.enforce_styling();
        }
        if !header.is_empty() {
            table.set_header(header.iter().map(|text| Cell::new(text.to_uppercase())));
        }
        for row in rows {
            table.add_row(row.into_iter().map(|field| self.cell(field)));
        }
        if !self.out_is_terminal {
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
        }
        table.trim_fmt()
    }

    fn cell(&self, field: Field) -> Cell {
        let cell = Cell::new(field.text);
        if !self.colour {
            return cell;
        }
        match field.tone {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Passing => cell.fg(Color::Yellow),
            Tone::Bad => cell.fg(Color::Red),
            Tone::Faint => cell.fg(Color::DarkGrey),
        }
    }

    /// Names and values of one thing, in two columns.
    pub fn facts(&self, facts: Vec<(&str, Field)>) -> Result<(), Failure> {
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, field) in facts {
            let mut lines = field.text.lines();
            self.line(format!("{name:width$}  {}", lines.next().unwrap_or("")).trim_end())?;
            for line in lines {
                self.line(format!("{:width$}  {line}", "").trim_end())?;
            }
        }
        Ok(())
    }

    /// Something that takes a while: a spinner on a terminal, nothing elsewhere.
    #[must_use]
    pub fn spinner(&self, message: impl Into<String>) -> Progress {
        if !self.shows_progress() {
            return Progress(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(message.into());
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress(bar)
    }

    /// Something of so many bytes.
    #[must_use]
    pub fn transfer(&self, message: impl Into<String>, bytes: u64) -> Progress {
        if !self.shows_progress() {
            return Progress(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
        let template =
            "{spinner} {msg} {bar:24} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec:.dim}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message.into());
        Progress(bar)
    }

    fn shows_progress(&self) -> bool {
        self.err_is_terminal && !self.json
    }
}

/// Progress that leaves no trace when it ends.
pub struct Progress(ProgressBar);

impl Progress {
    /// A handle that can go into another task.
    #[must_use]
    pub fn bar(&self) -> ProgressBar {
        self.0.clone()
    }

    /// Writes a remark without breaking the progress line.
    pub fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        self.0.suspend(write)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<Field>> {
        vec![
            vec!["shop".into(), Field::toned("running", Tone::Good), "http://shop.localhost:8080".into()],
            vec!["a-long-name".into(), Field::toned("failed", Tone::Bad), "".into()],
        ]
    }

    fn output(terminal: bool) -> Output {
        Output::to_writers(false, terminal, Box::new(io::sink()), Box::new(io::sink()))
    }

    #[test]
    fn a_table_for_a_terminal() {
        insta::assert_snapshot!(output(true).render(&["project", "state", "url"], rows()));
    }

    #[test]
    fn plain_columns_for_a_pipe() {
        insta::assert_snapshot!(output(false).render(&["project", "state", "url"], rows()));
    }

    #[test]
    fn a_closed_pipe_ends_without_a_word() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let output = Output::to_writers(false, false, Box::new(Closed), Box::new(io::sink()));
        assert!(output.line("one").unwrap_err().quiet);
    }
}

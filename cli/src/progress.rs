//! What is seen of long work: one line that changes on a terminal, plain lines elsewhere, nothing for programs.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::output::Form;

/// Longest line on a terminal, characters: one that wraps could not be written over.
const LINE_CHARACTERS_MAX: usize = 78;

/// Where steps are shown.
#[derive(Debug)]
pub(crate) struct Progress<W> {
    writer: W,
    style: Style,
    began: Instant,
    /// When a paced step was shown last.
    last: Instant,
    step: String,
}

/// How steps are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// One line, over and over.
    Line,
    /// A line for each step.
    Lines,
    /// Not at all.
    Silent,
}

impl Progress<io::Stderr> {
    /// On standard error, as is fit for it.
    pub(crate) fn new(form: Form) -> Self {
        let stderr = io::stderr();
        let style = match form {
            Form::Json => Style::Silent,
            Form::Text if stderr.is_terminal() => Style::Line,
            Form::Text => Style::Lines,
        };
        Self::with(stderr, style)
    }
}

impl<W: Write> Progress<W> {
    fn with(writer: W, style: Style) -> Self {
        let now = Instant::now();
        Self { writer, style, began: now, last: now, step: String::new() }
    }

    /// The work has come to this step.
    pub(crate) fn step(&mut self, step: &str) {
        if self.step == step {
            return;
        }
        step.clone_into(&mut self.step);
        if self.style == Style::Lines {
            self.write(&format!("{step}\n"));
        }
        self.redraw(self.began.elapsed());
    }

    /// Something is worth knowing when the work is over as well.
    pub(crate) fn warn(&mut self, warning: &str) {
        match self.style {
            Style::Line => self.write(&format!("\r\x1b[2Kwarning: {warning}\n")),
            Style::Lines => self.write(&format!("warning: {warning}\n")),
            Style::Silent => {}
        }
        self.tick();
    }

    /// The work goes on quickly: only now and then a step is worth showing.
    pub(crate) fn paced(&mut self, step: impl FnOnce() -> String) {
        let pause = match self.style {
            Style::Line => Duration::from_millis(100),
            Style::Lines => Duration::from_secs(2),
            Style::Silent => return,
        };
        if self.last.elapsed() >= pause {
            self.last = Instant::now();
            self.step(&step());
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        self.redraw(self.began.elapsed());
    }

    /// The work is over; what follows starts on an empty line.
    pub(crate) fn finish(&mut self) {
        if self.style == Style::Line && !self.step.is_empty() {
            self.write("\r\x1b[2K");
        }
        self.step.clear();
    }

    fn redraw(&mut self, elapsed: Duration) {
        if self.style == Style::Line && !self.step.is_empty() {
            let line: String = format!("{:>3} s  {}", elapsed.as_secs(), self.step);
            let line: String = line.chars().take(LINE_CHARACTERS_MAX).collect();
            self.write(&format!("\r\x1b[2K{line}"));
        }
    }

    fn write(&mut self, text: &str) {
        // Whoever does not watch any more still wants the work done.
        let _ = self.writer.write_all(text.as_bytes()).and_then(|()| self.writer.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(style: Style) -> String {
        let mut progress = Progress::with(Vec::new(), style);
        progress.step("probing");
        progress.step("probing");
        progress.tick();
        progress.step(&"starting worker 0 ".repeat(10));
        progress.finish();
        String::from_utf8(progress.writer).unwrap()
    }

    #[test]
    fn a_terminal_sees_one_line_that_changes_and_vanishes() {
        insta::assert_snapshot!(shown(Style::Line).escape_debug(), @r"\r\u{1b}[2K  0 s  probing\r\u{1b}[2K  0 s  probing\r\u{1b}[2K  0 s  starting worker 0 starting worker 0 starting worker 0 starting worker 0\r\u{1b}[2K");
    }

    #[test]
    fn a_file_sees_one_line_per_step() {
        insta::assert_snapshot!(shown(Style::Lines), @"
        probing
        starting worker 0 starting worker 0 starting worker 0 starting worker 0 starting worker 0 starting worker 0 starting worker 0 starting worker 0 starting worker 0 starting worker 0
        ");
    }

    #[test]
    fn a_program_sees_nothing() {
        assert_eq!(shown(Style::Silent), "");
    }

    #[test]
    fn a_warning_stays_where_it_was_shown() {
        let warned = |style: Style| {
            let mut progress = Progress::with(Vec::new(), style);
            progress.step("probing");
            progress.warn("the source is away");
            progress.finish();
            String::from_utf8(progress.writer).unwrap()
        };
        let clear = "\r\x1b[2K";
        let line =
            format!("{clear}  0 s  probing{clear}warning: the source is away\n{clear}  0 s  probing{clear}");
        assert_eq!(warned(Style::Line), line);
        assert_eq!(warned(Style::Lines), "probing\nwarning: the source is away\n");
        assert_eq!(warned(Style::Silent), "");
    }
}

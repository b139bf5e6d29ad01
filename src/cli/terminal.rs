//! What people see: lines, columns and bars. Bars are drawn on a terminal only.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes a line to standard output.
///
/// # Errors
/// [`io::Error`] if nobody reads it.
pub(super) fn say(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Whether somebody may be asked, and sees the question.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on standard error, and waits for a line. Cancel safe: the process may end while it waits.
///
/// # Errors
/// [`io::Error`] if nobody answers any more.
pub(super) async fn ask(question: String) -> io::Result<String> {
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own, which nobody waits for: one of the runtime's would keep an interrupted command from ending.
    std::thread::spawn(move || {
        // Nobody listens any more if the command was interrupted.
        let _ = tell.send(answer_to(&question));
    });
    told.await
        .unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()))
}

fn answer_to(question: &str) -> io::Result<String> {
    // Standard error is not held while somebody thinks: whoever interrupts is told so there.
    write!(io::stderr().lock(), "{question}")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Writes an error to standard error.
pub(super) fn complain(error: &dyn Display) {
    // There is nobody left to tell if this fails.
    let _ = writeln!(io::stderr().lock(), "error: {error}");
}

/// A bar of bytes on standard error; hidden unless that is a terminal.
pub(super) fn bar(total: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    let template = match total {
        Some(_) => "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{spinner} {bytes} {bytes_per_sec}",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A bar of pages; likewise.
pub(super) fn pages() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{bar:40} {pos}/{len} pages") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Rows of equal length, aligned by columns; the last column is as long as it likes.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// `9.6 MB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    #[allow(clippy::cast_precision_loss)] // shown with one digit
    let mut value = count as f64;
    if count < 1_000 {
        return format!("{count} B");
    }
    for unit in UNITS {
        value /= 1_000.0;
        if value < 999.95 {
            return format!("{value:.1} {unit}");
        }
    }
    format!("{value:.1} PB")
}

/// `123 ms` or `1.23 s`.
pub(super) fn elapsed(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(columns(&[row("a", "b"), row("áéí", "")]), "a    b\náéí");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(9_600_044), "9.6 MB");
        assert_eq!(bytes(999_999), "1.0 MB");
    }
}

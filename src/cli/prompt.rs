//! Questions to the person at the terminal. Passwords are read without echo; where there is no terminal, nothing is
//! asked.

use super::CliError;
use crate::domain::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write, stdin};

/// The longest secret that is read.
const MAX_SECRET: u64 = 4096;

/// The controlling terminal, also when standard input or output are redirected.
fn terminal() -> Option<File> {
    File::options().read(true).write(true).open("/dev/tty").ok()
}

/// Gives the terminal its echo back, however reading ends.
struct Echo<'t>(&'t File, Termios);

impl<'t> Echo<'t> {
    fn off(terminal: &'t File) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes &= !LocalModes::ECHO;
        quiet.local_modes |= LocalModes::ECHONL;
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self(terminal, before))
    }
}

impl Drop for Echo<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
    }
}

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> CliError {
    move |source| CliError::Io { doing, source }
}

/// Asks for a secret at the terminal; without one it is the first line of standard input.
pub fn secret(question: &str) -> Result<Secret, CliError> {
    if !stdin().is_terminal() {
        return secret_line();
    }
    let Some(terminal) = terminal() else {
        return secret_line();
    };
    // Echo goes off before the question is asked: what is typed at once is neither shown nor lost.
    let echo = Echo::off(&terminal).map_err(|e| io("turn the terminal's echo off")(e.into()))?;
    write!(&terminal, "{question}: ").map_err(io("write to the terminal"))?;
    let line = first_line(BufReader::new(&terminal))?;
    drop(echo);
    Ok(Secret::new(line))
}

/// A new secret: asked for twice at the terminal, else the first line of standard input.
pub fn new_secret(question: &str) -> Result<Secret, CliError> {
    let first = secret(question)?;
    if first.is_empty() {
        return Err(CliError::Usage("the password is empty".to_owned()));
    }
    if stdin().is_terminal() && terminal().is_some() && secret("Once more")? != first {
        return Err(CliError::Usage(
            "the two passwords are not the same".to_owned(),
        ));
    }
    Ok(first)
}

/// The first line of standard input.
pub fn secret_line() -> Result<Secret, CliError> {
    first_line(stdin().lock()).map(Secret::new)
}

/// The first line of a file.
pub fn secret_file(path: &std::path::Path) -> Result<Secret, CliError> {
    let file = File::open(path).map_err(|e| CliError::file("read", path, e))?;
    first_line(BufReader::new(file)).map(Secret::new)
}

/// Takes a reader that keeps what it has read ahead, so that the next secret can come from the next line.
fn first_line(from: impl BufRead) -> Result<String, CliError> {
    let mut line = String::new();
    from.take(MAX_SECRET)
        .read_line(&mut line)
        .map_err(io("read a secret"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Lets a destructive act through only when it is meant: `--yes`, or `yes` at the terminal.
pub fn confirm(act: &str, yes: bool) -> Result<(), CliError> {
    meant(act, "This cannot be undone.", yes)
}

/// The same for an act of which `so` is to be known first.
pub fn meant(act: &str, so: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    let terminal = if stdin().is_terminal() {
        terminal()
    } else {
        None
    };
    let Some(terminal) = terminal else {
        return Err(CliError::Usage(format!(
            "{act}? {so} Nobody can be asked here; say --yes if it is meant"
        )));
    };
    write!(&terminal, "{act}? {so} [y/N] ").map_err(io("write to the terminal"))?;
    let answer = first_line(BufReader::new(&terminal))?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(CliError::Declined(act.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_counts_and_it_is_bounded() {
        assert_eq!(first_line(&b"a b \r\nc"[..]).unwrap(), "a b ");
        assert_eq!(first_line(&b""[..]).unwrap(), "");
        let mut two = &b"one\ntwo\n"[..];
        assert_eq!(first_line(&mut two).unwrap(), "one");
        assert_eq!(first_line(&mut two).unwrap(), "two");
        assert_eq!(first_line(&[b'x'; 10_000][..]).unwrap().len(), 4096);
    }
}

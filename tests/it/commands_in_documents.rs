//! Commands that the documents show are commands: each must be one that the programs take, whether it stands in a block of `console` or
//! in a line of text, and services must be called what the package calls them.
//!
//! Read are the lines of blocks that begin with a prompt (`$ `, or `host$ `), as far as a shell would go: quotes, comments, lines that go
//! on after a backslash, pipes, assignments, `sudo`, and commands in `$(...)`. What stands for something (`TIER`, `$BETA`) is replaced by
//! what its place takes. In text a command may leave out what it needs, but not have what there is not.

use crate::documents::pages;
use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use livepatch_onprem::{cli, server_cli, sim};
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

/// The package's name of the service.
const SERVICE: &str = "livepatch-onprem";

// --- What a page shows ------------------------------------------------------------------------------------------------

/// Something on a page that may hold a command.
struct Shown {
    /// Where, from 1.
    line: usize,
    text: String,
    /// It is to be run as it stands, and so has to be whole.
    is_whole: bool,
}

/// What follows the prompt of a line in a block.
fn prompted(line: &str) -> Option<&str> {
    let (host, rest) = line.trim_start().split_once('$')?;
    let is_host = host
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let command = rest.trim();
    (is_host && rest.starts_with(' ') && !command.is_empty()).then_some(command)
}

/// Commands in blocks, and the text between the blocks with as many lines as the page.
fn blocks(page: &str) -> (Vec<Shown>, String) {
    let (mut found, mut prose, mut in_block) = (Vec::new(), String::new(), false);
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push_str(line);
        } else if let Some(command) = prompted(line) {
            let mut text = command.to_owned();
            while text.ends_with('\\') {
                text.pop();
                let Some((_, next)) = lines.next() else { break };
                text.push(' ');
                text.push_str(next.trim());
                prose.push('\n');
            }
            found.push(Shown {
                line: at + 1,
                text,
                is_whole: true,
            });
        }
        prose.push('\n');
    }
    (found, prose)
}

/// Commands in the text: spans of code with one of the programs and something after it.
fn spans(prose: &str, is_whole: bool) -> Vec<Shown> {
    let mut found = Vec::new();
    let mut first = 1;
    // By paragraph, so that one backtick too many does not turn the whole page inside out.
    for paragraph in prose.split("\n\n") {
        let mut line = first;
        for (i, part) in paragraph.split('`').enumerate() {
            let mut words = part.split_whitespace();
            if i % 2 == 1 && words.any(is_program) && words.next().is_some() {
                found.push(Shown {
                    line,
                    text: part.replace('\n', " ").replace("\\|", "|"),
                    is_whole,
                });
            }
            line += part.matches('\n').count();
        }
        first += paragraph.matches('\n').count() + 2;
    }
    found
}

// --- What a shell makes of it -----------------------------------------------------------------------------------------

/// Stands in a word where a variable or the output of a command would.
const HOLE: char = '\u{1}';

#[derive(Debug, Default)]
struct Word {
    text: String,
    is_quoted: bool,
    /// It may be any number of words: `"$@"`.
    is_many: bool,
}

impl Word {
    /// Whether it stands for something: a variable, or a word in capitals.
    fn is_hole(&self) -> bool {
        let is_capital = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_".contains(&b);
        let is_name = !self.is_quoted
            && self.text.len() > 1
            && self.text.starts_with(|c: char| c.is_ascii_uppercase())
            && self.text.bytes().all(is_capital);
        is_name || self.text.chars().eq([HOLE])
    }

    /// Whether it stands for whatever else is needed.
    fn is_rest(&self) -> bool {
        self.is_many || (!self.is_quoted && self.text == "...")
    }
}

/// Reads a line as far as is needed to find its commands.
struct Shell<'t> {
    rest: Peekable<Chars<'t>>,
    /// Simple commands, with those of substitutions.
    found: Vec<Vec<Word>>,
}

/// The simple commands of a line.
fn commands(text: &str) -> Result<Vec<Vec<Word>>, String> {
    let mut shell = Shell {
        rest: text.chars().peekable(),
        found: Vec::new(),
    };
    shell.list(false)?;
    Ok(shell.found)
}

impl Shell<'_> {
    /// Commands up to the end, or up to the parenthesis that closes a substitution.
    fn list(&mut self, is_inner: bool) -> Result<(), String> {
        let mut command = Vec::new();
        while let Some(&next) = self.rest.peek() {
            match next {
                ' ' | '\t' => {
                    self.rest.next();
                }
                '#' => while self.rest.next().is_some() {},
                ')' if is_inner => {
                    self.rest.next();
                    self.found.push(command);
                    return Ok(());
                }
                '|' | '&' | ';' | '(' | ')' => {
                    self.rest.next();
                    self.found.push(std::mem::take(&mut command));
                }
                '<' | '>' => self.redirection()?,
                _ => {
                    let word = self.word()?;
                    // `2>file`: the digit belongs to what follows.
                    let is_descriptor = matches!(self.rest.peek(), Some('<' | '>'))
                        && word.text.bytes().all(|b| b.is_ascii_digit());
                    if !is_descriptor {
                        command.push(word);
                    }
                }
            }
        }
        if is_inner {
            return Err("`$(` is not closed".to_owned());
        }
        self.found.push(command);
        Ok(())
    }

    fn redirection(&mut self) -> Result<(), String> {
        while self
            .rest
            .next_if(|c| matches!(c, '<' | '>' | '&'))
            .is_some()
        {}
        while self.rest.next_if_eq(&' ').is_some() {}
        if self.rest.next_if_eq(&'(').is_some() {
            return self.list(true);
        }
        self.word().map(drop)
    }

    fn word(&mut self) -> Result<Word, String> {
        let mut word = Word::default();
        while let Some(next) = self
            .rest
            .next_if(|c| !matches!(c, ' ' | '\t' | '|' | '&' | ';' | '(' | ')' | '<' | '>'))
        {
            match next {
                '\'' => {
                    word.is_quoted = true;
                    loop {
                        match self.inside("a quote")? {
                            '\'' => break,
                            plain => word.text.push(plain),
                        }
                    }
                }
                '"' => {
                    word.is_quoted = true;
                    loop {
                        match self.inside("a quote")? {
                            '"' => break,
                            '\\' => word.text.push(self.inside("a quote")?),
                            '$' => self.variable(&mut word)?,
                            plain => word.text.push(plain),
                        }
                    }
                }
                '\\' => word.text.extend(self.rest.next()),
                '$' => self.variable(&mut word)?,
                plain => word.text.push(plain),
            }
        }
        Ok(word)
    }

    /// The next character of something that has to be closed.
    fn inside(&mut self, what: &str) -> Result<char, String> {
        let next = self.rest.next();
        next.ok_or_else(|| format!("{what} is not closed"))
    }

    /// What follows a dollar.
    fn variable(&mut self, word: &mut Word) -> Result<(), String> {
        match self.rest.peek().copied() {
            Some('(') => {
                self.rest.next();
                self.list(true)?;
            }
            Some('{') => {
                self.rest.next();
                let mut name = String::new();
                loop {
                    match self.inside("`${`")? {
                        '}' => break,
                        plain => name.push(plain),
                    }
                }
                word.is_many |= name.starts_with(['@', '*']);
            }
            Some('@' | '*') => {
                self.rest.next();
                word.is_many = true;
            }
            Some(first) if first.is_ascii_alphanumeric() || first == '_' => {
                self.rest.next();
                let is_more = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
                while !first.is_ascii_digit() && self.rest.next_if(is_more).is_some() {}
            }
            _ => {
                word.text.push('$');
                return Ok(());
            }
        }
        word.text.push(HOLE);
        Ok(())
    }
}

/// What is left of the words of `sudo` or `env` after their options.
fn after_options(mut words: &[Word]) -> &[Word] {
    while let Some((first, rest)) = words.split_first() {
        words = match first.text.as_str() {
            "-u" | "-g" | "--user" | "--group" => rest.get(1..).unwrap_or_default(),
            option if option.starts_with('-') => rest,
            _ => break,
        };
    }
    words
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// The program that a simple command runs in the end, without its folder, and its arguments.
fn program(command: &[Word]) -> Option<(&str, &[Word])> {
    let mut words = command;
    loop {
        let (first, rest) = words.split_first()?;
        words = match first.text.as_str() {
            "sudo" | "env" => after_options(rest),
            "exec" | "nohup" | "time" | "!" | "{" | "}" | "if" | "then" | "else" | "fi"
            | "while" | "until" | "do" | "done" => rest,
            "kubectl" => {
                let at = rest.iter().position(|word| word.text == "--")?;
                rest.get(at + 1..)?
            }
            word if is_assignment(word) => rest,
            word => return Some((word.rsplit('/').next().unwrap_or(word), rest)),
        };
    }
}

// --- Whether the programs take it -------------------------------------------------------------------------------------

fn is_program(word: &str) -> bool {
    matches!(
        word,
        "livepatch-admin" | "livepatch-server" | "livepatch-client"
    )
}

fn parse(program: &str, arguments: &[String]) -> Result<(), clap::Error> {
    let words = std::iter::once(program).chain(arguments.iter().map(String::as_str));
    match program {
        "livepatch-admin" => cli::Cli::try_parse_from(words).map(drop),
        "livepatch-server" => server_cli::Cli::try_parse_from(words).map(drop),
        "livepatch-client" => sim::cli::Cli::try_parse_from(words).map(drop),
        other => panic!("{other} is no program of ours"),
    }
}

/// The n-th guess at what a word could stand for that is the i-th of its command. No two words have a guess in common but the last two,
/// so that a refusal says whose it is.
fn guess(i: usize, n: usize) -> Option<String> {
    Some(match n {
        0 => format!("word-{i}"),
        1 => format!("{}.1", 100 + i),
        2 => format!("{}", i + 1),
        3 => format!("{:032x}", i + 1),
        4 => format!("00000000-0000-4000-8000-{:012x}", i + 1),
        5 => format!("5.15.0-{0}.{0}-generic", i + 1),
        6 => format!("http://h{i}.example"),
        7 => format!("{}h", i + 1),
        8 => format!("{}%", i + 1),
        9 => format!("2026-07-{:02}", i + 1),
        10 => format!("key-{i}=value"),
        11 => format!("ed25519:{:064x}", i + 1),
        12 => "amd64".to_owned(),
        13 => "viewer".to_owned(),
        _ => return None,
    })
}

/// Why a program does not take these arguments.
fn check(program: &str, arguments: &[Word], is_whole: bool) -> Result<(), String> {
    let is_open = !is_whole || arguments.iter().any(Word::is_rest);
    let arguments: Vec<&Word> = arguments.iter().filter(|word| !word.is_rest()).collect();
    let mut guesses = vec![0; arguments.len()];
    loop {
        let mut words = Vec::new();
        for (i, word) in arguments.iter().enumerate() {
            let guessed = guess(i, guesses[i]).filter(|_| word.is_hole());
            words.push(guessed.unwrap_or_else(|| word.text.replace(HOLE, "x")));
        }
        let Err(error) = parse(program, &words) else {
            return Ok(());
        };
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Ok(()),
            ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                if is_open =>
            {
                return Ok(());
            }
            ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
                let Some(ContextValue::String(refused)) = error.get(ContextKind::InvalidValue)
                else {
                    return Err(error.to_string());
                };
                let at = (0..words.len()).find(|&i| arguments[i].is_hole() && words[i] == *refused);
                let Some(at) = at else {
                    return Err(error.to_string());
                };
                guesses[at] += 1;
                if guess(at, guesses[at]).is_none() {
                    return Err(format!(
                        "nothing fits in place of {}: {error}",
                        arguments[at].text
                    ));
                }
            }
            _ => return Err(error.to_string()),
        }
    }
}

/// How many commands of each program a page has; what is wrong with them is added, with page and line.
fn examine(name: &str, page: &str, wrong: &mut Vec<String>) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    let (mut shown, prose) = blocks(page);
    // Whoever reads a runbook copies from its text as well.
    shown.extend(spans(&prose, name.starts_with("docs/how-to/runbooks/")));
    for Shown {
        line,
        text,
        is_whole,
    } in shown
    {
        let found = commands(&text).unwrap_or_else(|why| {
            wrong.push(format!("{name}:{line}: {why}: {text}"));
            Vec::new()
        });
        for command in &found {
            let Some((program, arguments)) = program(command) else {
                continue;
            };
            if is_program(program) {
                *seen.entry(program.to_owned()).or_default() += 1;
                if let Err(why) = check(program, arguments, is_whole) {
                    wrong.push(format!("{name}:{line}: {text}\n{why}"));
                }
            } else if matches!(program, "systemctl" | "journalctl") {
                for word in arguments {
                    let unit = word.text.trim_end_matches(".service");
                    if unit.starts_with("livepatch") && unit != SERVICE {
                        wrong.push(format!("{name}:{line}: there is no service {unit}"));
                    }
                }
            }
        }
    }
    seen
}

#[test]
fn commands_in_documents_are_commands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unit = root.join(format!("packaging/systemd/{SERVICE}.service"));
    assert!(unit.exists(), "{} is not there", unit.display());
    let (mut seen, mut wrong) = (BTreeMap::new(), Vec::new());
    for path in pages() {
        let name = path.display().to_string();
        // What was, and pages that are made from the commands themselves.
        if name == "CHANGELOG.md" || name.starts_with("docs/reference/commands-") {
            continue;
        }
        let page = std::fs::read_to_string(root.join(&path)).unwrap();
        for (program, count) in examine(&name, &page, &mut wrong) {
            *seen.entry(program).or_insert(0) += count;
        }
    }
    assert!(
        wrong.is_empty(),
        "{} commands are none:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    for (program, least) in [
        ("livepatch-admin", 150),
        ("livepatch-server", 40),
        ("livepatch-client", 4),
    ] {
        let count = seen.get(program).copied().unwrap_or_default();
        assert!(count >= least, "only {count} commands of {program} found");
    }
}

#[test]
fn what_is_no_command_is_found() {
    let page = r#"# A page

```console
$ livepatch-admin tire list
$ livepatch-admin tier list --nonsense
$ livepatch-admin patch promote 107.1
$ livepatch-admin patch show one.two
host$ LP_X=1 sudo -u livepatch /usr/bin/livepatch-server confgi check
$ livepatch-admin tier list | grep stable && livepatch-client frobnicate
$ X=$(livepatch-admin --quiet auth-token) livepatch-admin tier list
$ livepatch-admin patch promote 107.1 \
    beta --reeson 'it is "good"'
$ livepatch-admin patch block 107.1 --reason 'not closed
$ systemctl status livepatch-server
```

Text with `livepatch-admin tier lst` and `livepatch-admin tier
list --no`.
"#;
    let mut wrong = Vec::new();
    examine("page", page, &mut wrong);
    let lines: Vec<&str> = wrong
        .iter()
        .filter_map(|found| found.strip_prefix("page:")?.split(':').next())
        .collect();
    let expected = [
        "4", "5", "6", "7", "8", "9", "10", "11", "13", "14", "17", "17",
    ];
    assert_eq!(lines, expected, "{}", wrong.join("\n"));
}

#[test]
fn what_is_a_command_is_none_of_them() {
    let page = r#"# A page

```console
$ export PATH=$PWD/target/release:$PATH LIVEPATCH_URL=http://127.0.0.1:8080
$ BETA=$(livepatch-admin auth-token laboratory beta)   # a remark's quote
$ livepatch-admin explain $(printf '%032x' 2) > "$HOME/why" 2>&1
$ livepatch-admin rollout show ID --output json | grep -om1 '"offered": [0-9]*'
$ machine() { livepatch-client --machine-id $(printf '%032x' $1) --state-dir /tmp/machine-$1 "${@:2}"; }
$ livepatch-admin patch block VERSION --kernel KERNEL --arch ARCH --reason '...'
$ livepatch-server export ...
$ sudo -u livepatch env LP_X=1 livepatch-server config check
$ sudo systemctl restart livepatch-onprem
livepatch-admin is spoken of in output
```

`livepatch-admin`, `livepatch-admin patch promote`, `livepatch-server config check`.
"#;
    let mut wrong = Vec::new();
    let seen = examine("page", page, &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let expected = [
        ("livepatch-admin", 5),
        ("livepatch-client", 1),
        ("livepatch-server", 3),
    ];
    let seen: Vec<(&str, usize)> = seen.iter().map(|(p, n)| (p.as_str(), *n)).collect();
    assert_eq!(seen, expected);
}

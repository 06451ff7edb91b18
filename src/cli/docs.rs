//! What is written from the command line's own description: the reference page and completion scripts.
//! Works for any of the programs; the others use it for theirs.

use clap::{Arg, Command};
use clap_complete::Shell;
use std::fmt::Write;

/// The completion script for a shell.
pub fn completion(command: &mut Command, shell: Shell) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The reference page (Markdown) of a program: every command with its arguments, `intro` after the title.
pub fn markdown(mut command: Command, intro: &str) -> String {
    command.build();
    let mut page = format!("# {}\n\n{}\n", command.get_name(), intro.trim());
    let globals: Vec<&Arg> = visible(&command).filter(|a| a.is_global_set()).collect();
    if !globals.is_empty() {
        page.push_str("\n## Options of every command\n\n");
        arguments(&globals, &mut page);
    }
    commands(&command, command.get_name(), &mut page);
    page
}

fn visible(command: &Command) -> impl Iterator<Item = &Arg> {
    use clap::ArgAction::{Help, HelpLong, HelpShort, Version};
    command.get_arguments().filter(|a| {
        !a.is_hide_set() && !matches!(a.get_action(), Help | HelpLong | HelpShort | Version)
    })
}

fn commands(command: &Command, path: &str, page: &mut String) {
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let path = format!("{path} {}", sub.get_name());
        let only_group = sub.is_subcommand_required_set()
            || (sub.has_subcommands() && visible(sub).all(Arg::is_global_set));
        if !only_group {
            describe(sub, &path, page);
        }
        commands(sub, &path, page);
    }
}

fn describe(command: &Command, path: &str, page: &mut String) {
    let mut synopsis = path.to_owned();
    let own: Vec<&Arg> = visible(command).filter(|a| !a.is_global_set()).collect();
    for argument in &own {
        let _ = write!(synopsis, " {}", synopsis_of(argument));
    }
    let _ = write!(page, "\n## {path}\n");
    if let Some(about) = command.get_about() {
        let _ = write!(page, "\n{about}.\n");
    }
    let _ = write!(page, "\n```text\n{synopsis}\n```\n");
    if !own.is_empty() {
        page.push('\n');
        arguments(&own, page);
    }
    if let Some(more) = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
    {
        let _ = write!(page, "\n```text\n{}\n```\n", more.to_string().trim());
    }
}

fn value_of(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let names: Vec<&str> = names.iter().map(clap::builder::Str::as_str).collect();
    names.join(" ")
}

fn takes_value(argument: &Arg) -> bool {
    argument.get_action().takes_values()
}

fn synopsis_of(argument: &Arg) -> String {
    let many = matches!(argument.get_action(), clap::ArgAction::Append);
    let mut text = match argument.get_long() {
        None => value_of(argument),
        Some(long) if takes_value(argument) => format!("--{long} {}", value_of(argument)),
        Some(long) => format!("--{long}"),
    };
    if many {
        text.push_str("...");
    }
    if argument.is_required_set() {
        text
    } else {
        format!("[{text}]")
    }
}

fn arguments(list: &[&Arg], page: &mut String) {
    for argument in list {
        let mut name = match argument.get_long() {
            None => value_of(argument),
            Some(long) => format!("--{long}"),
        };
        if let Some(short) = argument.get_short() {
            name = format!("-{short}, {name}");
        }
        if argument.get_long().is_some() && takes_value(argument) {
            name = format!("{name} {}", value_of(argument));
        }
        let mut line = format!("- `{name}`: {}", argument.get_help().unwrap_or_default());
        let values: Vec<String> = argument
            .get_possible_values()
            .iter()
            .filter(|v| takes_value(argument) && !v.is_hide_set())
            .map(|v| format!("`{}`", v.get_name()))
            .collect();
        if !values.is_empty() {
            let _ = write!(line, "; one of {}", values.join(", "));
        }
        let defaults: Vec<String> = argument
            .get_default_values()
            .iter()
            .filter(|_| takes_value(argument))
            .map(|v| format!("`{}`", v.to_string_lossy()))
            .collect();
        if !defaults.is_empty() {
            let _ = write!(line, "; default {}", defaults.join(" "));
        }
        if let Some(variable) = argument.get_env() {
            let _ = write!(line, "; environment `{}`", variable.to_string_lossy());
        }
        line.push('.');
        let _ = writeln!(page, "{line}");
    }
}

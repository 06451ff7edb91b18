//! `manual`: the manual pages and completion scripts of the three programs, for those who make packages. They are made from the
//! commands themselves, as the reference pages are, so that none of them can be forgotten or out of date.

use crate::cli::docs;
use crate::{cli, sim};
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use std::fs;
use std::path::Path;

/// Writes them into folders of `dir`, which are made.
pub(super) fn write(dir: &Path) -> anyhow::Result<()> {
    let programs = [
        super::Cli::command(),
        cli::Cli::command(),
        sim::cli::Cli::command(),
    ];
    let folder = |name: &str| {
        let path = dir.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        anyhow::Ok(path)
    };
    let (pages, bash, zsh, fish) = (
        folder("man1")?,
        folder("bash")?,
        folder("zsh")?,
        folder("fish")?,
    );
    for mut program in programs {
        let name = program.get_name().to_owned();
        // Of a copy, and first: scripts add the `help` commands to what they are made from.
        clap_mangen::generate_to(program.clone(), &pages)
            .with_context(|| format!("writing {}", pages.display()))?;
        for (path, shell) in [
            (bash.join(&name), Shell::Bash),
            (zsh.join(format!("_{name}")), Shell::Zsh),
            (fish.join(format!("{name}.fish")), Shell::Fish),
        ] {
            fs::write(&path, docs::completion(&mut program, shell))
                .with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

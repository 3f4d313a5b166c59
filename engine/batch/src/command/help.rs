//! `reiver help`, manual pages, and what shells need to complete words: all of it is made from the command
//! line's own description, but for the reference of job files.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::Shell;

use super::console::say;
use super::exit;
use super::program::Program;

/// What may stand in a job file, for `reiver help FORMAT`.
const FORMAT: &str = include_str!("format.txt");

pub(crate) fn help(program: &Program, words: &[String], out: &mut dyn Write) -> io::Result<u8> {
    if let [word] = words
        && word.eq_ignore_ascii_case("format")
    {
        out.write_all(FORMAT.as_bytes())?;
        out.write_all(program.format().as_bytes())?;
        return Ok(exit::OK);
    }
    let mut command = program.command();
    command.build();
    let mut wanted = &mut command;
    for word in words {
        match wanted.find_subcommand_mut(word) {
            Some(found) => wanted = found,
            None => {
                say(&format!(
                    "reiver: there is no help about `{word}`: `reiver help` lists the commands, and \
                     `reiver help FORMAT` is the reference of job files"
                ));
                return Ok(exit::REFUSED);
            }
        }
    }
    write!(out, "{}", wanted.render_help())?;
    Ok(exit::OK)
}

pub(crate) fn completions(program: &Program, shell: Shell, out: &mut dyn Write) -> io::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program.command(), program.name(), &mut script);
    out.write_all(&script)?;
    Ok(exit::OK)
}

pub(crate) fn man(
    program: &Program,
    folder: Option<&OsStr>,
    out: &mut dyn Write,
) -> io::Result<u8> {
    let Some(folder) = folder.map(Path::new) else {
        clap_mangen::Man::new(program.command()).render(out)?;
        return Ok(exit::OK);
    };
    let made = fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(program.command(), folder));
    if let Err(error) = made {
        say(&format!("reiver: {}: {error}", folder.display()));
        return Ok(exit::REFUSED);
    }
    Ok(exit::OK)
}

//! `reiver topology`.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;

use reiver_topology::{Topology, TopologyError};

use super::args::TopologyArgs;
use super::console::say;
use super::exit;

mod drawing;
mod json;

pub(crate) use drawing::draw;

/// Shows the machine; gives the exit code.
pub(crate) fn show(args: &TopologyArgs, out: &mut dyn Write) -> io::Result<u8> {
    let machine = match read(args.reader.as_deref()) {
        Ok(machine) => machine,
        Err(error) => {
            say(&format!("reiver: {error}"));
            return Ok(exit::REFUSED);
        }
    };
    if args.json {
        json::write(&machine, out)?;
    } else {
        draw(&machine, out)?;
    }
    Ok(exit::OK)
}

/// The machine that `--reader` names; this one where it is left out.
pub(crate) fn read(reader: Option<&OsStr>) -> Result<Topology, TopologyError> {
    let Some(reader) = reader else {
        return Topology::detect();
    };
    // No description holds a slash or ends in `.xml`.
    let path = Path::new(reader);
    let is_xml = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("xml"));
    if is_xml || path.components().count() > 1 {
        return Topology::from_xml(path);
    }
    match &*reader.to_string_lossy() {
        "sysfs" => Topology::detect(),
        "hwloc" => Topology::from_hwloc(),
        description => Topology::synthetic(description),
    }
}

//! `reiver topology`.

use std::io::{self, Write};

use reiver_topology::{Topology, TopologyError};

use crate::args::TopologyArgs;
use crate::console::say;
use crate::exit;

mod drawing;
mod json;

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
        drawing::draw(&machine, out)?;
    }
    Ok(exit::OK)
}

fn read(reader: Option<&str>) -> Result<Topology, TopologyError> {
    match reader {
        None | Some("sysfs") => Topology::detect(),
        #[cfg(feature = "hwloc")]
        Some("hwloc") => Topology::from_hwloc(),
        #[cfg(not(feature = "hwloc"))]
        Some("hwloc") => Err(not_built_in()),
        Some(description) => Topology::synthetic(description),
    }
}

#[cfg(not(feature = "hwloc"))]
fn not_built_in() -> TopologyError {
    let reason = "this reiver was built without it; install it with `--features hwloc`";
    TopologyError::Hwloc {
        reason: reason.to_owned(),
    }
}

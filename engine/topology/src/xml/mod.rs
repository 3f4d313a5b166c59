//! Reads the XML that hwloc's `lstopo` writes, in its second and third version.
//!
//! Files may come from strangers. What memory and time a file can cost is bounded by its length, which
//! has a limit: what the XML reader would unfold (entities, namespaces) and what it compares each
//! with each (attributes of an element) is refused before it sees the text, for `lstopo` writes no
//! such things.

mod found;
mod values;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use roxmltree::{Document, Error as XmlError, ParsingOptions};

use crate::TopologyError;
use crate::objects::Objects;

/// Ten times what a machine of 4,096 CPUs takes.
const MOST_BYTES: usize = 32 << 20;
/// Elements, and texts between them.
const MOST_ELEMENTS: u32 = 1 << 21;
/// `lstopo` writes at most a dozen to an element.
const MOST_ATTRIBUTES: usize = 256;
/// More than any machine that runs Linux: its kernels are built for 1,024 nodes and 8,192 CPUs.
const MOST_NODES: usize = 1024;
const MOST_CPUS: usize = 65_536;
/// Numbers of how fast memory is: all six attributes between all pairs of 100 nodes.
const MOST_SPEEDS: usize = 60_000;

/// What to do about a file that is no good.
const REMEDY: &str = "write it with `lstopo machine.xml` of hwloc 2 or 3";

type Element<'d> = roxmltree::Node<'d, 'd>;

/// A refusal: the byte it is about, where it is about one, and why.
type Refused = (Option<usize>, String);

fn at(element: Element<'_>, problem: String) -> Refused {
    (Some(element.range().start), problem)
}

/// The text of a file.
pub(crate) fn text_of(path: &Path) -> Result<String, TopologyError> {
    let unreadable = |source| TopologyError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let refused = |problem| TopologyError::Xml {
        origin: path.display().to_string(),
        at: None,
        problem,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let limit = u64::try_from(MOST_BYTES).expect("it is small") + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MOST_BYTES {
        return Err(refused(too_long()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        refused(format!("after {byte} bytes this is no text; {REMEDY}"))
    })
}

fn too_long() -> String {
    format!(
        "this is longer than {} MiB; is it a machine?",
        MOST_BYTES >> 20
    )
}

/// What a text lists, which errors call `origin`.
pub(crate) fn read(text: &str, origin: &str) -> Result<Objects, TopologyError> {
    let refuse = |at: Option<(u32, u32)>, problem| TopologyError::Xml {
        origin: origin.to_owned(),
        at,
        problem,
    };
    let place = |byte: usize| {
        let before = &text[..byte];
        let column = before.chars().rev().take_while(|&letter| letter != '\n');
        let small = |number| u32::try_from(number).expect("at most MOST_BYTES");
        (
            small(before.matches('\n').count() + 1),
            small(column.count() + 1),
        )
    };
    check_text(text).map_err(|(byte, problem)| refuse(byte.map(place), problem))?;
    let options = ParsingOptions {
        // Without it a file that names its grammar is refused; the grammar itself is never read.
        allow_dtd: true,
        nodes_limit: MOST_ELEMENTS,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options).map_err(|error| {
        let place = match error {
            XmlError::UnexpectedEndOfStream | XmlError::UnclosedRootNode => Some(place(text.len())),
            XmlError::NodesLimitReached | XmlError::AttributesLimitReached => None,
            _ => Some((error.pos().row, error.pos().col)),
        };
        let said = error.to_string();
        let said = said.strip_suffix(&format!(" at {}", error.pos()));
        let said = said.map_or_else(|| error.to_string(), str::to_owned);
        refuse(place, format!("this is no sound XML: {said}; {REMEDY}"))
    })?;
    found::objects(&document).map_err(|(byte, problem)| refuse(byte.map(place), problem))
}

/// Refuses what would cost the XML reader more than the length of the text.
fn check_text(text: &str) -> Result<(), Refused> {
    if text.len() > MOST_BYTES {
        return Err((None, too_long()));
    }
    for costly in ["<!ENTITY", "xmlns"] {
        if let Some(byte) = text.find(costly) {
            let problem = format!("`{costly}` stands in no file of lstopo; {REMEDY}");
            return Err((Some(byte), problem));
        }
    }
    // No tag can hold another `<`, so between two of them is at most one tag.
    let mut start = 0;
    for part in text.split('<') {
        if part.bytes().filter(|&byte| byte == b'=').count() > MOST_ATTRIBUTES {
            let problem = format!("this has more than {MOST_ATTRIBUTES} attributes; {REMEDY}");
            return Err((Some(start), problem));
        }
        start += part.len() + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{CacheKind, CpuId, MemoryAccess, NodeId, Reader, Topology};

    /// Two packages of two cores, the second of them with a node of memory alone and one that is not
    /// listed; written as `lstopo` does.
    const MACHINE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
  <object type="Machine" os_index="0" cpuset="0x0000000f" gp_index="1">
    <info name="Backend" value="Linux"/>
    <object type="Package" os_index="1" cpuset="0x00000003" gp_index="2">
      <object type="NUMANode" os_index="4" cpuset="0x00000003" gp_index="3" local_memory="4096">
        <page_type size="4096" count="1"/>
      </object>
      <object type="MemCache" cpuset="0x00000003" gp_index="4" cache_size="512" depth="1" cache_type="0">
        <object type="NUMANode" os_index="2" cpuset="0x00000003" gp_index="5" local_memory="8192"/>
      </object>
      <object type="L3Cache" cpuset="0x00000003" gp_index="6" cache_size="1048576" depth="3" cache_type="0">
        <object type="Core" os_index="0" cpuset="0x00000003" gp_index="7">
          <object type="PU" os_index="0" cpuset="0x00000001" complete_nodeset="0x00000014" gp_index="8"/>
          <object type="PU" os_index="1" cpuset="0x00000002" complete_nodeset="0x00000014" gp_index="9"/>
        </object>
      </object>
    </object>
    <object type="Package" os_index="0" cpuset="0x0000000c" gp_index="10">
      <object type="L1iCache" cpuset="0x00000008" gp_index="11" cache_size="32768" depth="1" cache_type="2">
        <object type="Core" os_index="0" cpuset="0x00000008" gp_index="12">
          <object type="PU" os_index="3" cpuset="0x00000008" complete_nodeset="0x00000080" gp_index="13"/>
        </object>
      </object>
      <object type="PU" os_index="2" cpuset="0x00000004" gp_index="14"/>
    </object>
  </object>
  <distances2 type="NUMANode" nbobjs="2" kind="10" name="Bandwidths" indexing="os">
    <indexes length="4">2 4 </indexes><u64values length="8">9 9 9 9 </u64values>
  </distances2>
  <distances2 type="NUMANode" nbobjs="2" kind="6" name="Measured" indexing="gp">
    <indexes length="4">3 5 </indexes><u64values length="8">90 180 </u64values><u64values>180 90</u64values>
  </distances2>
  <distances2 type="NUMANode" nbobjs="2" kind="5" name="NUMALatency" indexing="os">
    <indexes length="4">2 4 </indexes><u64values length="8">10 17 18 10 </u64values>
  </distances2>
  <memattr name="Capacity" flags="1"><memattr_value target_obj_gp_index="3" value="x"/></memattr>
  <memattr name="ReadBandwidth" flags="5">
    <memattr_value target_obj_type="NUMANode" target_obj_gp_index="3" value="100" initiator_cpuset="0x00000003"/>
    <memattr_value target_obj_type="NUMANode" target_obj_gp_index="99" value="1" initiator_cpuset="0x00000003"/>
  </memattr>
  <memattr name="WriteBandwidth" flags="5">
    <memattr_value target_obj_type="NUMANode" target_obj_gp_index="3" value="50" initiator_obj_gp_index="2" initiator_obj_type="Package"/>
  </memattr>
  <memattr name="Latency" flags="6">
    <memattr_value target_obj_type="NUMANode" target_obj_gp_index="5" value="120" initiator_cpuset="0x0000000f"/>
  </memattr>
</topology>
"#;

    fn machine(text: &str) -> Topology {
        Topology::from_xml_text(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_lstopo_writes_is_a_machine() {
        let machine = machine(MACHINE);
        assert_eq!(machine.reader(), Reader::Xml);
        assert!(!machine.is_this_machine());
        let nodes: Vec<_> = machine
            .nodes()
            .filter_map(|id| machine.node(id))
            .map(|node| (node.id.0, node.cpus.to_string(), node.memory_bytes))
            .collect();
        let expected = [
            (2, "0-1".to_owned(), 8192),
            (4, String::new(), 4096),
            (7, "2-3".to_owned(), 0),
        ];
        assert_eq!(nodes, expected);
        let places: Vec<_> = machine
            .cpus()
            .iter()
            .map(|cpu| (cpu.id.0, cpu.node.0, cpu.package, cpu.core))
            .collect();
        assert_eq!(
            places,
            [(0, 2, 1, 0), (1, 2, 1, 0), (2, 7, 0, 1), (3, 7, 0, 2)]
        );
        let caches: Vec<_> = machine
            .caches()
            .iter()
            .map(|cache| (cache.level, cache.kind, cache.cpus.to_string()))
            .collect();
        let expected = [
            (1, CacheKind::Instruction, "3".to_owned()),
            (3, CacheKind::Unified, "0-1".to_owned()),
        ];
        assert_eq!(caches, expected);
    }

    #[test]
    fn the_kernels_latencies_are_distances_before_any_others() {
        let distance = |text: &str, from, to| machine(text).distance(NodeId(from), NodeId(to));
        assert_eq!(distance(MACHINE, 2, 4), 17);
        assert_eq!(distance(MACHINE, 4, 2), 18);
        assert_eq!(distance(MACHINE, 2, 7), 20);
        let measured_alone = MACHINE.replace("kind=\"5\"", "kind=\"9\"");
        assert_eq!(distance(&measured_alone, 2, 4), 20);
        let measured_alone = MACHINE
            .replace("kind=\"5\"", "kind=\"9\"")
            .replace("180", "270");
        assert_eq!(distance(&measured_alone, 4, 2), 30);
    }

    #[test]
    fn speeds_of_memory_are_those_of_whole_nodes() {
        let machine = machine(MACHINE);
        let access = |from, to| machine.memory_access(NodeId(from), NodeId(to));
        let expected = MemoryAccess {
            bandwidth_mib_s: Some(75),
            latency_ns: None,
        };
        assert_eq!(access(2, 4), Some(expected));
        assert_eq!(access(7, 2).and_then(|access| access.latency_ns), Some(120));
        assert_eq!(access(4, 4), None);
        assert_eq!(access(2, 99), None);
    }

    #[test]
    fn a_file_that_is_no_good_is_refused_with_its_place_and_a_remedy() {
        let nodes = "<object type=\"NUMANode\" os_index=\"0\"/>";
        let many: String = (0..=super::MOST_NODES)
            .map(|id| format!("<object type=\"NUMANode\" os_index=\"{id}\"/>"))
            .collect();
        let attributes: String = (0..300).map(|name| format!(" a{name}=\"\"")).collect();
        let in_topology = |inside: &str| format!("<topology version=\"3.0\">\n{inside}</topology>");
        for (text, place, part) in [
            (String::new(), ":1:1:", "no sound XML"),
            ("reiver".into(), ":1:1:", "no sound XML"),
            ("<svg/>".into(), ":1:1:", "`svg`"),
            ("<topology/>".into(), ":1:1:", "hwloc 1"),
            (
                "<topology version=\"4.0\"/>".into(),
                ":1:1:",
                "version 4.0 ",
            ),
            (in_topology(""), ":1:1:", "no PU"),
            (in_topology("<object>"), ":2:9:", "no sound XML"),
            ("<topology>\n<object>".into(), ":2:9:", "no sound XML"),
            (in_topology("<object type=\"PU\"/>"), ":2:1:", "os_index"),
            (
                in_topology("  <object type=\"PU\" os_index=\"one\"/>"),
                ":2:3:",
                "`one` is no number",
            ),
            (
                in_topology("<object type=\"PU\" os_index=\"1048576\"/>"),
                ":2:1:",
                "PU 1048576",
            ),
            (
                in_topology(&nodes.repeat(2)),
                ":2:39:",
                "NUMANode 0 stands here again",
            ),
            (in_topology(&many), ":2:", "more than 1024 nodes"),
            (
                in_topology("<object type=\"NUMANode\" os_index=\"0\" cpuset=\"0xf...f\"/>"),
                ":2:1:",
                "`0xf...f` is no set for cpuset",
            ),
            (
                in_topology("<object type=\"L2Cache\" depth=\"300\" cache_type=\"0\"/>"),
                ":2:1:",
                "`300`",
            ),
            (
                in_topology("<object type=\"L2Cache\" depth=\"2\"/>"),
                ":2:1:",
                "cache_type",
            ),
            (
                in_topology(&format!("<object{attributes}/>")),
                ":2:2:",
                "256",
            ),
            (
                "<!DOCTYPE topology [<!ENTITY a \"b\">]><topology/>".into(),
                ":1:21:",
                "ENTITY",
            ),
            ("<topology xmlns=\"a\"/>".into(), ":1:11:", "xmlns"),
            (
                MACHINE.replace("10 17 18 10", "10 17 18"),
                ":35:3:",
                "3 dist",
            ),
            (MACHINE.replace("10 17", "10 x"), ":36:", "`x`"),
            (MACHINE.replace(">2 4 <", ">2 5 <"), ":35:3:", "node 5"),
        ] {
            let error = Topology::from_xml_text(&text).expect_err(part).to_string();
            assert!(
                error.starts_with(&format!("the XML text{place}")),
                "{error}"
            );
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_file_is_named_when_it_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = |name: &str, bytes: Option<&[u8]>| {
            let path = folder.path().join(name);
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).expect("a file");
            }
            let error = Topology::from_xml(&path).expect_err(name).to_string();
            assert!(error.contains(name), "{error}");
            error
        };
        assert!(error("missing.xml", None).contains("No such file"));
        assert!(error("bytes.xml", Some(b"<a>\xff")).contains("after 3 bytes"));
        assert!(error("empty.xml", Some(b"")).contains("empty.xml:1:1:"));
        let long = vec![b' '; super::MOST_BYTES + 1];
        assert!(error("long.xml", Some(&long)).contains("longer than 32 MiB"));
    }

    /// Texts that make the most of what readers of XML are known to choke on.
    #[test]
    fn hostile_texts_cost_no_more_than_their_length() {
        let deep = |levels| {
            let (open, close) = ("<object type=\"Core\">", "</object>");
            let pu = "<object type=\"PU\" os_index=\"0\"/>";
            let (open, close) = (open.repeat(levels), close.repeat(levels));
            format!("<topology version=\"2.0\">{open}{pu}{close}</topology>")
        };
        assert_eq!(machine(&deep(200_000)).cpus().len(), 1);
        let flat = "<a/>".repeat(3_000_000);
        let error = Topology::from_xml_text(&format!("<topology>{flat}</topology>"));
        assert!(error.expect_err("too many").to_string().contains("limit"));
        let caches = "<object type=\"L2Cache\" depth=\"2\" cache_type=\"0\" cpuset=\"0xf\"/>";
        let caches = caches.repeat(100_000);
        let pu = "<object type=\"PU\" os_index=\"1048575\"/>";
        let text = format!("<topology version=\"2.0\">{caches}{pu}</topology>");
        assert!(machine(&text).caches().is_empty());
    }

    #[test]
    fn text_cut_anywhere_is_refused_or_read_but_never_panics() {
        for end in (0..MACHINE.len()).filter(|&end| MACHINE.is_char_boundary(end)) {
            let _ = Topology::from_xml_text(&MACHINE[..end]);
        }
        assert!(machine(MACHINE).cpu(CpuId(3)).is_some());
    }

    proptest! {
        #[test]
        fn no_change_of_a_text_panics(at in 0..MACHINE.len(), cut in 0usize..12, new in "[0-9a-fx,<>\"/=&; ]{0,9}") {
            let end = (at + cut).min(MACHINE.len());
            let _ = Topology::from_xml_text(&format!("{}{new}{}", &MACHINE[..at], &MACHINE[end..]));
        }
    }
}

//! The objects of a document of `lstopo`: which there are, and what those around them say of them.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::Document;

use super::values::{cache, elements, number, numbers, os_index, set};
use super::{Element, MOST_CPUS, MOST_NODES, MOST_SPEEDS, REMEDY, Refused, at};
use crate::objects::{Attribute, Matrix, MemoryNode, Objects, Pu, Speed};
use crate::{CpuId, NodeId};

pub(super) fn objects(document: &Document<'_>) -> Result<Objects, Refused> {
    let root = document.root_element();
    if !root.has_tag_name("topology") {
        let name = root.tag_name().name();
        let problem = format!("this is a `{name}`, not the `topology` of lstopo; {REMEDY}");
        return Err(at(root, problem));
    }
    match root.attribute("version") {
        None => {
            let problem = format!("this topology has no version, as hwloc 1 wrote it; {REMEDY}");
            return Err(at(root, problem));
        }
        Some(version) => match version.split('.').next() {
            Some("2" | "3") => {}
            _ => {
                let problem = format!("version {version} of hwloc's XML is not known; {REMEDY}");
                return Err(at(root, problem));
            }
        },
    }
    let mut found = Found::default();
    found.walk(root)?;
    for element in elements(root, "distances2") {
        found.latencies(element)?;
    }
    for element in elements(root, "memattr") {
        found.speeds(element)?;
    }
    if found.objects.pus.is_empty() {
        return Err(at(root, format!("this topology has no PU; {REMEDY}")));
    }
    Ok(found.objects)
}

#[derive(Default)]
struct Found<'d> {
    objects: Objects,
    cores: u32,
    pus: BTreeSet<CpuId>,
    nodes: BTreeSet<NodeId>,
    /// Objects by hwloc's own number, which attributes of memory name them by.
    by_number: BTreeMap<u64, Element<'d>>,
    /// Latencies that the kernel gave stand above others.
    latencies_are_the_kernels: bool,
}

/// What the objects around one say of it.
#[derive(Clone, Copy, Default)]
struct Around {
    package: u32,
    core: Option<u32>,
}

impl<'d> Found<'d> {
    /// Looks at every object, at none twice, however deep.
    fn walk(&mut self, root: Element<'d>) -> Result<(), Refused> {
        let mut open = vec![(root, Around::default())];
        while let Some((element, around)) = open.pop() {
            let around = match element.has_tag_name("object") {
                true => self.object(element, around)?,
                false => around,
            };
            let inside = element.children().rev();
            let inside = inside.filter(|child| child.has_tag_name("object"));
            open.extend(inside.map(|child| (child, around)));
        }
        Ok(())
    }

    fn object(&mut self, object: Element<'d>, mut around: Around) -> Result<Around, Refused> {
        if let Some(number) = number(object, "gp_index")? {
            self.by_number.insert(number, object);
        }
        match object.attribute("type").unwrap_or_default() {
            // Firmware that numbers no packages leaves all of them 0, as in /sys.
            "Package" => around.package = number(object, "os_index")?.unwrap_or(0),
            "Core" => {
                self.cores += 1;
                around.core = Some(self.cores - 1);
            }
            "PU" => self.pu(object, around)?,
            "NUMANode" => self.node(object)?,
            name if name.starts_with('L') => {
                let cache = cache(object, name)?;
                self.objects.caches.extend(cache);
            }
            _ => {}
        }
        Ok(around)
    }

    fn pu(&mut self, object: Element<'d>, around: Around) -> Result<(), Refused> {
        let id = CpuId(os_index(object, "PU")?);
        if !self.pus.insert(id) {
            return Err(at(object, format!("PU {id} stands here again; {REMEDY}")));
        }
        if self.pus.len() > MOST_CPUS {
            return Err(at(object, format!("more than {MOST_CPUS} PUs")));
        }
        let nodes = set(object, "complete_nodeset")?;
        let core = around.core.unwrap_or_else(|| {
            self.cores += 1;
            self.cores - 1
        });
        self.objects.pus.push(Pu {
            id,
            package: around.package,
            core,
            nodes: nodes.unwrap_or_default(),
        });
        Ok(())
    }

    fn node(&mut self, object: Element<'d>) -> Result<(), Refused> {
        let id = NodeId(os_index(object, "NUMANode")?);
        if !self.nodes.insert(id) {
            let problem = format!("NUMANode {id} stands here again; {REMEDY}");
            return Err(at(object, problem));
        }
        if self.nodes.len() > MOST_NODES {
            return Err(at(object, format!("more than {MOST_NODES} nodes")));
        }
        self.objects.nodes.push(MemoryNode {
            id,
            cpus: set(object, "cpuset")?.unwrap_or_default(),
            memory_bytes: number(object, "local_memory")?.unwrap_or(0),
        });
        Ok(())
    }

    /// A matrix between objects of one type.
    fn latencies(&mut self, matrix: Element<'d>) -> Result<(), Refused> {
        /// The bits of its kind.
        const FROM_THE_KERNEL: u64 = 1;
        const OF_LATENCIES: u64 = 4;
        let kind: u64 = number(matrix, "kind")?.unwrap_or(0);
        let is_wanted = matrix.attribute("type") == Some("NUMANode") && kind & OF_LATENCIES != 0;
        let is_the_kernels = kind & FROM_THE_KERNEL != 0;
        let is_better = is_the_kernels && !self.latencies_are_the_kernels;
        if !is_wanted || !(is_better || self.objects.latencies.is_none()) {
            return Ok(());
        }
        let by_number = matrix.attribute("indexing") == Some("gp");
        let mut nodes = Vec::new();
        for index in numbers(matrix, "indexes")? {
            let id = match by_number {
                true => self.node_by_number(index),
                false => u32::try_from(index).ok().map(NodeId),
            };
            let id = id.filter(|id| self.nodes.contains(id)).ok_or_else(|| {
                let problem = format!("these are distances of node {index}, which is not here");
                at(matrix, format!("{problem}; {REMEDY}"))
            })?;
            nodes.push(id);
        }
        let values = numbers(matrix, "u64values")?;
        if nodes.len() > MOST_NODES || values.len() != nodes.len() * nodes.len() {
            let problem = format!(
                "{} distances between {} nodes are not one for each pair; {REMEDY}",
                values.len(),
                nodes.len()
            );
            return Err(at(matrix, problem));
        }
        self.latencies_are_the_kernels = is_the_kernels;
        self.objects.latencies = Some(Matrix { nodes, values });
        Ok(())
    }

    fn node_by_number(&self, number: u64) -> Option<NodeId> {
        let object = self.by_number.get(&number)?;
        let id = object.attribute("os_index")?.parse().ok()?;
        (object.attribute("type") == Some("NUMANode")).then_some(NodeId(id))
    }

    fn speeds(&mut self, attribute: Element<'d>) -> Result<(), Refused> {
        let kind = match attribute.attribute("name").unwrap_or_default() {
            "Bandwidth" => Attribute::Bandwidth,
            "ReadBandwidth" => Attribute::ReadBandwidth,
            "WriteBandwidth" => Attribute::WriteBandwidth,
            "Latency" => Attribute::Latency,
            "ReadLatency" => Attribute::ReadLatency,
            "WriteLatency" => Attribute::WriteLatency,
            _ => return Ok(()),
        };
        for value in elements(attribute, "memattr_value") {
            let target = number(value, "target_obj_gp_index")?;
            let Some(to) = target.and_then(|number| self.node_by_number(number)) else {
                continue;
            };
            let by_object = number(value, "initiator_obj_gp_index")?
                .and_then(|number: u64| self.by_number.get(&number));
            let from = match by_object {
                Some(&object) => set(object, "cpuset")?,
                None => set(value, "initiator_cpuset")?,
            };
            if self.objects.speeds.len() == MOST_SPEEDS {
                let problem = format!("more than {MOST_SPEEDS} values of memory attributes");
                return Err(at(value, problem));
            }
            self.objects.speeds.push(Speed {
                attribute: kind,
                to,
                from: from.unwrap_or_default(),
                value: number(value, "value")?.unwrap_or(0),
            });
        }
        Ok(())
    }
}

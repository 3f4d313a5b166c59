//! What stands in elements and attributes of `lstopo`: numbers, sets and caches.

use std::str::FromStr;

use super::{Element, REMEDY, Refused, at};
use crate::{Cache, CacheKind, CpuSet};

pub(super) fn elements<'d>(
    parent: Element<'d>,
    name: &'static str,
) -> impl Iterator<Item = Element<'d>> {
    let children = parent.children();
    children.filter(move |child| child.has_tag_name(name))
}

/// `None` for what begins as a cache does, and is none.
pub(super) fn cache(object: Element<'_>, name: &str) -> Result<Option<Cache>, Refused> {
    if !name.ends_with("Cache") {
        return Ok(None);
    }
    let level = number(object, "depth")?;
    let kind = match object.attribute("cache_type") {
        Some("0") => Some(CacheKind::Unified),
        Some("1") => Some(CacheKind::Data),
        Some("2") => Some(CacheKind::Instruction),
        _ => None,
    };
    let (Some(level), Some(kind)) = (level, kind) else {
        let problem = format!("this {name} says no depth, or no cache_type of 0, 1 or 2; {REMEDY}");
        return Err(at(object, problem));
    };
    Ok(Some(Cache {
        level,
        kind,
        size_bytes: number(object, "cache_size")?.unwrap_or(0),
        cpus: set(object, "cpuset")?.unwrap_or_default(),
    }))
}

/// The operating system's number, within what a set can hold.
pub(super) fn os_index(object: Element<'_>, name: &str) -> Result<u32, Refused> {
    match number(object, "os_index")? {
        Some(index) if index <= CpuSet::LARGEST.0 => Ok(index),
        Some(index) => Err(at(object, format!("no machine has a {name} {index}"))),
        None => Err(at(object, format!("this {name} has no os_index; {REMEDY}"))),
    }
}

pub(super) fn number<N: FromStr>(element: Element<'_>, name: &str) -> Result<Option<N>, Refused> {
    let Some(text) = element.attribute(name) else {
        return Ok(None);
    };
    let number = text.parse();
    let number = number.map_err(|_| {
        let problem = format!("`{}` is no number for {name}; {REMEDY}", short(text));
        at(element, problem)
    });
    number.map(Some)
}

/// The numbers in all children of a name.
pub(super) fn numbers(parent: Element<'_>, name: &'static str) -> Result<Vec<u64>, Refused> {
    let mut numbers = Vec::new();
    for child in elements(parent, name) {
        for word in child.text().unwrap_or_default().split_whitespace() {
            let number = word.parse();
            let problem = || format!("`{}` is no number for {name}; {REMEDY}", short(word));
            numbers.push(number.map_err(|_| at(child, problem()))?);
        }
    }
    Ok(numbers)
}

/// A set of CPUs or of nodes: `0x0000ffff,,0xffffffff`, 32 bits a word, the highest first, an empty
/// word for none.
pub(super) fn set(element: Element<'_>, name: &str) -> Result<Option<CpuSet>, Refused> {
    let Some(text) = element.attribute(name) else {
        return Ok(None);
    };
    let set = CpuSet::from_hwloc_str(text);
    let set = set.map_err(|_| {
        let problem = format!("`{}` is no set for {name}; {REMEDY}", short(text));
        at(element, problem)
    });
    set.map(Some)
}

/// So much of what was written as fits into a message.
fn short(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

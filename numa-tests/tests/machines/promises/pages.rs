//! Memory whose every page is looked at, in the kernel's own words: `/proc/self/numa_maps` needs no
//! permission, and is not what the engine itself asks.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ptr;

use reiver::NodeId;

/// Pages of 4 KiB, fresh from the kernel.
#[derive(Debug)]
pub(super) struct Pages {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: it owns the memory, which any thread may use.
unsafe impl Send for Pages {}

pub(super) const PAGE: usize = 4096;
pub(super) const MIB: usize = 1 << 20;

impl Pages {
    /// Memory that nobody has touched yet.
    pub(super) fn new(bytes: usize) -> Pages {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // Of a guard on both sides, for neighbours become one mapping.
        let whole = bytes + 2 * PAGE;
        // SAFETY: asks for memory wherever there is room.
        let start = unsafe { libc::mmap(ptr::null_mut(), whole, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        let start = start.cast::<u8>().wrapping_add(PAGE);
        // SAFETY: it is within what was just mapped.
        let opened = unsafe { libc::mprotect(start.cast(), bytes, access) };
        assert_eq!(opened, 0, "{}", io::Error::last_os_error());
        // Huge pages are counted and placed as one.
        // SAFETY: as above.
        unsafe { libc::madvise(start.cast(), bytes, libc::MADV_NOHUGEPAGE) };
        Pages { start, bytes }
    }

    /// Touches every page.
    pub(super) fn touched(self) -> Pages {
        for at in (0..self.bytes).step_by(PAGE) {
            // SAFETY: within the memory, which nobody else has.
            unsafe { self.start.wrapping_add(at).write_volatile(1) };
        }
        self
    }

    /// Its bytes; of pages that were not touched this touches none.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: fresh memory is zeros, and it is not written while it is borrowed.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }

    /// On which nodes its pages lie, with how many on each.
    pub(super) fn nodes(&self) -> BTreeMap<NodeId, usize> {
        nodes_of_mapping(self.start.addr())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let whole = self.start.wrapping_sub(PAGE);
        // SAFETY: it was mapped so, and nobody has it any more.
        unsafe { libc::munmap(whole.cast(), self.bytes + 2 * PAGE) };
    }
}

/// On which nodes the touched pages of the mapping around an address lie, with how many on each.
pub(super) fn nodes_of_mapping(address: usize) -> BTreeMap<NodeId, usize> {
    let start = start_of_mapping(address);
    let maps = fs::read_to_string("/proc/self/numa_maps").expect("/proc/self/numa_maps");
    let line = maps.lines().find(|line| {
        let begins = line
            .split(' ')
            .next()
            .map(|at| usize::from_str_radix(at, 16));
        begins == Some(Ok(start))
    });
    // A word like N1=25 for each node.
    let words = line.expect("a line for each mapping").split(' ');
    words
        .filter_map(|word| {
            let (node, pages) = word.strip_prefix('N')?.split_once('=')?;
            Some((NodeId(node.parse().ok()?), pages.parse().ok()?))
        })
        .collect()
}

fn start_of_mapping(address: usize) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    let ranges = maps.lines().filter_map(|line| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16).ok());
        Some(start?..end?)
    });
    let mut around = ranges.filter(|range| range.contains(&address));
    around.next().expect("the address is mapped").start
}

/// Says to the allocator what it would decide by itself.
pub(crate) fn tell_allocator(what: libc::c_int, how: libc::c_int) {
    // SAFETY: numbers, for the allocations to come.
    assert_eq!(unsafe { libc::mallopt(what, how) }, 1);
}

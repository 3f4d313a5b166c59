//! The system calls about places, each as a safe function; glibc wraps few of them.

use std::ffi::{c_int, c_long, c_ulong, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::NonNull;

use crate::place::MemoryMode;
use crate::{CpuSet, NodeId};

/// Node masks of 1,024 bits: what distributions' kernels are built for.
const NODE_WORDS: usize = 16;
type NodeMask = [c_ulong; NODE_WORDS];

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The affinity mask of the current thread, on machines of any size: glibc's `cpu_set_t` ends at
/// 1,024 CPUs, so the buffer grows until the kernel's mask fits.
pub(crate) fn affinity() -> io::Result<CpuSet> {
    let mut words = vec![0u64; 16];
    loop {
        let bytes = size_of_val(words.as_slice());
        // SAFETY: the kernel writes at most `bytes` bytes to `words`, which has that many and is
        // borrowed by nobody else.
        let result = unsafe {
            libc::syscall(
                libc::SYS_sched_getaffinity,
                0,
                bytes,
                words.as_mut_ptr().cast::<c_void>(),
            )
        };
        match checked(result) {
            Ok(_) => return Ok(CpuSet::from_words(words)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && words.len() < 4096 => {
                words = vec![0; words.len() * 2];
            }
            Err(error) => return Err(error),
        }
    }
}

/// Confines the current thread to `cpus`.
pub(crate) fn set_affinity(cpus: &CpuSet) -> io::Result<()> {
    let words = cpus.words();
    // SAFETY: the kernel reads at most the given number of bytes from `words`, which has that many.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            0,
            size_of_val(words),
            words.as_ptr().cast::<c_void>(),
        )
    };
    checked(result).map(drop)
}

/// Memory that the current thread touches first comes from `node` while it has some, else from its
/// neighbours; `None` is the system's default.
pub(crate) fn set_preferred_node(node: Option<NodeId>) -> io::Result<()> {
    let (mode, mask) = match node {
        None => (libc::MPOL_DEFAULT, [0; NODE_WORDS]),
        Some(node) => (libc::MPOL_PREFERRED, mask_of(node)?),
    };
    // One more than the bits: the kernel takes one off.
    let bits = NODE_WORDS * 64 + 1;
    let mask = if node.is_some() {
        mask.as_ptr()
    } else {
        std::ptr::null()
    };
    // SAFETY: the kernel reads at most `bits - 1` bits from `mask`, which has that many, and
    // nothing where it is null.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    checked(result).map(drop)
}

/// A policy as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    mode: c_int,
    mask: NodeMask,
}

/// Of the current thread.
pub(crate) fn memory_policy() -> io::Result<MemoryPolicy> {
    let mut policy = MemoryPolicy {
        mode: 0,
        mask: [0; NODE_WORDS],
    };
    // SAFETY: the kernel writes a number to `mode` and at most as many bits to `mask` as it has; no
    // address is asked about.
    let result = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut policy.mode,
            policy.mask.as_mut_ptr(),
            NODE_WORDS * 64 + 1,
            std::ptr::null::<c_void>(),
            0,
        )
    };
    checked(result).map(|_| policy)
}

/// Of the current thread, as it was told before.
pub(crate) fn restore_memory_policy(policy: &MemoryPolicy) -> io::Result<()> {
    let is_empty = policy.mask.iter().all(|&word| word == 0);
    let (mask, bits) = match is_empty {
        true => (std::ptr::null(), 0),
        false => (policy.mask.as_ptr(), NODE_WORDS * 64 + 1),
    };
    // SAFETY: the kernel reads at most `bits - 1` bits from `mask`, which has that many, and nothing
    // where it is null.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, policy.mode, mask, bits) };
    checked(result).map(drop)
}

/// Of the current thread.
pub(crate) fn set_memory_policy(mode: MemoryMode, nodes: &[NodeId]) -> io::Result<()> {
    /// Several nodes, since Linux 5.15; libc does not name it.
    const MPOL_PREFERRED_MANY: c_int = 5;
    let set = |mode: c_int, nodes: &[NodeId]| {
        let mut mask: NodeMask = [0; NODE_WORDS];
        for &node in nodes {
            for (word, more) in mask.iter_mut().zip(mask_of(node)?) {
                *word |= more;
            }
        }
        restore_memory_policy(&MemoryPolicy { mode, mask })
    };
    match (mode, nodes) {
        (MemoryMode::Local, _) => set(libc::MPOL_LOCAL, &[]),
        (_, []) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        (MemoryMode::Bind, nodes) => set(libc::MPOL_BIND, nodes),
        (MemoryMode::Interleave, nodes) => set(libc::MPOL_INTERLEAVE, nodes),
        (MemoryMode::Preferred, [node]) => set(libc::MPOL_PREFERRED, &[*node]),
        (MemoryMode::Preferred, nodes) => match set(MPOL_PREFERRED_MANY, nodes) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                set(libc::MPOL_PREFERRED, &nodes[..1])
            }
            result => result,
        },
    }
}

/// Where each page lies: a node, or a negative error number (a page that was never touched).
pub(crate) fn nodes_of_pages(pages: &[*const u8]) -> io::Result<Vec<c_int>> {
    let mut status = vec![c_int::MIN; pages.len()];
    // SAFETY: with no list of target nodes the kernel moves nothing: it reads `pages.len()`
    // addresses, never what they point to, and writes as many entries of `status`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            std::ptr::null::<c_int>(),
            status.as_mut_ptr(),
            0,
        )
    };
    checked(result).map(|_| status)
}

/// Moves pages of this process to a node, those that were touched and may be moved; what has become
/// of each is left unsaid. Gives how many the kernel says it could not move.
pub(crate) fn move_pages(pages: &[*const u8], node: NodeId) -> io::Result<usize> {
    /// Pages that this process has alone; libc does not name it.
    const MPOL_MF_MOVE: c_int = 1 << 1;
    let node = c_int::try_from(node.0).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let nodes = vec![node; pages.len()];
    let mut status = vec![c_int::MIN; pages.len()];
    // SAFETY: the kernel reads `pages.len()` addresses, never what they point to, and as many entries
    // of `nodes`, and writes as many of `status`; the content of a page stays what it is.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            nodes.as_ptr(),
            status.as_mut_ptr(),
            MPOL_MF_MOVE,
        )
    };
    checked(result).map(|left| usize::try_from(left).unwrap_or(0))
}

/// Splits the huge page that a page is a part of, if it is: that part of one is not used any more is a
/// hint on which the kernel splits it, and which costs no more than that. Where it refuses, pages move
/// together with those around them.
pub(crate) fn split_huge_page_at(page: *const u8) {
    // SAFETY: a hint, which changes neither the content of pages nor whether they may be used.
    unsafe { libc::madvise(page.cast_mut().cast(), 1, libc::MADV_COLD) };
}

/// Where the used part of the current thread's stack begins and ends. Of the main thread this reads a
/// file.
pub(crate) fn used_stack() -> io::Result<Range<*const u8>> {
    let here = 0_u8;
    let start = std::hint::black_box(&raw const here);
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: asks for nothing but a number.
    let own = unsafe { libc::pthread_self() };
    // SAFETY: there is room for the attributes.
    let result = unsafe { libc::pthread_getattr_np(own, attributes.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    let (mut lowest, mut bytes) = (std::ptr::null_mut::<c_void>(), 0);
    // SAFETY: they were written, and there is room for what is asked.
    unsafe {
        libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut bytes);
    }
    // SAFETY: they were written, and are not used any more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    Ok(start..lowest.cast_const().cast::<u8>().wrapping_add(bytes))
}

/// Bytes of a page.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

/// Fresh pages of zeros, whose first byte has an address that `align` divides; both are multiples of
/// a page, `align` a power of two.
pub(crate) fn map(bytes: usize, align: usize) -> io::Result<NonNull<u8>> {
    let page = page_bytes();
    // Whatever lies before the first such address, and behind the last byte, is given back.
    let slack = if align > page { align } else { 0 };
    let whole = bytes.checked_add(slack);
    let whole = whole.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: asks for memory wherever there is room, which takes it from nobody.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), whole, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = start.cast::<u8>();
    let before = start.addr().next_multiple_of(align) - start.addr();
    let first = start.wrapping_add(before);
    if slack > 0 {
        let behind = slack - before;
        if before > 0 {
            // SAFETY: the first pages of what was just mapped, which nobody has.
            unsafe { unmap(start, before) };
        }
        if behind > 0 {
            // SAFETY: the last pages of it, likewise.
            unsafe { unmap(first.wrapping_add(bytes), behind) };
        }
    }
    NonNull::new(first).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

/// Gives pages back.
///
/// # Safety
/// They were mapped by [`map`], and nobody uses them any more.
pub(crate) unsafe fn unmap(start: *mut u8, bytes: usize) {
    // SAFETY: as the caller says. It fails where the system has no room to note a hole between
    // pages that stay, and then these stay too.
    unsafe { libc::munmap(start.cast(), bytes) };
}

/// Pages that are touched first from now on come from `node` while it has some, else from its
/// neighbours.
///
/// # Safety
/// They are the caller's own mapping.
pub(crate) unsafe fn prefer_for_pages(
    start: *mut u8,
    bytes: usize,
    node: NodeId,
) -> io::Result<()> {
    let mask = mask_of(node)?;
    // SAFETY: the kernel reads as many bits as the mask has; whatever lies in the pages stays as it is.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            start,
            bytes,
            libc::MPOL_PREFERRED,
            mask.as_ptr(),
            NODE_WORDS * 64 + 1,
            0,
        )
    };
    checked(result).map(drop)
}

fn mask_of(NodeId(id): NodeId) -> io::Result<NodeMask> {
    let mut mask: NodeMask = [0; NODE_WORDS];
    let word = mask.get_mut(id as usize / 64);
    *word.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))? |= 1 << (id % 64);
    Ok(mask)
}

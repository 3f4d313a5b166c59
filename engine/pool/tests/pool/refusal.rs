//! A filter for system calls, as containers have them.

/// Has the kernel say of `membarrier` that there is none, to all threads; false where no filter may be set.
pub(crate) fn refuse_the_barrier() -> bool {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the numbers of system calls and errors"
    )]
    let filter = {
        use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
        let step = |code: u32, jt, k| libc::sock_filter {
            code: code as u16,
            jt,
            jf: 0,
            k,
        };
        [
            step(BPF_LD | BPF_W | BPF_ABS, 0, 0),
            step(BPF_JMP | BPF_JEQ | BPF_K, 1, libc::SYS_membarrier as u32),
            step(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW),
            step(
                BPF_RET | BPF_K,
                0,
                libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
            ),
        ]
    };
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: numbers alone.
    let limited = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program is read, and is there.
    let set = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    limited == 0 && set == 0
}

//! The kernel refuses its barrier after it has promised it: a filter for system calls comes late.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use reiver_pool::Pool;
use reiver_topology::Topology;

#[path = "pool/watchdog.rs"]
mod watchdog;

/// Has the kernel say of `membarrier` that there is none, to all threads; false where no filter may be set.
fn refuse_the_barrier() -> bool {
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

/// Knows whether somebody uses it.
#[derive(Default)]
struct Thing(AtomicBool);

#[test]
fn objects_have_one_user_when_the_barrier_is_refused_late() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 20_000;
    watchdog::watched();
    let pool = Pool::builder(Thing::default)
        .capacity_per_node(THREADS - 1)
        .topology(Topology::synthetic("PU:1").unwrap())
        .build();
    let refused = AtomicBool::new(false);
    let (half, done) = (Barrier::new(THREADS), AtomicUsize::new(0));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (pool, half, done, refused) = (&pool, &half, &done, &refused);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    if round == ROUNDS / 2 {
                        half.wait();
                        // The others go on, and rob each other, as the filter comes.
                        if number == 0 {
                            refused.store(refuse_the_barrier(), Ordering::SeqCst);
                        }
                    }
                    let thing = match round % 3 {
                        0 => pool.get(),
                        _ => match pool.try_get() {
                            Ok(thing) => thing,
                            Err(_) => continue,
                        },
                    };
                    assert!(!thing.0.swap(true, Ordering::Relaxed), "two have it");
                    std::hint::spin_loop();
                    assert!(thing.0.swap(false, Ordering::Relaxed), "two had it");
                    drop(thing);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(done.into_inner() > 0);
    let all: Vec<_> = (1..THREADS)
        .map(|_| pool.try_get().expect("nothing is in use"))
        .collect();
    assert!(pool.try_get().is_err());
    drop(all);
    pool.trim();
    assert_eq!(pool.stats().cached, 0);
    if !refused.into_inner() {
        println!("skipped in part: no filter for system calls may be set here");
    }
}

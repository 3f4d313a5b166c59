//! Buffers of every length.

use reiver_pool::BufferPool;

#[test]
fn a_buffer_has_the_length_that_was_asked_for() {
    let pool = BufferPool::new();
    for len in [
        0,
        1,
        4095,
        4096,
        4097,
        8192,
        100_000,
        1 << 20,
        (1 << 20) + 1,
        5 << 20,
    ] {
        let mut buffers: Vec<_> = (0..3).map(|_| pool.get(len)).collect();
        for (number, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.len(), len);
            assert!(buffer.capacity() >= len);
            buffer.fill(u8::try_from(number).unwrap());
        }
        for (number, buffer) in buffers.iter().enumerate() {
            assert!(buffer.iter().all(|&byte| usize::from(byte) == number));
        }
    }
}

#[test]
fn a_buffer_is_used_again_by_who_asks_for_its_class() {
    let pool = BufferPool::new();
    let first = pool.get(5000).as_ptr();
    assert_eq!(pool.get(8192).as_ptr(), first);
    assert_ne!(pool.get(4096).as_ptr(), first);
    let stats = pool.stats();
    assert_eq!((stats.created, stats.cached, stats.outstanding), (2, 2, 0));
    pool.trim();
    assert_eq!(pool.stats().cached, 0);
}

#[test]
fn buffers_go_to_other_threads_and_come_back() {
    let pool = BufferPool::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let buffer = pool.get(10_000);
            scope.spawn(move || drop(buffer));
        }
    });
    assert_eq!(pool.stats().outstanding, 0);
}

#[test]
fn a_length_that_no_memory_has_is_refused_as_a_vectors_is() {
    let pool = BufferPool::new();
    let refused = std::panic::catch_unwind(|| drop(pool.get(usize::MAX)));
    assert!(refused.is_err());
}

//! The chunks of an arena in every interleaving: one is used again, or freed, when all that was taken
//! from it has been given back and nobody touches it any more; and each is freed once.
//!
//! Loom watches the allocations, so what is freed twice or never fails a model; and a cell in each
//! chunk, read by whoever gives a block back and written by whoever frees the chunk or begins it anew.
//! Two blocks fill a chunk here.
#![cfg(reiver_loom)]

use std::ptr::NonNull;

use loom::thread::{self, JoinHandle};
use reiver::model::{Arena, fails_without};

type Block = [u64; 16];

#[derive(Clone, Copy)]
struct Pointer(NonNull<Block>);

// SAFETY: a block goes to one thread.
unsafe impl Send for Pointer {}

impl Pointer {
    fn taken_from(arena: &Arena, value: u64) -> Pointer {
        Pointer(arena.take([value; 16]))
    }

    fn give_back(self, to: &Arena) -> u64 {
        // SAFETY: it came from an arena as such, and is given back once.
        let block = unsafe { to.give_back(self.0) };
        block[15]
    }
}

/// Another worker, which runs what was spawned and is idle then.
fn given_back_elsewhere(blocks: Vec<Pointer>) -> JoinHandle<()> {
    thread::spawn(move || {
        let arena = Arena::new();
        for block in blocks {
            assert!(block.give_back(&arena) < 2);
        }
        arena.count_foreign();
    })
}

fn a_full_chunk_beside_who_gives_it_back() {
    loom::model(|| {
        let arena = Box::new(Arena::new());
        let blocks = [0, 1].map(|at| Pointer::taken_from(&arena, at));
        let [first, second] = blocks.map(|block| block.0.addr().get());
        assert_eq!(second, first + size_of::<Block>(), "two fill a chunk");
        let other = given_back_elsewhere(blocks.to_vec());
        let third = Pointer::taken_from(&arena, 2);
        assert_eq!(third.give_back(&arena), 2);
        other.join().unwrap();
    });
}

/// The owner asks for more while another thread gives back all that there was.
#[test]
fn a_chunk_is_used_again_only_when_all_of_it_is_back() {
    a_full_chunk_beside_who_gives_it_back();
}

#[test]
fn what_owner_and_others_give_back_is_counted_together() {
    loom::model(|| {
        let arena = Box::new(Arena::new());
        let blocks = [0, 1].map(|at| Pointer::taken_from(&arena, at));
        let other = given_back_elsewhere(vec![blocks[0]]);
        assert_eq!(blocks[1].give_back(&arena), 1);
        let third = Pointer::taken_from(&arena, 2);
        assert_eq!(third.give_back(&arena), 2);
        other.join().unwrap();
    });
}

fn an_orphan() {
    loom::model(|| {
        let arena = Box::new(Arena::new());
        let [own, block] = [1, 0].map(|value| Pointer::taken_from(&arena, value));
        let other = given_back_elsewhere(vec![block]);
        assert_eq!(own.give_back(&arena), 1);
        drop(arena);
        other.join().unwrap();
    });
}

/// The arena goes while another thread gives its last block back: one of the two frees the chunk.
#[test]
fn a_chunk_whose_arena_is_gone_is_freed_once() {
    an_orphan();
}

fn an_orphan_of_two() {
    loom::model(|| {
        let arena = Box::new(Arena::new());
        let blocks = [0, 0].map(|value| Pointer::taken_from(&arena, value));
        let others = blocks.map(|block| given_back_elsewhere(vec![block]));
        drop(arena);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// Who frees it has seen the others go.
#[test]
fn an_orphan_that_two_give_back_is_freed_by_the_last() {
    an_orphan_of_two();
}

/// The owner of the chunk frees memory while another thread has a block of it.
#[test]
fn a_trim_leaves_what_is_still_used() {
    loom::model(|| {
        let arena = Box::new(Arena::new());
        let blocks = (0..2).map(|at| Pointer::taken_from(&arena, at)).collect();
        let third = Pointer::taken_from(&arena, 2);
        let other = given_back_elsewhere(blocks);
        arena.trim();
        assert_eq!(third.give_back(&arena), 2);
        other.join().unwrap();
    });
}

/// An arena leaves a chunk that it has used up while others, and it itself, give back of it.
#[test]
fn a_chunk_that_is_left_is_freed_once() {
    loom::model(|| {
        let arena = Arena::leaving();
        let blocks = [1, 0].map(|value| Pointer::taken_from(&arena, value));
        let other = given_back_elsewhere(vec![blocks[1]]);
        let third = Pointer::taken_from(&arena, 3);
        assert_eq!(blocks[0].give_back(&arena), 1);
        assert_eq!(third.give_back(&arena), 3);
        drop(arena);
        other.join().unwrap();
    });
}

#[test]
fn who_gives_back_has_to_release() {
    fails_without("arena count release", a_full_chunk_beside_who_gives_it_back);
}

#[test]
fn who_gives_the_last_block_of_an_orphan_back_has_to_acquire() {
    fails_without("arena count acquire", an_orphan_of_two);
}

#[test]
fn who_uses_a_chunk_again_has_to_acquire() {
    fails_without("arena is free", a_full_chunk_beside_who_gives_it_back);
}

#[test]
fn who_leaves_an_orphan_has_to_release() {
    fails_without("arena orphan release", an_orphan);
}

#[test]
fn who_frees_what_it_might_have_left_has_to_acquire() {
    fails_without("arena orphan acquire", an_orphan);
}

use std::sync::mpsc::Receiver;

use proptest::prelude::*;

use super::*;

/// Slots as a coordinator counts them, without jobs behind them.
#[derive(Debug, Default)]
struct Counted {
    free: u32,
    /// What each cpu job that runs holds.
    running: Vec<u32>,
    /// What the job needs that is next.
    next: Option<u32>,
    io_jobs: u32,
}

impl Counted {
    fn start_next(&mut self) {
        if let Some(slots) = self.next.take_if(|slots| *slots <= self.free) {
            self.free -= slots;
            self.running.push(slots);
        }
    }
}

impl Slots for Counted {
    fn idle_cpus(&self) -> u32 {
        self.next.map_or(self.free, |_| 0)
    }

    fn wanted_cpus(&self) -> u32 {
        self.next.unwrap_or(0).saturating_sub(self.free)
    }

    fn free_cpus(&self) -> u32 {
        self.free
    }

    fn runs_others(&self) -> bool {
        self.io_jobs > 0
    }

    fn add_cpus(&mut self, slots: u32) {
        self.free += slots;
    }

    fn remove_cpus(&mut self, slots: u32) {
        self.free -= slots;
    }
}

/// A server, jobs, and the makes in them, which share its pipe.
struct World {
    tokens: Tokens,
    _messages: Receiver<Message>,
    slots: Counted,
    limit: u32,
    pipe: u32,
    /// Of makes in cpu jobs and in io jobs; those of killed ones are nowhere.
    held: [u32; 2],
}

impl World {
    fn new(limit: u32) -> World {
        let (sender, messages) = channel();
        let client = Client::new(0).expect("a pipe");
        let (mut tokens, _) = Tokens::of(client, true, limit, sender).expect("its ends");
        let mut slots = Counted {
            free: limit,
            ..Counted::default()
        };
        tokens.begin(&mut slots);
        let mut world = World {
            tokens,
            _messages: messages,
            slots,
            limit,
            pipe: 0,
            held: [0; 2],
        };
        world.settle();
        world
    }

    /// What the coordinating thread does whenever it has heard something.
    fn settle(&mut self) {
        self.slots.start_next();
        while self.tokens.balance(&mut self.slots) {
            self.slots.start_next();
        }
        self.pipe = self.in_pipe();
    }

    fn in_pipe(&self) -> u32 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the kernel writes one number.
        unsafe {
            libc::ioctl(
                self.tokens.reader.as_raw_fd(),
                libc::FIONREAD,
                &raw mut bytes,
            )
        };
        u32::try_from(bytes).expect("a number of bytes")
    }

    fn runs(&self, kind: usize) -> bool {
        [!self.slots.running.is_empty(), self.slots.io_jobs > 0][kind]
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Want(slots) => self.slots.next = Some(slots.min(self.limit)),
            Act::End => {
                if let Some(slots) = self.slots.running.pop() {
                    self.slots.free += slots;
                }
            }
            Act::StartIo => self.slots.io_jobs += 1,
            Act::EndIo => self.slots.io_jobs = self.slots.io_jobs.saturating_sub(1),
            Act::Take(kind) => {
                let mut token = [0];
                if self.runs(kind) && (&self.tokens.reader).read(&mut token).is_ok() {
                    self.held[kind] += 1;
                }
            }
            Act::Return(kind) => {
                if self.held[kind] > 0 {
                    (&self.tokens.writer)
                        .write_all(b"+")
                        .expect("there is room");
                    self.held[kind] -= 1;
                }
            }
        }
        // What runs no more was killed with what it held.
        for kind in 0..2 {
            if !self.runs(kind) {
                self.held[kind] = 0;
            }
        }
        self.settle();
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    /// A cpu job is next that needs so many slots.
    Want(u32),
    End,
    StartIo,
    EndIo,
    /// A make in a cpu job, or in an io job, takes a token.
    Take(usize),
    Return(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (1..5_u32).prop_map(Act::Want),
        2 => Just(Act::End),
        1 => Just(Act::StartIo),
        1 => Just(Act::EndIo),
        3 => (0..2_usize).prop_map(Act::Take),
        2 => (0..2_usize).prop_map(Act::Return),
    ]
}

proptest! {
    #[test]
    fn tokens_never_multiply_and_what_was_lost_comes_back(
        limit in 1..5_u32,
        acts in proptest::collection::vec(act(), 1..80),
    ) {
        let mut world = World::new(limit);
        for act in acts {
            world.act(act);
            let (slots, tokens) = (&world.slots, &world.tokens);
            let here = slots.free + slots.running.iter().sum::<u32>();
            prop_assert_eq!(here + tokens.outside, limit, "a slot is here or elsewhere");
            let lent = world.pipe + world.held.iter().sum::<u32>();
            prop_assert!(lent <= limit, "{} tokens of {}", lent, limit);
            prop_assert!(lent <= tokens.outside + tokens.overdraft);
            prop_assert!(slots.next.is_none() || slots.running.len() + slots.io_jobs as usize > 0,
                "it waits for nobody");
        }
        // All ends, and then one job has the machine to itself.
        world.slots.next = None;
        while world.runs(0) {
            world.act(Act::End);
        }
        while world.runs(1) {
            world.act(Act::EndIo);
        }
        world.act(Act::Want(limit));
        prop_assert_eq!(&world.slots.running, &[limit]);
        world.act(Act::End);
        prop_assert_eq!(world.pipe, limit, "all can be lent again");
    }
}

/// The two that a run has met.
#[test]
fn what_an_io_jobs_make_holds_is_lent_once_and_what_a_killed_one_held_again() {
    let mut world = World::new(3);
    world.act(Act::StartIo);
    for act in [Act::Take(1), Act::Take(1), Act::Want(3), Act::End] {
        world.act(act);
    }
    assert_eq!((world.pipe, world.held[1]), (1, 2));
    world.act(Act::EndIo);
    assert_eq!((world.pipe, world.held[1]), (1, 0), "it was killed");
    for act in [Act::Want(3), Act::End] {
        world.act(act);
    }
    assert_eq!(world.pipe, 3);
}

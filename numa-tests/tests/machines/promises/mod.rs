//! What is promised about nodes.
//!
//! A promise is a function that panics if it is broken. It finds out by the kernel's own words where
//! threads run and memory lies, never by the engine's alone; [`Ground`] is what it stands on, [`pages`]
//! is memory to look at. What it measures it prints, for the reports of those who have such a machine.

mod background;
mod clock;
mod command;
mod faults;
mod ground;
mod loads;
mod machine;
mod memory;
mod pages;
mod pools;
mod workers;

pub(crate) use ground::{Ground, Site};
pub(crate) use pages::tell_allocator;

/// Something that is promised.
#[derive(Debug)]
pub(crate) struct Promise {
    pub(crate) name: &'static str,
    needs: &'static [Need],
    pub(crate) hold: fn(&Ground),
}

/// What a promise cannot be held without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// So many nodes that have workers.
    Nodes(usize),
    /// One node with workers and no other: nodes make no difference, so it is held where there are none.
    OneNode,
    /// So many nodes that have memory.
    Memories(usize),
    /// The kernel places memory, and says where it lies.
    Placement,
    /// The kernel refuses both.
    NoPlacement,
    /// A machine of one's own, about which everything is known, and which may be spoilt.
    OwnMachine,
    /// To be root on such a machine.
    Root,
}

/// Room, name, needs.
macro_rules! promises {
    ($($room:ident::$name:ident $([$($need:expr),*])?;)*) => {
        /// All promises, in the order in which they are held: what spoils a machine comes last.
        pub(crate) const PROMISES: &[Promise] = &[$(Promise {
            name: stringify!($name),
            needs: &[$($($need),*)?],
            hold: $room::$name,
        }),*];
    };
}

use Need::{Memories, NoPlacement, Nodes, OneNode, OwnMachine, Placement, Root};

promises! {
    machine::it_is_what_it_was_told_to_be [OwnMachine];
    machine::every_cpu_is_where_the_kernel_says;
    machine::nothing_is_warned_of_where_all_works [Placement];
    machine::what_is_refused_is_said_once [NoPlacement];
    machine::hwloc_sees_the_same;
    command::topology_shows_the_machine;
    command::jobs_may_use_all_that_reiver_may;
    command::jobs_and_their_pages_are_where_they_ask [Placement, Nodes(2), Memories(2)];
    command::jobs_have_cpus_of_their_own;
    command::memory_that_a_job_states_is_its_limit [OwnMachine];
    command::promises_can_be_held_here [Root, Placement, Nodes(2), Memories(2)];
    workers::there_are_as_many_as_the_machine_grants;
    workers::they_stay_on_their_node;
    workers::a_quota_confines_them_and_is_counted;
    workers::pinned_to_cores_each_has_its_own;
    workers::threads_that_block_are_at_their_node;
    workers::urgent_and_background_workers_are_at_their_node;
    workers::their_stacks_lie_on_their_node [Placement, Nodes(2)];
    memory::where_it_lies_is_known [Placement];
    memory::what_a_worker_touches_lies_on_its_node;
    memory::a_numa_vec_lies_on_its_nodes [Placement, Nodes(2)];
    memory::the_kernels_counters_agree [Nodes(2), Memories(2)];
    loads::results_are_right;
    loads::jobs_for_a_node_run_there;
    loads::jobs_near_data_run_there [Placement, Nodes(2), Memories(2)];
    loads::a_balanced_load_is_local [Placement, Nodes(2)];
    loads::nobody_leaves_a_node_that_has_jobs [Placement, Nodes(2), Memories(2)];
    loads::a_dry_node_is_helped_and_each_steal_counted [Placement, Nodes(2)];
    loads::the_nearest_is_helped_first [Placement, Nodes(3)];
    pools::objects_lie_on_their_node [Placement];
    pools::objects_cross_nodes_and_come_home [Placement, Nodes(2)];
    pools::a_dead_node_strands_nothing;
    faults::the_cpuset_shrinks_under_an_engine [OwnMachine];
    faults::a_full_node_spills [Root, Placement, Memories(2)];
    faults::cpus_go_offline_under_an_engine [Root];
    clock::a_clock_that_is_set_moves_no_limit_and_no_duration [Root, OneNode];
    clock::a_clock_that_was_set_disturbs_no_resume [Root, OneNode];
    background::the_background_gets_a_twentieth_at_most [Root, OneNode];
    background::it_does_so_where_the_kernel_groups_by_session [Root, OneNode];
}

/// The promise of this name.
pub(crate) fn find(name: &str) -> Option<&'static Promise> {
    PROMISES.iter().find(|promise| promise.name == name)
}

impl Promise {
    /// What it needs and a site lacks.
    pub(crate) fn lacks(&self, site: &Site) -> Option<String> {
        let lack = |need: &Need| match need {
            Nodes(count) if site.worker_nodes < *count => {
                Some(format!("there are fewer than {count} nodes with workers"))
            }
            OneNode if site.worker_nodes != 1 => {
                Some("nodes make no difference to it, and here are some".to_owned())
            }
            Memories(count) if site.memory_nodes < *count => {
                Some(format!("there are fewer than {count} nodes with memory"))
            }
            Placement if !site.is_placing => Some("the kernel does not place memory".to_owned()),
            NoPlacement if site.is_placing => Some("the kernel places memory".to_owned()),
            OwnMachine if !site.is_own => Some("it takes an emulated machine".to_owned()),
            Root if !(site.is_own && site.is_root) => {
                Some("it takes an emulated machine, and root".to_owned())
            }
            Nodes(_) | OneNode | Memories(_) | Placement | NoPlacement | OwnMachine | Root => None,
        };
        self.needs.iter().find_map(lack)
    }
}

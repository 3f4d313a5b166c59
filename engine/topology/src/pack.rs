//! Which CPUs a job gets that asks for several of its own: whole cores, near to each other.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::{CacheKind, Cpu, CpuId, CpuSet, Topology};

impl Topology {
    /// `count` of the CPUs that are `free`, or all of them where there are fewer.
    ///
    /// They are of cores that are wholly free, where those suffice, and lie in the smallest cache or
    /// node that has enough of them; of equal places in the one that has the fewest, so that large
    /// ones stay large. What no place has begins on the node that has most and goes on with the nearest.
    ///
    /// ```
    /// use reiver_topology::{CpuSet, Topology};
    ///
    /// let machine = Topology::synthetic("NUMANode:2 Core:4 PU:2")?;
    /// let free: CpuSet = "1-15".parse()?;
    /// assert_eq!(machine.pack(&free, 4).to_string(), "2-5");
    /// assert_eq!(machine.pack(&free, 8).to_string(), "8-15");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pack(&self, free: &CpuSet, count: usize) -> CpuSet {
        let free = self.cpus_where(|cpu| free.contains(cpu.id));
        let whole = self.whole_cores(&free);
        let wanted = if whole.len() >= count { &whole } else { &free };
        let place = match self.smallest_place(wanted, &whole, count) {
            Some(place) => vec![place],
            None => self.nodes_around(wanted),
        };
        let mut packed = CpuSet::new();
        for free in [&whole, wanted] {
            for part in &place {
                let left = count - packed.len();
                let more = part.intersection(free).difference(&packed);
                packed = packed.union(&self.by_cores(&more).take(left).collect());
            }
        }
        packed
    }

    fn cpus_where(&self, which: impl Fn(&Cpu) -> bool) -> CpuSet {
        let cpus = self.cpus().iter().filter(|cpu| which(cpu));
        cpus.map(|cpu| cpu.id).collect()
    }

    /// Those of `free` that share their core with free ones only.
    fn whole_cores(&self, free: &CpuSet) -> CpuSet {
        let mut is_whole: BTreeMap<u32, bool> = BTreeMap::new();
        for cpu in self.cpus() {
            *is_whole.entry(cpu.core).or_insert(true) &= free.contains(cpu.id);
        }
        self.cpus_where(|cpu| is_whole[&cpu.core])
    }

    /// The smallest cache or node with so many of `free`; of equal ones that with the most whole cores
    /// that serve, then that with the fewest free.
    fn smallest_place(&self, free: &CpuSet, whole: &CpuSet, count: usize) -> Option<CpuSet> {
        let caches = self.caches().iter();
        let caches = caches.filter(|cache| cache.kind != CacheKind::Instruction);
        let nodes = self.nodes().filter_map(|id| self.node(id));
        let places = caches.map(|cache| &cache.cpus);
        let places = places.chain(nodes.map(|node| &node.cpus));
        let enough = places.filter_map(|place| {
            let free = place.intersection(free);
            let whole = free.intersection(whole).len().min(count);
            let key = (place.len(), Reverse(whole), free.len(), free.first());
            (free.len() >= count).then_some((key, place))
        });
        let (_, place) = enough.min_by_key(|(key, _)| *key)?;
        Some(place.clone())
    }

    /// The CPUs of each node: that with the most of `free` first, then those nearest to it.
    fn nodes_around(&self, free: &CpuSet) -> Vec<CpuSet> {
        let nodes = self.nodes().filter_map(|id| self.node(id));
        let first = nodes.max_by_key(|node| {
            let free = node.cpus.intersection(free);
            (free.len(), Reverse(node.id))
        });
        let Some(first) = first else {
            return Vec::new();
        };
        let others = self.nearest_nodes(first.id);
        let nodes = [first.id].into_iter().chain(others);
        nodes
            .filter_map(|id| Some(self.node(id)?.cpus.clone()))
            .collect()
    }

    /// The CPUs of a set, core by core.
    fn by_cores(&self, cpus: &CpuSet) -> impl Iterator<Item = CpuId> {
        let mut cpus: Vec<&Cpu> = cpus.iter().filter_map(|id| self.cpu(id)).collect();
        cpus.sort_by_key(|cpu| (cpu.core, cpu.id));
        cpus.into_iter().map(|cpu| cpu.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(machine: &str, free: &str, count: usize) -> String {
        let machine = Topology::synthetic(machine).expect("a machine");
        let free = free.parse().expect("a set");
        machine.pack(&free, count).to_string()
    }

    #[test]
    fn the_smallest_place_that_has_enough_is_taken() {
        let machine = "NUMANode:2 L3:2 Core:2 PU:1";
        assert_eq!(packed(machine, "0-7", 2), "0-1");
        assert_eq!(packed(machine, "1-7", 2), "2-3");
        assert_eq!(packed(machine, "1,3-7", 2), "4-5");
        assert_eq!(packed(machine, "1,3-7", 3), "4-6");
        assert_eq!(packed(machine, "0-7", 5), "0-4");
        assert_eq!(packed(machine, "1,4,7", 9), "1,4,7");
        assert_eq!(packed(machine, "0-7", 0), "");
        assert_eq!(packed(machine, "", 3), "");
        assert_eq!(packed(machine, "90", 1), "");
    }

    #[test]
    fn the_fullest_of_equal_places_is_taken() {
        assert_eq!(packed("NUMANode:3 Core:4", "0-3,5-7,8-11", 3), "5-7");
    }

    #[test]
    fn whole_cores_come_before_halves_of_them() {
        let siblings_far = "NUMANode:2 Core:4 PU:2(indexes=2*8:1*2)";
        assert_eq!(packed(siblings_far, "0-15", 4), "0-1,8-9");
        assert_eq!(packed(siblings_far, "1-15", 2), "1,9");
        assert_eq!(packed(siblings_far, "0-7,15", 2), "7,15");
        assert_eq!(packed(siblings_far, "0-7,15", 4), "4-5,7,15");
        assert_eq!(packed(siblings_far, "0-6,8,12", 4), "0,4,8,12");
        assert_eq!(packed(siblings_far, "0-7", 3), "0-2");
    }

    #[test]
    fn what_no_node_has_goes_on_with_the_nearest() {
        let machine = "NUMANode:3 Core:2 distances=10,30,20;30,10,20;20,20,10";
        assert_eq!(packed(machine, "0-5", 4), "0-1,4-5");
        assert_eq!(packed(machine, "0,2-5", 3), "2-4");
    }
}

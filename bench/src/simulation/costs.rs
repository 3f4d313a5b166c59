//! What things cost on the machines that are simulated: one table, with where each figure was
//! published.
//!
//! The machines are of several makes and years, so none of this is exact for any one of them; that is
//! why the case `sensitivity` halves and doubles each. Costs are in nanoseconds.
//!
//! What Cilk-5's authors, David and others (for one hop) and Intel say was looked up again in 2026. The
//! tables of Molka, Falsafi and Baumann could not be reached then, only that the papers are there. Nobody
//! seems to have published what the barrier costs on many cores.

/// A table of costs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Costs {
    by_constant: [f64; CONSTANTS.len()],
}

/// One cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Constant {
    /// Push a fork and take it back, nobody having asked for it.
    Fork,
    /// Look at a word of another worker that has not changed since the last look.
    Probe,
    /// Bring home a cache line that another core of the node has written.
    LineNear,
    /// The same from another socket, one hop away.
    LineFar,
    /// Beyond 1: how much longer a memory access takes that goes to a node one hop away.
    RemoteExtra,
    /// What waking costs who wakes.
    WakeCall,
    /// From that call to the first instruction of who is woken.
    WakeTurn,
    /// Enter the kernel's scheduler, to sleep or to yield.
    Kernel,
    /// One spin in a wait.
    Spin,
    /// Make all running threads pass a fence, for who asks for it.
    Barrier,
    /// The same for each thread that runs, which is interrupted.
    Interrupt,
}

/// A constant with its value, and where it was published.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) constant: Constant,
    pub(super) name: &'static str,
    value: f64,
    /// Figure, paper, year.
    #[cfg_attr(not(test), expect(dead_code, reason = "it is there to be read"))]
    source: &'static str,
}

const fn published(
    constant: Constant,
    name: &'static str,
    value: f64,
    source: &'static str,
) -> Published {
    Published {
        constant,
        name,
        value,
        source,
    }
}

/// In the order of [`Constant`].
pub(super) const CONSTANTS: [Published; 11] = [
    published(
        Constant::Fork,
        "fork",
        5.0,
        "a spawn costs 2 to 6 times a C call: Frigo, Leiserson, Randall, The Implementation of the \
         Cilk-5 Multithreaded Language, 1998; 4 calls of 1.25 ns",
    ),
    published(
        Constant::Probe,
        "probe",
        21.2,
        "L3 hit, 21.2 ns: Molka, Hackenberg, Schöne, Nagel, Cache Coherence Protocol and Memory \
         Performance of the Intel Haswell-EP Architecture, 2015; as for a line that has left L2",
    ),
    published(
        Constant::LineNear,
        "near line",
        53.0,
        "modified line in the L1 of another core of the socket, 53 ns: Molka et al., 2015",
    ),
    published(
        Constant::LineFar,
        "far line",
        113.0,
        "modified line in a core of the other socket, 113 ns: Molka et al., 2015; two hops cost 400 \
         cycles where one costs 289: David, Guerraoui, Trigonakis, Everything You Always Wanted to \
         Know about Synchronization but Were Afraid to Ask, 2013",
    ),
    published(
        Constant::RemoteExtra,
        "remote memory",
        0.51,
        "memory at 96.4 ns locally, at 146 ns on the other socket: Molka et al., 2015",
    ),
    published(
        Constant::WakeCall,
        "wake call",
        960.0,
        "futex wake, 2700 cycles of a Xeon at 2.8 GHz: Falsafi, Guerraoui, Picorel, Trigonakis, \
         Unlocking Energy, 2016",
    ),
    published(
        Constant::WakeTurn,
        "wake latency",
        2500.0,
        "from futex wake to running again, at least 7000 cycles: Falsafi et al., 2016",
    ),
    published(
        Constant::Kernel,
        "sleep call",
        750.0,
        "futex sleep, 2100 cycles: Falsafi et al., 2016",
    ),
    published(
        Constant::Spin,
        "spin",
        50.0,
        "PAUSE takes up to 140 cycles on Skylake, which is 50 ns at 2.8 GHz, less before and after: \
         Intel 64 and IA-32 Architectures Optimization Reference Manual, 2016",
    ),
    published(
        Constant::Barrier,
        "barrier",
        14_000.0,
        "TLB shootdown by interrupts on Linux with 32 cores, some 35,000 cycles at 2.5 GHz, as the \
         expedited membarrier interrupts likewise: Baumann et al., The Multikernel, 2009, figure 7",
    ),
    published(
        Constant::Interrupt,
        "interrupt",
        320.0,
        "the trap of an inter-processor interrupt, about 800 cycles: Baumann et al., 2009",
    ),
];

/// How much dearer two hops are than one: for a line, and taken for memory too.
const SECOND_HOP: f64 = 400.0 / 289.0;
/// Distances of firmware for a node itself, for one hop and for two.
const SELF: u32 = 10;
const ONE_HOP: u32 = 21;
const TWO_HOPS: u32 = 31;

impl Costs {
    /// As published.
    pub(super) fn published() -> Costs {
        Costs {
            by_constant: CONSTANTS.map(|known| known.value),
        }
    }

    /// With one of them so many times as large.
    pub(super) fn times(mut self, constant: Constant, factor: f64) -> Costs {
        self.by_constant[constant as usize] *= factor;
        self
    }

    /// With one of them as it was measured.
    pub(super) fn with(mut self, constant: Constant, value: f64) -> Costs {
        self.by_constant[constant as usize] = value;
        self
    }

    pub(super) fn of(&self, constant: Constant) -> f64 {
        self.by_constant[constant as usize]
    }

    /// In whole nanoseconds.
    pub(super) fn ns(&self, constant: Constant) -> u64 {
        rounded(self.of(constant))
    }

    /// To bring a line home over a distance as firmware gives it: straight lines between the measured
    /// points.
    pub(super) fn line_ns(&self, distance: u32) -> f64 {
        let (near, far) = (self.of(Constant::LineNear), self.of(Constant::LineFar));
        between(distance, [near, far, far * SECOND_HOP])
    }

    /// How many times as long a memory access takes over a distance.
    pub(super) fn memory_factor(&self, distance: u32) -> f64 {
        let one_hop = 1.0 + self.of(Constant::RemoteExtra);
        between(distance, [1.0, one_hop, one_hop * SECOND_HOP])
    }
}

fn between(distance: u32, [own, one, two]: [f64; 3]) -> f64 {
    let part = |from: u32, to: u32| f64::from(distance.saturating_sub(from)) / f64::from(to - from);
    if distance <= ONE_HOP {
        own + (one - own) * part(SELF, ONE_HOP)
    } else {
        one + (two - one) * part(ONE_HOP, TWO_HOPS)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "costs are positive and far below 2^53"
)]
pub(super) fn rounded(ns: f64) -> u64 {
    ns.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_stands_in_its_place_and_names_its_source() {
        for (index, known) in CONSTANTS.iter().enumerate() {
            assert_eq!(known.constant as usize, index, "{}", known.name);
            let is_year = |word: &str| {
                let digits = word.trim_end_matches([',', ';', '.']);
                digits.len() == 4 && digits.parse::<u32>().is_ok_and(|year| year > 1990)
            };
            assert!(known.source.split(' ').any(is_year), "{}", known.name);
        }
    }

    #[test]
    fn farther_is_dearer() {
        let costs = Costs::published();
        let lines = [10, 11, 21, 31, 32].map(|distance| costs.line_ns(distance));
        assert!(lines.is_sorted(), "{lines:?}");
        assert!((costs.line_ns(31) / costs.line_ns(21) - SECOND_HOP).abs() < 1e-9);
        assert!((costs.memory_factor(10) - 1.0).abs() < 1e-9);
    }
}

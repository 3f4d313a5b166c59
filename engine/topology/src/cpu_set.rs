//! Sets of CPUs, in the words of the kernel: `0-3,8` and `00000000,0000000f`.

use std::fmt;
use std::str::FromStr;

/// A hardware thread, by the operating system's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub u32);

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of CPUs, of any size.
///
/// Reads and prints as the kernel's lists do:
///
/// ```
/// use reiver_topology::{CpuId, CpuSet};
///
/// let set: CpuSet = "0-3,8".parse()?;
/// assert!(set.contains(CpuId(8)));
/// assert_eq!(set.to_string(), "0-3,8");
/// # Ok::<(), reiver_topology::ParseCpuSetError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct CpuSet {
    /// Bit `n % 64` of word `n / 64` is CPU n. The last word is never zero, so that equal sets are
    /// equal values.
    words: Vec<u64>,
}

/// The largest CPU number that a list may name. Linux is built for at most 8,192 CPUs; a number
/// beyond this is garbage, and would only cost memory.
const LARGEST_CPU: u32 = (1 << 20) - 1;

impl CpuSet {
    /// The largest CPU that a set can hold.
    pub(crate) const LARGEST: CpuId = CpuId(LARGEST_CPU);

    /// The empty set.
    pub fn new() -> CpuSet {
        CpuSet::default()
    }

    /// Adds `cpu`.
    ///
    /// # Panics
    /// If its number is 1,048,576 or more.
    pub fn insert(&mut self, cpu: CpuId) {
        assert!(cpu.0 <= LARGEST_CPU, "no machine has a CPU {cpu}");
        let word = cpu.0 as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (cpu.0 % 64);
    }

    /// True if `cpu` is in the set.
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.words
            .get(cpu.0 as usize / 64)
            .is_some_and(|word| word >> (cpu.0 % 64) & 1 == 1)
    }

    /// How many CPUs are in the set.
    pub fn len(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// True if no CPU is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Its CPUs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + '_ {
        self.words.iter().zip(0..).flat_map(|(&word, index)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| CpuId(index * 64 + bit))
        })
    }

    /// The CPU with the lowest number.
    pub fn first(&self) -> Option<CpuId> {
        self.iter().next()
    }

    /// True if every CPU of this set is in `other`.
    pub fn is_subset(&self, other: &CpuSet) -> bool {
        let mut words = self.words.iter().enumerate();
        words.all(|(i, a)| a & !other.word(i) == 0)
    }

    /// The CPUs that are in either set.
    pub fn union(&self, other: &CpuSet) -> CpuSet {
        let longest = self.words.len().max(other.words.len());
        let words = (0..longest).map(|i| self.word(i) | other.word(i));
        CpuSet::from_words(words.collect())
    }

    /// The CPUs that are in both sets.
    pub fn intersection(&self, other: &CpuSet) -> CpuSet {
        let words = self.words.iter().zip(&other.words);
        CpuSet::from_words(words.map(|(a, b)| a & b).collect())
    }

    /// The CPUs of this set that are not in `other`.
    pub fn difference(&self, other: &CpuSet) -> CpuSet {
        let words = self.words.iter().enumerate();
        CpuSet::from_words(words.map(|(i, a)| a & !other.word(i)).collect())
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// From the words of an affinity mask, least first.
    pub(crate) fn from_words(mut words: Vec<u64>) -> CpuSet {
        while words.last() == Some(&0) {
            words.pop();
        }
        CpuSet { words }
    }

    /// The words of an affinity mask, least first.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Reads a mask as old kernels print it: 32-bit hexadecimal words, the highest first.
    ///
    /// # Errors
    /// Where a word is not hexadecimal, or longer than eight digits.
    pub fn from_mask_str(text: &str) -> Result<CpuSet, ParseCpuSetError> {
        CpuSet::from_mask_words(text, |word| u32::from_str_radix(word, 16).ok())
    }

    /// Reads a mask as hwloc prints it: as [`from_mask_str`](CpuSet::from_mask_str) with `0x` before
    /// a word, and nothing for a word of zeros.
    pub(crate) fn from_hwloc_str(text: &str) -> Result<CpuSet, ParseCpuSetError> {
        CpuSet::from_mask_words(text, |word| match word {
            "" => Some(0),
            _ => u32::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok(),
        })
    }

    fn from_mask_words(
        text: &str,
        read: impl Fn(&str) -> Option<u32>,
    ) -> Result<CpuSet, ParseCpuSetError> {
        let refused = || ParseCpuSetError {
            text: text.trim().to_owned(),
        };
        let halves: Vec<u64> = text
            .trim()
            .rsplit(',')
            .map(|word| read(word).map(u64::from).ok_or_else(refused))
            .collect::<Result<_, _>>()?;
        if halves.len() > LARGEST_CPU as usize / 32 {
            return Err(refused());
        }
        let words = halves
            .chunks(2)
            .map(|pair| pair[0] | pair.get(1).copied().unwrap_or(0) << 32)
            .collect();
        Ok(CpuSet::from_words(words))
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> CpuSet {
        let mut set = CpuSet::new();
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

impl FromStr for CpuSet {
    type Err = ParseCpuSetError;

    /// Reads the kernel's list format; an empty text is the empty set.
    fn from_str(text: &str) -> Result<CpuSet, ParseCpuSetError> {
        let refused = || ParseCpuSetError {
            text: text.trim().to_owned(),
        };
        let number = |digits: &str| -> Result<u32, ParseCpuSetError> {
            let number = digits.trim().parse().map_err(|_| refused())?;
            if number > LARGEST_CPU {
                Err(refused())
            } else {
                Ok(number)
            }
        };
        let mut set = CpuSet::new();
        for part in text
            .trim()
            .split(',')
            .filter(|part| !part.trim().is_empty())
        {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(refused());
            }
            (first..=last).for_each(|cpu| set.insert(CpuId(cpu)));
        }
        Ok(set)
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| next.0 == last.0 + 1) {
                last = next;
            }
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// A text that is no list or mask of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no set of CPUs; write it as the kernel does, like 0-3,8")]
pub struct ParseCpuSetError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_reads_as_the_kernel_writes_it() {
        for (text, count) in [("", 0), ("0", 1), ("0-3,8\n", 5), ("0-3,2-5", 6), ("1,", 1)] {
            assert_eq!(
                text.parse::<CpuSet>().map(|set| set.len()),
                Ok(count),
                "{text:?}"
            );
        }
        for text in ["x", "3-1", "1-", "-1", "99999999999", "0-99999999"] {
            assert!(text.parse::<CpuSet>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_mask_has_its_highest_word_first() {
        let set = CpuSet::from_mask_str("00000001,00000000,0000000f").expect("a mask");
        assert_eq!(set.to_string(), "0-3,64");
        assert!(CpuSet::from_mask_str("100000000").is_err());
        assert!(CpuSet::from_mask_str("").is_err());
    }

    #[test]
    fn hwloc_leaves_words_of_zeros_out() {
        for (text, set) in [
            ("0x0", ""),
            ("0x000000ff,,0x0000ff00", "8-15,64-71"),
            ("0x00000001,,,0x0", "96"),
        ] {
            let read = CpuSet::from_hwloc_str(text).map(|set| set.to_string());
            assert_eq!(read.as_deref(), Ok(set), "{text}");
        }
        for text in ["0xf...f", "0xx", "0x100000000", "-1", "0x0;"] {
            assert!(CpuSet::from_hwloc_str(text).is_err(), "{text}");
        }
        assert!(CpuSet::from_hwloc_str(&",".repeat(1 << 20)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(cpus in proptest::collection::btree_set(0u32..300, 0..60)) {
            let set: CpuSet = cpus.iter().map(|&cpu| CpuId(cpu)).collect();
            prop_assert_eq!(set.len(), cpus.len());
            prop_assert!(set.iter().map(|cpu| cpu.0).eq(cpus.iter().copied()));
            prop_assert_eq!(set.to_string().parse::<CpuSet>(), Ok(set));
        }

        #[test]
        fn sets_combine_cpu_by_cpu(
            a in proptest::collection::btree_set(0u32..200, 0..60),
            b in proptest::collection::btree_set(0u32..200, 0..60),
        ) {
            let set = |cpus: &mut dyn Iterator<Item = &u32>| -> CpuSet { cpus.map(|&cpu| CpuId(cpu)).collect() };
            let (of_a, of_b) = (set(&mut a.iter()), set(&mut b.iter()));
            prop_assert_eq!(of_a.union(&of_b), set(&mut a.union(&b)));
            prop_assert_eq!(of_a.intersection(&of_b), set(&mut a.intersection(&b)));
            prop_assert_eq!(of_a.difference(&of_b), set(&mut a.difference(&b)));
            prop_assert_eq!(of_a.is_subset(&of_b), a.is_subset(&b));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<CpuSet>();
            let _ = CpuSet::from_mask_str(&text);
        }
    }
}

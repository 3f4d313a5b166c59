//! Items in groups, all in one piece of memory: a group costs four bytes.

/// Groups by their numbers, from 0.
#[derive(Debug)]
pub(crate) struct Grouped<T> {
    /// Where each begins, and where the last one ends.
    begins: Vec<u32>,
    items: Vec<T>,
}

impl<T: Copy> Grouped<T> {
    /// No groups yet, but room for some.
    pub(crate) fn with_capacity(groups: usize) -> Self {
        let mut begins = Vec::with_capacity(groups + 1);
        begins.push(0);
        let items = Vec::with_capacity(groups);
        Self { begins, items }
    }

    /// So many groups of items that come in any order, each with its group; a group keeps the order of its
    /// own. They are asked for twice: to be counted first.
    pub(crate) fn sorted<I: Iterator<Item = (u32, T)>>(
        groups: usize,
        items: impl Fn() -> I,
    ) -> Self {
        // A place further while the begins still move: each is where its group's next item goes.
        let mut begins = vec![0_u32; groups + 2];
        for (group, _) in items() {
            let count = &mut begins[group as usize + 2];
            *count = count.checked_add(1).expect(TOO_MANY);
        }
        for group in 2..begins.len() {
            begins[group] = begins[group]
                .checked_add(begins[group - 1])
                .expect(TOO_MANY);
        }
        let count = begins[groups + 1] as usize;
        let mut sorted = match items().next() {
            Some((_, any)) => vec![any; count],
            None => Vec::new(),
        };
        for (group, item) in items() {
            let next = &mut begins[group as usize + 1];
            sorted[*next as usize] = item;
            *next += 1;
        }
        begins.pop();
        let items = sorted;
        Self { begins, items }
    }

    /// Adds a group, and returns its number.
    pub(crate) fn push(&mut self, group: impl IntoIterator<Item = T>) -> u32 {
        let number = u32::try_from(self.len()).expect("no more groups than jobs");
        self.items.extend(group);
        self.begins
            .push(u32::try_from(self.items.len()).expect(TOO_MANY));
        number
    }

    pub(crate) fn len(&self) -> usize {
        self.begins.len() - 1
    }

    pub(crate) fn get(&self, group: u32) -> &[T] {
        let [begin, end] = [group, group + 1].map(|at| self.begins[at as usize] as usize);
        &self.items[begin..end]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[T]> {
        let ends = self.begins.windows(2);
        ends.map(|ends| &self.items[ends[0] as usize..ends[1] as usize])
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.begins.shrink_to_fit();
        self.items.shrink_to_fit();
    }
}

const TOO_MANY: &str = "more than four billion needs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_what_was_put_there_in_its_order() {
        let mut grouped = Grouped::with_capacity(1);
        assert_eq!(
            [grouped.push([]), grouped.push([5, 3]), grouped.push([9])],
            [0, 1, 2]
        );
        grouped.shrink_to_fit();
        assert_eq!(grouped.len(), 3);
        assert_eq!(
            [grouped.get(0), grouped.get(1), grouped.get(2)],
            [&[][..], &[5, 3], &[9]]
        );

        let items = [(2, 'a'), (0, 'b'), (2, 'c'), (2, 'b')];
        let grouped = Grouped::sorted(4, || items.into_iter());
        let all: Vec<&[char]> = grouped.iter().collect();
        assert_eq!(all, [&['b'][..], &[], &['a', 'c', 'b'], &[]]);
        let none = Grouped::<char>::sorted(2, || [].into_iter());
        assert_eq!((none.len(), none.get(1)), (2, &[][..]));
    }
}

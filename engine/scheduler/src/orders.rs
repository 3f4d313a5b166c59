//! The steal orders of an engine's workers, each found when it is first needed.
//!
//! To find one asks for every cache, which may still have to be read, and nobody steals as long as
//! there is nothing to steal: so an engine is built, and has its first result, without any.

use std::sync::OnceLock;

use reiver_topology::{Seat, Topology};

use crate::steal_order::{StealOrder, caches_of, steal_order};

/// By seat.
#[derive(Debug)]
pub(crate) struct StealOrders {
    seats: Vec<Seat>,
    caches_of_seat: OnceLock<Vec<Vec<usize>>>,
    /// In the order of `seats`.
    orders: Box<[OnceLock<StealOrder>]>,
}

impl StealOrders {
    pub(crate) fn new(seats: &[Seat]) -> StealOrders {
        StealOrders {
            seats: seats.to_vec(),
            caches_of_seat: OnceLock::new(),
            orders: seats.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// That of a seat, if somebody has needed it before.
    #[inline]
    pub(crate) fn known(&self, seat: usize) -> Option<&StealOrder> {
        self.orders[seat].get()
    }

    /// That of a seat; whoever else needs it meanwhile waits for it.
    #[cold]
    pub(crate) fn find(&self, machine: &Topology, seat: usize) -> &StealOrder {
        self.orders[seat].get_or_init(|| {
            let of_seats = || self.seats.iter().map(|seat| caches_of(machine, seat));
            let caches_of_seat = self.caches_of_seat.get_or_init(|| of_seats().collect());
            steal_order(machine, &self.seats, caches_of_seat, seat)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steal_order::steal_orders;

    #[test]
    fn an_order_that_is_found_late_is_the_same() {
        let machine = Topology::synthetic("NUMANode:4 L3:2 Core:4 PU:2").expect("a machine");
        let seats = machine.seats(48);
        let orders = StealOrders::new(&seats);
        for (seat, order) in steal_orders(&machine, &seats).iter().enumerate().rev() {
            assert_eq!(orders.known(seat), None);
            assert_eq!(orders.find(&machine, seat), order);
            assert_eq!(orders.known(seat), Some(order));
        }
    }
}

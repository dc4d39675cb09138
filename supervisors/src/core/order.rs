//! A new start order for children that already have one.
//!
//! A child's number is its place in the order, so a new order means new numbers, everywhere. Only what lives already
//! keeps telling the old one; `moved` translates that until the life ends.

use std::collections::HashMap;

use super::Supervisor;
use crate::life::Seq;

impl Supervisor {
    /// Gives the children this order; all of them are in it once. Those from `added` on are new to the supervisor.
    pub(super) fn reorder(&mut self, order: &[Seq], added: Seq) {
        if order.is_sorted() {
            return;
        }
        let numbers: HashMap<Seq, Seq> = order.iter().copied().zip(self.next_seq..).collect();
        self.next_seq += order.len() as u64;
        let new = |old: Seq| numbers.get(&old).copied().unwrap_or(old);
        for (old, child) in std::mem::take(&mut self.children) {
            if let Some(life) = &child.life {
                self.moved.insert(life.number, new(old));
            }
            self.children.insert(new(old), child);
        }
        self.ids.values_mut().for_each(|seq| *seq = new(*seq));
        self.actors.values_mut().for_each(|(seq, _)| *seq = new(*seq));
        self.zombies.values_mut().for_each(|seq| *seq = new(*seq));
        self.deferred.iter_mut().for_each(|(seq, ..)| *seq = new(*seq));
        self.timers.renumber(new);
        if let Some(plan) = &mut self.plan {
            let known: Vec<Seq> = order.iter().copied().filter(|seq| *seq < added).collect();
            plan.renumber(new, &known);
        }
    }

    /// The number by which a child is known now that a life of it knows as `seq`.
    pub(super) fn now_at(&self, seq: Seq, life: u64) -> Seq {
        if self.moved.is_empty() { seq } else { self.moved.get(&life).copied().unwrap_or(seq) }
    }
}

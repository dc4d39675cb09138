//! What the model's tree looks like.

use super::world::{Gid, Is, Kid, Life, World};

impl World {
    fn state(&self, kid: &Kid) -> String {
        match &kid.is {
            Is::Up(_) => "running".to_owned(),
            Is::Starting(_) => "starting".to_owned(),
            Is::Stopping { .. } => "stopping".to_owned(),
            Is::Waiting(until) => format!("waiting {} after {}", until - self.now, kid.past.row),
            Is::Parked => format!("parked for {}", kid.past.error.as_deref().unwrap_or_default()),
            Is::Down => "stopped".to_owned(),
        }
    }

    pub(crate) fn which(&self, gid: Gid) -> String {
        let kids = self.lives[&gid].in_order();
        let shown = kids.into_iter().map(|kid| format!("{} {} #{}", kid.plant.id, self.state(kid), kid.incarnation));
        shown.collect::<Vec<_>>().join(", ")
    }

    /// The tree below a supervisor with all that a snapshot shows.
    pub(crate) fn look(&self, gid: Gid) -> String {
        let life = &self.lives[&gid];
        let state = match life {
            Life { closing: Some(_), .. } => "stopping",
            Life { young: true, .. } => "starting",
            _ => "running",
        };
        let (used, left) = self.used(gid, &life.restarts, !life.flags.parks);
        format!("{} {state} used {used} left {left:?} [{}]", life.path, self.below(gid))
    }

    fn used(&self, gid: Gid, restarts: &[u64], counted: bool) -> (u32, Option<u32>) {
        let flags = &self.lives[&gid].flags;
        let recent = restarts.iter().filter(|at| counted && self.now - **at <= flags.window).count();
        let recent = u32::try_from(recent).expect("few");
        (recent, counted.then(|| flags.max.saturating_sub(recent)))
    }

    fn below(&self, gid: Gid) -> String {
        let kids = self.lives[&gid].in_order().into_iter().map(|kid| {
            let up = if let Is::Up(since) = kid.is { self.now - since } else { 0 };
            let parks = self.lives[&gid].flags.parks;
            let (used, left) = match kid.group {
                Some(below) => {
                    let life = &self.lives[&below];
                    self.used(below, &life.restarts, !life.flags.parks)
                }
                None => self.used(gid, &kid.past.own, parks),
            };
            let below = kid.group.map(|below| self.below(below)).unwrap_or_default();
            let error = kid.past.error.as_deref().unwrap_or("none");
            format!(
                "{} {} #{} up {up} used {used} left {left:?} restarts {} error {error} [{below}]",
                kid.plant.id,
                self.state(kid),
                kid.incarnation,
                kid.past.count
            )
        });
        kids.collect::<Vec<_>>().join(", ")
    }
}

//! The outward interface, sentence by sentence, as an outsider finds it.

mod incidents;
mod parked;
mod refusals;
mod reload;
mod start_up;
mod stopped;

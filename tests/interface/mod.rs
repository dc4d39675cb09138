//! The outward interface, sentence by sentence, as an outsider finds it.

mod parked;
mod refusals;
mod reload;
mod start_up;
mod stopped;

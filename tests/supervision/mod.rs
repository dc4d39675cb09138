//! Supervision in the built binary: workers that hang, that crash together, that crash for ever; tenants that use up
//! what they may.

mod hung;
mod loops;
mod many;

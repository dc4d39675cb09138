//! OTP's contract, point by point as the crate's table numbers them.

mod p01_flags;
mod p02_specs;
mod p03_start;
mod p04_exits;
mod p05_strategies;
mod p06_intensity;
mod p07_retry;
mod p08_shutdown;
mod p09_reports;
mod p10_manage;
mod p11_auto_shutdown;
mod p12_memory;
mod p13_change;
mod p14_bridge;
mod p15_beyond;
mod p16_tuning;

//! Clocks whose readings other processes compare with their own.

use nix::time::ClockId;

/// Microseconds of `CLOCK_MONOTONIC`, which every process of this machine reads
/// alike; 0 where there is no such clock.
#[must_use]
pub fn monotonic_usec() -> u64 {
    let Ok(now) = ClockId::CLOCK_MONOTONIC.now() else {
        return 0;
    };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000)
        .saturating_add(nanoseconds / 1000)
}

//! The pure cores with their store, measured in processor time: how long the planner and the scheduler take for a hundred thousand
//! tasks. `cargo bench -p shoal-schedule --bench cores`.

mod plan;
mod schedule;

use std::time::Duration;

use criterion::Criterion;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use shoal_types::IdSource;

/// Identifiers in the order of a counter, scrambled.
pub struct Ids(pub u64);

/// Time of this thread on a processor: what else the machine does must not count.
pub struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel tells of this thread");
        let nanos = told.split_whitespace().next().and_then(|n| n.parse().ok());
        Duration::from_nanos(nanos.expect("its first number is the time on a processor"))
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

impl IdSource for Ids {
    fn random(&mut self) -> [u8; 17] {
        self.0 += 1;
        let mut bytes = [0; 17];
        bytes[..8].copy_from_slice(&self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }
}

fn main() {
    let mut criterion = Criterion::default().with_measurement(CpuTime).configure_from_args();
    plan::bench(&mut criterion);
    schedule::bench(&mut criterion);
    criterion.final_summary();
}

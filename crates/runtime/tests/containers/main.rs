//! Real containers under real supervisors. Needs root, control groups and `/bin/busybox` (Debian: busybox-static).

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, like the tests")]

mod exec;
mod life;
mod limits;
mod output;
mod support;
mod survival;

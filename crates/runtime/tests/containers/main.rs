//! Real containers under real supervisors. Needs root, control groups and `/bin/busybox` (Debian: busybox-static).

mod exec;
mod life;
mod limits;
mod output;
mod support;
mod survival;

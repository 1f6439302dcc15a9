//! Whole stories, each from the first command to the last.

pub mod daemon;
pub mod survival;
pub mod walkthrough;

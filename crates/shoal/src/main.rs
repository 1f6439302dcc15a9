//! The Shoal binary.
fn main() {}

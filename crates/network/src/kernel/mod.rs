//! The kernel's side: netlink sockets, and what is said on them.
//!
//! Owns encoding and decoding. Leaves to others: what should be (`shoal-rules`), and when it is applied (`node`).

pub mod attributes;
pub mod conntrack;
pub mod elements;
pub mod links;
pub mod nft;
pub mod observe;
pub mod socket;

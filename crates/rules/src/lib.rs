//! The desired network state of a machine, as values.
//!
//! Owns what a bridge, its ports, a container's namespace and the firewall should look like, the difference between
//! two such states, and the text form of the firewall. Every value is comparable, so "nothing changed" is an empty
//! difference. Leaves to `shoal-network`: reading the kernel, applying changes, choosing addresses and ports.

pub mod bridge;
pub mod diff;
pub mod firewall;
pub mod link;
pub mod mac;
pub mod nft;
pub mod publish;

pub use bridge::{Attachment, BridgeSpec, CONTAINER_LINK, HostSpec, isolated_links};
pub use diff::{Change, TableChange, plan_links, plan_table};
pub use firewall::{Chain, Element, Guarded, Hook, Map, Table, Value, ValueKind};
pub use link::{Address, Link, LinkKind, LinkState, Peer, Route};
pub use mac::{Mac, MacParseError};
pub use publish::{Protocol, Publication};

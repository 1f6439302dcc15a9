//! shoal-wire
